//! The start of PiSSA (Meng et al. 2024, arXiv 2404.02948): the principal part of a weight as a pair of
//! narrow matrices. Trains nothing; what is done with the pair is in [`super::lora`].
//!
//! The singular directions come from randomised subspace iteration (Halko, Martinsson and Tropp 2011, arXiv
//! 0909.4061, algorithms 4.4 and 5.1): the cost is a few products with the weight, whatever its size.

use candle_core::{DType, Device, Error, Tensor};
use nalgebra::{DMatrix, SVD};

use crate::backbone::normal;
use crate::error::{ModelError, Result};
use crate::seed::Seed;

/// Directions that are followed beside twice those wanted; a weight with no more of them is taken whole,
/// and its decomposition is exact.
const SPARE: usize = 32;
/// How often the directions are turned towards the principal ones.
const ROUNDS: usize = 8;

/// The principal part of a weight `W` `[out, in]`, of the given rank: `scale · B A`.
#[derive(Clone, Debug)]
pub struct Pissa {
    /// `√(S / scale) Vᵀ`, `[rank, in]`.
    pub a: Tensor,
    /// `U √(S / scale)`, `[out, rank]`.
    pub b: Tensor,
}

/// Finds `A` and `B` such that `scale · B A` is the best approximation of `weight` `[out, in]` of this rank.
///
/// Exact to rounding where the smaller side is at most `2 · rank + 32`; beyond, an estimate that is the
/// better the faster the singular values fall.
///
/// # Errors
/// When the rank is 0 or larger than a side, the scale is not positive, or the iteration does not converge.
pub fn pissa(weight: &Tensor, rank: usize, scale: f64, seed: Seed) -> Result<Pissa> {
    let (out, width) = weight.dims2()?;
    let side = out.min(width);
    if rank == 0 || rank > side {
        return Err(ModelError::Rank { rank, path: "the weight".to_owned(), largest: side });
    }
    if !(scale > 0.0 && scale.is_finite()) {
        let (what, expected) = ("the scale of PiSSA", "a number above 0");
        return Err(ModelError::Setting { what, found: scale.to_string(), expected });
    }
    let device = weight.device();
    let weight = weight.detach().to_dtype(DType::F32)?.contiguous()?;
    let turned = weight.t()?.contiguous()?;
    let followed = (2 * rank + SPARE).min(side);
    let start = normal(&[width, followed], 1.0, seed, device)?;
    let mut left = orthonormal(&weight.matmul(&start)?)?;
    for _ in 0..ROUNDS {
        let right = orthonormal(&turned.matmul(&left)?)?;
        left = orthonormal(&weight.matmul(&right)?)?;
    }
    // W ≈ L LᵀW, and WᵀL = Q R with R small: from R = X S Yᵀ follows W ≈ (L Y) S (Q X)ᵀ.
    let (q, r) = matrix(&turned.matmul(&left)?)?.qr().unpack();
    let small = SVD::try_new(r, true, true, f64::EPSILON, 10_000);
    let Some(SVD { u: Some(x), v_t: Some(y), singular_values }) = small else {
        return Err(Error::msg("the singular value decomposition does not converge").into());
    };
    let mut right = q * x.columns(0, rank);
    let mut left = matrix(&left)? * y.rows(0, rank).transpose();
    for k in 0..rank {
        let share = (singular_values[k] / scale).sqrt();
        right.column_mut(k).scale_mut(share);
        left.column_mut(k).scale_mut(share);
    }
    Ok(Pissa { a: tensor(&right.transpose(), device)?, b: tensor(&left, device)? })
}

/// An orthonormal basis of what the columns span.
fn orthonormal(columns: &Tensor) -> Result<Tensor> {
    tensor(&matrix(columns)?.qr().q(), columns.device())
}

fn matrix(tensor: &Tensor) -> Result<DMatrix<f64>> {
    let (rows, columns) = tensor.dims2()?;
    let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    Ok(DMatrix::from_row_slice(rows, columns, &values))
}

fn tensor(matrix: &DMatrix<f64>, device: &Device) -> Result<Tensor> {
    // Ours run along rows, nalgebra's along columns.
    let values: Vec<f32> = matrix.transpose().iter().map(|&value| value as f32).collect();
    Ok(Tensor::from_vec(values, matrix.shape(), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest singular values of the small wave by numpy 2 and torch 2.15, in f64.
    const NUMPY_SMALL: [f32; 3] = [2.693_665_3, 2.506_757_6, 2.506_612_7];
    /// First row of its best approximation of rank 3.
    const NUMPY_ROW: [f32; 7] = [
        0.302_136_16,
        0.590_342_65,
        -0.354_873_05,
        -0.171_372_88,
        0.093_508_15,
        0.022_336_384,
        -0.110_168_77,
    ];
    /// Largest singular values of the large wave, which falls with the row and the column.
    const NUMPY_LARGE: [f32; 4] = [1.196_531_9, 0.457_066_58, 0.399_782_8, 0.355_861_53];

    fn wave(rows: usize, columns: usize, fall: f64) -> Tensor {
        let at =
            |i: f64, j: f64| (1.0 + 3.0 * i + 7.0 * j + 0.5 * i * j).sin() / (1.0 + fall * (i + j));
        let values: Vec<f64> =
            (0..rows).flat_map(|i| (0..columns).map(move |j| at(i as f64, j as f64))).collect();
        let tensor = Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap();
        tensor.to_dtype(DType::F32).unwrap()
    }

    fn singular_values(pair: &Pissa, scale: f64) -> Vec<f32> {
        let squares = pair.a.sqr().unwrap().sum(1).unwrap();
        (squares * scale).unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_pair_is_what_numpy_says() {
        let scale = 1.5;
        let weight = wave(9, 7, 0.0);
        let pair = pissa(&weight, 3, scale, Seed::new(1)).unwrap();
        for (found, expected) in singular_values(&pair, scale).iter().zip(NUMPY_SMALL) {
            assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
        }
        let product = (pair.b.matmul(&pair.a).unwrap() * scale).unwrap();
        let first = product.get(0).unwrap().to_vec1::<f32>().unwrap();
        for (found, expected) in first.iter().zip(NUMPY_ROW) {
            assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
        }
        // Both halves carry the same share.
        let left = pair.b.sqr().unwrap().sum(0).unwrap().to_vec1::<f32>().unwrap();
        let right = pair.a.sqr().unwrap().sum(1).unwrap().to_vec1::<f32>().unwrap();
        assert!(left.iter().zip(right).all(|(l, r)| (l - r).abs() < 1e-5));
    }

    #[test]
    fn a_large_weight_is_estimated_well() {
        for weight in [wave(160, 120, 1.0), wave(160, 120, 1.0).t().unwrap()] {
            let pair = pissa(&weight, 4, 2.0, Seed::new(2)).unwrap();
            for (found, expected) in singular_values(&pair, 2.0).iter().zip(NUMPY_LARGE) {
                assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let weight = wave(4, 3, 0.0);
        assert!(pissa(&weight, 0, 1.0, Seed::new(3)).is_err());
        assert!(pissa(&weight, 4, 1.0, Seed::new(3)).is_err());
        assert!(pissa(&weight, 2, 0.0, Seed::new(3)).is_err());
    }
}
