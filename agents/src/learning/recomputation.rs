//! The backward pass through a whole network, with or without keeping every activation.
//!
//! Kept, everything stays on one tape. Recomputed (Chen et al. 2016, arXiv 1604.06174), the forward pass
//! keeps only what each layer reads; going back, each layer runs again on a tape of its own. Memory falls
//! from all layers' activations to one layer's, for one more forward pass. Gradients are the same.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use super::accumulation::Gradients;
use crate::backbone::{Backbone, Pass, Rows, Tokens};
use crate::error::{ModelError, Result};
use crate::learning::dropout::Dropout;

/// What lies below a loss on the final hidden states.
#[derive(Debug)]
pub struct Below<'a> {
    /// The network.
    pub backbone: &'a Backbone,
    /// Whose rows they are: adapters with tracked weights.
    pub owners: &'a [Rows<'a>],
    /// What it reads.
    pub tokens: &'a Tokens,
    /// Where dropout masks come from.
    pub dropout: Option<Dropout>,
}

/// What each of several learners that share a pass tracks, by name.
pub type Tracked<'a> = &'a BTreeMap<String, Tensor>;

/// Gradients of `losses`, scalar functions of the final hidden states `[rows, columns, hidden]`, each with
/// respect to the weights that its own learner tracks. A loss must not depend on another learner's weights.
///
/// # Errors
/// When a pass or `losses` fails.
pub fn backward(
    below: &Below<'_>,
    learners: &[Tracked<'_>],
    recompute: bool,
    losses: impl Fn(&Tensor) -> Result<Vec<Tensor>>,
) -> Result<Vec<Gradients>> {
    let network = &below.backbone.network;
    let owners = below.owners;
    let pass = || Pass { dropout: below.dropout, ..Pass::of(owners) };
    if !recompute {
        let losses = losses(&network.hidden(below.tokens, pass())?)?;
        return collect(&sum(&losses)?.backward()?, &losses, learners);
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
    let values = losses(&network.finish(top.as_tensor(), owners)?)?;
    let store = sum(&values)?.backward()?;
    let mut gradients = collect(&store, &values, learners)?;
    let add = |store: &GradStore, gradients: &mut [Gradients]| -> Result<()> {
        for (own, tracked) in gradients.iter_mut().zip(learners) {
            own.add(Gradients::collect(store, tracked))?;
        }
        Ok(())
    };
    let zero = |x: &Tensor| x.zeros_like();
    let mut up = store.get(&top).map_or_else(|| zero(top.as_tensor()), |g| Ok(g.detach()))?;
    for layer in (0..network.depth()).rev() {
        let x = Var::from_tensor(&pop(&mut states)?)?;
        let input = x.as_tensor().clone();
        let y = network.partial(input, below.tokens, &mut pass(), layer..layer + 1)?;
        let store = (y * &up)?.sum_all()?.backward()?;
        add(&store, &mut gradients)?;
        up = store.get(&x).map_or_else(|| zero(x.as_tensor()), |g| Ok(g.detach()))?;
    }
    let x = network.embed(below.tokens, &mut pass())?;
    if x.track_op() {
        let store = (x * &up)?.sum_all()?.backward()?;
        add(&store, &mut gradients)?;
    }
    Ok(gradients)
}

fn sum(losses: &[Tensor]) -> Result<Tensor> {
    let missing = || ModelError::Examples("there is no loss".to_owned());
    let (first, rest) = losses.split_first().ok_or_else(missing)?;
    rest.iter().try_fold(first.clone(), |sum, loss| Ok((sum + loss)?))
}

/// Each learner's own loss and gradients out of one backward pass.
fn collect(
    store: &GradStore,
    losses: &[Tensor],
    learners: &[Tracked<'_>],
) -> Result<Vec<Gradients>> {
    let own = |(loss, tracked): (&Tensor, &Tracked<'_>)| {
        let loss = f64::from(loss.to_dtype(DType::F32)?.to_scalar::<f32>()?);
        Ok(Gradients { loss, ..Gradients::collect(store, tracked) })
    };
    losses.iter().zip(learners).map(own).collect()
}
