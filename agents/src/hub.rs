//! Models from the Hugging Face hub: what a backbone needs of a repository, fetched into the standard cache.
//!
//! The cache is the one that `huggingface_hub` and `hf-hub` use (`models--owner--name/{blobs,refs,snapshots}`),
//! so what other tools fetched is used here and the other way round. Its layout and the hub's addresses come
//! from the crate `hf-hub`. The requests are our own, on `ureq`, which `hf-hub` uses too: its download does
//! not check the length of what came nor whether a server continued where it was asked to, starts nothing
//! anew when a file turns out wrong, and panics on a redirect without a target.
//!
//! Nothing that a server says becomes a path unchecked: only files of known names and plain shard names are
//! asked for. Pickle files are never fetched. A file gets its place in the cache when it is complete: as long
//! as declared, and of the declared SHA-256 where the hub names one (it does for everything large). What came
//! of a file before a connection broke is kept and continued. The token goes to the endpoint and nowhere else.

mod connection;
mod download;
mod error;
mod model;
mod selection;
mod settings;
mod store;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use self::connection::Connection;
use self::download::{Wanted, download};
pub use self::error::HubError;
pub use self::model::HubModel;
use self::selection::{INDEX, LARGEST_INDEX, Weights};
pub use self::settings::{HubSettings, Token};
use self::store::Store;
use crate::error::Result;

/// The largest list of a repository's files that is read, in bytes.
const LARGEST_LIST: u64 = 16 << 20;

/// What happens while a model is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Offline, and nobody knows whether the hub has this file, which may hold the chat template: the model is
    /// used without it.
    Lacks {
        /// The file's name.
        file: &'static str,
    },
    /// Another process is fetching the same file; we wait for it.
    Waiting {
        /// The file's name.
        file: String,
    },
    /// A file is being fetched.
    Began {
        /// The file's name.
        file: String,
        /// Its length in bytes.
        size: u64,
        /// Bytes that an earlier download left.
        done: u64,
    },
    /// More of it came.
    Advanced {
        /// Bytes that are there.
        done: u64,
    },
    /// It is complete and checked.
    Finished,
}

/// A repository at a revision, as the hub describes it.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Makes sure that a model is in the cache and says where: a folder, or a file for a GGUF model, that
/// [`crate::backbone::Backbone::load`] reads. Downloads only what is missing; nothing where a full commit is
/// named that is there, with `tokenizer_config.json` or the knowledge that the hub has none.
///
/// # Errors
/// When the model is not there or may not be read, the hub cannot be reached, a file is not what the hub
/// declares, or the cache cannot be written.
pub fn fetch(
    model: &HubModel,
    settings: &HubSettings,
    hear: &mut dyn FnMut(&Progress),
) -> Result<PathBuf> {
    let store = Store::new(model, settings)?;
    let in_doubt = model.file().is_none() && store.in_doubt(selection::CHAT);
    if settings.offline {
        let path = store.cached()?;
        if in_doubt {
            hear(&Progress::Lacks { file: selection::CHAT });
        }
        return Ok(path);
    }
    if model.is_commit()
        && !in_doubt
        && let Ok(path) = store.cached()
    {
        return Ok(path);
    }
    let connection = Connection::new(model, settings)?;
    let listing = listing(&connection, &store)?;
    let commit = listing.sha.as_str();
    let files: BTreeSet<&str> = listing.siblings.iter().map(|s| s.rfilename.as_str()).collect();
    let selection = selection::of(model, &files)?;
    let mut get = |file: &str, limit: u64| -> Result<()> {
        if store.has(commit, file) {
            return Ok(());
        }
        let path = store.resolve_path(commit, file);
        let described = connection.describe(&path, file, commit)?;
        if described.size > limit {
            let (file, size) = (file.to_owned(), described.size);
            return Err(HubError::TooLarge { file, size, limit }.into());
        }
        let wanted = Wanted { file, path: &path, described: &described };
        download(&connection, &store, &wanted, hear)?;
        Ok(store.link(commit, file, &described.etag)?)
    };
    for file in &selection.small {
        get(file, selection::LARGEST_SMALL)?;
    }
    match &selection.weights {
        Weights::One(file) => get(file, u64::MAX)?,
        Weights::Shards => {
            get(INDEX, LARGEST_INDEX)?;
            for shard in selection::shards(&store.snapshot(commit).join(INDEX), &files)? {
                get(&shard, u64::MAX)?;
            }
        }
    }
    if model.file().is_none() && !files.contains(selection::CHAT) {
        store.note_absent(commit, selection::CHAT)?;
    }
    store.remember(commit)?;
    Ok(store.entry(commit))
}

fn listing(connection: &Connection<'_>, store: &Store<'_>) -> Result<Listing, HubError> {
    let bytes = connection.read(&store.listing_path(), LARGEST_LIST)?;
    let malformed = |reason: String| HubError::Malformed { what: "list of files", reason };
    let listing: Listing = serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
    if !model::is_commit(&listing.sha) {
        let sha: String = listing.sha.chars().take(80).collect();
        return Err(malformed(format!("{sha:?} is not a commit")));
    }
    Ok(listing)
}
