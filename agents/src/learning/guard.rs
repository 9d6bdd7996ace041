//! Limits on what a job may do to an agent: one that passes them is dropped, and the generation that it
//! started from stays in use.

use candle_core::DType;
use serde::{Deserialize, Serialize};

use crate::adapter::Adapter;
use crate::backbone::{Backbone, Pass, Rows, Tokens};
use crate::classifying::classify;
use crate::error::{ModelError, Result};
use crate::sampler::softmax;

/// Prompts on which the drift of a job is measured.
pub(super) const PROBES: usize = 16;

/// The limits of a job. What is not a number is refused without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// Largest norm of a step's gradient before it is clipped.
    pub norm: Option<f64>,
    /// Largest mean Kullback-Leibler divergence of what the agent would say first, or of its classes, from what
    /// it was before the job to what it is after, in nats.
    pub kl: Option<f64>,
}

impl Guard {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Looks at the norm of a step's gradient.
    pub(super) fn norm(&self, step: usize, found: f64) -> Result<()> {
        check("the gradient's norm", step, found, self.norm)
    }

    /// Looks at how far a job has taken an agent.
    pub(super) fn drift(&self, step: usize, found: f64) -> Result<()> {
        check("the divergence from the weights before", step, found, self.kl)
    }
}

fn check(what: &'static str, step: usize, found: f64, limit: Option<f64>) -> Result<()> {
    match limit {
        // One that is not a number is above every limit.
        Some(limit) if found.is_nan() || found > limit => {
            Err(ModelError::Guarded { what, step, found, limit })
        }
        _ => Ok(()),
    }
}

/// Mean Kullback-Leibler divergence of what two adapters of one kind make of prompts, in nats: of their classes
/// where they have a head, of the next token where not.
///
/// # Errors
/// When a prompt is empty or too long.
pub fn divergence(
    backbone: &Backbone,
    from: &Adapter,
    to: &Adapter,
    prompts: &[&[u32]],
) -> Result<f64> {
    let before = distributions(backbone, from, prompts)?;
    let after = distributions(backbone, to, prompts)?;
    let each = before.iter().zip(&after).map(|(before, after)| relative_entropy(before, after));
    Ok(each.sum::<f64>() / before.len().max(1) as f64)
}

/// The divergence of `q` from `p`, which is never negative; terms that `p` leaves out count nothing.
fn relative_entropy(p: &[f64], q: &[f64]) -> f64 {
    let term = |(&p, &q): (&f64, &f64)| {
        if p > 0.0 { p * (p / q.max(f64::MIN_POSITIVE)).ln() } else { 0.0 }
    };
    p.iter().zip(q).map(term).sum::<f64>().max(0.0)
}

fn distributions(
    backbone: &Backbone,
    adapter: &Adapter,
    prompts: &[&[u32]],
) -> Result<Vec<Vec<f64>>> {
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    let prompts: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.to_vec()).collect();
    if adapter.head().is_some() {
        return classify(backbone, adapter, &prompts);
    }
    let network = &backbone.network;
    let owners = [Rows { adapter: Some(adapter), count: prompts.len() }];
    let tokens = Tokens::pack(&prompts, &owners, network.device())?;
    let states = network.states(&tokens, Pass::of(&owners), network.depth())?;
    let Some(top) = states.last() else { return Ok(Vec::new()) };
    let last = network.finish(&top.narrow(1, tokens.width() - 1, 1)?, &owners)?.squeeze(1)?;
    let logits = network.logits(&last, &owners)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    Ok(logits.iter().map(|logits| softmax(logits)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_entropy_of_known_distributions() {
        // Cover and Thomas, Elements of Information Theory, 2.3: r = 1/2 and s = 1/4 give 0.2075 bits.
        let bits = relative_entropy(&[0.5, 0.5], &[0.75, 0.25]) / std::f64::consts::LN_2;
        assert!((bits - 0.2075).abs() < 1e-4, "{bits}");
        assert!(relative_entropy(&[0.3, 0.7], &[0.3, 0.7]).abs() < 1e-15);
        assert!(relative_entropy(&[0.0, 1.0], &[0.5, 0.5]) > 0.69);
        assert!(relative_entropy(&[1.0, 0.0], &[0.0, 1.0]).is_finite());
    }

    #[test]
    fn limits_hold_and_no_limit_holds_nothing() {
        let guard = Guard { norm: Some(2.0), kl: None };
        assert!(guard.norm(1, 2.0).is_ok() && guard.norm(1, 2.1).is_err());
        assert!(guard.norm(1, f64::NAN).is_err() && guard.drift(1, 1e9).is_ok());
        let told = guard.norm(7, 123.456).unwrap_err().to_string();
        assert_eq!(told, "guarded at step 7: the gradient's norm is 123.5, more than 2");
    }
}
