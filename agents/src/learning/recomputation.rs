//! The backward pass through a whole network, with or without keeping every activation.
//!
//! Kept, everything stays on one tape. Recomputed (Chen et al. 2016, arXiv 1604.06174), the forward pass
//! keeps only what each layer reads; going back, each layer runs again on a tape of its own. Memory falls
//! from all layers' activations to one layer's, for one more forward pass. Gradients are the same.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};

use super::accumulation::Gradients;
use crate::adapter::Adapter;
use crate::backbone::{Backbone, Pass, Rows, Tokens};
use crate::error::{ModelError, Result};
use crate::seed::Seed;

/// What lies below a loss on the final hidden states.
#[derive(Debug)]
pub struct Below<'a> {
    /// The network.
    pub backbone: &'a Backbone,
    /// Its adapter, with tracked weights.
    pub adapter: &'a Adapter,
    /// What it reads.
    pub tokens: &'a Tokens,
    /// Where dropout masks come from.
    pub dropout: Option<Seed>,
}

/// Gradients of `loss`, a function of the final hidden states `[rows, columns, hidden]`, with respect to
/// `tracked`.
///
/// # Errors
/// When a pass or `loss` fails.
pub fn backward(
    below: &Below<'_>,
    tracked: &BTreeMap<String, Tensor>,
    recompute: bool,
    loss: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Gradients> {
    let network = &below.backbone.network;
    let owners = [Rows { adapter: Some(below.adapter), count: below.tokens.spans().len() }];
    let pass = || Pass { dropout: below.dropout, ..Pass::of(&owners) };
    if !recompute {
        let hidden = network.hidden(below.tokens, pass())?;
        return Gradients::of(&loss(&hidden)?, tracked);
    }
    let mut states = Vec::with_capacity(network.depth() + 1);
    states.push(network.embed(below.tokens, &mut pass())?.detach());
    for layer in 0..network.depth() {
        let x = states[layer].clone();
        // The tape of this layer ends here: what it kept is dropped.
        let y = network.partial(x, below.tokens, &mut pass(), layer..layer + 1)?;
        states.push(y.detach());
    }
    let pop = |states: &mut Vec<Tensor>| {
        let missing = || ModelError::Examples("there are no hidden states".to_owned());
        states.pop().ok_or_else(missing)
    };
    let top = Var::from_tensor(&pop(&mut states)?)?;
    let value = loss(&network.finish(top.as_tensor(), &owners)?)?;
    let store = value.backward()?;
    let mut gradients = Gradients::collect(&store, tracked);
    gradients.loss = f64::from(value.to_scalar::<f32>()?);
    let zero = |x: &Tensor| x.zeros_like();
    let mut up = store.get(&top).map_or_else(|| zero(top.as_tensor()), |g| Ok(g.detach()))?;
    for layer in (0..network.depth()).rev() {
        let x = Var::from_tensor(&pop(&mut states)?)?;
        let input = x.as_tensor().clone();
        let y = network.partial(input, below.tokens, &mut pass(), layer..layer + 1)?;
        let store = (y * &up)?.sum_all()?.backward()?;
        gradients.add(Gradients::collect(&store, tracked))?;
        up = store.get(&x).map_or_else(|| zero(x.as_tensor()), |g| Ok(g.detach()))?;
    }
    let x = network.embed(below.tokens, &mut pass())?;
    if x.track_op() {
        let store = (x * &up)?.sum_all()?.backward()?;
        gradients.add(Gradients::collect(&store, tracked))?;
    }
    Ok(gradients)
}
