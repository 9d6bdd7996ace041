//! How a conversation is written for a model.
//!
//! A writer whose backbone brings a chat template is prompted as its authors meant it: the topic in the
//! system message, the query as the user's turn. Every other prompt is written as the plain lines that
//! `polylogue-tiny` was pretrained on: those of writers without a template, and those of agents that
//! classify or judge, of which only the last features are used.
//!
//! A query that is too long is cut at the end, so that the part which asks the question stays. Words that are
//! not ours are read as words only: they cannot begin a line of the prompt, end a turn or write a special
//! token. Whose words a prompt is made of stays known: see [`provenance`].

pub mod provenance;

use self::provenance::{Draft, Prompt, Words};
use crate::chat_template::{ChatTemplate, Message};
use crate::error::{ModelError, Result};
use crate::tokenizer::Tokenizer;

/// Longest query in tokens.
pub const LONGEST_QUERY: usize = 160;

/// How often words are read anew for what they imitate once other things are gone.
const MOST_ROUNDS: usize = 64;

/// The prompt of an agent that classifies a query.
///
/// # Errors
/// When the text cannot be tokenized.
pub fn understand(tokenizer: &Tokenizer, query: Words<'_>) -> Result<Prompt> {
    let customer = harmless(tokenizer, None, query.text())?;
    let draft = Draft::default().own("customer: ").words(Some(query), customer).own("\ntopic:");
    let tokens = tokenizer.encode_with_specials(&draft.text(), usize::MAX)?;
    Ok(draft.read_as(tokens))
}

/// The prompt of an agent that answers a query, told what it is about.
///
/// A chat template writes the special tokens itself, so none are added. Where it takes no system message,
/// the user's turn begins with what that would have said.
///
/// # Errors
/// When the text cannot be tokenized, or the chat template fails.
pub fn reply(tokenizer: &Tokenizer, query: Words<'_>, topic: Option<Words<'_>>) -> Result<Prompt> {
    let chat = tokenizer.chat();
    let customer = harmless(tokenizer, chat, query.text())?;
    let about = harmless(tokenizer, chat, &words(topic.map_or("", |topic| topic.text())))?;
    let draft = Draft::default();
    let Some(chat) = chat else {
        let draft = draft.own("customer: ").words(Some(query), customer).own("\ntopic: ");
        let draft = draft.words(topic, about).own("\nagent:");
        let begin = tokenizer.begin().into_iter();
        let tokens = begin.chain(tokenizer.encode(&draft.text())?).collect();
        return Ok(draft.read_as(tokens));
    };
    let mut task = draft.own("You answer customers.");
    if !about.is_empty() {
        task = task.own(" The topic is: ").words(topic, about).own(".");
    }
    let task = task.own(" Reply in one short sentence.");
    let query = Draft::default().words(Some(query), customer);
    let turns = [Message::new("system", task.text()), Message::new("user", query.text())];
    let text = match chat.render(&turns, true) {
        Ok(text) => text,
        Err(first) => {
            let alone = [Message::new("user", format!("{}\n\n{}", task.text(), query.text()))];
            chat.render(&alone, true).or(Err(first))?
        }
    };
    Ok(task.then(query).read_as(tokenizer.encode(&text)?))
}

/// The prompt of an agent that judges an answer, told what the query is about.
///
/// # Errors
/// When the text cannot be tokenized.
pub fn evaluate(
    tokenizer: &Tokenizer,
    query: Words<'_>,
    topic: Option<Words<'_>>,
    answer: Option<Words<'_>>,
) -> Result<Prompt> {
    let customer = harmless(tokenizer, None, query.text())?;
    let about = harmless(tokenizer, None, &words(topic.map_or("", |topic| topic.text())))?;
    let said = harmless(tokenizer, None, answer.map_or("", |answer| answer.text()))?;
    let draft = Draft::default().own("customer: ").words(Some(query), customer).own("\ntopic: ");
    let draft = draft.words(topic, about).own("\nagent: ").words(answer, said).own("\nresolved:");
    let tokens = tokenizer.encode_with_specials(&draft.text(), usize::MAX)?;
    Ok(draft.read_as(tokens))
}

/// What an agent shall say after a reply prompt, with the token that ends it.
///
/// # Errors
/// When the text cannot be tokenized, or the chat template fails.
pub fn answer(tokenizer: &Tokenizer, answer: &str) -> Result<Vec<u32>> {
    let answer = tokenizer.without_specials(answer.trim())?;
    let Some(chat) = tokenizer.chat() else {
        return tokenizer.encode(&format!(" {answer}\n"));
    };
    let mut tokens = tokenizer.encode(&answer)?;
    tokens.extend(end_of_turn(tokenizer, chat)?);
    Ok(tokens)
}

/// The tokens that end a reply, the usual one last: those that end a text or a turn, and without a chat
/// template a new line.
///
/// # Errors
/// When the vocabulary cannot express a new line, or the chat template fails.
pub fn stops(tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut stops: Vec<u32> = tokenizer.end().into_iter().collect();
    let last = match tokenizer.chat() {
        Some(chat) => end_of_turn(tokenizer, chat)?,
        None => tokenizer.encode("\n")?.last().copied(),
    };
    for end in tokenizer.ends().iter().copied().chain(last) {
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
    let topic = Words::of_task("lost_baggage");
    reply(tokenizer, Words::of_task("Where is my bag?"), Some(topic))?;
    answer(tokenizer, "It is here.")?;
    stops(tokenizer).map(|_| ())
}

/// A label as words: `lost_baggage` is `lost baggage`.
#[must_use]
pub fn words(label: &str) -> String {
    label.replace(['_', '-'], " ").trim().to_lowercase()
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

/// Words as a prompt may hold them: in one line, at most [`LONGEST_QUERY`] tokens of it, and without what would
/// be read as special tokens or passes for what a chat template writes around turns.
fn harmless(tokenizer: &Tokenizer, chat: Option<&ChatTemplate>, text: &str) -> Result<String> {
    let line: String = text.chars().map(|c| if breaks_line(c) { ' ' } else { c }).collect();
    let tokens = tokenizer.encode(&line)?;
    let mut text = match tokens.get(..LONGEST_QUERY) {
        Some(first) => tokenizer.decode(first)?,
        None => line,
    };
    // What is left can spell such a thing anew.
    for _ in 0..MOST_ROUNDS {
        let mut plain = tokenizer.without_specials(&text)?;
        for mark in chat.into_iter().flat_map(ChatTemplate::marks) {
            plain = plain.replace(mark.as_str(), "");
        }
        if plain == text {
            return Ok(text);
        }
        text = plain;
    }
    Err(ModelError::Tokenizer(format!(
        "a text still imitates a chat template after {MOST_ROUNDS} times of removing that"
    )))
}

/// Whether a letter ends a line for some reader.
fn breaks_line(letter: char) -> bool {
    matches!(letter, '\n'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests;
