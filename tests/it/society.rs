//! Whole runs of the customer-service society with the embedded model.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agents::adapter::Adapter;
use agents::backbone::Backbone;
use agents::engine::queue::{Request, Want};
use agents::engine::witness::Witness;
use agents::learning::job::JobSpec;
use polylogue_tests::{Ran, SMALL, events, play, prepared, root, run, shared_data, shared_model};
use sim::event::{Event, EventKind, Phase, Said};
use sim::work::{TickWork, Usage};

fn count(events: &[Event], is: impl Fn(&EventKind) -> bool) -> usize {
    events.iter().filter(|event| is(&event.kind)).count()
}

#[test]
fn a_society_plays_learns_and_leaves_everything_behind() {
    let Ran { finished, log, directory } = run(&[]);
    assert!(log.starts_with("{\"format\":\"polylogue-events/1.1\"}\n"), "the version comes first");
    let events = events(&log);
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.seq, index as u64, "no gap in the numbering");
    }
    let played = |k: &EventKind| matches!(k, EventKind::EpisodeFinished { .. });
    assert_eq!(count(&events, played), 40 + 2 * 12);
    let messages = |k: &EventKind| matches!(k, EventKind::MessageDelivered { .. });
    assert_eq!(count(&events, messages), 3 * (40 + 2 * 12));
    let rule = |name: &'static str| move |k: &EventKind| matches!(k, EventKind::TriggerFired { rule, job: Some(_), .. } if rule == name);
    assert!(count(&events, rule("threshold")) > 0);
    assert!(count(&events, rule("periodic")) > 0);
    for objective in ["grpo", "supervised", "warm_up"] {
        let started = |k: &EventKind| matches!(k, EventKind::TrainingStarted { objective: found, .. } if found == objective);
        assert!(count(&events, started) > 0, "{objective}");
    }
    // A generation is used as soon as the tick after it was published.
    let swapped = |k: &EventKind| matches!(k, EventKind::MessageDelivered { generation, .. } if generation.0 >= 2);
    assert!(count(&events, swapped) > 0, "new weights are used while the society plays");

    let summary = &finished.summary;
    assert_eq!(summary.episodes, 40);
    assert!(summary.before.is_some() && summary.after.is_some());
    let path = directory.path();
    for name in ["scenario.toml", "manifest.json", "summary.json", "times.jsonl"] {
        assert!(path.join(name).exists(), "{name}");
    }
    let manifest = std::fs::read_to_string(path.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let base = &manifest["backbones"]["base"];
    assert_eq!(base["builtin"], "polylogue-tiny");
    assert_eq!(base["files"]["model.safetensors"].as_str().map(str::len), Some(64));
    for generation in ["g1", "g2"] {
        let adapter = path.join("adapters/understand").join(generation);
        assert!(adapter.join("adapter_model.safetensors").exists(), "{generation} is kept");
    }
}

#[test]
fn two_runs_with_one_seed_are_the_same_bytes_and_another_seed_is_not() {
    let small = ["episodes=16", "task.support.holdout_limit=4"];
    let first = run(&small);
    assert_eq!(first.log, run(&small).log);
    assert_ne!(first.log, run(&["episodes=16", "task.support.holdout_limit=4", "seed=8"]).log);
}

#[test]
fn one_token_to_draw_from_is_no_temperature() {
    let log = |agent: &str| {
        let small = ["episodes=8", "task.support.holdout_limit=4", "triggers=[]", agent];
        run(&small).log
    };
    let cold = log("agents.reply.temperature=0");
    for one in ["agents.reply.top_k=1", "agents.reply.top_p=0", "agents.reply.min_p=1"] {
        assert_eq!(log(one), cold, "{one}");
    }
    assert_ne!(log("agents.reply.top_k=2"), cold);
}

#[test]
fn a_backbone_in_sixteen_bits_is_another_and_learns_as_well() {
    let small = ["episodes=16", "task.support.holdout_limit=4"];
    for dtype in ["bf16", "f16"] {
        let typed = format!("backbone.base.dtype={dtype}");
        let half = || run(&[small.as_slice(), &[&typed]].concat());
        let Ran { log, directory, .. } = half();
        assert_eq!(log, half().log);
        assert_ne!(log, run(&small).log);
        let published = |k: &EventKind| matches!(k, EventKind::GenerationPublished { .. });
        assert!(count(&events(&log), published) > 3);
        let manifest = std::fs::read_to_string(directory.path().join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest["backbones"]["base"]["dtype"], dtype);
    }
}

#[test]
fn the_channel_cuts_what_is_too_long() {
    let ran = run(&["episodes=8", "task.support.holdout_limit=4", "channel.text.max_tokens=4"]);
    for event in events(&ran.log) {
        if let EventKind::MessageDelivered { tokens, said: Said::Text { .. }, .. } = event.kind {
            assert!(tokens <= 4);
        }
    }
}

#[test]
fn without_triggers_nothing_is_learned_after_the_transfer() {
    let ran = run(&["episodes=16", "task.support.holdout_limit=4", "triggers=[]"]);
    let late = events(&ran.log)
        .into_iter()
        .skip_while(|e| !matches!(e.kind, EventKind::PhaseStarted { phase: Phase::Play, .. }))
        .filter(|e| matches!(e.kind, EventKind::GenerationPublished { .. }));
    assert_eq!(late.count(), 0);
    let summary = &ran.finished.summary;
    assert_eq!(summary.before, summary.after);
}

#[test]
fn real_customers_of_a_bank_run_to_the_end() {
    let Some(data) = shared_data("intent-banking77") else { return };
    let set = [
        format!("task.support.train={}", data.join("train.csv").display()),
        format!("task.support.holdout={}", data.join("test.csv").display()),
        "task.support.columns.intent=category".to_owned(),
        "agents.understand.warm_up.examples_per_intent=2".to_owned(),
        "episodes=16".to_owned(),
    ];
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let ran = run(&set);
    assert_eq!(ran.finished.summary.episodes, 16);
}

#[test]
fn an_encoder_of_somebody_else_reads_while_our_decoder_writes() {
    let Some(model) = shared_model("all-MiniLM-L6-v2") else { return };
    let path = format!("backbone.mini.path={}", model.display());
    let ran = run(&[
        &path,
        "agents.understand.backbone=mini",
        "agents.understand.warm_up={ examples_per_intent = 1, steps = 8, batch = 8 }",
        "agents.evaluate.backbone=mini",
        "agents.evaluate.transfer.head.freeze_layers=5",
        "agents.evaluate.warm_up={ examples_per_intent = 1, steps = 2, batch = 4 }",
        "episodes=4",
        "task.support.holdout_limit=2",
        "triggers=[]",
    ]);
    assert_eq!(ran.finished.summary.episodes, 4);
    let events = events(&ran.log);
    let EventKind::RunStarted { agents, .. } = &events[0].kind else { panic!() };
    let backbones: Vec<&str> = agents.iter().map(|card| card.backbone.as_str()).collect();
    assert_eq!(backbones, ["mini", "base", "mini"]);
    let classified = |k: &EventKind| matches!(k, EventKind::MessageDelivered { said: Said::Label { confidence, .. }, .. } if *confidence > 0.0);
    assert_eq!(count(&events, classified), 4 + 2 * 2);
}

/// How much was asked of the engines: classes, texts, jobs begun, and steps of jobs at most.
#[derive(Debug, Default)]
struct Asked([AtomicUsize; 4]);

impl Asked {
    fn add(&self, what: usize, count: usize) {
        self.0[what].fetch_add(count, Ordering::Relaxed);
    }
}

impl Witness for Asked {
    fn asked(&self, request: &Request) {
        self.add(usize::from(matches!(request.want, Want::Text(_))), 1);
    }

    fn began(&self, _: u64, _: &Arc<Backbone>, _: &Arc<Adapter>, _: &JobSpec) {
        self.add(2, 1);
    }

    fn advanced(&self, jobs: &[u64], steps: usize) {
        self.add(3, jobs.len() * steps);
    }
}

#[test]
fn who_listens_hears_all_that_the_engine_is_asked() {
    let (mut prepared, directory) =
        prepared(&root().join("scenarios/customer_service"), &SMALL).unwrap();
    let asked = Arc::new(Asked::default());
    prepared.witness(Arc::clone(&asked) as Arc<dyn Witness>);
    play(prepared).unwrap();
    let log = std::fs::read_to_string(directory.path().join("events.jsonl")).unwrap();
    let (mut classes, mut texts, mut jobs) = (0, 0, 0);
    for event in events(&log) {
        match event.kind {
            EventKind::MessageDelivered { said: Said::Text { .. }, .. } => texts += 1,
            EventKind::MessageDelivered { .. } => classes += 1,
            EventKind::TrainingStarted { .. } => jobs += 1,
            _ => {}
        }
    }
    let times = std::fs::read_to_string(directory.path().join("times.jsonl")).unwrap();
    let ticks = times.lines().map(|line| serde_json::from_str::<TickWork>(line).unwrap().engine);
    let did = ticks.fold(Usage::default(), |all, tick| all.and(&tick));
    let [heard_classes, heard_texts, heard_jobs, heard_steps] =
        asked.0.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert!(texts > 0 && jobs > 3, "{texts} texts, {jobs} jobs");
    assert_eq!((heard_texts, heard_jobs), (texts, jobs));
    // The evaluator is measured on the holdout as well, which are no messages.
    assert_eq!(heard_classes as u64, did.classes);
    assert!(heard_classes > classes);
    assert!(heard_steps as u64 >= did.training_steps && did.training_steps > 0);
}
