//! Going on with a run that was cut off: from its last good checkpoint, or from its beginning where there is
//! none yet.
//!
//! What the log holds beyond the checkpoint is cut off and comes again, byte for byte: everything that decides
//! it is in the checkpoint or follows from the scenario, the data and the models, which are compared with what
//! the run was made from. Where no checkpoint can be used, what was there is put aside before the run begins
//! again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agents::adapter::Adapter;

use super::aside::put_aside;
use super::{Parts, Prepared, RunError, RunOptions, gather};
use crate::agent::Mind;
use crate::backbone::{Devices, Fetching, HubSettings};
use crate::checkpoint::{self, Checkpoints, Damage, Search, Stored, Unreadable};
use crate::clock::Timer;
use crate::conductor::stage::Stage;
use crate::event::EventKind;
use crate::feed::Feed;
use crate::recorder::{Claim, Recorder, adapter_folder};
use crate::recording::{self, COMPRESSED, Manifest, ManifestError, RecordingError, Version};
use crate::scenario::problem::report::Problems;
use crate::scenario::suggestion::message;
use crate::scenario::{self, Scenario};
use crate::summary::Summary;

/// How a run is taken up again.
#[derive(Clone, Debug, Default)]
pub struct ResumeOptions {
    /// The run directory.
    pub directory: PathBuf,
    /// The scenario's folder, where it is not where it was.
    pub folder: Option<PathBuf>,
    /// The devices; those that the run had where absent.
    pub devices: Option<Devices>,
    /// Where models of the hub are kept and fetched from.
    pub hub: HubSettings,
    /// Go on even where memory is predicted not to suffice, and on devices that are not like those before.
    pub unchecked: bool,
    /// How long the run's waits are.
    pub timer: Timer,
    /// The tick after which the run is saved and left, unfinished.
    pub until: Option<u64>,
}

/// What there is to go on with.
#[derive(Debug)]
pub enum Resumed {
    /// Nothing: the run came to its end.
    Finished(Box<Summary>),
    /// A run that is ready to go on.
    Ready(Box<Prepared>),
}

/// Why a run cannot be taken up again.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The folder holds no run that was set up.
    #[error(
        "{} holds no run that could go on ({}); begin one with `polylogue run SCENARIO --out DIR`",
        message(directory.display()),
        message(reason)
    )]
    NoRun {
        /// The folder.
        directory: PathBuf,
        /// What is missing.
        reason: ManifestError,
    },
    /// The run is older than what resuming needs.
    #[error(
        "{} does not say where its scenario came from: give the scenario's folder with --scenario",
        message(.0.display())
    )]
    NoOrigin(PathBuf),
    /// Another version of the program wrote the run.
    #[error(
        "{} was begun by another version of polylogue, which writes {}, not {ours}: go on with the one that \
         its manifest.json names, or begin a new run",
        message(directory.display()),
        message(found)
    )]
    OtherVersion {
        /// The folder.
        directory: PathBuf,
        /// What that version writes.
        found: String,
        /// What this one writes.
        ours: String,
    },
    /// The scenario in the run directory cannot be used any more.
    #[error(transparent)]
    Scenario(Problems),
    /// Other devices than the run had.
    #[error(
        "{} was begun with --device {recorded}, and with --device {asked} it would not come to the same bits; leave \
         the option out, or go on all the same with --unchecked",
        message(directory.display())
    )]
    Devices {
        /// The folder.
        directory: PathBuf,
        /// What the run had.
        recorded: Devices,
        /// What was asked for.
        asked: Devices,
    },
    /// Data or models are not what they were.
    #[error(
        "the run cannot go on, for this is not what it was made from:\n  {}",
        message(.0.join("\n  "))
    )]
    Inputs(Vec<String>),
    /// A fork that was cut off before it had become a run of its own.
    #[error(
        "{} is a fork that was cut off while it was made: remove the folder and fork again",
        message(.0.display())
    )]
    HalfFork(PathBuf),
    /// A fork whose checkpoints are all damaged.
    #[error(
        "{} is a fork without a good checkpoint, and cannot go on: fork its parent again",
        message(.0.display())
    )]
    LostFork(PathBuf),
    /// A log that was compressed before its run came to its end.
    #[error(
        "the log of {place} was compressed before its run came to its end: bring it back with \
         `gunzip {place}/{COMPRESSED}`, then resume the run",
        place = message(.0.display())
    )]
    Compressed(PathBuf),
    /// Checkpoints that may be good, but that the system does not give us.
    #[error(
        "{0}; nothing was changed: see that the file can be read, or remove that folder to go on from the checkpoint \
         before it"
    )]
    Unreadable(Unreadable),
    /// What a checkpoint holds does not suit the run.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The run cannot go on.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl ResumeError {
    /// Whether the cause is what the user gave us.
    #[must_use]
    pub fn is_input(&self) -> bool {
        match self {
            Self::Run(error) => error.is_input(),
            Self::Unreadable(_) => false,
            _ => true,
        }
    }
}

/// Makes a run ready to go on; `hear` is told of what is fetched from the hub.
///
/// # Errors
/// When the folder holds no run, another process writes it, or what it was made from was changed.
pub fn resume(
    options: &ResumeOptions,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<Resumed, ResumeError> {
    resume_or_fork(options, false, hear)
}

/// The same, also for a fork that is still being made.
pub(super) fn resume_or_fork(
    options: &ResumeOptions,
    forks: bool,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<Resumed, ResumeError> {
    let directory = &options.directory;
    let recorded = Manifest::of(directory).map_err(|reason| no_run(directory, reason))?;
    if recorded.fork.as_ref().is_some_and(|fork| fork["complete"] != true) && !forks {
        return Err(ResumeError::HalfFork(directory.clone()));
    }
    let claim = Claim::of(directory).map_err(RunError::from)?;
    let mut notices = Vec::new();
    match recording::last(directory).map(|event| event.kind) {
        Some(EventKind::RunFinished { stopped: true, .. }) => {
            notices.push("the run was ended early; it goes on from its last checkpoint".to_owned());
        }
        Some(EventKind::RunFinished { .. }) => {
            if let Some(summary) = summary(directory) {
                return Ok(Resumed::Finished(Box::new(summary)));
            }
        }
        _ => {}
    }
    if recording::is_compressed(directory) {
        return Err(ResumeError::Compressed(directory.clone()));
    }
    let mut search = checkpoint::find(directory, None);
    same_version(directory, &search)?;
    if !search.unreadable.is_empty() {
        return Err(ResumeError::Unreadable(search.unreadable.swap_remove(0)));
    }
    // The history of a fork is not what its scenario would make.
    if search.found.is_none() && recorded.fork.is_some() && !forks {
        return Err(ResumeError::LostFork(directory.clone()));
    }
    let scenario = scenario::recorded(directory, &recorded, options.folder.as_deref());
    let scenario = scenario.ok_or_else(|| ResumeError::NoOrigin(directory.clone()))?;
    let scenario = scenario.map_err(ResumeError::Scenario)?;
    let asked = options.devices.as_ref();
    let devices = devices(directory, &recorded.device, asked, options.unchecked)?;
    if !devices.are_like(&recorded.device) {
        notices
            .push(format!("the run had --device {}, and goes on with {devices}", recorded.device));
    }
    let mut parts = same_parts(options, scenario, (&recorded, &devices), hear)?;
    notices.append(&mut parts.notices);
    let Search { found, damaged, .. } = search;
    let after = found.as_ref().map(|stored| stored.manifest.tick);
    let mut prepared = match found {
        Some(stored) => {
            let passed_over = |damage| format!("{damage}; the one before it is taken");
            notices.extend(damaged.iter().map(passed_over));
            continued(claim, parts, &stored)?
        }
        None => {
            notices.extend(damaged.iter().map(ToString::to_string));
            let put = put_aside(&claim, !damaged.is_empty()).map_err(RunError::from)?;
            notices.extend(put.map(|folder| {
                let folder = message(folder.display());
                format!(
                    "there is no checkpoint to go on from: the run begins again, and what was there is in \
                     {folder}"
                )
            }));
            afresh(claim, parts)?
        }
    };
    if devices != recorded.device {
        let moved = recorded.moved(directory, &devices, after);
        let manifest = moved.map_err(|reason| no_run(directory, reason))?;
        prepared.recorder.write("manifest.json", &manifest).map_err(RunError::from)?;
    }
    (prepared.notices, prepared.timer, prepared.until) = (notices, options.timer, options.until);
    Ok(Resumed::Ready(Box::new(prepared)))
}

fn no_run(directory: &Path, reason: ManifestError) -> ResumeError {
    ResumeError::NoRun { directory: directory.into(), reason }
}

/// What the run is made from, on the devices that it goes on with; refused where it is not what it was.
fn same_parts(
    options: &ResumeOptions,
    scenario: Scenario,
    (recorded, devices): (&Manifest, &Devices),
    hear: &mut dyn FnMut(&Fetching),
) -> Result<Parts, ResumeError> {
    let run = RunOptions {
        devices: devices.clone(),
        hub: options.hub.clone(),
        unchecked: options.unchecked,
        initial_seed: Some(recorded.initial_seed()),
        ..RunOptions::default()
    };
    let mut parts = gather(scenario, &run, hear)?;
    let now: Manifest = serde_json::from_value(parts.manifest.take()).map_err(|e| {
        let path = options.directory.join("manifest.json");
        no_run(&options.directory, ManifestError { path, reason: e.to_string() })
    })?;
    let other = recorded.other_inputs(&now);
    if other.is_empty() { Ok(parts) } else { Err(ResumeError::Inputs(other)) }
}

/// The devices that a run goes on with.
pub(super) fn devices(
    directory: &Path,
    recorded: &Devices,
    asked: Option<&Devices>,
    unchecked: bool,
) -> Result<Devices, ResumeError> {
    let asked = asked.unwrap_or(recorded);
    if unchecked || asked.are_like(recorded) {
        return Ok(asked.clone());
    }
    let (directory, recorded, asked) = (directory.into(), recorded.clone(), asked.clone());
    Err(ResumeError::Devices { directory, recorded, asked })
}

/// A log that two versions wrote, one after the other, would be neither's.
pub(super) fn same_version(directory: &Path, search: &Search) -> Result<(), ResumeError> {
    let other = |found: String, ours: String| {
        Err(ResumeError::OtherVersion { directory: directory.into(), found, ours })
    };
    // Where there is no whole header, nothing was written yet that could be lost.
    match recording::open(directory) {
        Ok(log) if log.version() != Version::OURS => {
            return other(log.version().to_string(), Version::OURS.to_string());
        }
        Err(RecordingError::Version { found, .. }) => {
            return other(found.to_string(), Version::OURS.to_string());
        }
        _ => {}
    }
    match &search.foreign {
        Some(found) => other(found.clone(), checkpoint::FORMAT.to_owned()),
        None => Ok(()),
    }
}

/// From the beginning: there is no checkpoint yet.
fn afresh(claim: Claim, parts: Parts) -> Result<Prepared, ResumeError> {
    let Parts { devices, scenario, task, members, .. } = parts;
    let checkpoints = Checkpoints::new(scenario.checkpoints, claim.directory());
    let recorder = Recorder::create(claim).map_err(RunError::from)?;
    let stage = Stage::new(scenario, task, members);
    let (before, until, notices, timer, witness) = (None, None, Vec::new(), Timer::default(), None);
    Ok(Prepared { devices, stage, recorder, checkpoints, before, until, notices, timer, witness })
}

/// From a checkpoint.
fn continued(claim: Claim, parts: Parts, stored: &Stored) -> Result<Prepared, ResumeError> {
    let Parts { devices, scenario, task, mut members, .. } = parts;
    let tick = stored.manifest.tick;
    let damage = |reason: String| Damage { tick, reason };
    let directory = claim.directory().to_owned();
    for (agent, weights) in &stored.manifest.adapters {
        let mind = members.get_mut(agent).map(|member| &mut member.mind);
        let Some(Mind::Model(model)) = mind else {
            return Err(damage(format!("there is no agent `{agent}` with a model")).into());
        };
        if !weights.files.is_empty() {
            let folder = adapter_folder(&directory, agent, weights.generation);
            let loaded = Adapter::load(&folder, &model.backbone);
            model.adapter = Arc::new(loaded.map_err(|e| damage(e.to_string()))?);
        }
        let found = model.adapter.digest().map_err(|e| damage(e.to_string()))?;
        if found != weights.digest {
            let generation = weights.generation;
            return Err(damage(format!("the weights {generation} of {agent} are others")).into());
        }
    }
    let jobs = stored.jobs(&members)?;
    let plan = scenario.checkpoints;
    let stage = Stage::restored(scenario, task, members, stored.stage.clone(), jobs);
    // Nothing is removed before all that can be found wrong was looked at.
    let stage = stage.map_err(damage)?;
    let checkpoints = Checkpoints::after(plan, &directory, stored).map_err(RunError::from)?;
    let recorder = Recorder::reopen(claim, &stored.manifest.log).map_err(RunError::from)?;
    let (before, until) = (Some(stored.summary()), None);
    let (notices, timer, witness) = (Vec::new(), Timer::default(), None);
    Ok(Prepared { devices, stage, recorder, checkpoints, before, until, notices, timer, witness })
}

/// Shows what happened before to whoever watches the rest.
pub(super) async fn catch_up(directory: &Path, feed: &Feed) {
    if !feed.is_watched() {
        return;
    }
    // What cannot be shown is still in the log, which was checked.
    let Ok(past) = recording::open(directory) else { return };
    for recorded in past.map_while(Result::ok) {
        feed.catch_up(recorded.event).await;
    }
}

/// The summary of a run that has one; of a run whose log was compressed, what the log comes to will do.
fn summary(directory: &Path) -> Option<Summary> {
    let text = std::fs::read_to_string(directory.join("summary.json")).ok();
    let written = text.and_then(|text| serde_json::from_str(&text).ok());
    written.or_else(|| {
        let packed = recording::is_compressed(directory);
        packed.then(|| recording::survey(directory).ok().map(|survey| survey.summary))?
    })
}
