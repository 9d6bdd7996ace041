//! The sequences in progress on one backbone, the beginnings that prompts of one agent share, and classes.
//!
//! Which beginnings there are is told by [`Beginnings`]; their sequences are opened and closed here.

use std::sync::Arc;

use super::beginnings::Beginnings;
use super::meter::Meter;
use super::queue::{Answer, Got, Key, Request, Want};
use super::schedule::Limits;
use crate::adapter::Adapter;
use crate::adapter::head::Pooling;
use crate::backbone::Backbone;
use crate::classifying::classify_features;
use crate::error::{ModelError, Result};
use crate::name::AgentName;
use crate::session::{Part, Session, Slot, Whole};
use crate::writing::{Draft, Draws, Text};

/// A text in progress.
#[derive(Debug)]
struct Running {
    key: Key,
    slot: Slot,
    adapter: Arc<Adapter>,
    prompt: Vec<u32>,
    /// Tokens of the prompt that were read.
    read: usize,
    /// Where the prompt stops being like the last one of its agent: what was read up to there is kept.
    keep_at: Option<usize>,
    text: Draft,
    answer: Answer<Got>,
    bytes: u64,
}

/// One backbone's sequences.
#[derive(Debug)]
pub(super) struct Desk {
    session: Session,
    running: Vec<Running>,
    draws: Draws,
    beginnings: Beginnings,
}

impl Desk {
    /// With room for about so many sequences at once.
    pub(super) fn new(backbone: Arc<Backbone>, sequences: usize) -> Result<Self> {
        let session = Session::new(backbone)?.with_width(sequences);
        let (running, draws) = (Vec::new(), Draws::default());
        Ok(Self { session, running, draws, beginnings: Beginnings::default() })
    }

    /// The same with tokens that come late, as they do from a GPU.
    #[cfg(test)]
    pub(super) fn late(mut self) -> Self {
        self.session = self.session.late();
        self
    }

    #[cfg(test)]
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn is_of(&self, backbone: &Arc<Backbone>) -> bool {
        Arc::ptr_eq(self.session.backbone(), backbone)
    }

    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Who has something in progress, once for each sequence.
    pub(super) fn agents(&self) -> impl Iterator<Item = &AgentName> {
        self.running.iter().map(|running| &running.key.1)
    }

    /// Bytes of keys and values that a request takes at most.
    pub(super) fn bytes_for(&self, request: &Request) -> u64 {
        let Want::Text(draw) = &request.want else { return 0 };
        let tokens = request.tokens.len() + request.adapter.virtual_tokens() + draw.max_tokens;
        let longest = self.session.backbone().network.architecture().positions;
        self.session.bytes(tokens.min(longest)) as u64
    }

    /// Bytes that are promised to sequences in progress or hold beginnings.
    pub(super) fn bytes(&self) -> u64 {
        let kept = (self.beginnings.tokens() * self.session.bytes_per_token()) as u64;
        kept + self.running.iter().map(|running| running.bytes).sum::<u64>()
    }

    /// Drops the beginning that was of no use for longest; false where there is none.
    pub(super) fn forget_a_beginning(&mut self) -> bool {
        let Some(slot) = self.beginnings.forget_one() else { return false };
        self.session.close(slot);
        true
    }

    pub(super) fn drop_where(&mut self, is_dropped: impl Fn(&Key) -> bool) {
        while let Some(place) = self.running.iter().position(|running| is_dropped(&running.key)) {
            let running = self.running.remove(place);
            self.leave(running, Err(ModelError::Cancelled));
        }
    }

    /// Answers requests for a class, side by side in as few passes as they fit into; gives back those that only
    /// the network can read.
    pub(super) fn classify(&mut self, requests: Vec<Request>) -> Vec<Request> {
        let has_head = |request: &Request| request.adapter.head().is_some();
        let (requests, mut left): (Vec<_>, Vec<_>) = requests.into_iter().partition(has_head);
        let texts = requests.iter().map(|request| Whole {
            adapter: &request.adapter,
            tokens: &request.tokens,
            pooling: request.adapter.head().map_or_else(Pooling::default, |head| head.pooling),
        });
        let texts: Vec<Whole<'_>> = texts.collect();
        let found = self.session.features(&texts);
        for (request, found) in requests.into_iter().zip(found) {
            let Some(found) = found else {
                left.push(request);
                continue;
            };
            let got = found.and_then(|features| classify_features(&request.adapter, &features));
            request.answer.send(got.map(Got::Classes));
        }
        left
    }

    /// Begins a text; false where it was answered at once. `spare` is how many bytes may go into a beginning.
    pub(super) fn begin(&mut self, request: Request, spare: u64, meter: &Meter) -> bool {
        let bytes = self.bytes_for(&request);
        let Request { key, adapter, tokens: prompt, want, answer, .. } = request;
        let Want::Text(draw) = want else {
            answer.send(Err(ModelError::Step("a class is not a text".to_owned())));
            return false;
        };
        let limit = self.session.backbone().network.architecture().positions;
        let found = prompt.len() + adapter.virtual_tokens();
        if prompt.is_empty() || found > limit {
            answer.send(Err(if prompt.is_empty() {
                ModelError::Step("it has no tokens".to_owned())
            } else {
                ModelError::TooLong { found, limit }
            }));
            return false;
        }
        if draw.max_tokens == 0 {
            answer.send(Ok(Got::Text(Text::default())));
            return false;
        }
        let (slot, read, keep_at) = self.open(&key.1, &adapter, &prompt, spare);
        meter.shared(read);
        let text = Draft::new(draw);
        self.running.push(Running {
            key,
            slot,
            adapter,
            prompt,
            read,
            keep_at,
            text,
            answer,
            bytes,
        });
        true
    }

    /// A sequence for a prompt: how much of it was read already, and up to where it shall be kept.
    fn open(
        &mut self,
        agent: &AgentName,
        adapter: &Arc<Adapter>,
        prompt: &[u32],
        spare: u64,
    ) -> (Slot, usize, Option<usize>) {
        let spare = usize::try_from(spare / self.session.bytes_per_token() as u64);
        let (session, spare) = (&mut self.session, spare.unwrap_or(usize::MAX));
        let found = self.beginnings.find(agent, adapter, prompt, spare, |slot| session.close(slot));
        if let Some((kept, length)) = found.read
            && let Ok(slot) = session.fork(kept)
        {
            return (slot, length, found.keep);
        }
        (session.open(Some(Arc::clone(adapter))), 0, found.keep)
    }

    /// Every sequence that writes reads one token; prompts share what a step may read besides.
    pub(super) fn step(&mut self, limits: &Limits, meter: &Meter) {
        let mut left = limits.prompt_tokens.max(1);
        let mut parts = Vec::with_capacity(self.running.len());
        let mut places = Vec::with_capacity(self.running.len());
        let (mut read, mut written) = (0, 0);
        for running in &self.running {
            let slot = running.slot;
            let part = if !running.text.is_new() {
                let room = self.session.room(slot).unwrap_or_default();
                let part = self.draws.part(&running.text, slot, room);
                written += part.iter().len();
                part
            } else if left > 0 {
                let end = running.keep_at.filter(|&at| at > running.read);
                let end = end.unwrap_or(running.prompt.len()).min(running.read + left);
                let tokens = &running.prompt[running.read..end];
                left -= tokens.len();
                read += tokens.len();
                Some(Part::new(slot, tokens, end == running.prompt.len()))
            } else {
                None
            };
            places.push(part.is_some().then_some(parts.len()));
            parts.extend(part);
        }
        meter.stepped(parts.len(), read, written);
        let logits = match self.session.step(&parts) {
            Ok(logits) => logits,
            Err(error) => return self.fail(&error),
        };
        let read: Vec<(usize, bool)> =
            parts.iter().map(|part| (part.count(), part.wants_logits())).collect();
        for (running, place) in self.running.iter_mut().zip(&places) {
            if running.text.is_new() {
                running.read += place.map_or(0, |place| read[place].0);
            }
        }
        let drafts = self.running.iter_mut().map(|running| &mut running.text);
        let places = places.into_iter().map(|place| place.filter(|&place| read[place].1));
        let mut drafts: Vec<_> = drafts.zip(places).collect();
        if let Err(error) = self.draws.extend(&mut drafts, &logits) {
            return self.fail(&error);
        }
        self.keep_beginnings();
        let mut stay = Vec::with_capacity(self.running.len());
        for running in std::mem::take(&mut self.running) {
            let room = self.session.room(running.slot).unwrap_or_default();
            if running.text.has_ended(room) {
                self.leave(running, Ok(()));
            } else {
                stay.push(running);
            }
        }
        self.running = stay;
    }

    /// Ends every sequence with what went wrong.
    fn fail(&mut self, error: &ModelError) {
        let reason = error.to_string();
        self.draws = Draws::default();
        for running in std::mem::take(&mut self.running) {
            self.leave(running, Err(ModelError::Step(reason.clone())));
        }
    }

    /// Keeps what sequences have read where their prompts begin like those before.
    fn keep_beginnings(&mut self) {
        for running in &mut self.running {
            if running.keep_at != Some(running.read) {
                continue;
            }
            running.keep_at = None;
            let (key, adapter, tokens) =
                (&running.key, &running.adapter, &running.prompt[..running.read]);
            let copy = || self.session.fork(running.slot).ok();
            let before = self.beginnings.keep(&key.1, adapter, tokens, copy);
            before.into_iter().for_each(|slot| self.session.close(slot));
        }
    }

    /// Ends a sequence and answers for it.
    fn leave(&mut self, running: Running, outcome: Result<()>) {
        self.session.close(running.slot);
        if running.keep_at.is_some() {
            self.beginnings.give_up(&running.key.1, &running.adapter);
        }
        let Running { text, answer, .. } = running;
        answer.send(outcome.map(|()| Got::Text(text.end())));
    }
}
