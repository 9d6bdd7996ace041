//! What commands write on the standard output and the error output, a line at a time.
//!
//! Whoever reads it may leave (`polylogue run … | head`): that loses the lines that follow, and nothing else. A
//! command goes on and ends as it would have, a run is recorded to its end.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Writes a line of the command's answer.
pub(crate) fn say(line: impl Display) {
    if let Err(error) = write(&mut io::stdout().lock(), line) {
        tell(format_args!("the standard output: {error}"));
    }
}

/// Writes a line that is no part of the command's answer.
pub(crate) fn tell(line: impl Display) {
    // There is no place left to say that nobody hears.
    let _ = write(&mut io::stderr().lock(), line);
}

/// Writes a line. A reader that has left is no error.
fn write(to: &mut impl Write, line: impl Display) -> io::Result<()> {
    match writeln!(to, "{line}").and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Refuses(ErrorKind);

    impl Write for Refuses {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_reader_who_left_is_no_error() {
        assert!(write(&mut Refuses(ErrorKind::BrokenPipe), "a").is_ok());
        assert!(write(&mut Refuses(ErrorKind::StorageFull), "a").is_err());
        let mut lines = Vec::new();
        assert!(write(&mut lines, "a").is_ok());
        assert_eq!(lines, b"a\n");
    }
}
