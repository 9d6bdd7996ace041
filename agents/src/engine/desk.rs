//! The sequences in progress on one backbone, and the beginnings that prompts of one agent share.
//!
//! A beginning belongs to one agent and one generation: what was read under other weights is never used.

use std::sync::Arc;

use super::meter::Meter;
use super::queue::{Answer, Got, Key, Request, Want};
use super::schedule::Limits;
use crate::adapter::Adapter;
use crate::backbone::Backbone;
use crate::error::{ModelError, Result};
use crate::name::AgentName;
use crate::session::{Part, Session, Slot};
use crate::writing::{Draft, Draws, Text};

/// The shortest beginning that is worth keeping, in tokens.
const SHORTEST: usize = 8;

/// A text in progress.
#[derive(Debug)]
struct Running {
    key: Key,
    slot: Slot,
    prompt: Vec<u32>,
    /// Tokens of the prompt that were read.
    read: usize,
    /// Where the prompt stops being like the last one of its agent: what was read up to there is kept.
    keep_at: Option<usize>,
    text: Draft,
    answer: Answer<Got>,
    bytes: u64,
}

/// What prompts of an agent begin with.
#[derive(Debug)]
struct Beginning {
    agent: AgentName,
    adapter: Arc<Adapter>,
    /// Its last prompt.
    prompt: Vec<u32>,
    /// How much of the prompt the slot has read.
    length: usize,
    slot: Option<Slot>,
    /// Whether a sequence is about to read it.
    awaited: bool,
    /// When it was last of use, in requests.
    used: u64,
}

/// One backbone's sequences.
#[derive(Debug)]
pub(super) struct Desk {
    session: Session,
    running: Vec<Running>,
    draws: Draws,
    beginnings: Vec<Beginning>,
    requests: u64,
}

impl Desk {
    /// With room for about so many sequences at once.
    pub(super) fn new(backbone: Arc<Backbone>, sequences: usize) -> Result<Self> {
        let session = Session::new(backbone)?.with_width(sequences);
        let (running, draws, beginnings) = (Vec::new(), Draws::default(), Vec::new());
        Ok(Self { session, running, draws, beginnings, requests: 0 })
    }

    /// The same with tokens that come late, as they do from a GPU.
    #[cfg(test)]
    pub(super) fn late(mut self) -> Self {
        self.session = self.session.late();
        self
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
        tokens.min(longest) as u64 * self.session.bytes_per_token() as u64
    }

    /// Bytes that are promised to sequences in progress or hold beginnings.
    pub(super) fn bytes(&self) -> u64 {
        let token = self.session.bytes_per_token() as u64;
        let kept = self.beginnings.iter().filter(|own| own.slot.is_some() || own.awaited);
        let kept: u64 = kept.map(|own| own.length as u64 * token).sum();
        kept + self.running.iter().map(|running| running.bytes).sum::<u64>()
    }

    /// Drops the beginning that was of no use for longest; false where there is none.
    pub(super) fn forget_a_beginning(&mut self) -> bool {
        let kept = self.beginnings.iter().enumerate().filter(|(_, own)| own.slot.is_some());
        let Some((place, _)) = kept.min_by_key(|(_, own)| own.used) else { return false };
        self.forget(place);
        true
    }

    fn forget(&mut self, place: usize) {
        if let Some(slot) = self.beginnings.remove(place).slot {
            self.session.close(slot);
        }
    }

    pub(super) fn drop_where(&mut self, is_dropped: impl Fn(&Key) -> bool) {
        while let Some(place) = self.running.iter().position(|running| is_dropped(&running.key)) {
            let running = self.running.remove(place);
            self.leave(running, Err(ModelError::Cancelled));
        }
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
        self.running.push(Running { key, slot, prompt, read, keep_at, text, answer, bytes });
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
        self.requests += 1;
        let used = self.requests;
        let stale = |own: &Beginning| own.agent == *agent && !Arc::ptr_eq(&own.adapter, adapter);
        while let Some(place) = self.beginnings.iter().position(stale) {
            self.forget(place);
        }
        let Some(place) = self.beginnings.iter().position(|own| own.agent == *agent) else {
            let (agent, adapter, prompt) = (agent.clone(), Arc::clone(adapter), prompt.to_vec());
            let (length, slot, awaited) = (0, None, false);
            let slot_of_it = self.session.open(Some(Arc::clone(&adapter)));
            self.beginnings.push(Beginning { agent, adapter, prompt, length, slot, awaited, used });
            return (slot_of_it, 0, None);
        };
        let own = &mut self.beginnings[place];
        own.used = used;
        // At least one token is read anew: its logits are wanted.
        let alike = own.prompt.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let alike = alike.min(prompt.len() - 1);
        if let Some(kept) = own.slot
            && alike >= own.length
            && let Ok(slot) = self.session.fork(kept)
        {
            return (slot, own.length, None);
        }
        let mut keep_at = None;
        if own.slot.is_none() && !own.awaited {
            let bytes = (alike * self.session.bytes_per_token()) as u64;
            if alike >= SHORTEST && bytes <= spare {
                (own.length, own.awaited) = (alike, true);
                keep_at = Some(alike);
            }
            own.prompt = prompt.to_vec();
        }
        (self.session.open(Some(Arc::clone(adapter))), 0, keep_at)
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
            let waits = |own: &&mut Beginning| own.awaited && own.agent == running.key.1;
            let Some(own) = self.beginnings.iter_mut().find(waits) else { continue };
            own.awaited = false;
            own.slot = self.session.fork(running.slot).ok();
        }
    }

    /// Ends a sequence and answers for it.
    fn leave(&mut self, running: Running, outcome: Result<()>) {
        self.session.close(running.slot);
        if running.keep_at.is_some() {
            let awaited = |own: &Beginning| own.awaited && own.agent == running.key.1;
            self.beginnings.retain(|own| !awaited(own));
        }
        let Running { text, answer, .. } = running;
        answer.send(outcome.map(|()| Got::Text(text.end())));
    }
}
