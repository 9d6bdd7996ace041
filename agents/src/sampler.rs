//! From logits to a token: temperature sampling from a stream of our own, or the likeliest token.

use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use serde::{Deserialize, Serialize};

use crate::seed::Stream;

/// Which tokens may be drawn at all. They are sorted out in the order of the fields, each by what the one
/// before left, as transformers does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// The so many likeliest.
    pub top_k: Option<usize>,
    /// The fewest whose probabilities reach this sum (Holtzman et al. 2020, arXiv 1904.09751).
    pub top_p: Option<f64>,
    /// Those at least this share as likely as the likeliest (Nguyen et al. 2024, arXiv 2407.01082).
    pub min_p: Option<f64>,
}

impl Filter {
    /// Whether it lets everything through.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Sets the weights of what may not be drawn to zero.
    fn apply(&self, weights: &mut [f64]) {
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
        let mut left = order.len();
        if let Some(most) = self.top_k {
            left = left.min(most.max(1));
        }
        if let Some(wanted) = self.top_p {
            let total: f64 = order[..left].iter().map(|&at| weights[at]).sum();
            let mut sum = 0.0;
            let enough = order[..left].iter().position(|&at| {
                sum += weights[at];
                sum >= wanted * total
            });
            left = enough.map_or(left, |at| at + 1);
        }
        if let (Some(share), Some(&best)) = (self.min_p, order.first()) {
            let least = share * weights[best];
            let kept = order[..left].iter().take_while(|&&at| weights[at] >= least).count();
            left = kept.max(1);
        }
        for &at in &order[left..] {
            weights[at] = 0.0;
        }
    }
}

/// Picks a token. Temperature 0 takes the likeliest, the first of several equal ones.
#[must_use]
pub fn pick(logits: &[f32], temperature: f64, filter: &Filter, stream: &mut Stream) -> u32 {
    let best = likeliest(logits);
    if temperature <= 0.0 {
        return best as u32;
    }
    let highest = f64::from(logits[best]);
    let weight = |&z: &f32| ((f64::from(z) - highest) / temperature).exp();
    let mut weights: Vec<f64> = logits.iter().map(weight).collect();
    if !filter.is_open() {
        filter.apply(&mut weights);
    }
    match WeightedIndex::new(weights) {
        Ok(distribution) => distribution.sample(stream) as u32,
        // Logits that are not numbers leave no distribution; the caller sees a poor text, not a crash.
        Err(_no_distribution) => best as u32,
    }
}

/// The place of the largest number, the first of several equal ones; 0 where none is a number.
#[must_use]
pub fn likeliest(logits: &[f32]) -> usize {
    // Sixteen at a time: compilers compare them at once.
    let mut most = [f32::NEG_INFINITY; 16];
    let mut chunks = logits.chunks_exact(16);
    for chunk in chunks.by_ref() {
        for (most, &value) in most.iter_mut().zip(chunk) {
            *most = if value > *most { value } else { *most };
        }
    }
    let highest = most.iter().chain(chunks.remainder()).fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    logits.iter().position(|&value| value >= highest).unwrap_or(0)
}

/// Probabilities of logits.
#[must_use]
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|&z| f64::from(z - highest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn zero_temperature_takes_the_first_best() {
        assert_eq!(pick(&[0.0, 2.0, 2.0], 0.0, &Filter::default(), &mut Seed::new(0).stream()), 1);
        for count in [1, 15, 16, 40] {
            for at in 0..count {
                let mut logits = vec![-3.0; count];
                logits[at..].fill(-1.0);
                assert_eq!(likeliest(&logits), at);
                logits[at] = f32::NAN;
                assert_eq!(likeliest(&logits), if at + 1 < count { at + 1 } else { 0 });
            }
        }
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [0.0_f32, 1.0, 2.0];
        let mut stream = Seed::new(5).stream();
        let mut counts = [0_u32; 3];
        for _ in 0..20_000 {
            counts[pick(&logits, 1.0, &Filter::default(), &mut stream) as usize] += 1;
        }
        for (count, p) in counts.iter().zip(softmax(&logits)) {
            assert!((f64::from(*count) / 20_000.0 - p).abs() < 0.015);
        }
    }

    /// Kept by `TopKLogitsWarper`, `TopPLogitsWarper` and `MinPLogitsWarper` of transformers on
    /// `log([0.1, 0.35, 0.05, 0.3, 0.2])`.
    #[test]
    fn filters_keep_what_those_of_transformers_keep() {
        let kept = |filter: Filter| {
            let mut weights = [0.1, 0.35, 0.05, 0.3, 0.2];
            filter.apply(&mut weights);
            let kept = weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
            kept.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let open = Filter::default();
        assert_eq!(kept(Filter { top_k: Some(3), ..open }), [1, 3, 4]);
        assert_eq!(kept(Filter { top_p: Some(0.6), ..open }), [1, 3]);
        assert_eq!(kept(Filter { top_p: Some(0.7), ..open }), [1, 3, 4]);
        assert_eq!(kept(Filter { min_p: Some(0.5), ..open }), [1, 3, 4]);
        assert_eq!(kept(Filter { top_k: Some(4), top_p: Some(0.9), min_p: Some(0.6) }), [1, 3]);
        assert_eq!(kept(Filter { top_p: Some(0.0), ..open }), [1]);
    }
}
