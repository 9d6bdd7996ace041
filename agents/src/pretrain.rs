//! Pretraining a decoder from random weights on a stream of texts: how `polylogue-tiny` came to be.
//!
//! Each step's batch is cut into shards that run forward and backward on their own threads; gradients
//! are added in shard order, so the result does not depend on how many threads there are. The texts come
//! from the caller: nothing here knows what they are about.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::backbone::block::named;
use crate::backbone::{
    DecoderConfig, Network, Pass, Rows, Tokens, checkpoint, negative_log_likelihood, random_weights,
};
use crate::error::{ModelError, Result};
use crate::learning::accumulation::{Gradients, sharded, side_by_side};
use crate::learning::optimizer::{AdamW, Optimizer, OptimizerSpec};
use crate::learning::schedule::{Schedule, Shape, WarmUp};
use crate::seed::Seed;
use crate::tokenizer::Tokenizer;

/// How much to train, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Tokens to train on.
    pub tokens: usize,
    /// Tokens of one training sequence.
    pub length: usize,
    /// Sequences of one step.
    pub sequences: usize,
    /// Parts of a step that run side by side.
    pub shards: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Steps of warm-up.
    pub warm_up: usize,
    /// Where the initial weights come from.
    pub seed: Seed,
}

impl Plan {
    /// Number of optimiser steps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.tokens.div_ceil(self.length * self.sequences)
    }
}

/// What is known after a step.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The step, from 1.
    pub step: usize,
    /// Mean loss of the step in nats a token.
    pub loss: f64,
    /// Learning rate of the step.
    pub rate: f64,
    /// Norm of the gradient before clipping.
    pub norm: f64,
    /// Tokens trained on so far.
    pub tokens: usize,
}

/// A decoder in training.
#[derive(Debug)]
pub struct Pretraining {
    config: DecoderConfig,
    plan: Plan,
    optimizer: Optimizer,
}

/// Sequences of exactly `length + 1` tokens cut from a stream of texts, each text between the special
/// tokens that begin and end it.
#[derive(Debug)]
pub struct Sequences<'a, I> {
    texts: I,
    tokenizer: &'a Tokenizer,
    length: usize,
    pending: Vec<u32>,
}

impl<'a, I: Iterator<Item = String>> Sequences<'a, I> {
    /// Starts cutting.
    pub fn new(texts: I, tokenizer: &'a Tokenizer, length: usize) -> Self {
        Self { texts, tokenizer, length, pending: Vec::new() }
    }
}

impl<I: Iterator<Item = String>> Iterator for Sequences<'_, I> {
    type Item = Result<Vec<u32>>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.pending.len() <= self.length {
            let text = self.texts.next()?;
            self.pending.extend(self.tokenizer.begin());
            match self.tokenizer.encode(&text) {
                Ok(tokens) => self.pending.extend(tokens),
                Err(error) => return Some(Err(error)),
            }
            self.pending.extend(self.tokenizer.end());
        }
        // The last token of a sequence is only a target; it is also the first of the next sequence.
        let sequence = self.pending[..=self.length].to_vec();
        self.pending.drain(..self.length);
        Some(Ok(sequence))
    }
}

impl Pretraining {
    /// Starts from random weights.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn new(config: DecoderConfig, plan: Plan, device: &Device) -> Result<Self> {
        let weights = random_weights(&config.architecture()?, plan.seed.child("weights"), device)?;
        let numbers = AdamW { beta2: 0.98, ..AdamW::default() };
        let spec = OptimizerSpec { weight_decay: 0.05, ..numbers.into() };
        let optimizer = Optimizer::new(spec, weights.iter())?;
        Ok(Self { config, plan, optimizer })
    }

    /// Trains until the plan is done, reporting after every step.
    ///
    /// # Errors
    /// When the texts end early or training diverges.
    pub fn run(
        &mut self,
        sequences: &mut dyn Iterator<Item = Result<Vec<u32>>>,
        mut report: impl FnMut(&Self, Progress) -> Result<()>,
    ) -> Result<()> {
        let steps = self.plan.steps();
        let schedule = Schedule {
            peak: self.plan.learning_rate,
            warm_up: WarmUp::Steps(self.plan.warm_up),
            steps,
            shape: Shape::default(),
        };
        for step in 0..steps {
            let batch = sequences.take(self.plan.sequences).collect::<Result<Vec<_>>>()?;
            if batch.len() < self.plan.sequences {
                return Err(ModelError::Examples("the texts ended before the plan".to_owned()));
            }
            let Gradients { loss, tensors: gradients } = self.gradients(&batch)?;
            if !loss.is_finite() {
                return Err(ModelError::Diverged { step, reason: "the loss is not finite" });
            }
            let rate = schedule.rate(step);
            let norm = self.optimizer.step(&gradients, rate)?;
            let tokens = (step + 1) * self.plan.sequences * self.plan.length;
            report(self, Progress { step: step + 1, loss, rate, norm, tokens })?;
        }
        Ok(())
    }

    fn gradients(&self, batch: &[Vec<u32>]) -> Result<Gradients> {
        let tracked = self.optimizer.tracked();
        let network = self.network(&tracked)?;
        let budget = batch.len().div_ceil(self.plan.shards) * self.plan.length;
        let share = 1.0 / (batch.len() * self.plan.length) as f64;
        let run =
            |rows: &[Vec<u32>]| Gradients::of(&(total_loss(&network, rows)? * share)?, &tracked);
        let at_once = side_by_side(network.device().is_cpu());
        sharded(batch, |row| row.len() - 1, budget, at_once, run)
    }

    fn network(&self, weights: &BTreeMap<String, Tensor>) -> Result<Network> {
        Network::assemble(self.config.architecture()?, &named(weights))
    }

    /// Mean loss in nats a token on sequences that are not trained on.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn evaluate(&self, sequences: &[Vec<u32>]) -> Result<f64> {
        let network = self.network(&self.optimizer.values()?)?;
        let losses: Vec<Result<f64>> = sequences
            .par_chunks(16)
            .map(|rows| Ok(f64::from(total_loss(&network, rows)?.to_scalar::<f32>()?)))
            .collect();
        let tokens: usize = sequences.iter().map(|row| row.len() - 1).sum();
        Ok(losses.into_iter().sum::<Result<f64>>()? / tokens as f64)
    }

    /// Writes `config.json`, `model.safetensors` (f16) and `tokenizer.json` into `directory`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, tokenizer: &Tokenizer, directory: &Path) -> Result<()> {
        let fail = |source| ModelError::File { path: directory.into(), source };
        std::fs::create_dir_all(directory).map_err(fail)?;
        let path = directory.join("model.safetensors");
        checkpoint::write(&self.optimizer.values()?, DType::F16, &path)?;
        let config = serde_json::to_string_pretty(&self.config)
            .map_err(|e| ModelError::Tokenizer(e.to_string()))?;
        std::fs::write(directory.join("config.json"), config + "\n").map_err(fail)?;
        std::fs::write(directory.join("tokenizer.json"), tokenizer.to_json()?).map_err(fail)
    }
}

/// Summed loss of next-token prediction over rows of `length + 1` tokens.
fn total_loss(network: &Network, rows: &[Vec<u32>]) -> Result<Tensor> {
    let inputs: Vec<Vec<u32>> = rows.iter().map(|row| row[..row.len() - 1].to_vec()).collect();
    let targets: Vec<u32> = rows.iter().flat_map(|row| row[1..].iter().copied()).collect();
    let device = network.device();
    let owners = [Rows { adapter: None, count: rows.len() }];
    let tokens = Tokens::pack(&inputs, &owners, device)?;
    let hidden = network.hidden(&tokens, Pass::of(&owners))?;
    let flat = hidden.reshape((targets.len(), network.architecture().hidden))?;
    let logits = network.logits(&flat, &[Rows { adapter: None, count: targets.len() }])?;
    let targets = Tensor::new(targets, device)?;
    Ok(negative_log_likelihood(&logits, &targets)?.sum_all()?)
}
