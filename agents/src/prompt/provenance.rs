//! Whose words stand in a prompt.
//!
//! A prompt takes a text in two ways only: its own words are written in the program (`&'static str`), and all
//! others are [`Words`], which cannot be made without saying whose they are. So no text of another agent gets
//! into a prompt without its name. What a chat template writes around the parts is not a part.

use serde::{Deserialize, Serialize};

use crate::name::AgentName;

/// Whose words something is, where they are not the program's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The task's: what a customer says, or a label of its data.
    Task,
    /// Another agent's, as they were delivered.
    Agent(AgentName),
    /// The prompted agent's own, from before.
    Memory,
}

/// Words that were kept, with whose they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// Whose they are.
    pub origin: Origin,
    /// What was said.
    pub text: String,
}

/// A text for a prompt that is not the prompt's own, with whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words<'a> {
    origin: &'a Origin,
    text: &'a str,
}

impl<'a> Words<'a> {
    /// Words of the task.
    #[must_use]
    pub fn of_task(text: &'a str) -> Self {
        Self { origin: &Origin::Task, text }
    }

    /// Words of somebody.
    #[must_use]
    pub fn of(origin: &'a Origin, text: &'a str) -> Self {
        Self { origin, text }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }
}

impl<'a> From<&'a Quote> for Words<'a> {
    fn from(quote: &'a Quote) -> Self {
        Self { origin: &quote.origin, text: &quote.text }
    }
}

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whose words it is; none for the prompt's own, which frame the rest.
    pub origin: Option<Origin>,
    /// The words as the model reads them: in one line, cut, and without what passes for special tokens.
    pub text: String,
}

/// What a model is asked, and whose words that is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    tokens: Vec<u32>,
    parts: Vec<Part>,
}

impl Prompt {
    /// The parts, in their order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The tokens.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tokens alone.
    #[must_use]
    pub fn into_tokens(self) -> Vec<u32> {
        self.tokens
    }
}

/// A text that is put together from parts.
#[derive(Debug, Default)]
pub(super) struct Draft {
    parts: Vec<Part>,
}

impl Draft {
    /// Adds words of the program's.
    pub(super) fn own(mut self, text: &'static str) -> Self {
        self.parts.push(Part { origin: None, text: text.to_owned() });
        self
    }

    /// Adds somebody's words, made harmless; none where there are none.
    pub(super) fn words(mut self, words: Option<Words<'_>>, harmless: String) -> Self {
        let part = |words: Words<'_>| Part { origin: Some(words.origin.clone()), text: harmless };
        self.parts.extend(words.map(part));
        self
    }

    /// Adds the parts of another.
    pub(super) fn then(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// The text of all parts.
    pub(super) fn text(&self) -> String {
        self.parts.iter().map(|part| part.text.as_str()).collect()
    }

    /// The prompt that is read as these tokens.
    pub(super) fn read_as(self, tokens: Vec<u32>) -> Prompt {
        Prompt { tokens, parts: self.parts }
    }
}
