//! A new run that shares the history of another up to a tick, and differs from there: by an edited message,
//! other weights, another seed, or another value of the scenario.
//!
//! The history is copied up to the last checkpoint before the tick, and played from there; it is compared with
//! the parent's log. Then the change is put into the checkpoint of the tick, and the run is one of its own.

mod history;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use agents::adapter::Adapter;
use agents::name::AgentName;
use agents::seed::Seed;
use serde_json::{Value, json};

use self::history::{Made, copy, same_history};
use super::{
    Parts, Prepared, RUNS, ResumeError, ResumeOptions, Resumed, RunError, RunOptions, gather,
    resume, start,
};
use crate::backbone::{Devices, Fetching, HubSettings};
use crate::checkpoint::{self, Damage, Stored};
use crate::clock::{self, Timer};
use crate::conductor::stage::{Member, Snapshot};
use crate::control::Control;
use crate::event::{Event, EventKind};
use crate::feed::Feed;
use crate::recorder::{self, Cause, Claim, RecordError, adapter_folder};
use crate::recording::{self, Manifest};
use crate::scenario::suggestion::message;
use crate::scenario::{self, ModelPlan, Scenario, TransferPlan};

/// Turns that actors are given to end, before the directory counts as another's.
const MOST_TURNS: usize = 100_000;

/// Other words for a message that was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The episode.
    pub episode: u64,
    /// The message's turn in it, from 0.
    pub turn: u32,
    /// The words.
    pub text: String,
}

impl FromStr for Edit {
    type Err = String;

    /// Reads `EPISODE:TURN=TEXT`.
    fn from_str(typed: &str) -> Result<Self, String> {
        let form = "write EPISODE:TURN=TEXT, such as 12:0=other words".to_owned();
        let (place, text) = typed.split_once('=').ok_or_else(|| form.clone())?;
        let (episode, turn) = place.split_once(':').ok_or_else(|| form.clone())?;
        match (episode.trim().parse(), turn.trim().parse()) {
            (Ok(episode), Ok(turn)) => Ok(Self { episode, turn, text: text.to_owned() }),
            _ => Err(form),
        }
    }
}

/// Other weights for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Whose.
    pub agent: AgentName,
    /// Where they lie, in PEFT layout.
    pub folder: PathBuf,
}

impl FromStr for Exchange {
    type Err = String;

    /// Reads `AGENT=FOLDER`.
    fn from_str(typed: &str) -> Result<Self, String> {
        let (agent, folder) = typed.split_once('=').ok_or("write AGENT=FOLDER")?;
        let agent = AgentName::new(agent).map_err(|error| error.to_string())?;
        Ok(Self { agent, folder: PathBuf::from(folder) })
    }
}

/// How a fork is asked for.
#[derive(Clone, Debug, Default)]
pub struct ForkOptions {
    /// The run directory of the parent.
    pub parent: PathBuf,
    /// The last tick that both have in common.
    pub at: u64,
    /// The new run directory; made from time and scenario under `runs/` where absent.
    pub out: Option<PathBuf>,
    /// Changed values of the scenario, as in `--set`.
    pub set: Vec<String>,
    /// Another seed.
    pub seed: Option<u64>,
    /// Messages with other words.
    pub edits: Vec<Edit>,
    /// Agents with other weights, each from a folder.
    pub adapters: Vec<Exchange>,
    /// The scenario's folder, where it is not where it was.
    pub folder: Option<PathBuf>,
    /// The devices; those of the parent where absent.
    pub devices: Option<Devices>,
    /// Where models of the hub are kept and fetched from.
    pub hub: HubSettings,
    /// The command line, for the manifest.
    pub arguments: Vec<String>,
    /// Go on even where memory is predicted not to suffice, and on devices that are not like the parent's.
    pub unchecked: bool,
    /// How long the run's waits are.
    pub timer: Timer,
}

/// Why a run cannot be forked.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The parent cannot be played up to the tick, or the fork from there.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The change is not one that a fork can make.
    #[error("{}", message(.0))]
    Change(String),
}

impl ForkError {
    /// Whether the cause is what the user gave us.
    #[must_use]
    pub fn is_input(&self) -> bool {
        match self {
            Self::Resume(error) => error.is_input(),
            Self::Change(_) => true,
        }
    }
}

impl From<RecordError> for ForkError {
    fn from(error: RecordError) -> Self {
        Self::Resume(RunError::from(error).into())
    }
}

impl From<Damage> for ForkError {
    fn from(damage: Damage) -> Self {
        Self::Resume(damage.into())
    }
}

/// Makes a fork ready to go on; plays the part that both have in common where no checkpoint ends with it. Where
/// it cannot be made, what was written for it is removed.
///
/// # Errors
/// When the parent cannot be played again, has no such tick, or the change cannot be made.
pub async fn fork(
    options: &ForkOptions,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<Prepared, ForkError> {
    let wanted = checked(options)?;
    let (claim, made) = match &options.out {
        Some(out) => {
            let made = Made::before(out);
            (Claim::of_new(out)?, made)
        }
        None => {
            let name = format!("{}_{}_fork", clock::stamp(), wanted.after.name);
            let claim = Claim::of_unnamed(&Path::new(RUNS).join(name))?;
            let made = Made::wholly(claim.directory());
            (claim, made)
        }
    };
    let out = claim.directory().to_owned();
    let forked = Box::pin(begun(options, wanted, claim, hear)).await;
    if forked.is_err() {
        let_go(&out).await;
        made.remove();
    }
    forked
}

/// What is wanted, as far as that can be told before anything is written.
struct Wanted {
    parent: Manifest,
    before: Scenario,
    after: Scenario,
    devices: Devices,
    /// The last checkpoint that is not later than the tick.
    stored: Option<Stored>,
}

/// Finds all mistakes that can be found before anything is written.
fn checked(options: &ForkOptions) -> Result<Wanted, ForkError> {
    let directory = &options.parent;
    let parent = Manifest::of(directory).map_err(|reason| {
        ForkError::Resume(ResumeError::NoRun { directory: directory.clone(), reason })
    })?;
    if let Some(out) = &options.out
        && let Ok(Manifest { fork: Some(fork), .. }) = Manifest::of(out)
        && fork["complete"] != true
    {
        // Unless another process is at it.
        drop(Claim::of(out)?);
        return Err(ResumeError::HalfFork(out.clone()).into());
    }
    let (had, asked) = (parent.devices_at(options.at), options.devices.as_ref());
    let devices = resume::devices(directory, had, asked, options.unchecked)?;
    let folder = options.folder.as_deref();
    let after = scenario::changed_since(directory, &parent, folder, &options.set, options.seed);
    let no_origin = || ForkError::Resume(ResumeError::NoOrigin(directory.clone()));
    let after = after.ok_or_else(no_origin)?.map_err(ResumeError::Scenario)?;
    let before = scenario::recorded(directory, &parent, folder).ok_or_else(no_origin)?;
    let before = before.map_err(ResumeError::Scenario)?;
    can_change(&before, &after)?;
    has_tick(options, &parent)?;
    for Exchange { agent, folder } in &options.adapters {
        can_exchange(agent, folder, &after)?;
    }
    let mut search = checkpoint::find(directory, Some(options.at));
    resume::same_version(directory, &search)?;
    if search.found.is_none() && parent.fork.is_some() {
        return Err(match search.unreadable.pop() {
            Some(unreadable) => ResumeError::Unreadable(unreadable).into(),
            None => ResumeError::LostFork(directory.clone()).into(),
        });
    }
    let stored = search.found;
    if let Some(stored) = stored.as_ref().filter(|stored| stored.manifest.tick == options.at) {
        edit(&mut stored.stage.clone(), &options.edits)?;
    }
    Ok(Wanted { parent, before, after, devices, stored })
}

/// Whether the parent can have a tick with which it ends what both have in common.
fn has_tick(options: &ForkOptions, parent: &Manifest) -> Result<(), ForkError> {
    let (at, directory) = (options.at, message(options.parent.display()));
    if let Some(fork) = &parent.fork
        && let Some(tick) = fork["tick"].as_u64().filter(|tick| at < *tick)
    {
        let before = fork["parent"].as_str().unwrap_or("its parent");
        return Err(ForkError::Change(format!(
            "{directory} is itself a fork, and its history before tick {tick} is that of {before}: fork that one"
        )));
    }
    let end = recording::last(&options.parent).filter(|event| event.tick <= at);
    let Some(Event { tick, kind: EventKind::RunFinished { stopped, .. }, .. }) = end else {
        return Ok(());
    };
    let why = if stopped {
        format!("it was ended early with tick {tick}; go on with it first by `polylogue resume`")
    } else {
        format!("it came to its end with tick {tick}")
    };
    Err(ends_before(at, &why))
}

fn ends_before(at: u64, why: &str) -> ForkError {
    ForkError::Change(format!("the run ends before tick {at}, nothing is left to fork: {why}"))
}

/// Makes the fork in a directory that is its own.
async fn begun(
    options: &ForkOptions,
    wanted: Wanted,
    claim: Claim,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<Prepared, ForkError> {
    let Wanted { parent, before, after, devices, stored } = wanted;
    let out = claim.directory().to_owned();
    copy(&options.parent, &parent, (claim, &devices), stored.as_ref())?;
    let reached = stored.is_some_and(|stored| stored.manifest.tick == options.at);
    let resumed = |until| ResumeOptions {
        directory: out.clone(),
        folder: options.folder.clone(),
        devices: Some(devices.clone()),
        hub: options.hub.clone(),
        unchecked: options.unchecked,
        timer: options.timer,
        until,
    };
    if !reached
        && let Resumed::Ready(prepared) =
            resume::resume_or_fork(&resumed(Some(options.at)), true, hear)?
    {
        let played = prepared.play(Feed::unwatched(), Control::default()).await;
        played.map_err(ResumeError::Run)?;
        let_go(&out).await;
    }
    let stored = checkpoint::find(&out, None).found;
    let stored = stored.filter(|stored| stored.manifest.tick >= options.at);
    let stored =
        stored.ok_or_else(|| ends_before(options.at, "played again, it came to its end"))?;
    same_history(&options.parent, &out, &stored)?;
    let tick = stored.manifest.tick;
    change(options, (&parent, &devices), (&before, after), stored, &out, hear)?;
    match resume::resume(&resumed(None), hear)? {
        Resumed::Ready(prepared) => Ok(*prepared),
        Resumed::Finished(_) => Err(ForkError::Change(format!("the run ends with tick {tick}"))),
    }
}

/// Waits until the actors of a run that was left have let go of its directory.
async fn let_go(directory: &Path) {
    for _ in 0..MOST_TURNS {
        match Claim::of(directory) {
            Err(error) if error.cause == Cause::InUse => {}
            _ => return,
        }
        tokio::task::yield_now().await;
    }
}

/// What the state of a run depends on stays as it is.
fn can_change(before: &Scenario, after: &Scenario) -> Result<(), ForkError> {
    let agents = |scenario: &Scenario| -> Vec<_> {
        let all = scenario.agents.iter();
        all.map(|(name, plan)| {
            let model = plan.model().map(|model| (model.backbone.clone(), model.transfer.clone()));
            (name.clone(), model)
        })
        .collect()
    };
    let what = if before.task != after.task {
        "the task and its data"
    } else if before.backbones != after.backbones {
        "the backbones"
    } else if agents(before) != agents(after) {
        "which agents there are, and their backbones and ways of transfer"
    } else if before.protocol != after.protocol {
        "the protocol"
    } else {
        return Ok(());
    };
    Err(ForkError::Change(format!(
        "a fork cannot change {what}: its history was made with it; begin a new run"
    )))
}

/// Puts the change into the checkpoint, and makes the directory a run of its own.
fn change(
    options: &ForkOptions,
    (parent, devices): (&Manifest, &Devices),
    (before, after): (&Scenario, Scenario),
    mut stored: Stored,
    out: &Path,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<(), ForkError> {
    let run = RunOptions {
        devices: devices.clone(),
        hub: options.hub.clone(),
        arguments: options.arguments.clone(),
        unchecked: options.unchecked,
        initial_seed: Some(parent.initial_seed()),
        ..RunOptions::default()
    };
    stored.stage.carry_over(before, &after);
    let parts = gather(after, &run, hear).map_err(ResumeError::Run)?;
    let claim = Claim::of(out)?;
    edit(&mut stored.stage, &options.edits)?;
    for Exchange { agent, folder } in &options.adapters {
        exchange(agent, folder, &parts, &mut stored, out)?;
    }
    stored.rewrite_as_first()?;
    checkpoint::remove_others(out, stored.manifest.tick)?;
    let edits: Vec<String> = options
        .edits
        .iter()
        .map(|edit| format!("{}:{}={}", edit.episode, edit.turn, edit.text))
        .collect();
    let given = options.adapters.iter();
    let adapters: Vec<Value> =
        given.map(|own| json!({"agent": own.agent, "path": own.folder})).collect();
    let Parts { scenario, mut manifest, .. } = parts;
    manifest["fork"] = json!({
        "parent": options.parent,
        "tick": stored.manifest.tick,
        "set": options.set,
        "seed": options.seed,
        "initial_seed": parent.initial_seed(),
        "edits": edits,
        "adapters": adapters,
        "complete": true,
    });
    claim.write("scenario.resolved.toml", &scenario.resolved)?;
    claim.write("manifest.json", &format!("{manifest:#}\n"))?;
    Ok(())
}

/// Puts other words into messages.
fn edit(stage: &mut Snapshot, edits: &[Edit]) -> Result<(), ForkError> {
    let mut all = edits.iter();
    all.try_for_each(|edit| stage.edit(edit.episode, edit.turn, &edit.text))
        .map_err(ForkError::Change)
}

/// Whether an agent can have other weights; how it got the present ones.
fn can_exchange<'a>(
    agent: &AgentName,
    folder: &Path,
    scenario: &'a Scenario,
) -> Result<&'a ModelPlan, ForkError> {
    let plan = scenario.agents.get(agent);
    let plan = plan.ok_or_else(|| weights(agent, "there is no such agent"))?;
    if !folder.is_dir() {
        let reason = format!("{} is not a folder", folder.display());
        return Err(weights(agent, &reason));
    }
    plan.model().ok_or_else(|| weights(agent, "it is a scripted agent, and has none"))
}

fn weights(agent: &AgentName, reason: &str) -> ForkError {
    ForkError::Change(format!("the weights of {agent}: {reason}"))
}

/// Gives an agent other weights, as its next generation.
fn exchange(
    agent: &AgentName,
    folder: &Path,
    parts: &Parts,
    stored: &mut Stored,
    out: &Path,
) -> Result<(), ForkError> {
    let fail = |reason: String| weights(agent, &reason);
    let plan = can_exchange(agent, folder, &parts.scenario)?;
    let model = parts.members.get(agent).and_then(Member::model);
    let model = model.ok_or_else(|| fail("there is no such agent".to_owned()))?;
    if stored.stage.learners().any(|(_, learner)| learner == agent) {
        let reason = "it is learning at this tick, and what it learns would replace them";
        return Err(fail(format!("{reason}; choose another tick")));
    }
    let labels = plan.transfer.labels();
    let plan = TransferPlan::Adapter { folder: folder.to_owned(), labels };
    let start = start::of(&plan, &model.backbone, &parts.task, Seed::new(0)).map_err(fail)?;
    let generation = stored.stage.generations().get(agent).copied().unwrap_or_default().next();
    let (spec, tensors) = (start.adapter.spec().clone(), start.adapter.tensors().clone());
    let adapter = Adapter::assemble(spec, generation, tensors, &model.backbone);
    let adapter = adapter.map_err(|e| fail(e.to_string()))?;
    recorder::keep(out, agent, &adapter)?;
    let place = adapter_folder(out, agent, generation);
    let weights = checkpoint::Weights::of(&adapter, &place).map_err(fail)?;
    stored.stage.set_generation(agent, generation);
    stored.manifest.adapters.insert(agent.clone(), weights);
    Ok(())
}
