//! What this machine does with a model, figure by figure, each beside what would be possible.
//!
//! Measures and decides nothing else; the measurements are in [`agents::bench`].

use std::path::Path;
use std::sync::Arc;

use agents::backbone::{Backbone, Precision};
use agents::bench;
pub use agents::bench::Figure;
use agents::device::Device;
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

/// Measures a model, `steps` tokens of each sequence a figure; `hear` is told each figure as it comes.
///
/// A folder without `tokenizer.json` will do: no text is read.
///
/// # Errors
/// When the model cannot be loaded or run.
pub fn bench(
    model: &str,
    device: DeviceKind,
    steps: usize,
    hub: &HubSettings,
    fetching: &mut dyn FnMut(&Fetching),
    hear: &mut dyn FnMut(&Figure),
) -> Result<(), BenchError> {
    let source = backbone::source(model).map_err(ModelError::from)?;
    let source = source.ok_or_else(|| BenchError::NoModel(model.to_owned()))?;
    let device = device.open()?;
    let backbone = match &source {
        BackboneSource::Path(path) if is_bare(path) => bare(path, &device)?,
        source => backbone::open(source, &device, Precision::F32, hub, fetching)?.backbone,
    };
    let watch = Stopwatch::start();
    bench::table(&Arc::new(backbone), steps, &|| watch.seconds(), hear)?;
    Ok(())
}

fn is_bare(path: &Path) -> bool {
    path.is_dir() && !path.join("tokenizer.json").exists()
}

fn bare(path: &Path, device: &Device) -> Result<Backbone, ModelError> {
    probe::load(path, device)
}
