//! Playing a recorded run again, in a temporary place, and comparing it with the recording while it goes:
//! event by event, byte by byte, then adapter by adapter.
//!
//! The second run stops at the first difference. A recording of a run that was ended early is ended in the
//! same tick; one that a crash cut off is compared as far as it goes.

mod adapters;
mod comparison;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

use self::comparison::{Comparison, Outcome};
use crate::backbone::{Devices, Fetching, HubSettings};
use crate::control::Control;
use crate::divergence::Divergence;
use crate::feed::Feed;
use crate::recording::{self, Manifest, ManifestError, RecordingError, Survey};
use crate::run::{self, Prepared, RunError, RunOptions};
use crate::scenario;
use crate::scenario::problem::report::Problems;
use crate::scenario::suggestion::message;

/// How a verification is asked for.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// The run directory.
    pub directory: PathBuf,
    /// The scenario's folder, where it is not where it was.
    pub folder: Option<PathBuf>,
    /// The devices; those that the run had where absent.
    pub devices: Option<Devices>,
    /// Where models of the hub are kept and fetched from.
    pub hub: HubSettings,
    /// Equal events that are kept to be shown before a difference.
    pub context: usize,
    /// Begin even where memory or disk are predicted not to suffice.
    pub unchecked: bool,
}

/// Why a run cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The recording cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// How the run was made is not known.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The run is older than what verification needs.
    #[error(
        "{} does not say where its scenario came from: give the scenario's folder with --scenario",
        message(.0.display())
    )]
    NoOrigin(PathBuf),
    /// A fork begins with the history of another run.
    #[error(
        "{} is a fork: its history up to the fork is another run's, which can be verified itself",
        message(.0.display())
    )]
    Fork(PathBuf),
    /// The scenario in the run directory cannot be used any more.
    #[error(transparent)]
    Scenario(Problems),
    /// Data or models are not what they were.
    #[error("this is not what the run was made from:\n  {}", message(.0.join("\n  ")))]
    Inputs(Vec<String>),
    /// The second run cannot begin, or did not end.
    #[error(transparent)]
    Run(RunError),
    /// There is no place for the second run.
    #[error("could not make a temporary folder: {0}")]
    Place(std::io::Error),
}

impl VerifyError {
    /// Whether the cause is what the user gave us.
    #[must_use]
    pub fn is_input(&self) -> bool {
        match self {
            Self::Run(error) => error.is_input(),
            Self::Place(_) => false,
            _ => true,
        }
    }
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Events found equal.
    pub events: u64,
    /// Events of the recording.
    pub of: u64,
    /// The tick that just ended.
    pub tick: u64,
}

/// A second run that is ready to begin.
#[derive(Debug)]
pub struct Verification {
    prepared: Prepared,
    survey: Survey,
    /// What a person should know before, a line each.
    notices: Vec<String>,
    directory: PathBuf,
    context: usize,
    /// Where the second run is made.
    made: PathBuf,
}

/// The folder in which a run is played again; removed with this, whatever came of it. To be kept until nothing
/// plays there any more.
#[derive(Debug)]
pub struct Place(TempDir);

impl Place {
    /// A new one.
    ///
    /// # Errors
    /// When no temporary folder can be made.
    pub fn new() -> Result<Self, VerifyError> {
        let folder = tempfile::Builder::new().prefix("polylogue-verify-").tempdir();
        folder.map(Self).map_err(VerifyError::Place)
    }

    /// The directory of the second run.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.0.path().join("run")
    }
}

/// What a verification came to.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Events found equal.
    pub events: u64,
    /// The last tick compared.
    pub tick: u64,
    /// The first difference; none where all is equal.
    pub divergence: Option<Divergence>,
    /// SHA-256 of the log as far as it is equal, header included, in hexadecimal.
    pub sha256: String,
    /// Adapters that are the same in all of their files.
    pub adapters: usize,
    /// Adapters that are not, or that the run directory does not hold.
    pub other_adapters: Vec<String>,
    /// What there was to compare.
    pub survey: Survey,
}

impl Verdict {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.divergence.is_none() && self.other_adapters.is_empty()
    }
}

/// Reads the recording and all that its run was made from, and checks that it is unchanged; the second run will
/// be made in the directory `made`.
///
/// # Errors
/// When something is missing, damaged or not what it was.
pub fn prepare(
    options: &VerifyOptions,
    made: PathBuf,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<Verification, VerifyError> {
    let directory = options.directory.clone();
    let survey = recording::survey(&directory)?;
    let manifest = Manifest::of(&directory)?;
    if manifest.fork.is_some() {
        return Err(VerifyError::Fork(directory));
    }
    let scenario = scenario::recorded(&directory, &manifest, options.folder.as_deref());
    let scenario = scenario.ok_or_else(|| VerifyError::NoOrigin(directory.clone()))?;
    let scenario = scenario.map_err(VerifyError::Scenario)?;
    let run = RunOptions {
        out: Some(made.clone()),
        devices: options.devices.clone().unwrap_or_else(|| had(&manifest).clone()),
        hub: options.hub.clone(),
        unchecked: options.unchecked,
        ..RunOptions::default()
    };
    let prepared = run::prepare(scenario, &run, hear).map_err(VerifyError::Run)?;
    let now = Manifest::of(&made)?;
    let other = manifest.other_inputs(&now);
    if !other.is_empty() {
        return Err(VerifyError::Inputs(other));
    }
    let notices = notices(&manifest, &now);
    Ok(Verification { prepared, survey, notices, directory, context: options.context, made })
}

/// The devices to compare with: those that a run began with, or others that have the same bits and had it last.
fn had(manifest: &Manifest) -> &Devices {
    let first = manifest.devices_at(0);
    if manifest.changed_devices().is_some() { first } else { &manifest.device }
}

/// What differs besides the inputs, and may be why a run does.
fn notices(recorded: &Manifest, now: &Manifest) -> Vec<String> {
    let parts = [
        ("version of polylogue", &recorded.polylogue, &now.polylogue),
        ("platform", &recorded.platform, &now.platform),
    ];
    let other = parts.into_iter().filter(|(_, recorded, now)| recorded != now);
    let other =
        other.map(|(what, recorded, now)| format!("the {what} was {recorded} and is {now}"));
    let (first, now) = (had(recorded), &now.device);
    let devices = (!first.are_like(now))
        .then(|| format!("the run had --device {first}, and is played again with {now}"));
    let changed = recorded.changed_devices().map(|(tick, before)| {
        let then = recorded.devices_at(tick + 1);
        format!(
            "the run went on with --device {then} after tick {tick}, and had {before} up to there: what comes after \
             need not come out the same"
        )
    });
    other.chain(devices).chain(changed).map(message).collect()
}

impl Verification {
    /// What a person should know before it begins, a line each.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Plays the run again and compares; `hear` is told after each tick.
    ///
    /// # Errors
    /// When the second run fails before it differs, or a file cannot be read.
    pub async fn run(
        self,
        hear: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Verdict, VerifyError> {
        let Self { mut prepared, survey, directory, context, made, .. } = self;
        let control = Control::default();
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let recording = recording::open(&directory)?;
        let (stop, told, hear) = (control.clone(), Arc::clone(&outcome), Box::new(hear));
        let comparison = Comparison::new(recording, &survey, context, stop, told, hear)?;
        prepared.observe(Box::new(comparison));
        let result = prepared.play(Feed::unwatched(), control).await;
        let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Outcome { events, tick, divergence, sha256, missing, complete } = outcome;
        if let (Err(error), None, false) = (result, &divergence, complete) {
            return Err(VerifyError::Run(error));
        }
        let divergence = divergence.or(missing);
        let (adapters, other_adapters) = match divergence {
            None => adapters::compare(&directory, &made),
            Some(_) => (0, Vec::new()),
        };
        Ok(Verdict { events, tick, divergence, sha256, adapters, other_adapters, survey })
    }
}

/// The directory of a run, for messages.
#[must_use]
pub fn shown(directory: &Path) -> String {
    message(directory.display())
}
