//! A fine-tuning job: from one generation of an adapter to the next, one step at a time.
//!
//! The first step audits the gradients. A step that leaves the finite numbers ends the job with an error,
//! and the generation it started from stays as it was: rolling back is dropping the job.

mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

pub use self::snapshot::JobSnapshot;
use super::accumulation::{Gradients, sharded, side_by_side};
use super::dropout::Dropout;
use super::gradient_audit::audit;
use super::guard::{self, Guard};
use super::objective::grpo::Grpo;
use super::objective::supervised::{Examples, Supervised};
use super::objective::{self, Aim, Portion, TextExample, Way};
use super::optimizer::{Optimizer, OptimizerSpec};
use super::schedule::{Schedule, Shape, WarmUp};
use crate::adapter::head::{MEAN, SCALE, statistics};
use crate::adapter::{Adapter, Generation};
use crate::backbone::Backbone;
use crate::error::{ModelError, Result};
use crate::seed::Seed;
use crate::writing::{Row, Text, write};

/// What a job learns from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lesson {
    /// Labels, or good replies.
    Supervised(Examples),
    /// Rewards of sampled replies.
    Grpo(Grpo),
}

impl Lesson {
    /// The objective's name in scenarios and events.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Supervised(_) => "supervised",
            Self::Grpo(_) => "grpo",
        }
    }

    /// Number of examples or prompts.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Supervised(examples) => examples.len(),
            Self::Grpo(grpo) => grpo.prompts.len(),
        }
    }

    /// Whether there is nothing to learn from.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A job as it is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobSpec {
    /// What it learns from.
    pub lesson: Lesson,
    /// Optimiser steps.
    pub steps: usize,
    /// Examples or prompts of one step.
    pub batch: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// How each step is taken.
    pub settings: Settings,
    /// Where the order of examples and all sampling come from.
    pub seed: Seed,
}

/// How each step of a job is taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The optimiser's numbers.
    pub optimizer: OptimizerSpec,
    /// How the learning rate goes over the steps.
    pub shape: Shape,
    /// Steps of rising rate before.
    pub warm_up: WarmUp,
    /// Share of a class's target that is spread over all classes; for labels only, not for replies.
    pub label_smoothing: f64,
    /// Share that is dropped of what embeddings and each sub-layer add to the residual stream.
    pub hidden_dropout: f64,
    /// How far classes are treated as equally likely, whatever their share of the examples: 0 not at all, 1
    /// fully (logit adjustment).
    pub logit_adjustment: f64,
    /// Most tokens that go forward and backward at once on one thread.
    pub micro_batch_tokens: usize,
    /// Whether activations are computed again instead of kept: less memory, more work.
    pub recompute: bool,
    /// What the job may do at most.
    #[serde(default, skip_serializing_if = "Guard::is_open")]
    pub guard: Guard,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            optimizer: OptimizerSpec::default(),
            shape: Shape::default(),
            warm_up: WarmUp::Share(0.1),
            label_smoothing: 0.0,
            hidden_dropout: 0.0,
            logit_adjustment: 0.0,
            micro_batch_tokens: 256,
            recompute: false,
            guard: Guard::default(),
        }
    }
}

/// What is known after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The step, from 1.
    pub step: usize,
    /// Its loss.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub norm: f64,
    /// Mean reward of the sampled replies, for GRPO.
    pub reward: Option<f64>,
}

/// A job in progress.
#[derive(Debug)]
pub struct Job {
    backbone: Arc<Backbone>,
    from: Arc<Adapter>,
    /// Tensors that belong to the adapter and are not trained.
    fixed: BTreeMap<String, Tensor>,
    optimizer: Optimizer,
    objective: Objective,
    schedule: Schedule,
    settings: Settings,
    batch: usize,
    seed: Seed,
    step: usize,
    audited: bool,
}

/// A step that has begun and not ended.
#[derive(Debug)]
pub(super) struct Begun {
    tracked: BTreeMap<String, Tensor>,
    /// Holds the tracked tensors.
    adapter: Adapter,
    work: Work,
    dropout: Seed,
    rate: f64,
}

impl Begun {
    /// What it learns from.
    pub(super) fn items(&self) -> &[Item] {
        &self.work.items
    }
}

/// Replies that a step wants sampled.
#[derive(Debug)]
pub(super) struct Sampling<'a> {
    grpo: &'a Grpo,
    adapter: Arc<Adapter>,
    batch: Vec<usize>,
    seed: Seed,
}

impl Sampling<'_> {
    /// A row for each reply.
    pub(super) fn rows(&self) -> Vec<Row> {
        self.grpo.rows(&self.adapter, &self.batch, self.seed)
    }
}

/// What one step learns from.
#[derive(Debug)]
struct Work {
    items: Vec<Item>,
    /// Sampled replies with their advantages; items point into them.
    replies: Vec<(TextExample, f64)>,
    /// What the summed loss is divided by.
    weight: f64,
    reward: Option<f64>,
}

/// One example of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) index: usize,
    /// Its place in the step.
    place: usize,
    /// Its tokens.
    pub(super) cost: usize,
}

/// Shorter ones first, so that neighbours share a micro-batch with little padding.
fn items(batch: &[usize], cost: impl Fn(usize) -> usize) -> Vec<Item> {
    let item = |(place, &index)| Item { index, place, cost: cost(index) };
    let mut items: Vec<Item> = batch.iter().enumerate().map(item).collect();
    items.sort_by_key(|item| item.cost);
    items
}

#[derive(Debug)]
enum Objective {
    Supervised(Supervised),
    Grpo(Grpo),
}

impl Job {
    /// Prepares a job; nothing is trained yet.
    ///
    /// # Errors
    /// When there is nothing to learn from, or the lesson does not suit the adapter.
    pub fn new(backbone: Arc<Backbone>, from: Arc<Adapter>, spec: JobSpec) -> Result<Self> {
        let objective = match spec.lesson {
            Lesson::Supervised(examples) => {
                let strength = spec.settings.logit_adjustment;
                Objective::Supervised(Supervised::new(&backbone, &from, examples, strength)?)
            }
            Lesson::Grpo(grpo) => {
                grpo.check()?;
                Objective::Grpo(grpo)
            }
        };
        let mut fixed: BTreeMap<String, Tensor> =
            from.fixed().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        // The first lesson of a classifier on frozen features also sets their scale.
        if let (Objective::Supervised(lesson), Generation(0)) = (&objective, from.generation())
            && let Some(features) = lesson.fixed_features()
            && fixed.contains_key(MEAN)
        {
            let (mean, scale) = statistics(features)?;
            fixed.insert(MEAN.to_owned(), mean);
            fixed.insert(SCALE.to_owned(), scale);
        }
        let settings = spec.settings;
        let optimizer = Optimizer::new(settings.optimizer, from.trained())?;
        let Settings { shape, warm_up, .. } = settings;
        let schedule = Schedule { peak: spec.learning_rate, warm_up, steps: spec.steps, shape };
        let batch = spec.batch;
        let seed = spec.seed;
        let (step, audited) = (0, false);
        Ok(Self {
            backbone,
            from,
            fixed,
            optimizer,
            objective,
            schedule,
            settings,
            batch,
            seed,
            step,
            audited,
        })
    }

    /// Whether every step was taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.step >= self.schedule.steps
    }

    /// Takes one step.
    ///
    /// # Errors
    /// When the gradient audit fails or a number is not finite; the job is of no use then.
    pub fn step(&mut self) -> Result<StepReport> {
        let sampled = match self.sampling()? {
            Some(sampling) => Some(write(&self.backbone, sampling.rows())?),
            None => None,
        };
        let begun = self.begin(sampled)?;
        let gradients = self.gradients(&begun)?;
        self.end(&begun, gradients)
    }

    /// What the present step wants sampled before it can begin.
    pub(super) fn sampling(&self) -> Result<Option<Sampling<'_>>> {
        let Objective::Grpo(grpo) = &self.objective else { return Ok(None) };
        let batch = self.draw(grpo.prompts.len());
        let adapter = Arc::new(self.assemble(self.optimizer.values()?)?);
        let seed = self.seed.child("sample").index(self.step as u64);
        Ok(Some(Sampling { grpo, adapter, batch, seed }))
    }

    /// Begins a step; `sampled` is what came of its sampling.
    pub(super) fn begin(&mut self, sampled: Option<Vec<Text>>) -> Result<Begun> {
        let tracked = self.optimizer.tracked();
        let work = self.work(sampled)?;
        let adapter = self.assemble(tracked.clone())?;
        let dropout = self.seed.child("step").index(self.step as u64);
        let rate = self.schedule.rate(self.step);
        self.step += 1;
        Ok(Begun { tracked, adapter, work, dropout, rate })
    }

    /// Ends a step with its gradients.
    pub(super) fn end(&mut self, begun: &Begun, gradients: Gradients) -> Result<StepReport> {
        let (step, reward) = (self.step, begun.work.reward);
        if begun.work.items.is_empty() {
            return Ok(StepReport { step, loss: 0.0, norm: 0.0, reward });
        }
        if !gradients.loss.is_finite() {
            return Err(ModelError::Diverged { step, reason: "the loss is not finite" });
        }
        if !self.audited {
            audit(&begun.tracked, &gradients.tensors)?;
            self.audited = true;
        }
        let norm = self.optimizer.step(&gradients.tensors, begun.rate)?;
        self.settings.guard.norm(step, norm)?;
        Ok(StepReport { step, loss: gradients.loss, norm, reward })
    }

    /// Mean loss and gradients over the work of a step, in micro-batches.
    pub(super) fn gradients(&self, begun: &Begun) -> Result<Gradients> {
        let budget = self.settings.micro_batch_tokens;
        sharded(
            &begun.work.items,
            |item| item.cost,
            budget,
            side_by_side(self.backbone.network.device().is_cpu()),
            |part| {
                // Masks belong to the first item of a part: parts are the same on any number of threads.
                let hidden = self.settings.hidden_dropout;
                let dropout = part.first().map(|item| {
                    let seed = begun.dropout.index(item.place as u64);
                    Dropout { seed, hidden }
                });
                let way = Way { dropout, ..self.way(begun) };
                let batch: Vec<usize> = part.iter().map(|item| item.index).collect();
                match &self.objective {
                    Objective::Supervised(lesson) => lesson.gradients(&batch, &way),
                    Objective::Grpo(_) => {
                        let aim = self.aim(begun, &batch)?;
                        let mut all = objective::gradients(&[Portion { way, aim }])?;
                        Ok(all.pop().unwrap_or_default())
                    }
                }
            },
        )
    }

    /// How its gradients are computed, without dropout.
    fn way<'a>(&'a self, begun: &'a Begun) -> Way<'a> {
        Way {
            backbone: &self.backbone,
            adapter: &begun.adapter,
            tracked: &begun.tracked,
            weight: begun.work.weight,
            label_smoothing: self.settings.label_smoothing,
            dropout: None,
            recompute: self.settings.recompute,
        }
    }

    /// What the items with these indices shall become.
    fn aim<'a>(&'a self, begun: &'a Begun, batch: &[usize]) -> Result<Aim<'a>> {
        match &self.objective {
            Objective::Supervised(lesson) => lesson.aim(batch),
            Objective::Grpo(_) => {
                let chosen = batch.iter().map(|&index| &begun.work.replies[index]);
                let weighted = |(example, advantage): &'a (TextExample, f64)| (example, *advantage);
                Ok(Aim::Replies(chosen.map(weighted).collect()))
            }
        }
    }

    /// Its part of a micro-batch that it shares with other jobs.
    pub(super) fn portion<'a>(&'a self, begun: &'a Begun, batch: &[usize]) -> Result<Portion<'a>> {
        Ok(Portion { way: self.way(begun), aim: self.aim(begun, batch)? })
    }

    /// Whether its rows may go through the network together with those of other jobs: its loss needs no
    /// more than final hidden states, and nothing is dropped, because masks belong to a whole batch.
    pub(super) fn shares_a_pass(&self) -> bool {
        let suits = match &self.objective {
            Objective::Supervised(lesson) => lesson.shares_a_pass(&self.from),
            Objective::Grpo(_) => true,
        };
        suits && !self.from.drops_inputs() && self.settings.hidden_dropout == 0.0
    }

    /// The network it learns on.
    pub(super) fn backbone(&self) -> &Arc<Backbone> {
        &self.backbone
    }

    /// How each step is taken.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The next generation, with the weights as they are now.
    ///
    /// # Errors
    /// On a tensor failure, and where the job has drifted further than its guard allows.
    pub fn finish(self) -> Result<Adapter> {
        let mut tensors = self.optimizer.values()?;
        tensors.extend(self.fixed.clone());
        let generation = self.from.generation().next();
        let spec = self.from.spec().clone();
        let adapter = Adapter::assemble(spec, generation, tensors, &self.backbone)?;
        if self.settings.guard.kl.is_some() {
            let prompts = self.prompts();
            let found = guard::divergence(&self.backbone, &self.from, &adapter, &prompts)?;
            self.settings.guard.drift(self.step, found)?;
        }
        Ok(adapter)
    }

    /// Some of what it learned from, as an agent reads it.
    fn prompts(&self) -> Vec<&[u32]> {
        let few = guard::PROBES;
        match &self.objective {
            Objective::Supervised(lesson) => match lesson.examples() {
                Examples::Classes(all) => all.iter().take(few).map(|e| &*e.tokens).collect(),
                Examples::Texts(all) => all.iter().take(few).map(|e| &*e.prompt).collect(),
                // Tags are many distributions, and of features the texts are not known.
                Examples::Tags(_) | Examples::Features { .. } => Vec::new(),
            },
            Objective::Grpo(grpo) => grpo.prompts.iter().take(few).map(|p| &*p.tokens).collect(),
        }
    }

    fn assemble(&self, mut tensors: BTreeMap<String, Tensor>) -> Result<Adapter> {
        tensors.extend(self.fixed.clone());
        let (spec, generation) = (self.from.spec().clone(), self.from.generation());
        Adapter::assemble(spec, generation, tensors, &self.backbone)
    }

    /// What the present step learns from.
    fn work(&self, sampled: Option<Vec<Text>>) -> Result<Work> {
        match &self.objective {
            Objective::Supervised(lesson) => {
                let batch = self.draw(lesson.len());
                let weight = lesson.weight(&batch);
                let cost = |index| lesson.cost(index);
                Ok(Work { items: items(&batch, cost), replies: Vec::new(), weight, reward: None })
            }
            Objective::Grpo(grpo) => {
                let batch = self.draw(grpo.prompts.len());
                let sampled = grpo.judge(&self.backbone, &batch, sampled.unwrap_or_default())?;
                let replies = sampled.replies;
                let tokens: usize = replies.iter().map(|(example, _)| example.reply.len()).sum();
                let all: Vec<usize> = (0..replies.len()).collect();
                let cost = |index: usize| {
                    let (example, _) = &replies[index];
                    example.prompt.len() + example.reply.len()
                };
                let (items, weight) = (items(&all, cost), tokens.max(1) as f64);
                Ok(Work { items, replies, weight, reward: Some(sampled.reward) })
            }
        }
    }

    /// The examples of the present step: consecutive parts of an order that is shuffled every epoch.
    fn draw(&self, count: usize) -> Vec<usize> {
        let size = self.batch.min(count);
        let per_epoch = count / size;
        let epoch = self.step / per_epoch;
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut self.seed.child("order").index(epoch as u64).stream());
        let start = self.step % per_epoch * size;
        order[start..start + size].to_vec()
    }
}

#[cfg(test)]
mod tests;
