//! A job between two steps, as bytes: what another process needs to go on with it bit for bit.
//!
//! Random streams need no place here: the draws of a step follow from the job's seed and the step's number.
//! The judge of sampled replies is code, so whoever goes on brings it along. Touches no disk itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{Job, JobSpec, Lesson, Objective};
use crate::adapter::Adapter;
use crate::backbone::Backbone;
use crate::backbone::checkpoint::{self, Checkpoint};
use crate::error::{ModelError, Result};
use crate::learning::objective::grpo::Reward;
use crate::learning::optimizer::STEP;

/// What is not a tensor.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    spec: JobSpec,
    step: usize,
    /// Steps that changed the weights.
    updates: usize,
    audited: bool,
}

/// A job between two steps.
#[derive(Clone, Debug)]
pub struct JobSnapshot {
    state: State,
    /// The optimiser's, under its names.
    optimizer: BTreeMap<String, Tensor>,
    /// Those of the adapter that are not trained.
    fixed: BTreeMap<String, Tensor>,
}

/// Begin the names of the two kinds of tensors in the file.
const KINDS: [&str; 2] = ["optimizer/", "fixed/"];

impl JobSnapshot {
    /// As two files: what it learns from and where it stands (CBOR, RFC 8949, which keeps every number as it
    /// is), and its tensors (safetensors, f32).
    ///
    /// # Errors
    /// When it learns from features that another process cannot know.
    pub fn to_bytes(&self) -> Result<[Vec<u8>; 2]> {
        let mut state = Vec::new();
        ciborium::into_writer(&self.state, &mut state)
            .map_err(|error| ModelError::Examples(error.to_string()))?;
        let named = |kind: &'static str, tensors: &BTreeMap<String, Tensor>| {
            let name =
                |(name, tensor): (&String, &Tensor)| (format!("{kind}{name}"), tensor.clone());
            tensors.iter().map(name).collect::<Vec<_>>()
        };
        let mut all: BTreeMap<String, Tensor> = BTreeMap::new();
        all.extend(named(KINDS[0], &self.optimizer));
        all.extend(named(KINDS[1], &self.fixed));
        Ok([state, checkpoint::to_bytes(&all, DType::F32)?])
    }

    /// Reads the two files; `path` is what errors call them.
    ///
    /// # Errors
    /// When they are not what [`JobSnapshot::to_bytes`] wrote.
    pub fn from_bytes(
        state: &[u8],
        tensors: Vec<u8>,
        path: &Path,
        device: &Device,
    ) -> Result<Self> {
        let malformed = |reason: String| ModelError::Malformed {
            path: path.into(),
            what: "snapshot of a job",
            reason,
        };
        let state = ciborium::from_reader(state).map_err(|error| malformed(error.to_string()))?;
        let (mut optimizer, mut fixed) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in Checkpoint::from_bytes(tensors, path)?.all(device)? {
            if let Some(name) = name.strip_prefix(KINDS[0]) {
                optimizer.insert(name.to_owned(), tensor);
            } else if let Some(name) = name.strip_prefix(KINDS[1]) {
                fixed.insert(name.to_owned(), tensor);
            } else {
                return Err(malformed(format!("`{name}` is no tensor of a job")));
            }
        }
        Ok(Self { state, optimizer, fixed })
    }

    /// The job as it was asked for; `judge` is for jobs that sample replies.
    #[must_use]
    pub fn spec(&self, judge: &Reward) -> JobSpec {
        let mut spec = self.state.spec.clone();
        if let Lesson::Grpo(grpo) = &mut spec.lesson {
            grpo.reward = Arc::clone(judge);
        }
        spec
    }

    /// Whether whoever goes on must bring a judge of replies.
    #[must_use]
    pub fn needs_judge(&self) -> bool {
        matches!(self.state.spec.lesson, Lesson::Grpo(_))
    }
}

impl Job {
    /// The job as it stands.
    ///
    /// # Errors
    /// On a tensor failure only.
    pub fn snapshot(&self) -> Result<JobSnapshot> {
        let lesson = match &self.objective {
            Objective::Supervised(lesson) => Lesson::Supervised(lesson.examples().clone()),
            Objective::Grpo(grpo) => Lesson::Grpo(grpo.clone()),
        };
        let spec = JobSpec {
            lesson,
            steps: self.schedule.steps,
            batch: self.batch,
            learning_rate: self.schedule.peak,
            settings: self.settings,
            seed: self.seed,
        };
        let updates = self.optimizer.steps();
        let state = State { spec, step: self.step, updates, audited: self.audited };
        let mut optimizer = self.optimizer.state()?;
        optimizer.remove(STEP);
        Ok(JobSnapshot { state, optimizer, fixed: self.fixed.clone() })
    }

    /// Goes on with a job that started from the adapter `from`; `judge` is for jobs that sample replies.
    ///
    /// # Errors
    /// When the snapshot does not suit the adapter, or a judge is missing.
    pub fn resume(
        backbone: Arc<Backbone>,
        from: Arc<Adapter>,
        snapshot: JobSnapshot,
        judge: Option<Reward>,
    ) -> Result<Self> {
        let JobSnapshot { state, mut optimizer, fixed } = snapshot;
        let mut spec = state.spec;
        if let Lesson::Grpo(grpo) = &mut spec.lesson {
            grpo.reward = judge.ok_or_else(|| {
                ModelError::Examples("nobody is there to judge sampled replies".to_owned())
            })?;
        }
        let mut job = Self::new(backbone, from, spec)?;
        let updates = i64::try_from(state.updates).unwrap_or(i64::MAX);
        optimizer.insert(STEP.to_owned(), Tensor::new(&[updates], &Device::Cpu)?);
        job.optimizer.restore(&optimizer)?;
        job.fixed = fixed;
        (job.step, job.audited) = (state.step, state.audited);
        Ok(job)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{adapter, backbone, classes, finish, lora, spec};
    use super::super::{Settings, StepReport};
    use super::*;
    use crate::adapter::head::HeadSpec;
    use crate::adapter::{AdapterSpec, Method};
    use crate::learning::objective::TextExample;
    use crate::learning::objective::grpo::{Grpo, Prompt};
    use crate::learning::objective::supervised::Examples;
    use crate::learning::optimizer::{Lion, Method as Rule, Sgd};
    use crate::prompt;
    use crate::prompt::provenance::Words;

    /// Takes `cut` steps, goes through bytes, and takes the rest.
    fn broken(
        backbone: &Arc<Backbone>,
        from: &Arc<Adapter>,
        spec: JobSpec,
        cut: usize,
        judge: Option<Reward>,
    ) -> (Vec<StepReport>, String) {
        let mut job = Job::new(Arc::clone(backbone), Arc::clone(from), spec).unwrap();
        let mut reports: Vec<StepReport> = (0..cut).map(|_| job.step().unwrap()).collect();
        let [state, tensors] = job.snapshot().unwrap().to_bytes().unwrap();
        let path = Path::new("job");
        let back = JobSnapshot::from_bytes(&state, tensors, path, &Device::Cpu).unwrap();
        assert_eq!(back.needs_judge(), judge.is_some());
        let mut job = Job::resume(Arc::clone(backbone), Arc::clone(from), back, judge).unwrap();
        reports.extend(finish(&mut job));
        (reports, job.finish().unwrap().digest().unwrap())
    }

    fn straight(
        backbone: &Arc<Backbone>,
        from: &Arc<Adapter>,
        spec: JobSpec,
    ) -> (Vec<StepReport>, String) {
        let mut job = Job::new(Arc::clone(backbone), Arc::clone(from), spec).unwrap();
        let reports = finish(&mut job);
        (reports, job.finish().unwrap().digest().unwrap())
    }

    #[test]
    fn a_broken_job_ends_as_an_unbroken_one() {
        let backbone = backbone();
        let mut rough = lora();
        if let Method::Lora(lora) = &mut rough.method {
            lora.dropout = 0.2;
        }
        let texts: Vec<TextExample> = (5..12)
            .map(|n| TextExample { prompt: vec![n, n + 1], reply: vec![n + 2, n + 3] })
            .collect();
        for rule in
            [Settings::default().optimizer.method, Rule::Sgd(Sgd::USUAL), Rule::Lion(Lion::USUAL)]
        {
            let from = adapter(rough.clone(), &backbone);
            let lesson = Lesson::Supervised(Examples::Texts(texts.clone()));
            let mut spec = spec(lesson, 7, 1e-3);
            spec.settings.optimizer.method = rule;
            spec.settings.hidden_dropout = 0.1;
            let whole = straight(&backbone, &from, spec.clone());
            for cut in [0, 1, 4, 7] {
                assert_eq!(
                    broken(&backbone, &from, spec.clone(), cut, None),
                    whole,
                    "{rule:?} {cut}"
                );
            }
        }
    }

    #[test]
    fn a_head_on_frozen_features_keeps_their_scale() {
        let backbone = backbone();
        let head = Some(HeadSpec::new(vec!["bag".to_owned(), "money".to_owned()]));
        let from = adapter(AdapterSpec { method: Method::Frozen, head }, &backbone);
        let spec = spec(Lesson::Supervised(classes(&backbone)), 6, 1e-2);
        let whole = straight(&backbone, &from, spec.clone());
        assert_eq!(broken(&backbone, &from, spec, 3, None), whole);
    }

    #[test]
    fn sampling_goes_on_too_and_needs_its_judge() {
        let backbone = backbone();
        let tokens = prompt::reply(&backbone.tokenizer, Words::of_task("where is my bag"), None)
            .unwrap()
            .into_tokens();
        let reward: Reward = Arc::new(|_, reply| 1.0 - reply.len().min(80) as f64 / 80.0);
        let grpo = Grpo {
            prompts: vec![Prompt { key: 3, tokens: tokens.clone() }, Prompt { key: 4, tokens }],
            group: 4,
            temperature: 1.0,
            max_tokens: 8,
            stop: prompt::stops(&backbone.tokenizer).unwrap(),
            reward: Arc::clone(&reward),
        };
        let from = adapter(lora(), &backbone);
        let mut spec = spec(Lesson::Grpo(grpo), 4, 1e-2);
        spec.batch = 2;
        let whole = straight(&backbone, &from, spec.clone());
        assert_eq!(broken(&backbone, &from, spec.clone(), 2, Some(reward)), whole);
        let snapshot =
            Job::new(Arc::clone(&backbone), Arc::clone(&from), spec).unwrap().snapshot().unwrap();
        let error = Job::resume(backbone, from, snapshot, None).unwrap_err();
        assert!(error.to_string().contains("judge"), "{error}");
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let backbone = backbone();
        let from = adapter(lora(), &backbone);
        let texts = vec![TextExample { prompt: vec![5], reply: vec![6] }];
        let spec = spec(Lesson::Supervised(Examples::Texts(texts)), 2, 1e-3);
        let snapshot = Job::new(backbone, from, spec).unwrap().snapshot().unwrap();
        let [state, tensors] = snapshot.to_bytes().unwrap();
        let read = |state: &[u8], tensors: &[u8]| {
            JobSnapshot::from_bytes(state, tensors.to_vec(), Path::new("job"), &Device::Cpu)
        };
        assert!(read(&state, &tensors).is_ok());
        assert!(read(&state[..state.len() / 2], &tensors).unwrap_err().to_string().contains("job"));
        assert!(read(&state, &tensors[..tensors.len() / 2]).is_err());
    }
}
