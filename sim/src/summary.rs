//! What a run came to: a fold over its events, written as `summary.json` and shown at the end.
//!
//! Sees events and nothing else, so a recording gives the same summary as the live run.

use std::collections::{BTreeMap, VecDeque};

use agents::adapter::Generation;
use agents::name::AgentName;
use serde::{Deserialize, Serialize};

use crate::event::{Event, EventKind, Phase, Scores};

/// Episodes at either end of play whose rewards are compared.
const WINDOW: usize = 64;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Training episodes played to the end.
    pub episodes: u64,
    /// Whether a person ended it early.
    pub stopped: bool,
    /// Ticks of virtual time.
    pub ticks: u64,
    /// Holdout scores before play.
    pub before: Option<Scores>,
    /// Holdout scores after play.
    pub after: Option<Scores>,
    /// Mean reward of the first episodes of play.
    pub reward_first: Option<f64>,
    /// Mean reward of the last.
    pub reward_last: Option<f64>,
    /// Episodes in each of those means.
    pub reward_window: usize,
    /// What each agent went through.
    pub agents: BTreeMap<AgentName, AgentSummary>,
    /// Restarts of the engine.
    #[serde(default)]
    pub engine_restarts: u32,
    /// Restarts of the trainer.
    #[serde(default)]
    pub trainer_restarts: u32,
    /// What talk came to, where agents just talked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub talk: Option<TalkSummary>,
    #[serde(skip)]
    phase: Option<Phase>,
    /// Rewards count only while the society plays to learn.
    #[serde(skip)]
    rewards: Rewards,
    #[serde(skip)]
    jobs: BTreeMap<u64, (AgentName, String)>,
}

/// What talk came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TalkSummary {
    /// Episodes that ended.
    pub episodes: u64,
    /// Messages that were sent.
    pub messages: u64,
    /// Listeners that they reached, all together.
    pub deliveries: u64,
    /// Listeners that the channel kept them from.
    pub lost: u64,
    /// Listeners that had no room for them.
    pub refused: u64,
    /// Times that an agent was silenced.
    pub silenced: u64,
    /// Mean over episodes of the share of the commonest last words.
    pub agreement: f64,
}

/// The rewards at either end of play, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Rewards {
    count: usize,
    first: Vec<f64>,
    last: VecDeque<f64>,
}

impl Rewards {
    fn push(&mut self, reward: f64) {
        self.count += 1;
        if self.first.len() < WINDOW {
            self.first.push(reward);
        }
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        self.last.push_back(reward);
    }
}

/// A summary in the middle of its run, with all that the rest of the fold needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unfinished {
    shown: Summary,
    phase: Option<Phase>,
    rewards: Rewards,
    jobs: BTreeMap<u64, (AgentName, String)>,
}

impl From<&Summary> for Unfinished {
    fn from(summary: &Summary) -> Self {
        let (rewards, jobs) = (summary.rewards.clone(), summary.jobs.clone());
        Self { shown: summary.clone(), phase: summary.phase, rewards, jobs }
    }
}

impl From<Unfinished> for Summary {
    fn from(unfinished: Unfinished) -> Self {
        let Unfinished { shown, phase, rewards, jobs } = unfinished;
        Self { phase, rewards, jobs, ..shown }
    }
}

/// What an agent went through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentSummary {
    /// How it was transferred.
    pub transfer: String,
    /// How many numbers it trains.
    pub trainable: usize,
    /// The last version of its weights.
    pub generation: Generation,
    /// Finished jobs by objective.
    pub jobs: BTreeMap<String, u32>,
    /// Optimiser steps, warm-up included.
    pub steps: u64,
    /// Jobs that were thrown away.
    pub rolled_back: u32,
    /// Restarts of its actor.
    pub restarts: u32,
    /// Turns that passed without a message.
    #[serde(default)]
    pub skipped: u64,
    /// Times that it was silenced because it said too much.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub silenced: u64,
    /// Whether it failed too often, and the society went on without it.
    #[serde(default)]
    pub quarantined: bool,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Summary {
    /// Takes an event in.
    pub fn apply(&mut self, event: &Event) {
        self.ticks = event.tick;
        match &event.kind {
            EventKind::RunStarted { scenario, seed, agents, .. } => {
                self.scenario.clone_from(scenario);
                self.seed = *seed;
                for card in agents {
                    let own = self.agent(&card.name);
                    own.transfer.clone_from(&card.transfer);
                    own.trainable = card.trainable;
                }
            }
            EventKind::EpisodeFinished { reward, .. } if self.phase == Some(Phase::Play) => {
                self.rewards.push(*reward);
            }
            EventKind::TalkFinished { agreement, .. } => {
                let talk = self.talk.get_or_insert_default();
                talk.episodes += 1;
                talk.agreement += (agreement - talk.agreement) / talk.episodes as f64;
            }
            EventKind::MessageDelivered { to, lost, refused, .. } => {
                if let Some(talk) = &mut self.talk {
                    talk.messages += 1;
                    talk.deliveries += to.len() as u64;
                    talk.lost += lost.len() as u64;
                    talk.refused += refused.len() as u64;
                }
            }
            EventKind::AgentSilenced { agent, .. } => {
                self.agent(agent).silenced += 1;
                if let Some(talk) = &mut self.talk {
                    talk.silenced += 1;
                }
            }
            EventKind::PhaseStarted { phase, .. } => {
                // Only talk begins with play.
                if *phase == Phase::Play && self.phase.is_none() {
                    self.talk = Some(TalkSummary::default());
                }
                self.phase = Some(*phase);
            }
            EventKind::TrainingStarted { job, agent, objective, .. } => {
                self.jobs.insert(*job, (agent.clone(), objective.clone()));
            }
            EventKind::TrainingStepped { agent, .. } => self.agent(agent).steps += 1,
            EventKind::GenerationPublished { agent, generation, job, .. } => {
                let objective = self.jobs.get(job).map(|(_, objective)| objective.clone());
                let own = self.agent(agent);
                own.generation = *generation;
                if let Some(objective) = objective {
                    *own.jobs.entry(objective).or_default() += 1;
                }
            }
            EventKind::TrainingRolledBack { agent, .. } => self.agent(agent).rolled_back += 1,
            EventKind::AgentRestarted { agent, .. } => self.agent(agent).restarts += 1,
            EventKind::AgentQuarantined { agent, .. } => self.agent(agent).quarantined = true,
            EventKind::TurnSkipped { agent, .. } => self.agent(agent).skipped += 1,
            EventKind::EngineRestarted { .. } => self.engine_restarts += 1,
            EventKind::TrainerRestarted { .. } => self.trainer_restarts += 1,
            EventKind::HoldoutScored { phase, scores } => {
                let slot = if *phase == Phase::Before { &mut self.before } else { &mut self.after };
                *slot = Some(scores.clone());
            }
            EventKind::RunFinished { episodes, stopped, .. } => {
                self.close_play();
                self.episodes = *episodes;
                self.stopped = *stopped;
            }
            EventKind::TransferFinished { .. }
            | EventKind::EpisodeFinished { .. }
            | EventKind::EpisodeStarted { .. }
            | EventKind::TriggerFired { .. }
            | EventKind::AgentFailed { .. }
            | EventKind::FaultInjected { .. }
            | EventKind::ReplyRejected { .. }
            | EventKind::EngineFailed { .. }
            | EventKind::TrainerFailed { .. }
            | EventKind::RecordingPaused { .. }
            | EventKind::RecordingResumed { .. }
            | EventKind::SocietyRestarted { .. } => {}
        }
    }

    fn agent(&mut self, name: &AgentName) -> &mut AgentSummary {
        self.agents.entry(name.clone()).or_default()
    }

    fn close_play(&mut self) {
        let Rewards { count, first, last } = &self.rewards;
        if *count == 0 {
            return;
        }
        self.reward_window = WINDOW.min(*count);
        self.reward_first = Some(first.iter().sum::<f64>() / first.len() as f64);
        self.reward_last = Some(last.iter().sum::<f64>() / last.len() as f64);
    }
}
