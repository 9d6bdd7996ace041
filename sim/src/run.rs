//! A run from its scenario to its summary: all wiring, nothing else.

mod aside;
mod cast;
pub mod footprint;
mod fork;
mod resume;
mod start;

pub use self::fork::{Edit, Exchange, ForkError, ForkOptions, fork};
pub use self::resume::{ResumeError, ResumeOptions, Resumed, resume};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agents::backbone::digest;
use agents::device::{Device, free_memory};
use agents::engine::schedule::Limits;
use agents::engine::witness::Witness;
use agents::error::ModelError;
use agents::name::AgentName;
use agents::seed::Seed;
use ractor::Actor;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use self::cast::{Cast, backbones, cast, initial_seed};
use self::footprint::Need;
use crate::agent::AgentArguments;
use crate::backbone::{DeviceKind, Devices, Fetching, HubSettings};
use crate::checkpoint::Checkpoints;
use crate::clock::{self, Timer};
use crate::conductor::stage::{Member, Stage};
use crate::conductor::{ConductError, ConductorArguments};
use crate::control::Control;
use crate::engines::{EngineHandles, Engines};
use crate::feed::Feed;
use crate::placement::Placement;
use crate::preflight;
use crate::recorder::{Claim, FORMAT, Observer, RecordError, Recorder};
use crate::scenario::suggestion::{message, quote};
use crate::scenario::{Scenario, TaskPlan};
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
    #[error("the run does not fit into the memory of {device}: {}", message(error))]
    Memory {
        /// Whose memory.
        device: DeviceKind,
        /// By how much, and what would help.
        error: ModelError,
    },
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
            Self::Memory { .. } | Self::TooLarge(_) => true,
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
    devices: Vec<Open>,
    stage: Stage,
    recorder: Recorder,
    checkpoints: Checkpoints,
    /// What the events before came to, where it goes on.
    before: Option<Summary>,
    /// The tick after which it is saved and left, unfinished.
    until: Option<u64>,
    notices: Vec<String>,
    timer: Timer,
    /// Who hears what the engines are asked.
    witness: Option<Arc<dyn Witness>>,
}

/// A device that is in use.
#[derive(Clone, Debug)]
struct Open {
    kind: DeviceKind,
    device: Device,
}

/// Makes devices ready for use.
fn open(devices: &Devices) -> Result<Vec<Open>, RunError> {
    let open = |&kind: &DeviceKind| kind.open().map(|device| Open { kind, device });
    devices.all().iter().map(open).collect::<Result<_, _>>().map_err(RunError::Device)
}

/// All that a run is made from.
struct Parts {
    devices: Vec<Open>,
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
    let devices = open(&options.devices)?;
    let task = Task::load(&scenario.task).map_err(RunError::Task)?;
    if !options.unchecked {
        footprint::of_open(&scenario, &devices).iter().try_for_each(Need::check)?;
    }
    let placement = Placement::of(&scenario, devices.len());
    let (backbones, origins) = backbones(&scenario, &placement, &devices, options, hear)?;
    let seed = initial_seed(&scenario, options).child("adapter");
    let cast = cast(&scenario, &task, (&backbones, &placement), seed)?;
    let Cast { members, origins: starts, notices } = cast;
    let manifest = manifest(&scenario, options, &origins, &starts)?;
    let (scenario, task) = (Arc::new(scenario), Arc::new(task));
    Ok(Parts { devices, scenario, task, members, manifest, notices })
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
    let Parts { devices, scenario, task, members, manifest, notices } =
        gather(scenario, options, hear)?;
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
    let (before, until, timer, witness) = (None, None, options.timer, None);
    Ok(Prepared { devices, stage, recorder, checkpoints, before, until, notices, timer, witness })
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

    /// Has everything that the engines are asked heard by somebody.
    pub fn witness(&mut self, witness: Arc<dyn Witness>) {
        self.witness = Some(witness);
    }

    /// What each engine keeps to, in the order of the devices.
    #[must_use]
    pub fn limits(&self) -> Vec<Limits> {
        limits(&self.devices, self.stage.scenario())
    }

    /// Plays the run to its end.
    ///
    /// # Errors
    /// When the society cannot go on or the log cannot be written.
    pub async fn play(self, feed: Feed, control: Control) -> Result<Finished, RunError> {
        let watch = clock::Stopwatch::start();
        let engines = Engines::start(&self.limits(), clock::nanoseconds)
            .map_err(|e| RunError::Conduct(ConductError::Society(e.to_string())))?;
        let (ending, ended) = oneshot::channel();
        let Self { stage, recorder, checkpoints, before, until, timer, witness, .. } = self;
        if before.is_some() {
            resume::catch_up(recorder.directory(), &feed).await;
        }
        let engines = engines.witnessed(witness);
        let handles = engines.handles();
        let agents = recipes(stage.scenario(), stage.members(), &handles, timer);
        let conductor = ConductorArguments {
            stage,
            recorder,
            feed,
            control,
            engines: handles,
            timer,
            checkpoints,
            before,
            until,
            ending,
        };
        let society = SocietyArguments { conductor, agents, engines };
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

/// What each engine keeps to. Half of what a device has left is for keys and values; the rest is for training
/// and everything else. Engines of one device divide it.
fn limits(devices: &[Open], scenario: &Scenario) -> Vec<Limits> {
    let sequences = footprint::sequences(scenario);
    let limits = |own: &Open| {
        let sharing = devices.iter().filter(|other| other.kind == own.kind).count() as u64;
        let cache_bytes = free_memory(&own.device).map(|bytes| bytes / 2 / sharing);
        Limits { sequences, cache_bytes, ..Limits::default() }
    };
    devices.iter().map(limits).collect()
}

fn recipes(
    scenario: &Scenario,
    members: &BTreeMap<AgentName, Member>,
    engines: &EngineHandles,
    timer: Timer,
) -> Vec<Recipe> {
    let seed = Seed::new(scenario.seed).child("agent");
    members
        .iter()
        .map(|(name, member)| {
            let (name, mind) = (name.clone(), member.mind.clone());
            let device = member.model().map_or(0, |model| model.device);
            let (engine, seed) = (engines.of(device).clone(), seed.child(name.as_str()));
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
