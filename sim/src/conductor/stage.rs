//! All that the conductor decides: what happened goes in, orders come out. No actor, no clock, no disk.
//!
//! A tick closes when every agent that was asked has answered; only then are answers taken in, in the
//! order of their episodes, so nothing depends on who was faster.

mod faults;
mod learning;
mod probes;
mod snapshot;
mod supervision;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use agents::name::AgentName;
use agents::seed::Seed;

pub use self::snapshot::{Moment, Snapshot};
use super::episode::{Episode, Reply};
use super::holdout::Holdout;
pub use super::learner::Member;
use super::learner::RunningJobs;
pub use super::order::Order;
use super::oversight::{Awaited, Oversight};
use crate::agent::Role;
use crate::channel::cross;
use crate::event::{AgentCard, Event, EventKind, Phase};
use crate::protocol::{self, Protocol as _, Step};
use crate::scenario::{FaultKind, Scenario};
use crate::task::{Item, Task};
use crate::training::examples::{Experience, Experiences};
use crate::training::trainer::NewJob;
use crate::training::trigger::Trigger;

/// Holdout queries and probes that are played side by side.
pub(crate) const HOLDOUT_WIDTH: usize = 96;
/// Episode numbers from here on are probes of the evaluator.
const PROBES: u64 = 1 << 40;

/// The state of a run.
#[derive(Debug)]
pub struct Stage {
    scenario: Arc<Scenario>,
    task: Arc<Task>,
    seed: Seed,
    members: BTreeMap<AgentName, Member>,
    phase: Phase,
    tick: u64,
    events: Vec<Event>,
    next_seq: u64,
    active: BTreeMap<u64, Episode>,
    next_episode: u64,
    /// Items of the present phase that were begun.
    begun: usize,
    played: u64,
    demonstrations: Vec<usize>,
    stream: Vec<usize>,
    holdout: Holdout,
    /// Pairs of a query and a reply that wait for the evaluator: item, reply, whether it is right.
    probes: Vec<(usize, String, bool)>,
    probing: bool,
    experiences: Experiences,
    triggers: Vec<Trigger>,
    jobs: RunningJobs,
    next_job: u64,
    begin: Vec<NewJob>,
    oversight: Oversight,
    stopped: bool,
}

impl Stage {
    /// A run before its first tick.
    #[must_use]
    pub fn new(
        scenario: Arc<Scenario>,
        task: Arc<Task>,
        members: BTreeMap<AgentName, Member>,
    ) -> Self {
        let seed = Seed::new(scenario.seed);
        let most = members.values().map(|m| m.plan.warm_up.examples_per_intent).max();
        let (demonstrations, stream) = task.order(most.unwrap_or(0), seed);
        let triggers = scenario.triggers.iter().map(|plan| Trigger::new(plan.when)).collect();
        Self {
            scenario,
            task,
            seed,
            members,
            phase: Phase::Transfer,
            tick: 0,
            events: Vec::new(),
            next_seq: 0,
            active: BTreeMap::new(),
            next_episode: 0,
            begun: 0,
            played: 0,
            demonstrations,
            stream,
            holdout: Holdout::default(),
            probes: Vec::new(),
            probing: false,
            experiences: Experiences::default(),
            triggers,
            jobs: RunningJobs::new(),
            next_job: 0,
            begin: Vec::new(),
            oversight: Oversight::default(),
            stopped: false,
        }
    }

    /// Events since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn cards(&self) -> Vec<AgentCard> {
        let card = |(name, member): (&AgentName, &Member)| AgentCard {
            name: name.clone(),
            transfer: member.plan.transfer.name().to_owned(),
            backbone: member.plan.backbone.clone(),
            trainable: member.adapter.trainable(),
        };
        let mut cards: Vec<AgentCard> = self.members.iter().map(card).collect();
        cards.sort_by_key(|card| match self.members[&card.name].role {
            Role::Understand => 0,
            Role::Reply => 1,
            Role::Evaluate => 2,
        });
        cards
    }

    fn emit(&mut self, kind: EventKind) {
        self.events.push(Event { seq: self.next_seq, tick: self.tick, kind });
        self.next_seq += 1;
    }

    fn enter(&mut self, phase: Phase) -> Vec<Order> {
        self.phase = phase;
        self.begun = 0;
        self.holdout = Holdout::default();
        self.probing = false;
        let length = match phase {
            Phase::Play => self.scenario.episodes,
            _ => self.task.holdout.len() as u64,
        };
        self.emit(EventKind::PhaseStarted { phase, length });
        self.end_tick()
    }

    /// Ends the tick; an ordered fault may strike the disk.
    fn end_tick(&mut self) -> Vec<Order> {
        self.oversight.awaited = Awaited::Nothing;
        let full = self.strike(FaultKind::DiskFull).then_some(Order::FillDisk);
        full.into_iter().chain([Order::EndTick(self.tick)]).collect()
    }

    /// Opens the next tick: begins episodes where there is room, and lets everyone speak who is due.
    pub fn open_tick(&mut self, stop: bool) -> Vec<Order> {
        self.tick += 1;
        if stop {
            self.stopped = true;
            return self.finish();
        }
        if self.phase == Phase::Transfer {
            return self.train();
        }
        if self.probing {
            return self.open_probes();
        }
        self.begin_episodes();
        if self.active.is_empty() && self.jobs.is_empty() {
            return self.next_phase();
        }
        self.open_turns()
    }

    fn begin_episodes(&mut self) {
        let (width, total) = match self.phase {
            Phase::Play => (self.scenario.concurrent_episodes, self.scenario.episodes as usize),
            _ => (HOLDOUT_WIDTH, self.task.holdout.len()),
        };
        while self.active.len() < width && self.begun < total {
            let item = match self.phase {
                Phase::Play => self.stream[self.begun % self.stream.len()],
                _ => self.begun,
            };
            self.begun += 1;
            let id = self.next_episode;
            self.next_episode += 1;
            let query = self.item(item).query.clone();
            self.emit(EventKind::EpisodeStarted { episode: id, item, query });
            let mut episode = Episode::new(item, protocol::start(&self.scenario.protocol));
            let steps = episode.protocol.begin();
            self.active.insert(id, episode);
            self.follow(id, steps);
        }
    }

    fn item(&self, index: usize) -> &Item {
        match self.phase {
            Phase::Play => &self.task.train[index],
            _ => &self.task.holdout[index],
        }
    }

    /// Takes a protocol's steps in; a finished episode is scored.
    fn follow(&mut self, id: u64, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Speak { agent, heard } => {
                    if let Some(episode) = self.active.get_mut(&id) {
                        episode.asked = Some((agent, heard));
                    }
                }
                Step::End => self.end_episode(id),
            }
        }
    }

    fn close_tick(&mut self) -> Vec<Order> {
        let answered: Vec<u64> =
            self.active.iter().filter(|(_, e)| e.answer.is_some()).map(|(id, _)| *id).collect();
        for id in answered {
            if let Err(reason) = self.deliver(id) {
                return vec![Order::Fail(reason)];
            }
        }
        if self.jobs.is_empty() { self.end_tick() } else { self.train() }
    }

    /// Lets an answer cross the channel and asks the protocol what is next.
    fn deliver(&mut self, id: u64) -> Result<(), String> {
        let Some(episode) = self.active.get_mut(&id) else { return Ok(()) };
        let (Some((from, heard)), Some(reply)) = (episode.asked.take(), episode.answer.take())
        else {
            return Ok(());
        };
        episode.rejected = 0;
        let turn = episode.said.len() as u32;
        let (generation, said) = match reply {
            Reply::Said(generation, said) => (generation, said),
            Reply::Rejected(reason) | Reply::Silent(reason) => {
                episode.said.push(None);
                let steps = episode.protocol.heard(turn, &from, None);
                self.emit(EventKind::TurnSkipped { episode: id, turn, agent: from, reason });
                self.follow(id, steps);
                return Ok(());
            }
        };
        let tokenizer = &self.members[&from].backbone.tokenizer;
        let delivered =
            cross(&self.scenario.channel, tokenizer, said).map_err(|error| error.to_string())?;
        let to = episode.protocol.listener(&from);
        episode.said.push(Some(delivered.said.clone()));
        let steps = episode.protocol.heard(turn, &from, Some(&delivered.said));
        let (tokens, cut) = (delivered.tokens, delivered.cut);
        let said = delivered.said;
        self.emit(EventKind::MessageDelivered {
            episode: id,
            turn,
            from,
            to,
            generation,
            heard,
            said,
            tokens,
            cut,
        });
        self.follow(id, steps);
        Ok(())
    }

    fn end_episode(&mut self, id: u64) {
        let Some(episode) = self.active.remove(&id) else { return };
        let item = self.item(episode.item);
        let intent = self.task.labels[item.intent].clone();
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

    fn next_phase(&mut self) -> Vec<Order> {
        match self.phase {
            Phase::Play => self.enter(Phase::After),
            Phase::Transfer => self.enter(Phase::Before),
            Phase::Before | Phase::After => {
                self.probes = self.task.probes();
                self.begun = 0;
                self.probing = true;
                self.open_probes()
            }
        }
    }

    fn end_holdout(&mut self) -> Vec<Order> {
        let (phase, scores) = (self.phase, self.holdout.scores());
        self.emit(EventKind::HoldoutScored { phase, scores });
        if phase == Phase::Before { self.enter(Phase::Play) } else { self.finish() }
    }

    fn finish(&mut self) -> Vec<Order> {
        let generation = |(n, m): (&AgentName, &Member)| (n.clone(), m.adapter.generation());
        let generations = self.members.iter().map(generation).collect();
        let (episodes, stopped) = (self.played, self.stopped);
        self.emit(EventKind::RunFinished { episodes, stopped, generations });
        vec![Order::Finish(self.tick)]
    }
}
