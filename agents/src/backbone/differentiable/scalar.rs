//! Functions of one number that compilers turn into vector instructions: no calls, no branches, no tables.
//!
//! The C library's `expf` and `erff` are exact to the last bit and run one number at a time, which costs as
//! much as the matrix products of a small encoder. These are within a few units in the last place.

use crate::backbone::architecture::Activation;

/// `eˣ` by a polynomial on `[-ln 2 / 2, ln 2 / 2]` (the coefficients of Cephes' `expf`).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.3);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(-LOW, n.mul_add(-HIGH, x));
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = r.mul_add(p, coefficient);
    }
    let value = (r * r).mul_add(p, r + 1.0);
    // SAFETY is not at stake: n is within ±127, so the exponent bits are those of 2ⁿ.
    value * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function by a rational approximation of odd order 13 over even order 8 on `[-4, 4]`.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let mut above = -2.726_142_3e-10_f32;
    for coefficient in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        above = square.mul_add(above, coefficient);
    }
    let mut below = -1.456_607_2e-5_f32;
    for coefficient in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2] {
        below = square.mul_add(below, coefficient);
    }
    x * above / below
}

/// `tanh x`.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    2.0f32.mul_add(sigmoid(2.0 * x), -1.0)
}

const ROOT_TWO_OVER_PI: f32 = 0.797_884_6;
const CUBE: f32 = 0.044_715;

/// The activation at `x`.
#[inline(always)]
pub(crate) fn value(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + tanh(ROOT_TWO_OVER_PI * x * (CUBE * x).mul_add(x, 1.0)))
        }
        Activation::Relu => x.max(0.0),
        Activation::Tanh => tanh(x),
    }
}

/// The derivative of the activation at `x`.
#[inline]
pub(super) fn slope(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => {
            let s = sigmoid(x);
            s * (1.0 - s).mul_add(x, 1.0)
        }
        // Φ(x) + x·φ(x)
        Activation::Gelu => {
            let cumulative = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
            (x * 0.398_942_3).mul_add(exp(-0.5 * x * x), cumulative)
        }
        Activation::GeluTanh => {
            let t = tanh(ROOT_TWO_OVER_PI * x * (CUBE * x).mul_add(x, 1.0));
            let inner = ROOT_TWO_OVER_PI * (3.0 * CUBE * x).mul_add(x, 1.0);
            (0.5 * x * t.mul_add(-t, 1.0)).mul_add(inner, 0.5 * (1.0 + t))
        }
        Activation::Relu => f32::from(x > 0.0),
        Activation::Tanh => {
            let t = tanh(x);
            t.mul_add(-t, 1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    /// Largest difference to candle's exact function in f64, relative to `1 + |exact|`.
    fn worst(
        exact: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
        ours: impl Fn(f32) -> f32,
        reach: f32,
    ) -> f64 {
        let xs: Vec<f32> = (-4000..=4000).map(|i| i as f32 / 4000.0 * reach).collect();
        let wide: Vec<f64> = xs.iter().map(|&x| f64::from(x)).collect();
        let exact = exact(&Tensor::new(wide, &Device::Cpu).unwrap()).unwrap();
        let exact = exact.to_vec1::<f64>().unwrap();
        let error =
            |(&x, exact): (&f32, &f64)| (f64::from(ours(x)) - exact).abs() / (1.0 + exact.abs());
        xs.iter().zip(&exact).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_as_good_as_f32_allows() {
        assert!(worst(Tensor::exp, exp, 80.0) < 3e-7);
        assert!(worst(Tensor::erf, erf, 6.0) < 3e-7);
        assert!(worst(Tensor::tanh, tanh, 12.0) < 3e-7);
        assert!(worst(Tensor::silu, |x| value(Activation::Silu, x), 30.0) < 3e-7);
        assert!(worst(Tensor::gelu_erf, |x| value(Activation::Gelu, x), 8.0) < 1e-6);
        assert!(worst(Tensor::gelu, |x| value(Activation::GeluTanh, x), 8.0) < 1e-6);
    }

    #[test]
    fn extremes_stay_finite() {
        for x in [f32::MIN, -1e4, -88.0, 88.0, 1e4, f32::MAX] {
            assert!(exp(x).is_finite() && sigmoid(x).is_finite() && erf(x).abs() <= 1.0 + 1e-6);
        }
        assert!(exp(f32::NAN).is_nan());
    }
}
