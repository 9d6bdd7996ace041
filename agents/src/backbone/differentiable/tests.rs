//! Every backward against central finite differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::Rng;

use super::*;
use crate::backbone::Weight;
use crate::seed::Seed;

fn random(shape: &[usize], name: &str) -> Tensor {
    let mut stream = Seed::new(1).child(name).stream();
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| stream.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Compares the gradient of `sum(weights * f(inputs))` with finite differences, for every input.
fn check(name: &str, shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let inputs: Vec<Tensor> =
        shapes.iter().enumerate().map(|(i, s)| random(s, &format!("{name}{i}"))).collect();
    let weigh = |y: Tensor| {
        let weights = random(y.dims(), &format!("{name} weights"));
        (y * weights).unwrap().sum_all().unwrap()
    };
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let gradients = weigh(f(&tracked).unwrap()).backward().unwrap();
    let step = 1e-2_f32;
    for (i, var) in vars.iter().enumerate() {
        let analytic = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let flat = inputs[i].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for j in 0..flat.len() {
            let at = |offset: f32| {
                let mut moved = flat.clone();
                moved[j] += offset;
                let mut args = inputs.clone();
                args[i] = Tensor::from_vec(moved, inputs[i].shape(), &Device::Cpu).unwrap();
                weigh(f(&args).unwrap()).to_scalar::<f32>().unwrap()
            };
            let numeric = (at(step) - at(-step)) / (2.0 * step);
            let difference = (numeric - analytic[j]).abs();
            assert!(
                difference < 2e-3 * (1.0 + numeric.abs()),
                "{name}: input {i}[{j}]: analytic {} numeric {numeric}",
                analytic[j]
            );
        }
    }
}

#[test]
fn linear_gradient() {
    check("linear", &[&[2, 3, 4], &[5, 4]], |x| matmul(&x[0], &x[1]));
}

#[test]
fn low_rank_gradient() {
    let (w, bias) = (Weight::Dense(random(&[5, 4], "w")), random(&[5], "bias"));
    let mask = random(&[2, 3, 4], "mask");
    for mask in [None, Some(&mask)] {
        check("low rank", &[&[2, 3, 4], &[2, 4], &[5, 2]], |x| {
            let update = LowRank { a: &x[1], b: &x[2], scale: 0.7, mask };
            let y = low_rank(&x[0], &w, Some(&bias), update)?;
            let read = mask.map_or(Ok(x[0].clone()), |mask| &x[0] * mask)?;
            let composed = (linear(&x[0], &w, Some(&bias))?
                + (matmul(&matmul(&read, &x[1])?, &x[2])? * 0.7)?)?;
            let apart = (&y - composed)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            assert!(apart < 1e-5, "{apart}");
            Ok(y)
        });
    }
}

#[test]
fn gradient_of_rows_with_updates_of_their_own() {
    let (w, bias) = (Weight::Dense(random(&[5, 4], "w")), random(&[5], "bias"));
    let mask = random(&[2, 4], "mask");
    check("runs", &[&[2, 3, 4], &[2, 4], &[5, 2], &[1, 4], &[5, 1]], |x| {
        let first = LowRank { a: &x[1], b: &x[2], scale: 0.7, mask: Some(&mask) };
        let second = LowRank { a: &x[3], b: &x[4], scale: 1.3, mask: None };
        let runs = [
            Run { count: 1, update: None },
            Run { count: 2, update: Some(first) },
            Run { count: 2, update: Some(second) },
            Run { count: 1, update: None },
        ];
        let y = low_rank_runs(&x[0], &w, Some(&bias), &runs)?;
        let flat = x[0].reshape((6, 4))?;
        let change = |start: usize, update: LowRank<'_>| {
            let read = flat.narrow(0, start, 2)?;
            let read = update.mask.map_or(Ok(read.clone()), |mask| &read * mask)?;
            matmul(&matmul(&read, update.a)?, update.b)? * update.scale
        };
        let none = Tensor::zeros((1, 5), DType::F32, &Device::Cpu)?;
        let changes = Tensor::cat(&[none.clone(), change(1, first)?, change(3, second)?, none], 0)?;
        let composed = (linear(&flat, &w, Some(&bias))? + changes)?.reshape(y.shape())?;
        let apart = (&y - composed)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        assert!(apart < 1e-5, "{apart}");
        Ok(y)
    });
}

#[test]
fn gradient_of_rows_of_which_none_has_an_update() {
    let (w, bias) = (Weight::Dense(random(&[5, 4], "w")), random(&[5], "bias"));
    let bare = |count| Run { count, update: None };
    check("bare runs", &[&[2, 3, 4]], |x| {
        low_rank_runs(&x[0], &w, Some(&bias), &[bare(2), bare(4)])
    });
}

#[test]
fn rms_norm_gradient() {
    check("rms", &[&[2, 3, 4], &[4]], |x| rms_norm(&x[0], &x[1], 1e-5));
}

#[test]
fn rotary_gradient() {
    let angles = random(&[3, 2], "angles");
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    check("rotary", &[&[2, 2, 3, 4]], |x| rotary(&x[0], &cos, &sin));
}

#[test]
fn grouped_attention_gradient() {
    let hidden = f32::NEG_INFINITY;
    let mask = Tensor::new(&[[0f32, hidden, hidden], [0., 0., hidden], [0., 0., 0.]], &Device::Cpu)
        .unwrap();
    check("attention", &[&[1, 4, 3, 2], &[1, 2, 3, 2], &[1, 2, 3, 2]], |x| {
        attention(&x[0], &x[1], &x[2], Some(&mask), 0.7)
    });
}

#[test]
fn gradients_of_every_activation() {
    use crate::backbone::architecture::Activation;
    let all = [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Tanh];
    for activation in all {
        let name = format!("{activation:?}");
        check(&name, &[&[3, 4], &[3, 4]], |x| gated(&x[0], &x[1], activation));
        check(&name, &[&[3, 4]], |x| activate(&x[0], activation));
    }
    // Away from the kink, where a difference quotient means nothing.
    check("relu", &[&[3, 4]], |x| activate(&(&x[0] + 2.0)?, Activation::Relu));
    check("relu", &[&[3, 4]], |x| activate(&(&x[0] - 2.0)?, Activation::Relu));
}

#[test]
fn layer_norm_gradient() {
    check("layer", &[&[2, 3, 4], &[4], &[4]], |x| layer_norm(&x[0], &x[1], &x[2], 1e-5));
}

#[test]
fn linear_with_bias_gradient() {
    let bias = random(&[5], "bias");
    check("bias", &[&[2, 3, 4], &[5, 4], &[5]], |x| {
        linear(&x[0], &crate::backbone::Weight::Dense(x[1].clone()), Some(&x[2]))
    });
    check("frozen bias", &[&[2, 3, 4], &[5, 4]], |x| {
        linear(&x[0], &crate::backbone::Weight::Dense(x[1].clone()), Some(&bias))
    });
}

#[test]
fn quantized_linear_gradient() {
    use candle_core::quantized::{GgmlDType, QTensor};
    let weight = random(&[5, 32], "weight");
    let quantized = std::sync::Arc::new(QTensor::quantize(&weight, GgmlDType::Q8_0).unwrap());
    let weight = crate::backbone::Weight::Quantized(quantized);
    let x = Var::from_tensor(&random(&[3, 32], "x")).unwrap();
    let y = linear(x.as_tensor(), &weight, None).unwrap();
    let out = random(&[3, 5], "out");
    let gradients = (y * &out).unwrap().sum_all().unwrap().backward().unwrap();
    // The product itself rounds activations to eight bits; its gradient is that of the weights it holds.
    let expected = out.matmul(&weight.dequantize().unwrap()).unwrap();
    let difference = (gradients.get(&x).unwrap() - expected).unwrap().abs().unwrap();
    assert!(difference.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-5);
}

#[test]
fn negative_log_likelihood_gradient() {
    let targets = Tensor::new(&[2u32, 0, 4], &Device::Cpu).unwrap();
    check("nll", &[&[3, 5]], |x| negative_log_likelihood(&x[0], &targets));
}

#[test]
fn a_frozen_weight_gets_no_gradient() {
    let x = Var::from_tensor(&random(&[3, 4], "x")).unwrap();
    let w = random(&[5, 4], "w");
    let gradients = matmul(x.as_tensor(), &w).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&w).is_none());
    assert!(gradients.get(x.as_tensor()).is_some());
}

#[test]
fn values_equal_the_unfused_operations() {
    let (x, w) = (random(&[2, 3, 4], "x"), random(&[4], "w"));
    let fused = rms_norm(&x, &w, 1e-5).unwrap();
    let slow = candle_nn::ops::rms_norm_slow(&x, &w, 1e-5).unwrap();
    let difference = (fused - slow).unwrap().abs().unwrap().max_all().unwrap();
    assert!(difference.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap() < 1e-6);
}

#[test]
fn gradients_of_norms_with_frozen_weights() {
    let (weight, bias) = (random(&[20], "norm weight"), random(&[20], "norm bias"));
    check("frozen rms", &[&[2, 3, 20]], |x| rms_norm(&x[0], &weight, 1e-5));
    check("frozen layer", &[&[2, 3, 20]], |x| layer_norm(&x[0], &weight, &bias, 1e-5));
}
