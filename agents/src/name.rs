//! Names that people give to agents.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of an agent: 1 to 32 characters of `a-z`, `0-9`, `_` and `-`, starting with a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentName(Arc<str>);

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: use 1 to 32 of a-z, 0-9, `_` and `-`, starting with a letter")]
pub struct InvalidName(pub String);

impl AgentName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// When the text is not a name.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let mut letters = text.chars();
        let starts_well = letters.next().is_some_and(|c| c.is_ascii_lowercase());
        let goes_on_well =
            letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
        if starts_well && goes_on_well && text.len() <= 32 {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName(text.to_owned()))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for AgentName {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::new(&text)
    }
}

impl From<AgentName> for String {
    fn from(name: AgentName) -> Self {
        name.0.as_ref().to_owned()
    }
}
