//! `polylogue pretrain FOLDER`: makes a backbone from a recipe, with progress as plain lines.

use std::path::PathBuf;

use clap::Args;
use miette::IntoDiagnostic;

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
}

/// Runs the command.
pub(crate) fn pretrain(arguments: &PretrainArguments) -> miette::Result<Exit> {
    let report = |line: &str| crate::output::say(line);
    let card =
        sim::pretraining::pretrain(&arguments.folder, &arguments.out, arguments.tokens, report)
            .into_diagnostic()?;
    crate::output::say(format_args!(
        "held-out loss {:.4} nats/token, perplexity {:.2}; written to {}",
        card.holdout_loss,
        card.holdout_perplexity,
        arguments.out.display()
    ));
    Ok(Exit::Done)
}
