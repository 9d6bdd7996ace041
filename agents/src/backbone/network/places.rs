//! What every layer of one pass needs to know of positions: rotations and masks.
//!
//! Computed once a pass; layers pick theirs by window and by rotary embedding.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use candle_core::{DType, Device, Tensor};

use crate::backbone::architecture::{Architecture, LayerShape};
use crate::backbone::rope::Rope;
use crate::backbone::rows::{Span, Tokens};
use crate::error::{ModelError, Result};

/// Rotations and masks of one pass.
pub(super) struct Places {
    rotations: Vec<[Tensor; 2]>,
    /// Masks by window; none where every token sees everything.
    masks: BTreeMap<Option<usize>, Option<Tensor>>,
}

/// Refuses texts longer than the context.
pub(super) fn check(architecture: &Architecture, found: usize) -> Result<()> {
    let limit = architecture.positions;
    if found > limit { Err(ModelError::TooLong { found, limit }) } else { Ok(()) }
}

impl Places {
    pub(super) fn new(
        architecture: &Architecture,
        tokens: &Tokens,
        seen: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let width = tokens.width();
        if let Some(positions) = tokens.own_positions() {
            return Self::apart(architecture, positions, dtype, device);
        }
        check(architecture, seen + width)?;
        let even = tokens.is_even();
        let spans = if even { &tokens.spans()[..1] } else { tokens.spans() };
        let positions: Vec<u32> = tokens.positions(spans, seen).map(|at| at as u32).collect();
        let shape = (!even).then_some([spans.len(), width]);
        let rotations = rotations(architecture, &positions, shape, dtype, device)?;
        let mut masks = BTreeMap::new();
        for layer in &architecture.layers {
            if let Entry::Vacant(free) = masks.entry(layer.window) {
                let rule = Rule { causal: architecture.family.is_decoder(), window: layer.window };
                free.insert(rule.mask(tokens, spans, seen, dtype, device)?);
            }
        }
        Ok(Self { rotations, masks })
    }

    /// Of rows that are one token each: whoever knows their sequences masks for them.
    fn apart(
        architecture: &Architecture,
        positions: &[u32],
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        check(architecture, positions.iter().max().map_or(0, |&last| last as usize + 1))?;
        let shape = Some([positions.len(), 1]);
        let rotations = rotations(architecture, positions, shape, dtype, device)?;
        Ok(Self { rotations, masks: BTreeMap::new() })
    }

    pub(super) fn rotation(&self, shape: LayerShape) -> Option<&[Tensor; 2]> {
        shape.rope.and_then(|index| self.rotations.get(index))
    }

    pub(super) fn mask(&self, shape: LayerShape) -> Option<&Tensor> {
        self.masks.get(&shape.window).and_then(Option::as_ref)
    }
}

/// Cosines and sines of every rotary embedding at these positions, `[positions, half a head]`, or
/// `[rows, columns, half a head]` where rows sit at different ones.
fn rotations(
    architecture: &Architecture,
    positions: &[u32],
    rows: Option<[usize; 2]>,
    dtype: DType,
    device: &Device,
) -> Result<Vec<[Tensor; 2]>> {
    let head = architecture.head_width;
    let shaped = |table: Tensor| -> Result<Tensor> {
        let table = table.to_dtype(dtype)?;
        Ok(match rows {
            Some([rows, columns]) => table.reshape((rows, columns, head / 2))?,
            None => table,
        })
    };
    let of = |rope: &Rope| -> Result<[Tensor; 2]> {
        let [cos, sin] = rope.tables(head, positions, device)?;
        Ok([shaped(cos)?, shaped(sin)?])
    };
    architecture.ropes.iter().map(of).collect()
}

/// Who may look at whom.
#[derive(Clone, Copy)]
struct Rule {
    causal: bool,
    window: Option<usize>,
}

impl Rule {
    fn allows(self, from: usize, to: usize) -> bool {
        match (self.causal, self.window) {
            (true, None) => to <= from,
            (true, Some(window)) => to <= from && from - to < window,
            (false, None) => true,
            (false, Some(window)) => from.abs_diff(to) <= window,
        }
    }

    /// Zero where a token may look, minus infinity where it may not, `[rows or 1, 1, width, seen + width]`;
    /// none where every token may look everywhere.
    ///
    /// A hidden column sees only itself: a row without any visible column would divide by zero.
    fn mask(
        self,
        tokens: &Tokens,
        spans: &[Span],
        seen: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Option<Tensor>> {
        let width = tokens.width();
        let mut values = Vec::with_capacity(spans.len() * width * (seen + width));
        let mut open = true;
        for &span in spans {
            for column in seen..seen + width {
                let from = tokens.position(span, column);
                values.extend((0..seen + width).map(|other| {
                    let visible = other == column
                        || (tokens.is_visible(span, other)
                            && tokens.is_visible(span, column)
                            && self.allows(from, tokens.position(span, other)));
                    open &= visible;
                    if visible { 0f32 } else { f32::NEG_INFINITY }
                }));
            }
        }
        if open {
            return Ok(None);
        }
        let mask = Tensor::from_vec(values, (spans.len(), 1, width, seen + width), device)?;
        Ok(Some(mask.to_dtype(dtype)?))
    }
}
