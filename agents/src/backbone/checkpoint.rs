//! Weights on disk: safetensors files, one or in shards, checked before anything is allocated for them.
//!
//! Only headers are read when a checkpoint is opened; each tensor is copied when it is asked for. Files
//! are never mapped: a mapped file that changes underneath would be undefined behaviour. Pickle files are
//! not read at all, for reading one runs the code in it.

mod contents;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensorError};
use serde::Deserialize;

pub(crate) use self::contents::Contents;
use crate::error::{ModelError, Result};

/// Weights in one file.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Which shard holds which weight.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Largest header or index that is read, in bytes; the limit of the safetensors crate.
const LARGEST_HEADER: u64 = 100_000_000;
/// Most values of one tensor.
const LARGEST: usize = 1 << 40;
/// Largest file that is read as a whole, in bytes.
const LARGEST_WHOLE: u64 = 16 << 30;
/// What PyTorch calls its pickle files.
pub(crate) const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<Contents>,
    tensors: BTreeMap<String, Entry>,
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
    length: usize,
}

/// `model.safetensors.index.json`: which shard holds which tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    fn read(path: &Path) -> Result<Self> {
        let bytes = Contents::open(path)?;
        serde_json::from_slice(&bytes.whole(LARGEST_HEADER)?)
            .map_err(|e| malformed(path, e.to_string()))
    }

    /// The shards, none of which leads out of their folder.
    fn shards(&self, path: &Path) -> Result<BTreeSet<&str>> {
        let shards: BTreeSet<&str> = self.weight_map.values().map(String::as_str).collect();
        match shards.iter().find(|shard| !is_plain(shard)) {
            None => Ok(shards),
            Some(shard) => {
                let reason = format!("shard {shard:?} is not the plain name of a safetensors file");
                Err(malformed(path, reason))
            }
        }
    }
}

fn malformed(path: &Path, reason: String) -> ModelError {
    ModelError::Malformed { path: path.into(), what: "index of shards", reason }
}

/// The shards that an index of shards names.
///
/// # Errors
/// When it cannot be read, or names something that is not a plain safetensors file.
pub(crate) fn shards(index: &Path) -> Result<BTreeSet<String>> {
    Ok(Index::read(index)?.shards(index)?.into_iter().map(str::to_owned).collect())
}

impl Checkpoint {
    /// Opens `model.safetensors` in a directory, or the shards that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// When a file is missing or malformed, or there are only pickle files.
    pub fn open(directory: &Path) -> Result<Self> {
        let (single, index) = (directory.join(SINGLE), directory.join(INDEX));
        if index.exists() && !single.exists() {
            return Self::sharded(directory, &index);
        }
        if !single.exists()
            && let Some(path) = pickle(directory)
        {
            return Err(ModelError::Pickle { path });
        }
        Self::single(Contents::open(&single)?)
    }

    /// Opens a checkpoint that is in memory.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>, path: &Path) -> Result<Self> {
        Self::single(Contents::memory(bytes.into(), path))
    }

    fn single(contents: Contents) -> Result<Self> {
        let tensors = header(&contents, 0)?;
        Ok(Self { files: vec![contents], tensors })
    }

    fn sharded(directory: &Path, path: &Path) -> Result<Self> {
        let index = Index::read(path)?;
        let mut files = Vec::new();
        let mut tensors = BTreeMap::new();
        for shard in index.shards(path)? {
            let contents = Contents::open(&directory.join(shard))?;
            let mut held = header(&contents, files.len())?;
            for (name, _) in index.weight_map.iter().filter(|(_, of)| *of == shard) {
                let entry = held.remove(name).ok_or_else(|| {
                    let reason = format!("weight `{name}` is not in {shard}, where it should be");
                    malformed(path, reason)
                })?;
                tensors.insert(name.clone(), entry);
            }
            files.push(contents);
        }
        Ok(Self { files, tensors })
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Whether a tensor is stored in a type that [`Checkpoint::read`] reads.
    pub(crate) fn is_float(&self, name: &str) -> bool {
        let dtype = self.tensors.get(name).map(|entry| entry.dtype);
        matches!(dtype, Some(Dtype::F32 | Dtype::F16 | Dtype::BF16))
    }

    /// Reads one tensor.
    ///
    /// # Errors
    /// When it is missing, misshapen, of a type that is no weight's, or not finite.
    pub fn read(
        &self,
        name: &str,
        expected: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let missing = || ModelError::MissingWeight { name: name.to_owned() };
        let entry = self.tensors.get(name).ok_or_else(missing)?;
        if entry.shape != expected {
            return Err(ModelError::WeightShape {
                name: name.to_owned(),
                expected: expected.to_vec(),
                found: entry.shape.clone(),
            });
        }
        let contents = self.files.get(entry.file).ok_or_else(missing)?;
        let stored = match entry.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                let reason = format!("`{name}` is stored as {other:?}; f32, f16, bf16 are read");
                return Err(contents.malformed("checkpoint", reason));
            }
        };
        let bytes = contents.read(entry.start, entry.length)?;
        let tensor = Tensor::from_raw_buffer(&bytes, stored, expected, &Device::Cpu)?;
        drop(bytes);
        let tensor = tensor.to_dtype(dtype)?;
        check_finite(&tensor, name)?;
        Ok(tensor.to_device(device)?)
    }

    /// Reads every tensor, as f32.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn all(&self, device: &Device) -> Result<BTreeMap<String, Tensor>> {
        let read = |(name, entry): (&String, &Entry)| {
            Ok((name.clone(), self.read(name, &entry.shape, DType::F32, device)?))
        };
        self.tensors.iter().map(read).collect()
    }
}

/// Refuses a tensor that holds NaN or infinity: times zero, neither is zero.
pub(crate) fn check_finite(tensor: &Tensor, name: &str) -> Result<()> {
    let zero = (tensor * 0.0)?.sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()?;
    if zero.is_nan() {
        return Err(ModelError::WeightNotFinite { name: name.to_owned() });
    }
    Ok(())
}

/// Reads and checks the header of a safetensors file, `file` being its place in the checkpoint.
fn header(contents: &Contents, file: usize) -> Result<BTreeMap<String, Entry>> {
    let malformed = |reason: String| contents.malformed("safetensors file", reason);
    let Some(rest) = contents.length().checked_sub(8) else {
        return Err(malformed("it is shorter than the length of its header".to_owned()));
    };
    let prefix: [u8; 8] = contents.read(0, 8)?.as_ref().try_into().unwrap_or_default();
    let length = u64::from_le_bytes(prefix);
    if length > rest || length > LARGEST_HEADER {
        return Err(malformed(format!("a header of {length} bytes in a file of {}", rest + 8)));
    }
    let metadata: Metadata = serde_json::from_slice(&contents.read(8, length as usize)?)
        .map_err(|e| malformed(e.to_string()))?;
    // The crate has checked that tensors follow each other without gap and are as long as their shapes.
    if metadata.data_len() as u64 != rest - length {
        let (declared, found) = (metadata.data_len(), rest - length);
        return Err(malformed(format!("its header describes {declared} bytes, it has {found}")));
    }
    // It has not checked sizes where one side is 0: there, too, strides are computed.
    let absurd = metadata.tensors().into_iter().find(|(_, info)| {
        let mut sides = info.shape.iter().map(|&side| side.max(1));
        sides
            .try_fold(1_usize, |all, side| all.checked_mul(side).filter(|&all| all <= LARGEST))
            .is_none()
    });
    if let Some((name, info)) = absurd {
        return Err(malformed(format!("`{name}` has the shape {:?}", info.shape)));
    }
    let entry = |info: &safetensors::tensor::TensorInfo| Entry {
        file,
        dtype: info.dtype,
        shape: info.shape.clone(),
        start: 8 + length + info.data_offsets.0 as u64,
        length: info.data_offsets.1 - info.data_offsets.0,
    };
    Ok(metadata.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect())
}

/// Whether a shard's name stays in its directory.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let normal = matches!(parts.next(), Some(Component::Normal(part)) if part == name);
    normal && parts.next().is_none() && !name.contains('\\') && name.ends_with(".safetensors")
}

/// The first pickle file of a directory.
fn pickle(directory: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    files
        .filter(|path| {
            path.extension().is_some_and(|kind| PICKLES.iter().any(|pickle| kind == *pickle))
        })
        .min()
}

/// Reads every tensor of a safetensors file, as f32.
///
/// # Errors
/// When the file is malformed, absurdly large, or holds values that are not finite.
pub fn read_all(path: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let contents = Contents::open(path)?;
    contents.refuse_larger(LARGEST_WHOLE)?;
    Checkpoint::single(contents)?.all(device)
}

/// Writes named tensors as a safetensors file, in the given type.
///
/// # Errors
/// When the file cannot be written.
pub fn write(tensors: &BTreeMap<String, Tensor>, dtype: DType, path: &Path) -> Result<()> {
    std::fs::write(path, to_bytes(tensors, dtype)?)
        .map_err(|source| ModelError::File { path: path.into(), source })
}

/// Named tensors as the bytes of a safetensors file, in the given type.
///
/// # Errors
/// On a tensor failure only.
pub fn to_bytes(tensors: &BTreeMap<String, Tensor>, dtype: DType) -> Result<Vec<u8>> {
    let stored = plain(tensors, dtype)?;
    Ok(safetensors::serialize(stored, None).map_err(candle_core::Error::from)?)
}

/// Writes the weights of a model in f32, with the mark that transformers asks for (`format` is `pt`), one
/// tensor after the other.
///
/// # Errors
/// When the file cannot be written.
pub fn write_model(tensors: &BTreeMap<String, Tensor>, path: &Path) -> Result<()> {
    let mark = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let stored = plain(tensors, DType::F32)?;
    safetensors::serialize_to_file(stored, Some(mark), path).map_err(|error| match error {
        SafeTensorError::IoError(source) => ModelError::File { path: path.into(), source },
        other => candle_core::Error::from(other).into(),
    })
}

/// Tensors as they are stored.
fn plain<'a>(
    tensors: &'a BTreeMap<String, Tensor>,
    dtype: DType,
) -> Result<Vec<(&'a str, Tensor)>> {
    let store = |(name, tensor): (&'a String, &Tensor)| -> Result<(&'a str, Tensor)> {
        let tensor = tensor.detach().to_device(&Device::Cpu)?.to_dtype(dtype)?.contiguous()?;
        Ok((name.as_str(), tensor))
    };
    tensors.iter().map(store).collect()
}

#[cfg(test)]
mod tests;
