//! Texts, one token after another: how a token is drawn, when a text ends, and several texts written at once.
//!
//! All text is written by a [`Session`]: what comes of a prompt depends on its own weights, settings and
//! random stream, and not on what is written beside it. [`write`] writes given prompts to their end; requests
//! that come and go are the business of the engine. Nothing here queues or trains.

use std::sync::Arc;

use crate::adapter::Adapter;
use crate::backbone::Backbone;
use crate::error::Result;
use crate::sampler::Filter;
use crate::seed::{Seed, Stream};
use crate::session::{Logits, Part, Pick, Session, Slot};

/// How the tokens of a text are drawn, and when it ends.
#[derive(Debug)]
pub struct Draw {
    /// Longest text in tokens.
    pub max_tokens: usize,
    /// 0 picks the likeliest token.
    pub temperature: f64,
    /// Which tokens may be drawn at all.
    pub filter: Filter,
    /// Tokens that end the text, not part of it.
    pub stop: Vec<u32>,
    /// The text's own random stream.
    pub stream: Box<Stream>,
}

impl Draw {
    /// The likeliest token again and again.
    #[must_use]
    pub fn likeliest(max_tokens: usize, stop: Vec<u32>) -> Self {
        let (filter, stream) = (Filter::default(), Box::new(Seed::new(0).stream()));
        Self { max_tokens, temperature: 0.0, filter, stop, stream }
    }
}

/// A text that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// The token that ended it; none where its length or its context ran out.
    pub stop: Option<u32>,
}

/// A text in progress.
#[derive(Debug)]
pub(crate) struct Draft {
    draw: Draw,
    tokens: Vec<u32>,
}

impl Draft {
    pub(crate) fn new(draw: Draw) -> Self {
        Self { draw, tokens: Vec::new() }
    }

    /// How the next token is drawn, from the logits of a part.
    fn pick(&mut self, part: usize) -> Pick<'_> {
        let Draw { temperature, filter, stream, .. } = &mut self.draw;
        Pick { part, temperature: *temperature, filter, stream }
    }

    /// Takes in a drawn token and gives it to be read; none where the text has ended.
    fn push(&mut self, token: u32) -> Option<u32> {
        let draw = &self.draw;
        if self.tokens.len() >= draw.max_tokens {
            return None;
        }
        self.tokens.push(token);
        let ends = draw.stop.contains(&token) || self.tokens.len() >= draw.max_tokens;
        (!ends).then_some(token)
    }

    /// The text as it is now.
    pub(crate) fn end(self) -> Text {
        let Self { draw, mut tokens } = self;
        let stop = tokens.pop_if(|last| draw.stop.contains(last));
        Text { tokens, stop }
    }
}

/// Draws the next token of each draft from the logits of its part; gives those to be read, none where a text
/// has ended.
///
/// # Errors
/// When a GPU fails.
pub(crate) fn extend<'a>(
    drafts: impl Iterator<Item = (&'a mut Draft, usize)>,
    logits: &Logits,
) -> Result<Vec<Option<u32>>> {
    let mut drafts: Vec<(&mut Draft, usize)> = drafts.collect();
    let picks = drafts.iter_mut().map(|(draft, part)| draft.pick(*part));
    let tokens = logits.draw(picks.collect())?;
    Ok(drafts.into_iter().zip(tokens).map(|((draft, _), token)| draft.push(token)).collect())
}

/// A prompt and how to go on with it.
#[derive(Debug)]
pub struct Row {
    /// Whose weights; the bare backbone where none.
    pub adapter: Option<Arc<Adapter>>,
    /// What to go on with.
    pub prompt: Vec<u32>,
    /// How.
    pub draw: Draw,
}

impl Row {
    /// Whether another one begins alike.
    fn shares_a_prompt(&self, other: &Self) -> bool {
        let address = |row: &Self| row.adapter.as_ref().map(Arc::as_ptr);
        address(self) == address(other) && self.prompt == other.prompt
    }
}

/// A text in progress, and where what it has read is.
struct Going<'a> {
    slot: Slot,
    next: u32,
    draft: &'a mut Draft,
}

/// Writes the texts of all rows, in their order. Neighbours with the same weights and prompt share reading it.
///
/// # Errors
/// When the backbone cannot write, or a prompt is empty or too long.
pub fn write(backbone: &Arc<Backbone>, rows: Vec<Row>) -> Result<Vec<Text>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut session = Session::new(Arc::clone(backbone))?;
    // Which of the prompts, that are all different, each row has.
    let (mut slots, mut prompts, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for (index, row) in rows.iter().enumerate() {
        if index == 0 || !row.shares_a_prompt(&rows[index - 1]) {
            slots.push(session.open(row.adapter.clone()));
            prompts.push(row.prompt.as_slice());
        }
        places.push(slots.len() - 1);
    }
    let part = |(&slot, &tokens)| Part { slot, tokens, logits: true };
    let parts: Vec<Part<'_>> = slots.iter().zip(&prompts).map(part).collect();
    let logits = session.step(&parts)?;
    let mut drafts: Vec<Draft> = rows.into_iter().map(|row| Draft::new(row.draw)).collect();
    let drawn = extend(drafts.iter_mut().zip(places.iter().copied()), &logits)?;
    let mut going = Vec::with_capacity(drafts.len());
    for ((draft, next), at) in drafts.iter_mut().zip(drawn).zip(places) {
        if let Some(next) = next
            && session.room(slots[at])? > 0
        {
            going.push(Going { slot: session.fork(slots[at])?, next, draft });
        }
    }
    slots.into_iter().for_each(|slot| session.close(slot));
    while !going.is_empty() {
        let parts: Vec<Part<'_>> = going
            .iter()
            .map(|text| {
                let tokens = std::slice::from_ref(&text.next);
                Part { slot: text.slot, tokens, logits: true }
            })
            .collect();
        let logits = session.step(&parts)?;
        let parts = going.iter_mut().enumerate().map(|(at, text)| (&mut *text.draft, at));
        let drawn = extend(parts, &logits)?;
        let mut stay = Vec::with_capacity(going.len());
        for (text, next) in going.into_iter().zip(drawn) {
            match next {
                Some(next) if session.room(text.slot)? > 0 => stay.push(Going { next, ..text }),
                _ => session.close(text.slot),
            }
        }
        going = stay;
    }
    Ok(drafts.into_iter().map(Draft::end).collect())
}

/// What the bare backbone makes of a prompt, greedily.
///
/// # Errors
/// When the backbone cannot write or the prompt is too long.
pub fn complete(backbone: &Arc<Backbone>, prompt: &str, max_tokens: usize) -> Result<String> {
    let tokenizer = &backbone.tokenizer;
    let mut tokens: Vec<u32> = tokenizer.begin().into_iter().collect();
    tokens.extend(tokenizer.encode(prompt)?);
    let draw = Draw::likeliest(max_tokens, tokenizer.end().into_iter().collect());
    let texts = write(backbone, vec![Row { adapter: None, prompt: tokens, draw }])?;
    texts.first().map_or_else(|| Ok(String::new()), |text| tokenizer.decode(&text.tokens))
}

#[cfg(test)]
mod tests;
