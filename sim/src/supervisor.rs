//! The supervisor: parent of conductor, trainer and agents. It starts them, hears when one ends, and starts
//! an agent anew when the conductor says so.
//!
//! ```text
//! supervisor ─┬─ conductor   (its end ends the run)
//!             ├─ trainer     (its end ends the run)
//!             └─ agent × n   (its end is told to the conductor)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use agents::adapter::Adapter;
use agents::name::AgentName;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::agent::{Agent, AgentArguments, AgentMessage};
use crate::conductor::{Conductor, ConductorArguments, ConductorMessage};
use crate::training::trainer::{Trainer, TrainerArguments};

/// What the supervisor can be told.
#[derive(Debug)]
pub enum SupervisorMessage {
    /// Start an agent's actor anew with these weights.
    Restart {
        /// Whose.
        agent: AgentName,
        /// The weights.
        adapter: Arc<Adapter>,
    },
}

/// Makes an agent's arguments, once its conductor is known.
pub type Recipe = Box<dyn Fn(ActorRef<ConductorMessage>) -> AgentArguments + Send>;

/// What the society is made from.
pub struct SocietyArguments {
    /// The conductor's part.
    pub conductor: ConductorArguments,
    /// The agents.
    pub agents: Vec<Recipe>,
}

impl std::fmt::Debug for SocietyArguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let agents = self.agents.len();
        f.debug_struct("SocietyArguments").field("agents", &agents).finish_non_exhaustive()
    }
}

/// What it knows.
#[derive(Debug)]
pub struct SupervisorState {
    conductor: ActorRef<ConductorMessage>,
    /// What each agent is made from.
    recipes: BTreeMap<AgentName, AgentArguments>,
    /// Whose actor has this identity.
    living: BTreeMap<ActorId, AgentName>,
}

/// The actor.
#[derive(Debug)]
pub struct Supervisor;

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = SocietyArguments;

    async fn pre_start(
        &self,
        me: ActorRef<SupervisorMessage>,
        arguments: SocietyArguments,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let engine = arguments.conductor.engine.clone();
        let (conductor, _) =
            Actor::spawn_linked(None, Conductor, arguments.conductor, me.get_cell()).await?;
        let trainer = TrainerArguments { engine, conductor: conductor.clone() };
        let (trainer, _) = Actor::spawn_linked(None, Trainer, trainer, me.get_cell()).await?;
        let mut state = SupervisorState {
            conductor: conductor.clone(),
            recipes: BTreeMap::new(),
            living: BTreeMap::new(),
        };
        let mut agents = BTreeMap::new();
        for recipe in arguments.agents {
            let recipe = recipe(conductor.clone());
            let name = recipe.name.clone();
            state.recipes.insert(name.clone(), recipe);
            agents.insert(name.clone(), state.spawn(&name, &me).await?);
        }
        conductor.cast(ConductorMessage::Begin { agents, trainer, supervisor: me })?;
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Restart { agent, adapter } => {
                if let Some(recipe) = state.recipes.get_mut(&agent) {
                    recipe.adapter = adapter;
                }
                let actor = state.spawn(&agent, &me).await?;
                state.conductor.cast(ConductorMessage::AgentRestarted { agent, actor })?;
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _me: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let (id, reason) = match event {
            SupervisionEvent::ActorFailed(actor, error) => (actor.get_id(), error.to_string()),
            SupervisionEvent::ActorTerminated(actor, _, reason) => {
                (actor.get_id(), reason.unwrap_or_else(|| "it stopped".to_owned()))
            }
            _ => return Ok(()),
        };
        let message = match state.living.remove(&id) {
            Some(agent) => ConductorMessage::AgentFailed { agent, reason },
            None => ConductorMessage::Broken { reason },
        };
        // A conductor that is gone has dropped the run's ending, which is how the run hears of it.
        let _ = state.conductor.cast(message);
        Ok(())
    }
}

impl SupervisorState {
    async fn spawn(
        &mut self,
        name: &AgentName,
        me: &ActorRef<SupervisorMessage>,
    ) -> Result<ActorRef<AgentMessage>, ActorProcessingErr> {
        let unknown = || ActorProcessingErr::from(format!("there is no agent `{name}`"));
        let recipe = self.recipes.get(name).cloned().ok_or_else(unknown)?;
        let (actor, _) = Actor::spawn_linked(None, Agent, recipe, me.get_cell()).await?;
        self.living.insert(actor.get_id(), name.clone());
        Ok(actor)
    }
}
