//! Where agents meet: episodes begin, what was said crosses the channel into mailboxes, protocols say what is
//! next, and episodes end with their scores.

use std::sync::Arc;

use agents::name::AgentName;
use agents::prompt::provenance::Origin;

use super::{HOLDOUT_WIDTH, Order, Stage};
use crate::channel::impairment::Fate;
use crate::channel::{Measure, cross};
use crate::conductor::episode::{Asked, Episode, Reply};
use crate::event::{EventKind, Phase, Said, Spoken};
use crate::protocol::{Conversation, Protocol as _, Step};
use crate::task::{Item, Support, Task};
use crate::topology::Seat;
use crate::training::examples::Experience;

/// Who was sent a message, and what became of it.
#[derive(Debug, Default)]
struct Sent {
    to: Vec<AgentName>,
    lost: Vec<AgentName>,
    refused: Vec<AgentName>,
    delay: u64,
}

impl Stage {
    /// Begins episodes where there is room.
    pub(super) fn begin_episodes(&mut self) {
        let (width, total) = match self.phase {
            Phase::Play => (self.scenario.concurrent_episodes, self.scenario.episodes as usize),
            _ => (HOLDOUT_WIDTH, self.task.holdout()),
        };
        while self.active.len() < width && self.begun < total {
            let item = match (&*self.task, self.phase) {
                (Task::Talk(talk), _) => self.begun % talk.len(),
                (Task::Support(_), Phase::Play) => self.stream[self.begun % self.stream.len()],
                (Task::Support(_), _) => self.begun,
            };
            self.begun += 1;
            let id = self.next_episode;
            self.next_episode += 1;
            let query = self.query(item).to_owned();
            self.emit(EventKind::EpisodeStarted { episode: id, item, query });
            let mut episode = self.episode(item);
            let steps = episode.protocol.begin(&self.floor);
            self.follow(id, episode, steps);
        }
    }

    /// An episode before its first turn.
    pub(super) fn episode(&self, item: usize) -> Episode {
        Episode::new(item, Conversation::new(&self.scenario.protocol), self.floor.len())
    }

    /// What an episode of the present part begins with.
    pub(super) fn query(&self, item: usize) -> &str {
        match &*self.task {
            Task::Support(support) => &self.item(support, item).query,
            Task::Talk(talk) => talk.opening(item),
        }
    }

    fn item<'t>(&self, support: &'t Support, index: usize) -> &'t Item {
        match self.phase {
            Phase::Play => &support.train[index],
            _ => &support.holdout[index],
        }
    }

    /// Follows a protocol's steps; an episode that ends is scored.
    fn follow(&mut self, id: u64, mut episode: Episode, steps: Vec<Step>) {
        if episode.follow(steps) {
            self.active.insert(id, episode);
        } else {
            self.end_episode(id, &episode);
        }
    }

    /// Takes in the answers of the tick, episode by episode.
    pub(super) fn close_tick(&mut self) -> Vec<Order> {
        let answered = |episode: &Episode| episode.asked.iter().any(|a| a.answer.is_some());
        let episodes = self.active.iter().filter(|(_, episode)| answered(episode));
        for id in episodes.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Err(reason) = self.take_in(id) {
                return vec![Order::Fail(reason)];
            }
        }
        if self.jobs.is_empty() { self.end_tick() } else { self.train() }
    }

    /// Takes in the answers of an episode, in the order of its turns.
    fn take_in(&mut self, id: u64) -> Result<(), String> {
        let Some(mut episode) = self.active.remove(&id) else { return Ok(()) };
        for asked in std::mem::take(&mut episode.asked) {
            if asked.answer.is_none() {
                // It waits for what is on its way to it.
                episode.asked.push(asked);
                continue;
            }
            let seat = asked.seat;
            let turn = asked.turn;
            self.deliver(id, &mut episode, asked)?;
            let said = episode.said.get(turn as usize).cloned().flatten();
            let steps = episode.protocol.heard(seat, said.as_deref(), &self.floor);
            if !episode.follow(steps) {
                self.end_episode(id, &episode);
                return Ok(());
            }
        }
        // What was asked for anew comes after what still waits.
        episode.asked.sort_by_key(|asked| asked.turn);
        self.active.insert(id, episode);
        Ok(())
    }

    /// Lets an answer cross the channel into the mailboxes of who hears it.
    fn deliver(&mut self, id: u64, episode: &mut Episode, asked: Asked) -> Result<(), String> {
        let Asked { turn, seat, heard, answer, .. } = asked;
        let from = self.floor.name(seat).clone();
        let (generation, said) = match answer {
            Some(Reply::Said(generation, said)) => (generation, said),
            Some(Reply::Rejected(reason) | Reply::Silent(reason)) => {
                self.skip(id, turn, from, reason);
                return Ok(());
            }
            None => return Ok(()),
        };
        let member = self.members.get(&from).and_then(|member| member.model());
        let measure =
            member.map_or(Measure::Words, |model| Measure::Tokens(&model.backbone.tokenizer));
        let crossed = cross(&self.scenario.channel, measure, said).map_err(|e| e.to_string())?;
        let (tokens, cut, said) = (crossed.tokens, crossed.cut, crossed.said);
        if let Some(reason) = self.silences(seat, &said, tokens) {
            self.skip(id, turn, from, reason);
            return Ok(());
        }
        let Sent { to, lost, refused, delay } = self.send(id, episode, seat, turn);
        let origin = Origin::Agent(from.clone());
        episode.said[turn as usize] = Some(Spoken::new(origin, said.clone()));
        episode.seated[seat].last = Some(turn);
        self.emit(EventKind::MessageDelivered {
            episode: id,
            turn,
            from,
            to,
            lost,
            refused,
            delay,
            generation,
            heard: heard.unwrap_or_default(),
            said,
            tokens,
            cut,
        });
        Ok(())
    }

    fn skip(&mut self, episode: u64, turn: u32, agent: AgentName, reason: String) {
        self.emit(EventKind::TurnSkipped { episode, turn, agent, reason });
    }

    /// Whether the flood breaker holds a message back, and why.
    fn silences(&mut self, seat: Seat, said: &Said, tokens: usize) -> Option<String> {
        if let Some(until) = self.breaker.silence(seat, self.tick) {
            return Some(silence(until));
        }
        let words = match said {
            Said::Text { text } => text,
            Said::Label { label, .. } => label,
            Said::Verdict { .. } => "",
        };
        let plan = self.scenario.flood;
        let flood = self.breaker.say(&plan, seat, words, tokens, self.tick)?;
        let agent = self.floor.name(seat).clone();
        let (limit, until) = (flood.limit.to_owned(), flood.until);
        let (most, found) = (flood.most, flood.found);
        self.emit(EventKind::AgentSilenced { agent, limit, most, found, until });
        Some(silence(until))
    }

    /// Puts a message into the mailboxes of its listeners.
    fn send(&self, id: u64, episode: &mut Episode, seat: Seat, turn: u32) -> Sent {
        let seed = |what: &str| self.seed.child(what).index(id).index(u64::from(turn));
        let draw = || seed("listeners");
        let listeners = episode.protocol.listeners(seat, &self.floor, &draw);
        let plan = &self.scenario.channel;
        let mut fate = Fate::new(&plan.impair, &|| seed("channel"));
        let mut sent = Sent { delay: fate.delay(), ..Sent::default() };
        // What is said in a tick can be read in the next.
        let due = self.tick + 1 + sent.delay;
        for &listener in listeners.iter() {
            let name = self.floor.name(listener).clone();
            if fate.loses() {
                sent.lost.push(name);
            } else if episode.seated[listener].mailbox.put(seat, turn, due, plan.credits) {
                sent.to.push(name);
            } else {
                sent.refused.push(name);
            }
        }
        sent
    }

    fn end_episode(&mut self, id: u64, episode: &Episode) {
        let task = Arc::clone(&self.task);
        match &*task {
            Task::Support(support) => self.end_support(id, episode, support),
            Task::Talk(_) => {
                let (most, agreement) = episode.agreement();
                self.emit(EventKind::TalkFinished { episode: id, most, agreement });
                self.played += 1;
            }
        }
    }

    fn end_support(&mut self, id: u64, episode: &Episode, support: &Support) {
        let item = self.item(support, episode.item);
        let intent = support.labels[item.intent].clone();
        let result = episode.result(item, &intent);
        self.emit(EventKind::EpisodeFinished {
            episode: id,
            intent,
            intent_correct: result.outcome.intent_correct,
            reward: result.outcome.reward,
            resolved: result.resolved,
            verdict: result.verdict,
        });
        if self.phase != Phase::Play {
            self.holdout.episode(result.outcome.intent_correct, result.resolved);
            self.holdout.understood(episode.item, &episode.said);
            return;
        }
        self.played += 1;
        self.experiences.push(Experience {
            item: episode.item,
            topic: result.topic,
            reply: result.reply,
            reward: result.outcome.reward,
        });
        for index in 0..self.triggers.len() {
            if let Some(value) = self.triggers[index].observe(&result.outcome) {
                self.fire(index, value);
            }
        }
    }
}

/// Why a silenced agent says nothing.
pub(super) fn silence(until: u64) -> String {
    format!("it said too much, and is silenced until tick {until}")
}
