//! Several LoRA adapters made into one, by the rules of PEFT's `add_weighted_adapter`. Trains nothing.
//!
//! Except in [`Combination::Cat`], the two factors of an update are combined each by itself, as PEFT does:
//! the result approximates the weighted sum of the updates, and only `Cat` is exactly that sum. What is
//! random in DARE comes from our own streams, so its masks are not those of PEFT.

use std::collections::BTreeMap;

use candle_core::Tensor;
use rand::Rng;

use super::lora::{Init, LoraSpec};
use super::{Adapter, AdapterSpec, Generation, Method};
use crate::backbone::Backbone;
use crate::error::{ModelError, Result};
use crate::seed::Seed;

/// How adapters are combined. Densities are the share of values that are kept, above 0 and up to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Combination {
    /// The weighted sum (task arithmetic, Ilharco et al. 2022, arXiv 2212.04089).
    Linear,
    /// Side by side: the exact weighted sum of updates, at the sum of all ranks.
    Cat,
    /// The largest values of each adapter, where they agree with the elected sign, averaged (TIES,
    /// Yadav et al. 2023, arXiv 2306.01708).
    Ties {
        /// Share of the largest values.
        density: f64,
        /// How the sign is elected.
        sign: Sign,
    },
    /// Random values of each adapter, scaled up for those left out, summed (DARE, Yu et al. 2023,
    /// arXiv 2311.03099).
    DareLinear {
        /// Share of values.
        density: f64,
    },
    /// Random values, scaled up, then as in TIES.
    DareTies {
        /// Share of values.
        density: f64,
        /// How the sign is elected.
        sign: Sign,
    },
    /// The largest values of each adapter, summed.
    MagnitudePrune {
        /// Share of the largest values.
        density: f64,
    },
}

/// How the sign of a value is elected among adapters; no majority counts as plus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sign {
    /// The sign of the sum of values.
    #[default]
    Total,
    /// The sign of most values.
    Frequency,
}

/// The `A` and `B` of one adapter, with the factor that its update enters with.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// `….lora_A.weight` `[rank, in]` and `….lora_B.weight` `[out, rank]`.
    pub tensors: &'a BTreeMap<String, Tensor>,
    /// The adapter's weight times its scale; it may be negative.
    pub factor: f64,
}

/// One adapter, of generation 0 and scale 1, from adapters with their weights.
///
/// # Errors
/// When there is none, one is not plain LoRA or rsLoRA, or has a head, they adapt different maps, their
/// ranks differ (except in [`Combination::Cat`]) or add up to more than a map has, or a weight or density
/// makes no sense.
pub fn combine(
    parts: &[(&Adapter, f64)],
    how: &Combination,
    backbone: &Backbone,
    seed: Seed,
) -> Result<Adapter> {
    let specs = parts.iter().map(|(adapter, _)| plain(adapter)).collect::<Result<Vec<_>>>()?;
    let Some(first) = specs.first() else { return Err(refused("there is no adapter".to_owned())) };
    let rank = match how {
        Combination::Cat => specs.iter().map(|spec| spec.rank).sum(),
        _ => first.rank,
    };
    let factor = |(spec, part): (&&LoraSpec, &(&Adapter, f64))| spec.scale() * part.1;
    let factors = specs.iter().zip(parts).map(factor);
    let named: Vec<Part<'_>> = parts
        .iter()
        .zip(factors)
        .map(|((adapter, _), factor)| Part { tensors: adapter.tensors(), factor })
        .collect();
    let tensors = combined(&named, how, seed)?;
    let spec = LoraSpec {
        rank,
        alpha: rank as f64,
        rank_stabilized: false,
        init: Init::Kaiming,
        ..LoraSpec::clone(first)
    };
    let spec = AdapterSpec { method: Method::Lora(spec), head: None };
    Adapter::checked(spec, Generation(0), tensors, backbone)
}

/// The kind of an adapter that can be combined.
fn plain(adapter: &Adapter) -> Result<&LoraSpec> {
    let advice = match &adapter.spec {
        AdapterSpec { head: Some(_), .. } => "a classifier's head is no weighted sum of others",
        AdapterSpec { method: Method::Lora(lora), .. } if lora.dora => {
            "DoRA's magnitudes do not add up; merge it into the model instead"
        }
        AdapterSpec { method: Method::Lora(lora), .. } if lora.init == Init::Pissa => {
            "PiSSA's pair is relative to its start; save it, and read it as PEFT's plain LoRA"
        }
        AdapterSpec { method: Method::Lora(lora), .. } => return Ok(lora),
        _ => "only LoRA and rsLoRA adapters can be combined",
    };
    Err(refused(advice.to_owned()))
}

fn refused(reason: String) -> ModelError {
    ModelError::Incompatible { doing: "combine adapters", reason }
}

/// The rules themselves, on named tensors: those that end with `lora_A.weight` and `lora_B.weight`.
///
/// The result enters with scale 1; it has the shapes of the parts, or in [`Combination::Cat`] the sum of
/// their ranks.
///
/// # Errors
/// When names or shapes of the parts differ, or a factor or density makes no sense.
pub fn combined(
    parts: &[Part<'_>],
    how: &Combination,
    seed: Seed,
) -> Result<BTreeMap<String, Tensor>> {
    check(parts, how)?;
    let Some(first) = parts.first() else { return Ok(BTreeMap::new()) };
    let mut result = BTreeMap::new();
    for (name, tensor) in first.tensors {
        let mut tensors = vec![tensor];
        for part in &parts[1..] {
            let other =
                part.tensors.get(name).filter(|_| part.tensors.len() == first.tensors.len());
            let missing = || refused(format!("they adapt different maps, for example `{name}`"));
            tensors.push(other.ok_or_else(missing)?);
        }
        let inner = name.ends_with("lora_A.weight");
        let made = if *how == Combination::Cat {
            side_by_side(&tensors, parts, inner)?
        } else {
            let differing = tensors.iter().find(|other| other.dims() != tensor.dims());
            if let Some(other) = differing {
                let (one, other) = (tensor.dims(), other.dims());
                return Err(refused(format!(
                    "`{name}` is {one:?} here and {other:?} there; `cat` takes any rank"
                )));
            }
            let factors: Vec<f32> = parts.iter().map(|part| half(part.factor, inner)).collect();
            let values = tensors
                .iter()
                .map(|t| Ok(t.flatten_all()?.to_vec1::<f32>()?))
                .collect::<Result<Vec<_>>>()?;
            let values = mixed(values, &factors, how, seed.child(name));
            Tensor::from_vec(values, tensor.shape(), tensor.device())?
        };
        result.insert(name.clone(), made);
    }
    Ok(result)
}

fn check(parts: &[Part<'_>], how: &Combination) -> Result<()> {
    if let Some(part) = parts.iter().find(|part| !part.factor.is_finite()) {
        let (found, expected) = (part.factor.to_string(), "a finite number");
        return Err(ModelError::Setting { what: "the weight of an adapter", found, expected });
    }
    match *how {
        Combination::Ties { density, .. }
        | Combination::DareLinear { density }
        | Combination::DareTies { density, .. }
        | Combination::MagnitudePrune { density }
            if !(density > 0.0 && density <= 1.0) =>
        {
            let (found, expected) = (density.to_string(), "above 0 and at most 1");
            Err(ModelError::Setting { what: "the density", found, expected })
        }
        _ => Ok(()),
    }
}

/// `A` under `A`, with the factor, or `B` beside `B`.
fn side_by_side(tensors: &[&Tensor], parts: &[Part<'_>], inner: bool) -> Result<Tensor> {
    if !inner {
        return Ok(Tensor::cat(tensors, 1)?);
    }
    let scaled = tensors.iter().zip(parts).map(|(&a, part)| a * part.factor);
    Ok(Tensor::cat(&scaled.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
}

/// The root of a factor for each of `A` and `B`, the sign on `A`.
fn half(factor: f64, inner: bool) -> f32 {
    let root = factor.abs().sqrt();
    (if inner && factor < 0.0 { -root } else { root }) as f32
}

/// The values of one tensor in every adapter, combined.
fn mixed(mut values: Vec<Vec<f32>>, factors: &[f32], how: &Combination, seed: Seed) -> Vec<f32> {
    let mut elected = None;
    match *how {
        Combination::Linear | Combination::Cat => {}
        Combination::MagnitudePrune { density } => keep_largest(&mut values, density),
        Combination::DareLinear { density } => keep_random(&mut values, density, seed),
        Combination::Ties { density, sign } => {
            keep_largest(&mut values, density);
            elected = Some(sign);
        }
        Combination::DareTies { density, sign } => {
            keep_random(&mut values, density, seed);
            elected = Some(sign);
        }
    }
    let count = values.first().map_or(0, Vec::len);
    let at = |index: usize| {
        let each = || values.iter().map(move |adapter| adapter[index]).zip(factors);
        let Some(sign) = elected else {
            return each().map(|(value, factor)| value * factor).sum();
        };
        let votes: f32 = match sign {
            Sign::Total => each().map(|(value, _)| value).sum(),
            Sign::Frequency => each().filter(|(v, _)| *v != 0.0).map(|(v, _)| v.signum()).sum(),
        };
        let agrees = |value: f32| if votes >= 0.0 { value > 0.0 } else { value < 0.0 };
        let agreeing = || each().filter(|(value, _)| agrees(*value));
        let sum: f32 = agreeing().map(|(value, factor)| value * factor).sum();
        sum / agreeing().count().max(1) as f32
    };
    (0..count).map(at).collect()
}

/// Sets all but the largest values of each adapter to zero.
fn keep_largest(adapters: &mut [Vec<f32>], density: f64) {
    for values in adapters {
        let kept = (density * values.len() as f64) as usize;
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()));
        for &index in &order[kept..] {
            values[index] = 0.0;
        }
    }
}

/// Keeps each value with this probability, scaled up so that the mean stays.
fn keep_random(adapters: &mut [Vec<f32>], density: f64, seed: Seed) {
    for (number, values) in adapters.iter_mut().enumerate() {
        let mut stream = seed.index(number as u64).stream();
        for value in values {
            let kept = stream.random_bool(density);
            *value = if kept { *value / density as f32 } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests;
