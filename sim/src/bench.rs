//! What this machine does with a model, figure by figure, each beside what would be possible.
//!
//! Measures and decides nothing else; the measurements are in [`agents::bench`].

use std::path::Path;
use std::sync::Arc;

use agents::backbone::Precision;
use agents::bench;
pub use agents::bench::Figure;
use agents::error::ModelError;
use agents::probe;

use crate::backbone::{self, DeviceKind, Fetching, HubSettings};
use crate::clock::Stopwatch;
use crate::scenario::BackboneSource;
use crate::scenario::suggestion::{message, quote};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// There is no such model.
    #[error("there is no model {}; {}", quote(.0), backbone::sources())]
    NoModel(String),
    /// The model cannot be used.
    #[error("{}", message(.0))]
    Model(ModelError),
}

impl BenchError {
    /// Whether the cause is what was asked for rather than what happened then.
    #[must_use]
    pub fn is_input(&self) -> bool {
        match self {
            Self::NoModel(_) => true,
            Self::Model(error) => error.is_input(),
        }
    }
}

// By hand: a derived one would make the error a source, which reports print as it is.
impl From<ModelError> for BenchError {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The model, as `--model` names it.
    pub model: String,
    /// Where it runs.
    pub device: DeviceKind,
    /// What it is kept and computed in.
    pub precision: Precision,
    /// How many sequences write at once, a figure for each.
    pub sequences: Vec<usize>,
    /// Tokens that each sequence writes for a figure.
    pub steps: usize,
}

/// Measures a model; `hear` is told each figure as it comes.
///
/// A folder without `tokenizer.json` will do: no text is read.
///
/// # Errors
/// When the model cannot be loaded or run.
pub fn bench(
    options: &BenchOptions,
    hub: &HubSettings,
    fetching: &mut dyn FnMut(&Fetching),
    hear: &mut dyn FnMut(&Figure),
) -> Result<(), BenchError> {
    let BenchOptions { model, device, precision, sequences, steps } = options;
    let device = device.open()?;
    let source = backbone::source(model).map_err(ModelError::from)?;
    let source = source.ok_or_else(|| BenchError::NoModel(model.clone()))?;
    let backbone = match &source {
        BackboneSource::Path(path) if is_bare(path) => {
            probe::load_as(path, precision.dtype(), &device)?
        }
        source => backbone::open(source, &device, *precision, hub, fetching)?.backbone,
    };
    let watch = Stopwatch::start();
    bench::table(&Arc::new(backbone), sequences, *steps, &|| watch.seconds(), hear)?;
    Ok(())
}

fn is_bare(path: &Path) -> bool {
    path.is_dir() && !path.join("tokenizer.json").exists()
}
