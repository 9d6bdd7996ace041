//! The gradient audit: before the first step of any job, every trained tensor must receive a finite
//! gradient, or the job fails and names the tensor.
//!
//! Guards against the silent failure of autodiff through fused operations. A gradient of zeros counts as
//! missing, except for the inner half of a pair whose outer half is still zero, as LoRA's and VeRA's are at
//! first: there it is zero by construction.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::error::{ModelError, Result};

/// Checks the first gradients of a job.
///
/// # Errors
/// When a trained tensor has no gradient, or one that is zero or not finite.
pub fn audit(
    trained: &BTreeMap<String, Tensor>,
    gradients: &BTreeMap<String, Tensor>,
) -> Result<()> {
    for (name, tensor) in trained {
        let Some(gradient) = gradients.get(name) else {
            return Err(ModelError::GradientAudit(format!("`{name}` receives no gradient")));
        };
        let size = magnitude(gradient)?;
        if !size.is_finite() {
            let reason = format!("the gradient of `{name}` is not finite");
            return Err(ModelError::GradientAudit(reason));
        }
        if size == 0.0 && !is_silent_by_construction(name, trained)? {
            let shape = tensor.dims();
            let reason = format!("the gradient of `{name}` {shape:?} is zero everywhere");
            return Err(ModelError::GradientAudit(reason));
        }
    }
    Ok(())
}

fn is_silent_by_construction(name: &str, trained: &BTreeMap<String, Tensor>) -> Result<bool> {
    let pairs = [("lora_A.weight", "lora_B.weight"), ("vera_lambda_d", "vera_lambda_b")];
    for (inner, outer) in pairs {
        if let Some(path) = name.strip_suffix(inner)
            && let Some(partner) = trained.get(&format!("{path}{outer}"))
        {
            return Ok(magnitude(partner)? == 0.0);
        }
    }
    Ok(false)
}

fn magnitude(tensor: &Tensor) -> Result<f32> {
    Ok(tensor.abs()?.sum_all()?.to_scalar::<f32>()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn named(values: &[(&str, f32)]) -> BTreeMap<String, Tensor> {
        let tensor = |v: f32| Tensor::new(&[v, 0.0], &Device::Cpu).unwrap();
        values.iter().map(|&(name, v)| (name.to_owned(), tensor(v))).collect()
    }

    fn check(trained: &[(&str, f32)], gradients: &[(&str, f32)]) -> String {
        audit(&named(trained), &named(gradients)).map_or_else(|e| e.to_string(), |()| "ok".into())
    }

    #[test]
    fn each_failure_names_its_tensor() {
        let w = [("w", 1.0)];
        assert_eq!(check(&w, &[("w", 2.0)]), "ok");
        assert_eq!(check(&w, &[]), "gradient audit failed: `w` receives no gradient");
        assert!(check(&w, &[("w", f32::NAN)]).contains("`w` is not finite"));
        assert!(check(&w, &[("w", 0.0)]).contains("`w` [2] is zero"));
    }

    #[test]
    fn a_fresh_lora_pair_passes_and_a_dead_one_does_not() {
        let fresh = [("q.lora_A.weight", 1.0), ("q.lora_B.weight", 0.0)];
        let gradients = [("q.lora_A.weight", 0.0), ("q.lora_B.weight", 1.0)];
        assert_eq!(check(&fresh, &gradients), "ok");
        let grown = [("q.lora_A.weight", 1.0), ("q.lora_B.weight", 1.0)];
        assert!(check(&grown, &gradients).contains("lora_A"));
    }
}
