//! The order of beginnings is that of the plain rule, which looks at everything each time.

use proptest::prelude::*;

use super::*;

/// The rule as it is said: lists in the order things came, and a look at every agent.
#[derive(Default)]
struct Plain {
    lines: BTreeMap<AgentName, Vec<(Key, u32)>>,
    running: BTreeMap<AgentName, usize>,
    /// When each began to wait, or when something of it began last.
    since: BTreeMap<AgentName, u64>,
    /// What found no room.
    first: Option<Key>,
    last: Option<AgentName>,
    now: u64,
}

impl Plain {
    fn add(&mut self, key: &Key, item: u32) {
        self.now += 1;
        if !self.lines.contains_key(&key.1) {
            self.since.insert(key.1.clone(), self.now);
        }
        self.lines.entry(key.1.clone()).or_default().push((key.clone(), item));
    }

    fn began(&mut self, agent: AgentName) {
        self.now += 1;
        self.since.insert(agent.clone(), self.now);
        *self.running.entry(agent).or_default() += 1;
    }

    fn take(&mut self, agent: &AgentName) -> (Key, u32) {
        let line = self.lines.get_mut(agent).unwrap();
        let first = line.remove(0);
        self.lines.retain(|_, line| !line.is_empty());
        self.first = self.first.take().filter(|key| *key != first.0);
        first
    }

    fn next(&mut self) -> Option<(Key, u32)> {
        if let Some(key) = self.first.clone() {
            let item = self.remove_where(|other| *other == key)[0];
            return Some((key, item));
        }
        let running = |agent: &AgentName| self.running.get(agent).copied().unwrap_or(0);
        let fewest = self.lines.keys().min_by_key(|agent| (running(agent), self.since[*agent]));
        let agent = fewest.cloned()?;
        Some(self.take(&agent))
    }

    fn put_back(&mut self, key: Key, item: u32) {
        self.first = Some(key.clone());
        self.lines.entry(key.1.clone()).or_default().insert(0, (key, item));
    }

    fn remove_where(&mut self, is_removed: impl Fn(&Key) -> bool) -> Vec<u32> {
        let mut removed = Vec::new();
        for line in self.lines.values_mut() {
            removed.extend(line.iter().filter(|(key, _)| is_removed(key)).map(|(_, item)| *item));
            line.retain(|(key, _)| !is_removed(key));
        }
        self.first = self.first.take().filter(|key| !is_removed(key));
        self.lines.retain(|_, line| !line.is_empty());
        removed
    }

    fn in_turn(&mut self, most: usize) -> Vec<u32> {
        let mut taken = Vec::new();
        while taken.len() < most && !self.lines.is_empty() {
            let after = self.lines.keys().find(|agent| Some(*agent) > self.last.as_ref());
            let agent = after.or(self.lines.keys().next()).cloned().unwrap();
            taken.push(self.take(&agent).1);
            self.last = Some(agent);
        }
        taken
    }

    fn len(&self) -> usize {
        self.lines.values().map(Vec::len).sum()
    }
}

/// What happens: requests come, begin, find no room, are taken back, end.
#[derive(Clone, Debug)]
enum Event {
    Add(Key),
    Next {
        has_room: bool,
    },
    InTurn(usize),
    Remove(Key),
    RemoveBefore(u64),
    /// Of each agent that runs something, so much ends.
    End([usize; 4]),
}

fn key() -> impl Strategy<Value = Key> {
    (0..3u64, 0..4usize, 0..12u64).prop_map(|(round, agent, episode)| (round, name(agent), episode))
}

fn name(agent: usize) -> AgentName {
    AgentName::new(["ada", "bob", "cleo", "dan"][agent]).unwrap()
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => key().prop_map(Event::Add),
        6 => prop::bool::weighted(0.8).prop_map(|has_room| Event::Next { has_room }),
        1 => (0..7usize).prop_map(Event::InTurn),
        2 => key().prop_map(Event::Remove),
        1 => (0..4u64).prop_map(Event::RemoveBefore),
        2 => prop::array::uniform4(0..3usize).prop_map(Event::End),
    ]
}

proptest! {
    #[test]
    fn the_order_is_that_of_the_plain_rule(events in prop::collection::vec(event(), 1..200)) {
        let (mut waiting, mut plain) = (Waiting::default(), Plain::default());
        for (number, event) in (0..).zip(events) {
            match event {
                Event::Add(key) => {
                    // What comes again takes the place of the first, at the end of the line.
                    let before = waiting.remove(&key);
                    prop_assert_eq!(before.into_iter().collect::<Vec<_>>(), plain.remove_where(|k| *k == key));
                    plain.add(&key, number);
                    waiting.add(key, number);
                }
                Event::Next { has_room } => {
                    let (found, expected) = (waiting.next(), plain.next());
                    let seen = found.as_ref().map(|ticket| (ticket.key.clone(), ticket.item));
                    prop_assert_eq!(&seen, &expected);
                    if let (Some(ticket), Some((key, item))) = (found, expected) {
                        if has_room {
                            waiting.began(&key.1);
                            plain.began(key.1);
                        } else {
                            waiting.put_back(ticket);
                            plain.put_back(key, item);
                        }
                    }
                }
                Event::InTurn(most) => prop_assert_eq!(waiting.in_turn(most), plain.in_turn(most)),
                Event::Remove(key) => {
                    let found: Vec<u32> = waiting.remove(&key).into_iter().collect();
                    prop_assert_eq!(found, plain.remove_where(|k| *k == key));
                }
                Event::RemoveBefore(round) => {
                    let (mut found, mut expected) =
                        (waiting.remove_before(round), plain.remove_where(|key| key.0 < round));
                    found.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(found, expected);
                }
                Event::End(ended) => {
                    for (agent, ended) in ended.into_iter().enumerate() {
                        let count = plain.running.entry(name(agent)).or_default();
                        *count = count.saturating_sub(ended);
                    }
                    let all = plain.running.iter().flat_map(|(agent, &n)| std::iter::repeat_n(agent, n));
                    waiting.runs(all);
                }
            }
            prop_assert_eq!(waiting.len(), plain.len());
        }
        // Whatever is left begins in the same order too, and nothing stays behind.
        while let Some((key, item)) = plain.next() {
            let ticket = waiting.next().unwrap();
            prop_assert_eq!((&ticket.key, ticket.item), (&key, item));
            waiting.began(&key.1);
            plain.began(key.1);
        }
        prop_assert!(waiting.is_empty() && waiting.next().is_none());
        prop_assert!(waiting.lines.is_empty() && waiting.turns.is_empty());
        prop_assert!(waiting.first.is_none());
    }
}

/// One text at a time, four agents that always want more: each has its turn before anybody has another.
#[test]
fn equals_take_turns() {
    let mut waiting = Waiting::default();
    (0..12)
        .for_each(|episode| (0..4).for_each(|agent| waiting.add((0, name(agent), episode), agent)));
    let mut taken = Vec::new();
    for _ in 0..12 {
        let ticket = waiting.next().unwrap();
        waiting.began(&ticket.key.1);
        waiting.runs(std::iter::empty());
        taken.push(ticket.item);
    }
    assert_eq!(taken, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
}

/// It is the next one until it has begun or was taken back, whoever comes meanwhile.
#[test]
fn what_found_no_room_is_not_overtaken() {
    let mut waiting = Waiting::default();
    let large = (0, name(3), 0);
    waiting.add(large.clone(), 3);
    for episode in 0..3 {
        let ticket = waiting.next().unwrap();
        assert_eq!(ticket.item, 3);
        waiting.put_back(ticket);
        waiting.add((0, name(0), episode), 0);
        waiting.add((0, name(3), 1 + episode), 4);
        waiting.runs([name(3)].iter());
    }
    assert_eq!(waiting.remove(&large), Some(3));
    waiting.add(large, 3);
    assert_eq!(waiting.next().unwrap().item, 0, "it came again, at the end of its line");
}

/// However often those before it in the alphabet come again.
#[test]
fn nobody_is_passed_over_twice() {
    let mut waiting = Waiting::default();
    let mut taken = Vec::new();
    for episode in 0..4 {
        for agent in 0..3 {
            waiting.add((0, name(agent), episode), agent);
        }
        taken.push(waiting.in_turn(2));
    }
    assert_eq!(taken, [[0, 1], [2, 0], [1, 2], [0, 1]]);
}
