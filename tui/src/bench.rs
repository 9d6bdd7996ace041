//! `polylogue bench`: what this machine does with a model, as a table, each figure beside its bound.

use clap::Args;
use sim::backbone::{DeviceKind, HubSettings};
use sim::bench::{Figure, bench};

use crate::exit_code::Exit;

/// What the command takes.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// The model: `polylogue-tiny`, a folder that holds config.json, a .gguf file, or
    /// `hub:OWNER/NAME@REVISION`.
    #[arg(long, default_value = "polylogue-tiny")]
    model: String,
    /// Where it runs: `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value_t)]
    device: DeviceKind,
    /// Tokens that each sequence writes for a figure.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u16).range(3..=512))]
    steps: u16,
}

/// Runs the command.
pub(crate) fn measure(arguments: &BenchArguments) -> miette::Result<Exit> {
    crate::output::say("| what | figure | bound | share |\n|---|---|---|---|");
    let steps = usize::from(arguments.steps);
    let result = bench(
        &arguments.model,
        arguments.device,
        steps,
        &HubSettings::from_environment(),
        &mut |_| {},
        &mut |figure| crate::output::say(row(figure)),
    );
    match result {
        Ok(()) => Ok(Exit::Done),
        Err(error) if error.is_input() => Err(miette::Report::msg(error.to_string())),
        Err(error) => {
            crate::summary::complain(&error.to_string());
            Ok(Exit::RunFailed)
        }
    }
}

/// A line of the table.
fn row(figure: &Figure) -> String {
    let Figure { name, value, unit, bound } = figure;
    match bound {
        Some(bound) => {
            let share = 100.0 * value / bound;
            format!("| {name} | {value:.1} {unit} | {bound:.1} | {share:.0} % |")
        }
        None => format!("| {name} | {value:.1} {unit} | | |"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_stands_beside_its_bound() {
        let mut figure =
            Figure { name: "writing".to_owned(), value: 40.0, unit: "tokens/s", bound: Some(50.0) };
        assert_eq!(row(&figure), "| writing | 40.0 tokens/s | 50.0 | 80 % |");
        figure.bound = None;
        assert_eq!(row(&figure), "| writing | 40.0 tokens/s | | |");
    }
}
