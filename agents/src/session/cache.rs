//! Keys and values of one sequence, in blocks that never move: appended in place, shared by forks.

use std::sync::Arc;

pub(super) use crate::gpu::paged::{PAGE as BLOCK, Shape};
use crate::kernel::Board;

/// So many tokens in whole blocks: keys and values take no less.
pub(crate) fn whole(tokens: usize) -> usize {
    tokens.next_multiple_of(BLOCK)
}

/// What a sequence has read.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) blocks: Vec<Arc<Board>>,
    pub(super) length: usize,
}

impl Kept {
    /// Makes room for `more` tokens that no other sequence shares.
    pub(super) fn reserve(&mut self, more: usize, shape: Shape) {
        let partial = !self.length.is_multiple_of(BLOCK);
        if let Some(last) = self.blocks.get_mut(self.length / BLOCK).filter(|_| partial)
            && Arc::get_mut(last).is_none()
        {
            // A fork reads it too: what it holds so far is copied.
            let own = Board::new(shape.numbers());
            #[expect(unsafe_code, reason = "a block is read and a new one written")]
            // SAFETY: sequences write in a step only, which has the session to itself, and nobody else
            // knows the new block.
            unsafe {
                own.write(0..own.len()).copy_from_slice(last.read(0..own.len()));
            }
            *last = Arc::new(own);
        }
        while self.blocks.len() * BLOCK < self.length + more {
            self.blocks.push(Arc::new(Board::new(shape.numbers())));
        }
    }

    /// Writes keys (0) or values (1) `[heads, tokens, width]` of the first tokens of a layer, for which
    /// there is room and which nobody else shares.
    pub(super) fn put(&self, layer: usize, which: usize, all: &[Vec<Vec<f32>>], shape: Shape) {
        for (head, tokens) in all.iter().enumerate() {
            for (at, numbers) in tokens.iter().enumerate() {
                let to = shape.at(layer, which, head) + at % BLOCK * shape.width;
                let block = &self.blocks[at / BLOCK];
                #[expect(unsafe_code, reason = "a new sequence writes its own blocks")]
                // SAFETY: no step runs, and no other sequence has these blocks.
                unsafe { block.write(to..to + shape.width) }.copy_from_slice(numbers);
            }
        }
    }
}
