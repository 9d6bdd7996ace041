//! The agent actor: hears what was said, asks the engine, and says what it makes of the answer.
//!
//! It never runs a model itself and never waits: the engine's answer comes back as a message. All that it
//! could lose in a crash (its weights, its open turns) the conductor keeps for it. A model's answer that
//! cannot be used is told as such and crashes nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use agents::adapter::{Adapter, Generation};
use agents::backbone::Backbone;
use agents::engine::decode::{Got, Want};
use agents::engine::queue::{Answer, EngineHandle, Request};
use agents::error::{ModelError, Result};
use agents::name::AgentName;
use agents::prompt;
use agents::sampler::Filter;
use agents::seed::Seed;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::clock::Timer;
use crate::conductor::ConductorMessage;
use crate::event::Said;
use crate::scenario::{FaultKind, Labels, TransferPlan};

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
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The episode.
    pub episode: u64,
    /// The number of the message within the episode.
    pub turn: u32,
    /// The customer's words.
    pub query: String,
    /// What was said before, as it was delivered.
    pub heard: Vec<Said>,
    /// Take the likeliest words rather than sample.
    pub greedy: bool,
    /// The announcement that the turn belongs to.
    pub round: u64,
    /// A fault that the experiment orders for this turn.
    pub fault: Option<FaultKind>,
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
        /// The episode.
        episode: u64,
        /// The announcement that the turn belonged to.
        round: u64,
        /// The answer.
        got: Result<Got>,
    },
    /// Use these weights from now on.
    SwapAdapter(Arc<Adapter>),
}

/// All that an agent is made from; the supervisor makes it anew from the same after a crash.
#[derive(Clone, Debug)]
pub struct AgentArguments {
    /// Its name.
    pub name: AgentName,
    /// Its role.
    pub role: Role,
    /// The network it shares.
    pub backbone: Arc<Backbone>,
    /// Its own weights.
    pub adapter: Arc<Adapter>,
    /// Sampling temperature.
    pub temperature: f64,
    /// Longest reply in tokens.
    pub max_tokens: usize,
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
    round: u64,
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
            AgentMessage::Answered { episode, round, got } => {
                state.answered(episode, round, got)?
            }
            AgentMessage::SwapAdapter(adapter) => state.arguments.adapter = adapter,
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
        let (episode, round) = (turn.episode, turn.round);
        let generation = self.arguments.adapter.generation();
        // A chat template is foreign code: that it fails on these words is an answer like another.
        let asked = self.prompt(turn).and_then(|tokens| Ok((tokens, self.want(turn)?)));
        let (tokens, want) = match asked {
            Ok(asked) => asked,
            Err(error) => {
                let said = Err(Failure::Impossible(error.to_string()));
                return self.say(episode, round, generation, said);
            }
        };
        self.open.insert(episode, Open { round, generation, fault: turn.fault });
        let own = &self.arguments;
        let request = Request {
            key: (round, own.name.clone(), episode),
            backbone: Arc::clone(&own.backbone),
            adapter: Arc::clone(&own.adapter),
            tokens,
            want,
            answer: Answer::new(move |got| {
                // A dead agent needs no answer: its successor asks again.
                let _ = me.cast(AgentMessage::Answered { episode, round, got });
            }),
        };
        // An engine that takes nothing has answered with an error.
        let _ = own.engine.infer(request);
        Ok(())
    }

    fn prompt(&self, turn: &Turn) -> Result<Vec<u32>> {
        let tokenizer = &self.arguments.backbone.tokenizer;
        let label = turn.heard.iter().rev().find_map(|said| match said {
            Said::Label { label, .. } => Some(label.as_str()),
            _ => None,
        });
        let text = turn.heard.iter().rev().find_map(|said| match said {
            Said::Text { text } => Some(text.as_str()),
            _ => None,
        });
        match self.arguments.role {
            Role::Understand => prompt::understand(tokenizer, &turn.query),
            Role::Reply => prompt::reply(tokenizer, &turn.query, label.unwrap_or_default()),
            Role::Evaluate => prompt::evaluate(
                tokenizer,
                &turn.query,
                label.unwrap_or_default(),
                text.unwrap_or_default(),
            ),
        }
    }

    fn want(&self, turn: &Turn) -> Result<Want> {
        let own = &self.arguments;
        if own.role != Role::Reply {
            return Ok(Want::Classes);
        }
        Ok(Want::Text {
            max_tokens: own.max_tokens,
            temperature: if turn.greedy { 0.0 } else { own.temperature },
            filter: Filter::default(),
            stop: prompt::stops(&own.backbone.tokenizer)?,
            stream: Box::new(own.seed.index(turn.episode).index(u64::from(turn.turn)).stream()),
        })
    }

    fn answered(
        &mut self,
        episode: u64,
        round: u64,
        got: Result<Got>,
    ) -> Result<(), ActorProcessingErr> {
        if self.open.get(&episode).is_none_or(|open| open.round != round) {
            return Ok(());
        }
        let Some(open) = self.open.remove(&episode) else { return Ok(()) };
        let got = match open.fault {
            Some(FaultKind::MalformedReply) => got.map(damaged),
            Some(FaultKind::OutOfMemory) => got.and(Err(ModelError::OutOfMemory)),
            _ => got,
        };
        let said = got.and_then(|got| self.said(got)).map_err(|error| match error {
            ModelError::EngineStopped => Failure::EngineLost,
            error => Failure::Rejected(error.to_string()),
        });
        if let Some(FaultKind::SlowReply(milliseconds)) = open.fault {
            let own = &self.arguments;
            let (agent, generation) = (own.name.clone(), open.generation);
            let message = ConductorMessage::Replied { agent, episode, round, generation, said };
            let (timer, conductor) = (own.timer, own.conductor.clone());
            tokio::spawn(async move {
                timer.pause(milliseconds).await;
                // A conductor that is gone needs no reply.
                let _ = conductor.cast(message);
            });
            return Ok(());
        }
        self.say(episode, round, open.generation, said)
    }

    fn say(
        &self,
        episode: u64,
        round: u64,
        generation: Generation,
        said: Result<Said, Failure>,
    ) -> Result<(), ActorProcessingErr> {
        let agent = self.arguments.name.clone();
        let message = ConductorMessage::Replied { agent, episode, round, generation, said };
        Ok(self.arguments.conductor.cast(message)?)
    }

    fn said(&self, got: Got) -> Result<Said> {
        self.check(&got)?;
        Ok(match got {
            Got::Text { tokens, .. } => {
                let text = self.arguments.backbone.tokenizer.decode(&tokens)?;
                Said::Text { text: text.trim().to_owned() }
            }
            Got::Classes(probabilities) if self.arguments.role == Role::Evaluate => {
                Said::Verdict { resolved: probabilities.get(1).copied().unwrap_or_default() }
            }
            Got::Classes(probabilities) => {
                let (best, confidence) = likeliest(&probabilities);
                let label = self.arguments.adapter.labels().get(best).cloned();
                Said::Label { label: label.unwrap_or_default(), confidence }
            }
        })
    }

    /// Refuses an answer that means nothing.
    fn check(&self, got: &Got) -> Result<()> {
        let malformed = |reason: String| Err(ModelError::MalformedAnswer(reason));
        match got {
            Got::Text { tokens, .. } => {
                let known = self.arguments.backbone.network.architecture().vocabulary;
                match tokens.iter().find(|token| **token as usize >= known) {
                    Some(token) => malformed(format!("token {token} is none of {known}")),
                    None => Ok(()),
                }
            }
            Got::Classes(probabilities) => {
                let (found, labels) = (probabilities.len(), self.arguments.adapter.labels().len());
                if found != labels {
                    return malformed(format!("{found} probabilities for {labels} labels"));
                }
                if probabilities.iter().any(|p| !p.is_finite()) {
                    return malformed("a probability is not finite".to_owned());
                }
                Ok(())
            }
        }
    }
}

/// An answer as a fault leaves it.
fn damaged(got: Got) -> Got {
    match got {
        Got::Classes(probabilities) => Got::Classes(vec![f64::NAN; probabilities.len()]),
        Got::Text { stop, .. } => Got::Text { tokens: vec![u32::MAX], stop },
    }
}

fn likeliest(probabilities: &[f64]) -> (usize, f64) {
    let mut best = (0, 0.0);
    for (index, &p) in probabilities.iter().enumerate() {
        if p > best.1 {
            best = (index, p);
        }
    }
    best
}
