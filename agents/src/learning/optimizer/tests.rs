//! Five steps against PyTorch 2.15 (`torch.optim`, CPU, f32) and, for Lion and decoupled decay in SGD,
//! against the published rules in numpy (f64); both ways of computing a step agree; a state goes on.

use super::*;

const RATE: f64 = 0.1;

fn named(values: &[f32]) -> BTreeMap<String, Tensor> {
    let tensor = Tensor::from_slice(values, (2, 2), &Device::Cpu).unwrap();
    BTreeMap::from([("w".to_owned(), tensor)])
}

fn gradient(sign: f32) -> BTreeMap<String, Tensor> {
    named(&[0.1 * sign, -0.2 * sign, 0.3 * sign, 0.4 * sign])
}

fn optimizer(method: Method, weight_decay: f64) -> Optimizer {
    let spec = OptimizerSpec { method, weight_decay, clip: None, lora_plus: None };
    Optimizer::new(spec, named(&[0.5, -1.0, 2.0, 0.0]).iter()).unwrap()
}

fn value(optimizer: &Optimizer) -> Vec<f32> {
    optimizer.values().unwrap()["w"].flatten_all().unwrap().to_vec1().unwrap()
}

fn close(found: &[f32], expected: &[f32]) {
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-6), "{found:?}");
}

fn five(method: Method, weight_decay: f64) -> Vec<f32> {
    let mut optimizer = optimizer(method, weight_decay);
    for _ in 0..5 {
        optimizer.step(&gradient(1.0), RATE).unwrap();
    }
    value(&optimizer)
}

#[test]
fn adamw_and_sgd_step_as_in_pytorch() {
    let adamw = five(Method::AdamW(AdamW::default()), 0.01);
    close(&adamw, &[-0.001_495_942, -0.496_009, 1.491_018_9, -0.499_001]);
    let sgd = |nesterov| Method::Sgd(Sgd { momentum: 0.9, nesterov });
    close(&five(sgd(false), 0.0), &[0.368_559, -0.737_118, 1.605_676_9, -0.525_764]);
    close(&five(sgd(true), 0.0), &[0.331_703_1, -0.663_406_2, 1.495_109_2, -0.673_187_6]);
    let decayed = five(sgd(false), 0.01);
    close(&decayed, &[0.366_249_44, -0.732_498_9, 1.596_253_3, -0.525_022_2]);
}

#[test]
fn lion_steps_as_published() {
    let mut optimizer = optimizer(Method::Lion(Lion::default()), 0.01);
    for step in 0..5 {
        let sign = if step < 3 { 1.0 } else { -1.0 };
        optimizer.step(&gradient(sign), RATE).unwrap();
    }
    close(&value(&optimizer), &[0.398_304, -0.895_809, 1.890_819, -0.099_201]);
}

#[test]
fn in_place_and_composed_agree() {
    for method in [
        Method::AdamW(AdamW::default()),
        Method::Sgd(Sgd { momentum: 0.9, nesterov: true }),
        Method::Lion(Lion::default()),
    ] {
        let (mut one, mut two) = (optimizer(method, 0.01), optimizer(method, 0.01));
        for number in 1..4 {
            let step = Step { number, rate: RATE, keep: 0.99, shrink: 0.5 };
            let gradient = &gradient(1.0)["w"];
            one.parameters.get_mut("w").unwrap().step(method, gradient, step).unwrap();
            two.parameters.get_mut("w").unwrap().composed(method, gradient, step).unwrap();
        }
        close(&value(&one), &value(&two));
    }
}

#[test]
fn a_restored_state_goes_on_bit_for_bit() {
    let method = Method::AdamW(AdamW::default());
    let (mut one, mut two) = (optimizer(method, 0.01), optimizer(method, 0.01));
    one.step(&gradient(1.0), RATE).unwrap();
    two.restore(&one.state().unwrap()).unwrap();
    assert_eq!(two.steps(), 1);
    one.step(&gradient(-0.5), RATE).unwrap();
    two.step(&gradient(-0.5), RATE).unwrap();
    assert_eq!(value(&one), value(&two));
    let error = two.restore(&BTreeMap::new()).unwrap_err();
    assert_eq!(error.to_string(), "weight `step` is missing");
}

#[test]
fn clipping_scales_the_whole_gradient_and_divergence_changes_nothing() {
    let method = Method::Sgd(Sgd { momentum: 0.0, nesterov: false });
    let spec = OptimizerSpec { method, weight_decay: 0.0, clip: Some(1.0), lora_plus: None };
    let mut optimizer = Optimizer::new(spec, named(&[0.0; 4]).iter()).unwrap();
    let norm = optimizer.step(&named(&[3.0, 0.0, 4.0, 0.0]), 1.0).unwrap();
    assert!((norm - 5.0).abs() < 1e-6);
    close(&value(&optimizer), &[-0.6, 0.0, -0.8, 0.0]);
    assert!(optimizer.step(&named(&[f32::NAN, 0.0, 0.0, 0.0]), 1.0).is_err());
    close(&value(&optimizer), &[-0.6, 0.0, -0.8, 0.0]);
}

#[test]
fn b_learns_faster_with_lora_plus_and_bf16_weights_are_kept_in_f32() {
    let plus = LoraPlus { ratio: 16.0 };
    assert_eq!(plus.rate_factor("q_proj.lora_B.weight", 2).to_bits(), 16f64.to_bits());
    assert_eq!(plus.rate_factor("q_proj.lora_A.weight", 2).to_bits(), 1f64.to_bits());
    let half = named(&[1.0; 4])["w"].to_dtype(DType::BF16).unwrap();
    let tensors = BTreeMap::from([("lora_A".to_owned(), half.clone()), ("lora_B".into(), half)]);
    let spec = OptimizerSpec { weight_decay: 0.0, lora_plus: Some(plus), ..Default::default() };
    let mut optimizer = Optimizer::new(spec, tensors.iter()).unwrap();
    optimizer.step(&tensors, 1e-4).unwrap();
    let moved = |name: &str| {
        let value = optimizer.values().unwrap()[name].flatten_all().unwrap();
        1.0 - value.to_vec1::<f32>().unwrap()[0]
    };
    assert!((moved("lora_B") / moved("lora_A") - 16.0).abs() < 0.1);
}

#[test]
fn a_spec_is_read_with_defaults() {
    let spec: OptimizerSpec = serde_json::from_str(r#"{"method": {"lion": {}}}"#).unwrap();
    assert_eq!(spec.method, Method::Lion(Lion::default()));
    assert_eq!(spec.clip, Some(1.0));
}
