//! Memory that is read after a product, asked for while it goes on: products of many rows leave memory idle.
//!
//! Only a hint: nothing is read, and nothing depends on it but time.

use super::matrix::Matrix;
use super::prefetch;
use super::tile::LINE;

/// Memory to ask for, in its order.
#[derive(Default)]
pub(crate) struct Beside {
    /// Where each piece begins, and how many lines it has.
    pieces: Vec<(*const u8, usize)>,
    /// How many pieces were asked for, and how many lines of the next.
    done: usize,
    lines: usize,
    left: usize,
    /// How many lines in one pass of the product.
    each: usize,
}

impl Beside {
    /// The next product asks for this matrix too.
    pub(crate) fn add(&mut self, matrix: &Matrix<'_>) {
        let [start, end] = matrix.span();
        let lines = (end.addr() - start.addr()).div_ceil(LINE);
        if lines > 0 {
            self.pieces.push((start, lines));
            self.left += lines;
        }
    }

    /// A product of so many passes begins.
    pub(super) fn begin(&mut self, passes: usize) {
        self.each = self.left.div_ceil(passes.max(1));
    }

    /// A pass of so many steps begins: how many lines are to be asked for with each.
    #[inline(always)]
    pub(super) fn pass(&mut self, steps: usize) -> usize {
        let lines = self.each.min(self.left);
        self.ask(lines % steps);
        lines / steps
    }

    /// Asks for the next lines.
    #[inline(always)]
    pub(super) fn ask(&mut self, lines: usize) {
        for _ in 0..lines {
            let Some(&(start, all)) = self.pieces.get(self.done) else { return };
            prefetch(start.wrapping_add(self.lines * LINE));
            self.lines += 1;
            self.left -= 1;
            if self.lines == all {
                (self.done, self.lines) = (self.done + 1, 0);
            }
        }
    }

    /// The product is done.
    pub(super) fn end(&mut self) {
        self.pieces.clear();
        (self.done, self.lines, self.left, self.each) = (0, 0, 0, 0);
    }

    /// Lines that are still to be asked for.
    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Pieces that were asked for.
    #[cfg(test)]
    pub(super) fn begun(&self) -> usize {
        self.done
    }
}
