//! A file whose parts are read when they are asked for, or the same in memory.
//!
//! Knows nothing of what is in it. Nothing is allocated that the file is not long enough for.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{ModelError, Result};

/// An opened file with its length when it was opened.
#[derive(Debug)]
pub(crate) struct Contents {
    path: PathBuf,
    length: u64,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Disk(Mutex<File>),
    Memory(Cow<'static, [u8]>),
}

impl Contents {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fail = |source| ModelError::File { path: path.into(), source };
        let file = File::open(path).map_err(fail)?;
        let length = file.metadata().map_err(fail)?.len();
        Ok(Self { path: path.into(), length, place: Place::Disk(Mutex::new(file)) })
    }

    /// Something in memory under the name `path`.
    pub(crate) fn memory(bytes: Cow<'static, [u8]>, path: &Path) -> Self {
        Self { path: path.into(), length: bytes.len() as u64, place: Place::Memory(bytes) }
    }

    /// Its length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Reads `length` bytes from `start` on: a copy from a file, a view of memory.
    ///
    /// # Errors
    /// When the file is shorter than that, or cannot be read.
    pub(crate) fn read(&self, start: u64, length: usize) -> Result<Cow<'_, [u8]>> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.length) {
            let reason = format!("{length} bytes at {start} lie outside its {}", self.length);
            return Err(self.malformed("model file", reason));
        }
        match &self.place {
            Place::Memory(bytes) => {
                Ok(Cow::Borrowed(&bytes[start as usize..start as usize + length]))
            }
            Place::Disk(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let mut bytes = vec![0; length];
                file.seek(SeekFrom::Start(start))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(|source| ModelError::File { path: self.path.clone(), source })?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Reads everything, if that is not more than `limit` bytes.
    ///
    /// # Errors
    /// When it is more, or cannot be read.
    pub(crate) fn whole(&self, limit: u64) -> Result<Cow<'_, [u8]>> {
        self.refuse_larger(limit)?;
        self.read(0, self.length as usize)
    }

    /// Refuses a file of more than `limit` bytes.
    ///
    /// # Errors
    /// When it is larger.
    pub(crate) fn refuse_larger(&self, limit: u64) -> Result<()> {
        if self.length > limit {
            let reason = format!("{} bytes are more than the {limit} that are read", self.length);
            return Err(self.malformed("model file", reason));
        }
        Ok(())
    }

    /// The error that this is not a valid `what`.
    pub(crate) fn malformed(&self, what: &'static str, reason: String) -> ModelError {
        ModelError::Malformed { path: self.path.clone(), what, reason }
    }
}
