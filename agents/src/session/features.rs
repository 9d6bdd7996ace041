//! Features of whole texts, as a classifier's head reads them: many texts in one pass over the layers, and nothing
//! of them kept afterwards.
//!
//! Equal to [`crate::adapter::head::features`] but for rounding, and as independent of company as all that a session
//! gives. Only texts whose weights can be read where they lie are read here.

use std::sync::Arc;

use super::step::{MOST_ROWS, Reading, Wanted, neighbours};
use super::{Part, Read, Session, Slot};
use crate::adapter::Adapter;
use crate::adapter::head::Pooling;
use crate::error::{ModelError, Result};

/// A text whose features are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Whole<'a> {
    pub(crate) adapter: &'a Arc<Adapter>,
    pub(crate) tokens: &'a [u32],
    pub(crate) pooling: Pooling,
}

/// What was read of a text so far.
struct Gathered {
    pooling: Pooling,
    /// Vectors of a prompt that are still to come: no part of the text.
    virtual_left: usize,
    tokens: usize,
    /// A sum for each state, side by side; in f64, so that long texts lose nothing.
    sums: Vec<f64>,
    first: Vec<f32>,
    last: Vec<f32>,
}

impl Gathered {
    fn new(pooling: Pooling, virtual_left: usize) -> Self {
        let (sums, first, last) = (Vec::new(), Vec::new(), Vec::new());
        Self { pooling, virtual_left, tokens: 0, sums, first, last }
    }

    /// Takes in the states of the next row, side by side.
    fn add(&mut self, states: &[f32], hidden: usize) {
        if self.virtual_left > 0 {
            self.virtual_left -= 1;
            return;
        }
        self.sums.resize(states.len(), 0.0);
        self.sums.iter_mut().zip(states).for_each(|(sum, &x)| *sum += f64::from(x));
        let top = &states[states.len() - hidden..];
        if self.tokens == 0 {
            self.first.extend_from_slice(top);
        }
        self.last.clear();
        self.last.extend_from_slice(top);
        self.tokens += 1;
    }

    fn into_features(self) -> Vec<f32> {
        let share = 1.0 / self.tokens.max(1) as f64;
        let means = self.sums.iter().map(|sum| (sum * share) as f32);
        match self.pooling {
            Pooling::Layers => means.chain(self.last).collect(),
            Pooling::Mean => means.collect(),
            Pooling::First => self.first,
            Pooling::Last | Pooling::Pooler => self.last,
        }
    }
}

impl Session {
    /// Features of texts, `[hidden]`, or with [`Pooling::Layers`] `[(layers + 2) · hidden]`; each text has an answer
    /// of its own, or none where only the network can read it. As many texts as a pass has rows for are in memory
    /// at once.
    pub(crate) fn features(&mut self, texts: &[Whole<'_>]) -> Vec<Option<Result<Vec<f32>>>> {
        let mut found: Vec<_> = texts.iter().map(|_| None).collect();
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| neighbours(Some(texts[text].adapter.as_ref())));
        let rows = |text: &usize| texts[*text].tokens.len() + texts[*text].adapter.virtual_tokens();
        let mut left = order.as_slice();
        while !left.is_empty() {
            let mut room = MOST_ROWS;
            let fits = |text: &&usize| {
                let fits = rows(text) <= room;
                room = room.saturating_sub(rows(text));
                fits
            };
            let count = left.iter().take_while(fits).count().max(1);
            let (now, later) = left.split_at(count);
            self.read_together(texts, now, &mut found);
            left = later;
        }
        found
    }

    /// Reads these texts side by side.
    fn read_together(
        &mut self,
        texts: &[Whole<'_>],
        chosen: &[usize],
        found: &mut [Option<Result<Vec<f32>>>],
    ) {
        let mut reading = Vec::with_capacity(chosen.len());
        let mut gathered = Vec::with_capacity(chosen.len());
        let mut slots: Vec<Slot> = Vec::with_capacity(chosen.len());
        for &text in chosen {
            let Whole { adapter, tokens, pooling } = texts[text];
            let slot = self.open(Some(Arc::clone(adapter)));
            slots.push(slot);
            match self.whole((text, slot), tokens, pooling) {
                Ok(None) => {}
                Ok(Some(own)) => {
                    let ahead = own.inputs.len() - tokens.len();
                    reading.push(own);
                    gathered.push((text, Gathered::new(pooling, ahead)));
                }
                Err(error) => found[text] = Some(Err(error)),
            }
        }
        match self.gather(&mut reading, &mut gathered) {
            Ok(()) => {
                for (text, own) in gathered {
                    found[text] = Some(Ok(own.into_features()));
                }
            }
            Err(error) => {
                let reason = error.to_string();
                for (text, _) in gathered {
                    found[text] = Some(Err(ModelError::Step(reason.clone())));
                }
            }
        }
        slots.into_iter().for_each(|slot| self.close(slot));
    }

    /// A whole text to be read by a new sequence; none where its weights cannot be read where they lie.
    fn whole(
        &self,
        who: (usize, Slot),
        tokens: &[u32],
        pooling: Pooling,
    ) -> Result<Option<Reading>> {
        let sequence = self.sequence(who.1)?;
        let Read::Kept(kept) = &sequence.read else { return Ok(None) };
        if pooling == Pooling::Pooler {
            return Ok(None);
        }
        self.check(&[Part::new(who.1, tokens, false)])?;
        let wanted = Wanted::States { every: pooling == Pooling::Layers };
        let tokens = tokens.iter().map(|&token| Ok(token));
        Reading::new(who, sequence, kept, tokens, wanted).map(Some)
    }

    fn gather(&mut self, reading: &mut [Reading], into: &mut [(usize, Gathered)]) -> Result<()> {
        let hidden = self.backbone.network.architecture().hidden;
        while reading.iter().any(Reading::goes_on) {
            let found = self.pass(reading)?;
            for (own, (_, gathered)) in reading.iter().zip(&mut *into) {
                let each = own.states.len() / own.taken.max(1) * hidden;
                let states = own.states.start * hidden..own.states.end * hidden;
                let rows = found.states[states].chunks_exact(each.max(1));
                rows.for_each(|row| gathered.add(row, hidden));
            }
        }
        Ok(())
    }
}
