//! Pretrained networks on their way from where they lie into memory, with a record of what was read.
//!
//! Those of the hub are fetched here, before a society begins; nothing else of a run touches the network.

use std::path::{Path, PathBuf};

pub use agents::backbone::Precision;
use agents::backbone::digest::digests;
use agents::backbone::gguf::Gguf;
use agents::backbone::{Backbone, builtin};
use agents::device::Device;
pub use agents::device::{DeviceKind, Devices, cores};
use agents::error::ModelError;
use agents::hub::{HubError, fetch};
pub use agents::hub::{HubSettings, Progress as Fetching};
use serde_json::{Value, json};

use crate::scenario::BackboneSource;

/// The network inside the binary.
pub(crate) const BUILTIN: &str = builtin::NAME;
/// Begins the name of a model of the Hugging Face hub.
pub(crate) const HUB: &str = "hub:";

/// A backbone in memory.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The network and its tokenizer.
    pub(crate) backbone: Backbone,
    /// Where it came from (`builtin`, `path`, or `hub` with its `commit`), and the SHA-256 of each of its
    /// `files`.
    pub(crate) origin: Value,
    /// Its folder or file; none for the one inside the binary.
    pub(crate) place: Option<PathBuf>,
}

impl Opened {
    /// The same network on another device.
    ///
    /// # Errors
    /// When its files cannot be used any more, or the device has no room.
    pub(crate) fn on(&self, device: &Device) -> Result<Backbone, ModelError> {
        let dtype = self.backbone.network.dtype();
        match &self.place {
            None => builtin::polylogue_tiny_as(dtype, device),
            Some(path) => Backbone::load_as(path, dtype, device),
        }
    }
}

/// Where a model that was named on a command line comes from: a word, a folder or `.gguf` file that is there,
/// or a name on the hub. Nothing where it is none of them.
///
/// # Errors
/// When what follows `hub:` names no model.
pub(crate) fn source(model: &str) -> Result<Option<BackboneSource>, HubError> {
    let path = Path::new(model);
    Ok(if model == BUILTIN {
        Some(BackboneSource::Builtin)
    } else if path.is_dir() || Gguf::is(path) {
        Some(BackboneSource::Path(path.to_owned()))
    } else if let Some(name) = model.strip_prefix(HUB) {
        Some(BackboneSource::Hub(name.parse()?))
    } else {
        None
    })
}

/// What `--model` takes.
pub(crate) fn sources() -> String {
    format!(
        "--model takes {BUILTIN}, the folder that holds config.json, a .gguf file, or \
         {HUB}OWNER/NAME@REVISION for a model of the Hugging Face hub"
    )
}

/// Fetches a backbone where it is on the hub, and loads it, computing in `precision`; any other than f32 is
/// recorded.
///
/// # Errors
/// When it cannot be fetched or a file of it cannot be used.
pub(crate) fn open(
    source: &BackboneSource,
    device: &Device,
    precision: Precision,
    hub: &HubSettings,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<Opened, ModelError> {
    let dtype = precision.dtype();
    let mut opened = match source {
        BackboneSource::Builtin => {
            let origin = json!({"builtin": builtin::NAME, "files": builtin::digests()});
            Opened { backbone: builtin::polylogue_tiny_as(dtype, device)?, origin, place: None }
        }
        BackboneSource::Path(path) => {
            let backbone = Backbone::load_as(path, dtype, device)?;
            let origin = json!({"path": path.display().to_string(), "files": digests(path)?});
            Opened { backbone, origin, place: Some(path.clone()) }
        }
        BackboneSource::Hub(model) => {
            let path = fetch(model, hub, hear)?;
            let (backbone, files) = (Backbone::load_as(&path, dtype, device)?, digests(&path)?);
            let commit = model.commit_at(&path);
            let origin = json!({"hub": model.to_string(), "commit": commit, "files": files});
            Opened { backbone, origin, place: Some(path) }
        }
    };
    if precision != Precision::F32 {
        opened.origin["dtype"] = json!(precision);
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn every_source_is_recorded_with_the_digests_of_its_files() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("models--owner--tiny");
        let snapshot = folder.join("snapshots").join(COMMIT);
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(folder.join("refs")).unwrap();
        std::fs::write(folder.join("refs/main"), COMMIT).unwrap();
        let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../agents/polylogue-tiny");
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            std::fs::copy(format!("{tiny}/{name}"), snapshot.join(name)).unwrap();
        }
        let cache = Some(home.path().to_owned());
        let hub = HubSettings { cache, offline: true, ..HubSettings::default() };
        let origin = |source: BackboneSource| {
            let (cpu, f32) = (DeviceKind::Cpu.open()?, Precision::F32);
            open(&source, &cpu, f32, &hub, &mut |_| {}).map(|opened| opened.origin)
        };
        let builtin = origin(BackboneSource::Builtin).unwrap();
        let path = origin(BackboneSource::Path(snapshot.clone())).unwrap();
        let fetched = origin(BackboneSource::Hub("owner/tiny".parse().unwrap())).unwrap();
        assert_eq!(builtin["builtin"], "polylogue-tiny");
        assert_eq!(path["path"], snapshot.display().to_string());
        assert_eq!(
            (&fetched["hub"], &fetched["commit"]),
            (&json!("owner/tiny@main"), &json!(COMMIT))
        );
        let digest = builtin["files"]["model.safetensors"].as_str().unwrap();
        assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(
            ["config.json", "tokenizer.json"].iter().all(|name| builtin["files"][name].is_string())
        );
        // The same files, wherever they lie.
        assert_eq!((&path["files"], &fetched["files"]), (&builtin["files"], &builtin["files"]));
        let missing = origin(BackboneSource::Hub("owner/other".parse().unwrap())).unwrap_err();
        assert!(missing.to_string().contains("HF_HUB_OFFLINE"), "{missing}");
    }
}
