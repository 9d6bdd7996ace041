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
use crate::session::{Drawn, Logits, Part, Pick, Session, Slot};

/// How the tokens of a text are drawn, and when it ends. A clone draws the same.
#[derive(Clone, Debug)]
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
    next: Next,
}

/// What a text reads next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Its prompt.
    Prompt,
    Token(u32),
    /// What draw number so many of the last step gave, which is not known yet.
    Drawn(usize),
    /// Nothing: it has ended.
    Nothing,
}

impl Draft {
    pub(crate) fn new(draw: Draw) -> Self {
        Self { draw, tokens: Vec::new(), next: Next::Prompt }
    }

    /// How the next token is drawn, from the logits of a part.
    fn pick(&mut self, part: usize) -> Pick<'_> {
        let Draw { temperature, filter, stream, .. } = &mut self.draw;
        Pick { part, temperature: *temperature, filter, stream }
    }

    /// Takes in a drawn token.
    fn push(&mut self, token: u32) {
        let draw = &self.draw;
        let is_full = self.tokens.len() >= draw.max_tokens;
        if !is_full {
            self.tokens.push(token);
        }
        let ends = draw.stop.contains(&token) || self.tokens.len() >= draw.max_tokens;
        self.next = if ends || is_full { Next::Nothing } else { Next::Token(token) };
    }

    /// Whether its prompt is still to be read.
    pub(crate) fn is_new(&self) -> bool {
        self.next == Next::Prompt
    }

    /// Whether nothing can come after what it has: the context may have room for `room` more tokens.
    pub(crate) fn has_ended(&self, room: usize) -> bool {
        self.next == Next::Nothing || (room == 0 && matches!(self.next, Next::Token(_)))
    }

    /// The text as it is now.
    pub(crate) fn end(self) -> Text {
        let Self { draw, mut tokens, .. } = self;
        let stop = tokens.pop_if(|last| draw.stop.contains(last));
        Text { tokens, stop }
    }
}

/// What the last step drew for texts in progress, while nobody here knows it yet.
///
/// A step on a GPU is begun before the tokens of the last one have come. A text that ends with one of them has
/// then read it for nothing; nobody sees what was drawn after it.
#[derive(Debug, Default)]
pub(crate) struct Draws {
    last: Option<Drawn>,
}

impl Draws {
    /// What a text reads in the next step; none while its prompt is read, where its next token is its last,
    /// and where its context, which has `room` for more tokens, is full.
    pub(crate) fn part<'a>(
        &'a self,
        draft: &'a Draft,
        slot: Slot,
        room: usize,
    ) -> Option<Part<'a>> {
        let goes_on = room > 0 && draft.tokens.len() + 1 < draft.draw.max_tokens;
        match &draft.next {
            Next::Token(token) => Some(Part::new(slot, std::slice::from_ref(token), true)),
            &Next::Drawn(index) if goes_on => Some(Part::drawn(slot, self.last.as_ref()?, index)),
            _ => None,
        }
    }

    /// Draws a token for each draft that has a part, from the logits of that part, and lets every draft take
    /// in what is known: the tokens of the step before, and those of this one where nobody waits for them.
    ///
    /// # Errors
    /// When a GPU fails.
    pub(crate) fn extend(
        &mut self,
        drafts: &mut [(&mut Draft, Option<usize>)],
        logits: &Logits,
    ) -> Result<()> {
        let picks = drafts.iter_mut().filter_map(|(draft, part)| Some(draft.pick((*part)?)));
        let drawn = logits.draw(picks.collect())?;
        if let Some(last) = self.last.take() {
            take_in(drafts, &last.wait()?);
        }
        let coming = drafts.iter_mut().filter(|(_, part)| part.is_some());
        for (index, (draft, _)) in coming.enumerate() {
            if draft.next != Next::Nothing {
                draft.next = Next::Drawn(index);
            }
        }
        if drawn.is_here() {
            take_in(drafts, &drawn.wait()?);
        } else {
            self.last = Some(drawn);
        }
        Ok(())
    }
}

/// Gives drafts the tokens of the draws that they wait for.
fn take_in(drafts: &mut [(&mut Draft, Option<usize>)], tokens: &[u32]) {
    for (draft, _) in drafts {
        if let Next::Drawn(index) = draft.next {
            draft.push(tokens[index]);
        }
    }
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

/// Writes the texts of all rows, in their order. Neighbours with the same weights and prompt share reading it.
///
/// # Errors
/// When the backbone cannot write, or a prompt is empty or too long.
pub fn write(backbone: &Arc<Backbone>, rows: Vec<Row>) -> Result<Vec<Text>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    write_in(Session::new(Arc::clone(backbone))?.with_width(rows.len()), rows)
}

fn write_in(mut session: Session, rows: Vec<Row>) -> Result<Vec<Text>> {
    // Which of the prompts, that are all different, each row has.
    let (mut slots, mut prompts, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for (index, row) in rows.iter().enumerate() {
        if index == 0 || !row.shares_a_prompt(&rows[index - 1]) {
            slots.push(session.open(row.adapter.clone()));
            prompts.push(row.prompt.as_slice());
        }
        places.push(slots.len() - 1);
    }
    let part = |(&slot, &tokens)| Part::new(slot, tokens, true);
    let parts: Vec<Part<'_>> = slots.iter().zip(&prompts).map(part).collect();
    let logits = session.step(&parts)?;
    let (mut drafts, mut draws) = (Vec::with_capacity(rows.len()), Draws::default());
    drafts.extend(rows.into_iter().map(|row| Draft::new(row.draw)));
    let all = drafts.iter_mut().zip(places.iter().map(|&place| Some(place)));
    draws.extend(&mut all.collect::<Vec<_>>(), &logits)?;
    let own = places.iter().map(|&place| session.fork(slots[place]));
    let own = own.collect::<Result<Vec<Slot>>>()?;
    slots.into_iter().for_each(|slot| session.close(slot));
    loop {
        let mut going = Vec::with_capacity(drafts.len());
        for (draft, &slot) in drafts.iter_mut().zip(&own) {
            let room = session.room(slot).unwrap_or_default();
            if draft.has_ended(room) {
                session.close(slot);
            } else {
                going.push((draft, slot, room));
            }
        }
        if going.is_empty() {
            break;
        }
        let mut parts = Vec::with_capacity(going.len());
        let mut places = Vec::with_capacity(going.len());
        for (draft, slot, room) in &going {
            let part = draws.part(draft, *slot, *room);
            places.push(part.is_some().then_some(parts.len()));
            parts.extend(part);
        }
        let logits = session.step(&parts)?;
        let going = going.into_iter().map(|(draft, ..)| draft).zip(places);
        draws.extend(&mut going.collect::<Vec<_>>(), &logits)?;
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
