//! Weights on disk: safetensors files, checked against the configuration before they are used.
//!
//! Files are copied into memory, never mapped: a mapped file that changes underneath would be undefined
//! behaviour. Pickle files are not read at all.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;

use crate::error::{ModelError, Result};

/// Ends of the names of what transformers saves beside the weights: whole numbers that count positions.
const BUFFERS: [&str; 2] = ["embeddings.position_ids", "embeddings.token_type_ids"];

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    tensors: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Opens `model.safetensors` in a directory.
    ///
    /// # Errors
    /// When the file is missing or malformed.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("model.safetensors");
        let bytes = std::fs::read(&path)
            .map_err(|source| ModelError::File { path: path.clone(), source })?;
        Self::from_bytes(&bytes, &path)
    }

    /// Opens a checkpoint that is in memory.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        let file = parse(bytes, path)?;
        let tensors = file
            .iter()
            .filter(|(name, _)| !BUFFERS.iter().any(|buffer| name.ends_with(buffer)))
            .map(|(name, view)| Ok((name.to_owned(), load(&view, name, path, &Device::Cpu)?)))
            .collect::<Result<_>>()?;
        Ok(Self { tensors })
    }

    /// The shape of a tensor.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(Tensor::dims)
    }

    /// Reads one tensor.
    ///
    /// # Errors
    /// When it is missing or misshapen.
    pub fn read(
        &self,
        name: &str,
        expected: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| ModelError::MissingWeight { name: name.to_owned() })?;
        if tensor.dims() != expected {
            return Err(ModelError::WeightShape {
                name: name.to_owned(),
                expected: expected.to_vec(),
                found: tensor.dims().to_vec(),
            });
        }
        Ok(tensor.to_dtype(dtype)?.to_device(device)?)
    }
}

/// Reads every tensor of a safetensors file, as f32.
///
/// # Errors
/// When the file is malformed or holds values that are not finite.
pub fn read_all(path: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let bytes =
        std::fs::read(path).map_err(|source| ModelError::File { path: path.into(), source })?;
    let file = parse(&bytes, path)?;
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
