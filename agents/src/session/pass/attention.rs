//! Attention of a pass: keys and values are kept, and queries look at all that was kept.

#![expect(unsafe_code, reason = "threads write their own parts of shared activations; see `pass`")]

use super::{Pass, Row, Set};
use crate::kernel::{Member, Seen, attend, normalize, rotate};
use crate::session::cache::BLOCK;
use crate::session::change::Own;

impl Pass<'_> {
    /// Phases for keys, values and attention. A row looks at those before it of its own sequence, so where
    /// there are any in the pass, all are kept first.
    pub(super) fn look(&self, member: &mut Member<'_>, layer: usize, own: &mut Own) {
        let (count, groups) = (self.given.rows.len(), &self.groups);
        let heads = self.given.architecture.key_heads;
        let split = |item| (item / heads, item % heads);
        match (self.several, self.by_owner) {
            (false, false) => member.share(count * heads, |item| {
                let (row, head) = split(item);
                self.keep(row, layer, head, own);
                self.attend(row, layer, head, own);
            }),
            (false, true) => member.share(groups.len(), |item| {
                self.settle_late(&groups[item], layer, Set::Attention, own);
                for (row, head) in
                    groups[item].clone().flat_map(|row| (0..heads).map(move |head| (row, head)))
                {
                    self.keep(row, layer, head, own);
                    self.attend(row, layer, head, own);
                }
            }),
            (true, _) => {
                member.share(groups.len(), |item| {
                    self.settle_late(&groups[item], layer, Set::Attention, own);
                    for row in groups[item].clone() {
                        (0..heads).for_each(|head| self.keep(row, layer, head, own));
                    }
                });
                member.share(count * heads, |item| {
                    let (row, head) = split(item);
                    self.attend(row, layer, head, own);
                });
            }
        }
    }

    /// Norms and rotates the queries and the key of one key head, and keeps key and value.
    fn keep(&self, row: usize, layer: usize, head: usize, own: &mut Own) {
        let architecture = self.given.architecture;
        let (width, epsilon) = (architecture.head_width, architecture.epsilon as f32);
        let (query, key) = (architecture.query_width(), architecture.key_width());
        let group = architecture.heads / architecture.key_heads;
        let start = row * (query + 2 * key);
        let Row { sequence, position, .. } = self.given.rows[row];
        let norms = self.weights(row).layers[layer].head_norms.as_ref();
        let rope = architecture.layers[layer].rope;
        let mut turn = |at: usize, which: usize| {
            // SAFETY: this head of this row is the item's own.
            let x = unsafe { self.attention.write(at..at + width) };
            if let Some(norms) = norms {
                own.wide.clear();
                own.wide.extend_from_slice(x);
                normalize(&own.wide, &norms[which], epsilon, x);
            }
            if let Some(rope) = rope {
                let [cos, sin] = self.given.turns.at(rope, position);
                rotate(x, cos, sin);
            }
        };
        (0..group).for_each(|i| turn(start + (head * group + i) * width, 0));
        let at = start + query + head * width;
        turn(at, 1);
        let block = &self.given.sequences[sequence][position / BLOCK];
        for (which, from) in [at, at + key].into_iter().enumerate() {
            let to = self.given.shape.at(layer, which, head) + position % BLOCK * width;
            // SAFETY: this head of this row is the item's own, and so is its place in a block that no
            // other sequence shares.
            unsafe {
                block
                    .write(to..to + width)
                    .copy_from_slice(self.attention.read(from..from + width));
            }
        }
    }

    /// Attention of the queries of one key head.
    fn attend(&self, row: usize, layer: usize, head: usize, own: &mut Own) {
        let architecture = self.given.architecture;
        let width = architecture.head_width;
        let (query, key) = (architecture.query_width(), architecture.key_width());
        let group = architecture.heads / architecture.key_heads * width;
        let Row { sequence, position, .. } = self.given.rows[row];
        let window = architecture.layers[layer].window;
        let from = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let at = row * (query + 2 * key) + head * group;
        // SAFETY: queries, keys and values up to this position were written by this item or in an earlier
        // phase; no other item writes them now. The mixed heads are the item's own.
        let (queries, out) = unsafe {
            let out = row * query + head * group;
            (self.attention.read(at..at + group), self.mixed.write(out..out + group))
        };
        let blocks = self.given.sequences[sequence];
        let block = |index: usize| {
            let part = |which: usize| {
                let start = self.given.shape.at(layer, which, head);
                // SAFETY: as above; a block may also be shared, and then nobody writes it. Positions after
                // this one may be written meanwhile in this very head only by items of this sequence,
                // which are in another phase.
                unsafe { blocks[index].read(start..start + BLOCK * width) }
            };
            (part(0), part(1))
        };
        let scale = architecture.attention_scale as f32;
        let seen = Seen { positions: from..position + 1, block: BLOCK, scale };
        attend(queries, width, seen, block, &mut own.scores, out);
        if let Some(rounded) = self.rounded(Set::Output) {
            // SAFETY: the mixed heads are the item's own, and so are their blocks.
            unsafe { rounded.write(row, head * group, out) };
        }
    }
}
