//! `polylogue bench`: what this machine does with a model, as a table, each figure beside its bound.

use clap::Args;
use sim::backbone::{DeviceKind, HubSettings, Precision};
use sim::bench::{BenchOptions, Figure, bench};

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
    /// What the model is kept and computed in: `f32`, `bf16` or `f16`.
    #[arg(long, default_value = "f32")]
    dtype: Precision,
    /// How many sequences write at once; several numbers with commas. More than one write without adapters,
    /// and with one of their own each.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = [1, 16],
        value_parser = clap::value_parser!(u16).range(1..=4096))]
    sequences: Vec<u16>,
    /// Tokens that each sequence writes for a figure.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u16).range(3..=512))]
    steps: u16,
}

/// Runs the command.
pub(crate) fn measure(arguments: &BenchArguments) -> miette::Result<Exit> {
    let options = BenchOptions {
        model: arguments.model.clone(),
        device: arguments.device,
        precision: arguments.dtype,
        sequences: arguments.sequences.iter().copied().map(usize::from).collect(),
        steps: usize::from(arguments.steps),
    };
    let mut head = Some("| what | figure | bound | share |\n|---|---|---|---|");
    let mut show = |figure: &Figure| {
        head.take().into_iter().for_each(crate::output::say);
        crate::output::say(row(figure));
    };
    let result = bench(&options, &HubSettings::from_environment(), &mut |_| {}, &mut show);
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
