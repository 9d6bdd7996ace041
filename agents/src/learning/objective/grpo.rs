//! Group-relative policy optimisation (Shao et al. 2024, arXiv 2402.03300), one on-policy step at a time.
//!
//! For each prompt a group of replies is sampled; a reply's advantage is its reward less the group's
//! mean, over the group's standard deviation. With one step per sample the probability ratio is one, so
//! the clipped objective's gradient is the plain policy gradient: `-Σ A · Σ ln p(token) / Σ tokens`.
//! Groups whose rewards are all equal carry no signal and are left out.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::TextExample;
use crate::adapter::Adapter;
use crate::backbone::Backbone;
use crate::error::{ModelError, Result};
use crate::sampler::Filter;
use crate::seed::Seed;
use crate::writing::{Draw, Row, Text};

/// How good a reply to the prompt with this key is, from 0 to 1.
pub type Reward = Arc<dyn Fn(usize, &str) -> f64 + Send + Sync>;

/// Something to reply to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// What the reward function knows it by.
    pub key: usize,
    /// The prompt.
    pub tokens: Vec<u32>,
}

/// Prompts and how their replies are judged.
#[derive(Clone, Serialize, Deserialize)]
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
    /// The judge; code, so it is not part of what is stored.
    #[serde(skip, default = "nobody")]
    pub reward: Reward,
}

/// Where the judge is still missing: no reply can be scored, so no step succeeds.
fn nobody() -> Reward {
    Arc::new(|_, _| f64::NAN)
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
    /// The replies that a step wants sampled: a group for each prompt at `batch`.
    pub(crate) fn rows(&self, sampling: &Arc<Adapter>, batch: &[usize], seed: Seed) -> Vec<Row> {
        let mut rows = Vec::with_capacity(batch.len() * self.group);
        for (place, &index) in batch.iter().enumerate() {
            for member in 0..self.group {
                let draw = Draw {
                    max_tokens: self.max_tokens,
                    temperature: self.temperature,
                    filter: Filter::default(),
                    stop: self.stop.clone(),
                    stream: Box::new(seed.index(place as u64).index(member as u64).stream()),
                };
                let prompt = self.prompts[index].tokens.clone();
                rows.push(Row { adapter: Some(Arc::clone(sampling)), prompt, draw });
            }
        }
        rows
    }

    /// Rewards and advantages of what was sampled for the prompts at `batch`.
    pub(crate) fn judge(
        &self,
        backbone: &Backbone,
        batch: &[usize],
        sampled: Vec<Text>,
    ) -> Result<Sampled> {
        let mut examples = Vec::new();
        let mut rewards = Vec::new();
        for (row, Text { tokens: mut reply, stop }) in sampled.into_iter().enumerate() {
            let prompt = &self.prompts[batch[row / self.group]];
            rewards.push((self.reward)(prompt.key, backbone.tokenizer.decode(&reply)?.trim()));
            // What was sampled is trained and no more: a reply whose length ran out did not stop.
            reply.extend(stop);
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use candle_core::Device;

    use super::*;
    use crate::adapter::{AdapterSpec, Method};
    use crate::backbone::builtin;
    use crate::writing::write;

    #[test]
    fn only_what_was_sampled_is_trained() {
        let backbone = Arc::new(builtin::polylogue_tiny(&Device::Cpu).unwrap());
        let spec = AdapterSpec { method: Method::Frozen, head: None };
        let adapter = Arc::new(Adapter::initial(spec, &backbone, Seed::new(1)).unwrap());
        let tokens = backbone.tokenizer.encode_with_specials("where is my bag", 99).unwrap();
        let sampled = |prompt: &[u32], max_tokens: usize, stop: Vec<u32>| {
            let turns = AtomicUsize::new(0);
            let grpo = Grpo {
                prompts: vec![Prompt { key: 0, tokens: prompt.to_vec() }],
                group: 8,
                temperature: 2.0,
                max_tokens,
                stop,
                // Every other reply is good, so that all carry a signal.
                reward: Arc::new(move |_, _| (turns.fetch_add(1, Ordering::Relaxed) % 2) as f64),
            };
            let texts = write(&backbone, grpo.rows(&adapter, &[0], Seed::new(2))).unwrap();
            let sampled = grpo.judge(&backbone, &[0], texts).unwrap();
            sampled.replies.into_iter().map(|(example, _)| example.reply).collect::<Vec<_>>()
        };
        let free = sampled(&tokens, 3, Vec::new());
        assert!(free.len() == 8 && free.iter().all(|reply| reply.len() == 3), "{free:?}");
        // Whichever token ends a reply, the same draws are made, and those are trained.
        let every: Vec<u32> = (0..backbone.tokenizer.vocabulary() as u32).collect();
        let firsts: Vec<Vec<u32>> = free.iter().map(|reply| reply[..1].to_vec()).collect();
        assert_eq!(sampled(&tokens, 3, every.clone()), firsts);
        // Where the positions run out first, a reply ends without a stop too.
        let room = backbone.network.architecture().positions - 2;
        let full: Vec<u32> = tokens.iter().copied().cycle().take(room).collect();
        let cut = sampled(&full, 99, Vec::new());
        let unsaid = every.iter().find(|token| !cut.concat().contains(token)).copied();
        assert_eq!(sampled(&full, 99, unsaid.into_iter().collect()), cut);
    }

    #[test]
    fn equal_rewards_give_no_signal_and_others_are_standardised() {
        assert_eq!(advantages(&[0.5, 0.5]), [0.0, 0.0]);
        let a = advantages(&[1.0, 0.0, 0.0, 1.0]);
        assert!((a[0] - 1.0).abs() < 1e-3 && (a[1] + 1.0).abs() < 1e-3);
    }
}
