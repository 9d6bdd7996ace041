//! One pass over the layers for rows of any mixture of sequences, on all threads at once.
//!
//! The pass is a row of phases. In a phase each item writes numbers of its own and reads only what earlier
//! phases wrote; [`Member::share`] ends a phase for everyone. That is the proof of every access to a
//! [`Board`] here, and each names the numbers that are the item's own.

#![expect(unsafe_code, reason = "threads write their own parts of shared activations; see above")]

mod attention;
mod product;

use std::ops::Range;
use std::sync::Arc;

use super::cache::Shape;
use super::change::{Change, LowRank, Own};
use super::plan::{Layer, Map, Plan, Weights};
use super::turn::Turns;
use crate::backbone::Architecture;
use crate::backbone::names::{Module, Place};
use crate::kernel::{self, BLOCK, Board, Member, Rounded, normalize};

/// What a row of a pass reads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    Token(u32),
    /// A vector of the adapter's prompt.
    Prompt(usize),
}

/// One token of one sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) input: Input,
    /// Index of its adapter's changes.
    pub(super) change: Option<usize>,
    /// Index of its blocks.
    pub(super) sequence: usize,
    pub(super) position: usize,
    /// Where its logits go.
    pub(super) wanted: Option<usize>,
    pub(super) held: Option<Held>,
}

/// A row whose normed states are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Where the first of them goes.
    pub(super) first: usize,
    /// Whether it has one after every layer, the embeddings first; the last one only otherwise.
    pub(super) every: bool,
}

/// What a pass gives.
#[derive(Debug)]
pub(super) struct Found {
    /// `[wanted rows, vocabulary]`.
    pub(super) logits: Vec<f32>,
    /// `[states, hidden]`.
    pub(super) states: Vec<f32>,
}

/// Rows that share their weights.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) rows: Range<usize>,
    /// Index of the weights.
    pub(super) weights: usize,
    /// Their logits.
    pub(super) wanted: Range<usize>,
    /// The same rows, cut where the adapter changes.
    pub(super) shared: Vec<Range<usize>>,
}

/// What is given to a pass.
pub(super) struct Given<'a> {
    pub(super) architecture: &'a Architecture,
    pub(super) plan: Plan<'a>,
    pub(super) rows: Vec<Row>,
    pub(super) runs: Vec<Run>,
    pub(super) sequences: Vec<&'a [Arc<Board>]>,
    pub(super) turns: &'a Turns,
    pub(super) shape: Shape,
    /// How many threads will work on it.
    pub(super) members: usize,
    /// How many states its rows hold.
    pub(super) states: usize,
}

/// Rows of one adapter that are multiplied with its first matrices together, at most: those that a product
/// computes together.
const TOGETHER: usize = 4;

/// So many adapters for each member of a team read their second matrices whole, one after the other, rather
/// than with the pieces of every product, which would lose to them what they have in their caches.
const MANY: usize = 4;

/// Maps that read the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    Attention,
    Output,
    Gate,
    Down,
}

impl Set {
    fn maps<'p, 'g>(self, layer: &'p Layer<'g>) -> &'p [Map<'g>] {
        match self {
            Self::Attention => &layer.attention,
            Self::Output => &layer.output,
            Self::Gate => &layer.gate,
            Self::Down => &layer.down,
        }
    }
}

/// A pass and its activations, one row of numbers for each row.
pub(super) struct Pass<'a> {
    given: Given<'a>,
    /// The residual stream, and what a norm made of it.
    stream: Board,
    normed: Board,
    /// Queries, keys and values.
    attention: Board,
    mixed: Board,
    /// What attention and feed-forward block give.
    branch: Board,
    gate: Board,
    up: Board,
    inner: Board,
    /// Inputs that adapters scaled, for each map of a set.
    scaled: [Board; 3],
    /// Narrow products, `[rows, modules, rank]`.
    narrow: Board,
    rank: usize,
    heads: Board,
    logits: Board,
    states: Board,
    /// What maps in 8 bits read, rounded: normed, mixed and inner activations, and the heads.
    rounded: [Option<Rounded>; 3],
    rounded_heads: Option<Rounded>,
    /// All rows; neighbours of one adapter a few together, so that every member has some.
    groups: Vec<Range<usize>>,
    /// Whether an adapter scales inputs anywhere.
    scales: bool,
    /// Whether a sequence has several rows.
    several: bool,
    /// Whether what follows products is done adapter by adapter once all outputs are there, rather than with
    /// each piece of a matrix.
    by_owner: bool,
}

const MODULES: usize = Module::ALL.len();

impl<'a> Pass<'a> {
    pub(super) fn new(given: Given<'a>) -> Self {
        let (shape, count) = (given.architecture, given.rows.len());
        let wanted = given.rows.iter().filter(|row| row.wanted.is_some()).count();
        let (hidden, inner) = (shape.hidden, shape.inner);
        let rank = given.plan.changes.iter().map(|changes| changes.rank).max().unwrap_or(0);
        let inputs = Module::ALL
            .iter()
            .any(|&module| (0..shape.depth()).any(|layer| is_scaled(&given, layer, module)));
        let wide = if inputs { hidden.max(inner).max(shape.query_width()) } else { 0 };
        let several = given.sequences.len() < count;
        let board = |width: usize| Board::new(count * width);
        let rounds = |set: Set| {
            let mut layers = given.plan.weights.iter().flat_map(|weights| &weights.layers);
            layers.any(|layer| set.maps(layer).iter().any(|map| map.matrix.rounds()))
        };
        let rounded = |any: bool, width| any.then(|| Rounded::new(count, width));
        // Queries that share a key head are mixed at once; no block may be of two of them.
        let alone = (shape.query_width() / shape.key_heads).is_multiple_of(BLOCK);
        let head = given.plan.weights.iter().any(|weights| weights.outer.head.rounds());
        let together = (count / given.members.max(1)).clamp(1, TOGETHER);
        let mut groups = Vec::with_capacity(count);
        for rows in given.runs.iter().flat_map(|run| &run.shared) {
            let most = if given.rows[rows.start].change.is_some() { together } else { 1 };
            groups.extend(rows.clone().step_by(most).map(|row| row..rows.end.min(row + most)));
        }
        let owners = given.runs.iter().flat_map(|run| &run.shared);
        let owners = owners.filter(|rows| given.rows[rows.start].change.is_some()).count();
        Self {
            by_owner: owners >= MANY * given.members,
            groups,
            rounded: [
                rounded(rounds(Set::Attention) || rounds(Set::Gate), hidden),
                rounded(rounds(Set::Output) && alone, shape.query_width()),
                rounded(rounds(Set::Down), inner),
            ],
            rounded_heads: head.then(|| Rounded::new(wanted, hidden)),
            stream: board(hidden),
            normed: board(hidden),
            attention: board(shape.query_width() + 2 * shape.key_width()),
            mixed: board(shape.query_width()),
            branch: board(hidden),
            gate: board(inner),
            up: board(inner),
            inner: board(inner),
            scaled: [board(wide), board(wide), board(wide)],
            narrow: board(MODULES * rank),
            rank,
            heads: Board::new(wanted * hidden),
            logits: Board::plain(wanted * shape.vocabulary),
            states: Board::plain(given.states * hidden),
            scales: inputs,
            several,
            given,
        }
    }

    /// What was wanted, after every member has done its work.
    pub(super) fn into_found(self) -> Found {
        Found { logits: self.logits.into_numbers(), states: self.states.into_numbers() }
    }

    /// The work of one member.
    pub(super) fn work(&self, mut member: Member<'_>) {
        let member = &mut member;
        let own = &mut Own::default();
        let (count, groups) = (self.given.rows.len(), &self.groups);
        let depth = self.given.architecture.depth();
        member.share(count, |row| self.embed(row));
        for layer in 0..depth {
            member.share(groups.len(), |item| self.before_attention(&groups[item], layer, own));
            self.project(member, layer, Set::Attention, own);
            self.look(member, layer, own);
            self.prepare(member, layer, Set::Output, own);
            self.project(member, layer, Set::Output, own);
            member.share(groups.len(), |item| self.before_gate(&groups[item], layer, own));
            self.project(member, layer, Set::Gate, own);
            self.prepare(member, layer, Set::Down, own);
            self.project(member, layer, Set::Down, own);
        }
        member.share(groups.len(), |item| {
            if let Some(last) = depth.checked_sub(1) {
                self.settle_late(&groups[item], last, Set::Down, own);
            }
            groups[item].clone().for_each(|row| self.finish(row, own));
        });
        self.write(member, own);
    }

    /// The run of a row.
    fn run(&self, row: usize) -> &Run {
        let all = &self.given.runs;
        &all[all.partition_point(|run| run.rows.end <= row)]
    }

    fn weights(&self, row: usize) -> &Weights<'a> {
        &self.given.plan.weights[self.run(row).weights]
    }

    fn change(&self, row: usize, layer: usize, module: Module) -> Option<&Change<'a>> {
        self.given.plan.changes[self.given.rows[row].change?].of(layer, module)
    }

    fn embed(&self, row: usize) {
        let hidden = self.given.architecture.hidden;
        // SAFETY: this row of the stream is the item's own.
        let out = unsafe { self.stream.write(row * hidden..(row + 1) * hidden) };
        let Row { input, change, .. } = self.given.rows[row];
        match input {
            Input::Token(token) => {
                self.weights(row).outer.embedding.row(token as usize, out);
                let scale = self.given.architecture.embedding_scale;
                if (scale - 1.0).abs() > f64::EPSILON {
                    out.iter_mut().for_each(|x| *x *= scale as f32);
                }
            }
            Input::Prompt(at) => {
                let prompt =
                    change.and_then(|change| self.given.plan.changes[change].prompt.as_ref());
                if let Some(prompt) = prompt {
                    out.copy_from_slice(&prompt[at * hidden..(at + 1) * hidden]);
                }
            }
        }
    }

    /// Adds a normed branch to the stream of a row.
    fn add_normed(&self, row: usize, weight: &[f32], own: &mut Own) {
        let hidden = self.given.architecture.hidden;
        let span = row * hidden..(row + 1) * hidden;
        // SAFETY: this row of the stream is the item's own; the branch was written in an earlier phase.
        let (stream, branch) = unsafe { (self.stream.write(span.clone()), self.branch.read(span)) };
        own.wide.clear();
        own.wide.resize(hidden, 0.0);
        normalize(branch, weight, self.given.architecture.epsilon as f32, &mut own.wide);
        stream.iter_mut().zip(&own.wide).for_each(|(x, y)| *x += y);
    }

    /// Norms the stream of a row, or copies it where there is no norm.
    fn norm(&self, row: usize, weight: Option<&[f32]>, out: &mut [f32]) {
        let hidden = self.given.architecture.hidden;
        // SAFETY: this row of the stream is used by this item only, or was written in an earlier phase.
        let stream = unsafe { self.stream.read(row * hidden..(row + 1) * hidden) };
        match weight {
            Some(weight) => {
                normalize(stream, weight, self.given.architecture.epsilon as f32, out);
            }
            None => out.copy_from_slice(stream),
        }
    }

    fn before_attention(&self, rows: &Range<usize>, layer: usize, own: &mut Own) {
        let weights = self.weights(rows.start);
        let before =
            layer.checked_sub(1).and_then(|layer| weights.layers[layer].norm(Place::AfterMlp));
        let norm = weights.layers[layer].norm(Place::BeforeAttention);
        if let Some(layer) = layer.checked_sub(1) {
            self.settle_late(rows, layer, Set::Down, own);
        }
        self.enter(rows, [before, norm], Set::Attention, own);
        rows.clone().for_each(|row| self.hold(row, layer));
        self.adapt(rows, layer, Set::Attention, own);
    }

    fn before_gate(&self, rows: &Range<usize>, layer: usize, own: &mut Own) {
        let weights = &self.weights(rows.start).layers[layer];
        let norms = [Place::AfterAttention, Place::BeforeMlp].map(|place| weights.norm(place));
        self.settle_late(rows, layer, Set::Output, own);
        self.enter(rows, norms, Set::Gate, own);
        self.adapt(rows, layer, Set::Gate, own);
    }

    /// What maps of a set read of these rows: the norm of the stream, once the branch before, with a norm of
    /// its own, was added.
    fn enter(
        &self,
        rows: &Range<usize>,
        [before, norm]: [Option<&[f32]>; 2],
        set: Set,
        own: &mut Own,
    ) {
        let hidden = self.given.architecture.hidden;
        for row in rows.clone() {
            if let Some(before) = before {
                self.add_normed(row, before, own);
            }
            // SAFETY: this row is the item's own.
            let out = unsafe { self.normed.write(row * hidden..(row + 1) * hidden) };
            self.norm(row, norm, out);
            self.round(row, set, out);
        }
    }

    /// What the maps of a set read, and how wide a row of it is.
    fn input(&self, set: Set) -> (&Board, usize) {
        let architecture = self.given.architecture;
        match set {
            Set::Attention | Set::Gate => (&self.normed, architecture.hidden),
            Set::Output => (&self.mixed, architecture.query_width()),
            Set::Down => (&self.inner, architecture.inner),
        }
    }

    /// The same rounded, where that is done once for all maps.
    fn rounded(&self, set: Set) -> Option<&Rounded> {
        match set {
            Set::Attention | Set::Gate => self.rounded[0].as_ref(),
            Set::Output => self.rounded[1].as_ref(),
            Set::Down => self.rounded[2].as_ref(),
        }
    }

    /// Rounds what a row gives the maps of a set.
    fn round(&self, row: usize, set: Set, x: &[f32]) {
        if let Some(rounded) = self.rounded(set) {
            // SAFETY: this row is the item's own.
            unsafe { rounded.write(row, 0, x) };
        }
    }

    /// A phase for what adapters need of a set's input, where any does, and for a gate that was left.
    fn prepare(&self, member: &mut Member<'_>, layer: usize, set: Set, own: &mut Own) {
        let changed = |module| {
            let mut changes = self.given.plan.changes.iter();
            changes.any(|c| match c.of(layer, module) {
                Some(Change::LowRank(_)) => !self.by_owner,
                change => change.is_some(),
            })
        };
        let maps = set.maps(&self.given.plan.weights[0].layers[layer]);
        let gates = set == Set::Down;
        if self.by_owner && gates || maps.iter().any(|map| changed(map.module)) {
            let groups = &self.groups;
            member.share(groups.len(), |item| {
                if gates {
                    self.settle_late(&groups[item], layer, Set::Gate, own);
                }
                self.adapt(&groups[item], layer, set, own);
            });
        }
    }

    /// Narrow products and scaled inputs of rows that have one change.
    fn adapt(&self, rows: &Range<usize>, layer: usize, set: Set, own: &mut Own) {
        let (board, width) = self.input(set);
        let first = rows.start;
        for (place, map) in set.maps(&self.weights(first).layers[layer]).iter().enumerate() {
            if !self.by_owner {
                self.narrow(rows, layer, (set, place), own);
            }
            if self.scales && is_scaled(&self.given, layer, map.module) {
                // SAFETY: these rows of the input are used by this item only, or were written in an earlier
                // phase; the scaled inputs of these rows are the item's own.
                let (x, out) = unsafe {
                    let span = first * width..rows.end * width;
                    (board.read(span.clone()), self.scaled[place].write(span))
                };
                out.copy_from_slice(x);
                if let Some(Change::Input(scale)) = self.change(first, layer, map.module) {
                    for out in out.chunks_exact_mut(width) {
                        out.iter_mut().zip(scale.iter()).for_each(|(x, scale)| *x *= scale);
                    }
                }
            }
        }
    }

    /// The low-rank change of a map for these rows, if this is where its module begins.
    fn low_rank(
        &self,
        rows: &Range<usize>,
        layer: usize,
        (set, place): (Set, usize),
    ) -> Option<(Module, &LowRank<'a>)> {
        let map = set.maps(&self.weights(rows.start).layers[layer]).get(place)?;
        match self.change(rows.start, layer, map.module)? {
            Change::LowRank(low) if map.start == 0 => Some((map.module, low)),
            _ => None,
        }
    }

    /// Narrow products of rows that have one change.
    fn narrow(&self, rows: &Range<usize>, layer: usize, (set, place): (Set, usize), own: &mut Own) {
        let Some((module, low)) = self.low_rank(rows, layer, (set, place)) else { return };
        let (board, width) = self.input(set);
        // SAFETY: these rows of the input are used by this item only, or were written in an earlier phase.
        let x = unsafe { board.read(rows.start * width..rows.end * width) };
        let x = kernel::Input { x, stride: width, count: rows.len(), rounded: None };
        // SAFETY: the narrow products of these rows are the item's own.
        let out = unsafe { self.narrow.write(self.narrow_span(rows, module)) };
        low.narrow(x, &mut own.scratch, (out, MODULES * self.rank));
    }

    /// The narrow products of a module for these rows, with those of other modules between two rows.
    fn narrow_span(&self, rows: &Range<usize>, module: Module) -> Range<usize> {
        let at = |row: usize| (row * MODULES + module as usize) * self.rank;
        at(rows.start)..at(rows.end - 1) + self.rank
    }

    /// Keeps the normed state of a row after so many layers, where it is wanted.
    fn hold(&self, row: usize, layers: usize) {
        let Some(Held { first, every }) = self.given.rows[row].held else { return };
        let last = layers == self.given.architecture.depth();
        if !every && !last {
            return;
        }
        let at = if every { first + layers } else { first };
        let hidden = self.given.architecture.hidden;
        // SAFETY: the states of this row are the item's own.
        let out = unsafe { self.states.write(at * hidden..(at + 1) * hidden) };
        self.norm(row, self.weights(row).outer.final_norm.as_deref(), out);
    }

    /// The last norm of a row whose logits or states are wanted.
    fn finish(&self, row: usize, own: &mut Own) {
        let Row { wanted, held, .. } = self.given.rows[row];
        if wanted.is_none() && held.is_none() {
            return;
        }
        let weights = self.weights(row);
        let last = weights.layers.last().and_then(|layer| layer.norm(Place::AfterMlp));
        if let Some(norm) = last {
            self.add_normed(row, norm, own);
        }
        self.hold(row, weights.layers.len());
        let Some(place) = wanted else { return };
        let hidden = self.given.architecture.hidden;
        // SAFETY: this row is the item's own.
        let out = unsafe { self.heads.write(place * hidden..(place + 1) * hidden) };
        self.norm(row, weights.outer.final_norm.as_deref(), out);
        if let Some(rounded) = &self.rounded_heads {
            // SAFETY: this row is the item's own.
            unsafe { rounded.write(place, 0, out) };
        }
    }
}

/// Whether an adapter of this pass scales the input of a map.
fn is_scaled(given: &Given<'_>, layer: usize, module: Module) -> bool {
    let scaled = |changes: &super::change::Changes<'_>| {
        matches!(changes.of(layer, module), Some(Change::Input(_)))
    };
    given.plan.changes.iter().any(scaled)
}
