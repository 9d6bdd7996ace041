//! A new run that shares the history of another up to a tick, and differs from there: by an edited message,
//! other weights, another seed, or another value of the scenario.
//!
//! The history is copied up to the last checkpoint before the tick, and played from there; it is compared with
//! the parent's log. Then the change is put into the checkpoint of the tick, and the run is one of its own.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use agents::adapter::Adapter;
use agents::name::AgentName;
use agents::seed::Seed;
use serde_json::{Value, json};

use super::{
    Parts, Prepared, ResumeError, ResumeOptions, Resumed, RunError, RunOptions, gather, resume,
    start,
};
use crate::backbone::{Fetching, HubSettings};
use crate::checkpoint::{self, Damage, Stored};
use crate::clock::{self, Timer};
use crate::control::Control;
use crate::feed::Feed;
use crate::recorder::{self, Claim, RecordError, adapter_folder};
use crate::recording::{LOG, Manifest};
use crate::scenario::suggestion::message;
use crate::scenario::{self, Scenario, TransferPlan};

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
    /// Where models of the hub are kept and fetched from.
    pub hub: HubSettings,
    /// The command line, for the manifest.
    pub arguments: Vec<String>,
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

/// Makes a fork ready to go on; plays the part that both have in common where no checkpoint ends with it.
///
/// # Errors
/// When the parent cannot be played again, has no such tick, or the change cannot be made.
pub async fn fork(
    options: &ForkOptions,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<Prepared, ForkError> {
    let parent = &options.parent;
    let recorded = Manifest::of(parent).map_err(|reason| {
        ForkError::Resume(ResumeError::NoRun { directory: parent.clone(), reason })
    })?;
    // Mistakes in the change are told before anything is written.
    let folder = options.folder.as_deref();
    let changed = scenario::changed_since(parent, &recorded, folder, &options.set, options.seed);
    let no_origin = || ForkError::Resume(ResumeError::NoOrigin(parent.clone()));
    let changed = changed.ok_or_else(no_origin)?.map_err(ResumeError::Scenario)?;
    let before = scenario::recorded(parent, &recorded, folder).ok_or_else(no_origin)?;
    can_change(&before.map_err(ResumeError::Scenario)?, &changed)?;
    let name = format!("{}_{}_fork", clock::stamp(), changed.name);
    let out = options.out.clone().unwrap_or_else(|| Path::new("runs").join(name));
    let search = checkpoint::find(parent, Some(options.at));
    copy(parent, &out, search.found.as_ref())?;
    let reached = search.found.is_some_and(|found| found.manifest.tick == options.at);
    if !reached {
        let resumed = ResumeOptions {
            directory: out.clone(),
            folder: options.folder.clone(),
            hub: options.hub.clone(),
            timer: options.timer,
            until: Some(options.at),
        };
        if let Resumed::Ready(prepared) = resume::resume_or_fork(&resumed, true, hear)? {
            let played = prepared.play(Feed::unwatched(), Control::default()).await;
            played.map_err(ResumeError::Run)?;
            let_go(&out).await;
        }
    }
    let stored = checkpoint::find(&out, None).found;
    let stored = stored.filter(|stored| stored.manifest.tick >= options.at);
    let stored = stored.ok_or_else(|| {
        ForkError::Change(format!(
            "the run ends before tick {}; nothing is left to fork",
            options.at
        ))
    })?;
    same_history(parent, &out, &stored)?;
    let tick = stored.manifest.tick;
    change(options, changed, stored, &out, hear)?;
    let resumed = ResumeOptions {
        directory: out,
        folder: options.folder.clone(),
        hub: options.hub.clone(),
        timer: options.timer,
        until: None,
    };
    match resume::resume(&resumed, hear)? {
        Resumed::Ready(prepared) => Ok(*prepared),
        Resumed::Finished(_) => Err(ForkError::Change(format!("the run ends with tick {tick}"))),
    }
}

/// Waits until the actors of a run that was left have let go of its directory.
async fn let_go(directory: &Path) {
    for _ in 0..MOST_TURNS {
        if Claim::of(directory).is_ok() {
            return;
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

/// Copies a parent's history up to a checkpoint, or only what it is made from.
fn copy(parent: &Path, out: &Path, stored: Option<&Stored>) -> Result<(), ForkError> {
    let claim = Claim::of_new(out)?;
    let fail = |path: &Path, e: &dyn std::fmt::Display| {
        let (path, reason) = (path.to_owned(), e.to_string());
        ForkError::from(RecordError { path, reason, in_use: false })
    };
    for name in ["scenario.toml", "scenario.resolved.toml"] {
        let path = parent.join(name);
        let text = fs::read_to_string(&path).map_err(|e| fail(&path, &e))?;
        claim.write(name, &text)?;
    }
    let path = parent.join("manifest.json");
    let text = fs::read_to_string(&path).map_err(|e| fail(&path, &e))?;
    let mut manifest: Value = serde_json::from_str(&text).map_err(|e| fail(&path, &e))?;
    manifest["fork"] = json!({"parent": parent, "complete": false});
    claim.write("manifest.json", &format!("{manifest:#}\n"))?;
    let Some(stored) = stored else { return Ok(()) };
    let log = &stored.manifest.log;
    for (name, bytes) in [(LOG, log.events.bytes), ("times.jsonl", log.times)] {
        let (from, to) = (parent.join(name), out.join(name));
        copied(&from, &to, bytes).map_err(|e| fail(&to, &e))?;
    }
    let place = stored.folder();
    let to = out.join(checkpoint::FOLDER).join(place.file_name().unwrap_or_default());
    files(place, &to).map_err(|e| fail(&to, &e))?;
    for (agent, weights) in &stored.manifest.adapters {
        let from = parent.join("adapters").join(agent.as_str());
        for entry in fs::read_dir(&from).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix('g')?.parse::<u32>().ok());
            if number.is_some_and(|number| number <= weights.generation.0) {
                let to = out.join("adapters").join(agent.as_str()).join(&name);
                files(&entry.path(), &to).map_err(|e| fail(&to, &e))?;
            }
        }
    }
    Ok(())
}

/// Copies the beginning of a file.
fn copied(from: &Path, to: &Path, bytes: u64) -> io::Result<()> {
    let mut target = File::create(to)?;
    io::copy(&mut File::open(from)?.take(bytes), &mut target)?;
    target.sync_all()
}

/// Copies the files of a folder.
fn files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        if path.is_file() {
            copied(&path, &to.join(path.file_name().unwrap_or_default()), u64::MAX)?;
        }
    }
    Ok(())
}

/// Whether the fork's log so far is how the parent's begins.
fn same_history(parent: &Path, out: &Path, stored: &Stored) -> Result<(), ForkError> {
    let read = |directory: &Path| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let log = File::open(directory.join(LOG))?;
        log.take(stored.manifest.log.events.bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let (theirs, ours) = match (read(parent), read(out)) {
        (Ok(theirs), Ok(ours)) => (theirs, ours),
        (Err(e), _) | (_, Err(e)) => return Err(ForkError::Change(format!("{LOG}: {e}"))),
    };
    // A parent that was cut off may hold less.
    let common = theirs.len().min(ours.len());
    if theirs[..common] == ours[..common] {
        return Ok(());
    }
    Err(ForkError::Change(
        "played again, the parent's history comes out differently: it was made by another version or on \
         another machine; fork at one of its checkpoints"
            .to_owned(),
    ))
}

/// Puts the change into the checkpoint, and makes the directory a run of its own.
fn change(
    options: &ForkOptions,
    changed: Scenario,
    mut stored: Stored,
    out: &Path,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<(), ForkError> {
    let run = RunOptions {
        hub: options.hub.clone(),
        arguments: options.arguments.clone(),
        ..RunOptions::default()
    };
    let parts = gather(changed, &run, hear).map_err(ResumeError::Run)?;
    let claim = Claim::of(out)?;
    for edit in &options.edits {
        stored.stage.edit(edit.episode, edit.turn, &edit.text).map_err(ForkError::Change)?;
    }
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
        "edits": edits,
        "adapters": adapters,
        "complete": true,
    });
    claim.write("scenario.resolved.toml", &scenario.resolved)?;
    claim.write("manifest.json", &format!("{manifest:#}\n"))?;
    Ok(())
}

/// Gives an agent other weights, as its next generation.
fn exchange(
    agent: &AgentName,
    folder: &Path,
    parts: &Parts,
    stored: &mut Stored,
    out: &Path,
) -> Result<(), ForkError> {
    let fail = |reason: String| ForkError::Change(format!("the weights of {agent}: {reason}"));
    let member = parts.members.get(agent);
    let member = member.ok_or_else(|| fail("there is no such agent".to_owned()))?;
    let (Some(plan), Some(model)) = (member.plan.model(), member.model()) else {
        return Err(fail("it is a scripted agent, and has none".to_owned()));
    };
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
