//! The disk that a run will need at most, predicted before it begins: no scenario fills a disk by its numbers
//! alone. Memory is foretold in the same way by `run::footprint`.

use std::collections::BTreeMap;
use std::path::Path;

use agents::name::AgentName;
use agents::prompt::LONGEST_QUERY;

use crate::checkpoint::LARGEST_STATE;
use crate::conductor::stage::Member;
use crate::scenario::{AgentPlan, Scenario, TrainPlan, WhenPlan};
use crate::traffic::{TOKEN, Traffic};

/// Bytes of a number in an adapter's file.
const NUMBER: u64 = 4;

/// Bytes of an adapter's files beside its numbers.
const FILES: u64 = 4_096;

/// Bytes of an event without its texts, with room to spare.
const EVENT: u64 = 320;

/// Checkpoints beside those of which a number is kept: where a part of the run begins, and the one being written.
const MORE_CHECKPOINTS: u64 = 5;

/// Predicts from a scenario and its agents; `holdout` is the number of its queries. In bytes.
#[must_use]
pub fn disk(scenario: &Scenario, members: &BTreeMap<AgentName, Member>, holdout: usize) -> u64 {
    let learners = members
        .iter()
        .filter_map(|(name, member)| Some((name, member.adapter()?.trainable() as u64)))
        .map(|(name, trainable)| learning(scenario, name, trainable));
    let learning = learners.fold(0, u64::saturating_add);
    let traffic = Traffic::of(scenario);
    let tokens = LONGEST_QUERY as u64 + scenario.channel.max_tokens as u64;
    let episodes = scenario.episodes.saturating_add(2 * holdout as u64);
    let episode = times(&[traffic.turns.saturating_add(2), EVENT + tokens * TOKEN]);
    let log = times(&[episodes, episode.saturating_add(traffic.names())]);
    log.saturating_add(learning).saturating_add(times(&[kept(scenario), traffic.checkpoint()]))
}

/// How many checkpoints there are at one time.
fn kept(scenario: &Scenario) -> u64 {
    match scenario.checkpoints.keep as u64 {
        0 => 0,
        keep => keep.saturating_add(MORE_CHECKPOINTS),
    }
}

/// Why checkpoints of a run could not be read again, if so.
#[must_use]
pub fn too_much_to_save(scenario: &Scenario) -> Option<String> {
    let need = Traffic::of(scenario).checkpoint();
    (scenario.checkpoints.keep > 0 && need > LARGEST_STATE).then(|| {
        format!(
            "a checkpoint of this run may need {}, and at most {} are read again: choose fewer agents, rounds or \
             concurrent_episodes, or take none with --set checkpoints.keep=0",
            shown(need),
            shown(LARGEST_STATE)
        )
    })
}

/// Why the run is not to begin, if so; where nothing is known of the disk, it may.
#[must_use]
pub fn refusal(need: u64, free: Option<u64>) -> Option<String> {
    let free = free.filter(|free| need > *free)?;
    Some(format!(
        "this run may need {} of disk, and {} are free: choose fewer episodes, shorter messages or triggers that \
         fire less often, or begin it all the same with --unchecked",
        shown(need),
        shown(free)
    ))
}

/// The generations that come of an agent's learning, and its steps in the log.
fn learning(scenario: &Scenario, agent: &AgentName, trainable: u64) -> u64 {
    let mut generations = 1_u64;
    let model = scenario.agents.get(agent).and_then(AgentPlan::model);
    let mut steps = model.map_or(0, |model| model.warm_up.steps as u64);
    for trigger in scenario.triggers.iter().filter(|trigger| trigger.agent == *agent) {
        let rest = match trigger.when {
            WhenPlan::Periodic { every } => every,
            WhenPlan::Threshold { cooldown, .. } => cooldown,
        };
        let firings = scenario.episodes / rest.max(1);
        let each = match trigger.train {
            TrainPlan::Supervised { steps, .. } | TrainPlan::Grpo { steps, .. } => steps as u64,
        };
        generations = generations.saturating_add(firings);
        steps = steps.saturating_add(times(&[firings, each]));
    }
    let weights = times(&[generations, times(&[trainable, NUMBER]).saturating_add(FILES)]);
    weights.saturating_add(times(&[steps, EVENT]))
}

fn times(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product, factor| product.saturating_mul(*factor))
}

fn shown(bytes: u64) -> String {
    match bytes {
        0..=1_073_741_823 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

/// What is free where a folder is, or will be made; none where the system does not say. In bytes.
#[cfg(unix)]
#[must_use]
pub fn free(folder: &Path) -> Option<u64> {
    let absolute = std::path::absolute(folder).ok()?;
    let there = absolute.ancestors().find(|folder| folder.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

/// What is free where a folder is, or will be made; not known here.
#[cfg(not(unix))]
#[must_use]
pub fn free(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_suffice_is_refused_with_both_numbers() {
        assert_eq!(refusal(3 << 30, None), None);
        assert_eq!(refusal(3 << 30, Some(3 << 30)), None);
        let told = refusal(3 << 30, Some(2 << 20)).unwrap();
        assert!(told.contains("3.0 GiB of disk, and 2 MiB are free"), "{told}");
        assert_eq!(times(&[u64::MAX, 3]), u64::MAX);
        assert!(free(Path::new("not/there/yet")).is_none_or(|free| free > 0));
    }
}
