//! Grafting a value that was computed outside the tape onto it, with a backward of our own.
//!
//! The one place that speaks candle's interface of custom operations for such values; what is computed and
//! how it is differentiated is the business of each operation.

use std::sync::Mutex;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage,
    Tensor,
};

/// An operation whose value is known already. `backward` gets the inputs and the gradient of the value, and
/// gives the gradient of each input, none where nobody wants it.
struct Graft<B> {
    name: &'static str,
    value: Mutex<Option<Tensor>>,
    backward: B,
}

/// What a backward of `N` inputs looks like.
pub(super) trait Backward<const N: usize>:
    Fn([&Tensor; N], &Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static
{
}

impl<const N: usize, F> Backward<N> for F where
    F: Fn([&Tensor; N], &Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static
{
}

/// `value` as a function of `x`; the value itself where `x` is not tracked.
pub(super) fn one(
    name: &'static str,
    value: Tensor,
    x: &Tensor,
    backward: impl Backward<1>,
) -> Result<Tensor> {
    match Graft::new(name, value, [x], backward) {
        Ok(graft) => x.apply_op1(graft),
        Err(value) => Ok(value),
    }
}

/// `value` as a function of two inputs; the value itself where neither is tracked.
pub(super) fn two(
    name: &'static str,
    value: Tensor,
    [x, y]: [&Tensor; 2],
    backward: impl Backward<2>,
) -> Result<Tensor> {
    match Graft::new(name, value, [x, y], backward) {
        Ok(graft) => x.apply_op2(y, graft),
        Err(value) => Ok(value),
    }
}

/// `value` as a function of three inputs; the value itself where none is tracked.
pub(super) fn three(
    name: &'static str,
    value: Tensor,
    [x, y, z]: [&Tensor; 3],
    backward: impl Backward<3>,
) -> Result<Tensor> {
    match Graft::new(name, value, [x, y, z], backward) {
        Ok(graft) => x.apply_op3(y, z, graft),
        Err(value) => Ok(value),
    }
}

impl<B> Graft<B> {
    /// The operation, or the value back where no input is tracked.
    fn new<const N: usize>(
        name: &'static str,
        value: Tensor,
        inputs: [&Tensor; N],
        backward: B,
    ) -> std::result::Result<Self, Tensor> {
        if inputs.iter().any(|input| input.track_op()) {
            Ok(Self { name, value: Mutex::new(Some(value)), backward })
        } else {
            Err(value)
        }
    }

    fn take(&self) -> Result<Tensor> {
        let slot = self.value.lock().ok().and_then(|mut slot| slot.take());
        slot.ok_or_else(|| candle_core::Error::Msg("a value was grafted twice".to_owned()))
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((storage.try_clone(layout)?, value.shape().clone())),
            _ => candle_core::bail!("expected a value on the CPU"),
        }
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        let value = self.take()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, value.shape().clone())),
            _ => candle_core::bail!("expected a value on the CUDA device"),
        }
    }
}

impl<B: Backward<1>> CustomOp1 for Graft<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, x: &Tensor, _value: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [to_x] = (self.backward)([x], gradient)?;
        Ok(to_x)
    }
}

impl<B: Backward<2>> CustomOp2 for Graft<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _value: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        (self.backward)([x, y], gradient).map(Into::into)
    }
}

impl<B: Backward<3>> CustomOp3 for Graft<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        z: &Tensor,
        _value: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        (self.backward)([x, y, z], gradient).map(Into::into)
    }
}
