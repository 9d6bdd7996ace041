//! Products of a pass: the matrices of a phase cut into pieces, and what adapters add to each.

#![expect(unsafe_code, reason = "threads write their own parts of shared activations; see `pass`")]

use std::ops::Range;

use super::{MODULES, Pass, Run, Set, is_scaled};
use crate::backbone::names::{Module, Place};
use crate::kernel::{BLOCK, Board, Input, Matrix, Member, Target, gate};
use crate::session::change::{Change, Own};
use crate::session::plan::Map;

/// Rows of a matrix in one item: whole blocks of what the next map may read rounded.
const CHUNK: usize = BLOCK;

/// Bytes of weights that are asked for before a member waits for the others.
const ASKED: usize = 32 << 10;

/// Some outputs of a map, for every row of a run.
struct Piece<'r> {
    run: &'r Run,
    layer: usize,
    set: Set,
    /// Which map of the set.
    place: usize,
    part: Range<usize>,
}

impl<'a> Pass<'a> {
    /// A phase for the maps of a set: the matrices cut into chunks of rows. Who is done before the others
    /// asks for what it will multiply with in the phase of `next`.
    pub(super) fn project(&self, member: &mut Member<'_>, layer: usize, set: Set, own: &mut Own) {
        let next = match set {
            Set::Attention => Some((layer, Set::Output)),
            Set::Output => Some((layer, Set::Gate)),
            Set::Gate => Some((layer, Set::Down)),
            Set::Down if layer + 1 < self.given.architecture.depth() => {
                Some((layer + 1, Set::Attention))
            }
            Set::Down => None,
        };
        let item = |item| {
            if let Some(piece) = self.piece(layer, set, item) {
                self.chunk(&piece, own);
            }
        };
        member.share_and(self.pieces(layer, set), item, |[member, members]| {
            let Some((layer, set)) = next else { return };
            let first = member * self.pieces(layer, set) / members;
            if let Some(piece) = self.piece(layer, set, first) {
                let maps = set.maps(&self.given.plan.weights[piece.run.weights].layers[layer]);
                maps[piece.place].matrix.part(piece.part).ask(ASKED);
            }
        });
    }

    /// What widening the narrow products of some rows reads for some outputs.
    fn widening(
        &self,
        rows: Option<&Range<usize>>,
        layer: usize,
        module: Module,
        outputs: &Range<usize>,
    ) -> Option<Matrix<'_>> {
        match self.change(rows?.start, layer, module)? {
            Change::LowRank(low) => Some(low.widening(outputs.clone())),
            _ => None,
        }
    }

    /// The maps of a set that are cut into pieces: the gate and the input of the feed-forward block are
    /// computed together.
    fn apart(&self, run: &Run, layer: usize, set: Set) -> &[Map<'a>] {
        let maps = set.maps(&self.given.plan.weights[run.weights].layers[layer]);
        if set == Set::Gate { &maps[..1] } else { maps }
    }

    /// Pieces of a map.
    fn cuts(map: &Map<'_>) -> usize {
        map.matrix.rows().div_ceil(CHUNK)
    }

    /// Pieces of a phase.
    fn pieces(&self, layer: usize, set: Set) -> usize {
        let maps = self.given.runs.iter().flat_map(|run| self.apart(run, layer, set));
        maps.map(|map| Self::cuts(map)).sum()
    }

    fn piece(&self, layer: usize, set: Set, mut item: usize) -> Option<Piece<'_>> {
        for run in &self.given.runs {
            for (place, map) in self.apart(run, layer, set).iter().enumerate() {
                if item < Self::cuts(map) {
                    let first = item * CHUNK;
                    let part = first..map.matrix.rows().min(first + CHUNK);
                    return Some(Piece { run, layer, set, place, part });
                }
                item -= Self::cuts(map);
            }
        }
        None
    }

    /// Some outputs of a map, for every row of a run.
    fn chunk(&self, piece: &Piece<'_>, own: &mut Own) {
        let Piece { run, layer, set, ref part, .. } = *piece;
        let architecture = self.given.architecture;
        let (hidden, inner) = (architecture.hidden, architecture.inner);
        match set {
            Set::Attention => {
                let width = architecture.query_width() + 2 * architecture.key_width();
                self.multiply(piece, (&self.attention, width), own);
            }
            Set::Gate => {
                self.multiply(piece, (&self.gate, inner), own);
                let up = Piece { place: 1, part: part.clone(), ..*piece };
                self.multiply(&up, (&self.up, inner), own);
                for row in run.rows.clone() {
                    let span = row * inner + part.start..row * inner + part.end;
                    // SAFETY: these outputs of this row are the item's own in all three.
                    let (gated, up, out) = unsafe {
                        let gated = self.gate.read(span.clone());
                        (gated, self.up.read(span.clone()), self.inner.write(span))
                    };
                    gate(architecture.activation, gated, up, out);
                    if let Some(rounded) = self.rounded(Set::Down) {
                        // SAFETY: these outputs are the item's own, and so is their block.
                        unsafe { rounded.write(row, part.start, out) };
                    }
                }
            }
            Set::Output | Set::Down => {
                self.multiply(piece, (&self.branch, hidden), own);
                let after =
                    if set == Set::Output { Place::AfterAttention } else { Place::AfterMlp };
                let weights = &self.given.plan.weights[run.weights].layers[layer];
                if weights.norm(after).is_none() {
                    for row in run.rows.clone() {
                        let span = row * hidden + part.start..row * hidden + part.end;
                        // SAFETY: these numbers of this row are the item's own in both.
                        let (stream, branch) =
                            unsafe { (self.stream.write(span.clone()), self.branch.read(span)) };
                        stream.iter_mut().zip(branch).for_each(|(x, y)| *x += y);
                    }
                }
            }
        }
    }

    /// The products of a chunk, with bias and what adapters change, written to `out`.
    fn multiply(&self, piece: &Piece<'_>, out: (&Board, usize), own: &mut Own) {
        let Piece { run, layer, set, place, ref part } = *piece;
        let map = &set.maps(&self.given.plan.weights[run.weights].layers[layer])[place];
        let (board, width) = self.input(set);
        let scaled = self.scales && is_scaled(&self.given, layer, map.module);
        let (board, rounded) =
            if scaled { (&self.scaled[place], None) } else { (board, self.rounded(set)) };
        let count = run.rows.len();
        // SAFETY: the input was written in an earlier phase, rounded or not.
        let (x, rounded) = unsafe {
            let rounded = rounded.map(|rounded| rounded.rows(run.rows.start, count));
            (board.read(run.rows.start * width..run.rows.end * width), rounded)
        };
        let (out, stride) = out;
        let at = |row: usize| row * stride + map.column + part.start;
        let matrix = map.matrix.part(part.clone());
        let start = map.start + part.start;
        let outputs = start..start + part.len();
        let mut shared = run.shared.iter();
        let widening = |rows| self.widening(rows, layer, map.module, &outputs);
        if let Some(first) = widening(shared.as_slice().first()) {
            first.ask(usize::MAX);
        }
        // SAFETY: these outputs of every row are the item's own.
        let target = |row: usize| unsafe { Target::on(out, at(row), stride) };
        let input = Input { x, stride: width, count, rounded };
        matrix.product(input, &mut own.scratch, target(run.rows.start));
        while let Some(rows) = shared.next() {
            let change = self.change(rows.start, layer, map.module);
            // What adapters add comes from memory an adapter ahead: much of it at once would hold up
            // everything else.
            if let Some(next) = widening(shared.as_slice().first()) {
                next.ask_near();
            }
            if let Some(Change::LowRank(low)) = change {
                // SAFETY: narrow products were written in an earlier phase.
                let x = unsafe { self.narrow.read(self.narrow_span(rows, map.module)) };
                let stride = MODULES * self.rank;
                let narrow = Input { x, stride, count: rows.len(), rounded: None };
                low.widen(narrow, outputs.clone(), &mut own.scratch, target(rows.start));
            }
            if change.is_none() && map.bias.is_none() {
                continue;
            }
            for row in rows.clone() {
                // SAFETY: these outputs are the item's own.
                let outputs = unsafe { out.write(at(row)..at(row) + part.len()) };
                if let Some(Change::LowRank(low)) = change {
                    low.stretch(start, outputs);
                }
                if let Some(bias) = &map.bias {
                    outputs.iter_mut().zip(&bias[part.clone()]).for_each(|(y, bias)| *y += bias);
                }
                if let Some(Change::Output(scale)) = change {
                    outputs.iter_mut().zip(&scale[start..]).for_each(|(y, scale)| *y *= scale);
                }
            }
        }
    }

    /// A phase for the logits.
    pub(super) fn write(&self, member: &mut Member<'_>, own: &mut Own) {
        let (hidden, vocabulary) =
            (self.given.architecture.hidden, self.given.architecture.vocabulary);
        let chunk = 4 * CHUNK;
        let chunks = vocabulary.div_ceil(chunk);
        member.share(chunks * self.given.runs.len(), |item| {
            let run = &self.given.runs[item / chunks];
            let first = item % chunks * chunk;
            let head = &self.given.plan.weights[run.weights].outer.head;
            let head = head.part(first..vocabulary.min(first + chunk));
            let wanted = run.wanted.clone();
            if wanted.is_empty() {
                return;
            }
            // SAFETY: the heads were written in an earlier phase, and these logits are the item's own.
            let (input, target) = unsafe {
                let x = self.heads.read(wanted.start * hidden..wanted.end * hidden);
                let rounded = self.rounded_heads.as_ref();
                let rounded = rounded.map(|rounded| rounded.rows(wanted.start, wanted.len()));
                let start = wanted.start * vocabulary + first;
                let input = Input { x, stride: hidden, count: wanted.len(), rounded };
                (input, Target::on(&self.logits, start, vocabulary))
            };
            head.product(input, &mut own.scratch, target);
        });
    }
}
