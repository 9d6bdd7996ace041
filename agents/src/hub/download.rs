//! One file from the hub into the cache: continued where an earlier download broke off, checked at its end.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use ureq::http::{StatusCode, header};
use ureq::{Body, http::Response};

use super::Progress;
use super::connection::{Connection, Described};
use super::error::HubError;
use super::model::is_hexadecimal;
use super::store::Store;
use crate::backbone::digest::hexadecimal;

/// Bytes that are read at once.
const PIECE: usize = 1 << 18;
/// Attempts in a row that bring less than [`LITTLE`] before we give up.
const ATTEMPTS: usize = 5;
/// What an attempt must bring not to count as failed, in bytes.
const LITTLE: u64 = 1 << 20;

/// A file that shall be fetched.
pub(super) struct Wanted<'a> {
    /// Its name.
    pub(super) file: &'a str,
    /// Its place on the hub.
    pub(super) path: &'a str,
    /// What the hub says of it.
    pub(super) described: &'a Described,
}

/// Why an attempt ended.
enum Broken {
    /// Another attempt may bring more.
    Again(String),
    /// No attempt would.
    Hopeless(HubError),
}

/// Makes sure that the file's contents are in the cache.
pub(super) fn download(
    connection: &Connection<'_>,
    store: &Store<'_>,
    wanted: &Wanted<'_>,
    hear: &mut dyn FnMut(&Progress),
) -> Result<(), HubError> {
    let Wanted { file, described: Described { etag, size }, .. } = *wanted;
    let (blob, file, size) = (store.blob(etag), file.to_owned(), *size);
    if let Some(folder) = blob.parent() {
        let refuse = |source| HubError::Cache { path: folder.into(), source };
        fs::create_dir_all(folder).map_err(refuse)?;
    }
    let lock = store.lock(etag, || hear(&Progress::Waiting { file: file.clone() }))?;
    // Contents of a wrong length are replaced.
    if fs::metadata(&blob).is_ok_and(|found| found.len() == size) {
        return Ok(());
    }
    let mut partial = Partial::open(blob.with_extension("incomplete"), size)?;
    hear(&Progress::Began { file: file.clone(), size, done: partial.done });
    let mut failed = 0;
    while partial.done < size {
        let before = partial.done;
        let reason = match attempt(connection, wanted, &mut partial, hear) {
            Ok(()) => continue,
            Err(Broken::Hopeless(error)) => return Err(error),
            Err(Broken::Again(reason)) => reason,
        };
        failed = if partial.done.saturating_sub(before) < LITTLE { failed + 1 } else { 0 };
        if failed == ATTEMPTS && partial.done < size {
            return Err(HubError::Interrupted { file, done: partial.done, size, reason });
        }
    }
    partial.finish(&file, etag, &blob)?;
    hear(&Progress::Finished);
    drop(lock);
    Ok(())
}

/// Fetches from where the partial file ends.
fn attempt(
    connection: &Connection<'_>,
    wanted: &Wanted<'_>,
    partial: &mut Partial,
    hear: &mut dyn FnMut(&Progress),
) -> Result<(), Broken> {
    let answer = connection.fetch(wanted.path, partial.done).map_err(|error| match error {
        HubError::Unreachable { reason, .. } if partial.done > 0 => Broken::Again(reason),
        error => Broken::Hopeless(error),
    })?;
    if !continues(&answer, partial) {
        partial.restart().map_err(|e| Broken::Hopeless(partial.refusal(e)))?;
        if answer.status() != StatusCode::OK {
            return Err(Broken::Again(
                "the server did not continue where it was asked to".to_owned(),
            ));
        }
    }
    let mut body = answer.into_body().into_reader();
    let mut piece = vec![0; PIECE];
    loop {
        let count = match body.read(&mut piece) {
            Ok(0) if partial.done < partial.size => {
                return Err(Broken::Again("the server sent less than it should".to_owned()));
            }
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) if partial.done == partial.size => return Ok(()),
            Err(error) => return Err(Broken::Again(error.to_string())),
        };
        if count as u64 > partial.size - partial.done {
            partial.delete();
            let (file, expected) = (wanted.file.to_owned(), partial.size);
            return Err(Broken::Hopeless(HubError::TooLong { file, expected }));
        }
        partial.append(&piece[..count]).map_err(|e| Broken::Hopeless(partial.refusal(e)))?;
        hear(&Progress::Advanced { done: partial.done });
    }
}

/// Whether an answer begins where the partial file ends.
fn continues(answer: &Response<Body>, partial: &Partial) -> bool {
    match answer.status() {
        StatusCode::OK => partial.done == 0,
        StatusCode::PARTIAL_CONTENT => {
            let range = answer.headers().get(header::CONTENT_RANGE);
            let range = range.and_then(|value| value.to_str().ok()).unwrap_or_default();
            let (start, end) = (format!("bytes {}-", partial.done), format!("/{}", partial.size));
            range.starts_with(&start) && range.ends_with(&end)
        }
        _ => false,
    }
}

/// A file that is not complete, with the digest of what is there.
struct Partial {
    file: File,
    path: PathBuf,
    /// Bytes that are there.
    done: u64,
    /// Bytes that it shall have.
    size: u64,
    digest: Sha256,
}

impl Partial {
    /// Opens what an earlier download left, or nothing yet.
    fn open(path: PathBuf, size: u64) -> Result<Self, HubError> {
        let begin = || -> io::Result<(File, u64, Sha256)> {
            let mut options = File::options();
            let mut file =
                options.read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut digest = Sha256::new();
            if file.metadata()?.len() > size {
                file.set_len(0)?;
            }
            let done = io::copy(&mut file, &mut digest)?;
            Ok((file, done, digest))
        };
        match begin() {
            Ok((file, done, digest)) => Ok(Self { file, path, done, size, digest }),
            Err(source) => Err(HubError::Cache { path, source }),
        }
    }

    fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)?;
        self.digest.update(piece);
        self.done += piece.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.digest = Sha256::new();
        self.done = 0;
        Ok(())
    }

    /// Checks what came and gives it its place.
    fn finish(self, file: &str, etag: &str, blob: &Path) -> Result<(), HubError> {
        let found = hexadecimal(&self.digest.finalize());
        if is_hexadecimal(etag, 64) && found != etag {
            drop(self.file);
            remove(&self.path);
            let (file, expected) = (file.to_owned(), etag.to_owned());
            return Err(HubError::Corrupt { file, expected, found });
        }
        let refuse = |source| HubError::Cache { path: self.path.clone(), source };
        self.file.sync_all().map_err(refuse)?;
        drop(self.file);
        fs::rename(&self.path, blob).map_err(refuse)
    }

    fn delete(&self) {
        remove(&self.path);
    }

    fn refusal(&self, source: io::Error) -> HubError {
        HubError::Cache { path: self.path.clone(), source }
    }
}

/// Deletes what is wrong; where that fails, the next download finds it wrong again.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}
