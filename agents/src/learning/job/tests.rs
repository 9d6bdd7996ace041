//! Jobs on the embedded backbone: each kind of adapter learns, and failures leave nothing behind.

use candle_core::Device;

use super::*;
use crate::adapter::head::HeadSpec;
use crate::adapter::lora::LoraSpec;
use crate::adapter::{AdapterSpec, Method};
use crate::backbone::builtin;
use crate::learning::objective::grpo::Prompt;
use crate::learning::objective::supervised::ClassExample;
use crate::prompt;
use crate::prompt::provenance::Words;
use crate::transfer::{Demonstration, reply_examples};
use crate::writing::Draw;

pub(super) fn backbone() -> Arc<Backbone> {
    Arc::new(builtin::polylogue_tiny(&Device::Cpu).unwrap())
}

pub(super) fn adapter(spec: AdapterSpec, backbone: &Backbone) -> Arc<Adapter> {
    Arc::new(Adapter::initial(spec, backbone, Seed::new(4)).unwrap())
}

pub(super) fn lora() -> AdapterSpec {
    let lora = LoraSpec::new(4, 8.0, &["q_proj", "v_proj"]);
    AdapterSpec { method: Method::Lora(lora), head: None }
}

pub(super) fn classes(backbone: &Backbone) -> Examples {
    let texts = [("where is my bag", 0), ("my suitcase is lost", 0), ("i want my money back", 1)];
    let example = |(text, label)| {
        let tokens =
            prompt::understand(&backbone.tokenizer, Words::of_task(text)).unwrap().into_tokens();
        ClassExample { tokens, label }
    };
    Examples::Classes(texts.into_iter().map(example).collect())
}

pub(super) fn finish(job: &mut Job) -> Vec<StepReport> {
    let mut reports = Vec::new();
    while !job.is_done() {
        reports.push(job.step().unwrap());
    }
    reports
}

pub(super) fn spec(lesson: Lesson, steps: usize, learning_rate: f64) -> JobSpec {
    let settings = Settings::default();
    JobSpec { lesson, steps, batch: 3, learning_rate, settings, seed: Seed::new(1) }
}

#[test]
fn classifiers_of_both_kinds_learn() {
    let backbone = backbone();
    for method in [Method::Frozen, Method::Layers { freeze_layers: 3 }] {
        let head = Some(HeadSpec::new(vec!["bag".to_owned(), "money".to_owned()]));
        let from = adapter(AdapterSpec { method, head }, &backbone);
        let lesson = Lesson::Supervised(classes(&backbone));
        let mut job =
            Job::new(Arc::clone(&backbone), Arc::clone(&from), spec(lesson, 30, 3e-3)).unwrap();
        let reports = finish(&mut job);
        assert!(reports[29].loss < 0.5 * reports[0].loss, "{:?}", (reports[0], reports[29]));
        let next = job.finish().unwrap();
        assert_eq!(next.generation(), Generation(1));
        assert_ne!(next.digest().unwrap(), from.digest().unwrap(), "the old one is untouched");
    }
}

#[test]
fn a_writer_learns_a_reply_by_heart_and_keeps_it_on_disk() {
    let backbone = backbone();
    let demonstration = Demonstration {
        query: "my plane is late".to_owned(),
        intent: 0,
        topic: "flight_delay".to_owned(),
        reply: "Sorry for the delay, here is a voucher.".to_owned(),
        wrong: String::new(),
    };
    let examples =
        reply_examples(&backbone.tokenizer, std::slice::from_ref(&demonstration)).unwrap();
    let lesson = Lesson::Supervised(Examples::Texts(examples));
    let from = adapter(lora(), &backbone);
    let mut job = Job::new(Arc::clone(&backbone), from, spec(lesson, 120, 2e-2)).unwrap();
    finish(&mut job);
    let next = job.finish().unwrap();

    let directory = tempfile::tempdir().unwrap();
    next.save(directory.path()).unwrap();
    let loaded = Adapter::load(directory.path(), &backbone).unwrap();
    assert_eq!(loaded.digest().unwrap(), next.digest().unwrap());

    let tokenizer = &backbone.tokenizer;
    let draw = Draw::likeliest(30, prompt::stops(tokenizer).unwrap());
    let tokens = prompt::reply(
        tokenizer,
        Words::of_task(&demonstration.query),
        Some(Words::of_task(&demonstration.topic)),
    )
    .unwrap()
    .into_tokens();
    let row = Row { adapter: Some(Arc::new(loaded)), prompt: tokens, draw };
    let text = write(&backbone, vec![row]).unwrap().remove(0);
    assert_eq!(tokenizer.decode(&text.tokens).unwrap().trim(), demonstration.reply);
}

#[test]
fn grpo_raises_the_reward_it_is_given() {
    let backbone = backbone();
    let tokenizer = &backbone.tokenizer;
    let prompts = (0..4)
        .map(|key| Prompt {
            key,
            tokens: prompt::reply(
                tokenizer,
                Words::of_task("where is my bag"),
                Some(Words::of_task("lost baggage")),
            )
            .unwrap()
            .into_tokens(),
        })
        .collect();
    let grpo = Grpo {
        prompts,
        group: 8,
        temperature: 1.0,
        max_tokens: 16,
        stop: prompt::stops(tokenizer).unwrap(),
        // Shorter replies are better: a reward that every group can tell apart.
        reward: Arc::new(|_, reply| 1.0 - reply.len().min(80) as f64 / 80.0),
    };
    let from = adapter(lora(), &backbone);
    let job = JobSpec {
        lesson: Lesson::Grpo(grpo),
        steps: 30,
        batch: 4,
        learning_rate: 2e-2,
        settings: Settings::default(),
        seed: Seed::new(3),
    };
    let reports = finish(&mut Job::new(Arc::clone(&backbone), from, job).unwrap());
    let mean =
        |part: &[StepReport]| part.iter().filter_map(|r| r.reward).sum::<f64>() / part.len() as f64;
    let (early, late) = (mean(&reports[..5]), mean(&reports[25..]));
    assert!(late > early + 0.1, "{early} {late}");
}

#[test]
fn a_job_that_diverges_is_refused_and_names_the_step() {
    let backbone = backbone();
    let from = adapter(lora(), &backbone);
    let examples = Examples::Texts(vec![crate::learning::objective::TextExample {
        prompt: vec![5, 6],
        reply: vec![7, 8],
    }]);
    let spec = spec(Lesson::Supervised(examples), 50, 1e30);
    let mut job = Job::new(Arc::clone(&backbone), from, spec).unwrap();
    let error = (0..50).find_map(|_| job.step().err()).expect("it diverges");
    assert!(error.to_string().contains("not finite"), "{error}");
}

#[test]
fn lessons_that_do_not_suit_are_refused() {
    let backbone = backbone();
    let from = adapter(lora(), &backbone);
    let lesson = Lesson::Supervised(classes(&backbone));
    let error = Job::new(Arc::clone(&backbone), Arc::clone(&from), spec(lesson, 1, 1e-3));
    assert!(error.unwrap_err().to_string().contains("labels need an agent that classifies"));
    let nothing = Lesson::Supervised(Examples::Texts(Vec::new()));
    let error = Job::new(backbone, from, spec(nothing, 1, 1e-3));
    assert!(error.unwrap_err().to_string().contains("no examples"));
}

#[test]
fn the_same_seed_gives_the_same_weights() {
    let backbone = backbone();
    let digest = || {
        let from = adapter(lora(), &backbone);
        let examples = Examples::Texts(vec![crate::learning::objective::TextExample {
            prompt: vec![5, 6],
            reply: vec![7, 8],
        }]);
        let spec = spec(Lesson::Supervised(examples), 5, 1e-2);
        let mut job = Job::new(Arc::clone(&backbone), from, spec).unwrap();
        finish(&mut job);
        job.finish().unwrap().digest().unwrap()
    };
    assert_eq!(digest(), digest());
}

fn guarded(guard: Guard, rate: f64) -> Result<Adapter> {
    let backbone = backbone();
    let from = adapter(lora(), &backbone);
    let demonstration = Demonstration {
        query: "where is my bag".to_owned(),
        intent: 0,
        topic: "lost_baggage".to_owned(),
        reply: "we look for the bag".to_owned(),
        wrong: "no".to_owned(),
    };
    let replies = reply_examples(&backbone.tokenizer, &[demonstration]).unwrap();
    let mut spec = spec(Lesson::Supervised(Examples::Texts(replies)), 4, rate);
    spec.settings.guard = guard;
    let mut job = Job::new(backbone, from, spec)?;
    while !job.is_done() {
        job.step()?;
    }
    job.finish()
}

#[test]
fn a_job_that_goes_too_far_is_dropped() {
    let open = Guard { norm: Some(1e6), kl: Some(1e3) };
    guarded(open, 1e-3).unwrap();
    let error = guarded(Guard { norm: Some(1e-6), ..open }, 1e-3).unwrap_err();
    assert!(matches!(error, ModelError::Guarded { step: 1, .. }), "{error}");
    let told = guarded(Guard { kl: Some(1e-9), ..open }, 1e-2).unwrap_err();
    let ModelError::Guarded { step: 4, found, .. } = told else { panic!("{told}") };
    // The divergence grows with the learning rate, and is measured from the weights before.
    let more = guarded(Guard { kl: Some(1e-9), ..open }, 1e-1).unwrap_err();
    let ModelError::Guarded { found: further, .. } = more else { panic!("{more}") };
    assert!(found > 0.0 && further > found, "{found} {further}");
    // A job that changes nothing drifts nowhere.
    guarded(Guard { kl: Some(1e-9), ..open }, 0.0).unwrap();
}
