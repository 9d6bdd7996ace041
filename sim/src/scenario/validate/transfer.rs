//! Checks of how agents are transferred to their parts.
//!
//! Whether a backbone has the maps that are named is known only when it is loaded; here names that no backbone
//! has are found.

use std::collections::BTreeMap;

use agents::adapter::Method;
use agents::adapter::ia3::Ia3Spec;
use agents::adapter::lora::LoraSpec;
use agents::adapter::vera::VeraSpec;
use miette::SourceSpan;

use super::{Check, Seen, count};
use crate::scenario::TransferPlan;
use crate::scenario::file::{Ia3File, LoraFile, TransferFile};
use crate::scenario::place::At;
use crate::scenario::problem::Problem;
use crate::scenario::suggestion::{advice, quote};
use crate::scenario::words;

impl Check<'_> {
    pub(super) fn transfer(&mut self, name: &str, file: &TransferFile) -> Option<TransferPlan> {
        let method = match file {
            TransferFile::Feature(feature) => {
                return Some(TransferPlan::Feature { labels: self.labels(&feature.labels)? });
            }
            TransferFile::Head(head) => {
                return Some(TransferPlan::Head {
                    freeze_layers: count(&head.freeze_layers),
                    labels: self.labels(&head.labels)?,
                });
            }
            TransferFile::Adapter(adapter) => {
                let labels = adapter.labels.as_ref().map(|typed| self.labels(typed));
                let key = ["agents", name, "transfer", "adapter", "path"];
                let folder = self.path(&key, &adapter.path);
                if let Some(folder) = &folder
                    && (self.setting.look)(folder) != Seen::Folder
                {
                    let path = quote(&folder.display().to_string());
                    self.problems.push(Problem::MissingAdapter { path, at: adapter.path.at });
                }
                let labels = match labels {
                    Some(labels) => Some(labels?),
                    None => None,
                };
                return Some(TransferPlan::Adapter { folder: folder?, labels });
            }
            TransferFile::Lora(lora) => Method::Lora(self.lora(lora)?),
            TransferFile::Ia3(ia3) => Method::Ia3(self.ia3(ia3)),
            TransferFile::Vera(vera) => {
                let (rank, targets) = (count(&vera.rank), self.targets(&vera.targets));
                Method::Vera(VeraSpec { rank, targets, d_initial: 0.1, dropout: 0.0 })
            }
            TransferFile::Prompt(prompt) => Method::Prompt { tokens: count(&prompt.tokens) },
            TransferFile::Prefix(prefix) => Method::Prefix { tokens: count(&prefix.tokens) },
            TransferFile::Full(_) => Method::Full,
        };
        Some(TransferPlan::Text(method))
    }

    fn lora(&mut self, lora: &LoraFile) -> Option<LoraSpec> {
        let rank = count(&lora.rank);
        let alpha = lora.alpha.as_ref().map_or(2.0 * rank as f64, |alpha| alpha.value);
        let targets = self.targets(&lora.targets);
        let init = self.choice("start of low-rank updates", &words::INITS, &lora.init);
        let (rank_stabilized, dora) = (lora.rank_stabilized, lora.dora);
        let (init, dropout) = (init?, lora.dropout.value);
        Some(LoraSpec { rank, alpha, targets, rank_stabilized, dora, dropout, init })
    }

    fn ia3(&mut self, ia3: &Ia3File) -> Ia3Spec {
        let targets = self.targets(&ia3.targets);
        let typed = &ia3.targets.value;
        for name in ia3.feedforward.iter().filter(|name| !typed.contains(name)) {
            let help = advice(&name.value, typed.iter().map(|target| target.value.as_str()));
            let (name, at) = (quote(&name.value), name.at);
            self.problems.push(Problem::FeedforwardWithoutTarget { name, at, help });
        }
        let feedforward = ia3.feedforward.iter().map(|name| name.value.clone()).collect();
        Ia3Spec { targets, feedforward }
    }

    fn targets(&mut self, typed: &At<Vec<At<String>>>) -> Vec<String> {
        let mut seen: BTreeMap<&str, SourceSpan> = BTreeMap::new();
        let mut modules = Vec::new();
        for target in &typed.value {
            let (name, at) = (quote(&target.value), target.at);
            if let Some(&first) = seen.get(target.value.as_str()) {
                self.problems.push(Problem::DuplicateTarget { name, first, at });
                continue;
            }
            seen.insert(&target.value, at);
            if words::targets().contains(&target.value.as_str()) {
                modules.push(target.value.clone());
            } else {
                let help = advice(&target.value, words::targets());
                self.problems.push(Problem::UnknownTarget { name, at, help });
            }
        }
        if typed.value.is_empty() {
            self.problems.push(Problem::NoTargets { at: typed.at });
        }
        modules
    }
}
