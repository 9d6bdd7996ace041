//! `polylogue run SCENARIO`: plays a scenario, watched on a screen, as plain lines, or not at all.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use miette::IntoDiagnostic;
use sim::backbone::{Devices, HubSettings};
use sim::run::RunOptions;

use crate::exit_code::Exit;
use crate::fetching::Downloads;

/// Episodes between two lines of progress in plain mode.
pub(crate) const EPISODES_PER_LINE: u64 = 40;

/// What the command takes.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Folder with a `scenario.toml`, or the file itself.
    scenario: PathBuf,
    /// Where all randomness comes from; wins over the scenario.
    #[arg(long)]
    seed: Option<u64>,
    /// The run directory; a new one under `runs/` where absent.
    #[arg(long, value_name = "RUN_DIR")]
    out: Option<PathBuf>,
    /// What runs the models: `cpu`, `cuda`, `cuda:N`, or several with commas; agents are divided among them.
    #[arg(long, value_name = "LIST", default_value_t)]
    device: Devices,
    /// How to watch: a screen on a terminal and plain lines elsewhere, unless said otherwise.
    #[arg(long, value_enum, default_value_t)]
    display: Display,
    /// Draw the screen with ASCII only.
    #[arg(long)]
    ascii: bool,
    /// Begin even where memory or disk are predicted not to suffice.
    #[arg(long)]
    unchecked: bool,
    /// Changes a value of the scenario: `episodes=100`, `task.support.train=my.csv`, `triggers=[]`.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
}

/// How a run is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Display {
    /// The screen on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// The screen.
    Tui,
    /// Plain lines.
    Plain,
    /// Only the summary.
    None,
}

impl Display {
    /// What `auto` stands for here.
    pub(crate) fn chosen(self) -> Self {
        match self {
            Self::Auto if std::io::stdout().is_terminal() => Self::Tui,
            Self::Auto => Self::Plain,
            other => other,
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: RunArguments) -> miette::Result<Exit> {
    let scenario = sim::scenario::load(&arguments.scenario, &arguments.set, arguments.seed)?;
    let options = RunOptions {
        out: arguments.out,
        devices: arguments.device,
        hub: HubSettings::from_environment(),
        unchecked: arguments.unchecked,
        arguments: std::env::args().collect(),
        ..RunOptions::default()
    };
    let mut downloads = Downloads::new();
    let prepared = sim::run::prepare(scenario, &options, &mut |fetching| downloads.show(fetching));
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) if error.is_input() => return Err(error).into_diagnostic(),
        Err(error) => {
            crate::summary::complain(&error.to_string());
            return Ok(Exit::RunFailed);
        }
    };
    crate::watching::play(prepared, arguments.display, arguments.ascii)
}
