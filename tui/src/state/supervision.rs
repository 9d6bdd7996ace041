//! Failures and what was done about them, as far as screens show them.

use sim::event::EventKind;

use super::State;
use super::log::Notice;

impl State {
    pub(super) fn mend(&mut self, kind: &EventKind) {
        match kind {
            EventKind::FaultInjected { fault, agent, .. } => {
                let whom = match (agent, fault.as_str()) {
                    (Some(agent), _) => agent.as_str(),
                    (None, "lost_engine") => "engine",
                    (None, "lost_trainer") => "trainer",
                    (None, "disk_full") => "recording",
                    (None, _) => "society",
                };
                self.note(Notice::Struck, whom, fault.clone());
            }
            EventKind::AgentFailed { agent, reason } => {
                self.agent_mut(agent.as_str()).failed = true;
                self.note(Notice::Failed, agent.as_str(), reason.clone());
            }
            EventKind::AgentRestarted { agent, restarts, generation } => {
                let it = self.agent_mut(agent.as_str());
                (it.failed, it.restarts, it.generation) = (false, *restarts, generation.0);
                let words = format!("{restarts} on {generation}");
                self.note(Notice::Restarted, agent.as_str(), words);
            }
            EventKind::AgentQuarantined { agent, reason } => {
                let it = self.agent_mut(agent.as_str());
                (it.failed, it.quarantined) = (false, true);
                self.note(Notice::Quarantined, agent.as_str(), reason.clone());
            }
            EventKind::ReplyRejected { agent, reason, .. } => {
                self.note(Notice::Rejected, agent.as_str(), reason.clone());
            }
            EventKind::TurnSkipped { episode, agent, reason, .. } => {
                match self.position(agent.as_str()).map(|place| place + 1) {
                    Some(next) if next < self.agents.len() => self.turns.insert(*episode, next),
                    _ => self.turns.remove(episode),
                };
                self.note(Notice::Skipped, agent.as_str(), reason.clone());
            }
            EventKind::AgentSilenced { agent, limit, most, found, until } => {
                let words = format!("to tick {until}: {limit} {found}, at most {most}");
                self.note(Notice::Silenced, agent.as_str(), words);
            }
            EventKind::EngineFailed { reason } => {
                self.note(Notice::Failed, "engine", reason.clone());
            }
            EventKind::TrainerFailed { reason } => {
                self.note(Notice::Failed, "trainer", reason.clone());
            }
            EventKind::EngineRestarted { restarts, .. } => {
                self.note(Notice::Restarted, "engine", restarts.to_string());
            }
            EventKind::TrainerRestarted { restarts, .. } => {
                self.note(Notice::Restarted, "trainer", restarts.to_string());
            }
            EventKind::RecordingPaused { reason } => {
                self.note(Notice::Failed, "recording", reason.clone());
            }
            EventKind::RecordingResumed { retries } => {
                self.note(Notice::Restarted, "recording", retries.to_string());
            }
            EventKind::SocietyRestarted { reason, .. } => {
                self.note(Notice::Failed, "society", reason.clone());
            }
            _ => {}
        }
    }
}
