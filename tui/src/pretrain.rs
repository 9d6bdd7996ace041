//! `polylogue pretrain FOLDER`: makes a backbone from a recipe, with progress as plain lines.

use std::path::PathBuf;

use clap::Args;
use miette::IntoDiagnostic;
use sim::backbone::DeviceKind;

use crate::exit_code::Exit;

/// What the command takes.
#[derive(Debug, Args)]
pub(crate) struct PretrainArguments {
    /// Folder with `pretrain.toml` and its grammars.
    folder: PathBuf,
    /// Where the model is written.
    #[arg(long, default_value = "runs/pretrain")]
    out: PathBuf,
    /// Train on this many tokens instead of the recipe's.
    #[arg(long)]
    tokens: Option<usize>,
    /// What runs the model: `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value_t)]
    device: DeviceKind,
}

/// Runs the command.
pub(crate) fn pretrain(arguments: &PretrainArguments) -> miette::Result<Exit> {
    let report = |line: &str| crate::output::say(line);
    let PretrainArguments { folder, out, tokens, device } = arguments;
    let card =
        sim::pretraining::pretrain(folder, out, *tokens, *device, report).into_diagnostic()?;
    crate::output::say(format_args!(
        "held-out loss {:.4} nats/token, perplexity {:.2}; written to {}",
        card.holdout_loss,
        card.holdout_perplexity,
        out.display()
    ));
    Ok(Exit::Done)
}
