//! What a run directory says of how its run was made, read back: enough to make the same run again.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::backbone::Devices;
use crate::scenario::Origin;
use crate::scenario::suggestion::message;

/// The largest manifest that is read, in bytes.
const LARGEST: u64 = 64 << 20;

/// Name of the manifest in a run directory.
const MANIFEST: &str = "manifest.json";

/// What is known of how a run was made.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Manifest {
    /// The version that wrote it.
    pub polylogue: String,
    /// The scenario's name.
    pub scenario: String,
    /// Where all randomness came from.
    pub seed: u64,
    /// The devices.
    #[serde(deserialize_with = "devices")]
    pub device: Devices,
    /// Processor and operating system.
    pub platform: String,
    /// Where the scenario came from; absent in directories that are older than this.
    pub origin: Option<Origin>,
    /// What a fork has from another run, and what it changed; none for other runs.
    #[serde(default)]
    pub fork: Option<Value>,
    /// SHA-256 of the data files.
    #[serde(default)]
    data: Value,
    /// The backbones: where from, and SHA-256 of their files.
    #[serde(default)]
    backbones: Value,
    /// The agents that started from adapters trained before.
    #[serde(default)]
    agents: Value,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("could not read {}: {}", message(path.display()), message(reason))]
pub struct ManifestError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// Devices as they are written now, and as they were before a run could have others: `Cpu`.
fn devices<'de, D: Deserializer<'de>>(from: D) -> Result<Devices, D::Error> {
    let text = String::deserialize(from)?.to_lowercase();
    text.parse().map_err(serde::de::Error::custom)
}

impl Manifest {
    /// Reads the manifest of a run directory.
    ///
    /// # Errors
    /// When there is none, or it is not one.
    pub fn of(directory: &Path) -> Result<Self, ManifestError> {
        let path = directory.join(MANIFEST);
        let fail = |reason: String| ManifestError { path: path.clone(), reason };
        let file = File::open(&path).map_err(|e| fail(e.to_string()))?;
        let mut text = String::new();
        file.take(LARGEST + 1).read_to_string(&mut text).map_err(|e| fail(e.to_string()))?;
        if text.len() as u64 > LARGEST {
            return Err(fail(format!("it is larger than {LARGEST} bytes")));
        }
        serde_json::from_str(&text).map_err(|e| fail(e.to_string()))
    }

    /// The seed of weights that nobody has trained: that with which the history of a fork began.
    #[must_use]
    pub fn initial_seed(&self) -> u64 {
        let recorded = self.fork.as_ref().and_then(|fork| fork["initial_seed"].as_u64());
        recorded.unwrap_or(self.seed)
    }

    /// In which inputs another run differs from this one, a line each: data, models, adapters.
    #[must_use]
    pub fn other_inputs(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let parts = [
            ("data", &self.data, &other.data),
            ("backbones", &self.backbones, &other.backbones),
            ("agents", &self.agents, &other.agents),
        ];
        for (name, recorded, now) in parts {
            for change in crate::divergence::changes(recorded, now) {
                // Where a model lies does not matter, what is in it does.
                if !change.place.ends_with("path") {
                    found.push(format!("{name}.{change}"));
                }
            }
        }
        found
    }
}
