//! The learning side of the stage: which jobs run, for whom, and what becomes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use agents::adapter::{Adapter, Generation};
use agents::name::AgentName;
use agents::seed::Seed;
use agents::transfer::{self, Demonstration};

use crate::agent::model::ModelMind;
use crate::agent::{Mind, Role};
use crate::event::AgentCard;
use crate::scenario::{AgentPlan, MindPlan, WarmUpPlan};
use crate::training::trainer::NewJob;
use agents::error::Result;
use agents::learning::job::{JobSpec, Lesson};
use agents::learning::objective::supervised::Examples;

/// An agent as the conductor knows it.
#[derive(Debug)]
pub struct Member {
    /// What the scenario says of it.
    pub plan: AgentPlan,
    /// What it thinks with, under the last published version of its weights.
    pub mind: Mind,
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
    /// Its model; none of a scripted agent.
    #[must_use]
    pub fn model(&self) -> Option<&ModelMind> {
        match &self.mind {
            Mind::Model(model) => Some(model),
            Mind::Script(_) => None,
        }
    }

    /// Its weights; none of a scripted agent.
    #[must_use]
    pub fn adapter(&self) -> Option<&Arc<Adapter>> {
        self.model().map(|model| &model.adapter)
    }

    /// The version of its weights; a scripted agent has the first for ever.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.adapter().map_or_else(Generation::default, |adapter| adapter.generation())
    }

    /// What is known of it from the start.
    pub(super) fn card(&self, name: &AgentName) -> AgentCard {
        let name = name.clone();
        let (transfer, backbone) = match &self.plan.mind {
            MindPlan::Model(plan) => (plan.transfer.name(), plan.backbone.clone()),
            MindPlan::Script(script) => (script.name(), String::new()),
        };
        let trainable = self.adapter().map_or(0, |adapter| adapter.trainable());
        AgentCard { name, transfer: transfer.to_owned(), backbone, trainable }
    }
}

/// The first lesson of an agent, from demonstrations.
pub(super) fn warm_up(
    plan: &WarmUpPlan,
    model: &ModelMind,
    demonstrations: &[Demonstration],
    seed: Seed,
) -> Result<Option<JobSpec>> {
    let tokenizer = &model.backbone.tokenizer;
    let examples = match model.role {
        Role::Understand => {
            Examples::Classes(transfer::intent_examples(tokenizer, demonstrations)?)
        }
        Role::Reply => Examples::Texts(transfer::reply_examples(tokenizer, demonstrations)?),
        Role::Evaluate => Examples::Classes(transfer::verdict_examples(tokenizer, demonstrations)?),
    };
    let WarmUpPlan { steps, batch, learning_rate, settings, .. } = *plan;
    if examples.is_empty() || steps == 0 {
        return Ok(None);
    }
    let lesson = Lesson::Supervised(examples);
    Ok(Some(JobSpec { lesson, steps, batch, learning_rate, settings, seed }))
}
