//! The texts that `polylogue-tiny` is pretrained on: an endless, seeded stream of documents.
//!
//! Customer conversations of the source domain (retail orders), stories and question answering come from
//! grammars written by the authors; arithmetic is computed. Nothing of the target domain is in it.

pub mod arithmetic;
pub mod dialogue;
pub mod grammar;
pub mod typing;

use agents::seed::{Seed, Stream};
use rand::Rng;

use self::dialogue::Dialogues;
use self::grammar::{Grammar, GrammarError};

/// One source of documents.
#[derive(Debug)]
enum Source {
    /// A grammar's rule `document`.
    Document(Grammar),
    /// Conversations about a grammar's topics.
    Dialogue(Dialogues),
    /// Computed sums.
    Arithmetic,
}

/// A mixture of sources.
#[derive(Debug, Default)]
pub struct Corpus {
    sources: Vec<(f64, Source)>,
}

impl Corpus {
    /// Adds a grammar with the given share; one with topics becomes conversations.
    ///
    /// # Errors
    /// When the grammar is malformed.
    pub fn add_grammar(&mut self, name: &str, toml: &str, share: f64) -> Result<(), GrammarError> {
        let grammar = Grammar::parse(name, toml)?;
        let source = if grammar.topics().is_empty() {
            Source::Document(grammar)
        } else {
            Source::Dialogue(Dialogues::new(grammar))
        };
        self.sources.push((share, source));
        Ok(())
    }

    /// Adds computed arithmetic with the given share.
    pub fn add_arithmetic(&mut self, share: f64) {
        self.sources.push((share, Source::Arithmetic));
    }

    /// The endless stream of documents that belongs to `seed`.
    pub fn documents(&self, seed: Seed) -> impl Iterator<Item = String> + Send + '_ {
        (0_u64..).map(move |index| self.document(&mut seed.index(index).stream()))
    }

    fn document(&self, stream: &mut Stream) -> String {
        let total: f64 = self.sources.iter().map(|(share, _)| share).sum();
        let mut at = stream.random_range(0.0..total.max(f64::MIN_POSITIVE));
        for (share, source) in &self.sources {
            if at < *share {
                return match source {
                    Source::Document(grammar) => grammar.document(stream),
                    Source::Dialogue(dialogues) => dialogues.document(stream),
                    Source::Arithmetic => arithmetic::document(stream),
                };
            }
            at -= share;
        }
        String::new()
    }
}
