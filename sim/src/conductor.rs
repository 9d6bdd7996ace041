//! The conductor: asks the protocols what is next, tells the agents, closes each tick, and is the only
//! writer of events.
//!
//! ```text
//!  open tick ─▶ Speak to agents, Expect to engine ─▶ Replied × n ─▶ close tick
//!      ▲                                                               │ channel, protocol, scores, triggers
//!      └── Go ◀── flush, paused? ◀── Trained ◀── Advance to trainer ◀──┘ (only while jobs run)
//! ```
//! What it decides is in [`stage`], synchronous and tested without a runtime; the actor here carries out
//! its orders. No handler waits for another actor.

mod episode;
mod holdout;
mod learner;
pub mod order;
pub mod oversight;
pub mod stage;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use agents::adapter::Generation;
use agents::name::AgentName;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use self::order::Order;
use self::oversight::Part;
use self::stage::Stage;
use crate::agent::{AgentMessage, Failure, TurnId};
use crate::checkpoint::Checkpoints;
use crate::clock::Timer;
use crate::control::Control;
use crate::engines::EngineHandles;
use crate::event::Said;
use crate::feed::Feed;
use crate::recorder::{RecordError, Recorder};
use crate::summary::Summary;
use crate::supervisor::SupervisorMessage;
use crate::training::trainer::{JobReport, TrainerMessage};

/// What is known of an engine that takes nothing any more.
pub(crate) const ENGINE_LOST: &str = "its thread has ended";

/// What the conductor can be told.
#[derive(Debug)]
pub enum ConductorMessage {
    /// The society is complete: begin.
    Begin {
        /// The agents.
        agents: BTreeMap<AgentName, ActorRef<AgentMessage>>,
        /// Who sees jobs through.
        trainer: ActorRef<TrainerMessage>,
        /// Who restarts agents.
        supervisor: ActorRef<SupervisorMessage>,
    },
    /// An agent said something, or could not.
    Replied {
        /// Who.
        agent: AgentName,
        /// On which turn.
        turn: TurnId,
        /// Under which weights.
        generation: Generation,
        /// What, or why not.
        said: Result<Said, Failure>,
    },
    /// All jobs took their steps of this tick.
    Trained(Vec<JobReport>),
    /// The engine ended while jobs ran on it.
    EngineLost,
    /// An actor ended.
    Failed {
        /// Which part it played.
        part: Part,
        /// What is known of the cause.
        reason: String,
    },
    /// Parts were started anew.
    Restarted {
        /// The new actors of agents.
        agents: BTreeMap<AgentName, ActorRef<AgentMessage>>,
        /// The trainer's new actor, where it has one.
        trainer: Option<ActorRef<TrainerMessage>>,
        /// Whether the engine has a new thread.
        engine: bool,
    },
    /// An announcement was not answered in time.
    Overdue {
        /// Which.
        round: u64,
        /// Who was ordered not to answer; none where nobody was.
        agent: Option<AgentName>,
    },
    /// Try again what the disk refused.
    Retry,
    /// Nobody holds the run: open the next tick.
    Go,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum ConductError {
    /// The log could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The society cannot go on.
    #[error("{0}")]
    Society(String),
}

/// How the run's end is made known.
pub type Ending = oneshot::Sender<Result<Summary, ConductError>>;

/// What the conductor is made from.
#[derive(Debug)]
pub struct ConductorArguments {
    /// All decisions.
    pub stage: Stage,
    /// The log.
    pub recorder: Recorder,
    /// The screens.
    pub feed: Feed,
    /// What people ask for.
    pub control: Control,
    /// Who runs the models.
    pub engines: EngineHandles,
    /// How long waits are.
    pub timer: Timer,
    /// Who saves the run on the way.
    pub checkpoints: Checkpoints,
    /// What the events before came to, where the run goes on from a checkpoint.
    pub before: Option<Summary>,
    /// The tick after which the run is saved and left, unfinished; none plays to the end.
    pub until: Option<u64>,
    /// Who waits for the end.
    pub ending: Ending,
}

/// What it knows.
#[derive(Debug)]
pub struct ConductorState {
    stage: Stage,
    recorder: Recorder,
    feed: Feed,
    control: Control,
    engines: EngineHandles,
    timer: Timer,
    checkpoints: Checkpoints,
    until: Option<u64>,
    /// Whether the run goes on from a checkpoint.
    goes_on: bool,
    summary: Summary,
    /// Orders that wait for the disk, in their order.
    unfinished: VecDeque<Order>,
    /// Who tells when the open announcement took too long.
    guard: Option<AbortHandle>,
    /// None once the end was made known.
    ending: Option<Ending>,
    society: Option<Society>,
}

#[derive(Debug)]
struct Society {
    agents: BTreeMap<AgentName, ActorRef<AgentMessage>>,
    trainer: ActorRef<TrainerMessage>,
    supervisor: ActorRef<SupervisorMessage>,
}

/// The actor.
#[derive(Debug)]
pub struct Conductor;

impl Actor for Conductor {
    type Msg = ConductorMessage;
    type State = ConductorState;
    type Arguments = ConductorArguments;

    async fn pre_start(
        &self,
        _me: ActorRef<ConductorMessage>,
        arguments: ConductorArguments,
    ) -> Result<ConductorState, ActorProcessingErr> {
        let ConductorArguments { stage, recorder, feed, control, engines, timer, .. } = arguments;
        let ConductorArguments { checkpoints, before, until, ending, .. } = arguments;
        feed.begin_work(engines.clone(), recorder.milliseconds_before());
        Ok(ConductorState {
            stage,
            recorder,
            feed,
            control,
            engines,
            timer,
            checkpoints,
            until,
            goes_on: before.is_some(),
            summary: before.unwrap_or_default(),
            unfinished: VecDeque::new(),
            guard: None,
            ending: Some(ending),
            society: None,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<ConductorMessage>,
        message: ConductorMessage,
        state: &mut ConductorState,
    ) -> Result<(), ActorProcessingErr> {
        let orders = match message {
            ConductorMessage::Begin { agents, trainer, supervisor } => {
                state.society = Some(Society { agents, trainer, supervisor });
                if state.goes_on { vec![Order::GoOn] } else { state.stage.begin() }
            }
            ConductorMessage::Replied { agent, turn, generation, said } => {
                state.stage.replied(&agent, turn, generation, said)
            }
            ConductorMessage::Trained(reports) => state.stage.trained(reports),
            ConductorMessage::EngineLost => state.stage.engine_failed(ENGINE_LOST),
            ConductorMessage::Failed { part, reason } => match part {
                Part::Agent(agent) => state.stage.failed(agent, reason),
                Part::Trainer => state.stage.trainer_failed(reason),
                Part::Engine => state.stage.engine_failed(&reason),
            },
            ConductorMessage::Restarted { agents, trainer, engine } => {
                state.restarted(agents, trainer, engine)
            }
            ConductorMessage::Overdue { round, agent } => state.stage.overdue(round, agent),
            ConductorMessage::Retry => Vec::new(),
            ConductorMessage::Go if state.control.is_stopped() => vec![Order::Stop],
            ConductorMessage::Go => state.stage.open_tick(),
        };
        state.unfinished.extend(orders);
        if let Err(error) = state.carry_out(&me) {
            state.end(Err(error));
        }
        Ok(())
    }
}

impl ConductorState {
    fn restarted(
        &mut self,
        agents: BTreeMap<AgentName, ActorRef<AgentMessage>>,
        trainer: Option<ActorRef<TrainerMessage>>,
        engine: bool,
    ) -> Vec<Order> {
        let names: Vec<AgentName> = agents.keys().cloned().collect();
        let has_trainer = trainer.is_some();
        if let Some(society) = &mut self.society {
            society.agents.extend(agents);
            society.trainer = trainer.unwrap_or_else(|| society.trainer.clone());
        }
        self.stage.restarted(&names, has_trainer, engine)
    }

    /// Carries out what is unfinished. What the disk refuses is put off, and everything after it.
    fn carry_out(&mut self, me: &ActorRef<ConductorMessage>) -> Result<(), ConductError> {
        if self.ending.is_none() {
            return Ok(());
        }
        self.publish_events()?;
        while let Some(order) = self.unfinished.pop_front() {
            match self.carry_out_one(&order, me) {
                Ok(more) => {
                    for order in more.into_iter().rev() {
                        self.unfinished.push_front(order);
                    }
                    self.publish_events()?;
                }
                Err(ConductError::Record(error)) => {
                    // Without the folder, which would make two equal runs differ.
                    let file = error.path.file_name().unwrap_or_default().display();
                    let reason = format!("{file}: {}", error.reason);
                    let Some(wait) = self.stage.recording_failed(reason) else {
                        return Err(error.into());
                    };
                    self.unfinished.push_front(order);
                    self.publish_events()?;
                    let (timer, me) = (self.timer, me.clone());
                    tokio::spawn(async move {
                        timer.pause(wait).await;
                        let _ = me.cast(ConductorMessage::Retry);
                    });
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Carries out one order; what follows from it comes back.
    fn carry_out_one(
        &mut self,
        order: &Order,
        me: &ActorRef<ConductorMessage>,
    ) -> Result<Vec<Order>, ConductError> {
        let Some(society) = &self.society else { return Ok(Vec::new()) };
        match order {
            Order::Speak { agent, turn } => {
                // An actor that died a moment ago is restarted, and asked again then.
                if let Some(actor) = society.agents.get(agent) {
                    let _ = actor.cast(AgentMessage::Speak(turn.clone()));
                }
            }
            Order::Expect(keys) => {
                if self.engines.expect(keys).is_err() {
                    return Ok(self.stage.engine_failed(ENGINE_LOST));
                }
            }
            Order::Train { begin, steps } => {
                let message = TrainerMessage::Advance { begin: begin.clone(), steps: *steps };
                // A trainer that died a moment ago is restarted, and told again then.
                let _ = society.trainer.cast(message);
            }
            Order::Publish { agent, adapter } => {
                self.recorder.keep(agent, adapter)?;
                self.stage.recorded();
                if let Some(actor) = society.agents.get(agent) {
                    let _ = actor.cast(AgentMessage::SwapAdapter(Arc::clone(adapter)));
                }
            }
            Order::Restart { .. } | Order::Deadline { .. } | Order::Hang { .. } => {
                self.wait_for(order, me);
            }
            Order::LoseEngine => self.engines.lose(),
            // A trainer that is gone already is lost as ordered.
            Order::LoseTrainer => drop(society.trainer.cast(TrainerMessage::Panic)),
            Order::FillDisk => self.recorder.refuse_once(),
            Order::EndTick(tick) => {
                self.end_tick(*tick)?;
                self.stage.recorded();
                return Ok(vec![Order::GoOn]);
            }
            Order::GoOn => self.go_on(me)?,
            Order::Stop => {
                if self.checkpoints.is_wanted(self.stage.tick()) {
                    self.save()?;
                }
                return Ok(self.stage.stop());
            }
            Order::Finish(tick) => {
                self.end_tick(*tick)?;
                self.recorder.commit()?;
                return Ok(vec![Order::Summarize]);
            }
            Order::Summarize => {
                let summary = serde_json::to_string_pretty(&self.summary).unwrap_or_default();
                self.recorder.write("summary.json", &(summary + "\n"))?;
                self.end(Ok(self.summary.clone()));
            }
            Order::Fail(reason) => self.end(Err(ConductError::Society(reason.clone()))),
        }
        Ok(Vec::new())
    }

    /// Saves the run if that is due, and opens the next tick once nobody holds it.
    fn go_on(&mut self, me: &ActorRef<ConductorMessage>) -> Result<(), ConductError> {
        let (tick, phase) = (self.stage.tick(), self.stage.phase());
        let leaves = self.until.is_some_and(|until| until <= tick);
        let saved = (leaves || self.checkpoints.is_due(tick, phase)) && self.save()?;
        if leaves && saved {
            self.end(Ok(self.summary.clone()));
            return Ok(());
        }
        let (control, me) = (self.control.clone(), me.clone());
        tokio::spawn(async move {
            control.ready().await;
            let _ = me.cast(ConductorMessage::Go);
        });
        Ok(())
    }

    /// Takes a checkpoint; false where something is on its way.
    fn save(&mut self) -> Result<bool, ConductError> {
        let Some(moment) = self.stage.moment() else { return Ok(false) };
        let log = self.recorder.commit()?;
        self.checkpoints.take(&moment, &self.summary, log)?;
        Ok(true)
    }

    /// Orders that are carried out later, without anybody waiting.
    fn wait_for(&mut self, order: &Order, me: &ActorRef<ConductorMessage>) {
        let (timer, me) = (self.timer, me.clone());
        match order {
            Order::Restart { parts, milliseconds } => {
                let (parts, milliseconds) = (parts.clone(), *milliseconds);
                let Some(society) = &self.society else { return };
                let supervisor = society.supervisor.clone();
                tokio::spawn(async move {
                    timer.pause(milliseconds).await;
                    // A supervisor that is gone has taken the whole society with it.
                    let _ = supervisor.cast(SupervisorMessage::Restart(parts));
                });
            }
            Order::Hang { agent, round, milliseconds } => {
                let (agent, round, milliseconds) = (Some(agent.clone()), *round, *milliseconds);
                tokio::spawn(async move {
                    timer.pause(milliseconds).await;
                    let _ = me.cast(ConductorMessage::Overdue { round, agent });
                });
            }
            Order::Deadline { round, milliseconds } => {
                let (round, milliseconds) = (*round, *milliseconds);
                let guard = tokio::spawn(async move {
                    timer.deadline(milliseconds).await;
                    let _ = me.cast(ConductorMessage::Overdue { round, agent: None });
                });
                // The announcement before was answered, or is not waited for any more.
                if let Some(before) = self.guard.replace(guard.abort_handle()) {
                    before.abort();
                }
            }
            _ => {}
        }
    }

    fn end_tick(&mut self, tick: u64) -> Result<(), ConductError> {
        let work = self.recorder.work(tick, &self.engines.usage_at_most());
        self.feed.show_work(work);
        Ok(self.recorder.end_tick(&work)?)
    }

    fn publish_events(&mut self) -> Result<(), ConductError> {
        for event in self.stage.take_events() {
            self.recorder.record(&event)?;
            self.summary.apply(&event);
            self.feed.show(&event);
        }
        Ok(())
    }

    /// Makes the end known. What led to a failure is in a tick that does not end, so it is written here.
    fn end(&mut self, result: Result<Summary, ConductError>) {
        if result.is_err() {
            // Where the disk is the cause, no more can be done.
            let _ = self.publish_events();
            let _ = self.recorder.commit();
        }
        if let Some(ending) = self.ending.take() {
            let _ = ending.send(result);
        }
    }
}
