//! Adapters on disk: a folder in PEFT's layout, `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Ours carry one more entry, `polylogue`, with generation and exact kind, so that what was saved here is
//! read back exactly; an adapter trained elsewhere has no such entry and is understood by
//! [`super::peft`], or refused.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use serde_json::{Value, json};

use super::{Adapter, AdapterSpec, Generation, peft};
use crate::backbone::{Backbone, checkpoint};
use crate::error::{ModelError, Result};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
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
        let path = directory.join(CONFIG);
        let malformed = |reason: String| ModelError::Malformed {
            path: path.clone(),
            what: "adapter configuration",
            reason,
        };
        let size = std::fs::metadata(&path)
            .map_err(|source| ModelError::File { path: path.clone(), source })?
            .len();
        if size > LARGEST_CONFIG {
            return Err(malformed(format!("{size} bytes are more than {LARGEST_CONFIG}")));
        }
        let bytes = std::fs::read(&path)
            .map_err(|source| ModelError::File { path: path.clone(), source })?;
        let config: Value = serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
        let path = directory.join(WEIGHTS);
        let stored = checkpoint::read_all(&path, backbone.network.device())?;
        let own = config.get("polylogue").filter(|own| !own.is_null());
        let (spec, generation) = match own {
            Some(own) => {
                let spec: AdapterSpec = serde_json::from_value(own["spec"].clone())
                    .map_err(|e| malformed(format!("no `polylogue.spec` of a known kind: {e}")))?;
                (spec, Generation(own["generation"].as_u64().unwrap_or(0) as u32))
            }
            None => (peft::spec(&config, &stored, backbone).map_err(malformed)?, Generation(0)),
        };
        let family = backbone.network.architecture().family;
        let tensors = peft::from_disk(&spec, stored, family)?;
        Self::checked(spec, generation, tensors, backbone)
    }

    /// Assembles tensors that came from outside: exactly those of the kind, each of its shape.
    pub(super) fn checked(
        spec: AdapterSpec,
        generation: Generation,
        tensors: BTreeMap<String, Tensor>,
        backbone: &Backbone,
    ) -> Result<Self> {
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

/// The same shapes without the singular value decomposition of PiSSA.
fn plain(spec: &AdapterSpec) -> AdapterSpec {
    let mut spec = spec.clone();
    if let super::Method::Lora(lora) = &mut spec.method {
        lora.init = super::lora::Init::Kaiming;
    }
    spec
}
