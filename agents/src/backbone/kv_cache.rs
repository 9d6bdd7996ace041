//! Keys and values of the tokens already read, per layer, for a batch of rows.
//!
//! Belongs to one batch and one set of adapter generations, and is dropped with them: it can never be
//! read under another adapter. Holds no gradient.

use candle_core::{Result, Tensor};

/// Keys and values, each `[rows, key heads, tokens, width]`, one pair a layer.
#[derive(Debug, Default)]
pub struct KvCache {
    layers: Vec<(Tensor, Tensor)>,
}

impl KvCache {
    /// How many tokens have been read by every layer.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.layers.last().and_then(|(keys, _)| keys.dim(2).ok()).unwrap_or(0)
    }

    /// How many tokens a layer has read.
    pub(crate) fn seen(&self, layer: usize) -> usize {
        self.layers.get(layer).and_then(|(keys, _)| keys.dim(2).ok()).unwrap_or(0)
    }

    /// Appends the new keys and values of a layer and returns all of them.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let all = match self.layers.get(layer) {
            Some((k, v)) => {
                (Tensor::cat(&[k, &keys.detach()], 2)?, Tensor::cat(&[v, &values.detach()], 2)?)
            }
            None => (keys.detach().contiguous()?, values.detach().contiguous()?),
        };
        if layer < self.layers.len() {
            self.layers[layer] = all.clone();
        } else {
            self.layers.push(all.clone());
        }
        Ok(all)
    }

    /// Keeps only the given rows, in that order.
    pub(crate) fn keep(&mut self, rows: &Tensor) -> Result<()> {
        for (keys, values) in &mut self.layers {
            *keys = keys.index_select(rows, 0)?;
            *values = values.index_select(rows, 0)?;
        }
        Ok(())
    }
}
