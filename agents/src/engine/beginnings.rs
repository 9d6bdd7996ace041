//! What prompts of one agent begin with, and which of it was read and is kept.
//!
//! A beginning belongs to one agent and one generation of its weights: what was read under others is never used.
//! Where prompts in a row have more in common than what is kept, or another beginning, that is kept in its place.
//! Finding one takes the logarithm of how many there are. Nothing is read, opened or closed here.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::adapter::{Adapter, Generation};
use crate::name::AgentName;
use crate::session::{Slot, whole};

/// The shortest beginning that is worth keeping, in tokens; also by how much a longer one must be longer.
const SHORTEST: usize = 8;
/// Prompts in a row that must agree before something is kept in the place of something else: two that happen to
/// be nearly the same (a question that is asked again) take nothing from all others.
const AGREE: usize = 3;

/// Whose a beginning is.
type Owner = (AgentName, Generation);

/// Beginnings of all agents of a backbone.
#[derive(Debug, Default)]
pub(super) struct Beginnings {
    all: BTreeMap<Owner, Beginning>,
    /// Those that are kept, by when they were last of use.
    kept: BTreeMap<u64, Owner>,
    /// Tokens of those that are kept or being read, each in whole blocks.
    tokens: usize,
    /// How often one was kept or of use so far.
    now: u64,
}

/// What prompts of an agent begin with.
#[derive(Debug)]
struct Beginning {
    adapter: Arc<Adapter>,
    /// Its last prompt.
    prompt: Vec<u32>,
    /// How much of that the prompt before it had too.
    alike: usize,
    kept: Option<Kept>,
    /// How much a sequence is about to have read, which is kept then.
    awaited: Option<usize>,
}

/// A beginning that was read.
#[derive(Debug)]
struct Kept {
    /// The sequence that has read it.
    slot: Slot,
    tokens: Vec<u32>,
    /// When it was last of use.
    used: u64,
    /// Prompts since then.
    missed: usize,
}

/// What there is for a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// A sequence to go on from, and how much of the prompt it has read.
    pub(super) read: Option<(Slot, usize)>,
    /// So much of the prompt shall be kept once it was read.
    pub(super) keep: Option<usize>,
}

impl Beginnings {
    /// Tokens of those that are kept or being read, in whole blocks and with what adapters put before them.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Looks for the beginning of a prompt that is about to be read; no more than `spare` tokens are kept of a new
    /// one. Sequences of older generations are handed to `close`.
    pub(super) fn find(
        &mut self,
        agent: &AgentName,
        adapter: &Arc<Adapter>,
        prompt: &[u32],
        spare: usize,
        close: impl FnMut(Slot),
    ) -> Found {
        let owner = (agent.clone(), adapter.generation());
        self.forget_others(&owner, adapter, close);
        let Some(own) = self.all.get_mut(&owner) else {
            self.all.insert(owner, Beginning::new(adapter, prompt));
            return Found::default();
        };
        // At least one token is read anew: its logits are wanted.
        let longest = prompt.len().saturating_sub(1);
        let alike = own.prompt.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(longest);
        let before = std::mem::replace(&mut own.alike, alike);
        own.prompt = prompt.to_vec();
        let mut read = None;
        let (agreed, least) = match &mut own.kept {
            None => (alike, SHORTEST),
            Some(kept) if prompt[..longest].starts_with(&kept.tokens) => {
                self.now += 1;
                self.kept.remove(&kept.used);
                self.kept.insert(self.now, owner);
                (kept.used, kept.missed) = (self.now, 0);
                read = Some((kept.slot, kept.tokens.len()));
                (alike.min(before), kept.tokens.len() + SHORTEST)
            }
            Some(kept) => {
                kept.missed += 1;
                let least = if kept.missed < AGREE { usize::MAX } else { SHORTEST };
                (alike.min(before), least)
            }
        };
        let taken = taken(adapter, agreed);
        if own.awaited.is_some() || agreed < least || taken > spare {
            return Found { read, keep: None };
        }
        own.awaited = Some(agreed);
        self.tokens += taken;
        Found { read, keep: Some(agreed) }
    }

    /// Forgets what an agent has of older generations, and of other weights that have the number of these.
    fn forget_others(
        &mut self,
        owner: &Owner,
        adapter: &Arc<Adapter>,
        mut close: impl FnMut(Slot),
    ) {
        let first = (owner.0.clone(), Generation(0));
        let others: Vec<Owner> = self
            .all
            .range(&first..=owner)
            .filter(|(found, own)| *found != owner || !Arc::ptr_eq(&own.adapter, adapter))
            .map(|(found, _)| found.clone())
            .collect();
        for other in others {
            self.give_up_of(&other);
            self.let_go(&other).into_iter().for_each(&mut close);
            self.all.remove(&other);
        }
    }

    /// Forgets the one that was of no use for longest; none where none is kept.
    pub(super) fn forget_one(&mut self) -> Option<Slot> {
        let (_, owner) = self.kept.first_key_value()?;
        let owner = owner.clone();
        let slot = self.let_go(&owner);
        // It begins anew, or the next prompt would take the room that is needed.
        if self.all.get(&owner).is_some_and(|own| own.awaited.is_none()) {
            self.all.remove(&owner);
        }
        slot
    }

    /// Nothing is kept of an owner any more; what was is the caller's to close.
    fn let_go(&mut self, owner: &Owner) -> Option<Slot> {
        let own = self.all.get_mut(owner)?;
        let kept = own.kept.take()?;
        self.kept.remove(&kept.used);
        self.tokens -= taken(&own.adapter, kept.tokens.len());
        Some(kept.slot)
    }

    /// Nothing is waited for of an owner any more; says whether something was.
    fn give_up_of(&mut self, owner: &Owner) -> bool {
        let Some(own) = self.all.get_mut(owner) else { return false };
        let Some(length) = own.awaited.take() else { return false };
        self.tokens -= taken(&own.adapter, length);
        true
    }

    /// Whose a beginning is, where these are the weights that it was asked for with.
    fn owner(&self, agent: &AgentName, adapter: &Arc<Adapter>) -> Option<Owner> {
        let owner = (agent.clone(), adapter.generation());
        let own = self.all.get(&owner)?;
        Arc::ptr_eq(&own.adapter, adapter).then_some(owner)
    }

    /// A sequence has read `tokens`, which were to be kept: `copy` makes another of it, which is. Hands back the
    /// one that was kept before.
    pub(super) fn keep(
        &mut self,
        agent: &AgentName,
        adapter: &Arc<Adapter>,
        tokens: &[u32],
        copy: impl FnOnce() -> Option<Slot>,
    ) -> Option<Slot> {
        let owner = self.owner(agent, adapter)?;
        if !self.give_up_of(&owner) {
            return None;
        }
        let slot = copy()?;
        let before = self.let_go(&owner);
        self.now += 1;
        let (tokens, used) = (tokens.to_vec(), self.now);
        self.tokens += taken(adapter, tokens.len());
        self.kept.insert(used, owner.clone());
        let own = self.all.get_mut(&owner)?;
        own.kept = Some(Kept { slot, tokens, used, missed: 0 });
        before
    }

    /// A sequence that was to read a beginning for others has ended before.
    pub(super) fn give_up(&mut self, agent: &AgentName, adapter: &Arc<Adapter>) {
        if let Some(owner) = self.owner(agent, adapter) {
            self.give_up_of(&owner);
        }
    }
}

impl Beginning {
    /// Of an agent's first prompt.
    fn new(adapter: &Arc<Adapter>, prompt: &[u32]) -> Self {
        let (adapter, prompt) = (Arc::clone(adapter), prompt.to_vec());
        Self { adapter, prompt, alike: 0, kept: None, awaited: None }
    }
}

/// Tokens that a beginning of so many takes: whole blocks, with what the adapter puts before it.
fn taken(adapter: &Adapter, tokens: usize) -> usize {
    whole(adapter.virtual_tokens() + tokens)
}

#[cfg(test)]
mod tests;
