//! How much is said in a society, at most, and what that takes of memory and disk: by the numbers of the
//! scenario, before anybody speaks.

use crate::conductor::stage::HOLDOUT_WIDTH;
use crate::scenario::{ProtocolPlan, Scenario, TaskPlan, TopologyPlan};

/// Bytes of a token's text, with room to spare.
pub(crate) const TOKEN: u64 = 8;
/// Bytes in memory of a message beside its text.
const MESSAGE: u64 = 200;
/// Bytes in memory of a message that waits for a listener.
const LETTER: u64 = 160;
/// Bytes in memory of an agent within an episode.
const SEAT: u64 = 160;
/// Bytes in memory of a pair of which one hears the other.
const EDGE: u64 = 48;
/// Bytes in a checkpoint of a message that waits for a listener, of an agent within an episode, and of a message
/// beside its text.
const STORED: u64 = 64;
/// Bytes in a log of a listener's turn beside its name: a comma, quotation marks, the number that it has heard.
const HEARD: u64 = 14;

/// How many episodes there are at once, and what each takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Episodes in progress at one time.
    pub(crate) episodes: u64,
    /// Agents.
    agents: u64,
    /// Pairs of which one hears the other.
    edges: u64,
    /// Messages.
    pub(crate) turns: u64,
    /// Messages handed to a listener.
    deliveries: u64,
    /// Messages that wait for a listener at one time.
    unread: u64,
    /// Bytes of a message's text.
    text: u64,
    /// Bytes of the longest name.
    name: u64,
}

impl Traffic {
    /// Of a scenario.
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let agents = scenario.agents.len() as u64;
        let edges = edges(&scenario.topology, agents);
        let turns = scenario.protocol.turns(scenario.agents.len());
        let each_round = match &scenario.protocol {
            ProtocolPlan::Pipeline { .. } => agents,
            ProtocolPlan::RoundRobin { .. } | ProtocolPlan::Broadcast { .. } => edges,
            ProtocolPlan::Gossip { fanout, .. } => edges.min(agents.saturating_mul(*fanout as u64)),
        };
        let rounds = turns.checked_div(agents).unwrap_or_default();
        let late = scenario.channel.impair.delay_ticks.saturating_add(2);
        let waiting = late.min(u64::from(scenario.channel.credits)).min(rounds);
        let played = scenario.episodes.min(scenario.concurrent_episodes as u64);
        let held_out = match &scenario.task {
            TaskPlan::Support(_) => HOLDOUT_WIDTH as u64,
            TaskPlan::Talk(_) => 0,
        };
        Self {
            episodes: played.max(held_out),
            agents,
            edges,
            turns,
            deliveries: each_round.saturating_mul(rounds),
            unread: each_round.saturating_mul(waiting),
            text: (scenario.channel.max_tokens as u64).saturating_mul(TOKEN),
            name: scenario.agents.keys().map(|name| name.as_str().len() as u64).max().unwrap_or(0),
        }
    }

    /// Bytes that a society takes.
    pub(crate) fn memory(&self) -> u64 {
        let said = times(self.turns, MESSAGE.saturating_add(self.text));
        let each = sum([said, times(self.unread, LETTER), times(self.agents, SEAT)]);
        times(self.episodes, each).saturating_add(times(self.edges, EDGE))
    }

    /// Bytes of the state in a checkpoint.
    pub(crate) fn checkpoint(&self) -> u64 {
        let said = times(self.turns, STORED.saturating_add(self.text));
        let others = times(self.unread.saturating_add(self.agents), STORED);
        times(self.episodes, said.saturating_add(others))
    }

    /// Bytes of the names of listeners in the log of an episode.
    pub(crate) fn names(&self) -> u64 {
        times(self.deliveries, self.name.saturating_add(HEARD))
    }
}

/// Pairs of which one hears the other; of a random topology, as many as can be expected.
fn edges(topology: &TopologyPlan, agents: u64) -> u64 {
    let others = agents.saturating_sub(1);
    match topology {
        TopologyPlan::Complete => times(agents, others),
        TopologyPlan::Ring => times(2, agents),
        TopologyPlan::Line | TopologyPlan::Star { .. } => times(2, others),
        TopologyPlan::Random { probability } => (times(agents, others) as f64 * probability) as u64,
        TopologyPlan::Edges { edges } => edges.len() as u64,
    }
}

fn times(one: u64, other: u64) -> u64 {
    one.saturating_mul(other)
}

fn sum(parts: [u64; 3]) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(settings: &[&str]) -> Traffic {
        let folder = tempfile::tempdir().unwrap();
        let text = "seed = 1\nepisodes = 4\n[agents.a]\ncopies = 10\nscript.echo = {}\n[task.talk]\nopenings = [\"x\"]\n\
                    [protocol.broadcast]\nrounds = 3\n[channel.text]\nmax_tokens = 8\n";
        let path = folder.path().join("scenario.toml");
        std::fs::write(&path, text).unwrap();
        let settings: Vec<String> = settings.iter().map(|set| (*set).to_owned()).collect();
        Traffic::of(&crate::scenario::load(&path, &settings, None).unwrap())
    }

    #[test]
    fn messages_and_who_hears_them_are_counted() {
        let all = traffic(&[]);
        assert_eq!((all.turns, all.deliveries, all.unread), (30, 270, 180));
        let late = traffic(&["channel.text.impair.delay_ticks=1"]);
        assert_eq!(late.unread, 270, "no more than there are rounds");
        let ring = traffic(&["topology={ ring = {} }"]);
        assert_eq!((ring.deliveries, ring.name), (60, 4));
        let gossip = traffic(&["protocol={ gossip = { rounds = 2, fanout = 3 } }"]);
        assert_eq!((gossip.turns, gossip.deliveries), (20, 60));
        // Four episodes, fewer than may be in progress.
        let two = traffic(&["concurrent_episodes=2"]);
        assert_eq!((all.episodes, two.episodes), (4, 2));
        assert!(all.memory() > all.checkpoint() && all.checkpoint() == 2 * two.checkpoint());
        assert!(all.names() > ring.names());
    }
}
