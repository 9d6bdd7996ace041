//! `polylogue check SCENARIO`: says whether a scenario can be run, everything that is wrong with it, and what it
//! needs of the devices that it would run on. Loads no model.

use std::path::PathBuf;

use clap::Args;
use miette::IntoDiagnostic;
use sim::backbone::Devices;
use sim::run::footprint::{Need, needs};
use sim::work::mib;

use crate::exit_code::Exit;
use crate::untrusted::Untrusted;

/// What the command takes.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// Folder with a `scenario.toml`, or the file itself.
    scenario: PathBuf,
    /// Changes a value of the scenario: `seed=3`, `task.support.train=my.csv`, `triggers=[]`.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// What would run the models, as for `run`: whether it can be used, and whether the agents fit into its memory.
    #[arg(long, value_name = "LIST", default_value_t)]
    device: Devices,
}

/// Runs the command.
pub(crate) fn check(arguments: &CheckArguments) -> miette::Result<Exit> {
    let scenario = sim::scenario::load(&arguments.scenario, &arguments.set, None)?;
    crate::output::say(format_args!(
        "{}: {} agents, {} triggers, {} episodes",
        Untrusted(&scenario.name),
        scenario.agents.len(),
        scenario.triggers.len(),
        scenario.episodes
    ));
    let needs = needs(&scenario, &arguments.device).into_diagnostic()?;
    for Need { device, predicted, free } in &needs {
        let free = free.map(|bytes| format!(" of {} that are free", mib(bytes)));
        let free = free.unwrap_or_default();
        crate::output::say(format_args!("memory of {device}: {predicted}{free}"));
    }
    needs.iter().try_for_each(Need::check).into_diagnostic()?;
    crate::output::say(format_args!("ready to run with --device {}", arguments.device));
    Ok(Exit::Done)
}
