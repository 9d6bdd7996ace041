//! The trainer actor: sees fine-tuning jobs through on the engines of their agents, a few steps a tick, in the
//! order of their numbers.
//!
//! It decides nothing: the conductor says what to begin, and publishes what comes of it. A job that was lost
//! with its engine or trainer goes on from where it stood after the last tick.

use std::collections::BTreeMap;
use std::sync::Arc;

use agents::adapter::Adapter;
use agents::backbone::Backbone;
use agents::engine::queue::Answer;
use agents::engine::train::Advance;
use agents::error::{ModelError, Result};
use agents::learning::job::{JobSnapshot, JobSpec};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::conductor::ConductorMessage;
use crate::engines::EngineHandles;

/// A job to begin.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its number.
    pub job: u64,
    /// The learner's device.
    pub device: usize,
    /// The learner's network.
    pub backbone: Arc<Backbone>,
    /// The weights it starts from.
    pub adapter: Arc<Adapter>,
    /// What and how.
    pub spec: JobSpec,
    /// Where it stands, once it has taken steps.
    pub snapshot: Option<Arc<JobSnapshot>>,
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
        /// Jobs to begin; those in progress of the same numbers are forgotten.
        begin: Vec<NewJob>,
        /// Steps of each job.
        steps: usize,
    },
    /// The engine's word on a new job.
    Begun {
        /// The order that it belongs to.
        order: u64,
        /// The job's number.
        job: u64,
        /// Whether it can be run.
        result: Result<()>,
    },
    /// The engine's word on some steps.
    Advanced {
        /// The order that it belongs to.
        order: u64,
        /// The job's number.
        job: u64,
        /// What came of them.
        result: Result<Advance>,
    },
    /// Panic, as the experiment orders.
    Panic,
}

/// What the trainer is made from.
#[derive(Clone, Debug)]
pub struct TrainerArguments {
    /// Who runs the steps.
    pub engines: EngineHandles,
    /// Who hears of them.
    pub conductor: ActorRef<ConductorMessage>,
}

/// What it knows.
#[derive(Debug)]
pub struct TrainerState {
    arguments: TrainerArguments,
    /// The number of the last order; what comes of an earlier one is ignored.
    order: u64,
    /// Jobs in progress.
    jobs: BTreeMap<u64, InProgress>,
}

#[derive(Debug)]
struct InProgress {
    device: usize,
    /// What this tick brought so far.
    brought: Option<std::result::Result<Advance, String>>,
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
        Ok(TrainerState { arguments, order: 0, jobs: BTreeMap::new() })
    }

    async fn handle(
        &self,
        me: ActorRef<TrainerMessage>,
        message: TrainerMessage,
        state: &mut TrainerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TrainerMessage::Advance { begin, steps } => state.advance(begin, steps, &me)?,
            TrainerMessage::Begun { order, job, result } if order == state.order => {
                state.begun(job, result)?;
            }
            TrainerMessage::Advanced { order, job, result } if order == state.order => {
                state.advanced(job, result)?;
            }
            // Of an engine that was lost.
            TrainerMessage::Begun { .. } | TrainerMessage::Advanced { .. } => {}
            TrainerMessage::Panic => panic!("a panic that the scenario ordered"),
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
        let engines = self.arguments.engines.clone();
        self.order += 1;
        let order = self.order;
        // An engine that takes nothing has answered with an error, so its refusals need no handling here.
        for NewJob { job, device, backbone, adapter, spec, snapshot } in begin {
            self.jobs.insert(job, InProgress { device, brought: None });
            let begun = move |result| TrainerMessage::Begun { order, job, result };
            let engine = engines.of(device);
            let _ = engine.start(job, backbone, adapter, spec, snapshot, told(me, begun));
        }
        // The jobs of a device take their steps together.
        for device in 0..engines.count() {
            let own = self.jobs.iter().filter(|(_, running)| running.device == device);
            let advanced = |(&job, _): (&u64, &InProgress)| {
                let advanced = move |result| TrainerMessage::Advanced { order, job, result };
                (job, told(me, advanced))
            };
            let own: Vec<_> = own.map(advanced).collect();
            if !own.is_empty() {
                let _ = engines.of(device).advance_together(own, steps);
            }
        }
        self.report()
    }

    /// A job that could not begin fails its first steps too; the first reason is the one that tells.
    fn begun(&mut self, job: u64, result: Result<()>) -> Result<(), ActorProcessingErr> {
        match (result, self.jobs.get_mut(&job)) {
            (Err(ModelError::EngineStopped), _) => self.engine_lost(),
            (Err(error), Some(running)) => {
                running.brought.get_or_insert(Err(error.to_string()));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn advanced(&mut self, job: u64, result: Result<Advance>) -> Result<(), ActorProcessingErr> {
        if let Err(ModelError::EngineStopped) = result {
            return self.engine_lost();
        }
        if let Some(running) = self.jobs.get_mut(&job)
            && !matches!(running.brought, Some(Err(_)))
        {
            running.brought = Some(result.map_err(|error| error.to_string()));
        }
        self.report()
    }

    /// All jobs are lost with the engine; the conductor has them begun again on the next one.
    fn engine_lost(&mut self) -> Result<(), ActorProcessingErr> {
        self.order += 1;
        self.jobs.clear();
        Ok(self.arguments.conductor.cast(ConductorMessage::EngineLost)?)
    }

    /// Tells the conductor once every job has an answer.
    fn report(&mut self) -> Result<(), ActorProcessingErr> {
        if self.jobs.values().any(|running| running.brought.is_none()) {
            return Ok(());
        }
        let mut reports = Vec::new();
        for (job, InProgress { device, brought }) in std::mem::take(&mut self.jobs) {
            let Some(advance) = brought else { continue };
            if matches!(&advance, Ok(Advance { finished: None, .. })) {
                self.jobs.insert(job, InProgress { device, brought: None });
            }
            reports.push(JobReport { job, advance });
        }
        Ok(self.arguments.conductor.cast(ConductorMessage::Trained(reports))?)
    }
}

/// An answer that comes back as a message.
fn told<T: Send>(
    me: &ActorRef<TrainerMessage>,
    message: impl FnOnce(Result<T>) -> TrainerMessage + Send + 'static,
) -> Answer<T> {
    let me = me.clone();
    Answer::new(move |result| {
        // A dead trainer needs no answer: its successor begins its jobs again.
        let _ = me.cast(message(result));
    })
}
