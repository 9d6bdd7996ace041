//! Tensors as the kernels see them: addresses in the memory of a GPU.

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DevicePtr};
use candle_core::cuda_backend::{CudaDType, CudaStorageSlice};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Result, Shape, Storage, Tensor};

/// Does the same with whichever type a network's numbers have.
macro_rules! by_dtype {
    ($dtype:expr, $number:ident => $work:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $number = f32;
                $work
            }
            candle_core::DType::BF16 => {
                type $number = half::bf16;
                $work
            }
            candle_core::DType::F16 => {
                type $number = half::f16;
                $work
            }
            other => candle_core::bail!("no kernels for {}", other.as_str()),
        }
    };
}
pub(super) use by_dtype;

fn elsewhere() -> candle_core::Error {
    candle_core::Error::Msg("a tensor is strided or not on the GPU".to_owned())
}

/// The address of a contiguous tensor's first number. The device waits for whoever writes it now; who goes
/// on writing or drops it is the caller's business.
pub(super) fn address(tensor: &Tensor, device: &CudaDevice) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { return Err(elsewhere()) };
    let (start, _) = layout.contiguous_offsets().ok_or_else(elsewhere)?;
    let stream = device.cuda_stream();
    let first = match &storage.slice {
        CudaStorageSlice::F32(all) => all.device_ptr(&stream).0,
        CudaStorageSlice::BF16(all) => all.device_ptr(&stream).0,
        CudaStorageSlice::F16(all) => all.device_ptr(&stream).0,
        _ => return Err(elsewhere()),
    };
    Ok(first + (start * tensor.dtype().size_in_bytes()) as u64)
}

/// Gives `f` the numbers of a contiguous tensor.
pub(super) fn with<T: CudaDType, R>(
    tensor: &Tensor,
    f: impl FnOnce(CudaView<'_, T>) -> Result<R>,
) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { return Err(elsewhere()) };
    let (start, end) = layout.contiguous_offsets().ok_or_else(elsewhere)?;
    f(storage.as_cuda_slice::<T>()?.slice(start..end))
}

/// A tensor of what a kernel has written.
pub(super) fn wrap<T: CudaDType>(
    numbers: CudaSlice<T>,
    shape: impl Into<Shape>,
    device: &CudaDevice,
) -> Tensor {
    let storage = CudaStorage::wrap_cuda_slice(numbers, device.clone());
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}
