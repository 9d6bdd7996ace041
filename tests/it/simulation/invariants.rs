//! What must be true of every talk, told from its events alone: a second, slower account of mailboxes, credits
//! and limits, made apart from the first.

use std::collections::{BTreeMap, BTreeSet};

use agents::name::AgentName;
use sim::event::{Event, EventKind, Said};
use sim::scenario::{MindPlan, ProtocolPlan, Scenario};
use sim::script::Script;
use sim::topology::Floor;

/// A message that its listener has not read.
#[derive(Clone, Debug)]
struct Unread {
    turn: u32,
    from: AgentName,
    /// The first tick in which it can be read, if what the same speaker said before can be.
    due: u64,
}

/// An episode as its events tell it.
#[derive(Debug, Default)]
struct Talk {
    opening: String,
    /// Turns that are over.
    over: BTreeSet<u32>,
    said: BTreeMap<u32, String>,
    unread: BTreeMap<AgentName, Vec<Unread>>,
    last: BTreeMap<AgentName, String>,
    /// What those who speak in this tick read at its beginning.
    read: BTreeMap<AgentName, Vec<u32>>,
}

/// What an agent said in a tick.
#[derive(Debug, Default)]
struct Tally {
    messages: u64,
    tokens: u64,
    words: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Account {
    open: BTreeMap<u64, Talk>,
    /// Who speaks in an episode in the tick in which it begins.
    begun: BTreeMap<u64, Vec<AgentName>>,
    ended: u64,
    tick: u64,
    tallies: BTreeMap<AgentName, Tally>,
    silent: BTreeMap<AgentName, u64>,
}

macro_rules! must {
    ($holds:expr, $($words:tt)*) => {
        let holds: bool = $holds;
        if !holds {
            return Err(format!($($words)*));
        }
    };
}

/// Checks the events of a whole run of talk.
pub(super) fn check(scenario: &Scenario, events: &[Event]) -> Result<(), String> {
    let floor = Floor::new(scenario);
    let mut account = Account::default();
    let first = events.first().map(|event| &event.kind);
    must!(matches!(first, Some(EventKind::RunStarted { .. })), "it begins with {first:?}");
    for (event, seq) in events.iter().zip(0..) {
        must!(event.seq == seq, "event {seq} has the number {}", event.seq);
        must!(event.tick >= account.tick, "time goes back in event {seq}");
        if event.tick > account.tick {
            account.tick = event.tick;
            account.tallies.clear();
            let of_tick = events[seq as usize..].iter().take_while(|one| one.tick == event.tick);
            account.read_mailboxes(of_tick);
        }
        account
            .take(scenario, &floor, &event.kind)
            .map_err(|reason| format!("event {seq}: {reason}: {:?}", event.kind))?;
    }
    match events.last().map(|event| &event.kind) {
        Some(EventKind::RunFinished { episodes, stopped: false, .. }) => {
            must!(*episodes == scenario.episodes, "it played {episodes} episodes");
        }
        other => return Err(format!("it ends with {other:?}")),
    }
    must!(account.open.is_empty(), "episodes never ended: {:?}", account.open.keys());
    must!(account.ended == scenario.episodes, "{} episodes ended", account.ended);
    Ok(())
}

impl Account {
    /// All who speak in a tick read at its beginning what has arrived by then.
    fn read_mailboxes<'e>(&mut self, of_tick: impl Iterator<Item = &'e Event>) {
        for event in of_tick {
            let (episode, agent) = match &event.kind {
                EventKind::MessageDelivered { episode, from, .. } => (episode, from),
                EventKind::TurnSkipped { episode, agent, .. } => (episode, agent),
                _ => continue,
            };
            if let Some(talk) = self.open.get_mut(episode) {
                talk.read_mailbox(agent, self.tick);
            } else {
                // It begins in this tick, so nothing can have arrived.
                self.begun.entry(*episode).or_default().push(agent.clone());
            }
        }
    }

    fn take(&mut self, scenario: &Scenario, floor: &Floor, kind: &EventKind) -> Result<(), String> {
        match kind {
            EventKind::EpisodeStarted { episode, query, .. } => {
                let speakers = self.begun.remove(episode).unwrap_or_default().into_iter();
                let read = speakers.map(|agent| (agent, Vec::new())).collect();
                let talk = Talk { opening: query.clone(), read, ..Talk::default() };
                must!(self.open.insert(*episode, talk).is_none(), "it was open");
                must!(self.open.len() <= scenario.concurrent_episodes, "too many are open");
            }
            EventKind::MessageDelivered { .. } => self.message(scenario, floor, kind)?,
            EventKind::TurnSkipped { episode, turn, agent, .. } => {
                let talk = self.open.get_mut(episode).ok_or("no such episode")?;
                must!(talk.over.insert(*turn), "the turn is over");
                must!(talk.read.remove(agent).is_some(), "it was not asked in this tick");
            }
            EventKind::AgentSilenced { agent, found, most, until, .. } => {
                must!(found > most, "the limit was not passed");
                must!(*until == self.tick + scenario.flood.silence_ticks, "a wrong length");
                self.silent.insert(agent.clone(), *until);
            }
            EventKind::TalkFinished { episode, most, agreement } => {
                let talk = self.open.remove(episode).ok_or("no such episode")?;
                let turns = scenario.protocol.turns(floor.len());
                let all: BTreeSet<u32> = (0..turns as u32).collect();
                must!(talk.over == all, "turns {:?} of {turns}", talk.over);
                let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
                talk.last.values().for_each(|words| *counts.entry(words).or_default() += 1);
                let best = counts.values().copied().max().unwrap_or(0);
                let share = best as f64 / talk.last.len().max(1) as f64;
                must!((share - agreement).abs() < 1e-12, "agreement is {share}");
                let count = most.as_ref().and_then(|most| counts.get(most)).copied().unwrap_or(0);
                must!(count == best, "{most:?} is not the commonest");
                self.ended += 1;
            }
            EventKind::EpisodeFinished { .. } | EventKind::TrainingStarted { .. } => {
                return Err("nobody learns here, and nothing is right or wrong".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn message(
        &mut self,
        scenario: &Scenario,
        floor: &Floor,
        kind: &EventKind,
    ) -> Result<(), String> {
        let EventKind::MessageDelivered {
            episode,
            turn,
            from,
            to,
            lost,
            refused,
            delay,
            heard,
            said: Said::Text { text },
            tokens,
            ..
        } = kind
        else {
            return Err("a script says texts".to_owned());
        };
        let plan = &scenario.channel;
        must!(self.silent.get(from).is_none_or(|until| *until < self.tick), "it is silenced");
        must!(*tokens <= plan.max_tokens, "it is too long");
        must!(text.split_whitespace().count() == *tokens, "it has other words");
        must!(*delay <= plan.impair.delay_ticks, "it is too late");
        must!(plan.impair.loss > 0.0 || lost.is_empty(), "nothing can be lost");
        must!(plan.impair.loss < 1.0 || to.len() + refused.len() == 0, "all must be lost");
        self.tally(scenario, from, *tokens, text)?;

        let seat = floor.names().iter().position(|name| name == from).ok_or("a stranger")?;
        let near: BTreeSet<&AgentName> = match scenario.protocol {
            ProtocolPlan::Pipeline { .. } => floor.names().iter().skip(seat + 1).collect(),
            _ => floor.listeners(seat).iter().map(|&seat| floor.name(seat)).collect(),
        };
        let sent: Vec<&AgentName> = to.iter().chain(lost).chain(refused).collect();
        let distinct: BTreeSet<&AgentName> = sent.iter().copied().collect();
        must!(distinct.len() == sent.len(), "somebody is told twice");
        must!(distinct.is_subset(&near), "somebody cannot hear it");
        let many = match scenario.protocol {
            ProtocolPlan::Gossip { fanout, .. } => fanout.min(near.len()),
            _ => near.len(),
        };
        must!(sent.len() == many, "{many} should be told");

        let tick = self.tick;
        let talk = self.open.get_mut(episode).ok_or("no such episode")?;
        must!(talk.over.insert(*turn), "the turn is over");
        let read = talk.read.remove(from);
        must!(Some(heard) == read.as_ref(), "it should have heard {read:?}");
        let MindPlan::Script(script) = &scenario.agents[from].mind else {
            return Err("it has a model".to_owned());
        };
        talk.meant(script, heard, plan.max_tokens, text)?;
        for (listener, is_refused) in
            to.iter().map(|l| (l, false)).chain(refused.iter().map(|l| (l, true)))
        {
            let unread = talk.unread.entry(listener.clone()).or_default();
            let own = unread.iter().filter(|one| one.from == *from);
            let count = own.clone().count() as u32;
            must!((count >= plan.credits) == is_refused, "{listener} has {count} unread");
            if !is_refused {
                let due = own.map(|one| one.due).max().unwrap_or(0).max(tick + 1 + delay);
                unread.push(Unread { turn: *turn, from: from.clone(), due });
            }
        }
        talk.said.insert(*turn, text.clone());
        talk.last.insert(from.clone(), text.clone());
        Ok(())
    }

    fn tally(
        &mut self,
        scenario: &Scenario,
        agent: &AgentName,
        tokens: usize,
        text: &str,
    ) -> Result<(), String> {
        let tally = self.tallies.entry(agent.clone()).or_default();
        tally.messages += 1;
        tally.tokens += tokens as u64;
        let repeats = tally.words.entry(text.to_owned()).or_default();
        *repeats += 1;
        let counts = [
            (scenario.flood.messages_per_tick, tally.messages),
            (scenario.flood.tokens_per_tick, tally.tokens),
            (scenario.flood.repeats_per_tick, *repeats),
        ];
        for (most, found) in counts {
            must!(most.is_none_or(|most| found <= most), "{found} in a tick, {most:?} allowed");
        }
        Ok(())
    }
}

impl Talk {
    /// An agent reads all that has arrived, in order.
    fn read_mailbox(&mut self, agent: &AgentName, tick: u64) {
        let unread = self.unread.entry(agent.clone()).or_default();
        let read = unread.iter().filter(|one| one.due <= tick).map(|one| one.turn).collect();
        unread.retain(|one| one.due > tick);
        self.read.insert(agent.clone(), read);
    }

    /// Whether a script without chance said what it had to.
    fn meant(&self, script: &Script, heard: &[u32], most: usize, text: &str) -> Result<(), String> {
        let last = heard.last().and_then(|turn| self.said.get(turn)).unwrap_or(&self.opening);
        let meant = match script {
            Script::Echo => last,
            Script::Fixed { text } => text,
            Script::Table { answers, otherwise } => answers.get(last).unwrap_or(otherwise),
            Script::RandomWords { .. } | Script::Voter { .. } | Script::Majority { .. } => {
                return Ok(());
            }
        };
        let meant = match meant.split_whitespace().count() > most {
            true => meant.split_whitespace().take(most).collect::<Vec<_>>().join(" "),
            false => meant.clone(),
        };
        must!(meant == text, "it should have said {meant:?}");
        Ok(())
    }
}
