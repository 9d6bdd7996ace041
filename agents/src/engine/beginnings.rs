//! What prompts of one agent begin with, and which of it was read and is kept.
//!
//! A beginning belongs to one agent and one generation of its weights: what was read under others is never used.
//! Finding one takes the logarithm of how many there are. Nothing is read, opened or closed here.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::adapter::{Adapter, Generation};
use crate::name::AgentName;
use crate::session::{Slot, whole};

/// The shortest beginning that is worth keeping, in tokens.
const SHORTEST: usize = 8;

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
    /// Prompts so far.
    prompts: u64,
}

/// What prompts of an agent begin with.
#[derive(Debug)]
struct Beginning {
    adapter: Arc<Adapter>,
    /// Its last prompt.
    prompt: Vec<u32>,
    state: State,
    /// The prompt to which it was last of use.
    used: u64,
}

/// How far a beginning is.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Nobody reads it: only the prompt is known.
    Unread,
    /// A sequence is about to have read so much of it.
    Awaited(usize),
    /// The sequence that has read so much of it.
    Kept(Slot, usize),
}

/// What there is for a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A sequence to go on from, and how much of the prompt it has read.
    Read(Slot, usize),
    /// So much of the prompt shall be kept once it was read.
    ToKeep(usize),
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
        self.prompts += 1;
        let used = self.prompts;
        let owner = (agent.clone(), adapter.generation());
        self.forget_others(&owner, adapter, close);
        let Some(own) = self.all.get_mut(&owner) else {
            let (adapter, prompt) = (Arc::clone(adapter), prompt.to_vec());
            self.all.insert(owner, Beginning { adapter, prompt, state: State::Unread, used });
            return Found::Nothing;
        };
        let before = std::mem::replace(&mut own.used, used);
        // At least one token is read anew: its logits are wanted.
        let alike = own.prompt.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let alike = alike.min(prompt.len().saturating_sub(1));
        match own.state {
            State::Kept(slot, length) => {
                self.kept.remove(&before);
                self.kept.insert(used, owner);
                if alike >= length { Found::Read(slot, length) } else { Found::Nothing }
            }
            State::Awaited(_) => Found::Nothing,
            State::Unread => {
                own.prompt = prompt.to_vec();
                let taken = taken(adapter, alike);
                if alike < SHORTEST || taken > spare {
                    return Found::Nothing;
                }
                own.state = State::Awaited(alike);
                self.tokens += taken;
                Found::ToKeep(alike)
            }
        }
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
            self.remove(&other).into_iter().for_each(&mut close);
        }
    }

    /// Forgets the one that was of no use for longest; none where none is kept.
    pub(super) fn forget_one(&mut self) -> Option<Slot> {
        let (_, owner) = self.kept.first_key_value()?;
        let owner = owner.clone();
        self.remove(&owner)
    }

    fn remove(&mut self, owner: &Owner) -> Option<Slot> {
        let own = self.all.remove(owner)?;
        self.tokens -= taken(&own.adapter, own.state.tokens());
        match own.state {
            State::Kept(slot, _) => {
                self.kept.remove(&own.used);
                Some(slot)
            }
            State::Awaited(_) | State::Unread => None,
        }
    }

    /// The beginning that a sequence of an agent was to read for others, where it is still waited for.
    fn awaited(&mut self, agent: &AgentName, adapter: &Arc<Adapter>) -> Option<&mut Beginning> {
        let own = self.all.get_mut(&(agent.clone(), adapter.generation()))?;
        let waits = matches!(own.state, State::Awaited(_)) && Arc::ptr_eq(&own.adapter, adapter);
        waits.then_some(own)
    }

    /// A sequence has read what was to be kept: `copy` makes another of it, which is.
    pub(super) fn keep(
        &mut self,
        agent: &AgentName,
        adapter: &Arc<Adapter>,
        copy: impl FnOnce() -> Option<Slot>,
    ) {
        let Some(own) = self.awaited(agent, adapter) else { return };
        let (length, used) = (own.state.tokens(), own.used);
        if let Some(slot) = copy() {
            own.state = State::Kept(slot, length);
            self.kept.insert(used, (agent.clone(), adapter.generation()));
        } else {
            own.state = State::Unread;
            self.tokens -= taken(adapter, length);
        }
    }

    /// A sequence that was to read a beginning for others has ended before.
    pub(super) fn give_up(&mut self, agent: &AgentName, adapter: &Arc<Adapter>) {
        if self.awaited(agent, adapter).is_some() {
            self.remove(&(agent.clone(), adapter.generation()));
        }
    }
}

/// Tokens that a beginning of so many takes: whole blocks, with what the adapter puts before it.
fn taken(adapter: &Adapter, tokens: usize) -> usize {
    if tokens == 0 { 0 } else { whole(adapter.virtual_tokens() + tokens) }
}

impl State {
    /// Tokens that are kept, or promised.
    fn tokens(self) -> usize {
        match self {
            Self::Unread => 0,
            Self::Awaited(length) | Self::Kept(_, length) => length,
        }
    }
}
