//! Randomness: every random stream of a run, derived from its seed and from what the stream is for.
//!
//! A stream is named by a path of words and numbers, so a draw never depends on what else is drawn,
//! on batch composition, or on thread timing. No other file may create a random generator.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The generator behind every stream: small, fast, and the same on every platform.
pub type Stream = ChaCha8Rng;

/// A node in the tree of seeds.
///
/// ```
/// use agents::seed::Seed;
/// let run = Seed::new(7);
/// assert_eq!(run.child("agent").index(3), run.child("agent").index(3));
/// assert_ne!(run.child("agent").index(3), run.child("agent").index(4));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The root seed of a run.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Sha256::digest(seed.to_le_bytes()).into())
    }

    /// The seed of a named part.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        self.derive(0, name.as_bytes())
    }

    /// The seed of a numbered part.
    #[must_use]
    pub fn index(&self, index: u64) -> Self {
        self.derive(1, &index.to_le_bytes())
    }

    /// The random stream at this node.
    #[must_use]
    pub fn stream(&self) -> Stream {
        ChaCha8Rng::from_seed(self.0)
    }

    fn derive(&self, kind: u8, part: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update([kind]);
        hash.update(part);
        Self(hash.finalize().into())
    }
}
