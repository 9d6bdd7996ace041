//! The closed choices of the scenario file: each word and what it stands for.
//!
//! The schema, the checks and their advice all read these tables; a new choice is one line here.

use agents::adapter::lora::Init;
use agents::backbone::Precision;
use agents::backbone::builtin;
use agents::backbone::names::Module;
use agents::learning::optimizer::{AdamW, Lion, Method, Sgd};
use agents::learning::schedule::Shape;

use super::{BackboneSource, Escalation, FaultKind, Labels, Signal};
use crate::restart::Strategy;

/// Pretrained networks inside the binary.
pub(super) const BUILTINS: [(&str, BackboneSource); 1] = [(builtin::NAME, BackboneSource::Builtin)];

/// What networks compute in.
pub(super) const PRECISIONS: [(&str, Precision); 3] = Precision::NAMES;

/// What classifiers tell apart.
pub(super) const LABELS: [(&str, Labels); 2] =
    [("intent", Labels::Intent), ("resolved", Labels::Resolved)];

/// Numbers that triggers watch.
pub(super) const SIGNALS: [(&str, Signal); 3] = [
    ("reward", Signal::Reward),
    ("intent_correct", Signal::IntentCorrect),
    ("verdict_correct", Signal::VerdictCorrect),
];

/// Where low-rank updates start.
pub(super) const INITS: [(&str, Init); 3] =
    [("kaiming", Init::Kaiming), ("gaussian", Init::Gaussian), ("pissa", Init::Pissa)];

/// Optimisers, with their usual numbers.
pub(super) const OPTIMIZERS: [(&str, Method); 3] = [
    ("adamw", Method::AdamW(AdamW::USUAL)),
    ("sgd", Method::Sgd(Sgd::USUAL)),
    ("lion", Method::Lion(Lion::USUAL)),
];

/// What the learning rate does after it has risen; those that fall end at a tenth.
pub(super) const SCHEDULES: [(&str, Shape); 4] = [
    ("constant", Shape::Constant),
    ("linear", Shape::Linear { floor: 0.1 }),
    ("cosine", Shape::Cosine { floor: 0.1 }),
    ("inverse_square_root", Shape::InverseSquareRoot),
];

/// Who is started anew when one fails.
pub(super) const STRATEGIES: [(&str, Strategy); 3] = [
    ("one_for_one", Strategy::OneForOne),
    ("one_for_all", Strategy::OneForAll),
    ("rest_for_one", Strategy::RestForOne),
];

/// What follows when an essential part failed too often.
pub(super) const ESCALATIONS: [(&str, Escalation); 2] =
    [("end_run", Escalation::EndRun), ("restart_all", Escalation::RestartAll)];

/// Ordered faults; how late a slow reply is stands beside the word.
pub(super) const FAULTS: [(&str, FaultKind); 8] = [
    ("panic", FaultKind::Panic),
    ("hang", FaultKind::Hang),
    ("slow_reply", FaultKind::SlowReply(0)),
    ("malformed_reply", FaultKind::MalformedReply),
    ("out_of_memory", FaultKind::OutOfMemory),
    ("lost_engine", FaultKind::LostEngine),
    ("lost_trainer", FaultKind::LostTrainer),
    ("disk_full", FaultKind::DiskFull),
];

/// Endings of data files.
pub(super) const DATA_FORMATS: [&str; 2] = ["jsonl", "csv"];

/// The linear maps that adapters change, as some family names them, and the word for all of them.
pub(super) fn targets() -> Vec<&'static str> {
    let mut names = Module::target_names();
    names.push("all-linear");
    names
}

/// The words of a choice.
pub(super) fn names<T>(choice: &[(&'static str, T)]) -> Vec<&'static str> {
    choice.iter().map(|(name, _)| *name).collect()
}

/// What a word stands for.
pub(super) fn meaning<T: Clone>(choice: &[(&'static str, T)], word: &str) -> Option<T> {
    choice.iter().find(|(name, _)| *name == word).map(|(_, meaning)| meaning.clone())
}
