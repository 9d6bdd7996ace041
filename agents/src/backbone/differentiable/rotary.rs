//! Rotary embedding with its backward: the opposite rotation.

use candle_core::{Result, Tensor};

use super::graft;

/// Rotary embedding (Su et al. 2021) of `x` `[batch, heads, tokens, width]`; the tables are
/// `[tokens, width/2]`, or `[batch, tokens, width/2]` where rows sit at different positions.
pub(crate) fn rotary(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let value = candle_nn::rotary_emb::rope(&x.detach(), cos, sin)?;
    if !x.track_op() {
        return Ok(value);
    }
    let (cos, sin) = (cos.clone(), sin.neg()?);
    // A rotation is undone by the opposite rotation.
    graft::one("rotary", value, &x, move |_, gradient| {
        Ok([Some(candle_nn::rotary_emb::rope(&gradient.contiguous()?, &cos, &sin)?)])
    })
}
