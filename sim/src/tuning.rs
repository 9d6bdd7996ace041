//! Tuning a pretrained model as a classifier, without a society: freeze the base, add a linear head, train.
//!
//! A recipe becomes a plan, the plan trainings on parts of the data, each training an adapter in PEFT's
//! layout, its predictions and a report. With a probe, the head is trained on frozen features first, and the
//! model changed together with it then (Kumar et al. 2022, arXiv 2202.10054). Shows nothing by itself.

pub mod data;
pub mod error;
pub mod plan;
pub mod recipe;
pub mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use agents::adapter::{Adapter, AdapterSpec, Method};
use agents::backbone::Backbone;
use agents::device::Device;
use agents::error::ModelError;
use agents::learning::job::{Job, JobSpec, Lesson};
use agents::learning::objective::supervised::{ClassExample, Examples, Features, classes};
use agents::seed::Seed;
use serde_json::Value;

use self::data::{Data, Part};
use self::error::TuneError;
use self::plan::{Ensemble, Plan, Stage};
use self::report::{PartReport, Report, StageReport};
use crate::backbone::{self, DeviceKind, Fetching, HubSettings};
use crate::clock::Stopwatch;
use crate::metric::classes::ClassScores;
use crate::scenario::BackboneSource;
use crate::scenario::suggestion::quote;

/// Where a probe that answers together with the model is kept, in the folder of its adapter.
const PROBE: &str = "probe";

/// What happens while a tuning goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The model comes from the hub.
    Fetching(Fetching),
    /// Data and model are read.
    Ready {
        /// Classes.
        classes: usize,
        /// Trainings.
        parts: usize,
        /// Numbers that each training changes.
        trained: usize,
        /// Numbers of the whole model.
        parameters: usize,
    },
    /// The frozen model reads texts, once for all trainings.
    Reading {
        /// How many.
        examples: usize,
    },
    /// A training begins.
    Began {
        /// Its part.
        part: String,
        /// `head` or the method.
        stage: &'static str,
        /// Examples.
        examples: usize,
        /// Steps to come.
        steps: usize,
    },
    /// A step was taken.
    Stepped {
        /// Which, from 1.
        step: usize,
        /// Of how many.
        steps: usize,
        /// Its loss.
        loss: f64,
        /// Seconds since the training began.
        seconds: f64,
        /// Seconds it will still take.
        left: f64,
    },
    /// A part was measured.
    Scored {
        /// Its part.
        part: String,
        /// Share that was right.
        accuracy: f64,
        /// Mean F1 of the classes.
        macro_f1: f64,
    },
}

/// Runs a plan on a device and writes its results into `out`; `hear` is told what happens.
///
/// # Errors
/// When `out` holds something, data or model cannot be used, a training diverges, or a file cannot be written.
pub fn tune(
    plan: &Plan,
    device: DeviceKind,
    out: &Path,
    hub: &HubSettings,
    mut hear: impl FnMut(&Progress),
) -> Result<Report, TuneError> {
    let watch = Stopwatch::start();
    refuse_used(out)?;
    let place = device.open().map_err(TuneError::Device)?;
    let data = Data::read(&plan.data)?;
    let parts = data.parts(&plan.data, plan.seed, plan.repeats)?;
    let mut tuning = Tuning::new(plan, &data, &place, hub, &mut hear)?;
    create(out)?;
    let trained = tuning.first(&parts)?;
    let parameters = tuning.backbone.network.architecture().parameters();
    let (classes, count) = (data.labels.len(), parts.len());
    hear(&Progress::Ready { classes, parts: count, trained, parameters });
    let reading = Stopwatch::start();
    tuning.read(&parts, &mut hear)?;
    let read = reading.seconds();
    let mut reports = Vec::new();
    for part in &parts {
        let folder = match count {
            1 => out.to_owned(),
            _ => out.join(part.name.replace(' ', "-")),
        };
        reports.push(tuning.run(part, &folder, &mut hear)?);
    }
    let origins = (tuning.origin, device);
    let report = Report::new(plan, &data, trained, reports, [read, watch.seconds()], origins);
    let json = serde_json::to_string_pretty(&report).unwrap_or_default() + "\n";
    write(&out.join("report.json"), &json)?;
    Ok(report)
}

/// What all parts share.
struct Tuning<'a> {
    plan: &'a Plan,
    data: &'a Data,
    backbone: Arc<Backbone>,
    /// Where it came from.
    origin: Value,
    /// The tokens of every example.
    tokens: Vec<Vec<u32>>,
    /// Features under the frozen model, with the row of each example; empty where none are needed.
    features: Option<Features>,
    rows: BTreeMap<usize, u32>,
}

impl<'a> Tuning<'a> {
    fn new(
        plan: &'a Plan,
        data: &'a Data,
        device: &Device,
        hub: &HubSettings,
        hear: &mut impl FnMut(&Progress),
    ) -> Result<Self, TuneError> {
        let fail = |error: ModelError| TuneError::model(&plan.model, error);
        let source = source(&plan.model)?;
        let mut fetching = |fetching: &Fetching| hear(&Progress::Fetching(fetching.clone()));
        let opened = backbone::open(&source, device, plan.precision, hub, &mut fetching);
        let opened = opened.map_err(fail)?;
        let (backbone, origin) = (opened.backbone, opened.origin);
        let longest = plan.data.longest.min(backbone.network.architecture().positions);
        let tokenizer = &backbone.tokenizer;
        let tokens = data
            .examples
            .iter()
            .map(|example| tokenizer.encode_with_specials(&example.text, longest))
            .collect::<Result<Vec<_>, _>>()
            .map_err(fail)?;
        if let Some(empty) = tokens.iter().position(Vec::is_empty) {
            let what = format!("example {} is empty", empty + 1);
            return Err(TuneError::setting(what, "remove it from the data"));
        }
        let (features, rows) = (None, BTreeMap::new());
        Ok(Self { plan, data, backbone: Arc::new(backbone), origin, tokens, features, rows })
    }

    /// Tries the first adapter on the first example, so that what does not suit is found before anything is
    /// trained; the count of trained numbers.
    fn first(&self, parts: &[Part]) -> Result<usize, TuneError> {
        let adapter = self.start(self.plan.seed)?;
        let text = parts.first().and_then(|part| part.test.first().or(part.train.first()));
        let texts: Vec<&[u32]> = text.iter().map(|&&i| self.tokens[i].as_slice()).collect();
        classes(&self.backbone, &adapter, &texts)
            .map_err(|error| TuneError::model(&self.plan.model, error))?;
        Ok(adapter.trainable())
    }

    /// Computes the features that trainings of a head share.
    fn read(&mut self, parts: &[Part], hear: &mut impl FnMut(&Progress)) -> Result<(), TuneError> {
        let frozen = self.plan.method == plan::MethodPlan::Frozen;
        let answers = frozen || self.plan.ensemble.is_some();
        if !answers && self.plan.probe.is_none() {
            return Ok(());
        }
        let mut needed: BTreeSet<usize> = BTreeSet::new();
        for part in parts {
            needed.extend(&part.train);
            if answers {
                needed.extend(&part.test);
            }
        }
        hear(&Progress::Reading { examples: needed.len() });
        let texts: Vec<&[u32]> = needed.iter().map(|&i| self.tokens[i].as_slice()).collect();
        let adapter = self.adapter(Method::Frozen, 0).map_err(TuneError::Training)?;
        let features = Features::of(&self.backbone, &adapter, &texts);
        self.features = Some(features.map_err(TuneError::Training)?);
        self.rows = needed.into_iter().zip(0..).collect();
        Ok(())
    }

    /// The features of some examples, where they were computed.
    fn known(&self, examples: &[usize]) -> Result<Option<Features>, TuneError> {
        let rows: Option<Vec<u32>> = examples.iter().map(|i| self.rows.get(i).copied()).collect();
        match (&self.features, rows) {
            (Some(all), Some(rows)) => all.pick(&rows).map(Some).map_err(TuneError::Training),
            _ => Ok(None),
        }
    }

    /// Features of a part's test under an adapter.
    fn tested(&self, adapter: &Adapter, part: &Part) -> Result<Features, TuneError> {
        if adapter.spec().method == Method::Frozen
            && let Some(features) = self.known(&part.test)?
        {
            return Ok(features);
        }
        let texts: Vec<&[u32]> = part.test.iter().map(|&i| self.tokens[i].as_slice()).collect();
        Features::of(&self.backbone, adapter, &texts).map_err(TuneError::Training)
    }

    /// What the adapter says of a part's test, alone or together with a probe that has a share of the answer.
    fn said(
        &self,
        adapter: &Adapter,
        probe: Option<(&Adapter, f64)>,
        part: &Part,
    ) -> Result<Vec<usize>, TuneError> {
        if part.test.is_empty() {
            return Ok(Vec::new());
        }
        let features = self.tested(adapter, part)?;
        let Some((probe, share)) = probe else {
            return features.classes(adapter).map_err(TuneError::Training);
        };
        let own = features.probabilities(adapter).map_err(TuneError::Training)?;
        let other = self.tested(probe, part)?;
        let other = other.probabilities(probe).map_err(TuneError::Training)?;
        Ok(own.iter().zip(&other).map(|(own, other)| together(own, other, share)).collect())
    }

    /// What an adapter learns from.
    fn examples(&self, adapter: &Adapter, part: &Part) -> Result<Examples, TuneError> {
        let label = |&index: &usize| self.data.examples[index].label;
        if adapter.spec().method == Method::Frozen
            && let Some(features) = self.known(&part.train)?
        {
            let labels = part.train.iter().map(label).collect();
            return Ok(Examples::Features { features, labels });
        }
        let example = |index: &usize| ClassExample {
            tokens: self.tokens[*index].clone(),
            label: label(index),
        };
        Ok(Examples::Classes(part.train.iter().map(example).collect()))
    }

    /// The adapter that a training starts from; wrong targets and layers are found here.
    fn start(&self, seed: u64) -> Result<Adapter, TuneError> {
        let depth = self.backbone.network.depth();
        if let plan::MethodPlan::Layers(frozen) = self.plan.method
            && frozen > depth
        {
            let what = format!("{frozen} layers cannot be frozen: the model has {depth}");
            return Err(TuneError::setting(what, "name fewer with --freeze-layers"));
        }
        self.adapter(self.plan.method.on(&self.backbone), seed)
            .map_err(|error| TuneError::model(&self.plan.model, error))
    }

    fn adapter(&self, method: Method, seed: u64) -> Result<Adapter, ModelError> {
        let head = Some(self.plan.head(self.data.labels.clone()));
        let seed = Seed::new(seed).child("tuning").child("adapter");
        Adapter::initial(AdapterSpec { method, head }, &self.backbone, seed)
    }

    fn run(
        &self,
        part: &Part,
        folder: &Path,
        hear: &mut impl FnMut(&Progress),
    ) -> Result<PartReport, TuneError> {
        let watch = Stopwatch::start();
        let mut stages = Vec::new();
        let mut adapter = self.start(part.seed)?;
        if let Some(probe) = &self.plan.probe {
            let frozen = self.adapter(Method::Frozen, part.seed).map_err(TuneError::Training)?;
            let (frozen, stage) = self.stage("head", probe, frozen, part, hear)?;
            stages.push(stage);
            adapter = adapter.with_head_of(&frozen, &self.backbone).map_err(TuneError::Training)?;
        }
        let name = self.plan.method.name();
        let (adapter, stage) = self.stage(name, &self.plan.training, adapter, part, hear)?;
        stages.push(stage);
        let probe = match &self.plan.ensemble {
            Some(Ensemble { share, training }) => {
                let frozen =
                    self.adapter(Method::Frozen, part.seed).map_err(TuneError::Training)?;
                let (probe, stage) = self.stage("ensemble", training, frozen, part, hear)?;
                stages.push(stage);
                Some((probe, *share))
            }
            None => None,
        };
        let members = probe.as_ref().map(|(probe, share)| (probe, *share));
        let said = self.said(&adapter, members, part)?;
        let truth: Vec<usize> = part.test.iter().map(|&i| self.data.examples[i].label).collect();
        let scores = ClassScores::of(&truth, &said, self.data.labels.len());
        let (accuracy, macro_f1) = (scores.accuracy, scores.macro_f1);
        hear(&Progress::Scored { part: part.name.clone(), accuracy, macro_f1 });
        let save = |adapter: &Adapter, folder: &Path| {
            let fail = |error: ModelError| TuneError::Output {
                path: folder.into(),
                reason: error.to_string(),
            };
            adapter.save(folder).map_err(fail)
        };
        save(&adapter, folder)?;
        if let Some((probe, _)) = &probe {
            save(probe, &folder.join(PROBE))?;
        }
        write(&folder.join("predictions.csv"), &self.predictions(&truth, &said)?)?;
        Ok(PartReport::new(part, &self.data.labels, &scores, stages, watch.seconds()))
    }

    /// Trains an adapter with one set of numbers.
    fn stage(
        &self,
        name: &'static str,
        stage: &Stage,
        from: Adapter,
        part: &Part,
        hear: &mut impl FnMut(&Progress),
    ) -> Result<(Adapter, StageReport), TuneError> {
        let watch = Stopwatch::start();
        let examples = self.examples(&from, part)?;
        let (count, steps) = (examples.len(), stage.steps(examples.len()));
        hear(&Progress::Began { part: part.name.clone(), stage: name, examples: count, steps });
        let all: usize = part.train.iter().map(|&index| self.tokens[index].len()).sum();
        // A frozen network has read every text before.
        let tokens = match from.spec().method {
            Method::Frozen => 0,
            _ => all * steps * stage.batch.min(count) / count,
        };
        let trained = from.trainable();
        let spec = JobSpec {
            lesson: Lesson::Supervised(examples),
            steps,
            batch: stage.batch,
            learning_rate: stage.learning_rate,
            settings: stage.settings,
            seed: Seed::new(part.seed).child("tuning").child(name),
        };
        let backbone = Arc::clone(&self.backbone);
        let mut job = Job::new(backbone, Arc::new(from), spec).map_err(TuneError::Training)?;
        let stepping = Stopwatch::start();
        let mut losses = Vec::with_capacity(steps);
        while !job.is_done() {
            let taken = job.step().map_err(TuneError::Training)?;
            losses.push(taken.loss);
            let seconds = stepping.seconds();
            let left = seconds / taken.step as f64 * (steps - taken.step) as f64;
            let (step, loss) = (taken.step, taken.loss);
            hear(&Progress::Stepped { step, steps, loss, seconds, left });
        }
        let adapter = job.finish().map_err(TuneError::Training)?;
        let report = StageReport::new(name, stage, trained, &losses, tokens, watch.seconds());
        Ok((adapter, report))
    }

    fn predictions(&self, truth: &[usize], said: &[usize]) -> Result<String, TuneError> {
        let fail = |reason: String| TuneError::Output { path: "predictions.csv".into(), reason };
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["label", "predicted"]).map_err(|e| fail(e.to_string()))?;
        for (&right, &answer) in truth.iter().zip(said) {
            let row = [&self.data.labels[right], &self.data.labels[answer]];
            writer.write_record(row).map_err(|e| fail(e.to_string()))?;
        }
        let bytes = writer.into_inner().map_err(|e| fail(e.to_string()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The likeliest class by the weighted mean of two classifiers' probabilities.
fn together(own: &[f32], other: &[f32], share: f64) -> usize {
    let mean =
        |(own, other): (&f32, &f32)| f64::from(*own) * (1.0 - share) + f64::from(*other) * share;
    let means = own.iter().zip(other).map(mean);
    let best =
        |best: (usize, f64), (class, p): (usize, f64)| if p > best.1 { (class, p) } else { best };
    means.enumerate().fold((0, f64::NEG_INFINITY), best).0
}

/// Where a model comes from.
fn source(model: &str) -> Result<BackboneSource, TuneError> {
    let found = backbone::source(model).map_err(|error| TuneError::model(model, error.into()))?;
    found.ok_or_else(|| {
        TuneError::setting(format!("there is no model {}", quote(model)), backbone::sources())
    })
}

/// Refuses a place that holds something: nothing that is there is written over.
fn refuse_used(out: &Path) -> Result<(), TuneError> {
    let empty = match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        // A file, or a link to nowhere.
        Err(_) => out.symlink_metadata().is_err(),
    };
    if empty {
        return Ok(());
    }
    let what = format!("{} is in use", quote(&out.to_string_lossy()));
    Err(TuneError::setting(what, "name a new or an empty folder with --out"))
}

fn create(folder: &Path) -> Result<(), TuneError> {
    std::fs::create_dir_all(folder)
        .map_err(|e| TuneError::Output { path: folder.into(), reason: e.to_string() })
}

fn write(path: &Path, text: &str) -> Result<(), TuneError> {
    std::fs::write(path, text)
        .map_err(|e| TuneError::Output { path: path.into(), reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::BUILTIN;

    #[test]
    fn two_classifiers_answer_by_their_mean() {
        let (own, other) = ([0.6, 0.4, 0.0], [0.1, 0.5, 0.4]);
        assert_eq!(together(&own, &other, 0.1), 0);
        assert_eq!(together(&own, &other, 0.5), 1);
        assert_eq!(together(&[0.5, 0.5], &[0.5, 0.5], 0.5), 0, "the first of equals");
    }

    #[test]
    fn a_place_that_holds_something_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(refuse_used(folder.path()).is_ok());
        assert!(refuse_used(&folder.path().join("new/folder")).is_ok());
        let file = folder.path().join("report.json");
        std::fs::write(&file, "{}").unwrap();
        for used in [folder.path(), &file] {
            let says = refuse_used(used).unwrap_err().to_string();
            assert!(says.contains("is in use"), "{says}");
        }
    }

    #[test]
    fn a_model_is_a_word_a_folder_or_a_name_on_the_hub() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().display().to_string();
        assert_eq!(source(BUILTIN).unwrap(), BackboneSource::Builtin);
        assert_eq!(source(&there).unwrap(), BackboneSource::Path(there.into()));
        let BackboneSource::Hub(model) = source("hub:a/b@v2").unwrap() else { panic!() };
        assert_eq!(model.to_string(), "a/b@v2");
        assert!(matches!(source("hub:../b"), Err(TuneError::Model { .. })));
        assert!(matches!(source("a/b"), Err(TuneError::Setting { .. })));
    }
}
