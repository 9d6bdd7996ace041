//! The Llama-architecture decoder (RoPE, RMSNorm, SwiGLU, grouped-query attention): forward pass of a
//! batch whose rows belong to different agents.
//!
//! Rows of one agent are consecutive. They share the backbone's weights unless their adapter brings its
//! own for a layer, and add their own LoRA. Everything is differentiable; nothing here samples or trains.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::config::DecoderConfig;
use super::differentiable::{attention, linear, rms_norm, rotary, swiglu};
use super::kv_cache::KvCache;
use crate::adapter::Adapter;
use crate::adapter::lora::{Lora, Module};
use crate::error::{ModelError, Result};

/// The weights of one layer, named as in the checkpoint.
#[derive(Clone, Debug)]
pub struct Layer {
    input_norm: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    post_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

impl Layer {
    /// Picks a layer's weights out of named tensors.
    ///
    /// # Errors
    /// When one is missing.
    pub fn assemble(layer: usize, tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        let get = |module: &str| find(tensors, &format!("model.layers.{layer}.{module}.weight"));
        Ok(Self {
            input_norm: get("input_layernorm")?,
            q: get("self_attn.q_proj")?,
            k: get("self_attn.k_proj")?,
            v: get("self_attn.v_proj")?,
            o: get("self_attn.o_proj")?,
            post_norm: get("post_attention_layernorm")?,
            gate: get("mlp.gate_proj")?,
            up: get("mlp.up_proj")?,
            down: get("mlp.down_proj")?,
        })
    }
}

/// The tensor of this name.
pub(crate) fn find(tensors: &BTreeMap<String, Tensor>, name: &str) -> Result<Tensor> {
    let missing = || ModelError::MissingWeight { name: name.to_owned() };
    tensors.get(name).cloned().ok_or_else(missing)
}

/// Consecutive rows of a batch that belong to one adapter (or to the bare backbone).
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Whose rows they are.
    pub adapter: Option<&'a Adapter>,
    /// How many there are.
    pub count: usize,
}

/// Tokens of a batch, padded on the left so that every row ends at the last column.
#[derive(Debug)]
pub struct Tokens {
    ids: Tensor,
    /// Columns of padding before each row's first token.
    padding: Vec<usize>,
}

impl Tokens {
    /// Packs rows of tokens.
    ///
    /// # Errors
    /// When a row is empty.
    pub fn pack(rows: &[Vec<u32>], device: &Device) -> Result<Self> {
        let width = rows.iter().map(Vec::len).max().unwrap_or(0);
        if rows.iter().any(Vec::is_empty) {
            return Err(ModelError::Examples("a row without tokens".to_owned()));
        }
        let padding: Vec<usize> = rows.iter().map(|row| width - row.len()).collect();
        let mut ids = Vec::with_capacity(rows.len() * width);
        for (row, &pad) in rows.iter().zip(&padding) {
            ids.extend(std::iter::repeat_n(0, pad));
            ids.extend_from_slice(row);
        }
        Ok(Self { ids: Tensor::from_vec(ids, (rows.len(), width), device)?, padding })
    }

    /// The next token of each row, after `padding` columns of padding at its start.
    pub(crate) fn next(ids: &[u32], padding: Vec<usize>, device: &Device) -> Result<Self> {
        Ok(Self { ids: Tensor::new(ids, device)?.unsqueeze(1)?, padding })
    }

    /// Columns of padding before each row's first token.
    #[must_use]
    pub fn padding(&self) -> &[usize] {
        &self.padding
    }

    /// Number of columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.ids.dims().get(1).copied().unwrap_or(0)
    }
}

/// A decoder's weights, ready to run.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    cos: Tensor,
    sin: Tensor,
}

/// What every layer of one pass needs to know of positions.
struct Positions {
    cos: Tensor,
    sin: Tensor,
    mask: Option<Tensor>,
}

impl Decoder {
    /// Picks the weights out of named tensors.
    ///
    /// # Errors
    /// When one is missing.
    pub fn assemble(
        config: DecoderConfig,
        tensors: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        let embedding = find(tensors, "model.embed_tokens.weight")?;
        let head = if config.tie_word_embeddings {
            embedding.clone()
        } else {
            find(tensors, "lm_head.weight")?
        };
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Layer::assemble(layer, tensors))
            .collect::<Result<_>>()?;
        let (cos, sin) = config.rotary(device)?;
        let norm = find(tensors, "model.norm.weight")?;
        Ok(Self { config, embedding, layers, norm, head, cos, sin })
    }

    /// The decoder's dimensions.
    #[must_use]
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The device the weights live on.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// Hidden states after the final norm, `[rows, tokens, hidden]`.
    ///
    /// With a cache, the tokens continue those already read.
    ///
    /// # Errors
    /// When the rows outgrow the context, or do not add up to the batch.
    pub fn hidden(
        &self,
        tokens: &Tokens,
        rows: &[Rows<'_>],
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let depth = self.layers.len();
        let x = self.partial(self.embed(tokens)?, tokens, rows, 0..depth, cache)?;
        self.finish(&x, rows)
    }

    /// The residual stream at the embeddings and after each layer, `[rows, tokens, hidden]` each. The first
    /// `frozen` layers run outside the tape.
    ///
    /// # Errors
    /// As [`Decoder::hidden`].
    pub fn states(
        &self,
        tokens: &Tokens,
        rows: &[Rows<'_>],
        mut cache: Option<&mut KvCache>,
        frozen: usize,
    ) -> Result<Vec<Tensor>> {
        let mut states = vec![self.embed(tokens)?];
        for layer in 0..self.layers.len() {
            let x = states[layer].clone();
            let x = self.partial(x, tokens, rows, layer..layer + 1, cache.as_deref_mut())?;
            states.push(if layer < frozen { x.detach() } else { x });
        }
        Ok(states)
    }

    /// The embeddings of tokens, `[rows, tokens, hidden]`.
    ///
    /// # Errors
    /// When a token is outside the vocabulary.
    pub fn embed(&self, tokens: &Tokens) -> Result<Tensor> {
        let (rows, width) = tokens.ids.dims2()?;
        let flat = self.embedding.index_select(&tokens.ids.flatten_all()?, 0)?;
        Ok(flat.reshape((rows, width, self.config.hidden_size))?)
    }

    /// Runs some layers only: the frozen part once, say, and the trained part at every step.
    ///
    /// # Errors
    /// As [`Decoder::hidden`].
    pub fn partial(
        &self,
        mut x: Tensor,
        tokens: &Tokens,
        rows: &[Rows<'_>],
        layers: std::ops::Range<usize>,
        mut cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        // A cache grows layer by layer: what this layer has seen is what counts.
        let seen = cache.as_ref().map_or(0, |cache| cache.seen(layers.start));
        let positions = self.positions(tokens, seen)?;
        for layer in layers {
            x = self.layer(layer, &x, rows, &positions, cache.as_deref_mut())?;
        }
        Ok(x)
    }

    /// The final norm, under each row's adapter.
    ///
    /// # Errors
    /// When the rows do not add up to the batch.
    pub fn finish(&self, x: &Tensor, rows: &[Rows<'_>]) -> Result<Tensor> {
        by_group(x, &merge(rows, |row| row.adapter.and_then(|a| a.norm())), |x, norm, _| {
            Ok(rms_norm(x, norm.unwrap_or(&self.norm), self.config.rms_norm_eps)?)
        })
    }

    /// Logits `[.., vocabulary]` of finished hidden states `[.., hidden]`.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(linear(hidden, &self.head)?)
    }

    fn layer(
        &self,
        index: usize,
        x: &Tensor,
        rows: &[Rows<'_>],
        positions: &Positions,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let shared = &self.layers[index];
        let groups = merge(rows, |row| row.adapter.and_then(|a| a.layer(index)));
        let epsilon = self.config.rms_norm_eps;
        let heads = self.config.num_attention_heads;
        let key_heads = self.config.key_value_heads();
        let width = self.config.head_width();

        let normed = by_group(x, &groups, |x, own, _| {
            Ok(rms_norm(x, &own.unwrap_or(shared).input_norm, epsilon)?)
        })?;
        let project = |x: &Tensor, module: Module| {
            let base = by_group(x, &groups, |x, own, _| {
                Ok(linear(x, own.unwrap_or(shared).weight(module))?)
            })?;
            add_lora(base, x, rows, index, module)
        };
        let split = |y: Tensor, heads: usize| -> Result<Tensor> {
            let (batch, tokens, _) = y.dims3()?;
            Ok(y.reshape((batch, tokens, heads, width))?.transpose(1, 2)?.contiguous()?)
        };
        let q = split(project(&normed, Module::Query)?, heads)?;
        let k = split(project(&normed, Module::Key)?, key_heads)?;
        let v = split(project(&normed, Module::Value)?, key_heads)?;
        let q = rotary(&q, &positions.cos, &positions.sin)?;
        let k = rotary(&k, &positions.cos, &positions.sin)?;
        let (k, v) = match cache {
            Some(cache) => cache.append(index, &k, &v)?,
            None => (k, v),
        };
        let mixed = attention(&q, &k, &v, positions.mask.as_ref())?;
        let (batch, _, tokens, _) = mixed.dims4()?;
        let mixed = mixed.transpose(1, 2)?.contiguous()?.reshape((batch, tokens, heads * width))?;
        let x = (x + project(&mixed, Module::Output)?)?;

        let normed = by_group(&x, &groups, |x, own, _| {
            Ok(rms_norm(x, &own.unwrap_or(shared).post_norm, epsilon)?)
        })?;
        let inner = swiglu(&project(&normed, Module::Gate)?, &project(&normed, Module::Up)?)?;
        Ok((x + project(&inner, Module::Down)?)?)
    }

    fn positions(&self, tokens: &Tokens, seen: usize) -> Result<Positions> {
        let width = tokens.width();
        let limit = self.config.max_position_embeddings;
        if seen + width > limit {
            return Err(ModelError::TooLong { found: seen + width, limit });
        }
        let padded = tokens.padding.iter().any(|&pad| pad > 0);
        let (cos, sin) = if padded {
            let at: Vec<u32> = tokens
                .padding
                .iter()
                .flat_map(|&pad| (seen..seen + width).map(move |c| c.saturating_sub(pad) as u32))
                .collect();
            let at = Tensor::new(at, self.device())?;
            let shape = (tokens.padding.len(), width, self.cos.dim(1)?);
            (
                self.cos.index_select(&at, 0)?.reshape(shape)?,
                self.sin.index_select(&at, 0)?.reshape(shape)?,
            )
        } else {
            (self.cos.narrow(0, seen, width)?, self.sin.narrow(0, seen, width)?)
        };
        let mask = (padded || width > 1)
            .then(|| causal_mask(&tokens.padding, padded, seen, width, self.device()))
            .transpose()?;
        Ok(Positions { cos, sin, mask })
    }
}

impl Layer {
    fn weight(&self, module: Module) -> &Tensor {
        match module {
            Module::Query => &self.q,
            Module::Key => &self.k,
            Module::Value => &self.v,
            Module::Output => &self.o,
            Module::Gate => &self.gate,
            Module::Up => &self.up,
            Module::Down => &self.down,
        }
    }
}

/// Adds to `base` each row's own low-rank update of `module`, where its adapter has one.
fn add_lora(
    base: Tensor,
    x: &Tensor,
    rows: &[Rows<'_>],
    layer: usize,
    module: Module,
) -> Result<Tensor> {
    let own: Vec<Option<&Lora>> =
        rows.iter().map(|row| row.adapter.and_then(|a| a.lora(layer, module))).collect();
    if own.iter().all(Option::is_none) {
        return Ok(base);
    }
    if let [Some(lora)] = own[..] {
        return Ok((base + delta(x, lora)?)?);
    }
    let mut start = 0;
    let mut deltas = Vec::with_capacity(rows.len());
    for (row, lora) in rows.iter().zip(own) {
        let part = x.narrow(0, start, row.count)?;
        deltas.push(match lora {
            Some(lora) => delta(&part, lora)?,
            None => base.narrow(0, start, row.count)?.zeros_like()?,
        });
        start += row.count;
    }
    Ok((base + Tensor::cat(&deltas, 0)?)?)
}

/// `scale · B(A x)` (Hu et al. 2021, arXiv 2106.09685).
fn delta(x: &Tensor, lora: &Lora) -> Result<Tensor> {
    Ok((linear(&linear(x, &lora.a)?, &lora.b)? * lora.scale)?)
}

/// Neighbouring rows that share the same own weights, as one group.
fn merge<'a, T>(
    rows: &[Rows<'a>],
    own: impl Fn(&Rows<'a>) -> Option<&'a T>,
) -> Vec<(Option<&'a T>, usize)> {
    let mut groups: Vec<(Option<&'a T>, usize)> = Vec::new();
    for row in rows {
        let weights = own(row);
        match groups.last_mut() {
            Some((last, count))
                if last.map(std::ptr::from_ref) == weights.map(std::ptr::from_ref) =>
            {
                *count += row.count;
            }
            _ => groups.push((weights, row.count)),
        }
    }
    groups
}

/// Applies `f` to each group of rows and puts the results together again.
fn by_group<T>(
    x: &Tensor,
    groups: &[(Option<&T>, usize)],
    f: impl Fn(&Tensor, Option<&T>, usize) -> Result<Tensor>,
) -> Result<Tensor> {
    if let [(own, count)] = groups {
        return f(x, *own, *count);
    }
    let mut start = 0;
    let mut parts = Vec::with_capacity(groups.len());
    for &(own, count) in groups {
        parts.push(f(&x.narrow(0, start, count)?, own, count)?);
        start += count;
    }
    Ok(Tensor::cat(&parts, 0)?)
}

/// Zero where a token may look, minus infinity where it may not, `[rows or 1, 1, width, seen + width]`.
///
/// A column of padding sees only itself: a row without any visible column would divide by zero.
fn causal_mask(
    padding: &[usize],
    padded: bool,
    seen: usize,
    width: usize,
    device: &Device,
) -> Result<Tensor> {
    let rows: &[usize] = if padded { padding } else { &[0] };
    let mut values = Vec::with_capacity(rows.len() * width * (seen + width));
    for &pad in rows {
        for column in seen..seen + width {
            values.extend((0..seen + width).map(|other| {
                let visible = (pad <= other && other <= column) || other == column;
                if visible { 0f32 } else { f32::NEG_INFINITY }
            }));
        }
    }
    Ok(Tensor::from_vec(values, (rows.len(), 1, width, seen + width), device)?)
}

#[cfg(test)]
mod tests;
