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
pub mod stage;

use std::collections::BTreeMap;

use agents::adapter::Generation;
use agents::engine::queue::EngineHandle;
use agents::name::AgentName;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use self::order::Order;
use self::stage::Stage;
use crate::agent::AgentMessage;
use crate::control::Control;
use crate::event::Said;
use crate::feed::Feed;
use crate::recorder::{RecordError, Recorder};
use crate::summary::Summary;
use crate::supervisor::SupervisorMessage;
use crate::training::trainer::{JobReport, TrainerMessage};

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
        /// In which episode.
        episode: u64,
        /// Under which weights.
        generation: Generation,
        /// What, or why not.
        said: Result<Said, String>,
    },
    /// All jobs took their steps of this tick.
    Trained(Vec<JobReport>),
    /// An agent's actor ended.
    AgentFailed {
        /// Who.
        agent: AgentName,
        /// What is known of the cause.
        reason: String,
    },
    /// An agent's actor was started anew.
    AgentRestarted {
        /// Who.
        agent: AgentName,
        /// Its new actor.
        actor: ActorRef<AgentMessage>,
    },
    /// An actor without which there is no run has ended.
    Broken {
        /// What is known of the cause.
        reason: String,
    },
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
    pub engine: EngineHandle,
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
    engine: EngineHandle,
    summary: Summary,
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
        let ConductorArguments { stage, recorder, feed, control, engine, ending } = arguments;
        let summary = Summary::default();
        let ending = Some(ending);
        Ok(ConductorState {
            stage,
            recorder,
            feed,
            control,
            engine,
            summary,
            ending,
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
                state.stage.begin()
            }
            ConductorMessage::Replied { agent, episode, generation, said } => {
                state.stage.replied(agent, episode, generation, said)
            }
            ConductorMessage::Trained(reports) => state.stage.trained(reports),
            ConductorMessage::AgentFailed { agent, reason } => state.stage.failed(agent, reason),
            ConductorMessage::AgentRestarted { agent, actor } => state.restarted(agent, actor),
            ConductorMessage::Broken { reason } => vec![Order::Fail(reason)],
            ConductorMessage::Go => state.stage.open_tick(state.control.is_stopped()),
        };
        if let Err(error) = state.carry_out(orders, &me) {
            state.end(Err(error));
        }
        Ok(())
    }
}

impl ConductorState {
    fn restarted(&mut self, agent: AgentName, actor: ActorRef<AgentMessage>) -> Vec<Order> {
        if let Some(society) = &mut self.society {
            society.agents.insert(agent.clone(), actor);
        }
        self.stage.restarted(&agent)
    }

    fn carry_out(
        &mut self,
        orders: Vec<Order>,
        me: &ActorRef<ConductorMessage>,
    ) -> Result<(), ConductError> {
        self.publish_events()?;
        for order in orders {
            self.carry_out_one(order, me)?;
        }
        Ok(())
    }

    fn carry_out_one(
        &mut self,
        order: Order,
        me: &ActorRef<ConductorMessage>,
    ) -> Result<(), ConductError> {
        let gone = |what: &str| ConductError::Society(format!("the {what} is gone"));
        let Some(society) = &self.society else { return Ok(()) };
        match order {
            Order::Speak { agent, turn } => {
                // An actor that died a moment ago is restarted, and asked again then.
                if let Some(actor) = society.agents.get(&agent) {
                    let _ = actor.cast(AgentMessage::Speak(turn));
                }
            }
            Order::Expect(keys) => {
                self.engine.expect(keys).map_err(|e| ConductError::Society(e.to_string()))?;
            }
            Order::Train { begin, steps } => {
                let message = TrainerMessage::Advance { begin, steps };
                society.trainer.cast(message).map_err(|_undelivered| gone("trainer"))?;
            }
            Order::Publish { agent, adapter } => {
                self.recorder.keep(&agent, &adapter)?;
                if let Some(actor) = society.agents.get(&agent) {
                    let _ = actor.cast(AgentMessage::SwapAdapter(adapter));
                }
            }
            Order::Restart { agent, adapter } => {
                let message = SupervisorMessage::Restart { agent, adapter };
                society.supervisor.cast(message).map_err(|_undelivered| gone("supervisor"))?;
            }
            Order::EndTick(tick) => {
                self.recorder.end_tick(tick)?;
                let (control, me) = (self.control.clone(), me.clone());
                tokio::spawn(async move {
                    control.ready().await;
                    let _ = me.cast(ConductorMessage::Go);
                });
            }
            Order::Finish(tick) => {
                self.recorder.end_tick(tick)?;
                let summary = serde_json::to_string_pretty(&self.summary).unwrap_or_default();
                self.recorder.write("summary.json", &(summary + "\n"))?;
                self.end(Ok(self.summary.clone()));
            }
            Order::Fail(reason) => self.end(Err(ConductError::Society(reason))),
        }
        Ok(())
    }

    fn publish_events(&mut self) -> Result<(), ConductError> {
        for event in self.stage.take_events() {
            self.recorder.record(&event)?;
            self.summary.apply(&event);
            self.feed.show(&event);
        }
        Ok(())
    }

    fn end(&mut self, result: Result<Summary, ConductError>) {
        if let Some(ending) = self.ending.take() {
            let _ = ending.send(result);
        }
    }
}
