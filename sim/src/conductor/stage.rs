//! All that the conductor decides: what happened goes in, orders come out. No actor, no clock, no disk.
//!
//! A tick closes when every agent that was asked has answered; only then are answers taken in, in the
//! order of their episodes, so nothing depends on who was faster.

mod faults;
mod learning;
mod meeting;
mod probes;
mod snapshot;
mod supervision;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use agents::name::AgentName;
use agents::seed::Seed;

pub use self::snapshot::{Moment, Snapshot};
use super::episode::Episode;
use super::holdout::Holdout;
pub use super::learner::Member;
use super::learner::RunningJobs;
pub use super::order::Order;
use super::oversight::{Awaited, Oversight};
use crate::event::{AgentCard, Event, EventKind, Phase};
use crate::flood::Breaker;
use crate::scenario::{FaultKind, Scenario};
use crate::task::Task;
use crate::topology::Floor;
use crate::training::examples::Experiences;
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
    floor: Floor,
    phase: Phase,
    tick: u64,
    events: Vec<Event>,
    next_seq: u64,
    active: BTreeMap<u64, Episode>,
    /// Answers that the open announcement still waits for.
    missing: usize,
    breaker: Breaker,
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
    /// Whether its end was told.
    finished: bool,
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
        let models = members.values().filter_map(|member| member.plan.model());
        let most = models.map(|model| model.warm_up.examples_per_intent).max();
        let order = task.support().map(|support| support.order(most.unwrap_or(0), seed));
        let (demonstrations, stream) = order.unwrap_or_default();
        let floor = Floor::new(&scenario);
        let triggers = scenario.triggers.iter().map(|plan| Trigger::new(plan.when)).collect();
        Self {
            scenario,
            task,
            seed,
            members,
            floor,
            phase: Phase::Transfer,
            tick: 0,
            events: Vec::new(),
            next_seq: 0,
            active: BTreeMap::new(),
            missing: 0,
            breaker: Breaker::default(),
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
            finished: false,
        }
    }

    /// Events since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The agents in speaking order.
    fn cards(&self) -> Vec<AgentCard> {
        let names = self.floor.names().iter();
        names.filter_map(|name| Some(self.members.get(name)?.card(name))).collect()
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
            _ => self.task.holdout() as u64,
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

    /// Opens a last tick, in which the run ends early.
    pub fn stop(&mut self) -> Vec<Order> {
        self.tick += 1;
        self.finish(true)
    }

    /// Opens the next tick: begins episodes where there is room, and lets everyone speak who is due.
    pub fn open_tick(&mut self) -> Vec<Order> {
        self.tick += 1;
        self.breaker.begin(self.tick);
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

    fn next_phase(&mut self) -> Vec<Order> {
        let Some(support) = self.task.support() else { return self.finish(false) };
        match self.phase {
            Phase::Play => self.enter(Phase::After),
            Phase::Transfer => self.enter(Phase::Before),
            Phase::Before | Phase::After => {
                self.probes = support.probes();
                self.begun = 0;
                self.probing = true;
                self.open_probes()
            }
        }
    }

    fn end_holdout(&mut self) -> Vec<Order> {
        let (phase, scores) = (self.phase, self.holdout.scores());
        self.emit(EventKind::HoldoutScored { phase, scores });
        if phase == Phase::Before { self.enter(Phase::Play) } else { self.finish(false) }
    }

    fn finish(&mut self, stopped: bool) -> Vec<Order> {
        let models = self.members.iter().filter(|(_, member)| member.model().is_some());
        let generations = models.map(|(name, m)| (name.clone(), m.generation())).collect();
        let episodes = self.played;
        self.emit(EventKind::RunFinished { episodes, stopped, generations });
        self.finished = true;
        vec![Order::Finish(self.tick)]
    }
}
