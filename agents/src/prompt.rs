//! How a conversation is written for a model.
//!
//! A writer whose backbone brings a chat template is prompted as its authors meant it: the topic in the
//! system message, the query as the user's turn. Every other prompt is written as the plain lines that
//! `polylogue-tiny` was pretrained on: those of writers without a template, and those of agents that
//! classify or judge, of which only the last features are used.
//!
//! A query that is too long is cut at the end, so that the part which asks the question stays.

use crate::chat_template::{ChatTemplate, Message};
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
/// A chat template writes the special tokens itself, so none are added. Where it takes no system message,
/// the user's turn begins with what that would have said.
///
/// # Errors
/// When the text cannot be tokenized, or the chat template fails.
pub fn reply(tokenizer: &Tokenizer, query: &str, topic: &str) -> Result<Vec<u32>> {
    let query = clip(tokenizer, query)?;
    let Some(chat) = tokenizer.chat() else {
        return tokens(tokenizer, &format!("customer: {query}\ntopic: {}\nagent:", words(topic)));
    };
    let query = tokenizer.without_specials(&query)?;
    let task = tokenizer.without_specials(&instruction(topic))?;
    let turns = [Message::new("system", task.as_str()), Message::new("user", query.as_str())];
    let text = match chat.render(&turns, true) {
        Ok(text) => text,
        Err(first) => {
            let alone = [Message::new("user", format!("{task}\n\n{query}"))];
            chat.render(&alone, true).or(Err(first))?
        }
    };
    tokenizer.encode(&text)
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
/// When the text cannot be tokenized, or the chat template fails.
pub fn answer(tokenizer: &Tokenizer, answer: &str) -> Result<Vec<u32>> {
    let Some(chat) = tokenizer.chat() else {
        return tokenizer.encode(&format!(" {}\n", answer.trim()));
    };
    let mut tokens = tokenizer.encode(&tokenizer.without_specials(answer.trim())?)?;
    tokens.extend(end_of_turn(tokenizer, chat)?);
    Ok(tokens)
}

/// The tokens that end a reply, the usual one last: with a chat template those that end a turn, else the end
/// of the text or a new line.
///
/// # Errors
/// When the vocabulary cannot express a new line, or the chat template fails.
pub fn stops(tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut stops: Vec<u32> = tokenizer.end().into_iter().collect();
    let Some(chat) = tokenizer.chat() else {
        stops.extend(tokenizer.encode("\n")?.last());
        return Ok(stops);
    };
    for end in tokenizer.ends().iter().copied().chain(end_of_turn(tokenizer, chat)?) {
        stops.retain(|stop| *stop != end);
        stops.push(end);
    }
    Ok(stops)
}

/// Whether a writer can be prompted and told when to stop, found out with a short sample: a chat template
/// is foreign code that can fail.
///
/// # Errors
/// As [`reply`], [`answer`] and [`stops`].
pub fn check_writer(tokenizer: &Tokenizer) -> Result<()> {
    reply(tokenizer, "Where is my bag?", "lost_baggage")?;
    answer(tokenizer, "It is here.")?;
    stops(tokenizer).map(|_| ())
}

/// A label as words: `lost_baggage` is `lost baggage`.
#[must_use]
pub fn words(label: &str) -> String {
    label.replace(['_', '-'], " ").trim().to_lowercase()
}

/// The system message of a writer.
fn instruction(topic: &str) -> String {
    let topic = match words(topic) {
        topic if topic.is_empty() => topic,
        topic => format!(" The topic is: {topic}."),
    };
    format!("You answer customers.{topic} Reply in one short sentence.")
}

/// The token with which a chat template ends what an assistant said: of those that end a turn, the first
/// that it writes. None where it writes none.
fn end_of_turn(tokenizer: &Tokenizer, chat: &ChatTemplate) -> Result<Option<u32>> {
    const SAID: &str = "Certainly.";
    let turns = [Message::new("user", "Hello."), Message::new("assistant", SAID)];
    let text = chat.render(&turns, false)?;
    let after = text.rsplit_once(SAID).map_or("", |(_, after)| after);
    let ends = |token: &u32| tokenizer.ends().contains(token);
    Ok(tokenizer.encode(after)?.into_iter().find(ends).or(tokenizer.end()))
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
