//! A step: which rows go through the layers together, in how many passes, and where their logits are.

use std::ops::Range;
use std::sync::Arc;

use super::cache::Kept;
use super::drawn::Source;
use super::logits::Numbers;
use super::pass::{Found, Given, Held, Input, Pass, Row, Run};
use super::plan::{Listing, plan};
use super::{Logits, Part, Read, Sequence, Session, Slot};
use crate::adapter::Adapter;
use crate::error::Result;
use crate::kernel;

/// Rows of one pass: more give no faster products, only more memory.
pub(super) const MOST_ROWS: usize = 512;

/// Products with fewer weights than this are not worth a second thread.
const WORTH_A_THREAD: usize = 1 << 20;

/// What is wanted of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Nothing,
    /// The logits after its last token.
    Logits,
    /// The normed states of each of its rows: after every layer, the embeddings first, or after the last one only.
    States {
        every: bool,
    },
}

/// A part that is read directly, and how far it is.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) part: usize,
    slot: usize,
    adapter: Option<Arc<Adapter>>,
    pub(super) inputs: Vec<Input>,
    pub(super) done: usize,
    /// How many of them the present pass takes.
    pub(super) taken: usize,
    /// Blocks and length at the beginning of the pass.
    kept: Kept,
    wanted: Wanted,
    /// Its row among the logits of the present pass.
    row: Option<usize>,
    /// Its rows among the states of the present pass.
    pub(super) states: Range<usize>,
}

impl Reading {
    /// Tokens that a sequence reads; its adapter's prompt comes before its first one.
    pub(super) fn new(
        (part, slot): (usize, Slot),
        sequence: &Sequence,
        kept: &Kept,
        tokens: impl Iterator<Item = Result<u32>>,
        wanted: Wanted,
    ) -> Result<Self> {
        let adapter = sequence.adapter.clone();
        let prompt = adapter.as_ref().and_then(|adapter| adapter.prompt());
        let ahead = match prompt {
            Some(prompt) if kept.length == 0 => prompt.dim(0)?,
            _ => 0,
        };
        let prompt = (0..ahead).map(|at| Ok(Input::Prompt(at)));
        let inputs = prompt.chain(tokens.map(|token| token.map(Input::Token)));
        Ok(Self {
            part,
            slot: slot.index,
            inputs: inputs.collect::<Result<_>>()?,
            adapter,
            done: 0,
            taken: 0,
            kept: Kept::default(),
            wanted,
            row: None,
            states: 0..0,
        })
    }

    /// Whether there is more to read.
    pub(super) fn goes_on(&self) -> bool {
        self.done < self.inputs.len()
    }

    /// Takes up to `room` rows into the present pass, which has so many logits and states already.
    fn take(&mut self, room: usize, depth: usize, [logits, states]: [&mut usize; 2]) {
        self.taken = (self.inputs.len() - self.done).min(room);
        let ends = self.taken > 0 && self.done + self.taken == self.inputs.len();
        self.row = (ends && self.wanted == Wanted::Logits).then_some(*logits);
        *logits += usize::from(self.row.is_some());
        let each = match self.wanted {
            Wanted::States { every: true } => depth + 1,
            Wanted::States { every: false } => 1,
            _ => 0,
        };
        self.states = *states..*states + self.taken * each;
        *states = self.states.end;
    }

    /// The adapter, where it replaces weights.
    fn owner(&self) -> Option<&Adapter> {
        owner(self.adapter.as_deref())
    }
}

fn owner(adapter: Option<&Adapter>) -> Option<&Adapter> {
    adapter.filter(|adapter| adapter.owns_weights())
}

/// What rows are sorted by: those that share weights are neighbours, and of these those that share an adapter.
pub(super) fn neighbours(adapter: Option<&Adapter>) -> [usize; 2] {
    [address(owner(adapter)), address(adapter)]
}

fn address(adapter: Option<&Adapter>) -> usize {
    adapter.map_or(0, |adapter| std::ptr::from_ref(adapter).addr())
}

impl Session {
    /// Reads the tokens of every part and gives the logits that are wanted.
    ///
    /// # Errors
    /// When a sequence was closed, occurs twice, gets no tokens, one outside the vocabulary, or more than
    /// its context holds; no part has been read then.
    pub fn step(&mut self, parts: &[Part<'_>]) -> Result<Logits> {
        self.check(parts)?;
        let width = self.backbone.network.architecture().vocabulary;
        let mut logits = Logits::of_parts(width, parts.len(), self.shore.clone(), self.is_late);
        let (mut reading, mut apart) = (Vec::new(), Vec::new());
        for (index, part) in parts.iter().enumerate() {
            let Some(sequence) = self.places[part.slot.index].1.as_ref() else { continue };
            match &sequence.read {
                Read::Apart(_) => apart.push(index),
                Read::Kept(kept) => {
                    let tokens = part.inputs().map(|source| match source {
                        Source::Here(token) => Ok(token),
                        Source::There(all, at) => Ok(all.get(at)?.to_scalar()?),
                    });
                    let wanted = if part.logits { Wanted::Logits } else { Wanted::Nothing };
                    let who = (index, part.slot);
                    reading.push(Reading::new(who, sequence, kept, tokens, wanted)?);
                }
            }
        }
        self.read_apart(parts, apart, &mut logits)?;
        reading.sort_by_key(|reading| neighbours(reading.adapter.as_deref()));
        while reading.iter().any(Reading::goes_on) {
            let found = self.pass(&mut reading)?;
            for reading in reading.iter().filter(|reading| reading.taken > 0) {
                let place = reading.row.map(|row| (logits.passes.len(), row));
                logits.places[reading.part] = place;
            }
            let numbers = found.logits;
            logits.passes.extend((!numbers.is_empty()).then_some(Numbers::Here(numbers)));
        }
        Ok(logits)
    }

    /// Reads up to [`MOST_ROWS`] rows.
    pub(super) fn pass(&mut self, reading: &mut [Reading]) -> Result<Found> {
        let architecture = Arc::clone(self.backbone.network.architecture());
        let mut room = MOST_ROWS;
        let mut furthest = 0;
        let (mut logits, mut states) = (0, 0);
        for reading in reading.iter_mut() {
            reading.take(room, architecture.depth(), [&mut logits, &mut states]);
            room -= reading.taken;
            if reading.taken == 0 {
                continue;
            }
            let Some(sequence) = self.places[reading.slot].1.as_mut() else { continue };
            if let Read::Kept(kept) = &mut sequence.read {
                kept.reserve(reading.taken, self.shape);
                furthest = furthest.max(kept.length + reading.taken);
                reading.kept = kept.clone();
            }
        }
        self.turns.reach(furthest, &architecture)?;
        let now: Vec<&Reading> = reading.iter().filter(|reading| reading.taken > 0).collect();
        let found = self.run(&now)?;
        for reading in reading.iter_mut() {
            reading.done += reading.taken;
            reading.kept = Kept::default();
            if let Some(sequence) = self.places[reading.slot].1.as_mut()
                && let Read::Kept(kept) = &mut sequence.read
            {
                kept.length += reading.taken;
            }
        }
        Ok(found)
    }

    /// Runs one pass.
    fn run(&self, reading: &[&Reading]) -> Result<Found> {
        let mut adapters: Vec<&Adapter> = Vec::new();
        let mut owners: Vec<Option<&Adapter>> = Vec::new();
        let (mut rows, mut runs): (Vec<Row>, Vec<Run>) = (Vec::new(), Vec::new());
        let mut wanted = 0;
        for (sequence, reading) in reading.iter().enumerate() {
            let change = reading.adapter.as_deref().map(|adapter| {
                let same = |other: &&Adapter| std::ptr::eq(*other, adapter);
                adapters.iter().position(same).unwrap_or_else(|| {
                    adapters.push(adapter);
                    adapters.len() - 1
                })
            });
            let owner = reading.owner();
            if owners.last().is_none_or(|last| address(*last) != address(owner)) {
                owners.push(owner);
                let weights = owners.len() - 1;
                let (rows, wanted) = (rows.len()..rows.len(), wanted..wanted);
                runs.push(Run { rows, weights, wanted, shared: Vec::new() });
            }
            let every = reading.wanted == Wanted::States { every: true };
            let each = reading.states.len() / reading.taken.max(1);
            let inputs = &reading.inputs[reading.done..reading.done + reading.taken];
            for (index, &input) in inputs.iter().enumerate() {
                let wanted = reading.row.filter(|_| index + 1 == reading.taken);
                let first = reading.states.start + index * each;
                let held = (each > 0).then_some(Held { first, every });
                let position = reading.kept.length + index;
                rows.push(Row { input, change, sequence, position, wanted, held });
            }
            wanted += usize::from(reading.row.is_some());
            if let Some(run) = runs.last_mut() {
                let first = run.rows.end;
                run.rows.end = rows.len();
                run.wanted.end = wanted;
                match run.shared.last_mut().filter(|last| rows[last.start].change == change) {
                    Some(last) => last.end = rows.len(),
                    None => run.shared.push(first..rows.len()),
                }
            }
        }
        let network = &self.backbone.network;
        let mut listing = Listing::default();
        plan(network, &owners, &adapters, &mut listing)?;
        let work = self.parameters.saturating_mul(rows.len());
        let members = if work < WORTH_A_THREAD { 1 } else { self.threads };
        listing.supply(|supply| {
            let pass = Pass::new(Given {
                architecture: network.architecture(),
                plan: plan(network, &owners, &adapters, supply)?,
                rows,
                runs,
                sequences: reading.iter().map(|reading| reading.kept.blocks.as_slice()).collect(),
                turns: &self.turns,
                shape: self.shape,
                members,
                states: reading.last().map_or(0, |reading| reading.states.end),
            });
            kernel::run(members, |member| pass.work(member));
            Ok(pass.into_found())
        })
    }

    /// What a sequence of this adapter has before its first token: the keys and values of a prefix.
    pub(super) fn begin(&self, adapter: Option<&Adapter>) -> Result<Kept> {
        let mut kept = Kept::default();
        let Some(adapter) = adapter else { return Ok(kept) };
        for layer in 0..self.backbone.network.depth() {
            let Some(prefix) = adapter.prefix(layer) else { return Ok(kept) };
            for (which, tensor) in prefix.iter().enumerate() {
                let (_, count, _) = tensor.dims3()?;
                kept.reserve(count, self.shape);
                let all = tensor.to_dtype(candle_core::DType::F32)?.to_vec3::<f32>()?;
                kept.put(layer, which, &all, self.shape);
            }
        }
        if let Some([keys, _]) = adapter.prefix(0) {
            kept.length = keys.dim(1)?;
        }
        Ok(kept)
    }
}
