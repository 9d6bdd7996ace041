//! How knowledge first gets from a few demonstrations into an agent's own weights.
//!
//! Feature-based: a classifier on frozen features. Parameter-based: low-rank updates trained on replies.
//! Freeze, add a layer, fine-tune: upper layers and a new head. Each turns the same demonstrations into
//! the examples that its kind of adapter learns from; the learning itself is in [`crate::learning`].

use crate::error::Result;
use crate::learning::objective::TextExample;
use crate::learning::objective::supervised::ClassExample;
use crate::prompt;
use crate::prompt::provenance::Words;
use crate::tokenizer::Tokenizer;

/// A query that somebody answered well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demonstration {
    /// The query.
    pub query: String,
    /// Its intent, as an index into the labels.
    pub intent: usize,
    /// The intent's name.
    pub topic: String,
    /// A reply that resolves it.
    pub reply: String,
    /// A reply to something else.
    pub wrong: String,
}

/// Classes of an evaluator, in the order of its outputs.
pub const VERDICTS: [&str; 2] = ["unresolved", "resolved"];

/// Feature-based transfer: the query, and its intent.
///
/// # Errors
/// When a text cannot be tokenized.
pub fn intent_examples(
    tokenizer: &Tokenizer,
    demonstrations: &[Demonstration],
) -> Result<Vec<ClassExample>> {
    demonstrations
        .iter()
        .map(|demonstration| {
            let prompt = prompt::understand(tokenizer, Words::of_task(&demonstration.query))?;
            let tokens = prompt.into_tokens();
            Ok(ClassExample { tokens, label: demonstration.intent })
        })
        .collect()
}

/// Parameter-based transfer: the query with its topic, and the reply.
///
/// # Errors
/// When a text cannot be tokenized.
pub fn reply_examples(
    tokenizer: &Tokenizer,
    demonstrations: &[Demonstration],
) -> Result<Vec<TextExample>> {
    demonstrations
        .iter()
        .map(|demonstration| {
            let Demonstration { query, topic, .. } = demonstration;
            let (query, topic) = (Words::of_task(query), Words::of_task(topic));
            let prompt = prompt::reply(tokenizer, query, Some(topic))?.into_tokens();
            let reply = prompt::answer(tokenizer, &demonstration.reply)?;
            Ok(TextExample { prompt, reply })
        })
        .collect()
}

/// A new head over unfrozen layers: the query with a right and with a wrong reply.
///
/// # Errors
/// When a text cannot be tokenized.
pub fn verdict_examples(
    tokenizer: &Tokenizer,
    demonstrations: &[Demonstration],
) -> Result<Vec<ClassExample>> {
    let mut examples = Vec::with_capacity(2 * demonstrations.len());
    for demonstration in demonstrations {
        for (reply, label) in [(&demonstration.reply, 1), (&demonstration.wrong, 0)] {
            let [query, topic, reply] = [&demonstration.query, &demonstration.topic, reply]
                .map(|text| Words::of_task(text));
            let prompt = prompt::evaluate(tokenizer, query, Some(topic), Some(reply))?;
            examples.push(ClassExample { tokens: prompt.into_tokens(), label });
        }
    }
    Ok(examples)
}
