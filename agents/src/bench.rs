//! What a machine does with a model: tokens a second beside what its memory and its arithmetic allow.
//!
//! Every figure is the best of a few rounds. Time comes from the caller. Nothing here is random but the
//! prompts, which are the same every time.

use std::hint::black_box;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::adapter::lora::LoraSpec;
use crate::adapter::{Adapter, AdapterSpec, Method};
use crate::backbone::{Architecture, Backbone, Weight};
use crate::error::Result;
use crate::learning::job::{Job, JobSpec, Lesson, Settings};
use crate::learning::objective::TextExample;
use crate::learning::objective::supervised::Examples;
use crate::learning::together;
use crate::seed::Seed;
use crate::session::{Part, Session, Slot};

/// Seconds since some moment that stays the same.
pub type Seconds<'a> = &'a dyn Fn() -> f64;

/// Numbers of eight bytes that are streamed through: more than a cache that many cores share holds.
const STREAMED: usize = 64 << 20;
/// Side of the matrices whose product measures arithmetic.
const SIDE: usize = 1024;
/// Tokens of a prompt that decoding starts from.
const PROMPT: usize = 32;
/// Jobs that learn at once.
pub const JOBS: usize = 8;
/// Examples of each job in a step: short ones, as agents bring them.
const EXAMPLES: usize = 3;
/// Tokens of a prompt and of a reply that is learned.
const EXAMPLE: [usize; 2] = [12, 8];

/// One measured figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The best round, in `unit`.
    pub value: f64,
    /// For example `tokens/s`.
    pub unit: &'static str,
    /// The most that memory and arithmetic would allow; none where nothing limits it but itself.
    pub bound: Option<f64>,
}

/// What the machine can do at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Bytes a second, read one after the other on all threads.
    pub bandwidth: f64,
    /// Operations a second of a large product in f32.
    pub arithmetic: f64,
}

impl Machine {
    /// Measures it.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn measure(device: &Device, now: Seconds<'_>) -> Result<Self> {
        let numbers: Vec<u64> = (0..STREAMED as u64).collect();
        let chunk = numbers.len().div_ceil(rayon::current_num_threads());
        let read = || {
            let parts = numbers.par_chunks(chunk);
            black_box(parts.map(|part| part.iter().fold(0, |a: u64, b| a ^ b) >> 8).sum::<u64>());
            Ok(())
        };
        let bandwidth = (numbers.len() * 8) as f64 / best(5, now, read)?;
        let a = Tensor::ones((SIDE, SIDE), DType::F32, device)?;
        let seconds = best(8, now, || {
            let product = a.matmul(&a)?;
            black_box(product.narrow(0, 0, 1)?.flatten_all()?.to_vec1::<f32>()?);
            Ok(())
        })?;
        Ok(Self { bandwidth, arithmetic: 2.0 * (SIDE * SIDE * SIDE) as f64 / seconds })
    }

    /// Tokens a second that reading all weights for every `rows` tokens, and their products, allow.
    #[must_use]
    pub fn decoding_bound(&self, backbone: &Backbone, rows: usize) -> f64 {
        let bytes: usize = backbone.weights().values().map(bytes).sum();
        let by_memory = self.bandwidth * rows as f64 / bytes as f64;
        by_memory.min(self.arithmetic / operations(backbone.network.architecture()))
    }

    /// Tokens a second of LoRA training that the products allow: forward, and back to the inputs.
    #[must_use]
    pub fn training_bound(&self, backbone: &Backbone) -> f64 {
        let architecture = backbone.network.architecture();
        let head = 2.0 * (architecture.vocabulary * architecture.hidden) as f64;
        let [prompt, reply] = EXAMPLE;
        let replied = reply as f64 / (prompt + reply - 1) as f64;
        let body = operations(architecture) - head;
        self.arithmetic / (2.0 * (body + replied * head))
    }
}

fn bytes(weight: &Weight) -> usize {
    match weight {
        Weight::Dense(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
        Weight::Quantized(tensor) => tensor.storage_size_in_bytes(),
    }
}

/// Operations of one token's products, attention left out.
fn operations(architecture: &Architecture) -> f64 {
    let table = architecture.vocabulary * architecture.hidden;
    let matrices: usize = architecture
        .weights()
        .iter()
        .filter(|(_, shape)| shape.len() == 2 && shape[0] * shape[1] != table)
        .map(|(_, shape)| shape[0] * shape[1])
        .sum();
    2.0 * (matrices + table) as f64
}

/// Seconds of the fastest round.
fn best(rounds: usize, now: Seconds<'_>, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let start = now();
        work()?;
        best = best.min(now() - start);
    }
    Ok(best.max(1e-9))
}

/// Which adapters the sequences of a measurement have: one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// None: the bare backbone.
    None,
    /// LoRA of rank 8 on queries and values.
    Attention,
    /// LoRA of rank 8 on every linear map.
    All,
}

impl Mix {
    /// An adapter of this kind.
    ///
    /// # Errors
    /// When the backbone has no such maps.
    pub fn adapter(self, backbone: &Backbone, number: u64) -> Result<Option<Arc<Adapter>>> {
        let targets: &[&str] = match self {
            Self::None => return Ok(None),
            Self::Attention => {
                let all = backbone.network.architecture();
                if all.weights().iter().any(|(name, _)| name.contains("qkv_proj")) {
                    &["qkv_proj"]
                } else {
                    &["q_proj", "v_proj"]
                }
            }
            Self::All => &["all-linear"],
        };
        let method = Method::Lora(LoraSpec::new(8, 16.0, targets));
        let spec = AdapterSpec { method, head: None };
        Adapter::initial(spec, backbone, Seed::new(number)).map(|adapter| Some(Arc::new(adapter)))
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Attention => ", own LoRA on q and v each",
            Self::All => ", own LoRA on every map each",
        }
    }
}

/// Token `place` of sequence `row`, within any vocabulary.
fn token(backbone: &Backbone, row: usize, place: usize) -> u32 {
    let most = backbone.network.architecture().vocabulary.max(2);
    ((7 + 31 * row + 13 * place) % most) as u32
}

/// Writing `steps` tokens with each of `sequences`, prompts read before; tokens a second of all of them.
///
/// # Errors
/// When the backbone cannot write.
pub fn decoding(
    backbone: &Arc<Backbone>,
    machine: Machine,
    sequences: usize,
    mix: Mix,
    steps: usize,
    now: Seconds<'_>,
) -> Result<Figure> {
    let mut session = Session::new(Arc::clone(backbone))?;
    let mut slots: Vec<Slot> = Vec::with_capacity(sequences);
    for row in 0..sequences {
        let slot = session.open(mix.adapter(backbone, row as u64)?);
        let tokens: Vec<u32> = (0..PROMPT).map(|place| token(backbone, row, place)).collect();
        session.step(&[Part { slot, tokens: &tokens, logits: false }])?;
        slots.push(slot);
    }
    let mut place = PROMPT;
    let mut next: Vec<u32> = (0..sequences).map(|row| token(backbone, row, place)).collect();
    let rounds = 3;
    let seconds = best(rounds, now, || {
        for _ in 0..steps.div_ceil(rounds).max(1) {
            let parts: Vec<Part<'_>> = slots
                .iter()
                .zip(&next)
                .map(|(&slot, token)| Part {
                    slot,
                    tokens: std::slice::from_ref(token),
                    logits: true,
                })
                .collect();
            let logits = session.step(&parts)?;
            black_box(logits.of(0).first());
            place += 1;
            next = (0..sequences).map(|row| token(backbone, row, place)).collect();
        }
        Ok(())
    })?;
    let value = (sequences * steps.div_ceil(rounds).max(1)) as f64 / seconds;
    let words = if sequences == 1 { "sequence" } else { "sequences" };
    let name = format!("writing, {sequences} {words}{}", mix.name());
    let bound = Some(machine.decoding_bound(backbone, sequences));
    Ok(Figure { name, value, unit: "tokens/s", bound })
}

/// Jobs that learn short replies, each with an adapter of its own.
///
/// # Errors
/// When the backbone cannot be adapted.
pub fn jobs(backbone: &Arc<Backbone>, mix: Mix, steps: usize) -> Result<Vec<Job>> {
    let [prompt, reply] = EXAMPLE;
    let example = |number: usize| TextExample {
        prompt: (0..prompt).map(|place| token(backbone, number, place)).collect(),
        reply: (0..reply).map(|place| token(backbone, number + 3, place)).collect(),
    };
    let job = |number: usize| {
        let from = mix.adapter(backbone, number as u64)?.map_or_else(
            || Mix::All.adapter(backbone, number as u64),
            |adapter| Ok(Some(adapter)),
        )?;
        let missing = || crate::error::ModelError::Step("there is no adapter".to_owned());
        let all = (0..EXAMPLES).map(|at| example(number * EXAMPLES + at)).collect();
        let spec = JobSpec {
            lesson: Lesson::Supervised(Examples::Texts(all)),
            steps,
            batch: EXAMPLES,
            learning_rate: 1e-4,
            settings: Settings::default(),
            seed: Seed::new(number as u64),
        };
        Job::new(Arc::clone(backbone), from.ok_or_else(missing)?, spec)
    };
    (0..JOBS).map(job).collect()
}

/// One step of every job, together or one after the other; tokens a second.
///
/// # Errors
/// When a job fails.
pub fn training(
    backbone: &Arc<Backbone>,
    machine: Machine,
    mix: Mix,
    is_together: bool,
    rounds: usize,
    now: Seconds<'_>,
) -> Result<Figure> {
    let mut jobs = jobs(backbone, mix, rounds + 1)?;
    let mut step = || -> Result<()> {
        if is_together {
            together::step(&mut jobs).into_iter().try_for_each(|report| report.map(drop))
        } else {
            jobs.iter_mut().try_for_each(|job| job.step().map(drop))
        }
    };
    step()?;
    let seconds = best(rounds, now, step)?;
    let [prompt, reply] = EXAMPLE;
    let tokens = JOBS * EXAMPLES * (prompt + reply - 1);
    let how = if is_together { "together" } else { "one after the other" };
    let name = format!("training, {JOBS} jobs {how}{}", mix.name());
    let bound = Some(machine.training_bound(backbone));
    Ok(Figure { name, value: tokens as f64 / seconds, unit: "tokens/s", bound })
}

/// The whole table; `hear` is told each figure as it comes.
///
/// # Errors
/// When the model cannot be run.
pub fn table(
    backbone: &Arc<Backbone>,
    steps: usize,
    now: Seconds<'_>,
    hear: &mut dyn FnMut(&Figure),
) -> Result<()> {
    let machine = Machine::measure(backbone.network.device(), now)?;
    let plain =
        |name: &str, value, unit| Figure { name: name.to_owned(), value, unit, bound: None };
    hear(&plain("reading memory", machine.bandwidth / 1e9, "GB/s"));
    hear(&plain("products in f32", machine.arithmetic / 1e9, "GFLOP/s"));
    for (sequences, mix) in [(1, Mix::None), (16, Mix::None), (16, Mix::Attention), (16, Mix::All)]
    {
        hear(&decoding(backbone, machine, sequences, mix, steps, now)?);
    }
    for mix in [Mix::Attention, Mix::All] {
        for is_together in [false, true] {
            hear(&training(backbone, machine, mix, is_together, 3, now)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::backbone::builtin;

    #[test]
    fn bounds_follow_from_bytes_and_operations_and_every_figure_is_measured() {
        let backbone = Arc::new(builtin::polylogue_tiny(&Device::Cpu).unwrap());
        let machine = Machine { bandwidth: 1e9, arithmetic: f64::INFINITY };
        let stored: usize = backbone.weights().values().map(bytes).sum();
        let alone = machine.decoding_bound(&backbone, 1);
        assert!((alone - 1e9 / stored as f64).abs() < 1e-9);
        assert!((machine.decoding_bound(&backbone, 4) - 4.0 * alone).abs() < 1e-6);
        // Each look at the clock is a second: a round takes one.
        let clock = Cell::new(0.0);
        let now = || {
            clock.set(clock.get() + 1.0);
            clock.get()
        };
        let figure = decoding(&backbone, machine, 2, Mix::Attention, 3, &now).unwrap();
        assert!((figure.value - 2.0).abs() < 1e-9, "{figure:?}");
        let figure = training(&backbone, machine, Mix::All, true, 1, &now).unwrap();
        assert!((figure.value - (JOBS * EXAMPLES * 19) as f64).abs() < 1e-9, "{figure:?}");
    }
}
