//! What a stage that goes on in a changed scenario takes along of what it remembers by position: how often each
//! ordered fault has struck, and what each trigger has seen.

use super::Snapshot;
use crate::scenario::{Scenario, TriggerPlan, WhenPlan};
use crate::training::trigger::Trigger;

impl Snapshot {
    /// Gives each fault and trigger of the changed scenario what it remembers of the time before: a fault only
    /// where it is the same, a trigger also where it looks at the same signal of the same agent. All others
    /// begin anew.
    pub fn carry_over(&mut self, before: &Scenario, after: &Scenario) {
        let struck = &self.oversight.struck;
        let same = places(&before.faults, &after.faults, |one, other| one == other);
        let count = |place: Option<usize>| place.and_then(|place| struck.get(place).copied());
        self.oversight.struck = same.map(|place| count(place).unwrap_or_default()).collect();
        let same = places(&before.triggers, &after.triggers, looks_at_the_same);
        let memories = same.zip(&after.triggers).map(|(place, plan)| {
            let memory = place.and_then(|place| self.triggers.get(place).cloned());
            memory.unwrap_or_else(|| Trigger::new(plan.when).memory().clone())
        });
        self.triggers = memories.collect();
    }
}

/// Whether what one trigger has seen is what the other would have.
fn looks_at_the_same(one: &TriggerPlan, other: &TriggerPlan) -> bool {
    let signal = |when: WhenPlan| match when {
        WhenPlan::Threshold { signal, .. } => Some(signal),
        WhenPlan::Periodic { .. } => None,
    };
    one.agent == other.agent && signal(one.when) == signal(other.when)
}

/// Where each plan stood before, or the first one like it; each is found once.
fn places<'a, P>(
    before: &'a [P],
    after: &'a [P],
    alike: impl Fn(&P, &P) -> bool + Copy + 'a,
) -> impl Iterator<Item = Option<usize>> + 'a {
    let stays =
        move |place: &usize| before.get(*place).is_some_and(|plan| alike(plan, &after[*place]));
    let mut taken: Vec<usize> = (0..after.len()).filter(stays).collect();
    after.iter().enumerate().map(move |(place, plan)| {
        if stays(&place) {
            return Some(place);
        }
        let mut free = (0..before.len()).filter(|place| !taken.contains(place));
        let found = free.find(|place| alike(&before[*place], plan))?;
        taken.push(found);
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(before: &str, after: &str) -> Vec<Option<usize>> {
        let [before, after] = [before, after].map(|text| text.chars().collect::<Vec<_>>());
        places(&before, &after, |one, other| one == other).collect()
    }

    #[test]
    fn what_is_the_same_keeps_its_memory_wherever_it_stands_and_nothing_else_does() {
        assert_eq!(found("ab", "ab"), [Some(0), Some(1)]);
        assert_eq!(found("ab", "xb"), [None, Some(1)]);
        assert_eq!(found("ab", "xab"), [None, Some(0), Some(1)]);
        assert_eq!(found("ab", "ba"), [Some(1), Some(0)]);
        assert_eq!(found("a", "aa"), [Some(0), None]);
        assert_eq!(found("aab", "ba"), [Some(2), Some(1)]);
        assert_eq!(found("", "a"), [None]);
    }
}
