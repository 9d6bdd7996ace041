//! What a scenario means: names that must exist, parts that must fit, files that must be there.
//!
//! Pure: what lies on the disk is asked through [`Setting::look`]. Every mistake is collected; only a file
//! without any becomes a [`Scenario`]. Forms and bounds were checked before by [`super::structure`].

mod data;
mod learning;
mod meeting;
mod society;
mod supervision;
mod transfer;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::file::ScenarioFile;
use super::place::At;
use super::problem::Problem;
use super::{CheckpointPlan, Origin, Scenario};

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing.
    Nothing,
    /// A folder.
    Folder,
    /// A file.
    File {
        /// The names in its first line, where it is data that could be read.
        columns: Vec<String>,
    },
}

/// Where a scenario stands.
pub(super) struct Setting<'a> {
    /// Its folder: what the file's paths are relative to.
    pub(super) folder: &'a Path,
    /// What paths that were given with `--set` are relative to.
    pub(super) working_folder: &'a Path,
    /// Whether a path stays below the folder once links are followed.
    pub(super) stays: &'a dyn Fn(&Path) -> bool,
    /// What lies at a path.
    pub(super) look: &'a dyn Fn(&Path) -> Seen,
    /// Dotted paths of the values that were given with `--set`.
    pub(super) from_command_line: Vec<Vec<String>>,
}

/// Names in the file, whether or not what they name could be decoded.
pub(super) struct Declared {
    agents: BTreeSet<String>,
    backbones: BTreeSet<String>,
    /// The keys of each agent's table.
    keys: BTreeSet<(String, String)>,
}

impl Declared {
    pub(super) fn new(file: &DeTable<'_>) -> Self {
        let names = |table: &str| {
            let table = file.get(table).and_then(|table| table.get_ref().as_table());
            let keys = table.into_iter().flat_map(|table| table.keys());
            keys.map(|key| key.get_ref().to_string()).collect()
        };
        let agents = file.get("agents").and_then(|table| table.get_ref().as_table());
        let agents = agents.into_iter().flat_map(|table| table.iter());
        let keys = agents.flat_map(|(name, agent)| {
            let keys = agent.get_ref().as_table().into_iter().flat_map(|table| table.keys());
            keys.map(move |key| (name.get_ref().to_string(), key.get_ref().to_string()))
        });
        Self { agents: names("agents"), backbones: names("backbone"), keys: keys.collect() }
    }
}

/// The checks under way.
struct Check<'a> {
    file: &'a ScenarioFile,
    declared: &'a Declared,
    setting: &'a Setting<'a>,
    problems: Vec<Problem>,
}

/// Checks a file; `problems` are those found before. The name and the source are filled in by the caller.
pub(super) fn scenario(
    file: &ScenarioFile,
    declared: &Declared,
    setting: &Setting<'_>,
    resolved: &str,
    problems: Vec<Problem>,
) -> Result<Scenario, Vec<Problem>> {
    let mut check = Check { file, declared, setting, problems };
    let scenario = check.scenario(resolved);
    match scenario {
        Some(scenario) if check.problems.is_empty() => Ok(scenario),
        _ => Err(check.problems),
    }
}

impl Check<'_> {
    /// Nothing where a part is missing, which was reported before.
    fn scenario(&mut self, resolved: &str) -> Option<Scenario> {
        let file = self.file;
        let backbones = self.backbones();
        let agents = self.agents();
        let protocol = self.protocol();
        let task = self.task();
        let triggers = self.triggers();
        let supervision = self.supervision();
        let faults = self.faults();
        let (topology, channel, flood) = (self.topology(), self.channel(), self.flood());
        Some(Scenario {
            name: String::new(),
            source: String::new(),
            origin: Origin::default(),
            resolved: resolved.to_owned(),
            seed: file.seed.as_ref().map(count64)?,
            episodes: file.episodes.as_ref().map(count64)?,
            concurrent_episodes: count(&file.concurrent_episodes),
            backbones,
            agents,
            task: task?,
            protocol: protocol?,
            topology: topology?,
            channel: channel?,
            flood,
            triggers,
            training_steps_per_tick: count(&file.training_steps_per_tick),
            supervision: supervision?,
            checkpoints: CheckpointPlan {
                every_ticks: count64(&file.checkpoints.every_ticks),
                keep: count(&file.checkpoints.keep),
            },
            faults,
        })
    }

    /// Where a path of the file leads: below the scenario's folder, or anywhere if it was given with `--set`.
    fn path(&mut self, key: &[&str], typed: &At<String>) -> Option<PathBuf> {
        let given = |path: &Vec<String>| {
            path.len() <= key.len() && path.iter().zip(key).all(|(a, b)| a == b)
        };
        if self.setting.from_command_line.iter().any(given) {
            return Some(self.setting.working_folder.join(&typed.value));
        }
        let path = Path::new(&typed.value);
        let stays = path.components().all(|part| {
            matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir)
        });
        // On every system, so that a scenario means the same everywhere.
        let foreign = typed.value.contains('\\') || typed.value.get(1..2) == Some(":");
        if stays && !foreign {
            let path = self.setting.folder.join(path);
            if (self.setting.stays)(&path) {
                return Some(path);
            }
        }
        self.problems.push(Problem::PathLeavesFolder {
            key: key.join("."),
            path: super::suggestion::quote(&typed.value),
            at: typed.at,
        });
        None
    }
}

/// A number that the bounds of the schema have made small and positive, or that was reported.
fn count(number: &At<i64>) -> usize {
    usize::try_from(number.value).unwrap_or_default()
}

/// Like [`count`], for numbers that do not count memory.
fn count64(number: &At<i64>) -> u64 {
    u64::try_from(number.value).unwrap_or_default()
}
