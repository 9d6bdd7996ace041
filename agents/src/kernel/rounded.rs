//! Activations rounded to 8 bits, for products with matrices that are kept so.
//!
//! Each block of 32 numbers becomes integers from -127 to 127 and one scale, a 127th of its largest
//! magnitude. Numbers half-way between two integers go to the even one. A block depends on its own 32
//! numbers only, and every step is rounded as IEEE 754 says, so blocks are the same on every machine.

#![expect(unsafe_code, reason = "threads write their own blocks of shared activations")]

use super::lanes::Lanes;
use super::{Board, Task, dispatch};

/// Numbers of a block.
pub(crate) const BLOCK: usize = 32;

/// Rows whose blocks lie side by side: so many are multiplied together.
pub(super) const GROUP: usize = 8;

/// Numbers of a board that a block takes.
const CELLS: usize = size_of::<Block>() / size_of::<f32>();

/// Numbers rounded together.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Block {
    pub(super) scale: f32,
    /// -128 times the sum of the integers: what a product has too much where 128 was added to the other side.
    pub(super) offset: i32,
    /// The same of the first half of the integers.
    pub(super) half: i32,
    /// The scale times the sum of the integers.
    pub(super) sum: f32,
    pub(super) integers: [i8; BLOCK],
}

impl Block {
    #[inline(always)]
    pub(super) fn of(scale: f32, integers: [i8; BLOCK]) -> Self {
        let sum = |integers: &[i8]| integers.iter().map(|&x| i32::from(x)).sum::<i32>();
        let (first, second) = integers.split_at(BLOCK / 2);
        let (first, second) = (sum(first), sum(second));
        let (offset, half) = (-128 * (first + second), -128 * first);
        Self { scale, offset, half, sum: scale * (first + second) as f32, integers }
    }
}

/// Adding and taking away this rounds to an integer, whose last bits are then those of the sum.
const MAGIC: f32 = 12_582_912.0;

struct Round<'a>(&'a [f32; BLOCK]);

impl Task for Round<'_> {
    type Output = Block;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Block {
        // Bits of magnitudes are in the order of the magnitudes, and those of NaN above all others: what
        // is not finite makes the scale so, and with it every product.
        let bits = self.0.iter().fold(0, |most, x| u32::max(most, x.to_bits() & 0x7FFF_FFFF));
        let largest = f32::from_bits(bits);
        let inverse = 127.0 / largest;
        // Not for zeros, nor for numbers so small that their scale has no inverse.
        let inverse = if inverse.is_finite() { inverse } else { 0.0 };
        let scale = largest / 127.0;
        let mut integers = [0; BLOCK];
        for (integer, x) in integers.iter_mut().zip(self.0) {
            *integer = ((x * inverse + MAGIC).to_bits() as u8).cast_signed();
        }
        Block::of(scale, integers)
    }
}

/// Rounded rows, shared by the members of a team as a [`Board`] is.
#[derive(Debug)]
pub(crate) struct Rounded {
    board: Board,
    rows: usize,
    /// Blocks of a row.
    blocks: usize,
}

impl Rounded {
    /// `rows` rows of `width` zeros; what does not fill a block is left out.
    pub(crate) fn new(rows: usize, width: usize) -> Self {
        let blocks = width / BLOCK;
        Self { board: Board::new(rows.next_multiple_of(GROUP) * blocks * CELLS), rows, blocks }
    }

    /// Rows of numbers, `stride` apart.
    pub(super) fn of(x: &[f32], stride: usize, rows: usize, width: usize) -> Self {
        let rounded = Self::new(rows, width);
        for row in 0..rows {
            // SAFETY: nobody else knows these rows yet.
            unsafe { rounded.write(row, 0, &x[row * stride..row * stride + width]) };
        }
        rounded
    }

    fn place(&self, row: usize, block: usize) -> usize {
        ((row / GROUP * self.blocks + block) * GROUP + row % GROUP) * CELLS
    }

    /// Rounds numbers of a row, from `first` on, which begins a block; what does not fill one is left out.
    ///
    /// # Safety
    /// Nobody else may use these blocks meanwhile.
    pub(crate) unsafe fn write(&self, row: usize, first: usize, x: &[f32]) {
        let (blocks, _) = x.as_chunks::<BLOCK>();
        for (i, x) in blocks.iter().enumerate() {
            let block = first / BLOCK + i;
            assert!(row < self.rows && block < self.blocks);
            let (at, left) = self.board.cells(self.place(row, block));
            assert!(left >= CELLS);
            // SAFETY: a block fits the numbers from here on and asks for no more alignment than they do; the
            // caller promises that nobody else uses them.
            unsafe { at.cast::<Block>().write(dispatch(Round(x))) };
        }
    }

    /// Rows from `first` on, to multiply with.
    ///
    /// # Safety
    /// Nobody may write them while the result lives.
    pub(crate) unsafe fn rows(&self, first: usize, count: usize) -> Rows<'_> {
        assert!(first + count <= self.rows);
        Rows { of: self, first, count }
    }
}

/// Rounded rows that nobody writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    of: &'a Rounded,
    first: usize,
    count: usize,
}

impl Rows<'_> {
    /// How many.
    pub(super) fn count(self) -> usize {
        self.count
    }

    pub(super) fn width(self) -> usize {
        self.of.blocks * BLOCK
    }

    /// How many rows from `row` on lie side by side.
    pub(super) fn together(self, row: usize) -> usize {
        (GROUP - (self.first + row) % GROUP).min(self.count - row)
    }

    /// The first block of a row; those of the rows beside it follow, and [`GROUP`] blocks on is its next.
    pub(super) fn start(self, row: usize) -> *const Block {
        assert!(row < self.count);
        self.of.board.cells(self.of.place(self.first + row, 0)).0.cast_const().cast()
    }
}
