//! A file that grows by whole lines, and loses none when the disk refuses them for a while.
//!
//! What could not be written is kept, from the byte where the disk stopped, and is written by the next try.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write};

use agents::backbone::digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes that may wait before they are written unasked.
const WAITING: usize = 64 << 10;

/// How far a file is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Bytes from its beginning.
    pub bytes: u64,
    /// SHA-256 of them in hexadecimal.
    pub sha256: String,
}

/// The lines of a file.
#[derive(Debug)]
pub(super) struct Lines<W> {
    file: W,
    waiting: Vec<u8>,
    /// Bytes of the file once everything is written.
    bytes: u64,
    /// Of those bytes.
    digest: Sha256,
    /// Whether the next try is refused, as the experiment orders.
    refused: bool,
}

impl<W: Write> Lines<W> {
    pub(super) fn new(file: W) -> Self {
        Self::continued(file, 0, Sha256::new())
    }

    /// Goes on after so many bytes, which have gone into `digest`; the file stands at its end.
    pub(super) fn continued(file: W, bytes: u64, digest: Sha256) -> Self {
        Self { file, waiting: Vec::new(), bytes, digest, refused: false }
    }

    /// The file, as it was written last.
    pub(super) fn file(&self) -> &W {
        &self.file
    }

    /// Bytes of the file once everything is written, and their SHA-256.
    pub(super) fn position(&self) -> Position {
        Position { bytes: self.bytes, sha256: digest::hexadecimal(&self.digest.clone().finalize()) }
    }

    /// Adds a line; a disk that refuses is noticed when it is asked to write.
    pub(super) fn push(&mut self, line: &str) {
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.push(b'\n');
        self.digest.update(line.as_bytes());
        self.digest.update(b"\n");
        self.bytes += line.len() as u64 + 1;
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

/// The digest of so many bytes from the beginning of a file, which is left standing after them.
///
/// # Errors
/// When it is shorter, or cannot be read.
pub(super) fn digest(file: &mut File, bytes: u64) -> io::Result<Sha256> {
    let mut digest = Sha256::new();
    file.seek(SeekFrom::Start(0))?;
    let found = io::copy(&mut Read::by_ref(file).take(bytes), &mut digest)?;
    if found < bytes {
        let reason = format!("it has {found} bytes, and had {bytes} at the checkpoint");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
    }
    Ok(digest)
}

/// Bytes of the whole lines that a file begins with, at most so many.
///
/// # Errors
/// When it cannot be read.
pub(super) fn whole(file: &mut File, most: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let (mut read, mut whole) = (0_u64, 0_u64);
    let mut reader = BufReader::new(file.take(most));
    loop {
        let bytes = reader.fill_buf()?;
        let count = bytes.len();
        if count == 0 {
            return Ok(whole);
        }
        if let Some(place) = bytes.iter().rposition(|byte| *byte == b'\n') {
            whole = read + place as u64 + 1;
        }
        read += count as u64;
        reader.consume(count);
    }
}

/// Cuts a file off after so many bytes, and leaves it standing at its end.
///
/// # Errors
/// When the disk refuses.
pub(super) fn cut(mut file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)?;
    file.seek(SeekFrom::Start(bytes))?;
    Ok(())
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
