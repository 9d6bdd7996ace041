//! Asking agents for their turns, and taking in what comes of it.
//!
//! All turns of a tick are asked for in one announcement. Where some of them bring nothing and another try is
//! worth it, all are asked for again, under a new number: the engine then runs the same batch as if nothing
//! had happened, and what still comes to the old number is ignored.

use agents::adapter::Generation;
use agents::name::AgentName;
use agents::prompt::provenance::Origin;

use super::faults::Strike;
use super::meeting::silence;
use super::{Order, PROBES, Stage};
use crate::agent::{Failure, Turn, TurnId};
use crate::conductor::ENGINE_LOST;
use crate::conductor::episode::{Asked, Episode, Reply};
use crate::conductor::oversight::Awaited;
use crate::event::{EventKind, Phase, Said, Spoken};
use crate::protocol::Protocol as _;
use crate::scenario::FaultKind;

impl Stage {
    /// Lets everyone speak who is due; an ordered fault may strike one of them.
    pub(super) fn open_turns(&mut self) -> Vec<Order> {
        self.read_mailboxes();
        let strike = self.strike_turn();
        self.ask(strike)
    }

    /// Has every agent that is due read its mailbox. One whose protocol waits for what is on its way to it is
    /// not due yet.
    fn read_mailboxes(&mut self) {
        let tick = self.tick;
        for episode in self.active.values_mut() {
            let waits = episode.protocol.waits();
            for asked in episode.asked.iter_mut().filter(|asked| asked.heard.is_none()) {
                let mailbox = &mut episode.seated[asked.seat].mailbox;
                if !(waits && mailbox.expects(tick)) {
                    asked.heard = Some(mailbox.read(tick));
                }
            }
        }
    }

    /// Whose turn it is, by episode.
    pub(super) fn due(&self) -> impl Iterator<Item = (u64, &Asked)> {
        let due = |asked: &&Asked| asked.heard.is_some();
        self.active.iter().flat_map(move |(id, e)| e.asked.iter().filter(due).map(|a| (*id, a)))
    }

    /// Asks for all turns that are due and not given up.
    pub(super) fn ask(&mut self, strike: Option<Strike>) -> Vec<Order> {
        self.oversight.round += 1;
        let round = self.oversight.round;
        let (mut keys, mut turns, mut missing) = (Vec::new(), Vec::new(), 0);
        let mut active = std::mem::take(&mut self.active);
        for (&id, episode) in &mut active {
            for place in 0..episode.asked.len() {
                let Asked { turn, seat, .. } = episode.asked[place];
                let agent = self.floor.name(seat).clone();
                let asked = &mut episode.asked[place];
                if asked.heard.is_none() {
                    continue;
                }
                if self.oversight.quarantined.contains(&agent) {
                    asked.answer = Some(Reply::Silent("it is in quarantine".to_owned()));
                } else if let Some(until) = self.breaker.silence(seat, self.tick) {
                    asked.answer = Some(Reply::Silent(silence(until)));
                }
                if matches!(asked.answer, Some(Reply::Silent(_))) {
                    continue;
                }
                asked.answer = None;
                missing += 1;
                let struck = strike.filter(|strike| strike.turn == Some((id, turn)));
                if self.members.get(&agent).is_some_and(|member| member.model().is_some()) {
                    keys.push((round, agent.clone(), id));
                }
                if let Some(turn) = self.turn(id, episode, place, struck.map(|s| s.kind)) {
                    turns.extend(self.speak(agent, turn));
                }
            }
        }
        self.active = active;
        self.missing = missing;
        if missing == 0 {
            return self.close();
        }
        self.oversight.awaited = Awaited::Answers;
        // Scripts do not ask the engine: it is told of the others only.
        let mut orders = Vec::with_capacity(turns.len() + 3);
        if !keys.is_empty() {
            orders.push(Order::Expect(keys));
        }
        if strike.is_some_and(|strike| strike.kind == FaultKind::LostEngine) {
            orders.push(Order::LoseEngine);
        }
        orders.extend(turns);
        let milliseconds = self.scenario.supervision.turn_deadline;
        orders.push(Order::Deadline { round, milliseconds });
        orders
    }

    /// The order to speak, and where it will be in vain the order to notice that.
    fn speak(&self, agent: AgentName, mut turn: Turn) -> impl Iterator<Item = Order> + use<> {
        let milliseconds = self.scenario.supervision.turn_deadline;
        if matches!(turn.fault, Some(FaultKind::SlowReply(late)) if late >= milliseconds) {
            turn.fault = Some(FaultKind::Hang);
        }
        let (round, hangs) = (turn.round, turn.fault == Some(FaultKind::Hang));
        let hang = hangs.then(|| Order::Hang { agent: agent.clone(), round, milliseconds });
        [Order::Speak { agent, turn }].into_iter().chain(hang)
    }

    fn turn(
        &self,
        id: u64,
        episode: &Episode,
        place: usize,
        fault: Option<FaultKind>,
    ) -> Option<Turn> {
        let asked = episode.asked.get(place)?;
        let (greedy, round, turn) = (self.phase != Phase::Play, self.oversight.round, asked.turn);
        if id >= PROBES {
            let (item, reply, _) = self.probes.get((id - PROBES) as usize)?;
            let query = self.query(*item).to_owned();
            let topic = self.holdout.topic(*item).cloned();
            // Right or wrong, it is one of the task's.
            let reply = Spoken::new(Origin::Task, Said::Text { text: reply.clone() });
            let heard = topic.into_iter().chain([reply]).collect();
            return Some(Turn { episode: id, turn, query, heard, own: None, greedy, round, fault });
        }
        let heard = asked.heard.iter().flatten();
        let heard = heard.filter_map(|&turn| episode.spoken(turn).cloned()).collect();
        let own = episode.seated.get(asked.seat).and_then(|seated| seated.last);
        let own = own.and_then(|turn| episode.spoken(turn).cloned());
        let query = self.query(episode.item).to_owned();
        Some(Turn { episode: id, turn, query, heard, own, greedy, round, fault })
    }

    /// Notes what came of a turn; the last one that is missing closes the tick.
    pub fn replied(
        &mut self,
        agent: &AgentName,
        turn: TurnId,
        generation: Generation,
        said: Result<Said, Failure>,
    ) -> Vec<Order> {
        if turn.round != self.oversight.round || self.oversight.awaited != Awaited::Answers {
            return Vec::new();
        }
        let Some(asked) = self.active.get_mut(&turn.episode).and_then(|e| e.asked(turn.turn))
        else {
            return Vec::new();
        };
        if self.floor.name(asked.seat) != agent || asked.answer.is_some() {
            return Vec::new();
        }
        asked.answer = Some(match said {
            Ok(said) => Reply::Said(generation, said),
            Err(Failure::Rejected(reason)) => Reply::Rejected(reason),
            Err(Failure::EngineLost) => return self.engine_failed(ENGINE_LOST),
            Err(Failure::Impossible(reason)) => {
                // The engine waits for this turn: the others are announced again without it.
                asked.answer = Some(Reply::Silent(reason));
                return self.ask(None);
            }
        });
        self.missing -= 1;
        if self.missing == 0 { self.complete() } else { Vec::new() }
    }

    /// Closes the tick, unless an answer was rejected and another may be better.
    fn complete(&mut self) -> Vec<Order> {
        let most = self.scenario.supervision.attempts;
        let mut rejections = Vec::new();
        let mut again = false;
        for (&episode, one) in &mut self.active {
            for asked in &mut one.asked {
                let Some(Reply::Rejected(reason)) = &asked.answer else { continue };
                asked.rejected += 1;
                let (reason, attempt) = (reason.clone(), asked.rejected);
                if attempt >= most {
                    let last = format!("no answer of {attempt} could be used; the last: {reason}");
                    asked.answer = Some(Reply::Silent(last));
                } else {
                    again = true;
                }
                let agent = self.floor.name(asked.seat).clone();
                rejections.push(EventKind::ReplyRejected { agent, episode, reason, attempt });
            }
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
