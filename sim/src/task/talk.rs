//! Free talk: an episode begins with some words, and nothing is right or wrong. What is measured is how far the
//! agents agree at its end.

use std::collections::BTreeMap;

use crate::scenario::TalkPlan;

/// What episodes begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Talk {
    openings: Vec<String>,
}

impl Talk {
    /// The talk of a scenario.
    #[must_use]
    pub fn new(plan: &TalkPlan) -> Self {
        Self { openings: plan.openings.clone() }
    }

    /// How many openings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.openings.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.openings.is_empty()
    }

    /// What an episode begins with.
    #[must_use]
    pub fn opening(&self, item: usize) -> &str {
        self.openings.get(item).map_or("", String::as_str)
    }
}

/// The commonest of the agents' last words, the first in the alphabet where several are, and the share of the
/// agents that said it; none where nobody said anything.
pub fn agreement<'w>(last: impl Iterator<Item = &'w str>) -> Option<(&'w str, f64)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    last.for_each(|words| *counts.entry(words).or_default() += 1);
    let (all, most) = (counts.values().sum::<usize>(), counts.values().copied().max()?);
    let (words, _) = counts.into_iter().find(|(_, count)| *count == most)?;
    Some((words, most as f64 / all as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_the_share_of_the_commonest_words() {
        assert_eq!(agreement(["b", "a", "b", "c"].into_iter()), Some(("b", 0.5)));
        assert_eq!(agreement(["b", "a"].into_iter()), Some(("a", 0.5)));
        assert_eq!(agreement(std::iter::empty()), None);
    }
}
