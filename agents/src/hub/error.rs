//! What can go wrong between the hub, the cache and us, each with what to do about it.

use std::path::PathBuf;

/// A failure of fetching a model. Names that a server gave are shown escaped.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    // ---- what was typed ----
    /// Not the name of a model.
    #[error(
        "{typed:?} names no model of the hub: {reason}; write owner/name or owner/name@revision, such as \
         HuggingFaceTB/SmolLM2-135M@main"
    )]
    Name {
        /// What was typed.
        typed: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An address that is not asked.
    #[error(
        "HF_ENDPOINT is {endpoint:?}, which {reason}; unset it, or write an address such as \
         https://huggingface.co"
    )]
    Endpoint {
        /// What was set.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A token that fits into no request.
    #[error("the token in HF_TOKEN or its file holds characters that no token has; copy it anew")]
    Token,
    // ---- the cache ----
    /// No folder is known.
    #[error("there is no folder to keep models in: set HF_HOME to one")]
    NoCache,
    /// Offline and not there.
    #[error(
        "{model} is not complete in the cache {cache} ({missing} missing), and HF_HUB_OFFLINE is set: run \
         once without it where there is a network, or copy the folder {folder} from a cache that has it"
    )]
    NotCached {
        /// The model.
        model: String,
        /// The cache.
        cache: PathBuf,
        /// What is missing.
        missing: String,
        /// The model's folder in the cache.
        folder: String,
    },
    /// The cache cannot be read or written.
    #[error("could not use {path} in the cache of models: {source}; HF_HOME names another place")]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    // ---- the repository ----
    /// A file that a backbone needs is not there.
    #[error("{model} has no {file}: {advice}")]
    MissingFile {
        /// The model.
        model: String,
        /// The file.
        file: &'static str,
        /// What to do.
        advice: String,
    },
    /// Weights are there only as a pickle.
    #[error(
        "{model} has its weights only in {file}, a pickle file, which can run code when it is read and is \
         never fetched; name a revision or a repository with model.safetensors, or convert it where you \
         trust it (load it with transformers and call save_pretrained(folder, safe_serialization=True)) and \
         name the folder with `path`"
    )]
    Pickle {
        /// The model.
        model: String,
        /// The file.
        file: String,
    },
    /// A file that is larger than it can sensibly be.
    #[error("{file:?} has {size} bytes on the hub, more than the {limit} that are fetched")]
    TooLarge {
        /// The file.
        file: String,
        /// Its length in bytes.
        size: u64,
        /// The most that is fetched.
        limit: u64,
    },
    // ---- the server ----
    /// No answer.
    #[error(
        "could not reach {host}: {reason}; if the model is in the cache already, set HF_HUB_OFFLINE=1"
    )]
    Unreachable {
        /// Whom we asked.
        host: String,
        /// What went wrong.
        reason: String,
    },
    /// The server does not let us.
    #[error("{endpoint} refuses {model} (status {status}): {advice}")]
    Refused {
        /// Whom we asked.
        endpoint: String,
        /// For what.
        model: String,
        /// The status of the answer.
        status: u16,
        /// What to do.
        advice: String,
    },
    /// There is no such thing.
    #[error("{endpoint} has no {what}: check the spelling; for a private model set HF_TOKEN")]
    NotFound {
        /// Whom we asked.
        endpoint: String,
        /// For what.
        what: String,
    },
    /// Another status.
    #[error("{host} answers with status {status} when asked for {path}; try again later")]
    Status {
        /// Whom we asked.
        host: String,
        /// For what.
        path: String,
        /// The status.
        status: u16,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects to {target:?}, which {reason}; it is not followed")]
    Redirect {
        /// Who redirects.
        host: String,
        /// Where to.
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// An answer that makes no sense.
    #[error("the hub's {what} makes no sense: {reason}")]
    Malformed {
        /// What it should have been.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    // ---- downloads ----
    /// A download that broke off.
    #[error(
        "the download of {file} broke off after {done} of {size} bytes ({reason}); what came is kept: run \
         the same command again and it goes on from there"
    )]
    Interrupted {
        /// The file.
        file: String,
        /// Bytes that are there.
        done: u64,
        /// Its length.
        size: u64,
        /// What went wrong.
        reason: String,
    },
    /// A file of another length than declared.
    #[error(
        "{file} should have {expected} bytes, but the server sends more; what came was deleted: run the \
         same command again"
    )]
    TooLong {
        /// The file.
        file: String,
        /// The declared length.
        expected: u64,
    },
    /// A file of other contents than declared.
    #[error(
        "{file} arrived with SHA-256 {found}, but the hub declares {expected}; it was deleted: run the same \
         command again"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// The declared digest.
        expected: String,
        /// The digest of what came.
        found: String,
    },
}

impl HubError {
    /// Whether the cause is what was asked for, such as a name that the hub does not know, rather than the
    /// network, the server or the disk at that moment.
    #[must_use]
    pub fn is_input(&self) -> bool {
        !matches!(
            self,
            Self::Unreachable { .. }
                | Self::Status { .. }
                | Self::Interrupted { .. }
                | Self::TooLong { .. }
                | Self::Corrupt { .. }
                | Self::Cache { .. }
        )
    }
}
