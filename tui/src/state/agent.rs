//! What is known of one agent. Its waiting turns are not in here: they belong to the episodes.

use super::curve::Curve;
use super::{AgentCard, Phase, State};

/// What an agent does at the moment, the most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    /// It failed too often, and its turns are skipped.
    Quarantined,
    /// Its actor failed and is not back yet.
    Restarting,
    /// A job of its own is under way; it may speak meanwhile.
    Learning,
    /// Somebody waits for its answer.
    Speaking,
    /// Nobody waits for it.
    Waiting,
}

/// A fine-tuning job under way.
#[derive(Debug)]
pub(crate) struct Job {
    /// Its number in the run.
    pub(crate) number: u64,
    /// What it minimises.
    pub(crate) objective: String,
    /// Steps taken.
    pub(crate) step: usize,
    /// Steps to take.
    pub(crate) steps: usize,
    /// Mean reward of the last sampled replies.
    pub(crate) reward: Option<f64>,
}

impl Job {
    pub(super) fn new(number: u64, objective: &str, steps: usize) -> Self {
        Self { number, objective: objective.to_owned(), step: 0, steps, reward: None }
    }
}

/// One member of the society.
#[derive(Debug, Default)]
pub(crate) struct Agent {
    /// Its name.
    pub(crate) name: String,
    /// How it was transferred; `unknown` when its introduction was missed.
    pub(crate) transfer: String,
    /// Its backbone.
    pub(crate) backbone: String,
    /// How many numbers it trains.
    pub(crate) trainable: usize,
    /// The version of its weights in use.
    pub(crate) generation: u32,
    /// Messages it has said.
    pub(crate) turns: u64,
    /// Times its actor was started anew.
    pub(crate) restarts: u32,
    /// Whether its actor has failed and is not back yet.
    pub(crate) failed: bool,
    /// Whether the society goes on without it.
    pub(crate) quarantined: bool,
    /// Its job under way.
    pub(crate) job: Option<Job>,
    /// Jobs begun after the transfer.
    pub(crate) jobs: u32,
    /// Jobs whose weights came into use.
    pub(crate) published: u32,
    /// Jobs thrown away.
    pub(crate) rolled_back: u32,
    /// The last loss seen, of transfer or of a job.
    pub(crate) loss: Option<f64>,
    /// Loss over all steps of all of its jobs in the part of the run in which it last learned: a transfer
    /// falls so much further that it would flatten what follows.
    pub(crate) losses: Curve,
    /// That part of the run.
    learned_in: Option<Phase>,
}

impl Agent {
    pub(super) fn from_card(card: &AgentCard) -> Self {
        Self {
            name: card.name.as_str().to_owned(),
            transfer: card.transfer.clone(),
            backbone: card.backbone.clone(),
            trainable: card.trainable,
            ..Self::default()
        }
    }

    pub(super) fn stranger(name: &str) -> Self {
        Self { name: name.to_owned(), transfer: "unknown".to_owned(), ..Self::default() }
    }

    pub(super) fn step(&mut self, job: u64, step: usize, loss: f64, reward: Option<f64>) {
        self.loss = Some(loss);
        self.losses.push(loss);
        if let Some(own) = self.job.as_mut().filter(|own| own.number == job) {
            (own.step, own.reward) = (step, reward.or(own.reward));
        }
    }

    pub(super) fn begin(&mut self, job: Job, phase: Option<Phase>) {
        if self.learned_in != phase {
            (self.learned_in, self.losses) = (phase, Curve::default());
        }
        self.jobs += u32::from(phase != Some(Phase::Transfer));
        self.job = Some(job);
    }

    pub(super) fn end(&mut self, job: u64) {
        self.job.take_if(|own| own.number == job);
    }

    /// What it does, given how many wait for it.
    pub(crate) fn activity(&self, waiting: usize) -> Activity {
        if self.quarantined {
            return Activity::Quarantined;
        }
        match (self.failed, &self.job, waiting) {
            (true, ..) => Activity::Restarting,
            (_, Some(_), _) => Activity::Learning,
            (_, _, 1..) => Activity::Speaking,
            _ => Activity::Waiting,
        }
    }
}

impl State {
    /// What the agent at a position does; nothing after the run.
    pub(crate) fn activity_of(&self, position: usize) -> Activity {
        match self.agents.get(position) {
            Some(agent) if !self.run.is_over() => agent.activity(self.waiting_for(position)),
            _ => Activity::Waiting,
        }
    }
}
