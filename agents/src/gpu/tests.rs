//! The kernels compile for every shape that a network may have. Needs NVRTC and no card; what they compute is
//! compared in `session::tests::gpu` on one, and by `tests/peers/run kernels` without.

use candle_core::DType;

use super::{compile, draw, low_rank, paged};

#[test]
fn gpu_kernels_compile() {
    for capability in [75, 80, 90] {
        let shapes = paged::cuda::shapes_of_tests().into_iter();
        let all = shapes.map(|shape| (paged::cuda::SOURCE, shape));
        let rest = [DType::F32, DType::BF16, DType::F16]
            .map(|number| (low_rank::SOURCE, compile::Shape { number, sizes: Vec::new() }));
        for (source, shape) in all.chain(rest).chain([(draw::SOURCE, draw::shape())]) {
            let compiled = compile::compile(source, &shape, capability).unwrap();
            assert!(compiled.contains(".visible .entry"), "{compiled}");
        }
    }
}
