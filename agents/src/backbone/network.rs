//! The forward pass: embeddings, blocks, final norm and output head of any family, for a batch whose rows
//! belong to different agents.
//!
//! Rows of one agent are consecutive. They share the backbone's weights unless their adapter brings its
//! own, and add what their adapter adds. Everything is differentiable; nothing here samples or trains.

mod adapted;
mod layer;
mod places;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use self::places::Places;
use super::architecture::Architecture;
use super::block::{Block, Linear, Outer, Source};
use super::hooks::Hooks;
use super::kv_cache::KvCache;
use super::rows::{Rows, Tokens, by_group, merge};
use crate::adapter::Adapter;
use crate::error::Result;
use crate::gpu::Changes;
use crate::gpu::paged::Paged;
use crate::learning::dropout::Dropout;

/// What goes through the network beside tokens.
#[derive(Default)]
pub struct Pass<'a> {
    /// Whose rows they are.
    pub rows: &'a [Rows<'a>],
    /// Keys and values of the tokens before these.
    pub cache: Option<&'a mut KvCache>,
    /// For rows of one token each; then there is no cache.
    pub apart: Option<Apart<'a>>,
    /// Who watches or changes the residual stream.
    pub hooks: Option<&'a mut dyn Hooks>,
    /// What is dropped; nothing where absent.
    pub dropout: Option<Dropout>,
}

/// What rows need that are one token each, of any sequences. Only a session makes one.
#[derive(Clone, Copy, Debug)]
pub struct Apart<'a> {
    /// Where the keys and values of their sequences are.
    pub(crate) paged: &'a Paged,
    /// What adapters change row by row, where a kernel of its own does that.
    pub(crate) changes: Option<&'a Changes>,
}

impl std::fmt::Debug for Pass<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pass").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl<'a> Pass<'a> {
    /// A pass of these rows and nothing else.
    #[must_use]
    pub fn of(rows: &'a [Rows<'a>]) -> Self {
        Self { rows, ..Self::default() }
    }

    /// The same pass with a cache.
    #[must_use]
    pub fn cached(rows: &'a [Rows<'a>], cache: &'a mut KvCache) -> Self {
        Self { rows, cache: Some(cache), ..Self::default() }
    }
}

/// A network's weights, ready to run.
#[derive(Debug)]
pub struct Network {
    architecture: Arc<Architecture>,
    outer: Outer,
    blocks: Vec<Block>,
}

impl Network {
    /// Picks the weights out of `get`, which gives them by name.
    ///
    /// # Errors
    /// When one is missing.
    pub fn assemble(architecture: Architecture, get: &Source<'_>) -> Result<Self> {
        let outer = Outer::assemble(&architecture, get)?;
        let blocks = (0..architecture.depth())
            .map(|layer| Block::assemble(&architecture, layer, get))
            .collect::<Result<_>>()?;
        Ok(Self { architecture: Arc::new(architecture), outer, blocks })
    }

    /// The network's dimensions.
    #[must_use]
    pub fn architecture(&self) -> &Arc<Architecture> {
        &self.architecture
    }

    /// Number of layers.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// The device the weights live on.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.outer.embedding.device()
    }

    /// The type that activations are computed in.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.outer.embedding.dtype()
    }

    pub(crate) fn block(&self, layer: usize) -> Option<&Block> {
        self.blocks.get(layer)
    }

    /// BERT's pooler, where the checkpoint has one.
    pub(crate) fn pooler(&self) -> Option<&Linear> {
        self.outer.pooler.as_ref()
    }

    pub(crate) fn outer(&self) -> &Outer {
        &self.outer
    }

    /// Embeddings `[n, hidden]` of tokens `[n]`, as the first block would read them without positions.
    pub(crate) fn embeddings_of(&self, ids: &Tensor) -> Result<Tensor> {
        let x = self.outer.embedding.index_select(ids, 0)?;
        Ok((x * self.architecture.embedding_scale)?)
    }

    /// Hidden states after the final norm, `[rows, columns, hidden]`, where the first block reads `x` instead
    /// of what the tokens would give.
    ///
    /// # Errors
    /// As [`Network::hidden`].
    pub(crate) fn hidden_from(
        &self,
        x: Tensor,
        tokens: &Tokens,
        mut pass: Pass<'_>,
    ) -> Result<Tensor> {
        let x = self.partial(x, tokens, &mut pass, 0..self.depth())?;
        self.finish(&x, pass.rows)
    }

    /// Hidden states after the final norm, `[rows, columns, hidden]`.
    ///
    /// With a cache, the tokens continue those already read.
    ///
    /// # Errors
    /// When the rows outgrow the context, or do not add up to the batch.
    pub fn hidden(&self, tokens: &Tokens, mut pass: Pass<'_>) -> Result<Tensor> {
        let x = self.embed(tokens, &mut pass)?;
        self.hidden_from(x, tokens, pass)
    }

    /// The residual stream at the embeddings and after each layer, `[rows, columns, hidden]` each. The
    /// first `frozen` layers run outside the tape.
    ///
    /// # Errors
    /// As [`Network::hidden`].
    pub fn states(
        &self,
        tokens: &Tokens,
        mut pass: Pass<'_>,
        frozen: usize,
    ) -> Result<Vec<Tensor>> {
        let mut states = vec![self.embed(tokens, &mut pass)?];
        for layer in 0..self.depth() {
            let x = states[layer].clone();
            let x = self.partial(x, tokens, &mut pass, layer..layer + 1)?;
            states.push(if layer < frozen { x.detach() } else { x });
        }
        Ok(states)
    }

    /// What the first block reads, `[rows, columns, hidden]`: embeddings of tokens, of their positions and
    /// of virtual tokens.
    ///
    /// # Errors
    /// When a token is outside the vocabulary, or a row outgrows the learned positions.
    pub fn embed(&self, tokens: &Tokens, pass: &mut Pass<'_>) -> Result<Tensor> {
        let ids = tokens.ids();
        let (_, width) = ids.dims2()?;
        let hidden = self.architecture.hidden;
        let scale = self.architecture.embedding_scale;
        let outer = merge(pass.rows, Adapter::outer);
        let look_up = |ids: &Tensor, own: Option<&Outer>| -> Result<Tensor> {
            let table = &own.unwrap_or(&self.outer).embedding;
            let x = table.index_select(&ids.flatten_all()?, 0)?;
            let x = x.reshape((ids.dim(0)?, width, hidden))?;
            Ok(if (scale - 1.0).abs() > f64::EPSILON { (x * scale)? } else { x })
        };
        let x = by_group(ids, &outer, look_up)?;
        let seen = pass.cache.as_ref().map_or(0, |cache| cache.seen(0));
        let x = if seen == 0 { adapted::prompt(x, tokens, pass.rows)? } else { x };
        let x = self.place(&x, tokens, seen, &outer)?;
        let x = by_group(&x, &outer, |x, own| match &own.unwrap_or(&self.outer).embedding_norm {
            Some(norm) => norm.forward(x),
            None => Ok(x.clone()),
        })?;
        watch(pass, 0, Dropout::hidden(pass.dropout, 0, x)?)
    }

    /// Adds learned positions and the token type, where there are any.
    fn place(
        &self,
        x: &Tensor,
        tokens: &Tokens,
        seen: usize,
        outer: &[(Option<&Outer>, usize)],
    ) -> Result<Tensor> {
        let Some(first) = self.architecture.first_position else { return Ok(x.clone()) };
        let (rows, width, hidden) = x.dims3()?;
        places::check(&self.architecture, seen + width - tokens.lead())?;
        let at: Vec<u32> =
            tokens.positions(tokens.spans(), seen).map(|at| (at + first) as u32).collect();
        let at = Tensor::from_vec(at, (rows, width), x.device())?;
        let placed = by_group(&at, outer, |at, own| {
            let outer = own.unwrap_or(&self.outer);
            let count = at.dim(0)?;
            let Some(table) = &outer.positions else { return Ok(at.clone()) };
            let placed =
                table.index_select(&at.flatten_all()?, 0)?.reshape((count, width, hidden))?;
            match &outer.token_type {
                Some(kind) => Ok(placed.broadcast_add(kind)?),
                None => Ok(placed),
            }
        })?;
        Ok((x + placed)?)
    }

    /// Runs some blocks only: the frozen part once, say, and the trained part at every step.
    ///
    /// # Errors
    /// As [`Network::hidden`].
    pub fn partial(
        &self,
        mut x: Tensor,
        tokens: &Tokens,
        pass: &mut Pass<'_>,
        layers: std::ops::Range<usize>,
    ) -> Result<Tensor> {
        // A cache grows layer by layer: what this layer has seen is what counts.
        let seen = pass.cache.as_ref().map_or(0, |cache| cache.seen(layers.start));
        let places = Places::new(&self.architecture, tokens, seen, x.dtype(), self.device())?;
        for layer in layers {
            x = self.layer(layer, &x, tokens, pass, &places)?;
            x = watch(pass, layer + 1, x)?;
        }
        Ok(x)
    }

    /// The final norm, under each row's adapter.
    ///
    /// # Errors
    /// When the rows do not add up to the batch.
    pub fn finish(&self, x: &Tensor, rows: &[Rows<'_>]) -> Result<Tensor> {
        by_group(x, &merge(rows, Adapter::outer), |x, own| {
            match &own.unwrap_or(&self.outer).final_norm {
                Some(norm) => norm.forward(x),
                None => Ok(x.clone()),
            }
        })
    }

    /// Logits `[.., vocabulary]` of finished hidden states `[.., hidden]`, the first axis being `rows`.
    ///
    /// # Errors
    /// When this is an encoder, which has no output head.
    pub fn logits(&self, hidden: &Tensor, rows: &[Rows<'_>]) -> Result<Tensor> {
        by_group(hidden, &merge(rows, Adapter::outer), |x, own| {
            let Some(head) = &own.unwrap_or(&self.outer).head else {
                let reason = "an encoder has no output head: it cannot write".to_owned();
                return Err(crate::error::ModelError::Examples(reason));
            };
            Ok(super::differentiable::linear(x, head, None)?)
        })
    }
}

/// Shows the residual stream to whoever watches.
fn watch(pass: &mut Pass<'_>, layer: usize, x: Tensor) -> Result<Tensor> {
    match pass.hooks.as_mut() {
        Some(hooks) => Ok(hooks.residual(layer, &x)?.unwrap_or(x)),
        None => Ok(x),
    }
}

#[cfg(test)]
mod tests;
