//! What a run directory says of how its run was made, read back: enough to make the same run again.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

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
    /// The devices; of a run that went on with others, the last ones.
    #[serde(deserialize_with = "devices")]
    pub device: Devices,
    /// What it had before, the earliest first.
    #[serde(default)]
    pub devices_before: Vec<DevicesBefore>,
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

/// Devices that a run had for a time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct DevicesBefore {
    /// Which.
    #[serde(deserialize_with = "devices")]
    pub device: Devices,
    /// The last tick that came from them.
    pub until: u64,
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
        Self::parsed(directory)
    }

    /// Whatever a reader makes of the manifest.
    fn parsed<T: DeserializeOwned>(directory: &Path) -> Result<T, ManifestError> {
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

    /// The devices that a tick came from.
    #[must_use]
    pub fn devices_at(&self, tick: u64) -> &Devices {
        let before = self.devices_before.iter().find(|before| tick <= before.until);
        before.map_or(&self.device, |before| &before.device)
    }

    /// The tick after which devices that are not like those before had the run, and which those were; none
    /// where all of it has the bits of the same devices.
    #[must_use]
    pub fn changed_devices(&self) -> Option<(u64, &Devices)> {
        let mut before = self.devices_before.iter().map(|before| (before.until, &before.device));
        before.find(|(until, device)| !self.devices_at(until + 1).are_like(device))
    }

    /// The text of a run's manifest once the run has gone on with `devices` after a tick, or from its beginning
    /// where none is given.
    ///
    /// # Errors
    /// When the manifest cannot be read any more.
    pub fn moved(
        &self,
        directory: &Path,
        devices: &Devices,
        after: Option<u64>,
    ) -> Result<String, ManifestError> {
        let mut manifest: Value = Self::parsed(directory)?;
        manifest["device"] = json!(devices.to_string());
        let before = self.before(devices, after.unwrap_or_default());
        let before = before
            .iter()
            .map(|(device, until)| json!({"device": device.to_string(), "until": until}));
        manifest["devices_before"] = before.collect();
        Ok(format!("{manifest:#}\n"))
    }

    /// Which devices had the ticks up to `last`, where `next` has those after it.
    fn before(&self, next: &Devices, last: u64) -> Vec<(&Devices, u64)> {
        let known = self.devices_before.iter().map(|before| (&before.device, before.until));
        let mut before: Vec<(&Devices, u64)> = Vec::new();
        for (device, until) in known.chain([(&self.device, u64::MAX)]) {
            let begun = before.last().map_or(0, |(_, until)| *until);
            if begun < last {
                before.push((device, until.min(last)));
            }
        }
        before.pop_if(|(device, _)| *device == next);
        before
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

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(text: &str) -> Devices {
        text.parse().unwrap()
    }

    #[test]
    fn every_tick_is_of_the_devices_that_had_it_last() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(folder.path().join(MANIFEST), text).unwrap();
        write(
            r#"{"polylogue":"0","scenario":"x","seed":1,"device":"Cpu","platform":"p","arguments":["a"]}"#,
        );
        let moved = |next: &str, after: Option<u64>| {
            let manifest = Manifest::of(folder.path()).unwrap();
            write(&manifest.moved(folder.path(), &devices(next), after).unwrap());
            let manifest = Manifest::of(folder.path()).unwrap();
            assert_eq!(manifest.device, devices(next));
            let before = manifest.devices_before.iter();
            before.map(|b| format!("{}:{}", b.device, b.until)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(moved("cuda", Some(16)), "cpu:16");
        let manifest = Manifest::of(folder.path()).unwrap();
        let at = |tick| manifest.devices_at(tick).to_string();
        assert_eq!((at(0), at(16), at(17)), ("cpu".into(), "cpu".into(), "cuda:0".into()));
        assert_eq!(manifest.changed_devices(), Some((16, &devices("cpu"))));
        // It never came to a checkpoint there.
        assert_eq!(moved("cuda:1", Some(16)), "cpu:16");
        // Another card is named, and has the same bits.
        assert_eq!(moved("cuda:2", Some(40)), "cpu:16 cuda:1:40");
        // The checkpoints after tick 24 are damaged.
        assert_eq!(moved("cpu", Some(24)), "cpu:16 cuda:1:24");
        assert_eq!(moved("cpu", Some(8)), "");
        assert_eq!(Manifest::of(folder.path()).unwrap().changed_devices(), None);
        assert_eq!(moved("cuda", None), "", "from its beginning");
        let text = std::fs::read_to_string(folder.path().join(MANIFEST)).unwrap();
        assert!(text.contains("arguments"), "what else is there stays");
    }
}
