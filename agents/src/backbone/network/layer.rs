//! One block of the forward pass: attention and feed-forward, each with whatever norms the family has.

use candle_core::{D, Tensor};

use super::adapted::{Adapted, prefixed};
use super::places::Places;
use super::{Apart, Network, Pass};
use crate::adapter::Adapter;
use crate::backbone::block::Block;
use crate::backbone::differentiable::{activate, attention, gated, rotary};
use crate::backbone::names::{Module, Place};
use crate::backbone::rows::{Tokens, by_group, merge};
use crate::error::Result;
use crate::learning::dropout::Dropout;

impl Network {
    /// Runs block `index` on the residual stream `[rows, columns, hidden]`.
    pub(super) fn layer(
        &self,
        index: usize,
        x: &Tensor,
        tokens: &Tokens,
        pass: &mut Pass<'_>,
        places: &Places,
    ) -> Result<Tensor> {
        let groups = merge(pass.rows, |adapter: &Adapter| adapter.block(index));
        let shared = &self.blocks[index];
        let dropout = pass.dropout;
        let seed = dropout.map(|dropout| dropout.seed);
        let adapted = Adapted {
            layer: index,
            shared,
            groups,
            rows: pass.rows,
            dropout: seed,
            changes: pass.apart.and_then(|apart| apart.changes),
        };
        let norm = |x: &Tensor, place: Place| adapted.norm(x, place);

        let read = norm(x, Place::BeforeAttention)?;
        let mixed = self.attend(&adapted, &read, tokens, pass, places)?;
        let mixed = Dropout::hidden(dropout, 2 * index + 1, mixed)?;
        let x = (x + norm(&mixed, Place::AfterAttention)?)?;
        let x = norm(&x, Place::AttentionSum)?;

        let read = norm(&x, Place::BeforeMlp)?;
        let inner = self.feed_forward(&adapted, &read)?;
        let inner = Dropout::hidden(dropout, 2 * index + 2, inner)?;
        let x = (&x + norm(&inner, Place::AfterMlp)?)?;
        norm(&x, Place::MlpSum)
    }

    fn attend(
        &self,
        adapted: &Adapted<'_>,
        x: &Tensor,
        tokens: &Tokens,
        pass: &mut Pass<'_>,
        places: &Places,
    ) -> Result<Tensor> {
        let shape = self.architecture.layers[adapted.layer];
        let (heads, key_heads) = (self.architecture.heads, self.architecture.key_heads);
        let width = self.architecture.head_width;
        let (batch, columns, _) = x.dims3()?;
        let [q, k, v] = self.queries_keys_values(adapted, x)?;
        let split = |y: Tensor, heads: usize| -> Result<Tensor> {
            Ok(y.reshape((batch, columns, heads, width))?.transpose(1, 2)?.contiguous()?)
        };
        let (mut q, mut k, v) = (split(q, heads)?, split(k, key_heads)?, split(v, key_heads)?);
        if adapted.shared.head_norms.is_some() {
            q = adapted.head_norm(&q, 0)?;
            k = adapted.head_norm(&k, 1)?;
        }
        if let Some([cos, sin]) = places.rotation(shape) {
            q = rotary(&q, cos, sin)?;
            k = rotary(&k, cos, sin)?;
        }
        let scale = self.architecture.attention_scale;
        if let Some(Apart { paged, .. }) = pass.apart {
            paged.keep(adapted.layer, &k.squeeze(2)?, &v.squeeze(2)?)?;
            let mixed = paged.attend(adapted.layer, &q.squeeze(2)?, shape.window, scale)?;
            let mixed = mixed.reshape((batch, columns, heads * width))?;
            return adapted.project(&mixed, Module::Output);
        }
        let first = pass.cache.as_ref().is_none_or(|cache| cache.seen(adapted.layer) == 0);
        let (k, v) = if first { prefixed(k, v, adapted.layer, tokens, pass.rows)? } else { (k, v) };
        let (k, v) = match pass.cache.as_mut() {
            Some(cache) => cache.append(adapted.layer, &k, &v)?,
            None => (k, v),
        };
        let mixed = attention(&q, &k, &v, places.mask(shape), scale)?;
        let mixed =
            mixed.transpose(1, 2)?.contiguous()?.reshape((batch, columns, heads * width))?;
        adapted.project(&mixed, Module::Output)
    }

    fn queries_keys_values(&self, adapted: &Adapted<'_>, x: &Tensor) -> Result<[Tensor; 3]> {
        if adapted.shared.has(Module::QueryKeyValue) {
            let all = adapted.project(x, Module::QueryKeyValue)?;
            let (query, key) = (self.architecture.query_width(), self.architecture.key_width());
            let part = |start, width| all.narrow(D::Minus1, start, width);
            return Ok([part(0, query)?, part(query, key)?, part(query + key, key)?]);
        }
        Ok([
            adapted.project(x, Module::Query)?,
            adapted.project(x, Module::Key)?,
            adapted.project(x, Module::Value)?,
        ])
    }

    fn feed_forward(&self, adapted: &Adapted<'_>, x: &Tensor) -> Result<Tensor> {
        let activation = self.architecture.activation;
        let inner = if adapted.shared.has(Module::GateUp) {
            let both = adapted.project(x, Module::GateUp)?;
            let inner = self.architecture.inner;
            let gate = both.narrow(D::Minus1, 0, inner)?;
            gated(&gate, &both.narrow(D::Minus1, inner, inner)?, activation)?
        } else if adapted.shared.has(Module::Gate) {
            let gate = adapted.project(x, Module::Gate)?;
            gated(&gate, &adapted.project(x, Module::Up)?, activation)?
        } else {
            activate(&adapted.project(x, Module::Up)?, activation)?
        };
        adapted.project(&inner, Module::Down)
    }
}

impl Adapted<'_> {
    /// The norm at `place`; nothing where the family has none there.
    fn norm(&self, x: &Tensor, place: Place) -> Result<Tensor> {
        if self.shared.norm(place).is_none() {
            return Ok(x.clone());
        }
        by_group(x, &self.groups, |x, own| match own.unwrap_or(self.shared).norm(place) {
            Some(norm) => norm.forward(x),
            None => Ok(x.clone()),
        })
    }

    /// The norm of each query (0) or key (1) head.
    fn head_norm(&self, x: &Tensor, which: usize) -> Result<Tensor> {
        by_group(x, &self.groups, |x, own: Option<&Block>| {
            match &own.unwrap_or(self.shared).head_norms {
                Some(norms) => norms[which].forward(x),
                None => Ok(x.clone()),
            }
        })
    }
}
