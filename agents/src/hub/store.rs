//! The standard cache of models: where files, links and references of a repository lie.
//!
//! `hf-hub` knows the layout: `blobs/ETAG` holds contents, `snapshots/COMMIT/FILE` leads to one of them, and
//! `refs/REVISION` names the commit. Locks are those of `huggingface_hub`.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::error::HubError;
use super::model::{HubModel, is_commit};
use super::selection;
use super::settings::HubSettings;
use crate::error::Result;

/// A repository's place in the cache.
pub(super) struct Store<'a> {
    model: &'a HubModel,
    cache: &'a Path,
    repo: Repo,
    places: CacheRepo,
}

/// Keeps others from fetching the same file.
pub(super) struct Lock {
    /// Nothing where the file system has no locks.
    _file: Option<File>,
}

impl<'a> Store<'a> {
    pub(super) fn new(model: &'a HubModel, settings: &'a HubSettings) -> Result<Self, HubError> {
        let cache = settings.cache.as_deref().ok_or(HubError::NoCache)?;
        let revision = model.revision().to_owned();
        let repo = Repo::with_revision(model.repository(), RepoType::Model, revision);
        let places = Cache::new(cache.into()).repo(repo.clone());
        Ok(Self { model, cache, repo, places })
    }

    /// Where the hub lists the repository's files.
    pub(super) fn listing_path(&self) -> String {
        format!("/api/{}", self.repo.api_url())
    }

    /// Where the hub gives a file out.
    pub(super) fn resolve_path(&self, commit: &str, file: &str) -> String {
        format!("/{}/resolve/{commit}/{file}", self.repo.url())
    }

    /// The folder of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.places.pointer_path(commit)
    }

    /// What a backbone is loaded from.
    pub(super) fn entry(&self, commit: &str) -> PathBuf {
        let snapshot = self.snapshot(commit);
        match self.model.file() {
            Some(file) => snapshot.join(file),
            None => snapshot,
        }
    }

    /// Where contents lie.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.places.blob_path(etag)
    }

    /// Whether a commit has a file.
    pub(super) fn has(&self, commit: &str, file: &str) -> bool {
        self.snapshot(commit).join(file).is_file()
    }

    /// Whether a file of the commit is neither there nor known to be missing on the hub.
    pub(super) fn in_doubt(&self, file: &str) -> bool {
        let known =
            |commit: &str| self.has(commit, file) || self.absent(commit).join(file).is_file();
        self.commit().is_some_and(|commit| !known(&commit))
    }

    /// Notes that the hub has no such file, as `huggingface_hub` does: an empty file stands for it.
    pub(super) fn note_absent(&self, commit: &str, file: &str) -> Result<(), HubError> {
        let folder = self.absent(commit);
        let path = folder.join(file);
        let refuse = |source| HubError::Cache { path: path.clone(), source };
        fs::create_dir_all(&folder).map_err(refuse)?;
        File::create(&path).map(|_empty| ()).map_err(refuse)
    }

    fn absent(&self, commit: &str) -> PathBuf {
        self.cache.join(self.repo.folder_name()).join(".no_exist").join(commit)
    }

    /// What a backbone is loaded from, if the cache has all of it.
    pub(super) fn cached(&self) -> Result<PathBuf> {
        let commit = self.commit();
        let missing = match &commit {
            Some(commit) => selection::missing(self.model, &self.snapshot(commit)),
            None => vec![format!("revision {}", self.model.revision())],
        };
        match commit {
            Some(commit) if missing.is_empty() => Ok(self.entry(&commit)),
            _ => Err(HubError::NotCached {
                model: self.model.to_string(),
                cache: self.cache.into(),
                missing: missing.join(", "),
                folder: self.repo.folder_name(),
            }
            .into()),
        }
    }

    /// The commit that the revision stood for when it was last asked for.
    fn commit(&self) -> Option<String> {
        if self.model.is_commit() {
            return Some(self.model.revision().to_owned());
        }
        let folder = self.cache.join(self.repo.folder_name());
        let mut text = String::new();
        let file = File::open(folder.join("refs").join(self.model.revision())).ok()?;
        file.take(64).read_to_string(&mut text).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Notes which commit the revision stands for.
    pub(super) fn remember(&self, commit: &str) -> Result<(), HubError> {
        if self.model.is_commit() {
            return Ok(());
        }
        let path = self.cache.join(self.repo.folder_name()).join("refs");
        self.places.create_ref(commit).map_err(|source| HubError::Cache { path, source })
    }

    /// Waits until nobody else fetches the same contents; `wait` is called where somebody does.
    pub(super) fn lock(&self, etag: &str, wait: impl FnOnce()) -> Result<Lock, HubError> {
        let folder = self.cache.join(".locks").join(self.repo.folder_name());
        let path = folder.join(format!("{etag}.lock"));
        let refuse = |source| HubError::Cache { path: path.clone(), source };
        fs::create_dir_all(&folder).map_err(refuse)?;
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(&path).map_err(refuse)?;
        let locked = match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => {
                wait();
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
        };
        match locked {
            Ok(()) => Ok(Lock { _file: Some(file) }),
            // Two downloads at once then write the same bytes twice, which the checks find out.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Lock { _file: None }),
            Err(error) => Err(refuse(error)),
        }
    }

    /// Gives contents their name in a commit.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let folder = self.snapshot(commit);
        let path = folder.join(file);
        let refuse = |source| HubError::Cache { path: path.clone(), source };
        fs::create_dir_all(&folder).map_err(refuse)?;
        // A link that leads nowhere.
        if path.is_symlink() && !path.exists() {
            fs::remove_file(&path).map_err(refuse)?;
        }
        match point(&self.blob(etag), &path, etag) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            result => result.map_err(refuse),
        }
    }
}

#[cfg(unix)]
fn point(_blob: &Path, path: &Path, etag: &str) -> io::Result<()> {
    std::os::unix::fs::symlink(Path::new("../../blobs").join(etag), path)
}

/// Without links that everybody may make, the contents are there twice.
#[cfg(not(unix))]
fn point(blob: &Path, path: &Path, _etag: &str) -> io::Result<()> {
    fs::copy(blob, path).map(|_bytes| ())
}
