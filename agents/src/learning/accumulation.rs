//! Gradients of a large batch as the sum of those of small ones, in an order that is always the same.
//!
//! Micro-batches run side by side on rayon's threads, at most one to a thread; their sum does not depend
//! on how many threads there are. Nothing here averages: the caller scales the loss.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::error::Result;

/// A loss and its gradients by name of the parameter.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    /// The loss.
    pub loss: f64,
    /// Detached, each of its parameter's shape.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Gradients {
    /// Runs a scalar loss backward to the tracked parameters; those it does not touch are left out.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn of(loss: &Tensor, tracked: &BTreeMap<String, Tensor>) -> Result<Self> {
        let gradients = Self::collect(&loss.backward()?, tracked);
        let loss = f64::from(loss.to_dtype(DType::F32)?.to_scalar::<f32>()?);
        Ok(Self { loss, ..gradients })
    }

    /// The gradients of tracked parameters out of a backward pass, without its loss.
    pub(crate) fn collect(store: &GradStore, tracked: &BTreeMap<String, Tensor>) -> Self {
        let own =
            |(name, tensor): (&String, &Tensor)| Some((name.clone(), store.get(tensor)?.detach()));
        Self { loss: 0.0, tensors: tracked.iter().filter_map(own).collect() }
    }

    /// Adds others to these.
    ///
    /// # Errors
    /// When shapes differ.
    pub fn add(&mut self, other: Self) -> Result<()> {
        self.loss += other.loss;
        for (name, gradient) in other.tensors {
            let sum = match self.tensors.get(&name) {
                Some(before) => (before + gradient)?,
                None => gradient,
            };
            self.tensors.insert(name, sum);
        }
        Ok(())
    }
}

/// Cuts rows into consecutive micro-batches of at most `budget` tokens, padding to the longest row
/// included; a row that is longer than the budget stands alone.
///
/// ```
/// use agents::learning::accumulation::micro_batches;
/// assert_eq!(micro_batches(&[3, 3, 4, 9, 1], |&n| n, 8), [0..2, 2..3, 3..4, 4..5]);
/// ```
pub fn micro_batches<T>(
    rows: &[T],
    tokens: impl Fn(&T) -> usize,
    budget: usize,
) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut longest) = (0, 0);
    for (index, row) in rows.iter().enumerate() {
        let width = longest.max(tokens(row));
        if index > start && width * (index + 1 - start) > budget {
            batches.push(start..index);
            (start, longest) = (index, tokens(row));
        } else {
            longest = width;
        }
    }
    if start < rows.len() {
        batches.push(start..rows.len());
    }
    batches
}

/// How many micro-batches run side by side: one on each thread of a CPU; on a card one, because all work of a
/// card goes through one stream, and each more would only take memory.
#[must_use]
pub fn side_by_side(is_cpu: bool) -> usize {
    if is_cpu { rayon::current_num_threads() } else { 1 }
}

/// Runs micro-batches of at most `budget` tokens, so many [`side_by_side`]; what they return is in their order.
///
/// # Errors
/// When one of them fails.
pub fn in_waves<T: Sync, R: Send>(
    rows: &[T],
    tokens: impl Fn(&T) -> usize,
    budget: usize,
    at_once: usize,
    run: impl Fn(&[T]) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let batches = micro_batches(rows, tokens, budget);
    let mut all = Vec::with_capacity(batches.len());
    for wave in batches.chunks(at_once.max(1)) {
        let parts: Vec<_> = wave.par_iter().map(|range| run(&rows[range.clone()])).collect();
        for part in parts {
            all.push(part?);
        }
    }
    Ok(all)
}

/// Runs micro-batches as [`in_waves`] does and sums what they return, in their order.
///
/// # Errors
/// When one of them fails.
pub fn sharded<T: Sync>(
    rows: &[T],
    tokens: impl Fn(&T) -> usize,
    budget: usize,
    at_once: usize,
    run: impl Fn(&[T]) -> Result<Gradients> + Sync,
) -> Result<Gradients> {
    let mut sum = Gradients::default();
    for part in in_waves(rows, tokens, budget, at_once, run)? {
        sum.add(part)?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn summed(threads: usize, budget: usize) -> (u64, Vec<f32>) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let weight = Var::new(&[0.3f32, -0.7, 1.1], &Device::Cpu).unwrap();
        let tracked = BTreeMap::from([("w".to_owned(), weight.as_tensor().clone())]);
        let rows: Vec<[f32; 3]> =
            (0..23).map(|i| [0.1, 0.7, -0.3].map(|x| x * i as f32 + 0.013)).collect();
        let run = |rows: &[[f32; 3]]| {
            let x = Tensor::from_slice(rows.as_flattened(), (rows.len(), 3), &Device::Cpu)?;
            let loss = x.broadcast_mul(&tracked["w"])?.sqr()?.sum_all()?;
            Gradients::of(&loss, &tracked)
        };
        let sum = pool.install(|| sharded(&rows, |_| 3, budget, side_by_side(true), run)).unwrap();
        (sum.loss.to_bits(), sum.tensors["w"].to_vec1().unwrap())
    }

    #[test]
    fn the_number_of_threads_changes_no_bit_and_cutting_changes_no_sum() {
        assert_eq!(summed(1, 9), summed(4, 9));
        assert_eq!((side_by_side(true), side_by_side(false)), (rayon::current_num_threads(), 1));
        let (cut, whole) = (summed(2, 9), summed(2, 1000));
        let loss = |bits| f64::from_bits(bits);
        assert!((loss(cut.0) / loss(whole.0) - 1.0).abs() < 1e-6);
        assert!(cut.1.iter().zip(&whole.1).all(|(a, b)| (a / b - 1.0).abs() < 1e-5));
    }
}
