//! Requests that have not begun: in the order they came for each agent, and whose turn is next.
//!
//! The next text is of the agent that has the fewest in progress, of several such of the first by name; classes
//! are taken of one agent after the other, from the one after the last. Every operation takes the logarithm of how many wait. Nothing here
//! knows what a request is about.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::queue::Key;
use crate::name::AgentName;

/// Something that waits, and when it came: what is put back keeps its place.
#[derive(Debug)]
pub(super) struct Ticket<T> {
    pub(super) key: Key,
    place: u64,
    pub(super) item: T,
}

/// Everything that waits.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    /// Agents that wait for something, and what in the order it came.
    lines: BTreeMap<AgentName, BTreeMap<u64, (Key, T)>>,
    /// Where in its agent's line a key is.
    places: BTreeMap<Key, u64>,
    /// Those who wait, by how much of theirs is in progress.
    turns: BTreeSet<(usize, AgentName)>,
    /// How much of whose is in progress, also of those who wait for nothing.
    running: BTreeMap<AgentName, usize>,
    /// Of whom something was taken in turn last.
    last: Option<AgentName>,
    /// How many came so far.
    came: u64,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            lines: BTreeMap::new(),
            places: BTreeMap::new(),
            turns: BTreeSet::new(),
            running: BTreeMap::new(),
            last: None,
            came: 0,
        }
    }
}

impl<T> Waiting<T> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Puts something at the end of its agent's line. Its key must not wait already.
    pub(super) fn add(&mut self, key: Key, item: T) {
        self.came += 1;
        self.put_back(Ticket { key, place: self.came, item });
    }

    /// Puts something back where it was.
    pub(super) fn put_back(&mut self, ticket: Ticket<T>) {
        let Ticket { key, place, item } = ticket;
        let agent = key.1.clone();
        self.places.insert(key.clone(), place);
        self.turns.insert((self.running_of(&agent), agent.clone()));
        self.lines.entry(agent).or_default().insert(place, (key, item));
    }

    /// Takes something out, wherever it is in its line.
    pub(super) fn remove(&mut self, key: &Key) -> Option<T> {
        let place = *self.places.get(key)?;
        self.take(&key.1, Some(place)).map(|ticket| ticket.item)
    }

    /// Takes out what belongs to an earlier announcement than `round`.
    pub(super) fn remove_before(&mut self, round: u64) -> Vec<T> {
        let mut removed = Vec::new();
        while let Some((key, _)) = self.places.first_key_value()
            && key.0 < round
        {
            let key = key.clone();
            removed.extend(self.remove(&key));
        }
        removed
    }

    /// Takes the next one: the first of the agent that has the fewest in progress.
    pub(super) fn next(&mut self) -> Option<Ticket<T>> {
        let agent = self.turns.first()?.1.clone();
        self.take(&agent, None)
    }

    /// Takes up to `most`, one of each agent in turn; it goes on after the agent that it ended with before.
    pub(super) fn in_turn(&mut self, most: usize) -> Vec<T> {
        let mut taken = Vec::new();
        while taken.len() < most && !self.is_empty() {
            let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.lines.range::<AgentName, _>((after, Bound::Unbounded)).next();
            let next = next.map(|(agent, _)| agent.clone());
            let ticket = next.as_ref().and_then(|agent| self.take(agent, None));
            self.last = next;
            taken.extend(ticket.map(|ticket| ticket.item));
        }
        taken
    }

    /// Something of an agent has begun.
    pub(super) fn began(&mut self, agent: &AgentName) {
        let now = self.running_of(agent) + 1;
        self.set(agent, now);
    }

    /// How much of whose is in progress now; nothing of those who are not named.
    pub(super) fn runs<'a>(&mut self, agents: impl Iterator<Item = &'a AgentName>) {
        let mut now: BTreeMap<AgentName, usize> = BTreeMap::new();
        for agent in agents {
            *now.entry(agent.clone()).or_default() += 1;
        }
        let ended: Vec<AgentName> =
            self.running.keys().filter(|agent| !now.contains_key(*agent)).cloned().collect();
        ended.iter().for_each(|agent| self.set(agent, 0));
        now.iter().for_each(|(agent, &count)| self.set(agent, count));
    }

    fn running_of(&self, agent: &AgentName) -> usize {
        self.running.get(agent).copied().unwrap_or(0)
    }

    fn set(&mut self, agent: &AgentName, count: usize) {
        let before = self.running_of(agent);
        if before == count {
            return;
        }
        if self.turns.remove(&(before, agent.clone())) {
            self.turns.insert((count, agent.clone()));
        }
        if count == 0 {
            self.running.remove(agent);
        } else {
            self.running.insert(agent.clone(), count);
        }
    }

    /// Takes something out of an agent's line, the first where no place is given.
    fn take(&mut self, agent: &AgentName, place: Option<u64>) -> Option<Ticket<T>> {
        let line = self.lines.get_mut(agent)?;
        let place = place.or_else(|| line.keys().next().copied())?;
        let (key, item) = line.remove(&place)?;
        if line.is_empty() {
            self.lines.remove(agent);
            self.turns.remove(&(self.running_of(agent), agent.clone()));
        }
        self.places.remove(&key);
        Some(Ticket { key, place, item })
    }
}

#[cfg(test)]
mod tests;
