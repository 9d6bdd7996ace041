//! A run from its scenario to its summary: all wiring, nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agents::adapter::head::HeadSpec;
use agents::adapter::{Adapter, AdapterSpec, Method};
use agents::backbone::Backbone;
use agents::backbone::digest;
use agents::device::DeviceKind;
use agents::engine::Engine;
use agents::error::ModelError;
use agents::name::AgentName;
use agents::prompt;
use agents::seed::Seed;
use agents::transfer::VERDICTS;
use ractor::Actor;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::agent::{AgentArguments, Role};
use crate::backbone::{self, Fetching, HubSettings, Opened};
use crate::clock;
use crate::conductor::stage::{Member, Stage};
use crate::conductor::{ConductError, ConductorArguments};
use crate::control::Control;
use crate::feed::Feed;
use crate::recorder::{FORMAT, RecordError, Recorder};
use crate::scenario::{BackbonePlan, Labels, Scenario, TransferPlan};
use crate::summary::Summary;
use crate::supervisor::{Recipe, SocietyArguments, Supervisor};
use crate::task::{Task, TaskError};

/// How a run is asked for, besides its scenario.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The run directory; made from time and scenario under `runs/` where absent.
    pub out: Option<PathBuf>,
    /// Which device runs the models.
    pub device: DeviceKind,
    /// Where models of the hub are kept and fetched from.
    pub hub: HubSettings,
    /// The command line, for the manifest.
    pub arguments: Vec<String>,
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
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A model cannot be used.
    #[error("backbone `{name}`: {error}")]
    Backbone {
        /// Its name in the scenario.
        name: String,
        /// Why.
        error: ModelError,
    },
    /// An agent does not fit its backbone.
    #[error("agent `{agent}`: {reason}")]
    Agent {
        /// Which.
        agent: AgentName,
        /// Why.
        reason: String,
    },
    /// The run directory cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The society could not go on.
    #[error(transparent)]
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
            Self::Task(_) | Self::Backbone { .. } | Self::Agent { .. } | Self::Record(_) => true,
            Self::Conduct(_) | Self::Silence => false,
        }
    }
}

/// A run that is ready to begin: everything a user can get wrong was found.
#[derive(Debug)]
pub struct Prepared {
    scenario: Arc<Scenario>,
    task: Arc<Task>,
    members: BTreeMap<AgentName, Member>,
    recorder: Recorder,
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
    let task = Task::load(&scenario.task)?;
    let (backbones, origins) = backbones(&scenario, options, hear)?;
    let members = members(&scenario, &task, &backbones)?;
    let out = options.out.clone().unwrap_or_else(|| {
        Path::new("runs").join(format!("{}_{}_{}", clock::stamp(), scenario.name, scenario.seed))
    });
    let recorder = Recorder::create(&out)?;
    recorder.write("scenario.toml", &scenario.source)?;
    recorder.write("scenario.resolved.toml", &scenario.resolved)?;
    let manifest = manifest(&scenario, options, &origins)?;
    recorder.write("manifest.json", &format!("{manifest:#}\n"))?;
    Ok(Prepared { scenario: Arc::new(scenario), task: Arc::new(task), members, recorder })
}

impl Prepared {
    /// The run directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.recorder.directory()
    }

    /// Plays the run to its end.
    ///
    /// # Errors
    /// When the society cannot go on or the log cannot be written.
    pub async fn play(self, feed: Feed, control: Control) -> Result<Finished, RunError> {
        let watch = clock::Stopwatch::start();
        let engine =
            Engine::start().map_err(|e| RunError::Conduct(ConductError::Society(e.to_string())))?;
        let (ending, ended) = oneshot::channel();
        let agents = recipes(&self.scenario, &self.members, &engine);
        let stage = Stage::new(self.scenario, self.task, self.members);
        let recorder = self.recorder;
        let engine_handle = engine.handle();
        let conductor =
            ConductorArguments { stage, recorder, feed, control, engine: engine_handle, ending };
        let society = SocietyArguments { conductor, agents };
        let (supervisor, running) = Actor::spawn(None, Supervisor, society)
            .await
            .map_err(|e| RunError::Conduct(ConductError::Society(e.to_string())))?;
        let result = ended.await;
        supervisor.stop(None);
        // The society is told to stop; how its last actor ended changes nothing any more.
        let _ = running.await;
        drop(engine);
        let summary = result.map_err(|_silent| RunError::Silence)?.map_err(RunError::Conduct)?;
        Ok(Finished { summary, seconds: watch.seconds() })
    }
}

/// Backbones by name, and where each came from.
type Backbones = (BTreeMap<String, Arc<Backbone>>, BTreeMap<String, Value>);

fn backbones(
    scenario: &Scenario,
    options: &RunOptions,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<Backbones, RunError> {
    let mut load = |name: &str, plan: &BackbonePlan| -> Result<Opened, ModelError> {
        let mut opened = backbone::open(&plan.source, options.device, &options.hub, hear)?;
        if plan.from_scratch {
            let seed = Seed::new(scenario.seed).child("backbone").child(name);
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

fn members(
    scenario: &Scenario,
    task: &Task,
    backbones: &BTreeMap<String, Arc<Backbone>>,
) -> Result<BTreeMap<AgentName, Member>, RunError> {
    let seed = Seed::new(scenario.seed).child("adapter");
    let mut members = BTreeMap::new();
    for (name, plan) in &scenario.agents {
        let fail = |reason: String| RunError::Agent { agent: name.clone(), reason };
        let backbone = backbones
            .get(&plan.backbone)
            .cloned()
            .ok_or_else(|| fail(format!("there is no backbone `{}`", plan.backbone)))?;
        let adapter = first_adapter(&plan.transfer, &backbone, task, seed.child(name.as_str()))
            .map_err(fail)?;
        let role = Role::of(&plan.transfer);
        let adapter = Arc::new(adapter);
        let member = Member { plan: plan.clone(), role, backbone, adapter, restarts: 0 };
        members.insert(name.clone(), member);
    }
    Ok(members)
}

/// What an agent starts from; the reason where its backbone or its files do not suit its part.
fn first_adapter(
    plan: &TransferPlan,
    backbone: &Backbone,
    task: &Task,
    seed: Seed,
) -> Result<Adapter, String> {
    let labels = plan.labels().map(|labels| match labels {
        Labels::Intent => task.labels.clone(),
        Labels::Resolved => VERDICTS.map(str::to_owned).to_vec(),
    });
    let family = backbone.network.architecture().family;
    if labels.is_none() && !family.is_decoder() {
        return Err(format!(
            "it writes texts, which {} cannot: give it a decoder, or transfer.feature",
            family.name()
        ));
    }
    if labels.is_none() {
        prompt::check_writer(&backbone.tokenizer)
            .map_err(|error| format!("it cannot be prompted: {error}"))?;
    }
    let method = match plan {
        TransferPlan::Feature { .. } => Method::Frozen,
        TransferPlan::Text(method) => method.clone(),
        TransferPlan::Head { freeze_layers, .. } => {
            let depth = backbone.network.depth();
            if *freeze_layers > depth {
                return Err(format!("freeze_layers is {freeze_layers}, the backbone has {depth}"));
            }
            Method::Layers { freeze_layers: *freeze_layers }
        }
        TransferPlan::Adapter { folder, .. } => {
            let adapter = Adapter::load(folder, backbone).map_err(|e| e.to_string())?;
            return match labels {
                Some(labels) => for_labels(&adapter, labels),
                None if adapter.head().is_some() => Err(format!(
                    "the adapter in {} has a head: say what it classifies with `labels`",
                    folder.display()
                )),
                None => Ok(adapter),
            };
        }
    };
    let spec = AdapterSpec { method, head: labels.map(HeadSpec::new) };
    Adapter::initial(spec, backbone, seed).map_err(|e| e.to_string())
}

/// A trained classifier whose classes are those of the task, or that has just numbers for them.
fn for_labels(adapter: &Adapter, wanted: Vec<String>) -> Result<Adapter, String> {
    let found = adapter.labels();
    let numbered = found.iter().enumerate().all(|(index, label)| *label == index.to_string());
    if found == wanted {
        return Ok(adapter.clone());
    }
    if numbered {
        return adapter.with_labels(wanted).map_err(|e| e.to_string());
    }
    let odd = |a: &[String], b: &[String]| {
        a.iter().find(|label| !b.contains(label)).map(|label| format!("`{label}`"))
    };
    let reason = match (odd(&wanted, found), odd(found, &wanted)) {
        (Some(lacks), _) => format!("its head does not know {lacks}"),
        (None, Some(other)) => format!("its head knows {other}, which the task does not"),
        (None, None) => "its head has them in another order".to_owned(),
    };
    Err(format!("the adapter was trained for other labels: {reason}"))
}

fn recipes(
    scenario: &Scenario,
    members: &BTreeMap<AgentName, Member>,
    engine: &Engine,
) -> Vec<Recipe> {
    let seed = Seed::new(scenario.seed).child("agent");
    members
        .iter()
        .map(|(name, member)| {
            let name = name.clone();
            let (role, temperature) = (member.role, member.plan.temperature);
            let (backbone, adapter) = (Arc::clone(&member.backbone), Arc::clone(&member.adapter));
            let (engine, max_tokens) = (engine.handle(), scenario.channel.max_tokens);
            let seed = seed.child(name.as_str());
            let recipe: Recipe = Box::new(move |conductor| AgentArguments {
                name: name.clone(),
                role,
                backbone: Arc::clone(&backbone),
                adapter: Arc::clone(&adapter),
                temperature,
                max_tokens,
                seed,
                engine: engine.clone(),
                conductor,
            });
            recipe
        })
        .collect()
}

fn manifest(
    scenario: &Scenario,
    options: &RunOptions,
    origins: &BTreeMap<String, Value>,
) -> Result<Value, RunError> {
    let digest = |path: &Path| {
        let refuse =
            |error: ModelError| RecordError { path: path.into(), reason: error.to_string() };
        digest::of_file(path).map_err(refuse)
    };
    Ok(json!({
        "format": FORMAT,
        "polylogue": env!("CARGO_PKG_VERSION"),
        "scenario": scenario.name,
        "seed": scenario.seed,
        "arguments": options.arguments,
        "device": format!("{:?}", options.device),
        "began": clock::stamp(),
        "platform": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "data": {
            "train": digest(&scenario.task.train)?,
            "holdout": digest(&scenario.task.holdout)?,
        },
        "backbones": origins,
    }))
}
