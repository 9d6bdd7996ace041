//! The stage between two ticks as a value, and back: what a checkpoint holds of it.
//!
//! Left out is what follows from the scenario, the task and the networks. Random streams need no place here: a
//! draw follows from the seed and from what it is for (see `seed.rs` of `agents`), never from draws before it.
//! Weights are named by their generation; jobs come along as snapshots of their own.

mod carried;

use std::collections::BTreeMap;
use std::sync::Arc;

use agents::adapter::{Adapter, Generation};
use agents::learning::job::JobSnapshot;
use agents::name::AgentName;
use serde::{Deserialize, Serialize};

use super::{Episode, Holdout, Member, PROBES, Stage};
use crate::conductor::learner::Running;
use crate::conductor::oversight::{Awaited, Oversight};
use crate::event::{Phase, Said, Spoken};
use crate::flood::Breaker;
use crate::scenario::Scenario;
use crate::task::Task;
use crate::training::examples::{Experiences, judge};
use crate::training::trainer::NewJob;
use crate::training::trigger::{Memory, Trigger};

/// The stage between two ticks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    phase: Phase,
    tick: u64,
    next_seq: u64,
    active: BTreeMap<u64, Episode>,
    breaker: Breaker,
    next_episode: u64,
    begun: usize,
    played: u64,
    holdout: Holdout,
    probing: bool,
    experiences: Experiences,
    triggers: Vec<Memory>,
    jobs: BTreeMap<u64, Learning>,
    next_job: u64,
    oversight: Oversight,
    generations: BTreeMap<AgentName, Generation>,
}

/// A job that runs, without its snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Learning {
    agent: AgentName,
    examples: usize,
    steps: usize,
    first_loss: Option<f64>,
    last_loss: f64,
}

/// Everything of the stage that a checkpoint holds.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The stage.
    pub stage: Snapshot,
    /// Jobs in progress, by number.
    pub jobs: BTreeMap<u64, Arc<JobSnapshot>>,
    /// The agents' weights.
    pub adapters: BTreeMap<AgentName, Arc<Adapter>>,
}

impl Stage {
    /// What is played.
    #[must_use]
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// The agents.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<AgentName, Member> {
        &self.members
    }

    /// The tick that is open or ended last.
    #[must_use]
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// The part of the run.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The stage as it stands; none while something is on its way.
    #[must_use]
    pub fn moment(&self) -> Option<Moment> {
        // Named one by one, so that a new field must find its place here.
        let Self {
            scenario: _,
            task: _,
            seed: _,
            members,
            floor: _,
            phase,
            tick,
            events,
            next_seq,
            active,
            missing: _,
            breaker,
            next_episode,
            begun,
            played,
            demonstrations: _,
            stream: _,
            holdout,
            probes: _,
            probing,
            experiences,
            triggers,
            jobs,
            next_job,
            begin,
            oversight,
            finished: _,
        } = self;
        let settled = events.is_empty() && begin.is_empty() && oversight.down.is_empty();
        if !settled || oversight.awaited != Awaited::Nothing {
            return None;
        }
        let mut snapshots = BTreeMap::new();
        let mut learning = BTreeMap::new();
        for (&job, running) in jobs {
            let Running { agent, examples, steps, first_loss, last_loss, begun } = running;
            snapshots.insert(job, Arc::clone(begun.snapshot.as_ref()?));
            let (agent, examples, steps) = (agent.clone(), *examples, *steps);
            let (first_loss, last_loss) = (*first_loss, *last_loss);
            learning.insert(job, Learning { agent, examples, steps, first_loss, last_loss });
        }
        let adapters: BTreeMap<AgentName, Arc<Adapter>> = members
            .iter()
            .filter_map(|(name, m)| Some((name.clone(), Arc::clone(m.adapter()?))))
            .collect();
        let generation = |(name, a): (&AgentName, &Arc<Adapter>)| (name.clone(), a.generation());
        let stage = Snapshot {
            phase: *phase,
            tick: *tick,
            next_seq: *next_seq,
            active: active.clone(),
            breaker: breaker.clone(),
            next_episode: *next_episode,
            begun: *begun,
            played: *played,
            holdout: holdout.clone(),
            probing: *probing,
            experiences: experiences.clone(),
            triggers: triggers.iter().map(|trigger| trigger.memory().clone()).collect(),
            jobs: learning,
            next_job: *next_job,
            oversight: oversight.clone(),
            generations: adapters.iter().map(generation).collect(),
        };
        Some(Moment { stage, jobs: snapshots, adapters })
    }

    /// Goes on from a snapshot; `members` have the weights that it names.
    ///
    /// # Errors
    /// When the snapshot is not one of this scenario and task.
    pub fn restored(
        scenario: Arc<Scenario>,
        task: Arc<Task>,
        members: BTreeMap<AgentName, Member>,
        snapshot: Snapshot,
        mut jobs: BTreeMap<u64, JobSnapshot>,
    ) -> Result<Self, String> {
        let mut stage = Self::new(scenario, task, members);
        snapshot.check(&stage)?;
        let Snapshot { triggers, jobs: learning, .. } = snapshot;
        stage.phase = snapshot.phase;
        stage.tick = snapshot.tick;
        stage.next_seq = snapshot.next_seq;
        stage.active = snapshot.active;
        stage.breaker = snapshot.breaker;
        stage.next_episode = snapshot.next_episode;
        stage.begun = snapshot.begun;
        stage.played = snapshot.played;
        stage.holdout = snapshot.holdout;
        stage.probing = snapshot.probing;
        if let (true, Some(support)) = (stage.probing, stage.task.support()) {
            stage.probes = support.probes();
        }
        stage.experiences = snapshot.experiences;
        stage.next_job = snapshot.next_job;
        stage.oversight = snapshot.oversight;
        for ((trigger, memory), plan) in
            stage.triggers.iter_mut().zip(triggers).zip(&stage.scenario.triggers)
        {
            *trigger = Trigger::with_memory(plan.when, memory);
        }
        let task = Arc::clone(&stage.task);
        for (job, one) in learning {
            let Learning { agent, examples, steps, first_loss, last_loss } = one;
            let missing = || format!("job {job} of {agent} is not there");
            let snapshot = jobs.remove(&job).ok_or_else(missing)?;
            let model = stage.members.get(&agent).and_then(Member::model);
            let model = model.ok_or_else(missing)?;
            let support = task.support().ok_or_else(missing)?;
            let begun = NewJob {
                job,
                device: model.device,
                backbone: Arc::clone(&model.backbone),
                adapter: Arc::clone(&model.adapter),
                spec: snapshot.spec(&judge(support)),
                snapshot: Some(Arc::new(snapshot)),
            };
            stage.begin.push(begun.clone());
            let running = Running { agent, examples, steps, first_loss, last_loss, begun };
            stage.jobs.insert(job, running);
        }
        Ok(stage)
    }
}

impl Snapshot {
    /// The tick that had ended.
    #[must_use]
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// The part of the run.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Events that had happened.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.next_seq
    }

    /// Which version of its weights each agent has.
    #[must_use]
    pub fn generations(&self) -> &BTreeMap<AgentName, Generation> {
        &self.generations
    }

    /// Whose jobs run, by number.
    pub fn learners(&self) -> impl Iterator<Item = (u64, &AgentName)> {
        self.jobs.iter().map(|(&job, learning)| (job, &learning.agent))
    }

    /// Gives an agent another version of its weights.
    pub fn set_generation(&mut self, agent: &AgentName, generation: Generation) {
        self.generations.insert(agent.clone(), generation);
    }

    /// Puts other words into a message of an episode that is in progress.
    ///
    /// # Errors
    /// When there is no such message, or it is not a text.
    pub fn edit(&mut self, episode: u64, turn: u32, text: &str) -> Result<(), String> {
        let turns = |(id, episode): (&u64, &Episode)| -> Vec<String> {
            let said = episode.said.iter().zip(0_u32..).filter(|(said, _)| said.is_some());
            said.map(|(_, turn)| format!("{id}:{turn}")).collect()
        };
        let open: Vec<String> = self.active.iter().flat_map(turns).collect();
        let said = self
            .active
            .get_mut(&episode)
            .and_then(|episode| episode.said.get_mut(turn as usize))
            .and_then(Option::as_mut);
        let Some(spoken) = said else {
            let open = if open.is_empty() { "none".to_owned() } else { open.join(", ") };
            return Err(format!(
                "there is no message {episode}:{turn} in an episode that goes on after tick {}; those are \
                 {open}",
                self.tick
            ));
        };
        let text = text.to_owned();
        let edited = match &**spoken {
            Said::Text { .. } => Said::Text { text },
            Said::Label { confidence, .. } => Said::Label { label: text, confidence: *confidence },
            Said::Verdict { .. } => {
                return Err(format!("the message {episode}:{turn} is a verdict, not words"));
            }
        };
        *spoken = Spoken::new(spoken.origin().clone(), edited);
        Ok(())
    }

    /// Whether all that it points at is there.
    fn check(&self, stage: &Stage) -> Result<(), String> {
        let items = match (&*stage.task, self.phase) {
            (Task::Talk(talk), _) => talk.len(),
            (Task::Support(support), Phase::Play) => support.train.len(),
            (Task::Support(support), _) => support.holdout.len(),
        };
        let seats = stage.floor.len();
        for (id, episode) in &self.active {
            if episode.item >= items || *id >= PROBES || !episode.fits(seats) {
                return Err(format!("episode {id} is not one of this scenario"));
            }
        }
        let train = stage.task.support().map_or(0, |support| support.train.len());
        if !self.experiences.items().all(|item| item < train) {
            return Err("its experiences are not those of this task".to_owned());
        }
        for agent in self.generations.keys() {
            if !stage.members.contains_key(agent) {
                return Err(format!("there is no agent `{agent}` in this scenario"));
            }
        }
        Ok(())
    }
}
