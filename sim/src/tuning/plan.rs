//! A checked tuning: after [`Plan::of`] nobody asks again whether a number makes sense.
//!
//! Where the recipe is silent, the method decides. Its numbers are usual ones, not tuned: only the frozen head's
//! weight decay followed runs on a part of a training set.
//! Files and models are not touched here.

use std::path::PathBuf;

use agents::adapter::head::Pooling;
use agents::adapter::ia3::Ia3Spec;
use agents::adapter::lora::LoraSpec;
use agents::adapter::{Method, head::HeadSpec};
use agents::backbone::{Backbone, Precision};
use agents::learning::job::Settings;
use agents::learning::optimizer::{AdamW, Lion, LoraPlus, Method as Optimizer};
use agents::learning::schedule::{Shape, WarmUp};
use serde::Serialize;

use super::error::TuneError;
use super::recipe::{DataRecipe, MethodRecipe, Recipe, StageRecipe};
use crate::backbone::{BUILTIN, HUB};

/// Where texts are cut unless said otherwise.
const LONGEST: usize = 256;
/// Fewest steps that a training takes when nobody says how many: small data is seen more often.
const FEWEST_STEPS: usize = 240;

/// What is tuned, on what, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where all randomness comes from.
    pub seed: u64,
    /// How often the whole is done, each time with the next seed.
    pub repeats: usize,
    /// `polylogue-tiny`, a folder, or `hub:owner/name@revision`.
    pub model: String,
    /// What the model computes in.
    pub precision: Precision,
    /// The examples.
    pub data: DataPlan,
    /// How the model is changed.
    pub method: MethodPlan,
    /// How hidden states become features.
    pub pooling: Pooling,
    /// Whether features are brought to zero mean and unit spread.
    pub standardize: bool,
    /// The training.
    pub training: Stage,
    /// A first training of the head alone, on frozen features.
    pub probe: Option<Stage>,
    /// A second classifier on the frozen model, whose class probabilities are averaged with the first one's.
    pub ensemble: Option<Ensemble>,
}

/// A head on frozen features that answers together with the tuned model (Lakshminarayanan et al. 2017, here of
/// two unlike members).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ensemble {
    /// Its share of the class probabilities, between 0 and 1.
    pub share: f64,
    /// Its training.
    pub training: Stage,
}

/// Examples and how they are parted.
#[derive(Clone, Debug, PartialEq)]
pub struct DataPlan {
    /// Files to learn from.
    pub train: Vec<Source>,
    /// What is measured on.
    pub split: Split,
    /// The column of the text.
    pub text: String,
    /// The column of the class; the usual names are tried where absent.
    pub label: Option<String>,
    /// Examples of each class to learn from.
    pub shots: Option<usize>,
    /// Longest text in tokens.
    pub longest: usize,
}

/// A data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The class of all its lines, where it has one text a line and nothing else.
    pub label: Option<String>,
}

/// What is measured on.
#[derive(Clone, Debug, PartialEq)]
pub enum Split {
    /// Files of their own.
    Test(Vec<Source>),
    /// Each of so many equal parts in turn.
    Folds(usize),
    /// A share of the training examples, to choose settings by.
    Validate(f64),
}

/// How the model is changed.
#[derive(Clone, Debug, PartialEq)]
pub enum MethodPlan {
    /// Not at all.
    Frozen,
    /// Low-rank updates.
    Lora(LoraSpec),
    /// Learned scales, of the usual maps where none are named.
    Ia3(Option<Ia3Spec>),
    /// Upper layers.
    Layers(usize),
    /// Everything.
    Full,
}

/// A training; epochs where they are not given depend on the number of examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// How often each example is seen.
    pub epochs: Option<usize>,
    /// Examples of one step.
    pub batch: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// How the steps are taken.
    pub settings: Settings,
    /// Epochs over many examples, unless they are given.
    usual: usize,
}

impl Stage {
    /// Optimiser steps on so many examples.
    #[must_use]
    pub fn steps(&self, examples: usize) -> usize {
        let an_epoch = (examples / self.batch).max(1);
        match self.epochs {
            Some(epochs) => epochs * an_epoch,
            None => (self.usual * an_epoch).max(FEWEST_STEPS),
        }
    }

    fn of(typed: &StageRecipe, usual: Self, place: &str) -> Result<Self, TuneError> {
        let stage = Self {
            epochs: typed.epochs,
            batch: typed.batch.unwrap_or(usual.batch),
            learning_rate: typed.learning_rate.unwrap_or(usual.learning_rate),
            settings: settings(typed, usual.settings),
            usual: usual.usual,
        };
        count(&format!("{place}epochs"), stage.epochs.unwrap_or(1), 10_000)?;
        count(&format!("{place}batch"), stage.batch, 4096)?;
        let rate = stage.learning_rate;
        number(&format!("{place}learning rate"), rate, rate > 0.0 && rate <= 1.0, "up to 1")?;
        let Settings { optimizer, warm_up, micro_batch_tokens, .. } = stage.settings;
        count(&format!("{place}micro_batch_tokens"), micro_batch_tokens, 1 << 20)?;
        let decay = optimizer.weight_decay;
        let fits = (0.0..=100.0).contains(&decay);
        number(&format!("{place}weight decay"), decay, fits, "0 to 100")?;
        let clip = optimizer.clip.unwrap_or(1.0);
        let fits = clip > 0.0 && clip.is_finite();
        number(&format!("{place}clip"), clip, fits, "above 0")?;
        let ratio = optimizer.lora_plus.map_or(1.0, |plus| plus.ratio);
        let fits = (1.0..=1000.0).contains(&ratio);
        number(&format!("{place}lora_plus"), ratio, fits, "1 to 1000")?;
        let share = stage.settings.label_smoothing;
        number(&format!("{place}label_smoothing"), share, (0.0..1.0).contains(&share), "0 to 1")?;
        let rate = stage.settings.hidden_dropout;
        let fits = (0.0..1.0).contains(&rate);
        number(&format!("{place}hidden_dropout"), rate, fits, "0 up to, not at, 1")?;
        let strength = stage.settings.logit_adjustment;
        let fits = (0.0..=2.0).contains(&strength);
        number(&format!("{place}logit_adjustment"), strength, fits, "0 to 2")?;
        if let WarmUp::Share(rise) = warm_up {
            number(&format!("{place}rise"), rise, (0.0..=1.0).contains(&rise), "0 to 1")?;
        }
        if let Shape::Linear { floor } | Shape::Cosine { floor } = stage.settings.shape {
            let fits = (0.0..=1.0).contains(&floor);
            number(&format!("{place}schedule's floor"), floor, fits, "0 to 1")?;
        }
        moments(optimizer.method, place)?;
        Ok(stage)
    }

    /// For a head on frozen features.
    fn probe() -> Self {
        let mut settings = Settings::default();
        settings.optimizer.weight_decay = 0.5;
        Self { epochs: None, batch: 128, learning_rate: 1e-2, settings, usual: 20 }
    }

    fn usual(method: &MethodPlan) -> Self {
        let (learning_rate, usual) = match method {
            MethodPlan::Frozen => return Self::probe(),
            MethodPlan::Lora(_) => (1e-3, 5),
            MethodPlan::Ia3(_) => (5e-3, 5),
            MethodPlan::Layers(_) | MethodPlan::Full => (1e-4, 4),
        };
        Self { epochs: None, batch: 32, learning_rate, settings: Settings::default(), usual }
    }
}

/// Checks an optimiser's own numbers.
fn moments(method: Optimizer, place: &str) -> Result<(), TuneError> {
    let decays = match method {
        Optimizer::AdamW(AdamW { beta1, beta2, epsilon }) => {
            let fits = epsilon > 0.0 && epsilon <= 1.0;
            number(&format!("{place}epsilon"), epsilon, fits, "above 0, up to 1")?;
            vec![("beta1", beta1), ("beta2", beta2)]
        }
        Optimizer::Sgd(sgd) => vec![("momentum", sgd.momentum)],
        Optimizer::Lion(Lion { beta1, beta2 }) => vec![("beta1", beta1), ("beta2", beta2)],
    };
    for (name, decay) in decays {
        let fits = (0.0..1.0).contains(&decay);
        number(&format!("{place}{name}"), decay, fits, "0 up to, not at, 1")?;
    }
    Ok(())
}

/// How steps are taken: as typed, else as usual.
fn settings(typed: &StageRecipe, mut settings: Settings) -> Settings {
    let optimizer = &mut settings.optimizer;
    if let Some(method) = typed.optimizer {
        optimizer.method = method;
    }
    if let Some(decay) = typed.weight_decay {
        optimizer.weight_decay = decay;
    }
    optimizer.clip = typed.clip.or(optimizer.clip);
    optimizer.lora_plus = typed.lora_plus.map(|ratio| LoraPlus { ratio });
    if let Some(shape) = typed.schedule {
        settings.shape = shape;
    }
    if let Some(rise) = typed.rise {
        settings.warm_up = WarmUp::Share(rise);
    }
    if let Some(share) = typed.label_smoothing {
        settings.label_smoothing = share;
    }
    if let Some(rate) = typed.hidden_dropout {
        settings.hidden_dropout = rate;
    }
    if let Some(strength) = typed.logit_adjustment {
        settings.logit_adjustment = strength;
    }
    if let Some(tokens) = typed.micro_batch_tokens {
        settings.micro_batch_tokens = tokens;
    }
    settings.recompute = typed.recompute;
    settings
}

/// LoRA+ needs the two matrices of low-rank updates; a probe has none.
fn has_matrices(recipe: &Recipe, method: &MethodPlan) -> Result<(), TuneError> {
    let probe = recipe.probe.as_ref().is_some_and(|probe| probe.lora_plus.is_some());
    let other = !matches!(method, MethodPlan::Lora(_));
    if probe || (other && recipe.training.lora_plus.is_some()) {
        let what = "lora_plus is for low-rank updates, and there are none";
        return Err(TuneError::setting(what, "leave it out, or choose the method lora"));
    }
    Ok(())
}

impl MethodPlan {
    /// The word for it in recipes.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Lora(_) => "lora",
            Self::Ia3(_) => "ia3",
            Self::Layers(_) => "layers",
            Self::Full => "full",
        }
    }

    /// The adapter's method for a backbone.
    #[must_use]
    pub fn on(&self, backbone: &Backbone) -> Method {
        match self {
            Self::Frozen => Method::Frozen,
            Self::Lora(spec) => Method::Lora(spec.clone()),
            Self::Ia3(spec) => {
                let family = backbone.network.architecture().family;
                Method::Ia3(spec.clone().unwrap_or_else(|| Ia3Spec::usual(family)))
            }
            Self::Layers(freeze_layers) => Method::Layers { freeze_layers: *freeze_layers },
            Self::Full => Method::Full,
        }
    }

    fn of(typed: Option<&MethodRecipe>) -> Result<Self, TuneError> {
        Ok(match typed {
            None => {
                let help = "choose one with --method: frozen, lora, ia3, layers, full";
                return Err(TuneError::setting("no method is chosen", help));
            }
            Some(MethodRecipe::Frozen(_)) => Self::Frozen,
            Some(MethodRecipe::Full(_)) => Self::Full,
            Some(MethodRecipe::Layers(layers)) => Self::Layers(layers.freeze_layers),
            Some(MethodRecipe::Ia3(ia3)) => Self::Ia3(match (&ia3.targets, &ia3.feedforward) {
                (None, None) => None,
                (Some(targets), feedforward) => {
                    let feedforward = feedforward.clone().unwrap_or_default();
                    Some(Ia3Spec { targets: some(targets)?, feedforward })
                }
                (None, Some(_)) => {
                    let help = "name the targets as well; feedforward names some of them";
                    return Err(TuneError::setting("feedforward without targets", help));
                }
            }),
            Some(MethodRecipe::Lora(lora)) => {
                let rank = lora.rank.unwrap_or(16);
                count("rank", rank, 1024)?;
                let alpha = lora.alpha.unwrap_or(2.0 * rank as f64);
                number("alpha", alpha, alpha > 0.0 && alpha <= 4096.0, "up to 4096")?;
                let dropout = lora.dropout.unwrap_or(0.0);
                number("dropout", dropout, (0.0..1.0).contains(&dropout), "0 up to, not at, 1")?;
                let targets = match &lora.targets {
                    Some(targets) => some(targets)?,
                    None => vec!["all-linear".to_owned()],
                };
                let (rank_stabilized, dora, init) = (lora.rank_stabilized, lora.dora, lora.init);
                Self::Lora(LoraSpec { rank, alpha, targets, rank_stabilized, dora, dropout, init })
            }
        })
    }
}

impl Plan {
    /// Checks a recipe.
    ///
    /// # Errors
    /// The first setting that is missing or makes no sense.
    pub fn of(recipe: &Recipe) -> Result<Self, TuneError> {
        let method = MethodPlan::of(recipe.method.as_ref())?;
        let Some(model) = recipe.model.clone() else {
            let help = format!(
                "name one with --model: {BUILTIN}, a folder, a .gguf file, or {HUB}OWNER/NAME"
            );
            return Err(TuneError::setting("no model is named", help));
        };
        let repeats = recipe.repeats.unwrap_or(1);
        count("repeats", repeats, 1000)?;
        has_matrices(recipe, &method)?;
        let training = Stage::of(&recipe.training, Stage::usual(&method), "")?;
        let probe = match &recipe.probe {
            Some(_) if method == MethodPlan::Frozen => {
                let help =
                    "leave the probe out: with a frozen model, the head is all that is trained";
                return Err(TuneError::setting("the method frozen needs no probe", help));
            }
            Some(typed) => Some(Stage::of(typed, Stage::probe(), "the probe's ")?),
            None => None,
        };
        let ensemble = match recipe.ensemble {
            Some(_) if method == MethodPlan::Frozen => {
                let help = "leave it out: with a frozen model both classifiers would be the same";
                return Err(TuneError::setting("the method frozen needs no ensemble", help));
            }
            Some(share) => {
                let fits = share > 0.0 && share < 1.0;
                number("ensemble", share, fits, "above 0 and below 1")?;
                let training = probe.unwrap_or_else(Stage::probe);
                Some(Ensemble { share, training })
            }
            None => None,
        };
        Ok(Self {
            seed: recipe.seed.unwrap_or(7),
            repeats,
            // Sentence encoders are pooled by their mean; of a decoder all layers tell more.
            pooling: recipe.head.pooling.unwrap_or(match model.as_str() {
                BUILTIN => Pooling::Layers,
                _ => Pooling::Mean,
            }),
            standardize: recipe.head.standardize.unwrap_or(true),
            model,
            precision: recipe.dtype.unwrap_or_default(),
            data: DataPlan::of(&recipe.data)?,
            method,
            training,
            probe,
            ensemble,
        })
    }

    /// The classifier for these classes.
    #[must_use]
    pub fn head(&self, labels: Vec<String>) -> HeadSpec {
        let (pooling, standardize) = (self.pooling, self.standardize);
        HeadSpec { pooling, standardize, ..HeadSpec::new(labels) }
    }
}

impl DataPlan {
    fn of(recipe: &DataRecipe) -> Result<Self, TuneError> {
        let sources = |typed: &[String]| typed.iter().map(|one| source(one)).collect::<Vec<_>>();
        if recipe.train.is_empty() {
            let help =
                "name a .csv or .jsonl file with --train, or --train LABEL=FILE for each class";
            return Err(TuneError::setting("there is nothing to learn from", help));
        }
        let split = match (recipe.test.as_slice(), recipe.folds, recipe.validate) {
            (test, None, None) if !test.is_empty() => Split::Test(sources(test)),
            ([], Some(folds), None) => {
                if !(2..=100).contains(&folds) {
                    let what = format!("folds is {folds}, but must be 2 to 100");
                    return Err(TuneError::setting(what, "5 or 10 are usual"));
                }
                Split::Folds(folds)
            }
            // A recipe's test files stay unread while settings are chosen.
            (_, None, Some(share)) => {
                let fits = share > 0.0 && share < 1.0;
                number("validate", share, fits, "between 0 and 1")?;
                Split::Validate(share)
            }
            ([], None, None) => {
                let help = "name a file with --test, or ask for --folds 5 or --validate 0.1";
                return Err(TuneError::setting("there is nothing to measure on", help));
            }
            _ => {
                let help = "keep one of --test, --folds and --validate";
                return Err(TuneError::setting("there is more than one thing to measure on", help));
            }
        };
        let longest = recipe.longest.unwrap_or(LONGEST);
        count("longest", longest, 1 << 20)?;
        count("shots", recipe.shots.unwrap_or(1), 1 << 20)?;
        Ok(Self {
            train: sources(&recipe.train),
            split,
            text: recipe.text.clone().unwrap_or_else(|| "text".to_owned()),
            label: recipe.label.clone(),
            shots: recipe.shots,
            longest,
        })
    }
}

/// `LABEL=FILE`, or a file; a file whose name has that form is taken for one where it exists.
fn source(typed: &str) -> Source {
    match typed.split_once('=') {
        Some((label, path)) if !std::path::Path::new(typed).exists() => {
            Source { path: path.into(), label: Some(label.to_owned()) }
        }
        _ => Source { path: typed.into(), label: None },
    }
}

fn some(targets: &[String]) -> Result<Vec<String>, TuneError> {
    if targets.is_empty() {
        let help = "name some, or leave targets out for the usual ones";
        return Err(TuneError::setting("the list of targets is empty", help));
    }
    Ok(targets.to_vec())
}

fn count(name: &str, found: usize, largest: usize) -> Result<(), TuneError> {
    if (1..=largest).contains(&found) {
        return Ok(());
    }
    let what = format!("{name} is {found}, but must be 1 to {largest}");
    Err(TuneError::setting(what, "leave it out for the usual value"))
}

fn number(name: &str, found: f64, fits: bool, bounds: &str) -> Result<(), TuneError> {
    if fits {
        return Ok(());
    }
    let what = format!("{name} is {found}, but must be {bounds}");
    Err(TuneError::setting(what, "leave it out for the usual value"))
}

#[cfg(test)]
mod tests;
