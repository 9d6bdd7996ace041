//! `polylogue report RUN_DIR...`: finished runs side by side, with 95 % intervals.

use std::path::PathBuf;

use clap::Args;
use miette::IntoDiagnostic;

use crate::exit_code::Exit;

/// What the command takes.
#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// Directories of finished runs; those of one folder form a group.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
}

/// Runs the command.
pub(crate) fn report(arguments: &ReportArguments) -> miette::Result<Exit> {
    crate::output::say(sim::report::table(&arguments.runs).into_diagnostic()?);
    Ok(Exit::Done)
}
