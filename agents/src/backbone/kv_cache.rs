//! Keys and values of the tokens already read, per layer, for a batch of rows.
//!
//! Belongs to one batch and one set of adapter generations, and is dropped with them: it can never be
//! read under another adapter. Holds no gradient. Latent channels read it and extend it layer by layer.

use candle_core::{Result, Tensor};

/// Keys and values, each `[rows, key heads, tokens, width]`, one pair a layer.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    layers: Vec<(Tensor, Tensor)>,
}

impl KvCache {
    /// How many tokens have been read by every layer.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.layers.last().and_then(|(keys, _)| keys.dim(2).ok()).unwrap_or(0)
    }

    /// How many layers have read something.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// How many tokens a layer has read.
    #[must_use]
    pub fn seen(&self, layer: usize) -> usize {
        self.layers.get(layer).and_then(|(keys, _)| keys.dim(2).ok()).unwrap_or(0)
    }

    /// Keys (rotated to their positions) and values of a layer.
    #[must_use]
    pub fn layer(&self, layer: usize) -> Option<(&Tensor, &Tensor)> {
        self.layers.get(layer).map(|(keys, values)| (keys, values))
    }

    /// Appends keys and values to a layer and returns all of them.
    ///
    /// # Errors
    /// When shapes do not fit, or a layer before this one has read nothing yet.
    pub fn append(
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
        if layer > self.layers.len() {
            candle_core::bail!(
                "layer {layer} of the cache comes before layer {}",
                self.layers.len()
            );
        }
        if layer < self.layers.len() {
            self.layers[layer] = all.clone();
        } else {
            self.layers.push(all.clone());
        }
        Ok(all)
    }
}
