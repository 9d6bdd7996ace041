//! From logits to a token: temperature sampling from a stream of our own, or the likeliest token.

use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;

use crate::seed::Stream;

/// Picks a token. Temperature 0 takes the likeliest, the first of several equal ones.
#[must_use]
pub fn pick(logits: &[f32], temperature: f64, stream: &mut Stream) -> u32 {
    let best = likeliest(logits);
    if temperature <= 0.0 {
        return best as u32;
    }
    let highest = f64::from(logits[best]);
    let weights = logits.iter().map(|&z| ((f64::from(z) - highest) / temperature).exp());
    match WeightedIndex::new(weights) {
        Ok(distribution) => distribution.sample(stream) as u32,
        // Logits that are not numbers leave no distribution; the caller sees a poor text, not a crash.
        Err(_no_distribution) => best as u32,
    }
}

fn likeliest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, &value) in logits.iter().enumerate() {
        if value > logits[best] {
            best = index;
        }
    }
    best
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
        assert_eq!(pick(&[0.0, 2.0, 2.0], 0.0, &mut Seed::new(0).stream()), 1);
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [0.0_f32, 1.0, 2.0];
        let mut stream = Seed::new(5).stream();
        let mut counts = [0_u32; 3];
        for _ in 0..20_000 {
            counts[pick(&logits, 1.0, &mut stream) as usize] += 1;
        }
        for (count, p) in counts.iter().zip(softmax(&logits)) {
            assert!((f64::from(*count) / 20_000.0 - p).abs() < 0.015);
        }
    }
}
