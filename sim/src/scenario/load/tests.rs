//! Whole scenarios: what is read, what overrides change, and that defaults are what the documents say.

use agents::adapter::Method;
use agents::learning::job::Settings;
use agents::learning::optimizer::{Lion, LoraPlus, Method as Optimizer, OptimizerSpec};
use agents::learning::schedule::{Shape, WarmUp};
use agents::sampler::Filter;

use super::*;
use crate::scenario::{
    BackboneSource, Labels, ProtocolPlan, SupportPlan, TaskPlan, TopologyPlan, TrainPlan,
    TransferPlan, TriggerPlan, WhenPlan,
};

const MINIMAL: &str = include_str!("minimal.toml");

/// A folder with a scenario and its data.
fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = "{\"text\":\"a\",\"intent\":\"b\"}\n";
    for name in ["train.jsonl", "holdout.jsonl"] {
        std::fs::write(folder.path().join(name), data).unwrap();
    }
    std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
    folder
}

fn kinds(problems: &Problems) -> Vec<String> {
    let all = problems.all().iter().map(|problem| format!("{problem:?}"));
    all.map(|text| text.split([' ', '{']).next().unwrap().to_owned()).collect()
}

fn support(scenario: &Scenario) -> &SupportPlan {
    match &scenario.task {
        TaskPlan::Support(plan) => plan,
        TaskPlan::Talk(_) => panic!("it is talk"),
    }
}

fn set(overrides: &[&str]) -> Vec<String> {
    overrides.iter().map(|&one| one.to_owned()).collect()
}

#[test]
fn defaults_are_filled_in() {
    let folder = folder(MINIMAL);
    let scenario = load(folder.path(), &[], None).unwrap();
    assert_eq!(scenario.resolved, scenario.source);
    assert_eq!(scenario.source, MINIMAL);
    assert_eq!((scenario.concurrent_episodes, scenario.training_steps_per_tick), (16, 2));
    let task = support(&scenario);
    assert_eq!((scenario.supervision.attempts, task.holdout_limit), (3, 400));
    assert_eq!(scenario.backbones["base"].source, BackboneSource::Builtin);
    assert_eq!(task.train, folder.path().join("train.jsonl"));
    assert_eq!(task.columns.must, "must");
    let ProtocolPlan::Pipeline { order } = &scenario.protocol else { panic!() };
    let order: Vec<&str> = order.iter().map(|name| name.as_str()).collect();
    assert_eq!(order, ["understand", "reply", "evaluate"]);
    let reply = scenario.agents.values().nth(1).unwrap().model().unwrap();
    let TransferPlan::Text(Method::Lora(lora)) = &reply.transfer else { panic!("{reply:?}") };
    assert!((lora.alpha - 16.0).abs() < 1e-12 && (reply.temperature - 0.7).abs() < 1e-12);
    assert!(reply.filter.is_open());
    assert_eq!((reply.warm_up.examples_per_intent, reply.warm_up.steps), (4, 60));
}

#[test]
fn an_agent_may_draw_from_a_part_of_the_vocabulary() {
    let folder = folder(MINIMAL);
    let typed = set(&["agents.reply.top_k=40", "agents.reply.top_p=0.9", "agents.reply.min_p=0"]);
    let scenario = load(folder.path(), &typed, None).unwrap();
    let reply = scenario.agents.values().nth(1).unwrap().model().unwrap();
    let filter = Filter { top_k: Some(40), top_p: Some(0.9), min_p: Some(0.0) };
    assert_eq!(reply.filter, filter);
}

#[test]
fn a_model_of_the_hub_is_named_with_its_revision() {
    let text = |hub: &str| MINIMAL.replace("builtin = \"polylogue-tiny\"", hub);
    let folder = folder(&text("hub = \"HuggingFaceTB/SmolLM2-135M@v1.0\""));
    let scenario = load(folder.path(), &[], None).unwrap();
    let BackboneSource::Hub(model) = &scenario.backbones["base"].source else { panic!() };
    let named = (model.repository(), model.revision());
    assert_eq!(named, ("HuggingFaceTB/SmolLM2-135M".to_owned(), "v1.0"));
    for wrong in ["SmolLM2-135M", "../..", "a/b@../c", "https://huggingface.co/a/b", ""] {
        std::fs::write(folder.path().join(FILE_NAME), text(&format!("hub = \"{wrong}\""))).unwrap();
        let problems = load(folder.path(), &[], None).unwrap_err();
        assert_eq!(kinds(&problems), ["InvalidHubModel"], "{wrong}");
    }
    std::fs::write(folder.path().join(FILE_NAME), text("path = \".\"\nhub = \"a/b\"")).unwrap();
    let problems = load(folder.path(), &[], None).unwrap_err();
    assert_eq!(kinds(&problems), ["TwoBackboneSources"]);
}

#[test]
fn a_backbone_is_a_folder_or_a_gguf_file() {
    let folder = folder(&MINIMAL.replace("builtin = \"polylogue-tiny\"", "path = \"model.gguf\""));
    let file = folder.path().join("model.gguf");
    let missing = load(folder.path(), &[], None).unwrap_err();
    assert_eq!(kinds(&missing), ["MissingBackbone"]);
    std::fs::write(&file, "what is in it is looked at when it is loaded").unwrap();
    let scenario = load(folder.path(), &[], None).unwrap();
    assert_eq!(scenario.backbones["base"].source, BackboneSource::Path(file));
    // Another file is no model.
    let other = set(&["backbone.base.path=train.jsonl"]);
    assert_eq!(kinds(&load(folder.path(), &other, None).unwrap_err()), ["MissingBackbone"]);
}

#[test]
fn a_file_is_named_after_itself_and_a_folder_after_itself() {
    let folder = folder(MINIMAL);
    let other = folder.path().join("other.toml");
    std::fs::write(&other, MINIMAL).unwrap();
    assert_eq!(load(&other, &[], None).unwrap().name, "other");
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    assert_eq!(load(folder.path(), &[], None).unwrap().name, name);
    assert_eq!(load(&folder.path().join(FILE_NAME), &[], None).unwrap().name, name);
}

#[test]
fn overrides_and_the_seed_win() {
    let folder = folder(MINIMAL);
    let elsewhere = folder.path().join("../elsewhere.csv");
    let other = tempfile::tempdir().unwrap();
    let csv = other.path().join("my.csv");
    std::fs::write(&csv, "text,intent\na,b\n").unwrap();
    let train = format!("task.support.train={}", csv.display());
    let overrides =
        set(&[&train, "seed=3", "triggers.0.train.grpo.steps=4", "agents.reply.temperature=0"]);
    let scenario = load(folder.path(), &overrides, Some(u64::MAX)).unwrap();
    assert_eq!(scenario.seed, u64::MAX);
    assert_eq!(support(&scenario).train, csv);
    assert!(scenario.resolved.contains("seed = 3"), "{}", scenario.resolved);
    let [TriggerPlan { train: TrainPlan::Grpo { steps: 4, .. }, when, .. }] =
        &scenario.triggers[..]
    else {
        panic!("{:?}", scenario.triggers)
    };
    assert!(matches!(when, WhenPlan::Threshold { mean_of: 32, cooldown: 32, .. }));
    assert_eq!(load(folder.path(), &set(&["seed=3"]), Some(5)).unwrap().seed, 5);
    assert!(load(folder.path(), &set(&["triggers=[]"]), None).unwrap().triggers.is_empty());
    // In the file, the same path is refused.
    let text = MINIMAL.replace("train.jsonl", &elsewhere.display().to_string());
    std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
    let refused = load(folder.path(), &[], None).unwrap_err();
    assert_eq!(kinds(&refused), ["PathLeavesFolder"]);
}

#[test]
fn settings_of_trainings_reach_the_plan() {
    let folder = folder(MINIMAL);
    let plan = |overrides: &[&str]| load(folder.path(), &set(overrides), None).unwrap();
    let settings = |scenario: &Scenario| {
        let trigger = match scenario.triggers[0].train {
            TrainPlan::Supervised { settings, .. } | TrainPlan::Grpo { settings, .. } => settings,
        };
        (scenario.agents.values().nth(1).unwrap().model().unwrap().warm_up.settings, trigger)
    };
    let usual = Settings::default();
    assert_eq!(settings(&plan(&[])), (usual, usual));
    let typed = "{ optimizer = \"lion\", weight_decay = 0.2, clip = 0.5, lora_plus = 16, \
                 schedule = \"inverse_square_root\", rise = 0.25, label_smoothing = 0.1, \
                 hidden_dropout = 0.2, logit_adjustment = 1, \
                 micro_batch_tokens = 64, recompute = true, guard = { norm = 20, kl = 0.5 } }";
    let wanted = Settings {
        optimizer: OptimizerSpec {
            method: Optimizer::Lion(Lion { beta1: 0.9, beta2: 0.99 }),
            weight_decay: 0.2,
            clip: Some(0.5),
            lora_plus: Some(LoraPlus { ratio: 16.0 }),
        },
        shape: Shape::InverseSquareRoot,
        warm_up: WarmUp::Share(0.25),
        label_smoothing: 0.1,
        hidden_dropout: 0.2,
        logit_adjustment: 1.0,
        micro_batch_tokens: 64,
        recompute: true,
        guard: agents::learning::guard::Guard { norm: Some(20.0), kl: Some(0.5) },
    };
    let warm_up = format!("agents.reply.warm_up.settings={typed}");
    assert_eq!(settings(&plan(&[&warm_up])), (wanted, usual));
    let grpo = format!("triggers.0.train.grpo.settings={typed}");
    assert_eq!(settings(&plan(&[&grpo])), (usual, wanted));
    let numbers = "steps = 1, batch = 1, learning_rate = 1e-3, buffer = 8";
    let supervised =
        format!("triggers.0.train={{ supervised = {{ {numbers}, settings = {typed} }} }}");
    assert_eq!(settings(&plan(&[&supervised])), (usual, wanted));
    // Two words that nobody knows are two mistakes.
    let wrong =
        set(&["agents.reply.warm_up.settings={ optimizer = \"adam\", schedule = \"flat\" }"]);
    let problems = load(folder.path(), &wrong, None).unwrap_err();
    assert_eq!(kinds(&problems), ["UnknownChoice", "UnknownChoice"]);
}

#[test]
fn an_adapter_trained_before_is_a_folder_and_has_a_part() {
    let feature = "transfer.feature = { labels = \"intent\" }";
    let text = |adapter: &str| MINIMAL.replace(feature, &format!("transfer.adapter = {adapter}"));
    let folder = folder(&text("{ path = \"trained\", labels = \"intent\" }"));
    let found = |overrides: &[&str]| load(folder.path(), &set(overrides), None);
    let kinds_of = |overrides: &[&str]| kinds(&found(overrides).unwrap_err());
    assert_eq!(kinds_of(&[]), ["MissingAdapter"]);
    // A file is no adapter.
    let path = "agents.understand.transfer.adapter.path=train.jsonl";
    assert_eq!(kinds_of(&[path]), ["MissingAdapter"]);
    let trained = folder.path().join("trained");
    std::fs::create_dir(&trained).unwrap();
    let understand = |scenario: Scenario| {
        let agent = scenario.agents.into_values().nth(2).unwrap();
        agent.model().unwrap().clone()
    };
    let agent = understand(found(&["agents.understand.warm_up.steps=0"]).unwrap());
    let labels = Some(Labels::Intent);
    assert_eq!(agent.transfer, TransferPlan::Adapter { folder: trained.clone(), labels });
    assert_eq!((agent.transfer.name(), agent.warm_up.steps), ("adapter", 0));
    // From the command line a path leads anywhere, however it is said.
    let other = tempfile::tempdir().unwrap();
    let shown = other.path().display();
    for change in [
        format!("agents.understand.transfer.adapter.path={shown}"),
        format!(
            "agents.understand.transfer={{ adapter = {{ path = '{shown}', labels = 'intent' }} }}"
        ),
    ] {
        let agent = understand(found(&[&change]).unwrap());
        assert_eq!(agent.transfer, TransferPlan::Adapter { folder: other.path().into(), labels });
    }
    std::fs::write(folder.path().join(FILE_NAME), text("{ path = \"../trained\" }")).unwrap();
    assert_eq!(kinds_of(&[]), ["PathLeavesFolder", "WrongParts"]);
    // Without labels it writes, which is not what the order wants first.
    std::fs::write(folder.path().join(FILE_NAME), text("{ path = \"trained\" }")).unwrap();
    assert_eq!(kinds_of(&[]), ["WrongParts"]);
    let labels = text("{ path = \"trained\", labels = \"intents\" }");
    std::fs::write(folder.path().join(FILE_NAME), labels).unwrap();
    assert_eq!(kinds_of(&[]), ["UnknownLabels"]);
    // Nothing but writers learn by GRPO.
    let classifier = "agents.reply.transfer={ adapter = { path = '.', labels = 'intent' } }";
    let feature = "agents.understand.transfer={ feature = { labels = 'intent' } }";
    assert_eq!(kinds_of(&[feature, classifier]), ["WrongParts", "GrpoWithoutTexts"]);
}

#[test]
fn mistakes_of_form_hide_no_mistakes_of_meaning() {
    let text = MINIMAL
        .replace("seed = 7", "seed = \"7\"\nepisode = 3")
        .replace("rank = 8, ", "")
        .replace("signal = \"reward\"", "signal = \"rewards\"")
        .replace("backbone = \"base\"\ntransfer.head", "backbone = \"bass\"\ntransfer.head");
    let refused = load(folder(&text).path(), &[], None).unwrap_err();
    assert_eq!(
        kinds(&refused),
        ["WrongType", "UnknownKey", "MissingKey", "UnknownBackbone", "UnknownSignal"]
    );
}

#[test]
fn every_bound_is_checked() {
    let folder = folder(MINIMAL);
    let changes = [
        ("episodes=0", "CountOutOfRange"),
        ("episodes=-4", "CountOutOfRange"),
        ("seed=-1", "CountOutOfRange"),
        ("concurrent_episodes=0", "CountOutOfRange"),
        ("training_steps_per_tick=1001", "CountOutOfRange"),
        ("channel.text.max_tokens=0", "CountOutOfRange"),
        ("task.support.holdout_limit=0", "CountOutOfRange"),
        ("triggers.0.train.grpo.group=1", "CountOutOfRange"),
        ("triggers.0.train.grpo.steps=0", "CountOutOfRange"),
        ("triggers.0.train.grpo.buffer=-1", "CountOutOfRange"),
        ("triggers.0.when.threshold.mean_of=0", "CountOutOfRange"),
        ("triggers.0.when.periodic.every=0", "SeveralVariants"),
        ("triggers.0.when={periodic={every=0}}", "CountOutOfRange"),
        ("triggers.0.when.threshold.below=nan", "NotFinite"),
        ("triggers.0.when.threshold.below=-inf", "NotFinite"),
        ("triggers.0.train.grpo.learning_rate=0", "LearningRateOutOfRange"),
        ("triggers.0.train.grpo.learning_rate=1.5", "LearningRateOutOfRange"),
        ("triggers.0.train.grpo.learning_rate=nan", "LearningRateOutOfRange"),
        ("agents.reply.warm_up.batch=0", "CountOutOfRange"),
        ("agents.reply.warm_up.steps=-1", "CountOutOfRange"),
        ("agents.reply.warm_up.settings.weight_decay=-0.1", "CountOutOfRange"),
        ("agents.reply.warm_up.settings.weight_decay=10.1", "CountOutOfRange"),
        ("agents.reply.warm_up.settings.clip=0", "CountOutOfRange"),
        ("agents.reply.warm_up.settings.clip=inf", "CountOutOfRange"),
        ("agents.reply.warm_up.settings.lora_plus=0.9", "CountOutOfRange"),
        ("agents.reply.warm_up.settings.rise=1.1", "CountOutOfRange"),
        ("agents.reply.warm_up.settings.rise=nan", "CountOutOfRange"),
        ("agents.reply.warm_up.settings.label_smoothing=1", "CountOutOfRange"),
        ("agents.reply.warm_up.settings.hidden_dropout=1", "CountOutOfRange"),
        ("agents.reply.warm_up.settings.logit_adjustment=2.5", "CountOutOfRange"),
        ("agents.reply.warm_up.settings.micro_batch_tokens=0", "CountOutOfRange"),
        ("agents.reply.warm_up.settings.recompute=1", "WrongType"),
        ("agents.reply.warm_up.settings.optimiser=lion", "UnknownKey"),
        ("triggers.0.train.grpo.settings.lora_plus=1001", "CountOutOfRange"),
        ("agents.reply.temperature=2.1", "TemperatureOutOfRange"),
        ("agents.reply.temperature=-0.1", "TemperatureOutOfRange"),
        ("backbone.base.dtype=fp8", "UnknownChoice"),
        ("backbone.base.dtype=16", "WrongType"),
        ("agents.reply.top_k=0", "CountOutOfRange"),
        ("agents.reply.top_p=1.5", "CountOutOfRange"),
        ("agents.reply.min_p=-0.1", "CountOutOfRange"),
        ("agents.reply.min_p=nan", "CountOutOfRange"),
        ("agents.reply.top_p=most", "WrongType"),
        ("agents.reply.transfer.lora.rank=257", "RankOutOfRange"),
        ("agents.reply.transfer.lora.rank=-1", "RankOutOfRange"),
        ("agents.reply.transfer.lora.alpha=0", "AlphaOutOfRange"),
        ("agents.evaluate.transfer.head.freeze_layers=-1", "FrozenLayersOutOfRange"),
        ("agents.reply=3", "WrongType"),
        ("agents=3", "WrongType"),
        ("triggers=3", "WrongType"),
        ("protocol={}", "NoVariant"),
        ("protocol.pipeline.order=[1]", "WrongType"),
    ];
    for (change, kind) in changes {
        let found = load(folder.path(), &set(&[change]), None).map_err(|refused| kinds(&refused));
        let first = found.as_ref().err().and_then(|all| all.first());
        assert_eq!(first.map(String::as_str), Some(kind), "--set {change}: {found:?}");
    }
}

#[test]
fn a_number_too_large_for_the_machine_is_out_of_range() {
    let text = MINIMAL.replace("episodes = 400", "episodes = 99999999999999999999");
    let refused = load(folder(&text).path(), &[], None).unwrap_err();
    assert_eq!(kinds(&refused), ["CountOutOfRange"]);
}

#[test]
fn a_flood_of_mistakes_is_cut_short() {
    let unknown: String = (0..6_000).map(|index| format!("x{index}=1\n")).collect();
    let order: String = (0..2_000).map(|index| format!("\"a{index}\",")).collect();
    let text = MINIMAL.replace("seed = 7", &format!("seed = 7\n{unknown}"));
    let text = text.replace("order = [", &format!("order = [{order}"));
    let refused = load(folder(&text).path(), &[], None).unwrap_err();
    assert_eq!(refused.all().len(), 50);
    assert!(refused.to_string().contains("8000 mistakes"), "{refused}");
}

#[test]
fn control_characters_never_reach_the_terminal() {
    let text = MINIMAL.replace("seed = 7", "seed = 7 # \u{1b}[2J\nx = \"\u{202e}\"");
    let refused = load(folder(&text).path(), &[], None).unwrap_err();
    let report = format!("{:?}", miette::Report::new(refused));
    assert!(!report.contains('\u{1b}') && !report.contains('\u{202e}'), "{report}");
}

#[test]
fn the_first_scenario_that_a_researcher_opens_is_valid() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/customer_service"));
    let data = folder(MINIMAL);
    let train = format!("task.support.train={}", data.path().join("train.jsonl").display());
    let holdout = format!("task.support.holdout={}", data.path().join("holdout.jsonl").display());
    let scenario = load(path, &set(&[&train, &holdout]), None).unwrap();
    assert_eq!((scenario.name.as_str(), scenario.agents.len()), ("customer_service", 3));
    assert_eq!((scenario.triggers.len(), scenario.faults.len()), (4, 0));
}

#[cfg(unix)]
#[test]
fn links_do_not_lead_out_of_the_folder_unless_the_command_line_says_so() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("train.jsonl");
    std::fs::write(&secret, "{\"text\":\"a\",\"intent\":\"b\"}\n").unwrap();
    let folder = folder(MINIMAL);
    let data = folder.path().join("train.jsonl");
    std::fs::rename(&data, folder.path().join("other.jsonl")).unwrap();
    // A link within the folder is an ordinary file.
    symlink("other.jsonl", &data).unwrap();
    load(folder.path(), &[], None).unwrap();
    std::fs::remove_file(&data).unwrap();
    symlink(&secret, &data).unwrap();
    assert_eq!(kinds(&load(folder.path(), &[], None).unwrap_err()), ["PathLeavesFolder"]);
    let change = format!("task.support.train={}", secret.display());
    load(folder.path(), &set(&[&change]), None).unwrap();
    // A folder whose files lead out does too.
    std::fs::remove_file(&data).unwrap();
    symlink("other.jsonl", &data).unwrap();
    let model = MINIMAL.replace("builtin = \"polylogue-tiny\"", "path = \"model\"");
    std::fs::write(folder.path().join(FILE_NAME), model).unwrap();
    std::fs::create_dir(folder.path().join("model")).unwrap();
    load(folder.path(), &[], None).unwrap();
    symlink(&secret, folder.path().join("model/config.json")).unwrap();
    assert_eq!(kinds(&load(folder.path(), &[], None).unwrap_err()), ["PathLeavesFolder"]);
}

#[test]
fn the_scenario_of_a_run_is_found_again() {
    let folder = folder(MINIMAL);
    let (seed, data) = (Some(5), folder.path().join("elsewhere.jsonl"));
    std::fs::copy(folder.path().join("train.jsonl"), &data).unwrap();
    let change = format!("task.support.train={}", data.display());
    let scenario = load(folder.path(), &set(&[&change, "episodes=3"]), seed).unwrap();
    let run = tempfile::tempdir().unwrap();
    std::fs::write(run.path().join("scenario.toml"), &scenario.source).unwrap();
    std::fs::write(run.path().join("scenario.resolved.toml"), &scenario.resolved).unwrap();
    let manifest = serde_json::json!({
        "polylogue": "0", "scenario": scenario.name, "seed": 5, "device": "Cpu", "platform": "x",
        "origin": scenario.origin,
    });
    std::fs::write(run.path().join("manifest.json"), manifest.to_string()).unwrap();
    let manifest = Manifest::of(run.path()).unwrap();
    let again = recorded(run.path(), &manifest, None).unwrap().unwrap();
    assert_eq!(again, scenario);
    let mut old = manifest;
    old.origin = None;
    assert!(recorded(run.path(), &old, None).is_none());
}

/// Two scripted agents that talk.
const TALK: &str = r#"
seed = 1
episodes = 2
[agents.a]
script.echo = {}
[agents.b]
copies = 2
script.voter = { among = ["red", "blue"] }
[task.talk]
openings = ["hello"]
[protocol.round_robin]
rounds = 2
[topology.edges]
pairs = [["a", "b-1"], ["b-1", "b-2"]]
[channel.text]
max_tokens = 4
impair.loss = 0.5
[flood]
messages_per_tick = 3
"#;

#[test]
fn copies_are_agents_of_their_own_and_can_be_named() {
    let folder = folder(TALK);
    let scenario = load(folder.path(), &[], None).unwrap();
    let names: Vec<&str> = scenario.agents.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["a", "b-1", "b-2"]);
    let ProtocolPlan::RoundRobin { order, rounds: 2 } = &scenario.protocol else { panic!() };
    assert_eq!(order.iter().map(|name| name.as_str()).collect::<Vec<_>>(), names);
    let TopologyPlan::Edges { edges } = &scenario.topology else { panic!() };
    assert_eq!(edges.len(), 4, "both ways");
    assert_eq!((scenario.channel.credits, scenario.channel.impair.delay_ticks), (64, 0));
    assert_eq!(scenario.flood.messages_per_tick, Some(3));
    let kinds_of = |change: &str| kinds(&load(folder.path(), &set(&[change]), None).unwrap_err());
    assert_eq!(kinds_of("topology={ star = { hub = 'b' } }"), ["UnknownAgent"]);
    assert_eq!(kinds_of("topology={ star = { hub = 'b-3' } }"), ["UnknownAgent"]);
}
