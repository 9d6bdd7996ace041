//! What is done with finished adapters, without a society: looked at, combined, merged into their model and
//! taken out again.
//!
//! Reads and writes folders; the arithmetic is in [`agents::adapter`]. Shows nothing by itself.

pub mod error;

use std::fmt;
use std::path::{Path, PathBuf};

use agents::adapter::file::Description;
use agents::adapter::merge;
use agents::adapter::{Adapter, Generation, Method};
use agents::backbone::export::ModelFiles;
use agents::backbone::{Backbone, Precision, builtin};
use agents::device::DeviceKind;
use agents::error::ModelError;
use agents::seed::Seed;

pub use agents::adapter::combine::{Combination, Sign};

use self::error::AdapterError;
use crate::backbone::{self, Fetching, HubSettings, Opened};
use crate::scenario::suggestion::quote;

/// What an adapter is.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// `LoRA`, `DoRA`, `IA3` and so on.
    pub method: String,
    /// Of a low-rank method.
    pub rank: Option<usize>,
    /// The maps that are changed; for prompts and prefixes, own layers and heads alone there are none.
    pub targets: Vec<String>,
    /// Whether it has a head.
    pub classifies: bool,
    /// The classes; numbers for a head that PEFT wrote.
    pub labels: Vec<String>,
    /// How many numbers training changes.
    pub trained: usize,
    /// Which version it is; 0 for one from elsewhere.
    pub generation: Generation,
    /// Of kind and weights; none where no model was named.
    pub digest: Option<String>,
}

/// Says what an adapter is, by its files alone or, with a model, loaded and checked against it.
///
/// # Errors
/// When a file is missing or malformed, or the adapter does not fit the model.
pub fn show(
    directory: &Path,
    model: Option<&str>,
    mut models: Models<'_>,
) -> Result<Shown, AdapterError> {
    let fail = |error| AdapterError::adapter(directory, error);
    let Some(model) = model else {
        let Description { method, has_head, labels, generation, trainable } =
            Description::read(directory).map_err(fail)?;
        return Ok(Shown {
            classifies: has_head,
            labels,
            trained: trainable,
            generation,
            digest: None,
            ..Shown::of(&method)
        });
    };
    let adapter = Adapter::load(directory, &models.open(model)?.backbone).map_err(fail)?;
    Ok(Shown {
        classifies: adapter.head().is_some(),
        labels: adapter.labels().to_vec(),
        trained: adapter.trainable(),
        generation: adapter.generation(),
        digest: Some(adapter.digest().map_err(fail)?),
        ..Shown::of(&adapter.spec().method)
    })
}

impl Shown {
    /// Method, rank and targets.
    fn of(method: &Method) -> Self {
        let none = Vec::new();
        let (name, rank, targets) = match method {
            Method::Frozen => ("a head on frozen features".to_owned(), None, &none),
            Method::Lora(lora) => {
                let base = if lora.dora { "DoRA" } else { "LoRA" };
                let pissa = lora.init == agents::adapter::lora::Init::Pissa;
                let start = if pissa { ", PiSSA" } else { "" };
                let scale =
                    if lora.rank_stabilized { ", scaled by the root of the rank" } else { "" };
                (format!("{base}{start}{scale}"), Some(lora.rank), &lora.targets)
            }
            Method::Ia3(ia3) => ("IA3".to_owned(), None, &ia3.targets),
            Method::Vera(vera) => ("VeRA".to_owned(), Some(vera.rank), &vera.targets),
            Method::Prompt { tokens } => (format!("prompt of {tokens} tokens"), None, &none),
            Method::Prefix { tokens } => (format!("prefix of {tokens} tokens"), None, &none),
            Method::Layers { freeze_layers } => {
                (format!("own layers from layer {freeze_layers} on"), None, &none)
            }
            Method::Full => ("an own copy of all weights".to_owned(), None, &none),
        };
        Self {
            method: name,
            rank,
            targets: targets.clone(),
            classifies: false,
            labels: Vec::new(),
            trained: 0,
            generation: Generation(0),
            digest: None,
        }
    }
}

/// Makes one adapter of several, each with its weight, and writes it into `out`.
///
/// # Errors
/// When model or adapters cannot be used or do not go together, `out` is in use, or cannot be written.
pub fn combine(
    model: &str,
    mut models: Models<'_>,
    parts: &[(PathBuf, f64)],
    how: &Combination,
    seed: u64,
    out: &Path,
) -> Result<Shown, AdapterError> {
    refuse_used(out)?;
    let backbone = models.open(model)?.backbone;
    let load = |(path, weight): &(PathBuf, f64)| {
        let adapter = Adapter::load(path, &backbone);
        Ok((adapter.map_err(|error| AdapterError::adapter(path, error))?, *weight))
    };
    let loaded = parts.iter().map(load).collect::<Result<Vec<_>, AdapterError>>()?;
    let parts: Vec<(&Adapter, f64)> = loaded.iter().map(|(part, weight)| (part, *weight)).collect();
    let seed = Seed::new(seed).child("combine");
    let combined = agents::adapter::combine::combine(&parts, how, &backbone, seed)
        .map_err(AdapterError::Combination)?;
    combined.save(out).map_err(|error| AdapterError::output(out, error))?;
    Ok(Shown {
        trained: combined.trainable(),
        digest: Some(combined.digest().map_err(AdapterError::Combination)?),
        ..Shown::of(&combined.spec().method)
    })
}

/// Writes the model with the adapter's change in its weights as a model of its own.
///
/// A head is no part of such a folder; an adapter with one is refused unless `without_head`.
///
/// # Errors
/// When model or adapter cannot be used, the adapter changes no weight, `out` is in use, or cannot be
/// written.
pub fn merge(
    model: &str,
    mut models: Models<'_>,
    adapter: &Path,
    without_head: bool,
    out: &Path,
) -> Result<Shown, AdapterError> {
    let Rewriting { backbone, files, loaded } = Rewriting::open(model, &mut models, adapter, out)?;
    if loaded.head().is_some() && !without_head {
        return Err(AdapterError::setting(
            format!("the adapter {} has a head, and a merged model has none", path(adapter)),
            "a model's folder holds the network alone, so the merged model gives hidden states and cannot \
             classify; say --without-head to leave the head behind",
        ));
    }
    if loaded.spec().method == Method::Frozen {
        return Err(AdapterError::setting(
            format!("the adapter {} changes no weight", path(adapter)),
            "it is a head alone; there is nothing to merge",
        ));
    }
    let merged =
        merge::merge(&loaded, &backbone).map_err(|error| AdapterError::adapter(adapter, error))?;
    files.write(&merged, out).map_err(|error| AdapterError::output(out, error))?;
    Ok(Shown { trained: loaded.trainable(), ..Shown::of(&loaded.spec().method) })
}

/// Writes the model that [`merge`] was given, to rounding, out of the merged one.
///
/// # Errors
/// When model or adapter cannot be used, the merge cannot be undone, `out` is in use, or cannot be written.
pub fn unmerge(
    model: &str,
    mut models: Models<'_>,
    adapter: &Path,
    out: &Path,
) -> Result<Shown, AdapterError> {
    let Rewriting { backbone, files, loaded } = Rewriting::open(model, &mut models, adapter, out)?;
    match &loaded.spec().method {
        // Its scale was computed from the weights before the merge.
        Method::Lora(lora) if lora.dora => Err(AdapterError::setting(
            "a DoRA adapter cannot be taken out again".to_owned(),
            "its magnitudes have taken the place of the lengths of the weights' rows; keep the base model",
        )),
        Method::Frozen => Err(AdapterError::setting(
            format!("the adapter {} changes no weight", path(adapter)),
            "it is a head alone; there is nothing to take out",
        )),
        _ => Ok(()),
    }?;
    let base = merge::unmerge(&loaded, &backbone)
        .map_err(|error| AdapterError::adapter(adapter, error))?;
    files.write(&base, out).map_err(|error| AdapterError::output(out, error))?;
    Ok(Shown { trained: loaded.trainable(), ..Shown::of(&loaded.spec().method) })
}

/// A model that will be written again into a folder, and the adapter that changes it.
struct Rewriting {
    backbone: Backbone,
    files: ModelFiles,
    loaded: Adapter,
}

impl Rewriting {
    fn open(
        model: &str,
        models: &mut Models<'_>,
        adapter: &Path,
        out: &Path,
    ) -> Result<Self, AdapterError> {
        refuse_used(out)?;
        let (backbone, files) = models.with_files(model)?;
        let loaded = Adapter::load(adapter, &backbone)
            .map_err(|error| AdapterError::adapter(adapter, error))?;
        Ok(Self { backbone, files, loaded })
    }
}

/// Where models come from: the hub and who is told of what is fetched.
pub struct Models<'a> {
    /// Where models of the hub are kept and fetched from.
    pub hub: &'a HubSettings,
    /// Is told of what is fetched.
    pub hear: &'a mut dyn FnMut(&Fetching),
}

impl Models<'_> {
    /// The model that a command line names.
    fn open(&mut self, model: &str) -> Result<Opened, AdapterError> {
        let fail = |error: ModelError| AdapterError::model(model, error);
        let source = backbone::source(model).map_err(|error| fail(error.into()))?;
        let source = source.ok_or_else(|| {
            let what = format!("there is no model {}", quote(model));
            AdapterError::setting(what, backbone::sources())
        })?;
        let cpu = DeviceKind::Cpu.open().map_err(fail)?;
        backbone::open(&source, &cpu, Precision::F32, self.hub, self.hear).map_err(fail)
    }

    /// The same with its files, to be written again.
    fn with_files(&mut self, model: &str) -> Result<(Backbone, ModelFiles), AdapterError> {
        let opened = self.open(model)?;
        let files = match &opened.place {
            None => builtin::files(),
            Some(place) => ModelFiles::open(place),
        };
        Ok((opened.backbone, files.map_err(|error| AdapterError::model(model, error))?))
    }
}

impl fmt::Debug for Models<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models").field("hub", self.hub).finish_non_exhaustive()
    }
}

/// Refuses a place that holds something: nothing that is there is written over.
fn refuse_used(out: &Path) -> Result<(), AdapterError> {
    let empty = match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !out.exists(),
    };
    if empty {
        return Ok(());
    }
    let what = format!("{} is in use", path(out));
    Err(AdapterError::setting(what, "name a new or an empty folder with --out"))
}

/// A path for a message.
fn path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}
