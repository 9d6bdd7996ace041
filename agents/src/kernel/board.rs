//! Numbers that several threads write in turns, each its own part.

#![expect(unsafe_code, reason = "several threads write different parts of one piece of memory")]

use std::cell::UnsafeCell;
use std::ops::Range;

/// Numbers shared by the members of a team. Work is cut into phases with a barrier between them; within a
/// phase no number is written by one member while another reads or writes it.
pub(crate) struct Board {
    cells: Box<[UnsafeCell<f32>]>,
    /// Where the numbers begin, and how many there are.
    start: usize,
    count: usize,
}

/// Numbers of a cache line.
const LINE: usize = 16;

// SAFETY: the numbers are reached through `read` and `write` only, whose callers promise that no number is
// written while anyone else uses it.
unsafe impl Sync for Board {}

impl Board {
    /// `count` zeros. They begin with a cache line: vectors across two lines take twice as long to load.
    pub(crate) fn new(count: usize) -> Self {
        let mut board = Self::plain(count + LINE - 1);
        board.start = board.cells.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE - 1);
        board.count = count;
        board
    }

    /// `count` zeros that begin anywhere, to be handed out in the end.
    pub(crate) fn plain(count: usize) -> Self {
        let zeros = Box::into_raw(vec![0f32; count].into_boxed_slice());
        // SAFETY: an `UnsafeCell<f32>` lies in memory as an `f32` does, and the box is given over whole.
        Self { cells: unsafe { Box::from_raw(zeros as *mut [UnsafeCell<f32>]) }, start: 0, count }
    }

    /// How many numbers there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The numbers, once nobody shares them.
    pub(crate) fn into_numbers(self) -> Vec<f32> {
        let cells = Box::into_raw(self.cells);
        // SAFETY: as in `plain`, the other way round.
        let mut all = unsafe { Box::from_raw(cells as *mut [f32]) }.into_vec();
        all.truncate(self.start + self.count);
        all.drain(..self.start);
        all
    }

    /// Where number `start` lies, and how many there are from it on.
    pub(super) fn cells(&self, start: usize) -> (*mut f32, usize) {
        let cells = &self.all()[start..];
        (UnsafeCell::raw_get(cells.as_ptr()), cells.len())
    }

    fn all(&self) -> &[UnsafeCell<f32>] {
        &self.cells[self.start..self.start + self.count]
    }

    /// Some of the numbers.
    ///
    /// # Safety
    /// Nobody may write them while the result lives.
    pub(crate) unsafe fn read(&self, range: Range<usize>) -> &[f32] {
        let cells = &self.all()[range];
        // SAFETY: the cells lie side by side, as f32 do, and the caller promises that none is written.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) }
    }

    /// Some of the numbers, to be changed.
    ///
    /// # Safety
    /// Nobody else may use them while the result lives.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that these numbers are its own")]
    pub(crate) unsafe fn write(&self, range: Range<usize>) -> &mut [f32] {
        let cells = &self.all()[range];
        // SAFETY: as `read`, and writing through a shared reference is what an `UnsafeCell` is for.
        unsafe { std::slice::from_raw_parts_mut(UnsafeCell::raw_get(cells.as_ptr()), cells.len()) }
    }
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Board({})", self.len())
    }
}
