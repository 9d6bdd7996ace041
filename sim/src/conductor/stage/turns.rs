//! Asking agents for their turns, and taking in what comes of it.
//!
//! All turns of a tick are asked for in one announcement. Where some of them bring nothing and another try is
//! worth it, all are asked for again, under a new number: the engine then runs the same batch as if nothing
//! had happened, and what still comes to the old number is ignored.

use agents::adapter::Generation;
use agents::name::AgentName;

use super::faults::Strike;
use super::{Order, PROBES, Stage};
use crate::agent::{Failure, Turn};
use crate::conductor::ENGINE_LOST;
use crate::conductor::episode::Reply;
use crate::conductor::oversight::Awaited;
use crate::event::{EventKind, Phase, Said};
use crate::scenario::FaultKind;

impl Stage {
    /// Lets everyone speak who is due; an ordered fault may strike one of them.
    pub(super) fn open_turns(&mut self) -> Vec<Order> {
        let strike = self.strike_turn();
        self.ask(strike)
    }

    /// Whose turn it is, by episode.
    pub(super) fn due(&self) -> Vec<(u64, AgentName)> {
        let due = self.active.iter();
        due.filter_map(|(id, episode)| Some((*id, episode.asked.clone()?.0))).collect()
    }

    /// Asks for all turns that are due and not given up.
    pub(super) fn ask(&mut self, strike: Option<Strike>) -> Vec<Order> {
        self.oversight.round += 1;
        let round = self.oversight.round;
        let (mut keys, mut turns) = (Vec::new(), Vec::new());
        for (id, agent) in self.due() {
            let Some(episode) = self.active.get_mut(&id) else { continue };
            if self.oversight.quarantined.contains(&agent) {
                episode.answer = Some(Reply::Silent("it is in quarantine".to_owned()));
            }
            if matches!(episode.answer, Some(Reply::Silent(_))) {
                continue;
            }
            episode.answer = None;
            let kind = strike.as_ref().filter(|s| s.episode == Some(id)).map(|s| s.kind);
            turns.extend(self.speak(id, &agent, kind));
            keys.push((round, agent, id));
        }
        if keys.is_empty() {
            return self.close();
        }
        self.oversight.awaited = Awaited::Answers;
        let mut orders = vec![Order::Expect(keys)];
        if strike.is_some_and(|strike| strike.kind == FaultKind::LostEngine) {
            orders.push(Order::LoseEngine);
        }
        orders.extend(turns);
        let milliseconds = self.scenario.supervision.turn_deadline;
        orders.push(Order::Deadline { round, milliseconds });
        orders
    }

    /// The order to speak, and where it will be in vain the order to notice that.
    fn speak(&self, id: u64, agent: &AgentName, fault: Option<FaultKind>) -> Vec<Order> {
        let deadline = self.scenario.supervision.turn_deadline;
        let fault = match fault {
            Some(FaultKind::SlowReply(late)) if late >= deadline => Some(FaultKind::Hang),
            fault => fault,
        };
        let round = self.oversight.round;
        let agent = agent.clone();
        let Some(turn) = self.turn(id, fault) else { return Vec::new() };
        let mut orders = vec![Order::Speak { agent: agent.clone(), turn }];
        if fault == Some(FaultKind::Hang) {
            orders.push(Order::Hang { agent, round, milliseconds: deadline });
        }
        orders
    }

    fn turn(&self, id: u64, fault: Option<FaultKind>) -> Option<Turn> {
        let (greedy, round) = (self.phase != Phase::Play, self.oversight.round);
        if id >= PROBES {
            let (item, reply, _) = self.probes.get((id - PROBES) as usize)?;
            let query = self.task.holdout[*item].query.clone();
            let topic = self.holdout.topic(*item).cloned();
            let heard = topic.into_iter().chain([Said::Text { text: reply.clone() }]).collect();
            return Some(Turn { episode: id, turn: 0, query, heard, greedy, round, fault });
        }
        let episode = self.active.get(&id)?;
        let (_, turns) = episode.asked.as_ref()?;
        let heard =
            turns.iter().filter_map(|&t| episode.said.get(t as usize).cloned().flatten()).collect();
        let query = self.item(episode.item).query.clone();
        let turn = episode.said.len() as u32;
        Some(Turn { episode: id, turn, query, heard, greedy, round, fault })
    }

    /// Notes what came of a turn; the last one that is missing closes the tick.
    pub fn replied(
        &mut self,
        agent: &AgentName,
        id: u64,
        round: u64,
        generation: Generation,
        said: Result<Said, Failure>,
    ) -> Vec<Order> {
        if round != self.oversight.round || self.oversight.awaited != Awaited::Answers {
            return Vec::new();
        }
        let Some(episode) = self.active.get_mut(&id) else { return Vec::new() };
        if episode.asked.as_ref().is_none_or(|(asked, _)| asked != agent) {
            return Vec::new();
        }
        match said {
            Ok(said) => drop(episode.answer.get_or_insert(Reply::Said(generation, said))),
            Err(Failure::Rejected(reason)) => {
                episode.answer.get_or_insert(Reply::Rejected(reason));
            }
            Err(Failure::EngineLost) => return self.engine_failed(ENGINE_LOST),
            Err(Failure::Impossible(reason)) => {
                // The engine waits for this turn: the others are announced again without it.
                episode.answer = Some(Reply::Silent(reason));
                return self.ask(None);
            }
        }
        let complete = self.active.values().all(|e| e.asked.is_none() || e.answer.is_some());
        if complete { self.complete() } else { Vec::new() }
    }

    /// Closes the tick, unless an answer was rejected and another may be better.
    fn complete(&mut self) -> Vec<Order> {
        let most = self.scenario.supervision.attempts;
        let mut rejections = Vec::new();
        let mut again = false;
        for (&id, episode) in &mut self.active {
            let (Some((agent, _)), Some(Reply::Rejected(reason))) =
                (&episode.asked, &episode.answer)
            else {
                continue;
            };
            episode.rejected += 1;
            let (agent, reason, attempt) = (agent.clone(), reason.clone(), episode.rejected);
            if attempt >= most {
                let last = format!("no answer of {attempt} could be used; the last: {reason}");
                episode.answer = Some(Reply::Silent(last));
            } else {
                again = true;
            }
            rejections.push(EventKind::ReplyRejected { agent, episode: id, reason, attempt });
        }
        for rejection in rejections {
            self.emit(rejection);
        }
        if again { self.ask(None) } else { self.close() }
    }

    fn close(&mut self) -> Vec<Order> {
        if self.probing { self.close_probes() } else { self.close_tick() }
    }

    /// Time is over for an announcement: for one agent that was ordered to hang, or for all who are missing.
    pub fn overdue(&mut self, round: u64, agent: Option<AgentName>) -> Vec<Order> {
        if round != self.oversight.round || self.oversight.awaited != Awaited::Answers {
            return Vec::new();
        }
        let seconds = self.scenario.supervision.turn_deadline as f64 / 1_000.0;
        let reason = format!("it did not answer within {seconds} s");
        if let Some(agent) = agent {
            return self.failed(agent, reason);
        }
        // Agents only hand questions on and answers back: it is the engine that hangs.
        self.engine_failed(&reason)
    }
}
