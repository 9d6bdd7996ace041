//! `polylogue check SCENARIO`: says whether a scenario can be run, and everything that is wrong with it.

use std::path::PathBuf;

use clap::Args;
use sim::backbone::Devices;
use sim::feed::mib;
use sim::run::footprint::{available, footprint};

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
}

/// Runs the command.
pub(crate) fn check(arguments: &CheckArguments) -> miette::Result<Exit> {
    match sim::scenario::load(&arguments.scenario, &arguments.set, None) {
        Ok(scenario) => {
            crate::output::say(format_args!(
                "{}: {} agents, {} triggers, {} episodes: ready to run",
                Untrusted(&scenario.name),
                scenario.agents.len(),
                scenario.triggers.len(),
                scenario.episodes
            ));
            let predicted = footprint(&scenario, &Devices::default());
            let predicted = predicted.into_values().next().unwrap_or_default();
            match available() {
                Some(bytes) => crate::output::say(format_args!(
                    "memory: {predicted} of {} that are free",
                    mib(bytes)
                )),
                None => crate::output::say(format_args!("memory: {predicted}")),
            }
            Ok(Exit::Done)
        }
        Err(problems) => Err(problems.into()),
    }
}
