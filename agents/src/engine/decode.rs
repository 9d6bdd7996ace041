//! One batch through the network: every row of it, whoever it belongs to, in the same forward passes.
//!
//! Rows that want a class need one pass; rows that want a text go on, one token a pass, until each has
//! ended. A row's draws come from its own stream and never depend on the other rows.

use candle_core::{DType, Tensor};

use crate::adapter::Adapter;
use crate::adapter::head::{Pooling, features};
use crate::backbone::{Backbone, KvCache, Network, Pass, Rows, Tokens};
use crate::error::{ModelError, Result};
use crate::sampler::{Filter, pick, softmax};
use crate::seed::{Seed, Stream};

/// What a row wants to know.
#[derive(Debug)]
pub enum Want {
    /// Probabilities of the adapter's labels.
    Classes,
    /// A text.
    Text {
        /// Longest text in tokens.
        max_tokens: usize,
        /// 0 picks the likeliest token.
        temperature: f64,
        /// Which tokens may be drawn at all.
        filter: Filter,
        /// Tokens that end the text, not part of it.
        stop: Vec<u32>,
        /// The row's own random stream.
        stream: Box<Stream>,
    },
}

/// A row of a batch.
#[derive(Debug)]
pub struct Row<'a> {
    /// The agent's weights; the bare backbone where none.
    pub adapter: Option<&'a Adapter>,
    /// The prompt.
    pub tokens: Vec<u32>,
    /// What it wants.
    pub want: Want,
}

/// What a row got.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    /// Probabilities in the order of the adapter's labels.
    Classes(Vec<f64>),
    /// A text.
    Text {
        /// Its tokens, without the one that ended it.
        tokens: Vec<u32>,
        /// The token that ended it; none where its length ran out.
        stop: Option<u32>,
    },
}

/// Runs a batch; the answers are in the order of the rows.
///
/// Rows of one adapter should be neighbours: each run of neighbours shares its matrix products.
///
/// # Errors
/// When a prompt is empty or too long, or a class is asked of an adapter without a head.
pub fn run(backbone: &Backbone, rows: &mut [Row<'_>]) -> Result<Vec<Got>> {
    let network = &backbone.network;
    let device = network.device();
    let prompts: Vec<Vec<u32>> = rows.iter().map(|row| row.tokens.clone()).collect();
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    let groups = group(rows.iter().map(|row| row.adapter));
    let tokens = Tokens::pack(&prompts, &groups, device)?;
    let mut cache = KvCache::default();
    let states = network.states(&tokens, Pass::cached(&groups, &mut cache), network.depth())?;
    let mut got: Vec<Got> =
        rows.iter().map(|_| Got::Text { tokens: Vec::new(), stop: None }).collect();
    if rows.iter().any(|row| matches!(row.want, Want::Classes)) {
        classify(network, rows, &states, &groups, &tokens, &mut got)?;
    }
    let hidden = match states.last() {
        Some(top) => network.finish(&top.narrow(1, tokens.width() - 1, 1)?, &groups)?,
        None => return Ok(got),
    };
    let writing: Vec<usize> =
        (0..rows.len()).filter(|&i| matches!(rows[i].want, Want::Text { .. })).collect();
    let last = hidden.squeeze(1)?;
    write(backbone, rows, writing, &tokens, last, cache, &mut got)?;
    Ok(got)
}

/// Answers the rows that want a class; rows of one pooling share their features.
fn classify(
    network: &Network,
    rows: &[Row<'_>],
    states: &[Tensor],
    groups: &[Rows<'_>],
    tokens: &Tokens,
    got: &mut [Got],
) -> Result<()> {
    let mut pooled: Vec<(Pooling, Tensor)> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        if !matches!(row.want, Want::Classes) {
            continue;
        }
        let head = row.adapter.and_then(Adapter::head).ok_or_else(|| {
            ModelError::Examples("a class was asked of an agent without a classifier".to_owned())
        })?;
        let place = match pooled.iter().position(|(pooling, _)| *pooling == head.pooling) {
            Some(place) => place,
            None => {
                let all = features(network, states, groups, tokens, head.pooling)?;
                pooled.push((head.pooling, all));
                pooled.len() - 1
            }
        };
        let logits = head.logits(&pooled[place].1.narrow(0, index, 1)?)?;
        got[index] = Got::Classes(softmax(&logits.squeeze(0)?.to_vec1::<f32>()?));
    }
    Ok(())
}

/// Goes on with the rows `writing`, whose last hidden states are rows of `last`, until all have ended.
fn write(
    backbone: &Backbone,
    rows: &mut [Row<'_>],
    mut writing: Vec<usize>,
    prompts: &Tokens,
    last: Tensor,
    mut cache: KvCache,
    got: &mut [Got],
) -> Result<()> {
    let network = &backbone.network;
    let device = network.device();
    let mut kept: Vec<u32> = writing.iter().map(|&i| i as u32).collect();
    let mut last = last;
    let mut compact = kept.len() < rows.len();
    while !writing.is_empty() {
        if compact {
            let index = Tensor::new(kept.as_slice(), device)?;
            last = last.index_select(&index, 0)?;
            cache.keep(&index)?;
        }
        let groups = group(writing.iter().map(|&i| rows[i].adapter));
        let logits = network.logits(&last, &groups)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        let full = cache.tokens() + 1 >= network.architecture().positions;
        let mut next = Vec::with_capacity(writing.len());
        let mut staying = Vec::with_capacity(writing.len());
        kept = Vec::with_capacity(writing.len());
        for (place, (&index, logits)) in writing.iter().zip(&logits).enumerate() {
            let Want::Text { max_tokens, temperature, filter, stop, stream } =
                &mut rows[index].want
            else {
                continue;
            };
            let token = pick(logits, *temperature, filter, stream);
            let Got::Text { tokens: text, stop: ended } = &mut got[index] else { continue };
            if stop.contains(&token) {
                *ended = Some(token);
                continue;
            }
            text.push(token);
            if text.len() < *max_tokens && !full {
                next.push(token);
                staying.push(index);
                kept.push(place as u32);
            }
        }
        compact = staying.len() < writing.len();
        writing = staying;
        if writing.is_empty() {
            break;
        }
        if compact {
            let index = Tensor::new(kept.as_slice(), device)?;
            cache.keep(&index)?;
            compact = false;
        }
        let spans = writing.iter().map(|&i| prompts.spans()[i]).collect();
        let tokens = Tokens::next(&next, prompts.lead(), spans, device)?;
        let groups = group(writing.iter().map(|&i| rows[i].adapter));
        last = network.hidden(&tokens, Pass::cached(&groups, &mut cache))?.squeeze(1)?;
    }
    Ok(())
}

/// Neighbours of one adapter as one group.
pub(crate) fn group<'a>(adapters: impl Iterator<Item = Option<&'a Adapter>>) -> Vec<Rows<'a>> {
    let mut groups: Vec<Rows<'a>> = Vec::new();
    for adapter in adapters {
        match groups.last_mut() {
            Some(last)
                if last.adapter.map(std::ptr::from_ref) == adapter.map(std::ptr::from_ref) =>
            {
                last.count += 1;
            }
            _ => groups.push(Rows { adapter, count: 1 }),
        }
    }
    groups
}

/// What the bare backbone makes of a prompt, greedily.
///
/// # Errors
/// When the prompt is too long.
pub fn complete(backbone: &Backbone, prompt: &str, max_tokens: usize) -> Result<String> {
    let tokenizer = &backbone.tokenizer;
    let mut tokens: Vec<u32> = tokenizer.begin().into_iter().collect();
    tokens.extend(tokenizer.encode(prompt)?);
    let want = Want::Text {
        max_tokens,
        temperature: 0.0,
        filter: Filter::default(),
        stop: tokenizer.end().into_iter().collect(),
        stream: Box::new(Seed::new(0).stream()),
    };
    let mut rows = [Row { adapter: None, tokens, want }];
    match run(backbone, &mut rows)?.pop() {
        Some(Got::Text { tokens, .. }) => tokenizer.decode(&tokens),
        _ => Ok(String::new()),
    }
}
