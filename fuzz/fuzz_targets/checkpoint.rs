//! A checkpoint in a run directory. The first byte, a digit, chooses the file that the rest takes the place of:
//! `manifest.json`, `state.cbor`, and `job-N.cbor` and `job-N.safetensors` of a job over a golden model. The
//! digests are made to fit, so that the file itself is read. Whatever it is, a stage and a job that go on, or
//! a reason why not.

#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use agents::adapter::Adapter;
use agents::backbone::{Backbone, digest};
use agents::device::DeviceKind;
use agents::learning::job::{Job, JobSnapshot};
use agents::learning::objective::grpo::Reward;
use agents::name::AgentName;
use agents::probe;
use agents::sampler::Filter;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use sim::agent::{Mind, Role, model::ModelMind};
use sim::checkpoint::{self, FORMAT, Stored};
use sim::conductor::stage::{Member, Stage};
use sim::scenario::{AgentPlan, Scenario};
use sim::task::Task;

/// The files whose place is taken, by their digits.
const FILES: [&str; 4] = ["manifest.json", "state.cbor", "job.cbor", "job.safetensors"];
/// The tick of the seeds.
const TICK: u64 = 15;
/// Where their checkpoint lies.
const FOLDER: &str = "checkpoints/tick-000015";

/// A golden model and its adapter.
static GOLDEN: LazyLock<(Arc<Backbone>, Arc<Adapter>)> = LazyLock::new(|| {
    let model = root().join("../tests/golden/llama");
    let device = DeviceKind::Cpu.open().expect("the CPU");
    let backbone = probe::load(&model, &device).expect("a golden model");
    let adapter = Adapter::load(&model.join("lora"), &backbone).expect("a golden adapter");
    (Arc::new(backbone), Arc::new(adapter))
});

/// A run directory with one checkpoint; what is hostile is written anew for each input.
struct Place {
    directory: PathBuf,
    scenario: Arc<Scenario>,
    task: Arc<Task>,
}

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let directory = std::env::temp_dir().join(format!("polylogue-fuzz-{}", std::process::id()));
    fs::create_dir_all(directory.join(FOLDER)).expect("a temporary folder");
    fs::write(directory.join("events.jsonl"), "").expect("a file");
    let shipped = root().join("../scenarios/customer_service");
    let scenario = sim::scenario::load(&shipped, &[], None).expect("a shipped scenario");
    let task = Arc::new(Task::load(&scenario.task).expect("shipped data"));
    Place { directory, scenario: Arc::new(scenario), task }
});

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The sound file of a kind: the seed of its digit.
fn sound(file: usize) -> Vec<u8> {
    let seeds = root().join("corpus/checkpoint");
    let seed = fs::read(seeds.join(FILES[file])).expect("a seed");
    seed[1..].to_vec()
}

static SOUND: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| (0..FILES.len()).map(sound).collect());

impl Place {
    fn members(&self) -> BTreeMap<AgentName, Member> {
        let member = |(name, plan): (&AgentName, &AgentPlan)| {
            let (backbone, adapter) = GOLDEN.clone();
            let model = plan.model().expect("an agent with a model");
            let role = Role::of(&model.transfer);
            let mind = Mind::Model(ModelMind {
                role,
                backbone,
                adapter,
                temperature: 0.0,
                filter: Filter::default(),
                max_tokens: 4,
                device: 0,
            });
            (name.clone(), Member { plan: plan.clone(), mind })
        };
        self.scenario.agents.iter().map(member).collect()
    }

    /// Looks for the checkpoint as `resume` does.
    fn read(&self, manifest: &[u8], state: &[u8]) -> Option<Stored> {
        let folder = self.directory.join(FOLDER);
        fs::write(folder.join(FILES[0]), manifest).expect("a file");
        fs::write(folder.join(FILES[1]), state).expect("a file");
        checkpoint::find(&self.directory, None).found
    }

    /// Goes on from it, for two ticks that nobody answers.
    fn go_on(&self, mut stored: Stored) {
        let _ = stored.summary();
        let _ = stored.stage.edit(0, 0, "other words");
        let (scenario, task) = (Arc::clone(&self.scenario), Arc::clone(&self.task));
        let jobs = BTreeMap::new();
        let stage = Stage::restored(scenario, task, self.members(), stored.stage, jobs);
        let Ok(mut stage) = stage else { return };
        let _ = stage.moment();
        for stop in [false, true] {
            let _ = if stop { stage.stop() } else { stage.open_tick() };
            let _ = stage.take_events();
        }
    }
}

/// A manifest that fits a state.
fn manifest(state: &[u8]) -> Value {
    let entry = |bytes: &[u8]| json!({"bytes": bytes.len(), "sha256": digest::of_bytes(bytes)});
    json!({
        "format": FORMAT, "tick": TICK, "phase": "play", "opens_phase": false,
        "log": {"events": entry(b""), "times": 0},
        "files": {"state.cbor": entry(state)},
        "adapters": {},
    })
}

/// Goes on with a job for a step, where what it learns from is in the file.
fn job(state: &[u8], tensors: Vec<u8>) {
    let (backbone, adapter) = GOLDEN.clone();
    let device = backbone.network.device();
    let Ok(snapshot) = JobSnapshot::from_bytes(state, tensors, Path::new("job"), device) else {
        return;
    };
    let judge: Reward = Arc::new(|_, _| 0.0);
    let samples = snapshot.needs_judge();
    let Ok(mut job) = Job::resume(backbone, adapter, snapshot, Some(judge)) else { return };
    if !samples {
        let _ = job.step();
    }
    let _ = job.snapshot().map(|snapshot| snapshot.to_bytes());
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, file)) = data.split_first() else { return };
    match usize::from(choice.wrapping_sub(b'0')) % FILES.len() {
        0 => {
            let _ = PLACE.read(file, &SOUND[1]);
        }
        1 => {
            let manifest = manifest(file).to_string();
            if let Some(stored) = PLACE.read(manifest.as_bytes(), file) {
                PLACE.go_on(stored);
            }
        }
        2 => job(file, SOUND[3].clone()),
        _ => job(&SOUND[2], file.to_vec()),
    }
});
