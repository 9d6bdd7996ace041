//! Products of a pass: the matrices of a phase cut into pieces, and what adapters add to each.

#![expect(unsafe_code, reason = "threads write their own parts of shared activations; see `pass`")]

use std::ops::Range;

use super::{MODULES, Pass, Run, Set, is_scaled};
use crate::backbone::names::Place;
use crate::kernel::{BLOCK, Board, Input, Member, Target, gate};
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
    /// A phase for the maps of a set: the matrices cut into chunks of rows. With each chunk goes its share of
    /// adapters' first matrices, where these wait for it, asked for during its products. Who is done before the
    /// others asks for what it will multiply with in the phase of `next`.
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
        let pieces = self.pieces(layer, set);
        let item = |item| {
            let narrow = self.narrow_beside(layer, set, [item, pieces]);
            for (rows, place) in narrow.clone() {
                if let Some((_, low)) = self.low_rank(rows, layer, (set, place)) {
                    own.scratch.beside.add(low.narrowing());
                }
            }
            if let Some(piece) = self.piece(layer, set, item) {
                self.chunk(&piece, own);
            }
            for (rows, place) in narrow {
                self.narrow(rows, layer, (set, place), own);
            }
        };
        member.share_and(pieces, item, |[member, members]| {
            let Some((layer, set)) = next else { return };
            let first = member * self.pieces(layer, set) / members;
            if let Some(piece) = self.piece(layer, set, first) {
                let maps = set.maps(&self.given.plan.weights[piece.run.weights].layers[layer]);
                maps[piece.place].matrix.part(piece.part).ask(ASKED);
            }
        });
    }

    /// The narrow products that are computed with an item of a phase, one of so many: rows and a place in the
    /// set for each.
    fn narrow_beside(
        &self,
        layer: usize,
        set: Set,
        [item, items]: [usize; 2],
    ) -> impl Iterator<Item = (&Range<usize>, usize)> + Clone {
        let places = if self.by_owner {
            set.maps(&self.given.plan.weights[0].layers[layer]).len()
        } else {
            0
        };
        let all = self.groups.len() * places;
        let share = [item, item + 1].map(|item| item * all / items);
        (share[0]..share[1]).map(move |at| (&self.groups[at / places], at % places))
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
        let Piece { run, layer, set, place, ref part } = *piece;
        self.multiply(piece, own);
        if set == Set::Gate {
            self.multiply(&Piece { place: 1, part: part.clone(), ..*piece }, own);
        }
        if !self.by_owner {
            let mut shared = run.shared.iter();
            while let Some(rows) = shared.next() {
                self.settle(rows, layer, (set, place), part, shared.as_slice().first(), own);
            }
        }
    }

    /// The products of a chunk.
    fn multiply(&self, piece: &Piece<'_>, own: &mut Own) {
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
        let (out, stride) = self.output(set, place);
        let at = run.rows.start * stride + map.column + part.start;
        // SAFETY: these outputs of every row are the item's own.
        let target = unsafe { Target::on(out, at, stride) };
        let input = Input { x, stride: width, count, rounded };
        map.matrix.part(part.clone()).product(input, &mut own.scratch, target);
    }

    /// Where the products of a map go, and how wide a row of it is.
    fn output(&self, set: Set, place: usize) -> (&Board, usize) {
        let architecture = self.given.architecture;
        let (hidden, inner) = (architecture.hidden, architecture.inner);
        match (set, place) {
            (Set::Attention, _) => {
                (&self.attention, architecture.query_width() + 2 * architecture.key_width())
            }
            (Set::Gate, 0) => (&self.gate, inner),
            (Set::Gate, _) => (&self.up, inner),
            (Set::Output | Set::Down, _) => (&self.branch, hidden),
        }
    }

    /// What follows products for all outputs of a set and rows of one adapter, where it was not done with
    /// each piece.
    pub(super) fn settle_late(&self, rows: &Range<usize>, layer: usize, set: Set, own: &mut Own) {
        if !self.by_owner {
            return;
        }
        let maps = self.apart(self.run(rows.start), layer, set);
        for (place, map) in maps.iter().enumerate() {
            self.settle(rows, layer, (set, place), &(0..map.matrix.rows()), None, own);
        }
    }

    /// What follows products for some outputs of a map and rows of one adapter: what it adds, bias and scale;
    /// then the gate, or the sum with the stream. Rows of the adapter after it are `next`.
    fn settle(
        &self,
        rows: &Range<usize>,
        layer: usize,
        (set, place): (Set, usize),
        part: &Range<usize>,
        next: Option<&Range<usize>>,
        own: &mut Own,
    ) {
        let weights = &self.weights(rows.start).layers[layer];
        let architecture = self.given.architecture;
        let (hidden, inner) = (architecture.hidden, architecture.inner);
        self.change_outputs(rows, layer, (set, place), part, next, own);
        match set {
            Set::Attention => {}
            Set::Gate => {
                self.change_outputs(rows, layer, (set, 1), part, next, own);
                for row in rows.clone() {
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
                let after =
                    if set == Set::Output { Place::AfterAttention } else { Place::AfterMlp };
                if weights.norm(after).is_some() {
                    return;
                }
                for row in rows.clone() {
                    let span = row * hidden + part.start..row * hidden + part.end;
                    // SAFETY: these numbers of this row are the item's own in both.
                    let (stream, branch) =
                        unsafe { (self.stream.write(span.clone()), self.branch.read(span)) };
                    stream.iter_mut().zip(branch).for_each(|(x, y)| *x += y);
                }
            }
        }
    }

    /// What an adapter changes of some outputs of a map, and the bias.
    fn change_outputs(
        &self,
        rows: &Range<usize>,
        layer: usize,
        (set, place): (Set, usize),
        part: &Range<usize>,
        next: Option<&Range<usize>>,
        own: &mut Own,
    ) {
        let map = &set.maps(&self.weights(rows.start).layers[layer])[place];
        let (out, stride) = self.output(set, place);
        let at = |row: usize| row * stride + map.column + part.start;
        let start = map.start + part.start;
        let outputs = start..start + part.len();
        let change = self.change(rows.start, layer, map.module);
        if let Some(next) = next
            && let Some(Change::LowRank(low)) = self.change(next.start, layer, map.module)
        {
            low.widening(outputs.clone()).ask_near();
        }
        if let Some(Change::LowRank(low)) = change {
            // SAFETY: narrow products were written in an earlier phase.
            let x = unsafe { self.narrow.read(self.narrow_span(rows, map.module)) };
            let narrow = Input { x, stride: MODULES * self.rank, count: rows.len(), rounded: None };
            // SAFETY: these outputs of every row are the item's own.
            let target = unsafe { Target::on(out, at(rows.start), stride) };
            low.widen(narrow, outputs, &mut own.scratch, target);
        }
        if change.is_none() && map.bias.is_none() {
            return;
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
