//! Group-relative policy optimisation (Shao et al. 2024, arXiv 2402.03300), one on-policy step at a time.
//!
//! For each prompt a group of replies is sampled; a reply's advantage is its reward less the group's
//! mean, over the group's standard deviation. With one step per sample the probability ratio is one, so
//! the clipped objective's gradient is the plain policy gradient: `-Σ A · Σ ln p(token) / Σ tokens`.
//! Groups whose rewards are all equal carry no signal and are left out.

use std::fmt;
use std::sync::Arc;

use super::TextExample;
use crate::adapter::Adapter;
use crate::backbone::Backbone;
use crate::engine::decode::{Got, Row, Want, run};
use crate::error::{ModelError, Result};
use crate::seed::Seed;

/// How good a reply to the prompt with this key is, from 0 to 1.
pub type Reward = Arc<dyn Fn(usize, &str) -> f64 + Send + Sync>;

/// Something to reply to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What the reward function knows it by.
    pub key: usize,
    /// The prompt.
    pub tokens: Vec<u32>,
}

/// Prompts and how their replies are judged.
#[derive(Clone)]
pub struct Grpo {
    /// What to reply to.
    pub prompts: Vec<Prompt>,
    /// Replies sampled for each prompt.
    pub group: usize,
    /// Sampling temperature.
    pub temperature: f64,
    /// Longest reply in tokens.
    pub max_tokens: usize,
    /// Tokens that end a reply.
    pub stop: Vec<u32>,
    /// The judge.
    pub reward: Reward,
}

impl fmt::Debug for Grpo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grpo")
            .field("prompts", &self.prompts.len())
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

/// Replies of one step with their advantages, those without a signal left out.
pub(crate) struct Sampled {
    pub(crate) replies: Vec<(TextExample, f64)>,
    /// Mean reward of everything that was sampled.
    pub(crate) reward: f64,
}

impl Grpo {
    /// Samples replies to the prompts at `batch` with `sampling` weights and judges them.
    pub(crate) fn sample(
        &self,
        backbone: &Backbone,
        sampling: &Adapter,
        batch: &[usize],
        seed: Seed,
    ) -> Result<Sampled> {
        let mut rows: Vec<Row<'_>> = Vec::new();
        for (place, &index) in batch.iter().enumerate() {
            for member in 0..self.group {
                let want = Want::Text {
                    max_tokens: self.max_tokens,
                    temperature: self.temperature,
                    stop: self.stop.clone(),
                    stream: Box::new(seed.index(place as u64).index(member as u64).stream()),
                };
                let tokens = self.prompts[index].tokens.clone();
                rows.push(Row { adapter: Some(sampling), tokens, want });
            }
        }
        let got = run(backbone, &mut rows)?;
        let mut examples = Vec::new();
        let mut rewards = Vec::new();
        for (row, got) in got.into_iter().enumerate() {
            let prompt = &self.prompts[batch[row / self.group]];
            let Got::Text(mut reply) = got else { continue };
            rewards.push((self.reward)(prompt.key, backbone.tokenizer.decode(&reply)?.trim()));
            if reply.len() < self.max_tokens {
                reply.extend(self.stop.last());
            }
            examples.push(TextExample { prompt: prompt.tokens.clone(), reply });
        }
        let advantages: Vec<f64> = rewards.chunks(self.group).flat_map(advantages).collect();
        let reward = rewards.iter().sum::<f64>() / rewards.len().max(1) as f64;
        let replies = examples.into_iter().zip(advantages).filter(|(_, a)| *a != 0.0).collect();
        Ok(Sampled { replies, reward })
    }

    /// Checks the numbers that a job relies on.
    pub(crate) fn check(&self) -> Result<()> {
        if self.prompts.is_empty() || self.group < 2 {
            let reason = "a group needs at least two replies, and there must be prompts";
            return Err(ModelError::Examples(reason.to_owned()));
        }
        Ok(())
    }
}

/// Rewards of a group, centred and scaled; all zero where they are equal.
fn advantages(rewards: &[f64]) -> Vec<f64> {
    let count = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / count;
    let variance = rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / count;
    if variance < 1e-12 {
        return vec![0.0; rewards.len()];
    }
    rewards.iter().map(|r| (r - mean) / (variance.sqrt() + 1e-4)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rewards_give_no_signal_and_others_are_standardised() {
        assert_eq!(advantages(&[0.5, 0.5]), [0.0, 0.0]);
        let a = advantages(&[1.0, 0.0, 0.0, 1.0]);
        assert!((a[0] - 1.0).abs() < 1e-3 && (a[1] + 1.0).abs() < 1e-3);
    }
}
