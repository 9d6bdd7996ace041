//! Words on their way through a society: what was said, with whose it is.
//!
//! In events whose words they are is told by `from`; here it goes along, so that prompts can be made of them.

use std::ops::Deref;
use std::sync::Arc;

use agents::prompt::provenance::Origin;
use serde::{Deserialize, Serialize};

use super::Said;

/// What was said, and whose words they are; shared by all who heard it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Uttered", into = "Uttered")]
pub struct Spoken(Arc<Uttered>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Uttered {
    origin: Origin,
    said: Said,
}

impl Spoken {
    /// What somebody said.
    #[must_use]
    pub fn new(origin: Origin, said: Said) -> Self {
        Self(Arc::new(Uttered { origin, said }))
    }

    /// Whose words they are.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }
}

impl Deref for Spoken {
    type Target = Said;
    fn deref(&self) -> &Said {
        &self.0.said
    }
}

impl From<Uttered> for Spoken {
    fn from(uttered: Uttered) -> Self {
        Self(Arc::new(uttered))
    }
}

impl From<Spoken> for Uttered {
    fn from(spoken: Spoken) -> Self {
        Arc::unwrap_or_clone(spoken.0)
    }
}
