//! Adapters on disk in PEFT's layout: a folder with `adapter_config.json` and
//! `adapter_model.safetensors`, keys prefixed with `base_model.model.`.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::DType;
use serde_json::json;

use super::{Adapter, AdapterSpec, Generation};
use crate::backbone::{Backbone, checkpoint};
use crate::error::{ModelError, Result};

/// What PEFT puts before every key.
const PREFIX: &str = "base_model.model.";
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

impl Adapter {
    /// Writes the adapter into `directory`, which is created.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let fail = |source| ModelError::File { path: directory.into(), source };
        std::fs::create_dir_all(directory).map_err(fail)?;
        let prefixed: BTreeMap<_, _> = self
            .tensors
            .iter()
            .map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor.clone()))
            .collect();
        checkpoint::write(&prefixed, DType::F32, &directory.join(WEIGHTS))?;
        let mut config = match &self.spec {
            AdapterSpec::Lora(lora) => json!({
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "r": lora.rank,
                "lora_alpha": lora.alpha,
                "lora_dropout": 0.0,
                "bias": "none",
                "target_modules": lora.targets.iter().map(|m| m.short()).collect::<Vec<_>>(),
                "inference_mode": true,
            }),
            AdapterSpec::Feature { .. } | AdapterSpec::Head { .. } => json!({"peft_type": null}),
        };
        config["polylogue"] = json!({"generation": self.generation.0, "spec": self.spec});
        let text = format!("{config:#}\n");
        std::fs::write(directory.join(CONFIG), text).map_err(fail)
    }

    /// Reads an adapter that [`Adapter::save`] wrote.
    ///
    /// # Errors
    /// When a file is missing or malformed, or a tensor does not fit the backbone.
    pub fn load(directory: &Path, backbone: &Backbone) -> Result<Self> {
        let path = directory.join(CONFIG);
        let read = |p: &Path| {
            std::fs::read(p).map_err(|source| ModelError::File { path: p.into(), source })
        };
        let malformed = |reason: String| ModelError::Malformed {
            path: path.clone(),
            what: "adapter configuration",
            reason,
        };
        let config: serde_json::Value =
            serde_json::from_slice(&read(&path)?).map_err(|e| malformed(e.to_string()))?;
        let own = config.get("polylogue").cloned().unwrap_or_default();
        let spec: AdapterSpec = serde_json::from_value(own["spec"].clone())
            .map_err(|e| malformed(format!("no `polylogue.spec` of a known kind: {e}")))?;
        let generation = Generation(own["generation"].as_u64().unwrap_or(0) as u32);
        let path = directory.join(WEIGHTS);
        let stored = checkpoint::read_all(&read(&path)?, &path, backbone.decoder.device())?;
        let tensors: BTreeMap<_, _> = stored
            .into_iter()
            .map(|(name, t)| (name.strip_prefix(PREFIX).unwrap_or(&name).to_owned(), t))
            .collect();
        let expected = Self::initial(spec.clone(), backbone, crate::seed::Seed::new(0))?;
        for (name, tensor) in expected.tensors() {
            let found = tensors.get(name).map(|t| t.dims().to_vec()).unwrap_or_default();
            if found != tensor.dims() {
                return Err(ModelError::WeightShape {
                    name: name.clone(),
                    expected: tensor.dims().to_vec(),
                    found,
                });
            }
        }
        Self::assemble(spec, generation, tensors, backbone)
    }
}
