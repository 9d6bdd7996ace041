//! What can go wrong with models: each error says what was expected, what was found, and where.

use std::path::PathBuf;

use crate::device::DeviceKind;
use crate::hub::HubError;

/// A failure of loading, running or training a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    // ---- files ----
    /// A file could not be read or written.
    #[error("could not open {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{path} is not a valid {what}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should have been.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Weights are there only as a pickle.
    #[error(
        "{path} is a pickle file, which can run code when it is read; convert it to safetensors where you \
         trust it: load it with transformers and call save_pretrained(folder, safe_serialization=True)"
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A model of the hub could not be fetched.
    #[error(transparent)]
    Hub(Box<HubError>),
    // ---- weights ----
    /// A weight is missing from a checkpoint.
    #[error("weight `{name}` is missing")]
    MissingWeight {
        /// The tensor's name in the checkpoint.
        name: String,
    },
    /// A weight has another shape than the configuration says.
    #[error("weight `{name}` has shape {found:?}, the configuration says {expected:?}")]
    WeightShape {
        /// The tensor's name in the checkpoint.
        name: String,
        /// The shape according to the configuration.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A weight holds a value that is not a number.
    #[error("weight `{name}` holds values that are not finite")]
    WeightNotFinite {
        /// The tensor's name in the checkpoint.
        name: String,
    },
    /// The architecture is not one of ours.
    #[error("architecture `{found}` is not supported; supported: {supported}")]
    Architecture {
        /// What the configuration names.
        found: String,
        /// What can be loaded.
        supported: String,
    },
    /// A weight that must be plain is quantised.
    #[error("weight `{name}` is quantised; norms, biases and tables must be plain")]
    Quantized {
        /// The tensor's name.
        name: String,
    },
    // ---- adapters ----
    /// A target names no linear map of the backbone.
    #[error("target `{target}` is no linear map of {family}; it has {known}, or all-linear")]
    Target {
        /// What was asked for.
        target: String,
        /// The backbone's family.
        family: &'static str,
        /// What there is.
        known: String,
    },
    /// A rank that makes no sense for a map.
    #[error("rank {rank} does not fit `{path}`: it may be 1 to {largest}")]
    Rank {
        /// What was asked for.
        rank: usize,
        /// The map.
        path: String,
        /// The smaller side of its matrix.
        largest: usize,
    },
    /// An adapter file holds a tensor that its configuration does not explain.
    #[error("tensor `{name}` of the adapter belongs to nothing that its configuration names")]
    UnknownWeight {
        /// The tensor's name.
        name: String,
    },
    /// Adapters or an adapter and a backbone that cannot be made one.
    #[error("cannot {doing}: {reason}")]
    Incompatible {
        /// What was asked for.
        doing: &'static str,
        /// What stands against it.
        reason: String,
    },
    // ---- use ----
    /// A device cannot be used.
    #[error("cannot use the device {device}: {reason}")]
    Device {
        /// Which was asked for.
        device: DeviceKind,
        /// Why, and what would help.
        reason: String,
    },
    /// A text has more tokens than the model can read.
    #[error("{found} tokens are more than the context of {limit}")]
    TooLong {
        /// How many tokens there are.
        found: usize,
        /// How many fit.
        limit: usize,
    },
    /// A number or a choice makes no sense.
    #[error("{what} is {found}, expected {expected}")]
    Setting {
        /// What was set.
        what: &'static str,
        /// What it was set to.
        found: String,
        /// What it can be.
        expected: &'static str,
    },
    /// Training data is unusable.
    #[error("cannot train: {0}")]
    Examples(String),
    /// Gradients would be wrong: caught before the first step.
    #[error("gradient audit failed: {0}")]
    GradientAudit(String),
    /// Training left the region of finite numbers.
    #[error("training diverged at step {step}: {reason}")]
    Diverged {
        /// The step whose result was refused.
        step: usize,
        /// What was not finite.
        reason: &'static str,
    },
    /// A request was taken back before it was answered.
    #[error("the request was cancelled")]
    Cancelled,
    /// More is asked of the engine than it keeps on its list.
    #[error("the engine has {bound} requests waiting; ask again later")]
    EngineBusy {
        /// How many it keeps.
        bound: usize,
    },
    /// A step of the engine failed.
    #[error("the engine could not go on with a text: {0}")]
    Step(String),
    /// One text alone is longer than the cache may become.
    #[error(
        "a text needs {needed} bytes of keys and values, the budget is {budget}; lower max_tokens or raise \
         the budget"
    )]
    CacheTooSmall {
        /// What it takes at most.
        needed: u64,
        /// What there is.
        budget: u64,
    },
    /// A run would not fit into memory.
    #[error("it needs {needed}, and {available} are free; try {advice}")]
    Memory {
        /// The figures.
        needed: String,
        /// What there is.
        available: String,
        /// What would help most.
        advice: &'static str,
    },
    /// Training went further than its guard allows.
    #[error("guarded at step {step}: {what} is {found:.1}, more than {limit}")]
    Guarded {
        /// What was measured.
        what: &'static str,
        /// At which step.
        step: usize,
        /// The value.
        found: f64,
        /// The largest value that is allowed.
        limit: f64,
    },
    /// The engine's thread has ended.
    #[error("the engine has stopped")]
    EngineStopped,
    /// The device has no memory left for a request.
    #[error("the engine's memory is exhausted")]
    OutOfMemory,
    /// A model's answer that means nothing.
    #[error("malformed answer: {0}")]
    MalformedAnswer(String),
    /// Tokenizing failed.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A chat template is not one that can be read, or refuses a conversation.
    #[error("chat template: {0}")]
    ChatTemplate(String),
    /// A tensor operation failed.
    #[error("tensor operation: {}", bare(.0))]
    Tensor(#[from] candle_core::Error),
}

/// A tensor error without where in a program it arose: that differs from build to build, and what is said here
/// goes into recordings.
pub(crate) fn bare(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => bare(inner),
        candle_core::Error::Context { inner, context } => format!("{context}: {}", bare(inner)),
        candle_core::Error::WithPath { inner, path } => {
            format!("{}: {}", path.display(), bare(inner))
        }
        error => error.to_string(),
    }
}

impl ModelError {
    /// Whether the cause is the model that was asked for rather than the network or the disk at that moment.
    #[must_use]
    pub fn is_input(&self) -> bool {
        match self {
            Self::Hub(error) => error.is_input(),
            _ => true,
        }
    }
}

impl From<HubError> for ModelError {
    fn from(error: HubError) -> Self {
        Self::Hub(Box::new(error))
    }
}

/// The result of this crate's functions.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_error_does_not_say_where_in_a_program_it_arose() {
        let error = candle_core::Error::Msg("a matter".to_owned());
        let traced = candle_core::Error::WithBacktrace {
            inner: Box::new(error),
            backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
        };
        assert_eq!(ModelError::Tensor(traced).to_string(), "tensor operation: a matter");
    }
}
