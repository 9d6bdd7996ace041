//! The version of an event log, and which ones can be read.

use std::fmt;
use std::path::Path;

use serde::Deserialize;

use super::RecordingError;
use crate::recorder::FORMAT;

/// What every version's name begins with.
const FAMILY: &str = "polylogue-events/";

/// A version: another major one means other events, another minor one only more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Only one is read.
    pub major: u32,
    /// Any is read.
    pub minor: u32,
}

#[derive(Deserialize)]
struct Header {
    format: String,
}

impl Version {
    /// What is written here.
    pub const OURS: Self = Self { major: 1, minor: 1 };

    /// Reads the first line of a log.
    pub(super) fn of_header(line: &[u8], path: &Path) -> Result<Self, RecordingError> {
        let unlike = || RecordingError::Header { path: path.into(), ours: FORMAT };
        let header: Header = serde_json::from_slice(line).map_err(|_other| unlike())?;
        let version = header.format.strip_prefix(FAMILY).and_then(Self::parse);
        let version = version.ok_or_else(unlike)?;
        if version.major != Self::OURS.major {
            return Err(RecordingError::Version { path: path.into(), found: version });
        }
        Ok(version)
    }

    /// `1` or `1.2`.
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(major) || !digits(minor) {
            return None;
        }
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// Whether it may have events that are not known here.
    pub(super) fn is_newer(self) -> bool {
        self.minor > Self::OURS.minor
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FAMILY}{}", self.major)?;
        if self.minor > 0 { write!(f, ".{}", self.minor) } else { Ok(()) }
    }
}
