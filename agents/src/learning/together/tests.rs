//! Jobs that share passes learn what they learn alone, whatever their kinds; failures stay their own.

use candle_core::Device;

use super::*;
use crate::adapter::head::HeadSpec;
use crate::adapter::ia3::Ia3Spec;
use crate::adapter::lora::LoraSpec;
use crate::adapter::vera::VeraSpec;
use crate::adapter::{Adapter, AdapterSpec, Method};
use crate::backbone::{Backbone, builtin};
use crate::learning::job::{JobSpec, Lesson};
use crate::learning::objective::TextExample;
use crate::learning::objective::grpo::{Grpo, Prompt};
use crate::learning::objective::supervised::{ClassExample, Examples};
use crate::seed::Seed;

fn texts(first: u32) -> Lesson {
    let example = |i: u32| TextExample {
        prompt: (0..5 + i).map(|j| first + 7 * i + j).collect(),
        reply: (0..3 + i).map(|j| 2 * first + 5 * j).collect(),
    };
    Lesson::Supervised(Examples::Texts((0..4).map(example).collect()))
}

fn classes() -> Lesson {
    let example = |i: u32| ClassExample {
        tokens: (0..4 + i).map(|j| 30 + 3 * i + j).collect(),
        label: (i % 2) as usize,
    };
    Lesson::Supervised(Examples::Classes((0..4).map(example).collect()))
}

fn rewards() -> Lesson {
    let prompt = |key: usize| Prompt { key, tokens: vec![40 + key as u32, 41, 42] };
    Lesson::Grpo(Grpo {
        prompts: (0..2).map(prompt).collect(),
        group: 4,
        temperature: 1.0,
        max_tokens: 6,
        stop: Vec::new(),
        reward: Arc::new(|_, reply| reply.len() as f64 / 40.0),
    })
}

/// Every kind that may share a pass, and two that may not.
fn jobs(backbone: &Arc<Backbone>) -> Vec<Job> {
    let lora = |rank, targets: &[&str]| Method::Lora(LoraSpec::new(rank, 8.0, targets));
    let (mut dora, mut dropping) =
        (LoraSpec::new(2, 4.0, &["v_proj"]), LoraSpec::new(2, 4.0, &["q_proj"]));
    dora.dora = true;
    dropping.dropout = 0.5;
    let head = || Some(HeadSpec::new(vec!["a".to_owned(), "b".to_owned()]));
    let family = backbone.network.architecture().family;
    let kinds = [
        (lora(4, &["q_proj", "v_proj"]), None, texts(50)),
        (lora(2, &["all-linear"]), None, texts(80)),
        (Method::Ia3(Ia3Spec::usual(family)), None, texts(60)),
        (Method::Lora(dora), None, texts(70)),
        (Method::Prompt { tokens: 3 }, None, texts(90)),
        (Method::Prefix { tokens: 2 }, None, texts(55)),
        (Method::Layers { freeze_layers: 3 }, None, texts(65)),
        (lora(3, &["k_proj"]), None, rewards()),
        (lora(4, &["q_proj"]), head(), classes()),
        (Method::Frozen, head(), classes()),
        (Method::Lora(dropping), None, texts(75)),
    ];
    jobs_of(backbone, kinds)
}

type Kind = (Method, Option<HeadSpec>, Lesson);

fn jobs_of(backbone: &Arc<Backbone>, kinds: impl IntoIterator<Item = Kind>) -> Vec<Job> {
    kinds
        .into_iter()
        .zip(0..)
        .map(|((method, head, lesson), seed)| {
            let spec = AdapterSpec { method, head };
            let from = Arc::new(Adapter::initial(spec, backbone, Seed::new(seed)).unwrap());
            let settings = Settings { micro_batch_tokens: 48, ..Settings::default() };
            let (steps, learning_rate, seed) = (4, 1e-3, Seed::new(seed + 20));
            let spec = JobSpec { lesson, steps, batch: 2, learning_rate, settings, seed };
            Job::new(Arc::clone(backbone), from, spec).unwrap()
        })
        .collect()
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-4 * (1.0 + one.abs())
}

#[test]
fn jobs_learn_together_what_they_learn_alone() {
    let backbone = Arc::new(builtin::polylogue_tiny(&Device::Cpu).unwrap());
    let (mut shared, mut alone, mut again) = (jobs(&backbone), jobs(&backbone), jobs(&backbone));
    for round in 0..3 {
        let together = step(&mut shared);
        let repeated = step(&mut again);
        for (place, ((report, same), job)) in
            together.into_iter().zip(repeated).zip(&mut alone).enumerate()
        {
            let (report, own) = (report.unwrap(), job.step().unwrap());
            assert_eq!(report, same.unwrap(), "job {place}: equal runs, equal bits");
            assert!(
                near(own.loss, report.loss) && near(own.norm, report.norm),
                "job {place}, step {round}: {own:?} {report:?}"
            );
            assert!(own.norm > 0.0, "job {place} learns something: {own:?}");
        }
    }
}

#[test]
fn jobs_of_every_kind_really_share_a_pass() {
    let backbone = Arc::new(builtin::polylogue_tiny(&Device::Cpu).unwrap());
    let family = backbone.network.architecture().family;
    let mut dora = LoraSpec::new(2, 4.0, &["v_proj"]);
    dora.dora = true;
    let vera = VeraSpec {
        rank: 4,
        targets: vec!["q_proj".to_owned(), "v_proj".to_owned()],
        d_initial: 0.1,
        dropout: 0.0,
    };
    let lora = Method::Lora(LoraSpec::new(2, 4.0, &["q_proj"]));
    let (ia3, dora, vera) =
        (Method::Ia3(Ia3Spec::usual(family)), Method::Lora(dora), Method::Vera(vera));
    let prompt = Method::Prompt { tokens: 2 };
    for methods in [
        vec![&ia3, &ia3],
        vec![&dora, &dora],
        vec![&vera, &vera],
        vec![&ia3, &dora, &vera, &prompt],
        vec![&lora, &ia3, &dora, &vera],
    ] {
        let kinds =
            methods.iter().zip(5..).map(|(&method, i)| (method.clone(), None, texts(10 * i)));
        let mut jobs = jobs_of(&backbone, kinds);
        let sampled = sample(&jobs);
        let begin = |(job, sampled): (&mut Job, Result<_>)| job.begin(sampled.unwrap());
        let begun: Vec<_> = jobs.iter_mut().zip(sampled).map(begin).collect();
        // Gradients of a job that must go alone are not among them.
        assert_eq!(shared(&jobs, &begun).len(), jobs.len(), "{methods:?}");
    }
}

#[test]
fn what_a_job_samples_is_the_same_whoever_samples_beside_it() {
    let backbone = Arc::new(builtin::polylogue_tiny(&Device::Cpu).unwrap());
    let lora = |targets: &[&str]| Method::Lora(LoraSpec::new(4, 8.0, targets));
    let mut kinds: Vec<Kind> = [
        lora(&["q_proj", "v_proj"]),
        lora(&["all-linear"]),
        Method::Prefix { tokens: 2 },
        Method::Layers { freeze_layers: 3 },
    ]
    .map(|method| (method, None, rewards()))
    .into();
    kinds.insert(2, (Method::Prompt { tokens: 3 }, None, texts(90)));
    let mut jobs = jobs_of(&backbone, kinds);
    for _ in 0..2 {
        let alone: Vec<Option<Vec<Text>>> = jobs
            .iter()
            .map(|job| Some(write(&backbone, job.sampling().unwrap()?.rows()).unwrap()))
            .collect();
        let count = |texts: &Option<Vec<Text>>| texts.as_ref().map(Vec::len);
        assert_eq!(
            alone.iter().map(count).collect::<Vec<_>>(),
            [8, 8, 0, 8, 8].map(|n| { (n > 0).then_some(n) })
        );
        let together: Vec<_> = sample(&jobs).into_iter().map(Result::unwrap).collect();
        assert_eq!(together, alone);
        assert_ne!(alone[0], alone[1], "adapters or streams differ");
        assert!(step(&mut jobs).iter().all(Result::is_ok));
    }
}

#[test]
fn a_job_that_fails_takes_no_other_with_it() {
    let backbone = Arc::new(builtin::polylogue_tiny(&Device::Cpu).unwrap());
    let long = backbone.network.architecture().positions + 1;
    let job = |tokens: usize| {
        let method = Method::Lora(LoraSpec::new(2, 4.0, &["q_proj"]));
        let spec = AdapterSpec { method, head: None };
        let from = Arc::new(Adapter::initial(spec, &backbone, Seed::new(1)).unwrap());
        let examples = vec![TextExample { prompt: vec![7; tokens], reply: vec![8, 9] }];
        let lesson = Lesson::Supervised(Examples::Texts(examples));
        let (settings, seed) = (Settings::default(), Seed::new(3));
        let spec = JobSpec { lesson, steps: 1, batch: 1, learning_rate: 1e-3, settings, seed };
        Job::new(Arc::clone(&backbone), from, spec).unwrap()
    };
    let mut jobs = [job(4), job(long), job(6)];
    let reports = step(&mut jobs);
    assert!(reports[0].is_ok() && reports[2].is_ok(), "{reports:?}");
    assert!(matches!(reports[1], Err(ModelError::TooLong { .. })), "{:?}", reports[1]);
}
