//! The mean of the last few values.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A window over a stream of numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rolling {
    window: VecDeque<f64>,
    size: usize,
}

impl Rolling {
    /// An empty window of `size` values.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self { window: VecDeque::with_capacity(size), size }
    }

    /// The same values in a window of another size; the oldest go where there are too many.
    #[must_use]
    pub fn resized(mut self, size: usize) -> Self {
        self.window.drain(..self.window.len().saturating_sub(size));
        self.size = size;
        self
    }

    /// Takes a value in, and the oldest out where the window is full.
    pub fn push(&mut self, value: f64) {
        if self.window.len() == self.size {
            self.window.pop_front();
        }
        self.window.push_back(value);
    }

    /// The mean, once the window is full.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let full = self.window.len() == self.size && self.size > 0;
        full.then(|| self.window.iter().sum::<f64>() / self.size as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::Rolling;

    #[test]
    fn the_mean_needs_a_full_window() {
        let mut rolling = Rolling::new(2);
        rolling.push(1.0);
        assert_eq!(rolling.mean(), None);
        rolling.push(3.0);
        rolling.push(5.0);
        assert_eq!(rolling.mean(), Some(4.0));
    }
}
