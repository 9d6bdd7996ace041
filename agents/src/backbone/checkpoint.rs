//! Weights on disk: safetensors files, checked against the configuration before they are used.
//!
//! Files are copied into memory, never mapped: a mapped file that changes underneath would be undefined
//! behaviour. Pickle files are not read at all.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;

use super::config::DecoderConfig;
use crate::error::{ModelError, Result};

/// Reads the weights that `config` asks for from the bytes of a safetensors file, as f32.
///
/// # Errors
/// When the file is malformed, or a weight is missing, misshapen or not finite.
pub fn read(
    bytes: &[u8],
    path: &Path,
    config: &DecoderConfig,
    device: &Device,
) -> Result<BTreeMap<String, Tensor>> {
    let file = parse(bytes, path)?;
    let mut tensors = BTreeMap::new();
    for (name, expected) in config.weights() {
        let view = file
            .tensor(&name)
            .map_err(|_missing| ModelError::MissingWeight { name: name.clone() })?;
        if view.shape() != expected {
            let found = view.shape().to_vec();
            return Err(ModelError::WeightShape { name, expected, found });
        }
        let tensor = load(&view, &name, path, device)?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// Reads every tensor of a safetensors file, as f32.
///
/// # Errors
/// When the file is malformed or holds values that are not finite.
pub fn read_all(bytes: &[u8], path: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let file = parse(bytes, path)?;
    file.iter()
        .map(|(name, view)| Ok((name.to_owned(), load(&view, name, path, device)?)))
        .collect()
}

fn parse<'a>(bytes: &'a [u8], path: &Path) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).map_err(|e| ModelError::Malformed {
        path: path.into(),
        what: "safetensors file",
        reason: e.to_string(),
    })
}

fn load(
    view: &safetensors::tensor::TensorView<'_>,
    name: &str,
    path: &Path,
    device: &Device,
) -> Result<Tensor> {
    use safetensors::Dtype;
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => {
            return Err(ModelError::Malformed {
                path: path.into(),
                what: "checkpoint",
                reason: format!(
                    "weight `{name}` is stored as {other:?}; f32, f16 and bf16 are read"
                ),
            });
        }
    };
    let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?
        .to_dtype(DType::F32)?;
    // The sum of magnitudes is finite exactly when every value is (weights are far from overflow).
    let magnitude = tensor.abs()?.sum_all()?.to_scalar::<f32>()?;
    if !magnitude.is_finite() {
        return Err(ModelError::WeightNotFinite { name: name.to_owned() });
    }
    Ok(tensor.to_device(device)?)
}

/// Writes named tensors as a safetensors file, in the given type.
///
/// # Errors
/// When the file cannot be written.
pub fn write(tensors: &BTreeMap<String, Tensor>, dtype: DType, path: &Path) -> Result<()> {
    let stored = tensors
        .iter()
        .map(|(name, tensor)| {
            let tensor = tensor.detach().to_device(&Device::Cpu)?.to_dtype(dtype)?.contiguous()?;
            Ok((name.as_str(), tensor))
        })
        .collect::<Result<Vec<_>>>()?;
    let bytes = safetensors::serialize(stored, None).map_err(candle_core::Error::from)?;
    std::fs::write(path, bytes).map_err(|source| ModelError::File { path: path.into(), source })
}
