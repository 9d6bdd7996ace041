//! Compiles a kernel for the shapes at hand and remembers it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaStream, LaunchArgs, LaunchConfig,
};
use candle_core::cuda_backend::cudarc::nvrtc::{
    CompileError, CompileOptions, compile_ptx_with_opts,
};
use candle_core::{CudaDevice, DType, Result};

/// How numbers are kept, for every kernel.
const NUMBER: &str = include_str!("number.cuh");

/// A file of kernels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// For messages.
    pub(super) name: &'static str,
    /// CUDA C.
    pub(super) text: &'static str,
}

/// What a file of kernels is compiled for: the type of numbers and the sizes that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) number: DType,
    pub(super) sizes: Vec<(&'static str, usize)>,
}

impl Shape {
    fn options(&self) -> Result<Vec<String>> {
        let number = match self.number {
            DType::F32 => "F32",
            DType::BF16 => "BF16",
            DType::F16 => "F16",
            other => candle_core::bail!("no kernels for {}", other.as_str()),
        };
        let sizes = self.sizes.iter().map(|(name, size)| format!("-D{name}={size}"));
        Ok(std::iter::once(format!("-DNUMBER_{number}")).chain(sizes).collect())
    }
}

/// So many blocks, in three directions, of so many threads.
pub(super) fn grid([x, y, z]: [usize; 3], threads: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (x as u32, y as u32, z as u32),
        block_dim: (threads as u32, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// Compiles a file to what the driver takes, for a card of this compute capability (90 is 9.0).
///
/// # Errors
/// With what the compiler says.
pub(super) fn compile(source: Source, shape: &Shape, capability: usize) -> Result<String> {
    let mut options = shape.options()?;
    options.push(format!("--gpu-architecture=compute_{capability}"));
    let options = CompileOptions { options, ..CompileOptions::default() };
    let text = format!("{NUMBER}\n{}", source.text);
    match compile_ptx_with_opts(text, options) {
        Ok(compiled) => Ok(compiled.to_src()),
        Err(CompileError::CompileError { log, .. }) => {
            candle_core::bail!("the kernels of {}: {}", source.name, log.to_string_lossy())
        }
        Err(error) => candle_core::bail!("the kernels of {}: {error:?}", source.name),
    }
}

/// A kernel and the stream of its device.
pub(super) struct Kernel {
    function: CudaFunction,
    stream: Arc<CudaStream>,
}

impl Kernel {
    /// To be given its arguments and launched.
    pub(super) fn builder(&self) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.function)
    }
}

/// A kernel of a file, ready for a device.
///
/// # Errors
/// When it cannot be compiled or loaded.
pub(super) fn kernel(
    device: &CudaDevice,
    source: Source,
    shape: &Shape,
    name: &str,
) -> Result<Kernel> {
    static COMPILED: OnceLock<Mutex<BTreeMap<String, String>>> = OnceLock::new();
    let stream = device.cuda_stream();
    let (major, minor) = stream.context().compute_capability().w()?;
    let capability = (10 * major + minor) as usize;
    let module = format!("{} {:?} {:?} {capability}", source.name, shape.number, shape.sizes);
    let all = COMPILED.get_or_init(Mutex::default);
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    let compiled = match all.get(&module) {
        Some(compiled) => compiled,
        None => {
            let compiled = compile(source, shape, capability)?;
            all.entry(module.clone()).or_insert(compiled)
        }
    };
    let function = device.get_or_load_custom_func(name, &module, compiled)?.into_cuda_function();
    Ok(Kernel { function, stream })
}
