//! Why a tuning cannot begin or go on, each with a way out.
//!
//! Only says so; what follows from it is up to the caller.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agents::error::ModelError;
use miette::{Diagnostic, NamedSource, SourceSpan};

use crate::scenario::suggestion::{harmless, message, quote};

/// A failure of `polylogue tune`.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum TuneError {
    /// A file cannot be read.
    #[error("could not read {}", message(format_args!("{}: {reason}", path.display())))]
    #[diagnostic(help("check the path and whether you may read it"))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The recipe is not one.
    #[error("{reason}")]
    #[diagnostic(help("docs/tuning.md lists every key of a recipe"))]
    Recipe {
        /// What is wrong.
        reason: String,
        /// The text.
        #[source_code]
        text: Arc<NamedSource<String>>,
        /// Where.
        #[label("here")]
        at: SourceSpan,
    },
    /// Settings that do not make a tuning.
    #[error("{}", message(what))]
    Setting {
        /// What is wrong.
        what: String,
        /// The way out.
        #[help]
        help: String,
    },
    /// Data that cannot be used.
    #[error("{}", message(format_args!("{}, line {line}: {reason}", path.display())))]
    #[diagnostic(help("correct the line or remove it"))]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A device that cannot be used.
    #[error("{}", message(.0))]
    Device(ModelError),
    /// A model that cannot be used, or does not suit the method.
    #[error("model {model}: {}", message(error))]
    Model {
        /// What was named.
        model: String,
        /// Why.
        error: ModelError,
    },
    /// The training failed.
    #[error("training failed: {}", message(.0))]
    #[diagnostic(help("a lower --learning-rate often helps"))]
    Training(ModelError),
    /// Results cannot be written.
    #[error("could not write {}", message(format_args!("{}: {reason}", path.display())))]
    #[diagnostic(help("name another folder with --out"))]
    Output {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

impl TuneError {
    /// Whether the cause is what the user gave us rather than what happened then.
    #[must_use]
    pub fn is_input(&self) -> bool {
        match self {
            Self::Training(_) | Self::Output { .. } => false,
            Self::Model { error, .. } => error.is_input(),
            _ => true,
        }
    }

    pub(super) fn recipe(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let name = path.display().to_string();
        let reason = error.message().trim().replace('\n', " ");
        let reason = format!("the recipe has a mistake: {}", message(&reason));
        let at = error.span().unwrap_or_default().into();
        Self::Recipe { reason, text: Arc::new(NamedSource::new(name, harmless(text))), at }
    }

    pub(super) fn setting(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Setting { what: what.into(), help: help.into() }
    }

    pub(super) fn model(model: &str, error: ModelError) -> Self {
        Self::Model { model: quote(model), error }
    }
}
