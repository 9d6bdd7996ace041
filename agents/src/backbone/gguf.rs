//! Reads GGUF files of llama.cpp: the same networks as in Hugging Face directories, mostly quantised.
//!
//! What the file says is given in Hugging Face's terms: configuration, tokenizer and weights under their
//! names there, in their order of rows, so that adapters fit either. Matrices stay quantised. The header
//! is walked over with bounds before candle parses it. Writes nothing.

mod config;
mod layout;
mod scan;
mod tokenizer;

use std::borrow::Cow;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};

use self::layout::{Kind, unpaired};
use self::scan::{Stop, scan};
use super::checkpoint::{Contents, check_finite};
use super::weight::Weight;
use crate::error::{ModelError, Result};

/// Longest header that is read, in bytes: large vocabularies take some ten million.
const LARGEST_HEADER: u64 = 64 << 20;
/// How much of a file is looked at first.
const FIRST_LOOK: u64 = 1 << 20;

/// An opened GGUF file.
#[derive(Debug)]
pub struct Gguf {
    contents: Contents,
    content: Content,
    kind: Kind,
    name: &'static str,
}

impl Gguf {
    /// Whether a path is that of a GGUF file.
    #[must_use]
    pub fn is(path: &Path) -> bool {
        path.extension().is_some_and(|kind| kind.eq_ignore_ascii_case("gguf"))
    }

    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When it is missing or malformed, or the architecture is not ours.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(Contents::open(path)?)
    }

    /// Opens a file that is in memory.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>, path: &Path) -> Result<Self> {
        Self::parse(Contents::memory(bytes.into(), path))
    }

    fn parse(contents: Contents) -> Result<Self> {
        let header = header(&contents)?;
        let content = Content::read(&mut Cursor::new(header.as_ref()))
            .map_err(|e| contents.malformed("GGUF file", e.to_string()))?;
        drop(header);
        let found = match content.metadata.get("general.architecture") {
            Some(Value::String(name)) => name.as_str(),
            _ => "unnamed",
        };
        let Some((kind, name)) = Kind::ALL.into_iter().find(|(_, name)| *name == found) else {
            return Err(refuse(found));
        };
        let file = Self { contents, kind, name, content };
        for name in file.content.tensor_infos.keys() {
            file.place(name)?;
        }
        Ok(file)
    }

    /// The chat template, where the file has one.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.text("tokenizer.chat_template")
    }

    /// Whether the file has this weight, named as in a Hugging Face checkpoint.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.kind.stored(name).is_some_and(|name| self.content.tensor_infos.contains_key(&name))
    }

    /// Reads one weight, named as in a Hugging Face checkpoint: a quantised matrix as it is when `dtype`
    /// is f32, which it multiplies in; everything else as plain numbers of that type.
    ///
    /// # Errors
    /// When it is missing, misshapen, of a type that cannot be computed with, or not finite.
    pub fn read(
        &self,
        name: &str,
        expected: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Weight> {
        let missing = || ModelError::MissingWeight { name: name.to_owned() };
        let stored = self.kind.stored(name).ok_or_else(missing)?;
        let weight = self.stored(&stored, expected, self.paired(name, expected), device)?;
        let weight = match weight {
            Weight::Quantized(_) if expected.len() == 2 && dtype == DType::F32 => weight,
            other => Weight::Dense(other.dequantize()?.to_dtype(dtype)?),
        };
        check_finite(&weight.dequantize()?, name)?;
        match (weight, self.kind.added(name)) {
            (Weight::Dense(tensor), added) if added != 0.0 => Ok(Weight::Dense((tensor - added)?)),
            (weight, _) => Ok(weight),
        }
    }

    /// How many heads have their rows in the file's own order.
    fn paired(&self, name: &str, expected: &[usize]) -> Option<usize> {
        let key = name.contains("self_attn.k_proj");
        if self.kind != Kind::Llama || !(key || name.contains("self_attn.q_proj")) {
            return None;
        }
        let heads = if key { self.key_heads() } else { self.heads() }?;
        let rows = expected.first().copied()?;
        (heads > 0 && rows.is_multiple_of(2 * heads)).then_some(heads)
    }

    /// Reads a tensor under the file's own name.
    fn stored(
        &self,
        name: &str,
        expected: &[usize],
        paired: Option<usize>,
        device: &Device,
    ) -> Result<Weight> {
        let (start, length) = self.place(name)?;
        let info = &self.content.tensor_infos[name];
        if info.shape.dims() != expected {
            return Err(ModelError::WeightShape {
                name: name.to_owned(),
                expected: expected.to_vec(),
                found: info.shape.dims().to_vec(),
            });
        }
        let mut bytes = self.contents.read(start, length)?.into_owned();
        if let (Some(heads), Some(&rows)) = (paired, expected.first()) {
            if !length.is_multiple_of(rows) {
                let reason = format!("`{name}` has blocks that span rows");
                return Err(self.contents.malformed("GGUF file", reason));
            }
            bytes = unpaired(&bytes, heads, rows);
        }
        let plain = match info.ggml_dtype {
            GgmlDType::F32 => DType::F32,
            GgmlDType::F16 => DType::F16,
            GgmlDType::BF16 => DType::BF16,
            GgmlDType::Q8_1 | GgmlDType::Q8K => {
                let reason =
                    format!("`{name}` is of type {:?}, which is no storage type", info.ggml_dtype);
                return Err(self.contents.malformed("GGUF file", reason));
            }
            quantized => {
                let storage = QStorage::from_data(Cow::Owned(bytes), device, quantized)?;
                return Ok(Weight::Quantized(Arc::new(QTensor::new(storage, expected)?)));
            }
        };
        let tensor = Tensor::from_raw_buffer(&bytes, plain, expected, &Device::Cpu)?;
        Ok(Weight::Dense(tensor.to_device(device)?))
    }

    /// Where a tensor lies in the file, and how many bytes it has.
    fn place(&self, name: &str) -> Result<(u64, usize)> {
        let missing = || ModelError::MissingWeight { name: name.to_owned() };
        let info = self.content.tensor_infos.get(name).ok_or_else(missing)?;
        let (dims, block) = (info.shape.dims(), info.ggml_dtype.block_size());
        let row = dims.last().copied().unwrap_or(0);
        let length = dims
            .iter()
            .try_fold(1_usize, |count, &size| count.checked_mul(size))
            .filter(|count| *count > 0 && row.is_multiple_of(block))
            .and_then(|count| (count / block).checked_mul(info.ggml_dtype.type_size()));
        let start = self.content.tensor_data_offset.checked_add(info.offset);
        let end = start.zip(length).and_then(|(at, length)| at.checked_add(length as u64));
        match (start, length, end) {
            (Some(start), Some(length), Some(end)) if end <= self.contents.length() => {
                Ok((start, length))
            }
            _ => {
                let reason = format!("`{name}` of shape {dims:?} does not lie within the file");
                Err(self.contents.malformed("GGUF file", reason))
            }
        }
    }
}

/// The bytes of a header, checked; more of the file is looked at only as long as the header goes on.
fn header(contents: &Contents) -> Result<Cow<'_, [u8]>> {
    let mut look = FIRST_LOOK.min(contents.length());
    loop {
        let bytes = contents.read(0, look as usize)?;
        match scan(&bytes) {
            Ok(length) => return contents.read(0, length),
            Err(Stop::Bad(reason)) => return Err(contents.malformed("GGUF file", reason)),
            Err(Stop::Short) if look < contents.length().min(LARGEST_HEADER) => {
                look = (4 * look).min(contents.length()).min(LARGEST_HEADER);
            }
            Err(Stop::Short) => {
                let reason = format!("its header does not end within {look} bytes");
                return Err(contents.malformed("GGUF file", reason));
            }
        }
    }
}

/// The refusal that lists what there is.
fn refuse(found: &str) -> ModelError {
    let names: Vec<&str> = Kind::ALL.iter().map(|(_, name)| *name).collect();
    ModelError::Architecture {
        found: format!("{found} in a GGUF file"),
        supported: names.join(", "),
    }
}

#[cfg(test)]
mod tests;
