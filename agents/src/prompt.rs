//! How a conversation is written for a model: the same plain lines as in pretraining.
//!
//! A query that is too long is cut at the end, so that the part which asks the question stays.

use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// Longest query in tokens.
pub const LONGEST_QUERY: usize = 160;

/// The prompt of an agent that classifies a query.
///
/// # Errors
/// When the text cannot be tokenized.
pub fn understand(tokenizer: &Tokenizer, query: &str) -> Result<Vec<u32>> {
    let query = clip(tokenizer, query)?;
    tokenizer.encode_with_specials(&format!("customer: {query}\ntopic:"), usize::MAX)
}

/// The prompt of an agent that answers a query, told what it is about.
///
/// # Errors
/// When the text cannot be tokenized.
pub fn reply(tokenizer: &Tokenizer, query: &str, topic: &str) -> Result<Vec<u32>> {
    let query = clip(tokenizer, query)?;
    tokens(tokenizer, &format!("customer: {query}\ntopic: {}\nagent:", words(topic)))
}

/// The prompt of an agent that judges an answer, told what the query is about.
///
/// # Errors
/// When the text cannot be tokenized.
pub fn evaluate(tokenizer: &Tokenizer, query: &str, topic: &str, answer: &str) -> Result<Vec<u32>> {
    let query = clip(tokenizer, query)?;
    let answer = clip(tokenizer, answer)?;
    let topic = words(topic);
    let text = format!("customer: {query}\ntopic: {topic}\nagent: {answer}\nresolved:");
    tokenizer.encode_with_specials(&text, usize::MAX)
}

/// What an agent shall say after a reply prompt, with the token that ends it.
///
/// # Errors
/// When the text cannot be tokenized.
pub fn answer(tokenizer: &Tokenizer, answer: &str) -> Result<Vec<u32>> {
    tokenizer.encode(&format!(" {}\n", answer.trim()))
}

/// The tokens that end a reply: a new line, or the end of the text.
///
/// # Errors
/// When the vocabulary cannot express a new line.
pub fn stops(tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut stops: Vec<u32> = tokenizer.end().into_iter().collect();
    stops.extend(tokenizer.encode("\n")?.last());
    Ok(stops)
}

/// A label as words: `lost_baggage` is `lost baggage`.
#[must_use]
pub fn words(label: &str) -> String {
    label.replace(['_', '-'], " ").trim().to_lowercase()
}

fn tokens(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let mut tokens: Vec<u32> = tokenizer.begin().into_iter().collect();
    tokens.extend(tokenizer.encode(text)?);
    Ok(tokens)
}

fn clip(tokenizer: &Tokenizer, text: &str) -> Result<String> {
    let line = text.replace(['\n', '\r'], " ");
    let tokens = tokenizer.encode(&line)?;
    match tokens.get(..LONGEST_QUERY) {
        Some(first) => tokenizer.decode(first),
        None => Ok(line),
    }
}
