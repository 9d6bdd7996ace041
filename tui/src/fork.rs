//! `polylogue fork RUN --at TICK`: a new run with the history of another up to a tick, and a change there.

use std::path::PathBuf;

use clap::Args;
use miette::IntoDiagnostic;
use sim::backbone::{Devices, HubSettings};
use sim::run::{Edit, Exchange, ForkError, ForkOptions, ResumeError};

use crate::exit_code::Exit;
use crate::fetching::Downloads;
use crate::run::Display;

/// What the command takes.
#[derive(Debug, Args)]
pub(crate) struct ForkArguments {
    /// Directory of the parent, finished or not.
    run: PathBuf,
    /// The last tick that both have in common; the next moment where a tick has ended is taken.
    #[arg(long, value_name = "TICK")]
    at: u64,
    /// The new run directory; one under `runs/` where absent.
    #[arg(long, value_name = "RUN_DIR")]
    out: Option<PathBuf>,
    /// Changes a value of the scenario from there on: `channel.text.max_tokens=8`.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Puts other words into a message of an episode that goes on: `12:0=other words`.
    #[arg(long = "edit", value_name = "EPISODE:TURN=TEXT")]
    edit: Vec<Edit>,
    /// Gives an agent other weights, from a folder in PEFT layout.
    #[arg(long = "adapter", value_name = "AGENT=FOLDER")]
    adapter: Vec<Exchange>,
    /// Another seed from there on.
    #[arg(long)]
    seed: Option<u64>,
    /// The scenario's folder, where it is not where it was.
    #[arg(long, value_name = "FOLDER")]
    scenario: Option<PathBuf>,
    /// What runs the models, as for `run`; what the parent had where absent.
    #[arg(long, value_name = "LIST")]
    device: Option<Devices>,
    /// How to watch: a screen on a terminal and plain lines elsewhere, unless said otherwise.
    #[arg(long, value_enum, default_value_t)]
    display: Display,
    /// Draw the screen with ASCII only.
    #[arg(long)]
    ascii: bool,
    /// Go on even where memory is predicted not to suffice, or the device is of another kind.
    #[arg(long)]
    unchecked: bool,
}

/// Runs the command.
pub(crate) fn fork(arguments: ForkArguments) -> miette::Result<Exit> {
    let ForkArguments {
        run,
        at,
        out,
        set,
        edit,
        adapter,
        seed,
        scenario,
        device,
        display,
        ascii,
        unchecked,
    } = arguments;
    let options = ForkOptions {
        parent: run,
        at,
        out,
        set,
        seed,
        edits: edit,
        adapters: adapter,
        folder: scenario,
        devices: device,
        hub: HubSettings::from_environment(),
        arguments: std::env::args().collect(),
        unchecked,
        ..ForkOptions::default()
    };
    let mut downloads = Downloads::new();
    let mut hear = |fetching: &_| downloads.show(fetching);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
    match runtime.block_on(sim::run::fork(&options, &mut hear)) {
        Ok(prepared) => crate::watching::play(prepared, display, ascii),
        Err(ForkError::Resume(ResumeError::Scenario(problems))) => Err(problems.into()),
        Err(error) if error.is_input() => Err(error).into_diagnostic(),
        Err(error) => {
            crate::summary::complain(&error.to_string());
            Ok(Exit::RunFailed)
        }
    }
}
