//! The trainer actor: sees fine-tuning jobs through on the engine, a few steps a tick, in the order of
//! their numbers.
//!
//! It decides nothing: the conductor says what to begin, and publishes what comes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use agents::adapter::Adapter;
use agents::backbone::Backbone;
use agents::engine::queue::{Answer, EngineHandle};
use agents::engine::train::Advance;
use agents::error::Result;
use agents::learning::job::JobSpec;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::conductor::ConductorMessage;

/// A job to begin.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its number.
    pub job: u64,
    /// The learner's network.
    pub backbone: Arc<Backbone>,
    /// The weights it starts from.
    pub adapter: Arc<Adapter>,
    /// What and how.
    pub spec: JobSpec,
}

/// What came of a job in a tick.
#[derive(Debug)]
pub struct JobReport {
    /// Its number.
    pub job: u64,
    /// Steps and, at the end, the new weights; or why it was given up.
    pub advance: std::result::Result<Advance, String>,
}

/// What the trainer can be told.
#[derive(Debug)]
pub enum TrainerMessage {
    /// Begin these jobs, then take this many steps of every job.
    Advance {
        /// Jobs to begin.
        begin: Vec<NewJob>,
        /// Steps of each job.
        steps: usize,
    },
    /// The engine's word on a new job.
    Begun {
        /// Its number.
        job: u64,
        /// Whether it can be run.
        result: Result<()>,
    },
    /// The engine's word on some steps.
    Advanced {
        /// The job's number.
        job: u64,
        /// What came of them.
        result: Result<Advance>,
    },
}

/// What the trainer is made from.
#[derive(Clone, Debug)]
pub struct TrainerArguments {
    /// Who runs the steps.
    pub engine: EngineHandle,
    /// Who hears of them.
    pub conductor: ActorRef<ConductorMessage>,
}

/// What it knows.
#[derive(Debug)]
pub struct TrainerState {
    arguments: TrainerArguments,
    /// Jobs in progress; the value is what this tick brought so far.
    jobs: BTreeMap<u64, Option<std::result::Result<Advance, String>>>,
}

/// The actor.
#[derive(Debug)]
pub struct Trainer;

impl Actor for Trainer {
    type Msg = TrainerMessage;
    type State = TrainerState;
    type Arguments = TrainerArguments;

    async fn pre_start(
        &self,
        _me: ActorRef<TrainerMessage>,
        arguments: TrainerArguments,
    ) -> Result<TrainerState, ActorProcessingErr> {
        Ok(TrainerState { arguments, jobs: BTreeMap::new() })
    }

    async fn handle(
        &self,
        me: ActorRef<TrainerMessage>,
        message: TrainerMessage,
        state: &mut TrainerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TrainerMessage::Advance { begin, steps } => state.advance(begin, steps, &me)?,
            TrainerMessage::Begun { job, result } => state.begun(job, result)?,
            TrainerMessage::Advanced { job, result } => state.advanced(job, result)?,
        }
        Ok(())
    }
}

impl TrainerState {
    fn advance(
        &mut self,
        begin: Vec<NewJob>,
        steps: usize,
        me: &ActorRef<TrainerMessage>,
    ) -> Result<(), ActorProcessingErr> {
        let engine = self.arguments.engine.clone();
        for NewJob { job, backbone, adapter, spec } in begin {
            self.jobs.insert(job, None);
            let me = me.clone();
            let answer = Answer::new(move |result| {
                let _ = me.cast(TrainerMessage::Begun { job, result });
            });
            engine.start(job, backbone, adapter, spec, answer)?;
        }
        let advanced = |&job: &u64| {
            let me = me.clone();
            let answer = Answer::new(move |result| {
                let _ = me.cast(TrainerMessage::Advanced { job, result });
            });
            (job, answer)
        };
        if !self.jobs.is_empty() {
            engine.advance_together(self.jobs.keys().map(advanced).collect(), steps)?;
        }
        self.report()
    }

    /// A job that could not begin fails its first steps too; the first reason is the one that tells.
    fn begun(&mut self, job: u64, result: Result<()>) -> Result<(), ActorProcessingErr> {
        if let (Err(error), Some(slot)) = (result, self.jobs.get_mut(&job)) {
            *slot = Some(Err(error.to_string()));
        }
        Ok(())
    }

    fn advanced(&mut self, job: u64, result: Result<Advance>) -> Result<(), ActorProcessingErr> {
        if let Some(slot) = self.jobs.get_mut(&job)
            && !matches!(slot, Some(Err(_)))
        {
            *slot = Some(result.map_err(|error| error.to_string()));
        }
        self.report()
    }

    /// Tells the conductor once every job has an answer.
    fn report(&mut self) -> Result<(), ActorProcessingErr> {
        if self.jobs.values().any(Option::is_none) {
            return Ok(());
        }
        let mut reports = Vec::new();
        for (job, slot) in std::mem::take(&mut self.jobs) {
            let Some(advance) = slot else { continue };
            if matches!(&advance, Ok(Advance { finished: None, .. })) {
                self.jobs.insert(job, None);
            }
            reports.push(JobReport { job, advance });
        }
        Ok(self.arguments.conductor.cast(ConductorMessage::Trained(reports))?)
    }
}
