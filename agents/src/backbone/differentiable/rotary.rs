//! Rotary embedding with its backward: the opposite rotation.

use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::Value;

/// Rotary embedding (Su et al. 2021) of `x` `[batch, heads, tokens, width]`; the tables are
/// `[tokens, width/2]`, or `[batch, tokens, width/2]` where rows sit at different positions.
pub(crate) fn rotary(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let value = candle_nn::rotary_emb::rope(&x.detach(), cos, sin)?;
    if !x.track_op() {
        return Ok(value);
    }
    let inverse = (cos.clone(), sin.neg()?);
    x.apply_op1(Rotary { value: Value::new(value), inverse })
}

struct Rotary {
    value: Value,
    inverse: (Tensor, Tensor),
}

impl CustomOp1 for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.value.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.value.cuda()
    }

    // A rotation is undone by the opposite rotation.
    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (cos, sin) = &self.inverse;
        candle_nn::rotary_emb::rope(&gradient.contiguous()?, cos, sin).map(Some)
    }
}
