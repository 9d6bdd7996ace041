//! Why something cannot be done with an adapter, each with a way out.
//!
//! Only says so; what follows from it is up to the caller. Names out of files cannot move a terminal's cursor.

use std::path::Path;

use agents::error::ModelError;
use miette::Diagnostic;

use crate::backbone::sources;
use crate::scenario::suggestion::{message, quote};

/// A failure of `polylogue adapter`.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum AdapterError {
    /// Settings that make no sense.
    #[error("{}", message(what))]
    Setting {
        /// What is wrong.
        what: String,
        /// The way out.
        #[help]
        help: String,
    },
    /// A model that cannot be used.
    #[error("model {model}: {}", message(error))]
    #[diagnostic(help("{}", sources()))]
    Model {
        /// What was named.
        model: String,
        /// Why.
        error: ModelError,
    },
    /// An adapter that cannot be used.
    #[error("adapter {path}: {}", message(error))]
    #[diagnostic(help(
        "name the folder that holds adapter_config.json and adapter_model.safetensors, and with --model \
         the model that it was trained on"
    ))]
    Adapter {
        /// Its folder.
        path: String,
        /// Why.
        error: ModelError,
    },
    /// Adapters that do not go together.
    #[error("{}", message(.0))]
    #[diagnostic(help("`polylogue adapter show DIR` tells method, rank and targets of each"))]
    Combination(ModelError),
    /// The result cannot be written.
    #[error("could not write {path}: {}", message(error))]
    #[diagnostic(help("name another folder with --out"))]
    Output {
        /// The folder.
        path: String,
        /// Why.
        error: ModelError,
    },
}

impl AdapterError {
    /// Whether the cause is what the user gave us rather than what happened then.
    #[must_use]
    pub fn is_input(&self) -> bool {
        match self {
            Self::Output { .. } => false,
            Self::Model { error, .. } => error.is_input(),
            _ => true,
        }
    }

    /// Settings that make no sense.
    pub fn setting(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Setting { what: what.into(), help: help.into() }
    }

    pub(super) fn model(model: &str, error: ModelError) -> Self {
        Self::Model { model: quote(model), error }
    }

    pub(super) fn adapter(path: &Path, error: ModelError) -> Self {
        Self::Adapter { path: quote(&path.to_string_lossy()), error }
    }

    pub(super) fn output(path: &Path, error: ModelError) -> Self {
        Self::Output { path: quote(&path.to_string_lossy()), error }
    }
}
