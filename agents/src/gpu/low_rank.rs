//! What the adapters of a step change in its linear maps, each row under its own, by the kernels of
//! `low_rank.cu`. Adapters of any rank and of the methods LoRA, DoRA, VeRA and the outputs of IA3 are in one
//! launch.

#![expect(unsafe_code, reason = "kernels are given addresses; each launch says why it may")]

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, DType, Device, Result, Tensor, builder_arg};

use super::compile::{self, Source, grid};
use super::memory::{address, by_dtype, with};
use crate::adapter::Adapter;
use crate::adapter::update::Update;
use crate::backbone::names::Module;

pub(super) const SOURCE: Source = Source { name: "low_rank", text: include_str!("low_rank.cu") };
/// Words of a row's change; as `low_rank.cu` has it.
const WORDS: usize = 8;
/// Threads of a block of `shrink`; as `low_rank.cu` has it.
const SHRINKING: usize = 128;
/// Threads of a block of `expand`.
const EXPANDING: usize = 256;

/// The change of one row in one map.
type Words = [u64; WORDS];

/// The same with the sizes of the map that it is made for; an input of any width where it reads none.
#[derive(Clone, Copy, Debug)]
struct Change {
    words: Words,
    rank: usize,
    width: Option<usize>,
    out: usize,
}

/// Where the changes of a map begin, in rows, the largest rank among them and the sizes of the map.
#[derive(Clone, Copy, Debug)]
struct Map {
    start: usize,
    rank: usize,
    width: Option<usize>,
    out: usize,
}

impl Map {
    /// The same with one change more.
    fn with(self, change: Change) -> Result<Self> {
        let width = match (self.width, change.width) {
            (Some(a), Some(b)) if a != b => None,
            (a, b) => Some(a.or(b)),
        };
        match width {
            Some(width) if self.out == change.out => {
                Ok(Self { rank: self.rank.max(change.rank), width, ..self })
            }
            _ => candle_core::bail!("adapters are made for maps of different sizes"),
        }
    }
}

/// The changes of every row in every map that some adapter changes.
#[derive(Debug)]
pub(crate) struct Changes {
    device: CudaDevice,
    /// How parts of adapters are kept, and what they change.
    number: DType,
    owners: Vec<Option<Arc<Adapter>>>,
    maps: BTreeMap<(usize, Module), Map>,
    words: CudaSlice<u64>,
    /// Copies of parts that did not lie as the kernels read them.
    _copies: Vec<Tensor>,
}

impl Changes {
    /// Lists what the adapters of rows change in a network of such numbers; none where there is no GPU.
    ///
    /// # Errors
    /// When an adapter is on another device or of another type.
    pub(crate) fn new(
        owners: &[Option<Arc<Adapter>>],
        number: DType,
        device: &Device,
    ) -> Result<Option<Self>> {
        let Device::Cuda(device) = device else { return Ok(None) };
        let mut copies = Vec::new();
        let mut lists: BTreeMap<(usize, Module), (Map, Vec<Words>)> = BTreeMap::new();
        let mut known: BTreeMap<(usize, usize, Module), Change> = BTreeMap::new();
        for (row, owner) in owners.iter().enumerate() {
            let Some(adapter) = owner else { continue };
            for (&(layer, module), update) in adapter.updates() {
                let key = (Arc::as_ptr(adapter).addr(), layer, module);
                let change = match known.get(&key) {
                    Some(change) => *change,
                    None => {
                        let Some(change) = change(update, number, device, &mut copies)? else {
                            continue;
                        };
                        *known.entry(key).or_insert(change)
                    }
                };
                let Change { rank, width, out, .. } = change;
                let (map, rows) = lists.entry((layer, module)).or_insert_with(|| {
                    (Map { start: 0, rank, width, out }, vec![[0; WORDS]; owners.len()])
                });
                *map = map.with(change)?;
                rows[row] = change.words;
            }
        }
        let (mut maps, mut words) = (BTreeMap::new(), Vec::new());
        for (place, (map, changes)) in lists {
            maps.insert(place, Map { start: words.len() / WORDS, ..map });
            words.extend(changes.into_iter().flatten());
        }
        // The device takes no empty arrays.
        words.push(0);
        let words = device.clone_htod(&words)?;
        let owners = owners.to_vec();
        Ok(Some(Self { device: device.clone(), number, owners, maps, words, _copies: copies }))
    }

    /// Whether this is the list of these rows.
    pub(crate) fn is_of(&self, owners: &[Option<Arc<Adapter>>]) -> bool {
        let same = |(a, b): (&Option<Arc<Adapter>>, &Option<Arc<Adapter>>)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        self.owners.len() == owners.len() && self.owners.iter().zip(owners).all(same)
    }

    /// Changes the outputs `y` `[rows, out]` that a map gave for `x` `[rows, in]`; `bias` is in `y` already.
    ///
    /// `y` must be nobody else's: it is changed in place.
    ///
    /// # Errors
    /// When shapes or types do not fit.
    pub(crate) fn apply(
        &self,
        (layer, module): (usize, Module),
        x: &Tensor,
        y: Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Tensor> {
        let Some(&map) = self.maps.get(&(layer, module)) else { return Ok(y) };
        let (x, y) = (x.contiguous()?, y.contiguous()?);
        by_dtype!(y.dtype(), T => self.apply_as::<T>(map, &x, &y, bias))?;
        Ok(y)
    }

    fn apply_as<T: CudaDType + DeviceRepr>(
        &self,
        map: Map,
        x: &Tensor,
        y: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<()> {
        let ((rows, width), (_, out)) = (x.dims2()?, y.dims2()?);
        let fits = y.dtype() == self.number
            && out == map.out
            && map.width.is_none_or(|wanted| wanted == width);
        if rows != self.owners.len() || y.dim(0)? != rows || x.dtype() != y.dtype() || !fits {
            candle_core::bail!("adapters do not fit a map from {:?} to {:?}", x.shape(), y.shape());
        }
        let bias = match bias {
            Some(bias) if bias.dtype() == y.dtype() && bias.elem_count() == out => {
                address(bias, &self.device)?
            }
            Some(_) => candle_core::bail!("a bias does not fit its map"),
            None => 0,
        };
        let changes = self.words.slice(map.start * WORDS..(map.start + rows) * WORDS);
        let shape = compile::Shape { number: self.number, sizes: Vec::new() };
        let narrow = self.device.alloc_zeros::<f32>((rows * map.rank).max(1))?;
        if map.rank > 0 {
            let shrink = compile::kernel(&self.device, SOURCE, &shape, "shrink")?;
            with::<T, _>(x, |x| {
                let mut launch = shrink.builder();
                launch.arg(&x);
                builder_arg!(launch, width as i32);
                launch.arg(&changes);
                builder_arg!(launch, map.rank as i32);
                launch.arg(&narrow);
                // SAFETY: each address is of a tensor that `change` has measured, of this map's sizes, and
                // that an owner holds, whom this list keeps alive; the narrow products have room for the
                // largest rank.
                unsafe { launch.launch(grid([rows, 1, 1], SHRINKING)) }.w().map(drop)
            })?;
        }
        let expand = compile::kernel(&self.device, SOURCE, &shape, "expand")?;
        with::<T, _>(y, |y| {
            let mut launch = expand.builder();
            launch.arg(&y);
            builder_arg!(launch, out as i32);
            launch.arg(&changes);
            builder_arg!(launch, map.rank as i32);
            launch.arg(&narrow);
            builder_arg!(launch, bias);
            let all = grid([rows, out.div_ceil(EXPANDING), 1], EXPANDING);
            // SAFETY: as above, and nobody else has `y`, whose kernel came before on the same stream.
            unsafe { launch.launch(all) }.w().map(drop)
        })
    }
}

/// An update as the kernels read it; none for one of inputs.
fn change(
    update: &Update,
    number: DType,
    device: &CudaDevice,
    copies: &mut Vec<Tensor>,
) -> Result<Option<Change>> {
    let mut place = |tensor: &Tensor, wanted: &[usize]| -> Result<u64> {
        if tensor.dims() != wanted || tensor.dtype() != number {
            let (shape, found) = (tensor.shape(), tensor.dtype());
            candle_core::bail!(
                "a part of an adapter is {shape:?} {found:?}, not {wanted:?} {number:?}"
            );
        }
        if tensor.is_contiguous() {
            return address(tensor, device);
        }
        copies.push(tensor.contiguous()?);
        copies.last().map_or(Ok(0), |copy| address(copy, device))
    };
    let mut words = [0; WORDS];
    let (a, b, scale) = match update {
        Update::Input(_) => return Ok(None),
        Update::Output(scale) => {
            let out = scale.elem_count();
            words[5] = place(scale, &[out])?;
            return Ok(Some(Change { words, rank: 0, width: None, out }));
        }
        Update::Lora(lora) => (&lora.a, &lora.b, lora.scale),
        Update::Dora { lora, stretch } => {
            words[4] = place(stretch, &[lora.b.dim(0)?])?;
            (&lora.a, &lora.b, lora.scale)
        }
        Update::Vera { a, b, inner, outer, .. } => {
            words[2] = place(inner, &[a.dim(0)?])?;
            words[3] = place(outer, &[b.dim(0)?])?;
            (a, b, 1.0)
        }
    };
    let ((rank, width), out) = (a.dims2()?, b.dim(0)?);
    words[0] = place(a, &[rank, width])?;
    words[1] = place(b, &[out, rank])?;
    words[6] = rank as u64;
    words[7] = u64::from((scale as f32).to_bits());
    Ok(Some(Change { words, rank, width: Some(width), out }))
}
