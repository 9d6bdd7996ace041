//! A run from its scenario to its summary: all wiring, nothing else.

mod aside;
pub mod footprint;
mod fork;
mod resume;
mod start;

pub use self::fork::{Edit, Exchange, ForkError, ForkOptions, fork};
pub use self::resume::{ResumeError, ResumeOptions, Resumed, resume};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agents::backbone::Backbone;
use agents::backbone::digest;
use agents::device::Device;
use agents::engine::Engine;
use agents::engine::memory;
use agents::engine::schedule::Limits;
use agents::error::ModelError;
use agents::name::AgentName;
use agents::seed::Seed;
use ractor::Actor;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::agent::model::ModelMind;
use crate::agent::{AgentArguments, Mind, Role};
use crate::backbone::{self, DeviceKind, Devices, Fetching, HubSettings, Opened};
use crate::checkpoint::Checkpoints;
use crate::clock::{self, Timer};
use crate::conductor::stage::{Member, Stage};
use crate::conductor::{ConductError, ConductorArguments};
use crate::control::Control;
use crate::feed::Feed;
use crate::preflight;
use crate::recorder::{Claim, FORMAT, Observer, RecordError, Recorder};
use crate::scenario::suggestion::{message, quote};
use crate::scenario::{BackbonePlan, MindPlan, Scenario, TaskPlan};
use crate::summary::Summary;
use crate::supervisor::{Recipe, SocietyArguments, Supervisor};
use crate::task::{Task, TaskError};

/// Where run directories are made that nobody named.
const RUNS: &str = "runs";

/// How a run is asked for, besides its scenario.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The run directory; made from time and scenario under `runs/` where absent.
    pub out: Option<PathBuf>,
    /// Which devices run the models.
    pub devices: Devices,
    /// Where models of the hub are kept and fetched from.
    pub hub: HubSettings,
    /// The command line, for the manifest.
    pub arguments: Vec<String>,
    /// Begin even where memory or disk are predicted not to suffice.
    pub unchecked: bool,
    /// The seed of weights that nobody has trained; the scenario's own where absent.
    pub initial_seed: Option<u64>,
    /// How long the run's waits are.
    pub timer: Timer,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What it came to.
    pub summary: Summary,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// Why a run did not finish.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data cannot be used.
    #[error("{}", message(.0))]
    Task(TaskError),
    /// A device cannot be used.
    #[error("{}", message(.0))]
    Device(ModelError),
    /// A model cannot be used.
    #[error("backbone {}: {}", quote(name), message(error))]
    Backbone {
        /// Its name in the scenario.
        name: String,
        /// Why.
        error: ModelError,
    },
    /// It would not fit into memory.
    #[error("the run does not fit into memory: {}", message(.0))]
    Memory(ModelError),
    /// An agent does not fit its backbone.
    #[error("agent `{agent}`: {}", message(reason))]
    Agent {
        /// Which.
        agent: AgentName,
        /// Why.
        reason: String,
    },
    /// The disk is too small for it.
    #[error("{0}")]
    TooLarge(String),
    /// The run directory cannot be written.
    #[error("{}", message(.0))]
    Record(RecordError),
    /// The society could not go on.
    #[error("{}", message(.0))]
    Conduct(ConductError),
    /// The actors ended without a word.
    #[error("the society ended without a result")]
    Silence,
}

impl RunError {
    /// Whether the cause is what the user gave us rather than what happened then.
    #[must_use]
    pub fn is_input(&self) -> bool {
        match self {
            Self::Task(_) | Self::Device(_) | Self::Agent { .. } => true,
            Self::Memory(_) | Self::TooLarge(_) => true,
            Self::Backbone { error, .. } => error.is_input(),
            Self::Record(error) => error.is_input(),
            Self::Conduct(_) | Self::Silence => false,
        }
    }
}

// By hand: a derived one would make the error a source, which reports print as it is.
impl From<RecordError> for RunError {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

/// A run that is ready to begin, or to go on: everything a user can get wrong was found.
#[derive(Debug)]
pub struct Prepared {
    stage: Stage,
    recorder: Recorder,
    checkpoints: Checkpoints,
    /// What the events before came to, where it goes on.
    before: Option<Summary>,
    /// The tick after which it is saved and left, unfinished.
    until: Option<u64>,
    notices: Vec<String>,
    timer: Timer,
}

/// All that a run is made from.
struct Parts {
    scenario: Arc<Scenario>,
    task: Arc<Task>,
    members: BTreeMap<AgentName, Member>,
    manifest: Value,
    notices: Vec<String>,
}

/// Loads data and models.
fn gather(
    scenario: Scenario,
    options: &RunOptions,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<Parts, RunError> {
    let &[kind] = options.devices.all() else {
        return Err(RunError::Device(ModelError::Setting {
            what: "the device",
            found: options.devices.to_string(),
            expected: "one device",
        }));
    };
    let device = kind.open().map_err(RunError::Device)?;
    let task = Task::load(&scenario.task).map_err(RunError::Task)?;
    if kind == DeviceKind::Cpu && !options.unchecked {
        let predicted = footprint::footprint(&scenario);
        predicted.check(memory::available()).map_err(RunError::Memory)?;
    }
    let (backbones, origins) = backbones(&scenario, &device, options, hear)?;
    let seed = initial_seed(&scenario, options).child("adapter");
    let Cast { members, origins: starts, notices } = cast(&scenario, &task, &backbones, seed)?;
    let manifest = manifest(&scenario, options, &origins, &starts)?;
    Ok(Parts { scenario: Arc::new(scenario), task: Arc::new(task), members, manifest, notices })
}

/// Loads data and models and creates the run directory; `hear` is told of what is fetched from the hub.
///
/// # Errors
/// When a file, a model or the run directory cannot be used.
pub fn prepare(
    scenario: Scenario,
    options: &RunOptions,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<Prepared, RunError> {
    let Parts { scenario, task, members, manifest, notices } = gather(scenario, options, hear)?;
    let made = || format!("{}_{}_{}", clock::stamp(), scenario.name, scenario.seed);
    let out = options.out.clone().unwrap_or_else(|| Path::new(RUNS).join(made()));
    if !options.unchecked {
        let need = preflight::disk(&scenario, &members, task.holdout());
        let refusal = preflight::refusal(need, preflight::free(&out));
        if let Some(refusal) = refusal.or_else(|| preflight::too_much_to_save(&scenario)) {
            return Err(RunError::TooLarge(refusal));
        }
    }
    let claim = match &options.out {
        Some(_) => Claim::of_new(&out)?,
        None => Claim::of_unnamed(&out)?,
    };
    claim.write("scenario.toml", &scenario.source)?;
    claim.write("scenario.resolved.toml", &scenario.resolved)?;
    // From here on the run can be taken up again.
    claim.write("manifest.json", &format!("{manifest:#}\n"))?;
    let checkpoints = Checkpoints::new(scenario.checkpoints, claim.directory());
    let recorder = Recorder::create(claim)?;
    let stage = Stage::new(scenario, task, members);
    let (before, until, timer) = (None, None, options.timer);
    Ok(Prepared { stage, recorder, checkpoints, before, until, notices, timer })
}

impl Prepared {
    /// The run directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.recorder.directory()
    }

    /// What a person should know before it begins, a line each.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Has every line of the log seen by somebody while it is written.
    pub fn observe(&mut self, observer: Box<dyn Observer>) {
        self.recorder.observe(observer);
    }

    /// Plays without a log: for measuring what the society itself costs. Such a run cannot be taken up again.
    pub fn unrecorded(&mut self) {
        self.recorder.be_silent();
    }

    /// Plays the run to its end.
    ///
    /// # Errors
    /// When the society cannot go on or the log cannot be written.
    pub async fn play(self, feed: Feed, control: Control) -> Result<Finished, RunError> {
        let watch = clock::Stopwatch::start();
        // Half of what is left is for keys and values; the rest is for training and everything else.
        let cache_bytes = memory::available().map(|bytes| bytes / 2);
        let limits = Limits { cache_bytes, ..Limits::default() };
        let engine = Engine::start_with(limits, clock::nanoseconds)
            .map_err(|e| RunError::Conduct(ConductError::Society(e.to_string())))?;
        let (ending, ended) = oneshot::channel();
        let Self { stage, recorder, checkpoints, before, until, timer, .. } = self;
        if before.is_some() {
            resume::catch_up(recorder.directory(), &feed).await;
        }
        let agents = recipes(stage.scenario(), stage.members(), &engine, timer);
        let handle = engine.handle();
        let conductor = ConductorArguments {
            stage,
            recorder,
            feed,
            control,
            engine: handle,
            timer,
            checkpoints,
            before,
            until,
            ending,
        };
        let society = SocietyArguments { conductor, agents, engine };
        let (supervisor, running) = Actor::spawn(None, Supervisor, society)
            .await
            .map_err(|e| RunError::Conduct(ConductError::Society(e.to_string())))?;
        let result = ended.await;
        supervisor.stop(None);
        // The society is told to stop; how its last actor ended changes nothing any more.
        let _ = running.await;
        let summary = result.map_err(|_silent| RunError::Silence)?.map_err(RunError::Conduct)?;
        Ok(Finished { summary, seconds: watch.seconds() })
    }
}

/// Where weights come from that nobody has trained: a fork with another seed keeps those of its history.
fn initial_seed(scenario: &Scenario, options: &RunOptions) -> Seed {
    Seed::new(options.initial_seed.unwrap_or(scenario.seed))
}

/// Backbones by name, and where each came from.
type Backbones = (BTreeMap<String, Arc<Backbone>>, BTreeMap<String, Value>);

fn backbones(
    scenario: &Scenario,
    device: &Device,
    options: &RunOptions,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<Backbones, RunError> {
    let mut load = |name: &str, plan: &BackbonePlan| -> Result<Opened, ModelError> {
        let mut opened = backbone::open(&plan.source, device, plan.precision, &options.hub, hear)?;
        if plan.from_scratch {
            let seed = initial_seed(scenario, options).child("backbone").child(name);
            opened.backbone = opened.backbone.from_scratch(seed)?;
        }
        Ok(opened)
    };
    let (mut backbones, mut origins) = (BTreeMap::new(), BTreeMap::new());
    for (name, plan) in &scenario.backbones {
        let opened =
            load(name, plan).map_err(|error| RunError::Backbone { name: name.clone(), error })?;
        backbones.insert(name.clone(), Arc::new(opened.backbone));
        origins.insert(name.clone(), opened.origin);
    }
    Ok((backbones, origins))
}

/// The agents, and what is recorded and said of them.
#[derive(Default)]
struct Cast {
    members: BTreeMap<AgentName, Member>,
    /// For the manifest.
    origins: BTreeMap<AgentName, Value>,
    notices: Vec<String>,
}

fn cast(
    scenario: &Scenario,
    task: &Task,
    backbones: &BTreeMap<String, Arc<Backbone>>,
    seed: Seed,
) -> Result<Cast, RunError> {
    let mut cast = Cast::default();
    for (name, plan) in &scenario.agents {
        let fail = |reason: String| RunError::Agent { agent: name.clone(), reason };
        let mind = match &plan.mind {
            MindPlan::Script(script) => Mind::Script(script.clone()),
            MindPlan::Model(model) => {
                let backbone = backbones
                    .get(&model.backbone)
                    .cloned()
                    .ok_or_else(|| fail(format!("there is no backbone `{}`", model.backbone)))?;
                let seed = seed.child(name.as_str());
                let start = start::of(&model.transfer, &backbone, task, seed).map_err(fail)?;
                start::can_learn(&start.adapter, &scenario.settings_of(name)).map_err(fail)?;
                let adapter = start.origin.map(|origin| (name.clone(), json!({"adapter": origin})));
                cast.origins.extend(adapter);
                let notice = |words| message(format_args!("agent `{name}`: {words}"));
                cast.notices.extend(start.notice.map(notice));
                Mind::Model(ModelMind {
                    role: Role::of(&model.transfer),
                    backbone,
                    adapter: Arc::new(start.adapter),
                    temperature: model.temperature,
                    filter: model.filter,
                    max_tokens: scenario.channel.max_tokens,
                })
            }
        };
        cast.members.insert(name.clone(), Member { plan: plan.clone(), mind });
    }
    Ok(cast)
}

fn recipes(
    scenario: &Scenario,
    members: &BTreeMap<AgentName, Member>,
    engine: &Engine,
    timer: Timer,
) -> Vec<Recipe> {
    let seed = Seed::new(scenario.seed).child("agent");
    members
        .iter()
        .map(|(name, member)| {
            let (name, mind) = (name.clone(), member.mind.clone());
            let (engine, seed) = (engine.handle(), seed.child(name.as_str()));
            let recipe: Recipe = Box::new(move |conductor| AgentArguments {
                name: name.clone(),
                mind: mind.clone(),
                seed,
                engine: engine.clone(),
                conductor,
                timer,
            });
            recipe
        })
        .collect()
}

fn manifest(
    scenario: &Scenario,
    options: &RunOptions,
    origins: &BTreeMap<String, Value>,
    starts: &BTreeMap<AgentName, Value>,
) -> Result<Value, RunError> {
    let digest = |path: &Path| {
        digest::of_file(path).map_err(|error: ModelError| {
            RunError::Task(TaskError::File { path: path.into(), reason: error.to_string() })
        })
    };
    let data = match &scenario.task {
        TaskPlan::Support(plan) => {
            json!({"train": digest(&plan.train)?, "holdout": digest(&plan.holdout)?})
        }
        TaskPlan::Talk(_) => json!({}),
    };
    Ok(json!({
        "format": FORMAT,
        "polylogue": env!("CARGO_PKG_VERSION"),
        "scenario": scenario.name,
        "seed": scenario.seed,
        "arguments": options.arguments,
        "device": options.devices.to_string(),
        "began": clock::stamp(),
        "platform": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "origin": scenario.origin,
        "data": data,
        "backbones": origins,
        "agents": starts,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fork with another seed goes on with the network that its history had.
    #[test]
    fn a_network_at_random_follows_from_the_seed_of_the_history() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/customer_service");
        let set = ["backbone.base.from_scratch=true".to_owned()];
        let of = |seed: u64, initial_seed: Option<u64>| {
            let scenario = crate::scenario::load(&path, &set, Some(seed)).unwrap();
            let options = RunOptions { initial_seed, ..RunOptions::default() };
            let (backbones, _) = backbones(&scenario, &Device::Cpu, &options, &mut |_| {}).unwrap();
            let adapter = agents::adapter::AdapterSpec {
                method: agents::adapter::Method::Layers { freeze_layers: 0 },
                head: None,
            };
            // Its weights are copies of the network's.
            let copies =
                agents::adapter::Adapter::initial(adapter, &backbones["base"], Seed::new(0));
            copies.unwrap().digest().unwrap()
        };
        let before = of(7, None);
        assert_ne!(of(5, None), before);
        assert_eq!(of(5, Some(7)), before);
    }
}
