//! A pass over the holdout: the society answers each query, then the evaluator judges a right and a wrong
//! reply to each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{Said, Scores, Spoken};
use crate::metric::auc::auc;

/// What the pass has seen so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Holdout {
    items: usize,
    intents: usize,
    resolved: usize,
    verdicts: Vec<(f64, bool)>,
    /// What each query was understood to be about, for the evaluator to hear.
    topics: BTreeMap<usize, Spoken>,
}

impl Holdout {
    pub(super) fn episode(&mut self, intent_correct: bool, resolved: bool) {
        self.items += 1;
        self.intents += usize::from(intent_correct);
        self.resolved += usize::from(resolved);
    }

    pub(super) fn understood(&mut self, item: usize, said: &[Option<Spoken>]) {
        let mut said = said.iter().flatten();
        let label = said.find(|spoken| matches!(&***spoken, Said::Label { .. }));
        self.topics.extend(label.map(|label| (item, label.clone())));
    }

    pub(super) fn topic(&self, item: usize) -> Option<&Spoken> {
        self.topics.get(&item)
    }

    pub(super) fn verdict(&mut self, probability: f64, truth: bool) {
        self.verdicts.push((probability, truth));
    }

    pub(super) fn scores(&self) -> Scores {
        let share = |count: usize| count as f64 / self.items.max(1) as f64;
        Scores {
            items: self.items,
            intent_accuracy: share(self.intents),
            resolved_rate: share(self.resolved),
            evaluator_auc: auc(&self.verdicts),
        }
    }
}
