//! A file that grows by whole lines, and loses none when the disk refuses them for a while.
//!
//! What could not be written is kept, from the byte where the disk stopped, and is written by the next try.

use std::io::{self, Write};

/// Bytes that may wait before they are written unasked.
const WAITING: usize = 64 << 10;

/// The lines of a file.
#[derive(Debug)]
pub(super) struct Lines<W> {
    file: W,
    waiting: Vec<u8>,
    /// Whether the next try is refused, as the experiment orders.
    refused: bool,
}

impl<W: Write> Lines<W> {
    pub(super) fn new(file: W) -> Self {
        Self { file, waiting: Vec::new(), refused: false }
    }

    /// Adds a line; a disk that refuses is noticed when it is asked to write.
    pub(super) fn push(&mut self, line: &str) {
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.push(b'\n');
        if self.waiting.len() >= WAITING && !self.refused {
            // Not lost: it waits for the next try.
            let _ = self.write();
        }
    }

    /// Hands everything to the system.
    pub(super) fn write(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.refused) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut written = 0;
        let result = loop {
            if written == self.waiting.len() {
                break self.file.flush();
            }
            match self.file.write(&self.waiting[written..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.waiting.drain(..written);
        result
    }

    /// Refuses the next try.
    pub(super) fn refuse_once(&mut self) {
        self.refused = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with little room, of which more becomes free; it takes three bytes at a time.
    struct Disk {
        room: usize,
        bytes: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room).min(3);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.bytes.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_and_repeats_nothing() {
        let mut lines = Lines::new(Disk { room: 4, bytes: Vec::new() });
        lines.push("one");
        lines.push("two");
        for more in [0, 1, 2, 0] {
            lines.file.room += more;
            assert_eq!(lines.write().unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
        lines.file.room += 100;
        lines.push("three");
        lines.refuse_once();
        assert!(lines.write().is_err());
        lines.write().unwrap();
        assert_eq!(lines.file.bytes, b"one\ntwo\nthree\n");
    }

    #[test]
    fn many_lines_do_not_pile_up() {
        let mut lines = Lines::new(Vec::new());
        for _ in 0..WAITING {
            lines.push("x");
        }
        assert!(lines.waiting.len() < WAITING);
    }
}
