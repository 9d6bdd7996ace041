//! `polylogue run SCENARIO`: plays a scenario, watched on a screen, as plain lines, or not at all.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use miette::IntoDiagnostic;
use sim::backbone::HubSettings;
use sim::control::Control;
use sim::feed::{self, Feed, Watch};
use sim::run::{Finished, Prepared, RunError, RunOptions};

use crate::app::{App, Command, Options, Sources};
use crate::exit_code::Exit;
use crate::fetching::Downloads;
use crate::input::Keyboard;
use crate::plain::Plain;
use crate::terminal::Screen;

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
    /// How to watch: a screen on a terminal and plain lines elsewhere, unless said otherwise.
    #[arg(long, value_enum, default_value_t)]
    display: Display,
    /// Draw the screen with ASCII only.
    #[arg(long)]
    ascii: bool,
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
        hub: HubSettings::from_environment(),
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
    for notice in prepared.notices() {
        crate::summary::remark(notice);
    }
    let directory = prepared.directory().to_owned();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
    let result = runtime.block_on(watched(prepared, arguments.display.chosen(), arguments.ascii));
    match result {
        Ok(finished) => {
            crate::summary::print(&finished, &directory);
            Ok(Exit::Done)
        }
        Err(error) => {
            crate::summary::complain(&error.to_string());
            Ok(if error.is_input() { Exit::BadInput } else { Exit::RunFailed })
        }
    }
}

async fn watched(prepared: Prepared, display: Display, ascii: bool) -> Result<Finished, RunError> {
    let control = Control::default();
    let directory = prepared.directory().display().to_string();
    let (feed, watch) = feed::channel();
    match display {
        Display::Tui => {
            let options = Options {
                ascii,
                colour: std::env::var_os("NO_COLOR").is_none(),
                run_directory: directory,
            };
            let screen = on_screen(watch, control.clone(), options);
            let (result, screen) = tokio::join!(prepared.play(feed, control), screen);
            if let Err(error) = screen {
                crate::summary::complain(&format!("the screen: {error}"));
            }
            result
        }
        Display::Plain => {
            let (result, ()) = tokio::join!(prepared.play(feed, control), in_lines(watch));
            result
        }
        Display::Auto | Display::None => prepared.play(Feed::unwatched(), control).await,
    }
}

/// Shows the run until the person leaves; a run that is still going then ends after its tick.
async fn on_screen(watch: Watch, control: Control, options: Options) -> std::io::Result<()> {
    let engine = watch.engine();
    let (events, missed) = watch.into_parts();
    let shown = async {
        let mut screen = Screen::take()?;
        let (keyboard, inputs) = Keyboard::open()?;
        let (missed, engine) = (Box::new(missed), Box::new(engine));
        let sources = Sources { inputs, events, missed, engine };
        let obey = |command| match command {
            Command::Pause => control.pause(),
            Command::Resume => control.resume(),
            Command::Stop | Command::Leave => control.stop(),
            // Keys of recordings only.
            Command::Pace(_) | Command::Step | Command::Seek(_) => {}
        };
        let shown = App::new(options).run(&mut screen.terminal, sources, obey).await;
        drop(keyboard);
        shown
    }
    .await;
    control.stop();
    shown
}

#[expect(clippy::print_stdout, reason = "the lines are the display")]
async fn in_lines(watch: Watch) {
    let (mut events, _missed) = watch.into_parts();
    let mut plain = Plain::new(EPISODES_PER_LINE);
    while let Some(event) = events.recv().await {
        if let Some(line) = plain.line(&event) {
            println!("{line}");
        }
    }
}
