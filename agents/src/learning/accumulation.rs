//! Gradients summed over parts of a batch, always in the same order.
//!
//! A batch is cut into micro-batches of bounded size that run forward and backward on their own threads;
//! memory at once is threads times one micro-batch, and the sum does not depend on how many threads there
//! are. What a loss is, is the caller's business.

use std::collections::BTreeMap;

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use rayon::prelude::*;

use crate::error::Result;

/// A summed loss and the gradients of named tensors.
#[derive(Debug, Default)]
pub struct Gradients {
    /// Sum of the parts' losses.
    pub loss: f64,
    /// Sum of the parts' gradients, detached.
    pub of: BTreeMap<String, Tensor>,
}

impl Gradients {
    /// Runs the backward pass of `loss` and keeps the gradients of `tracked` tensors.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn of_loss(loss: &Tensor, tracked: &BTreeMap<String, Tensor>) -> Result<Self> {
        let gradients = Self::collect(&loss.backward()?, tracked);
        Ok(Self { loss: f64::from(loss.to_scalar::<f32>()?), ..gradients })
    }

    /// The gradients of `tracked` tensors out of a backward pass, without its loss.
    pub(crate) fn collect(store: &GradStore, tracked: &BTreeMap<String, Tensor>) -> Self {
        let own = |(name, tensor): (&String, &Tensor)| {
            Some((name.clone(), store.get(tensor)?.detach()))
        };
        Self { loss: 0.0, of: tracked.iter().filter_map(own).collect() }
    }

    /// Adds the gradients of another part.
    ///
    /// # Errors
    /// When shapes differ.
    pub fn add(&mut self, part: Self) -> Result<()> {
        self.loss += part.loss;
        for (name, gradient) in part.of {
            let sum = match self.of.get(&name) {
                Some(before) => (before + gradient)?,
                None => gradient,
            };
            self.of.insert(name, sum);
        }
        Ok(())
    }
}

/// Cuts `items` into neighbours of at most `budget` cost together (one item at least), runs them on rayon's
/// threads and sums up in order.
///
/// # Errors
/// The first error of a part.
pub fn sharded<T: Sync>(
    items: &[T],
    cost: impl Fn(&T) -> usize,
    budget: usize,
    run: impl Fn(&[T]) -> Result<Gradients> + Sync,
) -> Result<Gradients> {
    let mut total = Gradients::default();
    let parts = cut(items, cost, budget);
    // A round has as many parts as there are threads, so no more than that many results wait.
    for round in parts.chunks(rayon::current_num_threads().max(1)) {
        let done: Vec<Result<Gradients>> = round.par_iter().map(|part| run(part)).collect();
        for part in done {
            total.add(part?)?;
        }
    }
    Ok(total)
}

fn cut<T>(items: &[T], cost: impl Fn(&T) -> usize, budget: usize) -> Vec<&[T]> {
    let mut parts = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (index, item) in items.iter().enumerate() {
        let cost = cost(item);
        if index > start && sum + cost > budget {
            parts.push(&items[start..index]);
            (start, sum) = (index, 0);
        }
        sum += cost;
    }
    if start < items.len() {
        parts.push(&items[start..]);
    }
    parts
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn parts_stay_within_the_budget_and_cover_everything_in_order() {
        let items = [3, 3, 3, 9, 1, 1];
        let parts = cut(&items, |&cost| cost, 6);
        assert_eq!(parts, [&items[..2], &items[2..3], &items[3..4], &items[4..]]);
        assert!(cut(&[0; 0], |&cost: &usize| cost, 6).is_empty());
    }

    #[test]
    fn the_sum_is_that_of_the_whole_and_does_not_depend_on_threads() {
        let var = Var::new(&[1f32, 2.0, 3.0], &Device::Cpu).unwrap();
        let tracked = BTreeMap::from([("w".to_owned(), var.as_tensor().clone())]);
        let items: Vec<f64> = (0..40).map(|i| 0.1 * f64::from(i)).collect();
        let run = |part: &[f64]| {
            let sum: f64 = part.iter().sum();
            let loss = (var.as_tensor().sqr()? * sum)?.sum_all()?;
            Gradients::of_loss(&loss, &tracked)
        };
        let bits = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let sum = pool.install(|| sharded(&items, |_| 1, 7, run)).unwrap();
            (sum.loss.to_bits(), sum.of["w"].to_vec1::<f32>().unwrap())
        };
        let (loss, gradient) = bits(1);
        assert_eq!((loss, gradient.clone()), bits(3));
        // d/dw of 78 · Σ w² is 156 · w.
        assert!((f64::from_bits(loss) - 78.0 * 14.0).abs() < 1e-2);
        assert!((gradient[2] - 468.0).abs() < 1e-2);
    }
}
