//! What adapters change in a step, for rows that share one: low-rank updates and scales around shared
//! products.

use std::ops::Range;

use crate::adapter::Adapter;
use crate::adapter::update::{Lora, Update};
use crate::backbone::Architecture;
use crate::backbone::names::Module;
use crate::error::Result;
use crate::kernel::{Input, Matrix, Scratch, Target};

use super::plan::{Supply, Vector};

/// The change of one linear map, as [`Update`] has it.
pub(super) enum Change<'g> {
    LowRank(LowRank<'g>),
    Output(Vector<'g>),
    Input(Vector<'g>),
}

/// `stretch ∘ (w·x + outer ∘ B(scale · inner ∘ A·x)) + bias`.
pub(super) struct LowRank<'g> {
    a: Matrix<'g>,
    b: Matrix<'g>,
    scale: f32,
    inner: Option<Vector<'g>>,
    outer: Option<Vector<'g>>,
    stretch: Option<Vector<'g>>,
}

/// All changes of one adapter.
pub(super) struct Changes<'g> {
    all: Vec<Change<'g>>,
    /// The place of each layer's and module's change.
    places: Vec<[Option<u32>; 9]>,
    pub(super) prompt: Option<Vector<'g>>,
    /// The largest rank.
    pub(super) rank: usize,
}

impl<'g> Changes<'g> {
    pub(super) fn of(&self, layer: usize, module: Module) -> Option<&Change<'g>> {
        let place = self.places.get(layer)?[module as usize]?;
        self.all.get(place as usize)
    }
}

/// Walks over the changes of an adapter.
pub(super) fn changes<'a, 'g>(
    architecture: &Architecture,
    adapter: &'a Adapter,
    supply: &mut impl Supply<'a, 'g>,
) -> Result<Changes<'g>> {
    let mut all = Vec::new();
    let mut places = vec![[None; 9]; architecture.depth()];
    let mut rank = 0;
    for (&(layer, module), update) in adapter.updates() {
        let change = change(update, supply)?;
        if let Change::LowRank(low) = &change {
            rank = rank.max(low.a.rows());
        }
        if let Some(places) = places.get_mut(layer) {
            places[module as usize] = Some(all.len() as u32);
        }
        all.push(change);
    }
    let prompt = adapter.prompt().map(|prompt| supply.whole(prompt)).transpose()?;
    Ok(Changes { all, places, prompt, rank })
}

fn change<'a, 'g>(update: &'a Update, supply: &mut impl Supply<'a, 'g>) -> Result<Change<'g>> {
    let mut low = |lora: &'a Lora, stretch: Option<&'a candle_core::Tensor>| -> Result<_> {
        Ok(Change::LowRank(LowRank {
            a: supply.all(&lora.a)?,
            b: supply.all(&lora.b)?,
            scale: lora.scale as f32,
            inner: None,
            outer: None,
            stretch: stretch.map(|stretch| supply.whole(stretch)).transpose()?,
        }))
    };
    Ok(match update {
        Update::Lora(lora) => low(lora, None)?,
        Update::Dora { lora, stretch } => low(lora, Some(stretch))?,
        Update::Output(scale) => Change::Output(supply.whole(scale)?),
        Update::Input(scale) => Change::Input(supply.whole(scale)?),
        Update::Vera { a, b, inner, outer, .. } => Change::LowRank(LowRank {
            a: supply.all(a)?,
            b: supply.all(b)?,
            scale: 1.0,
            inner: Some(supply.whole(inner)?),
            outer: Some(supply.whole(outer)?),
            stretch: None,
        }),
    })
}

impl LowRank<'_> {
    /// What [`Self::narrow`] multiplies with.
    pub(super) fn narrowing(&self) -> &Matrix<'_> {
        &self.a
    }

    /// What [`Self::widen`] multiplies with for these outputs.
    pub(super) fn widening(&self, outputs: Range<usize>) -> Matrix<'_> {
        self.b.part(outputs)
    }

    /// The narrow products `scale · inner ∘ A·x` of rows, each `stride` after the one before.
    pub(super) fn narrow(
        &self,
        x: Input<'_>,
        scratch: &mut Scratch,
        (out, stride): (&mut [f32], usize),
    ) {
        let rank = self.a.rows();
        self.a.product(x, scratch, Target::new(out, stride));
        for out in out.chunks_mut(stride) {
            out[..rank].iter_mut().for_each(|u| *u *= self.scale);
            if let Some(inner) = &self.inner {
                out.iter_mut().zip(inner.iter()).for_each(|(u, inner)| *u *= inner);
            }
        }
    }

    /// Adds what narrow products give to these outputs of their rows.
    pub(super) fn widen(
        &self,
        narrow: Input<'_>,
        outputs: Range<usize>,
        scratch: &mut Scratch,
        target: Target<'_>,
    ) {
        let outer = self.outer.as_ref().map(|outer| &outer[outputs.clone()]);
        self.widening(outputs).add_product(narrow, outer, scratch, target);
    }

    /// What is left to do with outputs of a row, from output `start` on, once all was added.
    pub(super) fn stretch(&self, start: usize, outputs: &mut [f32]) {
        if let Some(stretch) = &self.stretch {
            outputs.iter_mut().zip(&stretch[start..]).for_each(|(y, stretch)| *y *= stretch);
        }
    }
}

/// Memory of one thread.
#[derive(Default)]
pub(super) struct Own {
    pub(super) scratch: Scratch,
    pub(super) scores: Vec<f32>,
    pub(super) wide: Vec<f32>,
}
