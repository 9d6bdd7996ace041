//! The weights that a step reads, found before it begins: plain slices, whatever holds them.
//!
//! The same function walks over the weights twice, first to learn which tensors there are, then to hand out
//! their numbers. Nothing is copied but short vectors that are not kept in f32.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::quantized::GgmlDType;
use candle_core::{CpuStorage, DType, Layout, Storage, Tensor};

use super::change::{Changes, changes};
use crate::adapter::Adapter;
use crate::backbone::block::{Block, Outer as OuterWeights};
use crate::backbone::names::{Module, Place};
use crate::backbone::{Architecture, Network, Weight};
use crate::error::{ModelError, Result};
use crate::kernel::{Blocks, Matrix, Numbers};

/// Short numbers: biases, norms, scales.
pub(super) type Vector<'g> = Cow<'g, [f32]>;

/// Where numbers come from.
pub(super) trait Supply<'a, 'g> {
    /// Some rows of a matrix.
    fn matrix(&mut self, weight: &'a Weight, rows: Range<usize>) -> Result<Matrix<'g>> {
        match weight {
            Weight::Dense(tensor) => self.dense(tensor, rows),
            Weight::Quantized(_) => self.quantized(weight, rows),
        }
    }

    fn dense(&mut self, tensor: &'a Tensor, rows: Range<usize>) -> Result<Matrix<'g>>;
    fn quantized(&mut self, weight: &'a Weight, rows: Range<usize>) -> Result<Matrix<'g>>;
    /// A part of a vector.
    fn vector(&mut self, tensor: &'a Tensor, part: Range<usize>) -> Result<Vector<'g>>;

    /// A whole matrix.
    fn all(&mut self, tensor: &'a Tensor) -> Result<Matrix<'g>> {
        let rows = tensor.dim(0)?;
        self.dense(tensor, 0..rows)
    }

    /// All numbers of a tensor.
    fn whole(&mut self, tensor: &'a Tensor) -> Result<Vector<'g>> {
        self.vector(tensor, 0..tensor.elem_count())
    }
}

fn unsuitable(reason: &str) -> ModelError {
    ModelError::Incompatible { doing: "read the weights where they lie", reason: reason.to_owned() }
}

fn empty() -> Result<Matrix<'static>> {
    Matrix::new(Numbers::F32(&[]), 0, 0).ok_or_else(|| unsuitable("nothing"))
}

/// Learns which tensors there are, and refuses those that cannot be read where they lie.
#[derive(Default)]
pub(super) struct Listing<'a> {
    tensors: Vec<&'a Tensor>,
    bytes: Vec<Cow<'a, [u8]>>,
}

impl<'a> Listing<'a> {
    fn list(&mut self, tensor: &'a Tensor) -> Result<()> {
        let kept = matches!(tensor.dtype(), DType::F32 | DType::BF16 | DType::F16);
        if !tensor.device().is_cpu() || !kept || !tensor.is_contiguous() {
            return Err(unsuitable("a tensor is on a GPU, strided, or of another type"));
        }
        self.tensors.push(tensor);
        Ok(())
    }

    /// Gives `f` a supply of what was listed.
    pub(super) fn supply<T>(self, f: impl FnOnce(&mut Supplied<'_>) -> Result<T>) -> Result<T> {
        let guards: Vec<_> = self.tensors.iter().map(|t| t.storage_and_layout()).collect();
        let numbers: Option<Vec<Numbers<'_>>> =
            guards.iter().map(|(storage, layout)| numbers(storage, layout)).collect();
        let numbers = numbers.ok_or_else(|| unsuitable("a tensor has moved"))?;
        f(&mut Supplied { tensors: numbers.iter(), bytes: self.bytes.iter() })
    }
}

fn numbers<'g>(storage: &'g Storage, layout: &Layout) -> Option<Numbers<'g>> {
    let Storage::Cpu(storage) = storage else { return None };
    let (start, end) = layout.contiguous_offsets()?;
    match storage {
        CpuStorage::F32(all) => Some(Numbers::F32(&all[start..end])),
        CpuStorage::BF16(all) => Some(Numbers::Bf16(&all[start..end])),
        CpuStorage::F16(all) => Some(Numbers::F16(&all[start..end])),
        _ => None,
    }
}

/// Blocks of a type of GGUF files; none where it is another.
fn blocks(dtype: GgmlDType, bytes: &[u8]) -> Option<Numbers<'_>> {
    let kept = match dtype {
        GgmlDType::Q8_0 => Blocks::Q8_0,
        GgmlDType::Q4_0 => Blocks::Q4_0,
        GgmlDType::Q4_1 => Blocks::Q4_1,
        GgmlDType::Q5_0 => Blocks::Q5_0,
        GgmlDType::Q5_1 => Blocks::Q5_1,
        GgmlDType::Q2K => Blocks::Q2K,
        GgmlDType::Q3K => Blocks::Q3K,
        GgmlDType::Q4K => Blocks::Q4K,
        GgmlDType::Q5K => Blocks::Q5K,
        GgmlDType::Q6K => Blocks::Q6K,
        _ => return None,
    };
    Some(Numbers::Blocks(kept, bytes))
}

impl<'a> Supply<'a, 'static> for Listing<'a> {
    fn dense(&mut self, tensor: &'a Tensor, _rows: Range<usize>) -> Result<Matrix<'static>> {
        self.list(tensor)?;
        empty()
    }

    fn quantized(&mut self, weight: &'a Weight, _rows: Range<usize>) -> Result<Matrix<'static>> {
        let Weight::Quantized(tensor) = weight else { return empty() };
        if !tensor.device().is_cpu() {
            return Err(unsuitable("a matrix in blocks is on a GPU"));
        }
        let bytes = tensor.data()?;
        // Refused here rather than in the middle of a step.
        let [rows, width] = *weight.dims() else { return Err(unsuitable("it is no matrix")) };
        blocks(tensor.dtype(), &bytes)
            .and_then(|numbers| Matrix::new(numbers, rows, width))
            .ok_or_else(|| unsuitable("a matrix is kept in blocks of another type"))?;
        self.bytes.push(bytes);
        empty()
    }

    fn vector(&mut self, tensor: &'a Tensor, _part: Range<usize>) -> Result<Vector<'static>> {
        self.list(tensor)?;
        Ok(Cow::Borrowed(&[]))
    }
}

/// Hands out what was listed, in the same order.
pub(super) struct Supplied<'g> {
    tensors: std::slice::Iter<'g, Numbers<'g>>,
    bytes: std::slice::Iter<'g, Cow<'g, [u8]>>,
}

impl Supplied<'_> {
    fn missing() -> ModelError {
        unsuitable("weights changed while they were listed")
    }
}

impl<'a, 'g> Supply<'a, 'g> for Supplied<'g> {
    fn dense(&mut self, tensor: &'a Tensor, rows: Range<usize>) -> Result<Matrix<'g>> {
        let (count, width) = tensor.dims2()?;
        let numbers = *self.tensors.next().ok_or_else(Self::missing)?;
        let all = Matrix::new(numbers, count, width).ok_or_else(Self::missing)?;
        Ok(all.part(rows))
    }

    fn quantized(&mut self, weight: &'a Weight, rows: Range<usize>) -> Result<Matrix<'g>> {
        let bytes = self.bytes.next().ok_or_else(Self::missing)?;
        let &[count, width] = weight.dims() else { return Err(Self::missing()) };
        let Weight::Quantized(tensor) = weight else { return Err(Self::missing()) };
        let all = blocks(tensor.dtype(), bytes)
            .and_then(|numbers| Matrix::new(numbers, count, width))
            .ok_or_else(Self::missing)?;
        Ok(all.part(rows))
    }

    fn vector(&mut self, _tensor: &'a Tensor, part: Range<usize>) -> Result<Vector<'g>> {
        Ok(match *self.tensors.next().ok_or_else(Self::missing)? {
            Numbers::F32(all) => Cow::Borrowed(&all[part]),
            Numbers::Bf16(all) => all[part].iter().map(|x| x.to_f32()).collect::<Vec<_>>().into(),
            Numbers::F16(all) => all[part].iter().map(|x| x.to_f32()).collect::<Vec<_>>().into(),
            Numbers::Blocks(..) => return Err(Self::missing()),
        })
    }
}

/// A linear map or a part of one.
pub(super) struct Map<'g> {
    pub(super) module: Module,
    /// Its first output among those of the module.
    pub(super) start: usize,
    /// Its first output among those of its neighbours.
    pub(super) column: usize,
    pub(super) matrix: Matrix<'g>,
    pub(super) bias: Option<Vector<'g>>,
}

/// The weights of a block.
pub(super) struct Layer<'g> {
    norms: [Option<Vector<'g>>; 6],
    /// Of queries and of keys.
    pub(super) head_norms: Option<[Vector<'g>; 2]>,
    /// Queries, keys and values, side by side.
    pub(super) attention: Vec<Map<'g>>,
    pub(super) output: [Map<'g>; 1],
    /// Gate and input of the feed-forward block.
    pub(super) gate: [Map<'g>; 2],
    pub(super) down: [Map<'g>; 1],
}

impl Layer<'_> {
    pub(super) fn norm(&self, place: Place) -> Option<&[f32]> {
        self.norms[place as usize].as_deref()
    }
}

/// The weights outside blocks.
pub(super) struct Outer<'g> {
    pub(super) embedding: Matrix<'g>,
    pub(super) final_norm: Option<Vector<'g>>,
    pub(super) head: Matrix<'g>,
}

/// All weights of one run of rows.
pub(super) struct Weights<'g> {
    pub(super) outer: Outer<'g>,
    pub(super) layers: Vec<Layer<'g>>,
}

/// Everything that a step reads.
pub(super) struct Plan<'g> {
    /// For each owner of weights; none is the backbone itself.
    pub(super) weights: Vec<Weights<'g>>,
    /// For each adapter.
    pub(super) changes: Vec<Changes<'g>>,
}

/// Walks over the weights of `owners` and the changes of `adapters`.
pub(super) fn plan<'a, 'g>(
    network: &'a Network,
    owners: &[Option<&'a Adapter>],
    adapters: &[&'a Adapter],
    supply: &mut impl Supply<'a, 'g>,
) -> Result<Plan<'g>> {
    let mut all = Plan { weights: Vec::new(), changes: Vec::new() };
    for owner in owners {
        let outer = owner.and_then(Adapter::outer).unwrap_or(network.outer());
        let outer = self::outer(network.architecture(), outer, supply)?;
        let mut layers = Vec::with_capacity(network.depth());
        for layer in 0..network.depth() {
            let own = owner.and_then(|adapter| adapter.block(layer));
            let block = own.or_else(|| network.block(layer));
            let block = block.ok_or_else(|| unsuitable("a block is missing"))?;
            layers.push(self::layer(network.architecture(), block, supply)?);
        }
        all.weights.push(Weights { outer, layers });
    }
    for adapter in adapters {
        all.changes.push(changes(network.architecture(), adapter, supply)?);
    }
    Ok(all)
}

fn outer<'a, 'g>(
    architecture: &Architecture,
    outer: &'a OuterWeights,
    supply: &mut impl Supply<'a, 'g>,
) -> Result<Outer<'g>> {
    if outer.positions.is_some() || outer.embedding_norm.is_some() {
        return Err(unsuitable("positions are learned"));
    }
    let head = outer.head.as_ref().ok_or_else(|| unsuitable("there is no output head"))?;
    let norm = outer.final_norm.as_ref();
    Ok(Outer {
        embedding: supply.all(&outer.embedding)?,
        final_norm: norm.map(|norm| supply.whole(norm.weight())).transpose()?,
        head: supply.matrix(head, 0..architecture.vocabulary)?,
    })
}

fn layer<'a, 'g>(
    architecture: &Architecture,
    block: &'a Block,
    supply: &mut impl Supply<'a, 'g>,
) -> Result<Layer<'g>> {
    let (query, key) = (architecture.query_width(), architecture.key_width());
    let (hidden, inner) = (architecture.hidden, architecture.inner);
    let mut map = |module: Module, rows: Range<usize>, column: usize| -> Result<Map<'g>> {
        let linear = block.map(module)?;
        let bias = linear.bias.as_ref();
        Ok(Map {
            module,
            start: rows.start,
            column,
            matrix: supply.matrix(&linear.weight, rows.clone())?,
            bias: bias.map(|bias| supply.vector(bias, rows)).transpose()?,
        })
    };
    let attention = if block.has(Module::QueryKeyValue) {
        vec![map(Module::QueryKeyValue, 0..query + 2 * key, 0)?]
    } else {
        vec![
            map(Module::Query, 0..query, 0)?,
            map(Module::Key, 0..key, query)?,
            map(Module::Value, 0..key, query + key)?,
        ]
    };
    let output = [map(Module::Output, 0..hidden, 0)?];
    let gate = if block.has(Module::GateUp) {
        [map(Module::GateUp, 0..inner, 0)?, map(Module::GateUp, inner..2 * inner, 0)?]
    } else {
        [map(Module::Gate, 0..inner, 0)?, map(Module::Up, 0..inner, 0)?]
    };
    let down = [map(Module::Down, 0..hidden, 0)?];
    let mut norms: [Option<Vector<'g>>; 6] = Default::default();
    for (slot, place) in norms.iter_mut().zip(Place::ALL) {
        if let Some(norm) = block.norm(place) {
            *slot = Some(supply.whole(norm.weight())?);
        }
    }
    let head_norms = match &block.head_norms {
        Some([q, k]) => Some([supply.whole(q.weight())?, supply.whole(k.weight())?]),
        None => None,
    };
    Ok(Layer { norms, head_norms, attention, output, gate, down })
}
