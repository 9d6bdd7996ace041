//! Runs in which things fail: what was mended leaves no trace but the events that tell of it, and what cannot
//! be mended ends as the scenario says.

use std::path::{Path, PathBuf};

use agents::seed::Seed;
use polylogue_tests::{Ran, SMALL, events, play, prepared, root, run, run_of};
use rand::Rng;
use rand::seq::IndexedRandom;
use sim::event::EventKind;
use sim::scenario::{FaultKind, Scenario};

/// Twenty faults of all kinds that can be mended; one strikes the turns of a tick.
const TWENTY: &str = r#"faults=[
    { kind = "panic", agent = "reply", at_tick = 3, times = 3 },
    { kind = "hang", agent = "understand", at_tick = 3, times = 3 },
    { kind = "slow_reply", agent = "evaluate", seconds = 2, at_tick = 3, times = 2 },
    { kind = "malformed_reply", agent = "reply", at_tick = 8, times = 2 },
    { kind = "malformed_reply", agent = "understand", at_tick = 8 },
    { kind = "out_of_memory", agent = "evaluate", at_tick = 8, times = 2 },
    { kind = "lost_engine", at_tick = 10, times = 3 },
    { kind = "lost_trainer", at_tick = 0, times = 2 },
    { kind = "disk_full", at_tick = 4, times = 2 },
]"#;

/// Enough restarts for all of them.
const PATIENT: &str = "supervision.restarts=100";

fn count(ran: &Ran, is: impl Fn(&EventKind) -> bool) -> usize {
    events(&ran.log).iter().filter(|event| is(&event.kind)).count()
}

/// What is left of a log without the events of supervision: when and what.
fn transcript(ran: &Ran) -> Vec<(u64, EventKind)> {
    let all = events(&ran.log).into_iter().map(|event| (event.tick, event.kind));
    all.filter(|(_, kind)| !kind.is_supervision()).collect()
}

fn assert_same(calm: &Ran, hurt: &Ran) {
    let (calm, hurt) = (transcript(calm), transcript(hurt));
    for (index, (calm, hurt)) in calm.iter().zip(&hurt).enumerate() {
        assert_eq!(calm, hurt, "event {index} of the transcript");
    }
    assert_eq!(calm.len(), hurt.len());
}

#[test]
fn twenty_faults_leave_the_transcript_as_it_was_under_every_strategy() {
    let calm = run(&[]);
    let published = |k: &EventKind| matches!(k, EventKind::GenerationPublished { .. });
    assert!(count(&calm, published) > 5, "weights are compared by their digests");
    for strategy in ["one_for_one", "one_for_all", "rest_for_one"] {
        let chosen = format!("supervision.strategy={strategy}");
        let hurt = run(&[TWENTY, PATIENT, &chosen]);
        let struck = |k: &EventKind| matches!(k, EventKind::FaultInjected { .. });
        assert_eq!(count(&hurt, struck), 20, "{strategy}");
        assert_same(&calm, &hurt);
        let restarts = count(&hurt, |k| matches!(k, EventKind::AgentRestarted { .. }));
        let expected = match strategy {
            // 3 panics and 3 hangs.
            "one_for_one" => 6,
            // 3 panics of the second of three agents and 3 hangs of the first; 2 losses of the trainer and 3
            // of the engine, after which all agents are started.
            "rest_for_one" => 3 * 2 + 3 * 3 + 5 * 3,
            _ => 11 * 3,
        };
        assert_eq!(restarts, expected, "{strategy}");
        assert_eq!(count(&hurt, |k| matches!(k, EventKind::EngineFailed { .. })), 3);
        assert_eq!(count(&hurt, |k| matches!(k, EventKind::TrainerFailed { .. })), 2);
        assert_eq!(count(&hurt, |k| matches!(k, EventKind::RecordingResumed { .. })), 2);
        assert_eq!(count(&hurt, |k| matches!(k, EventKind::ReplyRejected { .. })), 5);
        let seqs: Vec<u64> = events(&hurt.log).iter().map(|event| event.seq).collect();
        assert!(seqs.iter().copied().eq(0..seqs.len() as u64), "no event is lost or doubled");
    }
}

#[test]
fn faults_by_chance_come_from_the_seed() {
    let faults = r#"faults=[
        { kind = "panic", agent = "reply", probability = 0.3 },
        { kind = "lost_engine", probability = 0.2 },
        { kind = "disk_full", probability = 0.2, times = 2 },
    ]"#;
    let small = ["episodes=16", "task.support.holdout_limit=4", "triggers=[]", PATIENT];
    let with = |more: &[&str]| run(&[&small[..], more].concat());
    let (first, second) = (with(&[faults]), with(&[faults]));
    for (first, second) in first.log.lines().zip(second.log.lines()) {
        assert_eq!(first, second);
    }
    assert_eq!(first.log.len(), second.log.len());
    let struck = count(&first, |k| matches!(k, EventKind::FaultInjected { .. }));
    assert!((3..20).contains(&struck), "{struck} of some 16 ticks");
    assert_same(&with(&[]), &first);
    assert_ne!(transcript(&first), transcript(&with(&[faults, "seed=8"])));
}

#[test]
fn the_society_goes_on_without_an_agent_that_it_can_do_without() {
    let small = ["episodes=16", "task.support.holdout_limit=4"];
    let fault = r#"faults=[{ kind = "panic", agent = "evaluate", at_tick = 8, times = 3 }]"#;
    let spare = "agents.evaluate.supervision={ restarts = 1, essential = false }";
    let ran = run(&[small[0], small[1], fault, spare]);
    assert_eq!(count(&ran, |k| matches!(k, EventKind::AgentRestarted { .. })), 1);
    assert_eq!(count(&ran, |k| matches!(k, EventKind::AgentQuarantined { .. })), 1);
    assert_eq!(ran.finished.summary.episodes, 16);
    let told = events(&ran.log);
    let after = told.iter().skip_while(|e| !matches!(e.kind, EventKind::AgentQuarantined { .. }));
    let (mut skipped, mut spoke) = (0, 0);
    for event in after {
        match &event.kind {
            EventKind::TurnSkipped { agent, reason, .. } => {
                assert_eq!((agent.as_str(), reason.as_str()), ("evaluate", "it is in quarantine"));
                skipped += 1;
            }
            EventKind::MessageDelivered { from, .. } if from.as_str() == "evaluate" => spoke += 1,
            _ => {}
        }
    }
    assert!(skipped > 3 && spoke == 0, "{skipped} skipped, {spoke} spoken");
    let own = ran.finished.summary.agents.iter().find(|(name, _)| name.as_str() == "evaluate");
    assert!(own.is_some_and(|(_, own)| own.quarantined && own.skipped == skipped));
}

#[test]
fn too_many_failures_end_the_run_or_start_everything_anew() {
    let small = ["episodes=16", "task.support.holdout_limit=4", "triggers=[]"];
    let fault = r#"faults=[{ kind = "panic", agent = "reply", at_tick = 8, times = 2 }]"#;
    let once = "agents.reply.supervision.restarts=1";
    let settings: Vec<&str> = SMALL.into_iter().chain(small).chain([fault, once]).collect();
    let path = root().join("scenarios/customer_service");
    let (ready, _directory) = prepared(&path, &settings).unwrap();
    let error = play(ready).unwrap_err().to_string();
    assert!(error.contains("reply failed more than 1 times within 1000 ticks"), "{error}");

    let anew = [&small[..], &[fault, once, "supervision.escalation=restart_all"]].concat();
    let hurt = run(&anew);
    assert_eq!(count(&hurt, |k| matches!(k, EventKind::SocietyRestarted { restarts: 1, .. })), 1);
    assert_eq!(count(&hurt, |k| matches!(k, EventKind::TrainerRestarted { .. })), 1);
    assert_same(&run(&small), &hurt);
}

#[test]
fn an_answer_that_is_never_usable_becomes_a_skipped_turn() {
    let fault = r#"faults=[{ kind = "malformed_reply", agent = "reply", at_tick = 8 }]"#;
    let small = ["episodes=16", "task.support.holdout_limit=4", "triggers=[]"];
    let ran = run(&[&small[..], &[fault, "supervision.attempts=1"]].concat());
    let told = events(&ran.log);
    let skipped: Vec<&EventKind> = told
        .iter()
        .map(|e| &e.kind)
        .filter(|k| matches!(k, EventKind::TurnSkipped { .. }))
        .collect();
    let [EventKind::TurnSkipped { agent, turn: 1, reason, .. }] = skipped[..] else {
        panic!("{skipped:?}")
    };
    assert_eq!(agent.as_str(), "reply");
    assert!(reason.contains("malformed answer: token 4294967295 is none of"), "{reason}");
}

/// A chat template is foreign code and may fail on what only one customer says.
#[test]
fn a_prompt_that_cannot_be_made_skips_the_turn_and_crashes_nobody() {
    let model = tempfile::tempdir().unwrap();
    let tiny = root().join("agents/polylogue-tiny");
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(tiny.join(name), model.path().join(name)).unwrap();
    }
    let template = "{% for m in messages %}{% if 'zebra' in m.content %}\
        {{ raise_exception('no zebras') }}{% endif %}{{ m.content }}{% endfor %}";
    std::fs::write(model.path().join("chat_template.jinja"), template).unwrap();
    let holdout = model.path().join("holdout.jsonl");
    let query = r#"{"text": "my zebra lost the bag", "intent": "room_request", "slots": {}, "must": [["hotel"]], "reply": "We ask the hotel."}"#;
    std::fs::write(&holdout, query).unwrap();
    let settings = [
        format!("backbone.base={{ path = \"{}\" }}", model.path().display()),
        format!("task.support.holdout={}", holdout.display()),
        "triggers=[]".to_owned(),
        "episodes=4".to_owned(),
        "agents.reply.warm_up.steps=1".to_owned(),
    ];
    let settings: Vec<&str> = settings.each_ref().map(String::as_str).to_vec();
    let ran = run(&settings);
    let crashed = |k: &EventKind| matches!(k, EventKind::AgentFailed { .. });
    assert_eq!(count(&ran, crashed), 0, "{}", ran.log);
    let told = events(&ran.log);
    let reasons: Vec<&str> = told
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::TurnSkipped { agent, reason, .. } if agent.as_str() == "reply" => {
                Some(reason.as_str())
            }
            _ => None,
        })
        .collect();
    assert_eq!(reasons.len(), 2, "before and after play: {reasons:?}");
    assert!(
        reasons[0].contains("chat template") && reasons[0].contains("no zebras"),
        "{reasons:?}"
    );
    assert_eq!(ran.finished.summary.episodes, 4);
}

/// Kinds of faults that leave no trace, all of them.
const KINDS: [&str; 8] = [
    "panic",
    "hang",
    "slow_reply",
    "malformed_reply",
    "out_of_memory",
    "lost_engine",
    "lost_trainer",
    "disk_full",
];

/// Scenario files that can be run, as shipped.
fn shipped() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(root().join("scenarios")).unwrap();
    let files = folders.map(|folder| folder.unwrap().path().join("scenario.toml"));
    let mut files: Vec<PathBuf> = files.filter(|file| file.exists()).collect();
    files.sort();
    files
}

fn loaded(path: &Path) -> Scenario {
    sim::scenario::load(path, &[], None).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// Twenty faults drawn from a seed: every kind at least twice, whom and when by chance, within the first half
/// of the ticks, so that all of them can strike.
fn twenty(scenario: &Scenario, ticks: u64, trains: bool) -> String {
    let mut stream = Seed::new(20).child(&scenario.name).stream();
    let agents: Vec<&str> = scenario.agents.keys().map(|name| name.as_str()).collect();
    let models = scenario.agents.values().any(|agent| agent.model().is_some());
    let kinds = KINDS
        .iter()
        .filter(|kind| (trains || **kind != "lost_trainer") && (models || **kind != "lost_engine"));
    let kinds: Vec<&str> = kinds.copied().collect();
    let fault = |index: usize| {
        let kind = kinds[index % kinds.len()];
        let tick = if kind == "lost_trainer" { 0 } else { stream.random_range(0..=ticks / 2) };
        let agent = agents.choose(&mut stream).unwrap();
        match kind {
            "lost_engine" | "lost_trainer" | "disk_full" => {
                format!("{{ kind = \"{kind}\", at_tick = {tick} }}")
            }
            _ => format!("{{ kind = \"{kind}\", agent = \"{agent}\", at_tick = {tick} }}"),
        }
    };
    format!("faults=[{}]", (0..20).map(fault).collect::<Vec<_>>().join(", "))
}

/// With `POLYLOGUE_FULL=1` every shipped scenario as it is; otherwise those but the largest, shortened.
#[test]
fn every_shipped_scenario_is_the_same_with_twenty_faults() {
    let full = std::env::var_os("POLYLOGUE_FULL").is_some();
    for path in shipped() {
        let scenario = loaded(&path);
        if !full && scenario.name == "customer_service" {
            // Played with twenty faults above.
            continue;
        }
        let short: &[&str] = if full { &[] } else { &["episodes=24"] };
        let calm = run_of(&path, short);
        let trains = count(&calm, |k| matches!(k, EventKind::TrainingStarted { .. })) > 0;
        let faults = twenty(&scenario, calm.finished.summary.ticks, trains);
        let hurt = run_of(&path, &[short, &[&faults, PATIENT]].concat());
        let struck = count(&hurt, |k| matches!(k, EventKind::FaultInjected { .. }));
        assert_eq!(struck, 20, "{}: {faults}", scenario.name);
        assert_same(&calm, &hurt);
    }
}

/// `faults.toml` shows every kind; with `POLYLOGUE_FULL=1` it is also played.
#[test]
fn the_shipped_faults_are_of_every_kind_and_leave_no_trace() {
    let path = root().join("scenarios/customer_service/faults.toml");
    let scenario = loaded(&path);
    let shown: Vec<&str> = scenario.faults.iter().map(|fault| fault.kind.name()).collect();
    assert_eq!(shown, KINDS);
    assert!(scenario.faults.iter().any(|fault| fault.kind == FaultKind::SlowReply(500)));
    if std::env::var_os("POLYLOGUE_FULL").is_some() {
        let (calm, hurt) = (run_of(&path, &["faults=[]"]), run_of(&path, &[]));
        assert!(count(&hurt, |k| matches!(k, EventKind::FaultInjected { .. })) >= 10);
        assert_same(&calm, &hurt);
    }
}
