//! `polylogue resume RUN`: goes on with a run that was cut off, as if nothing had happened.

use std::path::PathBuf;

use clap::Args;
use miette::IntoDiagnostic;
use sim::backbone::{Devices, HubSettings};
use sim::run::{ResumeError, ResumeOptions, Resumed};

use crate::exit_code::Exit;
use crate::fetching::Downloads;
use crate::run::Display;

/// What the command takes.
#[derive(Debug, Args)]
pub(crate) struct ResumeArguments {
    /// Directory of a run that was cut off.
    run: PathBuf,
    /// The scenario's folder, where it is not where it was.
    #[arg(long, value_name = "FOLDER")]
    scenario: Option<PathBuf>,
    /// What runs the models, as for `run`; what the run had where absent.
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
pub(crate) fn resume(arguments: ResumeArguments) -> miette::Result<Exit> {
    let ResumeArguments { run, scenario, device, display, ascii, unchecked } = arguments;
    let options = ResumeOptions {
        directory: run.clone(),
        folder: scenario,
        devices: device,
        hub: HubSettings::from_environment(),
        unchecked,
        ..ResumeOptions::default()
    };
    let mut downloads = Downloads::new();
    match sim::run::resume(&options, &mut |fetching| downloads.show(fetching)) {
        Ok(Resumed::Ready(prepared)) => crate::watching::play(*prepared, display, ascii),
        Ok(Resumed::Finished(summary)) => {
            let (ticks, episodes) = (summary.ticks, summary.episodes);
            crate::summary::remark(&format!(
                "{} came to its end already, after {episodes} episodes and {ticks} ticks: there is nothing \
                 to go on with",
                run.display()
            ));
            Ok(Exit::Done)
        }
        Err(ResumeError::Scenario(problems)) => Err(problems.into()),
        Err(error) if error.is_input() => Err(error).into_diagnostic(),
        Err(error) => {
            crate::summary::complain(&error.to_string());
            Ok(Exit::RunFailed)
        }
    }
}
