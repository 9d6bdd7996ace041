//! The recipe of `polylogue tune`: what a user types in `tune.toml`, strictly, or on the command line.
//!
//! Paths of the file are relative to its folder and stay below it; those of the command line lead anywhere.
//! What the numbers mean together is checked in [`super::plan`].

use std::path::{Component, Path};

pub use agents::adapter::head::Pooling;
use agents::adapter::lora::Init;
use agents::backbone::Precision;
use agents::learning::optimizer::Method as Optimizer;
use agents::learning::schedule::Shape;
use serde::Deserialize;

use super::error::TuneError;
use crate::backbone::{BUILTIN, HUB};
use crate::scenario::stays;

/// The name of a recipe in its folder.
const FILE: &str = "tune.toml";
/// The largest recipe that is read.
const LARGEST_FILE: u64 = 1 << 20;

/// What shall be tuned, on what, and how.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Where all randomness comes from.
    pub seed: Option<u64>,
    /// How often the whole is done, each time with the next seed.
    pub repeats: Option<usize>,
    /// `polylogue-tiny`, a folder in Hugging Face layout, a `.gguf` file, or `hub:owner/name@revision`.
    pub model: Option<String>,
    /// What the model computes in: `f32`, `bf16` or `f16`.
    pub dtype: Option<Precision>,
    /// The examples.
    pub data: DataRecipe,
    /// How the model is changed.
    pub method: Option<MethodRecipe>,
    /// The classifier on top.
    pub head: HeadRecipe,
    /// The training.
    pub training: StageRecipe,
    /// A first training of the head alone, on frozen features.
    pub probe: Option<StageRecipe>,
    /// Share of a probe on the frozen model in the class probabilities that answers are taken from.
    pub ensemble: Option<f64>,
}

/// Examples and how they are parted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataRecipe {
    /// Files to learn from: `.csv`, `.jsonl`, or `LABEL=FILE` with one text a line.
    pub train: Vec<String>,
    /// Files to measure on.
    pub test: Vec<String>,
    /// Parts of a cross-validation, instead of a test.
    pub folds: Option<usize>,
    /// Share of the training examples to measure on, instead of a test.
    pub validate: Option<f64>,
    /// The column of the text.
    pub text: Option<String>,
    /// The column of the class.
    pub label: Option<String>,
    /// Examples of each class to learn from; all where absent.
    pub shots: Option<usize>,
    /// Longest text in tokens.
    pub longest: Option<usize>,
}

/// How the model is changed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodRecipe {
    /// Not at all: a linear head on frozen features.
    Frozen(Nothing),
    /// Low-rank updates.
    Lora(LoraRecipe),
    /// Learned scales of activations.
    Ia3(Ia3Recipe),
    /// Upper layers.
    Layers(LayersRecipe),
    /// Everything.
    Full(Nothing),
}

/// A method without settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Low-rank updates.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraRecipe {
    /// Rank of the updates.
    pub rank: Option<usize>,
    /// Numerator of the scale; twice the rank where absent.
    pub alpha: Option<f64>,
    /// The maps that are updated; all linear ones where absent.
    pub targets: Option<Vec<String>>,
    /// Share of inputs dropped in training.
    pub dropout: Option<f64>,
    /// Divide by the root of the rank.
    pub rank_stabilized: bool,
    /// Train direction and magnitude apart.
    pub dora: bool,
    /// Where it starts.
    pub init: Init,
}

/// Learned scales.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ia3Recipe {
    /// The maps that are scaled; keys, values and the feed-forward block's output where absent.
    pub targets: Option<Vec<String>>,
    /// Which of them are scaled on their input.
    pub feedforward: Option<Vec<String>>,
}

/// Upper layers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayersRecipe {
    /// Lower layers that stay as they were pretrained.
    pub freeze_layers: usize,
}

/// The classifier on top.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadRecipe {
    /// How hidden states become features.
    pub pooling: Option<Pooling>,
    /// Whether features are brought to zero mean and unit spread.
    pub standardize: Option<bool>,
}

/// A training.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StageRecipe {
    /// How often each example is seen.
    pub epochs: Option<usize>,
    /// Examples of one step.
    pub batch: Option<usize>,
    /// Highest learning rate.
    pub learning_rate: Option<f64>,
    /// Decoupled weight decay.
    pub weight_decay: Option<f64>,
    /// How a gradient becomes a change of weights: `adamw`, `sgd` or `lion`, each a table of its numbers.
    pub optimizer: Option<Optimizer>,
    /// Largest norm of the gradient; a larger one is scaled down.
    pub clip: Option<f64>,
    /// LoRA+: how much faster `B` learns than `A`.
    pub lora_plus: Option<f64>,
    /// What the learning rate does after it has risen: `"constant"`, `linear`, `cosine` (each with `floor`)
    /// or `"inverse_square_root"`.
    pub schedule: Option<Shape>,
    /// Share of the steps in which the learning rate rises.
    pub rise: Option<f64>,
    /// Share of a class's target that is spread over all classes.
    pub label_smoothing: Option<f64>,
    /// How far classes are treated as equally likely, whatever their share of the examples.
    pub logit_adjustment: Option<f64>,
    /// Share that is dropped of what embeddings and each sub-layer add to the residual stream.
    pub hidden_dropout: Option<f64>,
    /// Most tokens that a thread takes at once.
    pub micro_batch_tokens: Option<usize>,
    /// Whether activations are computed again instead of kept.
    pub recompute: bool,
}

impl Recipe {
    /// Reads a recipe: a folder with `tune.toml`, or the file itself.
    ///
    /// # Errors
    /// When the file cannot be read, is not a recipe, or names a file outside its folder.
    pub fn read(path: &Path) -> Result<Self, TuneError> {
        let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let fail = |reason: String| TuneError::Unreadable { path: file.clone(), reason };
        let size = std::fs::metadata(&file).map_err(|e| fail(e.to_string()))?.len();
        if size > LARGEST_FILE {
            return Err(fail(format!("{size} bytes are more than the {LARGEST_FILE} of a recipe")));
        }
        let text = std::fs::read_to_string(&file).map_err(|e| fail(e.to_string()))?;
        let mut recipe: Self =
            toml::from_str(&text).map_err(|e| TuneError::recipe(&file, &text, &e))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        if let Some(model) = &mut recipe.model
            && model != BUILTIN
            && !model.starts_with(HUB)
        {
            *model = below(folder, model, "--model")?;
        }
        for (files, flag) in
            [(&mut recipe.data.train, "--train"), (&mut recipe.data.test, "--test")]
        {
            for typed in files {
                *typed = match typed.split_once('=') {
                    Some((label, path)) => format!("{label}={}", below(folder, path, flag)?),
                    None => below(folder, typed, flag)?,
                };
            }
        }
        Ok(recipe)
    }
}

/// A path of the file from where we are; refused where it leaves the folder.
fn below(folder: &Path, typed: &str, flag: &'static str) -> Result<String, TuneError> {
    let plain = Path::new(typed)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    // Links lead out as well, of a model's folder each file.
    if !plain
        || !stays(folder, &folder.join(typed))
        || typed.contains('\\')
        || typed.get(1..2) == Some(":")
    {
        return Err(TuneError::Setting {
            what: format!("`{}` leads out of the recipe's folder", typed.escape_debug()),
            help: format!("put it there, or name it on the command line with {flag}"),
        });
    }
    Ok(folder.join(typed).display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Recipe, TuneError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), text).unwrap();
        Recipe::read(folder.path())
    }

    #[test]
    fn a_recipe_is_read_relative_to_its_folder() {
        let recipe = read(
            "seed = 3\nmodel = 'mine'\n[data]\ntrain = ['a.csv', 'pos=b.txt']\n\
             [method.lora]\nrank = 4\n[head]\npooling = 'mean'\n",
        )
        .unwrap();
        assert_eq!(recipe.seed, Some(3));
        assert!(recipe.model.unwrap().ends_with("mine"));
        assert!(recipe.data.train[1].starts_with("pos=") && recipe.data.train[1].len() > 10);
        let Some(MethodRecipe::Lora(lora)) = recipe.method else { panic!() };
        assert_eq!((lora.rank, lora.alpha), (Some(4), None));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let at = |text: &str| match read(text) {
            Err(TuneError::Recipe { reason, at, .. }) => (reason, at.offset()),
            other => panic!("{other:?}"),
        };
        let (reason, offset) = at("seed = 3\nsede = 4\n");
        assert!(reason.contains("sede") && reason.contains("seed"), "{reason}");
        assert_eq!(offset, 9);
        assert!(at("[method.lora]\nrank = 'x'\n").0.contains("usize"));
        assert!(at("[method.qlora]\n").0.contains("qlora"));
        assert_eq!(read("model = 'hub:a/b@v1'").unwrap().model.as_deref(), Some("hub:a/b@v1"));
        assert!(matches!(read("model = '../x'"), Err(TuneError::Setting { .. })));
        assert!(matches!(read("[data]\ntrain = ['pos=../x']"), Err(TuneError::Setting { .. })));
        assert!(matches!(read("[data]\ntrain = ['a=/etc/x']"), Err(TuneError::Setting { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn links_do_not_lead_out_of_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let (folder, outside) = (place.path().join("recipe"), place.path().join("outside"));
        std::fs::create_dir_all(folder.join("model")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret.csv"), "text,label\n").unwrap();
        std::os::unix::fs::symlink(outside.join("secret.csv"), folder.join("t.csv")).unwrap();
        std::os::unix::fs::symlink(outside.join("secret.csv"), folder.join("model/w")).unwrap();
        for text in ["[data]\ntrain = ['t.csv']", "[data]\ntest = ['a=t.csv']", "model = 'model'"] {
            std::fs::write(folder.join(FILE), text).unwrap();
            let read = Recipe::read(&folder);
            assert!(matches!(read, Err(TuneError::Setting { .. })), "{text}: {read:?}");
        }
    }
}
