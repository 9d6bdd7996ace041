//! Requests that have not begun: in the order they came for each agent, and whose turn is next.
//!
//! The next text is of the agent that has the fewest in progress, of several such of the one that has waited for
//! longest since something of it began; what found no room is the next again. Classes are taken of one agent
//! after the other, from the one after the last. Every operation takes the logarithm of how many wait. Nothing
//! here knows what a request is about.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::queue::Key;
use crate::name::AgentName;

/// Something that waits, and when it came: what is put back keeps its place.
#[derive(Debug)]
pub(super) struct Ticket<T> {
    pub(super) key: Key,
    place: u64,
    /// Since when its agent had waited.
    since: u64,
    pub(super) item: T,
}

/// What an agent waits for.
#[derive(Debug)]
struct Line<T> {
    /// When it began to wait, or when something of it began last.
    since: u64,
    /// In the order it came.
    items: BTreeMap<u64, (Key, T)>,
}

/// Everything that waits.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    /// Agents that wait for something.
    lines: BTreeMap<AgentName, Line<T>>,
    /// Where in its agent's line a key is.
    places: BTreeMap<Key, u64>,
    /// Those who wait, by how much of theirs is in progress and since when they wait.
    turns: BTreeSet<(usize, u64, AgentName)>,
    /// What found no room.
    first: Option<Key>,
    /// How much of whose is in progress, also of those who wait for nothing.
    running: BTreeMap<AgentName, usize>,
    /// Of whom something was taken in turn last.
    last: Option<AgentName>,
    /// How many came or began so far.
    now: u64,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            lines: BTreeMap::new(),
            places: BTreeMap::new(),
            turns: BTreeSet::new(),
            first: None,
            running: BTreeMap::new(),
            last: None,
            now: 0,
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
        self.now += 1;
        self.put(Ticket { key, place: self.now, since: self.now, item });
    }

    /// Puts something that found no room back where it was: it is the next one again, however small others are.
    pub(super) fn put_back(&mut self, ticket: Ticket<T>) {
        self.first = Some(ticket.key.clone());
        self.put(ticket);
    }

    fn put(&mut self, ticket: Ticket<T>) {
        let Ticket { key, place, since, item } = ticket;
        let agent = key.1.clone();
        let running = self.running_of(&agent);
        self.places.insert(key.clone(), place);
        let new = || Line { since, items: BTreeMap::new() };
        let line = self.lines.entry(agent.clone()).or_insert_with(new);
        line.items.insert(place, (key, item));
        self.turns.insert((running, line.since, agent));
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

    /// Takes the next one: what found no room before, or the first of the agent that has the fewest in progress.
    pub(super) fn next(&mut self) -> Option<Ticket<T>> {
        if let Some(key) = self.first.clone() {
            let place = self.places.get(&key).copied();
            return self.take(&key.1, place);
        }
        let agent = self.turns.first()?.2.clone();
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
        let count = self.running_of(agent) + 1;
        self.now += 1;
        self.set(agent, count, Some(self.now));
    }

    /// How much of whose is in progress now; nothing of those who are not named.
    pub(super) fn runs<'a>(&mut self, agents: impl Iterator<Item = &'a AgentName>) {
        let mut now: BTreeMap<AgentName, usize> = BTreeMap::new();
        for agent in agents {
            *now.entry(agent.clone()).or_default() += 1;
        }
        let ended: Vec<AgentName> =
            self.running.keys().filter(|agent| !now.contains_key(*agent)).cloned().collect();
        ended.iter().for_each(|agent| self.set(agent, 0, None));
        now.iter().for_each(|(agent, &count)| self.set(agent, count, None));
    }

    fn running_of(&self, agent: &AgentName) -> usize {
        self.running.get(agent).copied().unwrap_or(0)
    }

    /// So much of an agent is in progress; `since` where it waits anew from now on.
    fn set(&mut self, agent: &AgentName, count: usize, since: Option<u64>) {
        let before = self.running_of(agent);
        if before == count {
            return;
        }
        if let Some(line) = self.lines.get_mut(agent) {
            self.turns.remove(&(before, line.since, agent.clone()));
            line.since = since.unwrap_or(line.since);
            self.turns.insert((count, line.since, agent.clone()));
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
        let place = place.or_else(|| line.items.keys().next().copied())?;
        let (key, item) = line.items.remove(&place)?;
        let since = line.since;
        if line.items.is_empty() {
            self.lines.remove(agent);
            self.turns.remove(&(self.running_of(agent), since, agent.clone()));
        }
        self.places.remove(&key);
        self.first = self.first.take().filter(|first| *first != key);
        Some(Ticket { key, place, since, item })
    }
}

#[cfg(test)]
mod tests;
