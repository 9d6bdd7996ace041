//! What a machine does with a model: tokens a second beside what its memory and its arithmetic allow.
//!
//! Every figure is the best of a few rounds. Time comes from the caller. Nothing here is random but the
//! prompts, which are the same every time.

mod machine;

use std::hint::black_box;
use std::sync::Arc;

pub use self::machine::Machine;
use crate::adapter::lora::LoraSpec;
use crate::adapter::{Adapter, AdapterSpec, Method};
use crate::backbone::Backbone;
use crate::error::Result;
use crate::learning::job::{Job, JobSpec, Lesson, Settings};
use crate::learning::objective::TextExample;
use crate::learning::objective::supervised::Examples;
use crate::learning::together;
use crate::seed::Seed;
use crate::session::{Drawn, Part, Session, Slot};

/// Seconds since some moment that stays the same.
pub type Seconds<'a> = &'a dyn Fn() -> f64;

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
    let mut session = Session::new(Arc::clone(backbone))?.with_width(sequences);
    let mut slots: Vec<Slot> = Vec::with_capacity(sequences);
    for row in 0..sequences {
        let slot = session.open(mix.adapter(backbone, row as u64)?);
        let tokens: Vec<u32> = (0..PROMPT).map(|place| token(backbone, row, place)).collect();
        session.step(&[Part::new(slot, &tokens, false)])?;
        slots.push(slot);
    }
    let first: Vec<u32> = (0..sequences).map(|row| token(backbone, row, PROMPT)).collect();
    let mut last: Option<Drawn> = None;
    let rounds = 3;
    let seconds = best(rounds, now, || {
        for _ in 0..steps.div_ceil(rounds).max(1) {
            let part = |(row, &slot): (usize, &Slot)| match &last {
                Some(last) => Part::drawn(slot, last, row),
                None => Part::new(slot, std::slice::from_ref(&first[row]), true),
            };
            let parts: Vec<Part<'_>> = slots.iter().enumerate().map(part).collect();
            let before = last.replace(session.step(&parts)?.likeliest()?);
            // As when texts are written: what the step before drew is looked at while this one is computed.
            black_box(before.map(|drawn| drawn.wait()).transpose()?);
        }
        black_box(last.as_ref().map(Drawn::wait).transpose()?);
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
            together::step(&mut jobs).into_iter().try_for_each(|report| report.map(drop))?;
        } else {
            jobs.iter_mut().try_for_each(|job| job.step().map(drop))?;
        }
        Ok(backbone.network.device().synchronize()?)
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

/// The whole table, with writing measured for each of these numbers of sequences; `hear` is told each figure
/// as it comes.
///
/// # Errors
/// When the model cannot be run.
pub fn table(
    backbone: &Arc<Backbone>,
    sequences: &[usize],
    steps: usize,
    now: Seconds<'_>,
    hear: &mut dyn FnMut(&Figure),
) -> Result<()> {
    let machine = Machine::measure(backbone, now)?;
    let plain = |name: String, value, unit| Figure { name, value, unit, bound: None };
    hear(&plain(machine.memory().to_owned(), machine.bandwidth / 1e9, "GB/s"));
    let products = format!("products in {}", machine.products.as_str());
    hear(&plain(products, machine.arithmetic / 1e9, "GFLOP/s"));
    for &sequences in sequences {
        // One sequence has no company whose adapters could differ from its own.
        let mixes = [Mix::None, Mix::Attention, Mix::All];
        for mix in mixes.into_iter().take(if sequences == 1 { 1 } else { mixes.len() }) {
            hear(&decoding(backbone, machine, sequences, mix, steps, now)?);
        }
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

    use candle_core::{DType, Device};

    use super::*;
    use crate::backbone::builtin;

    #[test]
    fn every_figure_is_measured() {
        let backbone = Arc::new(builtin::polylogue_tiny(&Device::Cpu).unwrap());
        let (bandwidth, products, is_card) = (1e9, DType::F32, false);
        let machine = Machine { bandwidth, arithmetic: 1e12, products, is_card };
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
