//! The rules of combination against numbers of PEFT 0.21.2; no networks here but for refusals.

use candle_core::{Device, Tensor};

use super::*;

const A: [[f32; 8]; 3] = [
    [0.1, -0.5, 0.3, 0.8, -0.2, 0.4, 0.6, -0.7],
    [-0.3, 0.25, 0.9, 0.15, 0.5, 0.45, -0.65, 0.05],
    [0.35, -0.55, -0.12, 0.22, 0.75, -0.85, 0.95, -0.06],
];
const B: [[f32; 6]; 3] = [
    [0.2, 0.1, -0.4, 0.7, 0.9, -0.3],
    [0.6, -0.15, 0.33, 0.44, -0.52, 0.8],
    [-0.25, 0.65, 0.11, -0.77, 0.02, 0.58],
];
/// Weights 0.7, 0.5 and -0.4 times scales 4/2, 2/2 and 6/2.
const FACTORS: [f64; 3] = [1.4, 0.5, -1.2];

const LINEAR: ([f32; 8], [f32; 6]) = (
    [
        -0.477_216_2,
        0.187_663_6,
        1.122_814_3,
        0.811_640_9,
        -0.704_673_6,
        1.722_612_9,
        -0.790_362_7,
        -0.727_169_2,
    ],
    [0.387_046, 0.724_294_9, -0.119_442_2, 0.295_885_4, 0.719_107_7, 0.846_078_8],
);
const CAT: ([f32; 24], [f32; 18]) = (
    [
        0.14, -0.7, 0.42, 1.12, -0.28, 0.56, 0.84, -0.98, -0.15, 0.125, 0.45, 0.075, 0.25, 0.225,
        -0.325, 0.025, -0.42, 0.66, 0.144, -0.264, -0.9, 1.02, -1.14, 0.072,
    ],
    [
        0.2, 0.1, 0.6, -0.15, -0.25, 0.65, -0.4, 0.7, 0.33, 0.44, 0.11, -0.77, 0.9, -0.3, -0.52,
        0.8, 0.02, 0.58,
    ],
);
const TIES_TOTAL: ([f32; 8], [f32; 6]) = (
    [
        0.0,
        0.005_443_4,
        0.636_396_1,
        0.946_572_8,
        -0.234_015_2,
        0.931_128_4,
        -0.165_371_7,
        -0.828_251_2,
    ],
    [0.424_264_1, 0.712_039_4, -0.473_286_4, -0.843_492_7, 1.064_894_3, 0.600_521_8],
);
const TIES_FREQUENCY: ([f32; 8], [f32; 6]) = (
    [
        -0.383_405_8,
        0.005_443_4,
        0.495_680_4,
        0.352_787_4,
        -0.234_015_2,
        0.395_742_2,
        -0.165_371_7,
        -0.828_251_2,
    ],
    [0.424_264_1, 0.712_039_4, -0.473_286_4, 0.569_689_1, 1.064_894_3, 0.600_521_8],
);
const PRUNE: ([f32; 8], [f32; 6]) = (
    [
        0.0,
        0.010_886_8,
        0.636_396_1,
        0.946_572_8,
        -0.468_030_5,
        1.249_326_5,
        -0.790_362_7,
        -0.828_251_2,
    ],
    [0.424_264_1, 0.712_039_4, -0.473_286_4, -0.015_241_6, 0.697_198_8, 1.201_043_6],
);
const DARE_TIES: ([f32; 8], [f32; 6]) = (
    [
        -0.132_542_1,
        0.005_443_4,
        0.495_680_4,
        0.270_546_9,
        -0.234_015_2,
        0.395_742_2,
        -0.165_371_7,
        -0.381_262_2,
    ],
    [0.330_453_6, 0.415_180_5, 0.176_922_1, 0.569_689_1, 0.543_401_6, 0.600_521_8],
);

fn adapters() -> Vec<BTreeMap<String, Tensor>> {
    let tensor = |values: &[f32], shape: (usize, usize)| {
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
    };
    let named = |(a, b): (&[f32; 8], &[f32; 6])| {
        BTreeMap::from([
            ("q.lora_A.weight".to_owned(), tensor(a, (2, 4))),
            ("q.lora_B.weight".to_owned(), tensor(b, (3, 2))),
        ])
    };
    A.iter().zip(&B).map(named).collect()
}

fn run(how: &Combination, seed: u64) -> Result<[Vec<f32>; 2]> {
    let adapters = adapters();
    let part = |(tensors, factor)| Part { tensors, factor };
    let parts: Vec<Part<'_>> = adapters.iter().zip(FACTORS).map(part).collect();
    let made = combined(&parts, how, Seed::new(seed))?;
    let values = |name: &str| made[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    Ok([values("q.lora_A.weight"), values("q.lora_B.weight")])
}

#[test]
fn every_rule_gives_what_peft_gives() {
    let (total, frequency) = (Sign::Total, Sign::Frequency);
    let cases: [(Combination, &[f32], &[f32]); 7] = [
        (Combination::Linear, &LINEAR.0, &LINEAR.1),
        (Combination::Cat, &CAT.0, &CAT.1),
        (Combination::Ties { density: 0.5, sign: total }, &TIES_TOTAL.0, &TIES_TOTAL.1),
        (
            Combination::Ties { density: 0.75, sign: frequency },
            &TIES_FREQUENCY.0,
            &TIES_FREQUENCY.1,
        ),
        (Combination::MagnitudePrune { density: 0.5 }, &PRUNE.0, &PRUNE.1),
        (Combination::DareLinear { density: 1.0 }, &LINEAR.0, &LINEAR.1),
        (Combination::DareTies { density: 1.0, sign: total }, &DARE_TIES.0, &DARE_TIES.1),
    ];
    for (how, a, b) in cases {
        for (found, expected) in run(&how, 1).unwrap().iter().zip([a, b]) {
            assert_eq!(found.len(), expected.len(), "{how:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{how:?}: {found} is not {expected}");
            }
        }
    }
}

#[test]
fn random_values_repeat_and_keep_their_mean() {
    let how = Combination::DareLinear { density: 0.5 };
    assert_eq!(run(&how, 1).unwrap(), run(&how, 1).unwrap());
    assert_ne!(run(&how, 1).unwrap(), run(&how, 2).unwrap());
    let runs = 4000;
    let mut mean = [0.0; 8];
    for seed in 0..runs {
        for (sum, value) in mean.iter_mut().zip(&run(&how, seed).unwrap()[0]) {
            *sum += value / runs as f32;
        }
    }
    for (found, expected) in mean.iter().zip(LINEAR.0) {
        assert!((found - expected).abs() < 0.1, "{found} is not about {expected}");
    }
}

#[test]
fn nonsense_is_refused() {
    for density in [0.0, -0.5, 1.5, f64::NAN] {
        let error = run(&Combination::MagnitudePrune { density }, 1).unwrap_err();
        assert!(error.to_string().contains("density"), "{error}");
    }
    let mut adapters = adapters();
    let factor = 1.0;
    let other = adapters[1].remove("q.lora_B.weight").unwrap();
    let parts = |adapters: &[BTreeMap<String, Tensor>]| -> Result<_> {
        let parts: Vec<Part<'_>> =
            adapters.iter().map(|tensors| Part { tensors, factor }).collect();
        combined(&parts, &Combination::Linear, Seed::new(1))
    };
    assert!(parts(&adapters[..2]).unwrap_err().to_string().contains("different maps"));
    adapters[1].insert("q.lora_B.weight".to_owned(), other.narrow(1, 0, 1).unwrap());
    assert!(parts(&adapters[..2]).unwrap_err().to_string().contains("cat"));
}
