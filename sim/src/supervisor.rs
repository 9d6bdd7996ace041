//! The supervisor: parent of conductor, trainer and agents, and owner of the engines. It starts them, hears when
//! one ends, and starts anew what the conductor says.
//!
//! ```text
//! supervisor ─┬─ conductor   (its end ends the run)
//!             ├─ engine × m  (a thread a device; its end is noticed by those who ask it)
//!             ├─ trainer     (its end is told to the conductor)
//!             └─ agent × n   (its end is told to the conductor)
//! ```
//! ractor only tells a parent that a child has ended: whom to start anew, when, and when to give up is decided
//! by the conductor's stage.

use std::collections::BTreeMap;

use agents::name::AgentName;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::agent::{Agent, AgentArguments, AgentMessage};
use crate::conductor::order::Restart;
use crate::conductor::oversight::Part;
use crate::conductor::{Conductor, ConductorArguments, ConductorMessage};
use crate::engines::Engines;
use crate::training::trainer::{Trainer, TrainerArguments, TrainerMessage};

/// What the supervisor can be told.
#[derive(Debug)]
pub enum SupervisorMessage {
    /// Start parts of the society anew; what still lives of them is ended first.
    Restart(Restart),
}

/// Makes an agent's arguments, once its conductor is known.
pub type Recipe = Box<dyn Fn(ActorRef<ConductorMessage>) -> AgentArguments + Send>;

/// What the society is made from.
pub struct SocietyArguments {
    /// The conductor's part.
    pub conductor: ConductorArguments,
    /// The agents.
    pub agents: Vec<Recipe>,
    /// Who runs the models.
    pub engines: Engines,
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
    engines: Engines,
    /// What each agent is made from.
    recipes: BTreeMap<AgentName, AgentArguments>,
    /// Which part an actor is; the conductor is not in here.
    living: BTreeMap<ActorId, (Part, ActorCell)>,
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
        let SocietyArguments { conductor, agents: recipes, engines } = arguments;
        let (conductor, _) = Actor::spawn_linked(None, Conductor, conductor, me.get_cell()).await?;
        let mut state = SupervisorState {
            conductor: conductor.clone(),
            engines,
            recipes: BTreeMap::new(),
            living: BTreeMap::new(),
        };
        let trainer = state.spawn_trainer(&me).await?;
        let mut agents = BTreeMap::new();
        for recipe in recipes {
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
            SupervisorMessage::Restart(parts) => state.restart(parts, &me).await?,
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
        // Nobody misses an actor that was ended for its successor; a conductor's end is heard by the run.
        let Some((part, _)) = state.living.remove(&id) else { return Ok(()) };
        // A conductor that is gone has dropped the run's ending, which is how the run hears of it.
        let _ = state.conductor.cast(ConductorMessage::Failed { part, reason });
        Ok(())
    }
}

impl SupervisorState {
    async fn restart(
        &mut self,
        parts: Restart,
        me: &ActorRef<SupervisorMessage>,
    ) -> Result<(), ActorProcessingErr> {
        let Restart { agents: names, trainer, engine } = parts;
        if engine {
            self.engines.restart()?;
        }
        let trainer = if trainer {
            self.end(&Part::Trainer);
            Some(self.spawn_trainer(me).await?)
        } else {
            None
        };
        let mut agents = BTreeMap::new();
        for (name, adapter) in names {
            self.end(&Part::Agent(name.clone()));
            if let (Some(recipe), Some(adapter)) = (self.recipes.get_mut(&name), adapter) {
                recipe.mind.swap(adapter);
            }
            let actor = self.spawn(&name, me).await?;
            agents.insert(name, actor);
        }
        Ok(self.conductor.cast(ConductorMessage::Restarted { agents, trainer, engine })?)
    }

    /// Ends the actors that still play a part; their last words are not heard.
    fn end(&mut self, part: &Part) {
        self.living.retain(|_, (living, actor)| {
            let stays = living != part;
            if !stays {
                actor.kill();
            }
            stays
        });
    }

    async fn spawn(
        &mut self,
        name: &AgentName,
        me: &ActorRef<SupervisorMessage>,
    ) -> Result<ActorRef<AgentMessage>, ActorProcessingErr> {
        let unknown = || ActorProcessingErr::from(format!("there is no agent `{name}`"));
        let recipe = self.recipes.get(name).cloned().ok_or_else(unknown)?;
        let (actor, _) = Actor::spawn_linked(None, Agent, recipe, me.get_cell()).await?;
        self.living.insert(actor.get_id(), (Part::Agent(name.clone()), actor.get_cell()));
        Ok(actor)
    }

    async fn spawn_trainer(
        &mut self,
        me: &ActorRef<SupervisorMessage>,
    ) -> Result<ActorRef<TrainerMessage>, ActorProcessingErr> {
        let (engines, conductor) = (self.engines.handles(), self.conductor.clone());
        let arguments = TrainerArguments { engines, conductor };
        let (trainer, _) = Actor::spawn_linked(None, Trainer, arguments, me.get_cell()).await?;
        self.living.insert(trainer.get_id(), (Part::Trainer, trainer.get_cell()));
        Ok(trainer)
    }
}
