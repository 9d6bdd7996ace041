//! What a tuning came to: scores, settings, times and loss curves, as they are written to `report.json`.
//!
//! Only holds and sums up; nothing is measured here.

use serde::Serialize;
use serde_json::{Value, json};

use super::data::{Data, Part};
use super::plan::{MethodPlan, Plan, Split, Stage};
use crate::backbone::DeviceKind;
use crate::metric::classes::{ClassScore, ClassScores};
use crate::metric::interval::mean_interval;

/// Points of a loss curve at most.
const POINTS: usize = 60;

/// A finished tuning.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The model.
    pub model: String,
    /// Where it came from, and the SHA-256 of each of its files.
    pub origin: Value,
    /// The device that it was tuned on.
    pub device: String,
    /// The method's name.
    pub method: &'static str,
    /// Everything that was set, with what nobody said filled in.
    pub settings: Value,
    /// Classes.
    pub labels: usize,
    /// Numbers that a training changes.
    pub trained: usize,
    /// Share that was right: mean of the parts.
    pub accuracy: f64,
    /// Half of its 95 % interval; none for fewer than two parts.
    pub accuracy_half: Option<f64>,
    /// Mean F1 of the classes: mean of the parts.
    pub macro_f1: f64,
    /// Half of its 95 % interval.
    pub macro_f1_half: Option<f64>,
    /// What always saying the commonest class of a part's test gives.
    pub majority: f64,
    /// Wall time of reading texts with the frozen model, once for all trainings, in seconds.
    pub reading_seconds: f64,
    /// Wall time of everything in seconds.
    pub seconds: f64,
    /// Each training.
    pub parts: Vec<PartReport>,
}

/// One training and what it was measured on.
#[derive(Clone, Debug, Serialize)]
pub struct PartReport {
    /// Its name.
    pub name: String,
    /// Its seed.
    pub seed: u64,
    /// Examples it learned from.
    pub train: usize,
    /// Examples it was measured on.
    pub test: usize,
    /// Share that was right.
    pub accuracy: f64,
    /// Mean F1 of the classes.
    pub macro_f1: f64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// The trainings one after another.
    pub stages: Vec<StageReport>,
    /// Each class.
    pub classes: Vec<NamedScore>,
}

/// A class and its scores.
#[derive(Clone, Debug, Serialize)]
pub struct NamedScore {
    /// The class.
    pub label: String,
    /// Its scores.
    #[serde(flatten)]
    pub score: ClassScore,
}

/// One training with one set of numbers.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// `head` or the method.
    pub name: &'static str,
    /// Numbers that it changed.
    pub trained: usize,
    /// Its numbers.
    pub settings: Stage,
    /// Optimiser steps.
    pub steps: usize,
    /// Tokens that went through the network; none where their features were known.
    pub tokens: usize,
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Steps and the mean loss up to there since the point before.
    pub curve: Vec<(usize, f64)>,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        data: &Data,
        trained: usize,
        parts: Vec<PartReport>,
        [reading_seconds, seconds]: [f64; 2],
        (origin, device): (Value, DeviceKind),
    ) -> Self {
        let over = |value: fn(&PartReport) -> f64| {
            let (mean, half) = mean_interval(&parts.iter().map(value).collect::<Vec<f64>>());
            (mean, Some(half).filter(|half| half.is_finite()))
        };
        let (accuracy, accuracy_half) = over(|part| part.accuracy);
        let (macro_f1, macro_f1_half) = over(|part| part.macro_f1);
        let (majority, _) = over(|part| {
            let most = part.classes.iter().map(|class| class.score.support).max();
            most.unwrap_or(0) as f64 / part.test.max(1) as f64
        });
        Self {
            model: plan.model.clone(),
            origin,
            device: device.to_string(),
            method: plan.method.name(),
            settings: settings(plan),
            labels: data.labels.len(),
            trained,
            accuracy,
            accuracy_half,
            macro_f1,
            macro_f1_half,
            majority,
            reading_seconds,
            seconds,
            parts,
        }
    }
}

fn settings(plan: &Plan) -> Value {
    let files = |sources: &[super::plan::Source]| -> Vec<String> {
        sources.iter().map(|source| source.path.display().to_string()).collect()
    };
    let split = match &plan.data.split {
        Split::Test(test) => json!({"test": files(test)}),
        Split::Folds(folds) => json!({"folds": folds}),
        Split::Validate(share) => json!({"validate": share}),
    };
    let method = match &plan.method {
        MethodPlan::Lora(lora) => json!(lora),
        MethodPlan::Ia3(ia3) => json!(ia3),
        MethodPlan::Layers(frozen) => json!({"freeze_layers": frozen}),
        MethodPlan::Frozen | MethodPlan::Full => json!({}),
    };
    json!({
        "seed": plan.seed,
        "repeats": plan.repeats,
        "train": files(&plan.data.train),
        "split": split,
        "shots": plan.data.shots,
        "longest": plan.data.longest,
        "method": method,
        "pooling": plan.pooling,
        "standardize": plan.standardize,
        "standardized": standardized(plan),
        "probe": plan.probe,
        "dtype": plan.precision,
        "ensemble": plan.ensemble,
        "training": plan.training,
    })
}

/// Whether the tuned classifier really reads features of zero mean and unit spread: their scale is taken from
/// features of the frozen model, which a head that is trained with the model from the start never sees.
fn standardized(plan: &Plan) -> bool {
    plan.standardize && (plan.method == MethodPlan::Frozen || plan.probe.is_some())
}

impl PartReport {
    pub(super) fn new(
        part: &Part,
        labels: &[String],
        scores: &ClassScores,
        stages: Vec<StageReport>,
        seconds: f64,
    ) -> Self {
        let named = |(label, score): (&String, &ClassScore)| NamedScore {
            label: label.clone(),
            score: *score,
        };
        Self {
            name: part.name.clone(),
            seed: part.seed,
            train: part.train.len(),
            test: part.test.len(),
            accuracy: scores.accuracy,
            macro_f1: scores.macro_f1,
            seconds,
            stages,
            classes: labels.iter().zip(&scores.classes).map(named).collect(),
        }
    }
}

impl StageReport {
    pub(super) fn new(
        name: &'static str,
        settings: &Stage,
        trained: usize,
        losses: &[f64],
        tokens: usize,
        seconds: f64,
    ) -> Self {
        let length = losses.len().div_ceil(POINTS).max(1);
        let mut curve = Vec::new();
        for (index, window) in losses.chunks(length).enumerate() {
            let mean = window.iter().sum::<f64>() / window.len() as f64;
            curve.push((index * length + window.len(), mean));
        }
        let tokens_per_second = tokens as f64 / seconds.max(1e-9);
        let (settings, steps) = (*settings, losses.len());
        Self { name, trained, settings, steps, tokens, tokens_per_second, seconds, curve }
    }

    /// The last point of the loss curve.
    #[must_use]
    pub fn last_loss(&self) -> f64 {
        self.curve.last().map_or(f64::NAN, |(_, loss)| *loss)
    }
}
