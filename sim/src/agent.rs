//! The agent actor: hears what was said, asks the engine, and says what it makes of the answer.
//!
//! What it makes of a turn is in [`model`] or, without a model, in its script. It never runs a model itself and
//! never waits: the engine's answer comes back as a message. All that it could lose in a crash (its weights, its open turns) the conductor keeps for it. A model's answer that
//! cannot be used is told as such and crashes nobody.

pub mod model;

use std::collections::BTreeMap;
use std::sync::Arc;

use agents::adapter::{Adapter, Generation};
use agents::engine::queue::Got;
use agents::engine::queue::{Answer, EngineHandle, Request};
use agents::error::{ModelError, Result};
use agents::name::AgentName;
use agents::seed::Seed;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use self::model::{ModelMind, damaged};
use crate::clock::Timer;
use crate::conductor::ConductorMessage;
use crate::event::{Said, Spoken};
use crate::scenario::{FaultKind, Labels, TransferPlan};
use crate::script::Script;

/// What an agent does with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Says what the query is about.
    Understand,
    /// Answers it.
    Reply,
    /// Says whether the answer resolves it.
    Evaluate,
}

impl Role {
    /// The role that a transfer prepares for.
    #[must_use]
    pub fn of(transfer: &TransferPlan) -> Self {
        match transfer.labels() {
            None => Self::Reply,
            Some(Labels::Intent) => Self::Understand,
            Some(Labels::Resolved) => Self::Evaluate,
        }
    }
}

/// A turn to speak.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    /// The episode.
    pub episode: u64,
    /// The number of the message within the episode.
    pub turn: u32,
    /// What the episode began with.
    pub query: String,
    /// What was said before, as it was delivered.
    pub heard: Vec<Spoken>,
    /// What the agent itself said last in this episode.
    pub own: Option<Spoken>,
    /// Take the likeliest words rather than sample.
    pub greedy: bool,
    /// The announcement that the turn belongs to.
    pub round: u64,
    /// A fault that the experiment orders for this turn.
    pub fault: Option<FaultKind>,
}

impl Turn {
    /// Which turn it is.
    #[must_use]
    pub fn id(&self) -> TurnId {
        TurnId { episode: self.episode, turn: self.turn, round: self.round }
    }
}

/// Which turn an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnId {
    /// The episode.
    pub episode: u64,
    /// The number of the message within the episode.
    pub turn: u32,
    /// The announcement.
    pub round: u64,
}

/// Why a turn brought nothing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The engine has ended: everyone hears of it.
    EngineLost,
    /// The answer cannot be used; another one may be.
    Rejected(String),
    /// The model cannot even be asked.
    Impossible(String),
}

/// What an agent can be told.
#[derive(Debug)]
pub enum AgentMessage {
    /// Say something.
    Speak(Turn),
    /// The engine's answer to a turn.
    Answered {
        /// Which.
        turn: TurnId,
        /// The answer.
        got: Result<Got>,
    },
    /// Use these weights from now on.
    SwapAdapter(Arc<Adapter>),
}

/// What an agent thinks with.
#[derive(Clone, Debug)]
pub enum Mind {
    /// A model.
    Model(ModelMind),
    /// A script.
    Script(Script),
}

impl Mind {
    /// Gives it other weights; a script has none.
    pub fn swap(&mut self, new: Arc<Adapter>) {
        if let Self::Model(model) = self {
            model.adapter = new;
        }
    }
}

/// All that an agent is made from; the supervisor makes it anew from the same after a crash.
#[derive(Clone, Debug)]
pub struct AgentArguments {
    /// Its name.
    pub name: AgentName,
    /// What it thinks with.
    pub mind: Mind,
    /// Where its draws come from.
    pub seed: Seed,
    /// Who runs the model.
    pub engine: EngineHandle,
    /// Who hears what it says.
    pub conductor: ActorRef<ConductorMessage>,
    /// How late replies are made late.
    pub timer: Timer,
}

/// What it knows while it lives.
#[derive(Debug)]
pub struct AgentState {
    arguments: AgentArguments,
    /// Turns that wait for the engine, by episode.
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    turn: TurnId,
    /// The version of the weights that the turn was asked under.
    generation: Generation,
    fault: Option<FaultKind>,
}

/// The actor.
#[derive(Debug)]
pub struct Agent;

impl Actor for Agent {
    type Msg = AgentMessage;
    type State = AgentState;
    type Arguments = AgentArguments;

    async fn pre_start(
        &self,
        _me: ActorRef<AgentMessage>,
        arguments: AgentArguments,
    ) -> Result<AgentState, ActorProcessingErr> {
        Ok(AgentState { arguments, open: BTreeMap::new() })
    }

    async fn handle(
        &self,
        me: ActorRef<AgentMessage>,
        message: AgentMessage,
        state: &mut AgentState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            AgentMessage::Speak(turn) => state.speak(&turn, me)?,
            AgentMessage::Answered { turn, got } => state.answered(turn, got)?,
            AgentMessage::SwapAdapter(adapter) => state.arguments.mind.swap(adapter),
        }
        Ok(())
    }
}

impl AgentState {
    fn speak(&mut self, turn: &Turn, me: ActorRef<AgentMessage>) -> Result<(), ActorProcessingErr> {
        match turn.fault {
            Some(FaultKind::Panic) => panic!("a panic that the scenario ordered"),
            Some(FaultKind::Hang) => return Ok(()),
            _ => {}
        }
        let (own, id) = (&self.arguments, turn.id());
        match &own.mind {
            Mind::Model(model) => {
                let generation = model.adapter.generation();
                let open = Open { turn: id, generation, fault: turn.fault };
                match own.request(model, turn, me) {
                    Ok(request) => {
                        self.open.insert(turn.episode, open);
                        // An engine that takes nothing has answered with an error.
                        let _ = own.engine.infer(request);
                        Ok(())
                    }
                    Err(error) => {
                        let said = Err(Failure::Impossible(error.to_string()));
                        own.say(id, generation, said)
                    }
                }
            }
            Mind::Script(script) => {
                let said = match turn.fault {
                    Some(FaultKind::MalformedReply) => {
                        Err(ModelError::MalformedAnswer("a script said nothing".to_owned()))
                    }
                    Some(FaultKind::OutOfMemory) => Err(ModelError::OutOfMemory),
                    _ => Ok(script.say(turn, own.seed)),
                };
                let said = said.map_err(|error| Failure::Rejected(error.to_string()));
                own.say_in_time(id, Generation::default(), said, turn.fault)
            }
        }
    }

    fn answered(&mut self, turn: TurnId, got: Result<Got>) -> Result<(), ActorProcessingErr> {
        if self.open.get(&turn.episode).is_none_or(|open| open.turn != turn) {
            return Ok(());
        }
        let (Some(open), Mind::Model(model)) =
            (self.open.remove(&turn.episode), &self.arguments.mind)
        else {
            return Ok(());
        };
        let got = match open.fault {
            Some(FaultKind::MalformedReply) => got.map(damaged),
            Some(FaultKind::OutOfMemory) => got.and(Err(ModelError::OutOfMemory)),
            _ => got,
        };
        let said = got.and_then(|got| model.said(got)).map_err(|error| match error {
            ModelError::EngineStopped => Failure::EngineLost,
            error => Failure::Rejected(error.to_string()),
        });
        self.arguments.say_in_time(turn, open.generation, said, open.fault)
    }
}

impl AgentArguments {
    /// What the engine is asked for on a turn.
    fn request(
        &self,
        model: &ModelMind,
        turn: &Turn,
        me: ActorRef<AgentMessage>,
    ) -> Result<Request> {
        let id = turn.id();
        Ok(Request {
            key: (turn.round, self.name.clone(), turn.episode),
            backbone: Arc::clone(&model.backbone),
            adapter: Arc::clone(&model.adapter),
            // A chat template is foreign code: that it fails on these words is an answer like another.
            tokens: model.prompt(turn)?.into_tokens(),
            want: model.want(turn, self.seed)?,
            answer: Answer::new(move |got| {
                // A dead agent needs no answer: its successor asks again.
                let _ = me.cast(AgentMessage::Answered { turn: id, got });
            }),
        })
    }

    /// Says something at once, or late where that was ordered.
    fn say_in_time(
        &self,
        turn: TurnId,
        generation: Generation,
        said: Result<Said, Failure>,
        fault: Option<FaultKind>,
    ) -> Result<(), ActorProcessingErr> {
        let Some(FaultKind::SlowReply(milliseconds)) = fault else {
            return self.say(turn, generation, said);
        };
        let agent = self.name.clone();
        let message = ConductorMessage::Replied { agent, turn, generation, said };
        let (timer, conductor) = (self.timer, self.conductor.clone());
        tokio::spawn(async move {
            timer.pause(milliseconds).await;
            // A conductor that is gone needs no reply.
            let _ = conductor.cast(message);
        });
        Ok(())
    }

    fn say(
        &self,
        turn: TurnId,
        generation: Generation,
        said: Result<Said, Failure>,
    ) -> Result<(), ActorProcessingErr> {
        let agent = self.name.clone();
        Ok(self.conductor.cast(ConductorMessage::Replied { agent, turn, generation, said })?)
    }
}
