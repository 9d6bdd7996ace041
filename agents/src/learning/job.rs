//! A fine-tuning job: from one generation of an adapter to the next, one step at a time.
//!
//! The first step audits the gradients. A step that leaves the finite numbers ends the job with an error,
//! and the generation it started from stays as it was: rolling back is dropping the job.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;
use rand::seq::SliceRandom;

use super::gradient_audit::audit;
use super::objective::grpo::Grpo;
use super::objective::supervised::{Examples, Supervised};
use super::optimizer::{AdamW, Optimizer};
use super::schedule::{Schedule, Shape, WarmUp};
use crate::adapter::head::{MEAN, SCALE, statistics};
use crate::adapter::{Adapter, Generation};
use crate::backbone::Backbone;
use crate::error::{ModelError, Result};
use crate::seed::Seed;

/// What a job learns from.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// What it learns from.
    pub lesson: Lesson,
    /// Optimiser steps.
    pub steps: usize,
    /// Examples or prompts of one step.
    pub batch: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Where the order of examples and all sampling come from.
    pub seed: Seed,
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
    batch: usize,
    seed: Seed,
    step: usize,
    audited: bool,
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
                Objective::Supervised(Supervised::new(&backbone, &from, examples)?)
            }
            Lesson::Grpo(grpo) => {
                grpo.check()?;
                Objective::Grpo(grpo)
            }
        };
        let mut fixed: BTreeMap<String, Tensor> = [MEAN, SCALE]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), from.tensors().get(name)?.clone())))
            .collect();
        // The first lesson of a classifier on frozen features also sets their scale.
        if let (Objective::Supervised(lesson), Generation(0)) = (&objective, from.generation())
            && let Some(features) = lesson.fixed_features()
        {
            let (mean, scale) = statistics(features)?;
            fixed.insert(MEAN.to_owned(), mean);
            fixed.insert(SCALE.to_owned(), scale);
        }
        let optimizer = Optimizer::new(AdamW::default(), from.trained())?;
        let warm_up = (spec.steps / 10).max(1);
        let schedule = Schedule {
            peak: spec.learning_rate,
            warm_up: WarmUp::Steps(warm_up),
            steps: spec.steps,
            shape: Shape::default(),
        };
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
        let tracked = self.optimizer.tracked();
        let adapter = self.assemble(tracked.clone())?;
        let (loss, reward) = self.loss(&adapter)?;
        let rate = self.schedule.rate(self.step);
        self.step += 1;
        let step = self.step;
        let Some(loss) = loss else {
            return Ok(StepReport { step, loss: 0.0, norm: 0.0, reward });
        };
        let value = f64::from(loss.to_scalar::<f32>()?);
        if !value.is_finite() {
            return Err(ModelError::Diverged { step, reason: "the loss is not finite" });
        }
        let store = loss.backward()?;
        let gradients: BTreeMap<String, Tensor> = tracked
            .iter()
            .filter_map(|(name, tensor)| Some((name.clone(), store.get(tensor)?.detach())))
            .collect();
        if !self.audited {
            audit(&tracked, &gradients)?;
            self.audited = true;
        }
        let norm = self.optimizer.step(&gradients, rate)?;
        Ok(StepReport { step, loss: value, norm, reward })
    }

    /// The next generation, with the weights as they are now.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn finish(self) -> Result<Adapter> {
        let mut tensors = self.optimizer.values()?;
        tensors.extend(self.fixed);
        let generation = self.from.generation().next();
        Adapter::assemble(self.from.spec().clone(), generation, tensors, &self.backbone)
    }

    fn assemble(&self, mut tensors: BTreeMap<String, Tensor>) -> Result<Adapter> {
        tensors.extend(self.fixed.clone());
        let (spec, generation) = (self.from.spec().clone(), self.from.generation());
        Adapter::assemble(spec, generation, tensors, &self.backbone)
    }

    fn loss(&self, tracked: &Adapter) -> Result<(Option<Tensor>, Option<f64>)> {
        match &self.objective {
            Objective::Supervised(lesson) => {
                let batch = self.draw(lesson.len());
                Ok((Some(lesson.loss(&self.backbone, tracked, &batch)?), None))
            }
            Objective::Grpo(grpo) => {
                let batch = self.draw(grpo.prompts.len());
                let sampling = self.assemble(self.optimizer.values()?)?;
                let seed = self.seed.child("sample").index(self.step as u64);
                let outcome = grpo.loss(&self.backbone, &sampling, tracked, &batch, seed)?;
                Ok((outcome.loss, Some(outcome.reward)))
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
