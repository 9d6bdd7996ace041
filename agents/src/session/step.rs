//! A step: which rows go through the layers together, in how many passes, and where their logits are.

use std::sync::Arc;

use super::cache::Kept;
use super::drawn::Source;
use super::logits::Numbers;
use super::pass::{Given, Input, Pass, Row, Run};
use super::plan::{Listing, plan};
use super::{Logits, Part, Read, Session};
use crate::adapter::Adapter;
use crate::error::Result;
use crate::kernel;

/// Rows of one pass: more give no faster products, only more memory.
const MOST_ROWS: usize = 512;

/// Products with fewer weights than this are not worth a second thread.
const WORTH_A_THREAD: usize = 1 << 20;

/// A part that is read directly, and how far it is.
struct Reading {
    part: usize,
    slot: usize,
    adapter: Option<Arc<Adapter>>,
    inputs: Vec<Input>,
    done: usize,
    /// How many of them the present pass takes.
    taken: usize,
    /// Blocks and length at the beginning of the pass.
    kept: Kept,
}

impl Reading {
    /// The adapter, where it replaces weights.
    fn owner(&self) -> Option<&Adapter> {
        self.adapter.as_deref().filter(|adapter| adapter.owns_weights())
    }
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
                    let adapter = sequence.adapter.clone();
                    let prompt = adapter.as_ref().and_then(|adapter| adapter.prompt());
                    let ahead = match prompt {
                        Some(prompt) if kept.length == 0 => prompt.dim(0)?,
                        _ => 0,
                    };
                    let tokens = part.inputs().map(|source| match source {
                        Source::Here(token) => Ok(Input::Token(token)),
                        Source::There(all, at) => Ok(Input::Token(all.get(at)?.to_scalar()?)),
                    });
                    let prompt = (0..ahead).map(|at| Ok(Input::Prompt(at)));
                    reading.push(Reading {
                        part: index,
                        slot: part.slot.index,
                        adapter,
                        inputs: prompt.chain(tokens).collect::<Result<_>>()?,
                        done: 0,
                        taken: 0,
                        kept: Kept::default(),
                    });
                }
            }
        }
        self.read_apart(parts, apart, &mut logits)?;
        // Rows that share weights are neighbours, and of these those that share an adapter.
        reading
            .sort_by_key(|reading| (address(reading.owner()), address(reading.adapter.as_deref())));
        while reading.iter().any(|reading| reading.done < reading.inputs.len()) {
            self.pass(parts, &mut reading, &mut logits)?;
        }
        Ok(logits)
    }

    /// Reads up to [`MOST_ROWS`] rows.
    fn pass(
        &mut self,
        parts: &[Part<'_>],
        reading: &mut [Reading],
        logits: &mut Logits,
    ) -> Result<()> {
        let mut room = MOST_ROWS;
        let mut furthest = 0;
        for reading in reading.iter_mut() {
            reading.taken = (reading.inputs.len() - reading.done).min(room);
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
        let architecture = Arc::clone(self.backbone.network.architecture());
        self.turns.reach(furthest, &architecture)?;
        let now: Vec<&Reading> = reading.iter().filter(|reading| reading.taken > 0).collect();
        let found = self.run(parts, &now, logits)?;
        logits.passes.extend((!found.is_empty()).then_some(Numbers::Here(found)));
        for reading in reading.iter_mut() {
            reading.done += reading.taken;
            reading.kept = Kept::default();
            if let Some(sequence) = self.places[reading.slot].1.as_mut()
                && let Read::Kept(kept) = &mut sequence.read
            {
                kept.length += reading.taken;
            }
        }
        Ok(())
    }

    /// Runs one pass and gives its logits; notes in `logits` where each part's will be.
    fn run(
        &self,
        parts: &[Part<'_>],
        reading: &[&Reading],
        logits: &mut Logits,
    ) -> Result<Vec<f32>> {
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
            let last = reading.done + reading.taken == reading.inputs.len();
            let place = (last && parts[reading.part].logits).then_some(wanted);
            logits.places[reading.part] = place.map(|row| (logits.passes.len(), row));
            for (index, &input) in
                reading.inputs[reading.done..reading.done + reading.taken].iter().enumerate()
            {
                let wanted = place.filter(|_| index + 1 == reading.taken);
                let position = reading.kept.length + index;
                rows.push(Row { input, change, sequence, position, wanted });
            }
            wanted += usize::from(place.is_some());
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
            });
            kernel::run(members, |member| pass.work(member));
            Ok(pass.into_logits())
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
