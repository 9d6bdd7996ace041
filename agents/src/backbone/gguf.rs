//! Reads GGUF files of llama.cpp: the same networks as in Hugging Face directories, mostly quantised.
//!
//! What the file says is given in Hugging Face's terms: configuration, tokenizer and weights under their
//! names there, in their order of rows, so that adapters fit either. Matrices stay quantised. The header
//! is walked over with bounds before candle parses it. Only whole files are read, not the parts that
//! `gguf-split` makes. Writes nothing.

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
        if file
            .content
            .metadata
            .get("split.count")
            .is_some_and(|parts| !matches!(parts, Value::U16(0 | 1)))
        {
            return Err(
                file.malformed("it is one of several parts; join them with gguf-split --merge")
            );
        }
        file.check_places()?;
        Ok(file)
    }

    /// Whether every tensor lies within the file and none over another, so that all of them together are no
    /// longer than the file. Of several that do not, the first by name, or by place, is told.
    fn check_places(&self) -> Result<()> {
        let mut names: Vec<&str> = self.content.tensor_infos.keys().map(String::as_str).collect();
        names.sort_unstable();
        let place = |name| self.place(name).map(|(start, length)| (start, length, name));
        let mut places = names.into_iter().map(place).collect::<Result<Vec<_>>>()?;
        places.sort_unstable();
        for (&(start, length, name), &(next, _, other)) in places.iter().zip(places.iter().skip(1))
        {
            if next - start < length as u64 {
                return Err(self.malformed(&format!("`{name}` and `{other}` overlap")));
            }
        }
        Ok(())
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
        let weight = self.stored(&stored, expected, self.paired(name, expected)?, device)?;
        if matches!(weight, Weight::Quantized(_)) && expected.len() == 2 && dtype == DType::F32 {
            return Ok(weight);
        }
        let plain = weight.dequantize()?;
        let plain = match self.kind.added(name) {
            0.0 => plain,
            added => (plain.to_dtype(DType::F32)? - added)?,
        };
        let plain = plain.to_dtype(dtype)?;
        check_finite(&plain, name)?;
        Ok(Weight::Dense(plain))
    }

    /// How many heads have their rows in the file's own order.
    fn paired(&self, name: &str, expected: &[usize]) -> Result<Option<usize>> {
        let heads = match name {
            _ if self.kind != Kind::Llama => return Ok(None),
            name if name.contains("self_attn.q_proj") => self.heads()?,
            name if name.contains("self_attn.k_proj") => self.key_heads()?,
            _ => return Ok(None),
        };
        let rows = expected.first().copied().unwrap_or(0);
        Ok((heads > 0 && rows.is_multiple_of(2 * heads)).then_some(heads))
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
                return Err(self.malformed(&format!("`{name}` has blocks that span rows")));
            }
            bytes = unpaired(&bytes, heads, rows);
        }
        let plain = match info.ggml_dtype {
            GgmlDType::F32 => DType::F32,
            GgmlDType::F16 => DType::F16,
            GgmlDType::BF16 => DType::BF16,
            quantized => {
                let Some(scales) = scales(quantized) else {
                    let reason = format!("`{name}` is of type {quantized:?}, which is not read");
                    return Err(self.malformed(&reason));
                };
                let finite = |block: &[u8]| scales.iter().all(|&at| block[at + 1] & 0x7c != 0x7c);
                if !bytes.chunks_exact(quantized.type_size()).all(finite) {
                    return Err(ModelError::WeightNotFinite { name: name.to_owned() });
                }
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
                Err(self.malformed(&reason))
            }
        }
    }

    fn malformed(&self, reason: &str) -> ModelError {
        self.contents.malformed("GGUF file", reason.to_owned())
    }
}

/// Where the half-precision numbers of a block lie, all else in it being integers; none for types that are
/// not read.
fn scales(dtype: GgmlDType) -> Option<&'static [usize]> {
    Some(match dtype {
        GgmlDType::Q4_0 | GgmlDType::Q5_0 | GgmlDType::Q8_0 => &[0],
        GgmlDType::Q4_1 | GgmlDType::Q5_1 | GgmlDType::Q4K | GgmlDType::Q5K => &[0, 2],
        GgmlDType::Q2K => &[80, 82],
        GgmlDType::Q3K => &[108],
        GgmlDType::Q6K => &[208],
        _ => return None,
    })
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
