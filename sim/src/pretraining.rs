//! The recipe of `polylogue pretrain`: a folder with `pretrain.toml` and its grammars becomes a backbone.
//!
//! Writes the model, `curve.csv` (the loss curve) and `card.json` (corpus, tokens, time, held-out
//! perplexity, samples) into an output folder. The same folder and seed give the same weights.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agents::backbone::{Backbone, DecoderConfig};
use agents::device::Device;
use agents::error::ModelError;
use agents::pretrain::{Plan, Pretraining, Progress, Sequences};
use agents::seed::Seed;
use agents::tokenizer::Tokenizer;
use agents::writing::complete;
use serde::{Deserialize, Serialize};

use crate::backbone::DeviceKind;
use crate::clock::Stopwatch;
use crate::corpus::Corpus;
use crate::scenario::suggestion::message;

/// Why pretraining cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PretrainError {
    /// The recipe or a grammar cannot be read.
    #[error("could not read {}", message(format_args!("{}: {reason}", path.display())))]
    Recipe {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An output file cannot be written.
    #[error("could not write {}", message(format_args!("{}: {reason}", path.display())))]
    Output {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The model failed.
    #[error("{}", message(.0))]
    Model(ModelError),
}

// By hand: a derived one would make the error a source, which reports print as it is.
impl From<ModelError> for PretrainError {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

/// `pretrain.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    seed: u64,
    tokens: usize,
    vocabulary: usize,
    vocabulary_documents: usize,
    holdout_sequences: usize,
    report_every: usize,
    evaluate_every: usize,
    corpus: std::collections::BTreeMap<String, f64>,
    model: toml::Table,
    training: Training,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Training {
    length: usize,
    sequences: usize,
    shards: usize,
    learning_rate: f64,
    warm_up: usize,
}

/// What is known of a finished model; written as `card.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Card {
    /// The command that reproduces it.
    pub command: String,
    /// Seed of everything.
    pub seed: u64,
    /// Parameters.
    pub parameters: usize,
    /// Training tokens.
    pub tokens: usize,
    /// Characters per token on held-out text.
    pub characters_per_token: f64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Loss of the last steps, nats a token.
    pub train_loss: f64,
    /// Held-out loss, nats a token.
    pub holdout_loss: f64,
    /// Its exponential.
    pub holdout_perplexity: f64,
    /// Share of held-out 8-token sequences that also occur in as many training tokens as were searched.
    pub holdout_overlap: f64,
    /// Prompts and what the model makes of them, greedily.
    pub samples: Vec<(String, String)>,
}

const PROMPTS: [&str; 6] = [
    "customer: i still wait for my lamp, it should have come on monday\ntopic:",
    "customer: Can I send these boots back? They are too small.\ntopic:",
    "customer: the vase came in pieces\ntopic: damaged item\nagent:",
    "Anna lost her passport at the airport.",
    "question: Tom has 12 apples and gets 5 more. how many apples now?\nanswer:",
    "review: the soup was cold and the waiter was rude.\nfeeling:",
];

/// Runs the recipe in `folder` on a device; `report` hears of progress a few times a minute.
///
/// # Errors
/// When the recipe is wrong, a file cannot be written, or training diverges.
pub fn pretrain(
    folder: &Path,
    out: &Path,
    tokens: Option<usize>,
    device: DeviceKind,
    mut report: impl FnMut(&str),
) -> Result<Card, PretrainError> {
    let (watch, device) = (Stopwatch::start(), device.open()?);
    let recipe_path = folder.join("pretrain.toml");
    let mut recipe: Recipe = toml::from_str(&text(&recipe_path)?)
        .map_err(|e| PretrainError::Recipe { path: recipe_path.clone(), reason: e.to_string() })?;
    recipe.tokens = tokens.unwrap_or(recipe.tokens);
    let corpus = corpus(folder, &recipe)?;
    let seed = Seed::new(recipe.seed);
    let train = seed.child("train");

    let documents = corpus.documents(train).take(recipe.vocabulary_documents);
    let tokenizer = Tokenizer::train(documents, recipe.vocabulary)?;
    report(&format!("vocabulary of {} tokens", tokenizer.vocabulary()));

    let config = config(&recipe, &recipe_path)?;
    let length = recipe.training.length;
    let holdout_texts = corpus.documents(seed.child("holdout"));
    let holdout: Vec<Vec<u32>> = Sequences::new(holdout_texts, &tokenizer, length)
        .take(recipe.holdout_sequences)
        .collect::<Result<_, _>>()?;
    let plan = Plan {
        tokens: recipe.tokens,
        length,
        sequences: recipe.training.sequences,
        shards: recipe.training.shards,
        learning_rate: recipe.training.learning_rate,
        warm_up: recipe.training.warm_up,
        seed,
    };
    let steps = plan.steps();
    let parameters = config.architecture()?.parameters();
    report(&format!("{parameters} parameters, {steps} steps"));
    let mut sequences = Sequences::new(corpus.documents(train), &tokenizer, length);
    let mut pretraining = Pretraining::new(config, plan, &device)?;
    let mut curve = "step,tokens,learning_rate,train_loss,holdout_loss\n".to_owned();
    let mut window = Vec::new();
    let curve_path = out.join("curve.csv");
    create(out)?;
    pretraining.run(&mut sequences, |pretraining, progress: Progress| {
        window.push(progress.loss);
        let last = progress.step == steps;
        let evaluate = last || progress.step.is_multiple_of(recipe.evaluate_every);
        if evaluate || progress.step.is_multiple_of(recipe.report_every) {
            let mean = window.iter().sum::<f64>() / window.len() as f64;
            window.clear();
            let held = if evaluate { Some(pretraining.evaluate(&holdout)?) } else { None };
            let shown = held.map(|loss| format!("{loss:.4}")).unwrap_or_default();
            let Progress { step, tokens, rate, .. } = progress;
            let _ = writeln!(curve, "{step},{tokens},{rate:.6},{mean:.4},{shown}");
            let speed = tokens as f64 / watch.seconds();
            report(&format!(
                "step {step}/{steps}  loss {mean:.3}  held out {shown:>6}  {speed:.0} tokens/s"
            ));
        }
        if evaluate {
            // A long run that is interrupted leaves its latest weights.
            pretraining.save(&tokenizer, out)?;
            let _ = std::fs::write(&curve_path, &curve);
        }
        Ok(())
    })?;
    let train_loss = last_train_loss(&curve);
    let holdout_loss = pretraining.evaluate(&holdout)?;
    pretraining.save(&tokenizer, out)?;
    write(&curve_path, &curve)?;
    let card = Card {
        command: format!("polylogue pretrain {}", folder.display()),
        seed: recipe.seed,
        parameters,
        tokens: recipe.tokens,
        characters_per_token: characters_per_token(&holdout, &tokenizer)?,
        seconds: watch.seconds(),
        train_loss,
        holdout_loss,
        holdout_perplexity: holdout_loss.exp(),
        holdout_overlap: overlap(
            &holdout,
            Sequences::new(corpus.documents(train), &tokenizer, length).take(40_000).flatten(),
        ),
        samples: samples(out, &device)?,
    };
    let json = serde_json::to_string_pretty(&card).unwrap_or_default() + "\n";
    write(&out.join("card.json"), &json)?;
    Ok(card)
}

fn text(path: &Path) -> Result<String, PretrainError> {
    std::fs::read_to_string(path)
        .map_err(|e| PretrainError::Recipe { path: path.into(), reason: e.to_string() })
}

fn create(folder: &Path) -> Result<(), PretrainError> {
    std::fs::create_dir_all(folder)
        .map_err(|e| PretrainError::Output { path: folder.into(), reason: e.to_string() })
}

fn write(path: &Path, text: &str) -> Result<(), PretrainError> {
    std::fs::write(path, text)
        .map_err(|e| PretrainError::Output { path: path.into(), reason: e.to_string() })
}

fn corpus(folder: &Path, recipe: &Recipe) -> Result<Corpus, PretrainError> {
    let mut corpus = Corpus::default();
    for (name, &share) in &recipe.corpus {
        if name == "arithmetic" {
            corpus.add_arithmetic(share);
            continue;
        }
        let path = folder.join("grammar").join(format!("{name}.toml"));
        corpus
            .add_grammar(name, &text(&path)?, share)
            .map_err(|e| PretrainError::Recipe { path, reason: e.to_string() })?;
    }
    Ok(corpus)
}

fn config(recipe: &Recipe, path: &Path) -> Result<DecoderConfig, PretrainError> {
    let mut model = serde_json::to_value(&recipe.model).unwrap_or_default();
    model["vocab_size"] = recipe.vocabulary.into();
    model["tie_word_embeddings"] = true.into();
    model["model_type"] = "llama".into();
    serde_json::from_value(model)
        .map_err(|e| PretrainError::Recipe { path: path.into(), reason: e.to_string() })
}

fn last_train_loss(curve: &str) -> f64 {
    let last = curve.lines().last().unwrap_or_default();
    last.split(',').nth(3).and_then(|cell| cell.parse().ok()).unwrap_or(f64::NAN)
}

fn characters_per_token(holdout: &[Vec<u32>], tokenizer: &Tokenizer) -> Result<f64, PretrainError> {
    let tokens: usize = holdout.iter().map(Vec::len).sum();
    let mut characters = 0;
    for sequence in holdout {
        characters += tokenizer.decode(sequence)?.chars().count();
    }
    Ok(characters as f64 / tokens.max(1) as f64)
}

/// Share of the held-out 8-token windows that occur among the training sequences given.
fn overlap(holdout: &[Vec<u32>], train: impl Iterator<Item = Vec<u32>>) -> f64 {
    let mut windows: std::collections::BTreeMap<&[u32], bool> =
        holdout.iter().flat_map(|sequence| sequence.windows(8)).map(|w| (w, false)).collect();
    for sequence in train {
        for window in sequence.windows(8) {
            if let Some(seen) = windows.get_mut(window) {
                *seen = true;
            }
        }
    }
    windows.values().filter(|&&seen| seen).count() as f64 / windows.len().max(1) as f64
}

fn samples(folder: &Path, device: &Device) -> Result<Vec<(String, String)>, PretrainError> {
    let backbone = Arc::new(Backbone::load(folder, device)?);
    PROMPTS
        .iter()
        .map(|&prompt| Ok((prompt.to_owned(), complete(&backbone, prompt, 48)?)))
        .collect()
}
