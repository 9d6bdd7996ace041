//! Reading a run directory back: the event log line by line, checked while it is read.
//!
//! A version that is not known is refused with what is needed. A last line that was cut off by a crash is
//! tolerated and told; any other line that is not an event is refused with its number, and so is a gap in
//! the numbering. Nothing that a log claims decides how much memory is taken: a line has a limit, and lines
//! are read one at a time. The log may be compressed with gzip after its run. `docs/recording.md` is the
//! reference of the format.

mod manifest;
mod problem;
mod times;
mod version;

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use serde::de::IgnoredAny;

pub use self::manifest::{Manifest, ManifestError};
pub use self::problem::RecordingError;
pub use self::times::Times;
pub use self::version::Version;
use crate::event::{Event, EventKind};
use crate::summary::Summary;

/// The longest line that is read, in bytes.
pub const LONGEST_LINE: usize = 16 << 20;

/// Bytes at the end of a log in which its last event is looked for.
const TAIL: u64 = 4 << 20;

/// Name of the log in a run directory.
pub const LOG: &str = "events.jsonl";

/// Name of a log that was compressed after its run.
pub const COMPRESSED: &str = "events.jsonl.gz";

/// An event and the line that it stands in.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// What happened.
    pub event: Event,
    /// The line, without its end.
    pub line: String,
}

/// What is known of a last line that was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Its number, from 1.
    pub line: u64,
    /// How much of it is there.
    pub bytes: usize,
}

/// A recording that is being read.
pub struct Recording<R> {
    source: R,
    path: PathBuf,
    version: Version,
    /// Lines read, the header included.
    line: u64,
    bytes: Vec<u8>,
    next_seq: u64,
    tick: u64,
    torn: Option<Torn>,
    /// Events of a newer minor version that are passed over.
    unknown: u64,
    ended: bool,
}

impl<R> fmt::Debug for Recording<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A recording on disk.
pub type RecordingFile = Recording<Box<dyn BufRead + Send>>;

/// Opens the log of a run directory, compressed or not.
///
/// # Errors
/// When there is none, or its header cannot be read.
pub fn open(directory: &Path) -> Result<RecordingFile, RecordingError> {
    let source = bytes(directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            RecordingError::NoLog { directory: directory.into() }
        }
        _ => RecordingError::file(&place(directory).0, &error),
    })?;
    Recording::new(source, &place(directory).0)
}

/// The bytes of the log of a run directory as they were written, compressed since or not.
///
/// # Errors
/// When there is none, or the system does not give it to us.
pub(crate) fn bytes(directory: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let (path, packed) = place(directory);
    // A pipe would make us wait for ever.
    if !std::fs::metadata(&path)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = BufReader::new(File::open(&path)?);
    Ok(if packed { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) })
}

/// Where the log of a run directory is, and whether it is compressed.
fn place(directory: &Path) -> (PathBuf, bool) {
    let plain = directory.join(LOG);
    match plain.try_exists() {
        Ok(true) => (plain, false),
        _ => (directory.join(COMPRESSED), true),
    }
}

/// Whether the log of a run directory was compressed.
pub(crate) fn is_compressed(directory: &Path) -> bool {
    let (path, packed) = place(directory);
    packed && path.exists()
}

/// The last event of a recording, as far as it can be read.
pub(crate) fn last(directory: &Path) -> Option<Event> {
    let (path, packed) = place(directory);
    if packed {
        let recorded = open(directory).ok()?.map_while(Result::ok).last()?;
        return Some(recorded.event);
    }
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let whole = bytes.strip_suffix(b"\n")?;
    let line = whole.rsplit(|byte| *byte == b'\n').next()?;
    serde_json::from_slice(line).ok()
}

/// An event of which only the place is understood.
#[derive(Deserialize)]
struct Placed {
    seq: u64,
    tick: u64,
    #[serde(rename = "event")]
    _kind: IgnoredAny,
}

impl<R: BufRead> Recording<R> {
    /// Reads the header; `path` is for messages only.
    ///
    /// # Errors
    /// When there is no header, or it names a version that is not known here.
    pub fn new(source: R, path: &Path) -> Result<Self, RecordingError> {
        let mut recording = Self {
            source,
            path: path.into(),
            version: Version::OURS,
            line: 0,
            bytes: Vec::new(),
            next_seq: 0,
            tick: 0,
            torn: None,
            unknown: 0,
            ended: false,
        };
        if !recording.fill()? || recording.bytes.last() != Some(&b'\n') {
            return Err(RecordingError::Empty { path: path.into() });
        }
        recording.version = Version::of_header(&recording.bytes, path)?;
        Ok(recording)
    }

    /// The next event; none at the end.
    ///
    /// # Errors
    /// When a line is damaged, too long, or out of order. Nothing more is read then.
    pub fn read(&mut self) -> Result<Option<Recorded>, RecordingError> {
        if self.ended {
            return Ok(None);
        }
        let result = self.read_on();
        self.ended = !matches!(result, Ok(Some(_)));
        result
    }

    fn read_on(&mut self) -> Result<Option<Recorded>, RecordingError> {
        while self.fill()? {
            let whole = self.bytes.last() == Some(&b'\n');
            if whole {
                self.bytes.pop();
            }
            match self.event() {
                Ok(Some(event)) => {
                    self.follow(event.seq, event.tick)?;
                    // What was an event is text.
                    let line = String::from_utf8_lossy(&self.bytes).into_owned();
                    return Ok(Some(Recorded { event, line }));
                }
                Ok(None) => self.unknown += 1,
                Err(_) if !whole => {
                    self.torn = Some(Torn { line: self.line, bytes: self.bytes.len() });
                    return Ok(None);
                }
                Err(reason) => return Err(self.damaged(reason)),
            }
        }
        Ok(None)
    }

    /// The event in the present line; none where a newer minor version has a kind that is not known here.
    fn event(&mut self) -> Result<Option<Event>, String> {
        let error = match serde_json::from_slice::<Event>(&self.bytes) {
            Ok(event) => return Ok(Some(event)),
            Err(error) => error,
        };
        if self.version.is_newer()
            && let Ok(Placed { seq, tick, .. }) = serde_json::from_slice(&self.bytes)
        {
            self.follow(seq, tick).map_err(|error| error.to_string())?;
            return Ok(None);
        }
        Err(error.to_string())
    }

    /// Checks that an event stands where it should.
    fn follow(&mut self, seq: u64, tick: u64) -> Result<(), RecordingError> {
        if seq != self.next_seq {
            return Err(self.damaged(format!("event {seq} stands where {} should", self.next_seq)));
        }
        if tick < self.tick {
            return Err(self.damaged(format!("tick {tick} comes after tick {}", self.tick)));
        }
        (self.next_seq, self.tick) = (seq + 1, tick);
        Ok(())
    }

    /// Reads a line with its end into the buffer; false at the end of the log.
    fn fill(&mut self) -> Result<bool, RecordingError> {
        self.bytes.clear();
        let limit = LONGEST_LINE as u64 + 1;
        match (&mut self.source).take(limit).read_until(b'\n', &mut self.bytes) {
            Ok(_) => {}
            // A compressed log that was cut off: what came out of it is a line that was cut off.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(RecordingError::file(&self.path, &error)),
        }
        if self.bytes.is_empty() {
            return Ok(false);
        }
        self.line += 1;
        if self.bytes.len() > LONGEST_LINE {
            return Err(self.damaged(format!("it is longer than {LONGEST_LINE} bytes")));
        }
        Ok(true)
    }

    fn damaged(&self, reason: String) -> RecordingError {
        RecordingError::Line { path: self.path.clone(), line: self.line, reason }
    }

    /// The version that the header names.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The last line, where it was cut off; known once the end was reached.
    #[must_use]
    pub fn torn(&self) -> Option<Torn> {
        self.torn
    }

    /// Events so far that a newer version wrote and that are not known here.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }
}

impl<R: BufRead> Iterator for Recording<R> {
    type Item = Result<Recorded, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// What a whole recording comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// Events that are there.
    pub events: u64,
    /// The last tick.
    pub last_tick: u64,
    /// Whether the run came to its end, early or not.
    pub finished: bool,
    /// The last line, where it was cut off.
    pub torn: Option<Torn>,
    /// Events of a newer version that are passed over.
    pub unknown: u64,
    /// The fold of all events that [`Summary`] is.
    pub summary: Summary,
}

/// Reads a whole recording once, and so finds any damage.
///
/// # Errors
/// As [`open`] and [`Recording::read`].
pub fn survey(directory: &Path) -> Result<Survey, RecordingError> {
    let mut recording = open(directory)?;
    let mut survey = Survey::default();
    while let Some(Recorded { event, .. }) = recording.read()? {
        survey.events = event.seq + 1;
        survey.last_tick = event.tick;
        survey.finished = matches!(event.kind, EventKind::RunFinished { .. });
        survey.summary.apply(&event);
    }
    (survey.torn, survey.unknown) = (recording.torn(), recording.unknown());
    Ok(survey)
}

#[cfg(test)]
mod tests;
