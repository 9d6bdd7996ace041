//! Adapters on disk: a folder in PEFT's layout, `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Ours carry one more entry, `polylogue`, with generation and exact kind, so that what was saved here is
//! read back exactly; an adapter trained elsewhere has no such entry and is understood by
//! [`super::peft`], or refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

use super::{Adapter, AdapterSpec, Generation, Method, peft, vera, virtual_tokens};
use crate::backbone::architecture::Family;
use crate::backbone::checkpoint::Checkpoint;
use crate::backbone::{Backbone, checkpoint};
use crate::error::{ModelError, Result};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// The files of an adapter, as [`Adapter::load`] reads them.
pub const FILES: [&str; 2] = [CONFIG, WEIGHTS];
/// Largest adapter configuration that is read.
const LARGEST_CONFIG: u64 = 1 << 20;

impl Adapter {
    /// Writes the adapter into `directory`, which is created.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let fail = |source| ModelError::File { path: directory.into(), source };
        std::fs::create_dir_all(directory).map_err(fail)?;
        let architecture = &self.architecture;
        let stored = peft::to_disk(&self.spec, &self.tensors, architecture.family)?;
        checkpoint::write(&stored, DType::F32, &directory.join(WEIGHTS))?;
        let mut config = peft::config(&self.spec, architecture);
        config["polylogue"] = json!({"generation": self.generation.0, "spec": self.spec});
        let text = format!("{config:#}\n");
        std::fs::write(directory.join(CONFIG), text).map_err(fail)
    }

    /// Tensors of this adapter's shape, such as gradients, under the names they have on disk.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn under_disk_names(
        &self,
        tensors: BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>> {
        peft::to_disk(&self.spec, &tensors, self.architecture.family)
    }

    /// Reads an adapter that [`Adapter::save`] or PEFT wrote.
    ///
    /// # Errors
    /// When a file is missing or malformed, the configuration asks for something we do not have, or a
    /// tensor does not fit the backbone.
    pub fn load(directory: &Path, backbone: &Backbone) -> Result<Self> {
        Files::read(directory, backbone.network.device())?.adapter(backbone)
    }

    /// Reads an adapter whose two files are in memory; `directory` is what errors call the place.
    ///
    /// # Errors
    /// As [`Adapter::load`].
    pub fn from_bytes(
        config: &[u8],
        weights: Vec<u8>,
        directory: &Path,
        backbone: &Backbone,
    ) -> Result<Self> {
        let checkpoint = Checkpoint::from_bytes(weights, &directory.join(WEIGHTS))?;
        let stored = checkpoint.all(backbone.network.device())?;
        Files::parse(config, stored, directory)?.adapter(backbone)
    }

    /// Assembles tensors that came from outside: exactly those of the kind, each of its shape.
    pub(super) fn checked(
        spec: AdapterSpec,
        generation: Generation,
        tensors: BTreeMap<String, Tensor>,
        backbone: &Backbone,
    ) -> Result<Self> {
        fits(&spec, &tensors, backbone)?;
        let expected = Self::initial(plain(&spec), backbone, crate::seed::Seed::new(0))?;
        for (name, tensor) in expected.tensors() {
            let found = tensors.get(name).map(|t| t.dims().to_vec()).unwrap_or_default();
            if found != tensor.dims() {
                let expected = tensor.dims().to_vec();
                return Err(ModelError::WeightShape { name: name.clone(), expected, found });
            }
        }
        if let Some(name) = tensors
            .keys()
            .find(|name| !expected.tensors().contains_key(*name) && !super::is_fixed(name))
        {
            return Err(ModelError::UnknownWeight { name: name.clone() });
        }
        Self::assemble(spec, generation, tensors, backbone)
    }
}

/// What the two files of an adapter say about it without its model.
#[derive(Clone, Debug)]
pub struct Description {
    /// How it changes a network.
    pub method: Method,
    /// Whether it classifies.
    pub has_head: bool,
    /// The classes; none for a text model, numbers for a head that PEFT wrote.
    pub labels: Vec<String>,
    /// Which version it is; 0 for an adapter from elsewhere.
    pub generation: Generation,
    /// How many numbers training changes.
    pub trainable: usize,
}

impl Description {
    /// Reads the files of an adapter that [`Adapter::save`] or PEFT wrote.
    ///
    /// # Errors
    /// As [`Adapter::load`], except where only the backbone tells that something does not fit.
    pub fn read(directory: &Path) -> Result<Self> {
        let files = Files::read(directory, &Device::Cpu)?;
        let (method, has_head, labels, generation) = match files.own()? {
            Some((AdapterSpec { method, head }, generation)) => {
                let labels = head.as_ref().map(|head| head.labels.clone());
                (method, head.is_some(), labels.unwrap_or_default(), generation)
            }
            None => {
                let method = peft::method(&files.config, &files.stored);
                let labels = peft::any_labels(&files.config, &files.stored);
                let labels = labels.map_err(|reason| files.malformed(reason))?;
                let method = method.map_err(|reason| files.malformed(reason))?;
                (method, labels.is_some(), labels.unwrap_or_default(), Generation(0))
            }
        };
        // The family only matters for what stands before a name, and what is fixed is told by its end.
        let spec = AdapterSpec { method, head: None };
        let tensors = peft::from_disk(&spec, files.stored, Family::Llama)?;
        let trained = tensors.iter().filter(|(name, _)| !super::is_fixed(name));
        let trainable = trained.map(|(_, tensor)| tensor.elem_count()).sum();
        Ok(Self { method: spec.method, has_head, labels, generation, trainable })
    }
}

/// The two files of an adapter.
struct Files {
    config: Value,
    /// By the names on disk.
    stored: BTreeMap<String, Tensor>,
    /// The configuration's place.
    path: PathBuf,
}

impl Files {
    fn read(directory: &Path, device: &Device) -> Result<Self> {
        let path = directory.join(CONFIG);
        let fail = |source| ModelError::File { path: path.clone(), source };
        let size = std::fs::metadata(&path).map_err(fail)?.len();
        if size > LARGEST_CONFIG {
            let reason = format!("{size} bytes are more than {LARGEST_CONFIG}");
            return Err(malformed(&path, reason));
        }
        let bytes = std::fs::read(&path).map_err(fail)?;
        let stored = checkpoint::read_all(&directory.join(WEIGHTS), device)?;
        Self::parse(&bytes, stored, directory)
    }

    fn parse(config: &[u8], stored: BTreeMap<String, Tensor>, directory: &Path) -> Result<Self> {
        let path = directory.join(CONFIG);
        let config =
            serde_json::from_slice(config).map_err(|error| malformed(&path, error.to_string()))?;
        Ok(Self { config, stored, path })
    }

    fn malformed(&self, reason: String) -> ModelError {
        malformed(&self.path, reason)
    }

    /// What our own entry says; none for an adapter from elsewhere.
    fn own(&self) -> Result<Option<(AdapterSpec, Generation)>> {
        let Some(own) = self.config.get("polylogue").filter(|own| !own.is_null()) else {
            return Ok(None);
        };
        let spec = serde_json::from_value(own["spec"].clone()).map_err(|error| {
            self.malformed(format!("no `polylogue.spec` of a known kind: {error}"))
        })?;
        // The last number of all is left out, for there is always a next one.
        let generation = match &own["generation"] {
            Value::Null => Some(0),
            number => number.as_u64().and_then(|number| u32::try_from(number).ok()),
        };
        let generation = generation.filter(|&number| number < u32::MAX).ok_or_else(|| {
            self.malformed(format!("`polylogue.generation` is {}", own["generation"]))
        })?;
        Ok(Some((spec, Generation(generation))))
    }

    fn adapter(self, backbone: &Backbone) -> Result<Adapter> {
        let (spec, generation) = match self.own()? {
            Some(own) => own,
            None => {
                let spec = peft::spec(&self.config, &self.stored, backbone)
                    .map_err(|reason| self.malformed(reason))?;
                (spec, Generation(0))
            }
        };
        let family = backbone.network.architecture().family;
        let tensors = peft::from_disk(&spec, self.stored, family)?;
        Adapter::checked(spec, generation, tensors, backbone)
    }
}

fn malformed(path: &Path, reason: String) -> ModelError {
    ModelError::Malformed { path: path.into(), what: "adapter configuration", reason }
}

/// Holds the sizes that a kind states against its tensors and the backbone, before anything is allocated for
/// them.
fn fits(spec: &AdapterSpec, tensors: &BTreeMap<String, Tensor>, backbone: &Backbone) -> Result<()> {
    let architecture = backbone.network.architecture();
    let depth = architecture.depth();
    let expected: Vec<(&str, Vec<usize>)> = match &spec.method {
        Method::Vera(spec) => {
            let [widest_out, widest_in] = vera::widest(spec, backbone)?;
            vec![(vera::A, vec![spec.rank, widest_in]), (vera::B, vec![widest_out, spec.rank])]
        }
        Method::Prompt { tokens } => {
            vec![(virtual_tokens::NAME, vec![*tokens, architecture.hidden])]
        }
        Method::Prefix { tokens } => {
            let width = 2 * depth * architecture.key_width();
            vec![(virtual_tokens::NAME, vec![*tokens, width])]
        }
        Method::Layers { freeze_layers } if *freeze_layers > depth => {
            let found = freeze_layers.to_string();
            let (what, expected) = ("the number of frozen layers", "at most the layers there are");
            return Err(ModelError::Setting { what, found, expected });
        }
        _ => return Ok(()),
    };
    for (name, expected) in expected {
        let found = tensors.get(name).map(|tensor| tensor.dims().to_vec()).unwrap_or_default();
        if found != expected {
            return Err(ModelError::WeightShape { name: name.to_owned(), expected, found });
        }
    }
    Ok(())
}

/// The same shapes without the singular value decomposition of PiSSA.
fn plain(spec: &AdapterSpec) -> AdapterSpec {
    let mut spec = spec.clone();
    if let Method::Lora(lora) = &mut spec.method {
        lora.init = super::lora::Init::Kaiming;
    }
    spec
}
