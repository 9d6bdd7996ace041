//! Agents that start from an adapter trained before: `polylogue tune` trains it, a society uses it as it is.
//! What does not suit the agent or its backbone ends with exit code 2.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agents::adapter::head::HeadSpec;
use agents::adapter::lora::LoraSpec;
use agents::adapter::{Adapter, AdapterSpec, Generation, Method};
use agents::backbone::{Backbone, builtin};
use agents::device::DeviceKind;
use agents::seed::Seed;
use polylogue_tests::{events, polylogue, prepared, root};
use serde_json::Value;
use sim::event::{Event, EventKind, Phase, Said};
use sim::run::RunError;
use tempfile::TempDir;

const SCENARIO: &str = "scenarios/customer_service";
const FEATURE: &str = "transfer.feature = { labels = \"intent\" }";

/// Nothing is learned before play, little is played, and only the classifier learns then.
const SHORT: [&str; 8] = [
    "episodes=8",
    "concurrent_episodes=8",
    "task.support.holdout_limit=24",
    "agents.understand.warm_up.steps=0",
    "agents.reply.warm_up.steps=0",
    "agents.evaluate.warm_up.steps=0",
    "channel.text.max_tokens=8",
    "triggers=[{ agent = \"understand\", when = { periodic = { every = 4 } }, \
     train = { supervised = { steps = 2, batch = 8, learning_rate = 1e-3, buffer = 8 } } }]",
];

fn tiny() -> Backbone {
    builtin::polylogue_tiny(&DeviceKind::Cpu.open().unwrap()).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The shipped scenario in a folder of its own, its classifier's transfer replaced; data of the shipped one.
fn scenario(transfer: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let shipped = root().join(SCENARIO);
    let text = std::fs::read_to_string(shipped.join("scenario.toml")).unwrap();
    assert_eq!(text.matches(FEATURE).count(), 1);
    std::fs::write(folder.path().join("scenario.toml"), text.replace(FEATURE, transfer)).unwrap();
    for name in ["travel.jsonl", "travel-holdout.jsonl"] {
        std::fs::copy(shipped.join(name), folder.path().join(name)).unwrap();
    }
    folder
}

/// Queries as a society shows them to a classifier, with their intents, as data for `polylogue tune`.
fn shown(from: &Path, to: &Path, most: usize) -> Vec<String> {
    let mut queries = Vec::new();
    let mut text = String::new();
    for line in lines(from).into_iter().take(most) {
        let query = line["text"].as_str().unwrap();
        let prompt = format!("customer: {query}\ntopic:");
        let row = serde_json::json!({ "text": prompt, "intent": line["intent"] });
        text.push_str(&row.to_string());
        text.push('\n');
        queries.push(query.to_owned());
    }
    std::fs::write(to, text).unwrap();
    queries
}

/// The command line's arguments for a run with changes.
fn run(folder: &Path, out: &Path, more: &[&str]) -> std::process::Output {
    let (folder, out) = (folder.to_string_lossy(), out.to_string_lossy());
    let mut arguments = vec!["run", &folder, "--display", "none", "--out", &out];
    arguments.extend(SHORT.iter().chain(more).flat_map(|&change| ["--set", change]));
    polylogue(&arguments)
}

fn done(output: &std::process::Output) {
    assert!(output.status.success(), "{output:?}");
}

/// The words of a message, wrapped or not.
fn refused(output: &std::process::Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).replace(['\n', '│'], " ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(2), "{text}");
    text
}

/// What the classifier said of each query before the society played.
fn said_before(events: &[Event]) -> BTreeMap<String, (String, Generation)> {
    let before =
        |event: &&Event| !matches!(event.kind, EventKind::PhaseStarted { phase: Phase::Play, .. });
    let (mut queries, mut said) = (BTreeMap::new(), BTreeMap::new());
    for event in events.iter().take_while(before) {
        match &event.kind {
            EventKind::EpisodeStarted { episode, query, .. } => {
                queries.insert(*episode, query.clone());
            }
            EventKind::MessageDelivered {
                episode,
                said: Said::Label { label, .. },
                generation,
                ..
            } => {
                said.insert(queries[episode].clone(), (label.clone(), *generation));
            }
            _ => {}
        }
    }
    said
}

#[test]
fn a_tuned_classifier_answers_in_a_society_as_it_did_in_its_test_and_goes_on_learning() {
    let folder = scenario("transfer.adapter = { path = \"trained\", labels = \"intent\" }");
    let at = |name: &str| folder.path().join(name);
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    shown(&at("travel.jsonl"), &at("train.jsonl"), 400);
    let queries = shown(&at("travel-holdout.jsonl"), &at("test.jsonl"), 384);
    let (train, test, out) = (text(at("train.jsonl")), text(at("test.jsonl")), text(at("trained")));
    let tune = ["tune", "--model", "polylogue-tiny", "--method", "frozen", "--epochs", "8"];
    let data = ["--train", &train, "--test", &test, "--label", "intent", "--out", &out];
    done(&polylogue(&[&tune[..], &data[..]].concat()));
    let predictions = std::fs::read_to_string(at("trained").join("predictions.csv")).unwrap();
    let predicted = predictions.lines().skip(1).map(|line| line.split(',').nth(1).unwrap());
    let predicted: BTreeMap<&str, &str> =
        queries.iter().map(String::as_str).zip(predicted).collect();

    done(&run(folder.path(), &at("run"), &[]));
    let log = std::fs::read_to_string(at("run").join("events.jsonl")).unwrap();
    let events = events(&log);
    let EventKind::RunStarted { agents, .. } = &events[0].kind else { panic!() };
    let card = agents.iter().find(|card| card.name.as_str() == "understand").unwrap();
    let spec = Adapter::load(&at("trained"), &tiny()).unwrap();
    assert_eq!((card.transfer.as_str(), card.trainable), ("adapter", spec.trainable()));

    let said = said_before(&events);
    assert_eq!(said.len(), 24);
    for (query, (label, generation)) in &said {
        assert_eq!(predicted[query.as_str()], label, "{query}");
        assert_eq!(*generation, spec.generation(), "no warm-up has changed it");
    }
    let mut labels: Vec<&String> = said.values().map(|(label, _)| label).collect();
    labels.sort();
    labels.dedup();
    assert!(labels.len() > 4, "{labels:?}");
    // A trigger trains it further.
    let published = events.iter().find_map(|event| match &event.kind {
        EventKind::GenerationPublished { agent, generation, .. }
            if agent.as_str() == "understand" =>
        {
            Some(*generation)
        }
        _ => None,
    });
    assert_eq!(published, Some(spec.generation().next()));
}

/// An adapter of `polylogue-tiny` that was not trained, on disk.
fn made(folder: &Path, method: Method, labels: Option<&[String]>) {
    let head = labels.map(|labels| HeadSpec::new(labels.to_vec()));
    let spec = AdapterSpec { method, head };
    Adapter::initial(spec, &tiny(), Seed::new(4)).unwrap().save(folder).unwrap();
}

fn intents() -> Vec<String> {
    let rows = lines(&root().join(SCENARIO).join("travel.jsonl"));
    let mut intents: Vec<String> =
        rows.iter().map(|row| row["intent"].as_str().unwrap().to_owned()).collect();
    intents.sort();
    intents.dedup();
    intents
}

#[test]
fn an_adapter_that_does_not_suit_its_agent_is_refused() {
    let folder = scenario("transfer.adapter = { path = \"trained\", labels = \"intent\" }");
    let trained = folder.path().join("trained");
    let start = || {
        let found = prepared(folder.path(), &["agents.understand.warm_up.steps=0"]);
        found.map(|_| ()).map_err(|error: RunError| {
            assert!(error.is_input());
            error.to_string()
        })
    };
    let fails = |part: &str| {
        let message = start().unwrap_err();
        assert!(message.contains("agent `understand`") && message.contains(part), "{message}");
    };
    let intents = intents();
    let labelled = |labels: &[String]| made(&trained, Method::Frozen, Some(labels));
    labelled(&intents);
    start().unwrap();
    // A head from PEFT has numbers for names; their order is the task's.
    let numbers: Vec<String> = (0..intents.len()).map(|number| number.to_string()).collect();
    labelled(&numbers);
    start().unwrap();
    labelled(&numbers[1..]);
    fails("trained for other labels");
    labelled(&numbers[..20]);
    fails("its head has 20 classes, wanted are 24");
    labelled(&intents[1..]);
    fails(&format!("trained for other labels: its head does not know `{}`", intents[0]));
    labelled(&[&intents[..], &["a\u{1b}[2J".to_owned()]].concat());
    fails("its head knows `a\\u{1b}[2J`, which the task does not");
    let mut other = intents.clone();
    other.swap(3, 4);
    labelled(&other);
    fails("in another order");
    let lora = || Method::Lora(LoraSpec::new(2, 4.0, &["q_proj"]));
    made(&trained, lora(), None);
    fails("its head has 0 classes");
    std::fs::remove_file(trained.join("adapter_config.json")).unwrap();
    fails("adapter_config.json");

    // As the command line says it; nothing is left behind.
    labelled(&["bad".to_owned(), "good".to_owned()]);
    let out = folder.path().join("run");
    let text = refused(&run(folder.path(), &out, &[]));
    let knows = format!("other labels: its head does not know `{}`", intents[0]);
    assert!(text.contains("agent `understand`") && text.contains(&knows), "{text}");
    labelled(&intents);
    let path = trained.to_string_lossy();
    let writer = format!("agents.reply.transfer={{ adapter = {{ path = '{path}' }} }}");
    let text = refused(&run(folder.path(), &out, &[&writer]));
    assert!(text.contains("has a head: say what it classifies with `labels`"), "{text}");
    assert!(!out.exists());
}

#[test]
fn a_writer_starts_from_an_adapter_too() {
    let folder = scenario(FEATURE);
    let trained = folder.path().join("writer");
    made(&trained, Method::Lora(LoraSpec::new(2, 4.0, &["q_proj", "v_proj"])), None);
    let writer =
        format!("agents.reply.transfer={{ adapter = {{ path = '{}' }} }}", trained.display());
    let more = [&writer, "episodes=2", "task.support.holdout_limit=2", "triggers=[]"];
    done(&run(folder.path(), &folder.path().join("run"), &more));
}

#[test]
fn targets_that_a_backbone_does_not_have_are_refused_with_those_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let change = "agents.reply.transfer={ lora = { rank = 2, targets = [\"query\"] } }";
    let scenario = root().join(SCENARIO);
    let text = refused(&run(&scenario, &folder.path().join("run"), &[change]));
    for part in ["agent `reply`", "query", "self_attn.q_proj", "mlp.down_proj"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}
