//! `polylogue adapter show|combine|merge|unmerge`: what is done with finished adapters.
//!
//! Turns arguments into plain values and prints the answer; decides nothing about adapters.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sim::adapters::error::AdapterError;
use sim::adapters::{self, Combination, Models, Shown, Sign};
use sim::backbone::HubSettings;

use crate::exit_code::Exit;
use crate::fetching::Downloads;
use crate::untrusted::Untrusted;

/// What the command takes.
#[derive(Debug, Args)]
pub(crate) struct AdapterArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say what an adapter is: method, rank, targets, labels, trained numbers, generation, digest.
    Show(ShowArguments),
    /// Make one adapter of several LoRA or rsLoRA adapters.
    Combine(CombineArguments),
    /// Write the model with the adapter's change in its weights.
    Merge(MergeArguments),
    /// Take an adapter out of a merged model again.
    Unmerge(UnmergeArguments),
}

#[derive(Debug, Args)]
struct ShowArguments {
    /// The folder that holds `adapter_config.json`.
    adapter: PathBuf,
    /// `polylogue-tiny`, a folder in Hugging Face layout, a `.gguf` file, or `hub:owner/name@revision`: load the
    /// adapter, check it, compute its digest.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
}

#[derive(Debug, Args)]
struct CombineArguments {
    /// Adapters with their weights, for example `runs/a=0.7 runs/b=-0.3`.
    #[arg(required = true, value_name = "DIR=WEIGHT")]
    parts: Vec<String>,
    /// The model they were trained on: `polylogue-tiny`, a folder, a `.gguf` file, or `hub:owner/name@revision`.
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// How they become one.
    #[arg(long, value_enum)]
    method: Word,
    /// Share of values that are kept, above 0 and up to 1; for all methods but linear and cat.
    #[arg(long, value_name = "D")]
    density: Option<f64>,
    /// How the sign of a value is elected; for ties and `dare_ties`.
    #[arg(long, value_enum)]
    sign: Option<SignWord>,
    /// Where the randomness of `dare_linear` and `dare_ties` comes from; 0 unless given.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// A new or empty folder for the result.
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct MergeArguments {
    /// The model that the adapter was trained on: `polylogue-tiny`, a folder, or `hub:owner/name@revision`.
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// The folder that holds `adapter_config.json`.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// Leave the adapter's classification head behind.
    #[arg(long)]
    without_head: bool,
    /// A new or empty folder for the result.
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct UnmergeArguments {
    /// The merged model.
    #[arg(long, value_name = "MERGED")]
    model: String,
    /// The adapter that was merged into it.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// A new or empty folder for the result.
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
}

/// The methods, as PEFT calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Word {
    /// The weighted sum of the matrices.
    Linear,
    /// Side by side: the exact weighted sum of the updates, at the sum of the ranks.
    Cat,
    /// The largest values, where adapters agree on the sign, averaged.
    Ties,
    /// Random values, scaled up, summed.
    DareLinear,
    /// Random values, scaled up, then as in ties.
    DareTies,
    /// The largest values, summed.
    MagnitudePrune,
}

/// The elections of a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SignWord {
    /// The sign of the sum.
    Total,
    /// The sign of the most.
    Frequency,
}

/// Runs the command.
pub(crate) fn adapter(arguments: &AdapterArguments) -> miette::Result<Exit> {
    let hub = HubSettings::from_environment();
    let mut downloads = Downloads::new();
    let models = Models { hub: &hub, hear: &mut |fetching| downloads.show(fetching) };
    let result = match &arguments.action {
        Action::Show(own) => {
            adapters::show(&own.adapter, own.model.as_deref(), models).map(|shown| lines(&shown))
        }
        Action::Combine(own) => combine(own, models),
        Action::Merge(own) => {
            adapters::merge(&own.model, models, &own.adapter, own.without_head, &own.out)
                .map(|shown| vec![written("the merged model", &own.out, &shown)])
        }
        Action::Unmerge(own) => adapters::unmerge(&own.model, models, &own.adapter, &own.out)
            .map(|shown| vec![written("the model without the adapter", &own.out, &shown)]),
    };
    match result {
        Ok(lines) => {
            print(&lines);
            Ok(Exit::Done)
        }
        Err(error) if error.is_input() => Err(error.into()),
        Err(error) => {
            crate::summary::complain(&error.to_string());
            Ok(Exit::RunFailed)
        }
    }
}

fn combine(own: &CombineArguments, models: Models<'_>) -> Result<Vec<String>, AdapterError> {
    let parts = own.parts.iter().map(|part| split(part)).collect::<Result<Vec<_>, _>>()?;
    let how = combination(own)?;
    let shown =
        adapters::combine(&own.model, models, &parts, &how, own.seed.unwrap_or(0), &own.out)?;
    let mut lines = lines(&shown);
    lines.push(format!("the combined adapter is in {}", Untrusted(&own.out.to_string_lossy())));
    Ok(lines)
}

/// A folder and its weight; a folder's name may hold `=`.
fn split(part: &str) -> Result<(PathBuf, f64), AdapterError> {
    let found = part.rsplit_once('=').and_then(|(path, weight)| {
        let weight = weight.parse::<f64>().ok().filter(|weight| weight.is_finite())?;
        (!path.is_empty()).then(|| (PathBuf::from(path), weight))
    });
    found.ok_or_else(|| {
        let what = format!("`{}` is no adapter with a weight", Untrusted(part));
        AdapterError::setting(what, "write DIR=WEIGHT, for example runs/a=0.7")
    })
}

/// The method with its options; an option that it does not have is refused.
fn combination(own: &CombineArguments) -> Result<Combination, AdapterError> {
    let keeps_all = matches!(own.method, Word::Linear | Word::Cat);
    let elects = matches!(own.method, Word::Ties | Word::DareTies);
    let draws = matches!(own.method, Word::DareLinear | Word::DareTies);
    if (keeps_all && own.density.is_some())
        || (!elects && own.sign.is_some())
        || (!draws && own.seed.is_some())
    {
        return Err(AdapterError::setting(
            "an option does not belong to the method",
            "--density belongs to ties, dare_linear, dare_ties and magnitude_prune, --sign to ties and \
             dare_ties, --seed to dare_linear and dare_ties",
        ));
    }
    let sign = match own.sign {
        None | Some(SignWord::Total) => Sign::Total,
        Some(SignWord::Frequency) => Sign::Frequency,
    };
    let density = own.density.ok_or_else(|| {
        let help =
            "say with --density which share of the values is kept, for example --density 0.5";
        AdapterError::setting("the method needs a density", help)
    });
    Ok(match own.method {
        Word::Linear => Combination::Linear,
        Word::Cat => Combination::Cat,
        Word::Ties => Combination::Ties { density: density?, sign },
        Word::DareLinear => Combination::DareLinear { density: density? },
        Word::DareTies => Combination::DareTies { density: density?, sign },
        Word::MagnitudePrune => Combination::MagnitudePrune { density: density? },
    })
}

/// What an adapter is, one property a line; names come from files of others.
fn lines(shown: &Shown) -> Vec<String> {
    let list = |names: &[String]| Untrusted(&names.join(", ")).to_string();
    let mut lines = vec![format!("method      {}", shown.method)];
    lines.extend(shown.rank.map(|rank| format!("rank        {rank}")));
    if !shown.targets.is_empty() {
        lines.push(format!("targets     {}", list(&shown.targets)));
    }
    if shown.classifies {
        lines.push(format!("labels      {}: {}", shown.labels.len(), list(&shown.labels)));
    }
    lines.push(format!("trained     {} numbers", shown.trained));
    lines.push(format!("generation  {}", shown.generation.0));
    lines.push(match &shown.digest {
        Some(digest) => format!("digest      {digest}"),
        None => "digest      needs the model; name it with --model".to_owned(),
    });
    lines
}

fn written(what: &str, out: &std::path::Path, shown: &Shown) -> String {
    let (out, method) = (out.to_string_lossy(), &shown.method);
    format!("{what} is in {} ({method}, {} numbers)", Untrusted(&out), shown.trained)
}

fn print(lines: &[String]) {
    for line in lines {
        crate::output::say(line);
    }
}
