//! The learning side of the stage: which jobs run, for whom, and what becomes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use agents::adapter::Adapter;
use agents::name::AgentName;
use agents::seed::Seed;
use agents::transfer::{self, Demonstration};

use crate::agent::Role;
use crate::scenario::{AgentPlan, WarmUpPlan};
use crate::training::trainer::NewJob;
use agents::backbone::Backbone;
use agents::error::Result;
use agents::learning::job::{JobSpec, Lesson};
use agents::learning::objective::supervised::Examples;

/// An agent as the conductor knows it.
#[derive(Debug)]
pub struct Member {
    /// What the scenario says of it.
    pub plan: AgentPlan,
    /// Its role.
    pub role: Role,
    /// The network it shares.
    pub backbone: Arc<Backbone>,
    /// The last published version of its weights.
    pub adapter: Arc<Adapter>,
}

/// A job that runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) agent: AgentName,
    pub(super) examples: usize,
    pub(super) steps: usize,
    pub(super) first_loss: Option<f64>,
    pub(super) last_loss: f64,
    /// What it was begun with and where it stands: enough to bring it back.
    pub(super) begun: NewJob,
}

/// Jobs in progress, by number.
pub(super) type RunningJobs = BTreeMap<u64, Running>;

impl Member {
    /// The first lesson of an agent, from demonstrations.
    pub(super) fn warm_up(
        &self,
        demonstrations: &[Demonstration],
        seed: Seed,
    ) -> Result<Option<JobSpec>> {
        let tokenizer = &self.backbone.tokenizer;
        let examples = match self.role {
            Role::Understand => {
                Examples::Classes(transfer::intent_examples(tokenizer, demonstrations)?)
            }
            Role::Reply => Examples::Texts(transfer::reply_examples(tokenizer, demonstrations)?),
            Role::Evaluate => {
                Examples::Classes(transfer::verdict_examples(tokenizer, demonstrations)?)
            }
        };
        let WarmUpPlan { steps, batch, learning_rate, settings, .. } = self.plan.warm_up;
        if examples.is_empty() || steps == 0 {
            return Ok(None);
        }
        let lesson = Lesson::Supervised(examples);
        Ok(Some(JobSpec { lesson, steps, batch, learning_rate, settings, seed }))
    }
}
