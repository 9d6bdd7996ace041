//! Checks of who meets and how: protocols, topologies, the channel, scripted agents and talk.

use std::collections::BTreeMap;

use agents::name::AgentName;

use super::{Check, count, count64};
use crate::scenario::file::{
    ChannelFile, FloodFile, ProtocolFile, ScriptFile, TalkFile, TaskFile, TextChannelFile,
    TopologyFile,
};
use crate::scenario::place::At;
use crate::scenario::problem::Problem;
use crate::scenario::problem::meeting::MeetingProblem;
use crate::scenario::suggestion::quote;
use crate::scenario::{
    ChannelPlan, FloodPlan, ImpairPlan, ProtocolPlan, TalkPlan, TaskPlan, TopologyPlan,
};
use crate::script::Script;

impl Check<'_> {
    pub(super) fn meets(&mut self, problem: MeetingProblem) {
        self.problems.push(Problem::Meeting(problem));
    }

    pub(super) fn protocol(&mut self) -> Option<ProtocolPlan> {
        let file = self.file.protocol.as_ref()?;
        let rounds = |typed: &At<i64>| u32::try_from(typed.value).unwrap_or_default();
        let (plan, played) = match file {
            ProtocolFile::Pipeline(own) => {
                return self.order(&own.order).map(|order| ProtocolPlan::Pipeline { order });
            }
            ProtocolFile::RoundRobin(own) => {
                let order = match &own.order {
                    Some(order) => self.order(order),
                    None => Some(self.everyone()),
                };
                let rounds = rounds(&own.rounds);
                (order.map(|order| ProtocolPlan::RoundRobin { order, rounds }), own.rounds.at)
            }
            ProtocolFile::Broadcast(own) => {
                let rounds = rounds(&own.rounds);
                (Some(ProtocolPlan::Broadcast { rounds }), own.rounds.at)
            }
            ProtocolFile::Gossip(own) => {
                let (rounds, fanout) = (rounds(&own.rounds), count(&own.fanout));
                (Some(ProtocolPlan::Gossip { rounds, fanout }), own.rounds.at)
            }
        };
        if let Some(TaskFile::Support(_)) = self.file.task {
            self.meets(MeetingProblem::SupportWithoutPipeline { at: played });
        }
        plan
    }

    /// All agents, by the alphabet.
    fn everyone(&self) -> Vec<AgentName> {
        let agents = self.file.agents();
        let names = agents.flat_map(|(name, agent)| agent.names(&name.value));
        let mut names: Vec<_> = names.filter_map(|name| AgentName::new(&name).ok()).collect();
        names.sort();
        names
    }

    pub(super) fn topology(&mut self) -> Option<TopologyPlan> {
        let Some(typed) = &self.file.topology else { return Some(TopologyPlan::Complete) };
        if let Some(ProtocolFile::Pipeline(_)) = self.file.protocol {
            self.meets(MeetingProblem::TopologyOfAPipeline { at: typed.at });
        }
        Some(match &typed.value {
            TopologyFile::Complete(_) => TopologyPlan::Complete,
            TopologyFile::Ring(_) => TopologyPlan::Ring,
            TopologyFile::Line(_) => TopologyPlan::Line,
            TopologyFile::Star(star) => {
                let known = self.known_agent("the topology", &star.hub);
                let hub = AgentName::new(&star.hub.value).ok().filter(|_| known)?;
                TopologyPlan::Star { hub }
            }
            TopologyFile::Random(random) => {
                TopologyPlan::Random { probability: random.probability.value }
            }
            TopologyFile::Edges(file) => {
                let mut edges = Vec::new();
                for pair in &file.pairs.value {
                    let edge = self.edge(pair);
                    let back = edge.iter().filter(|_| file.both_ways);
                    let back: Vec<_> = back.map(|(a, b)| (b.clone(), a.clone())).collect();
                    edges.extend(edge.into_iter().chain(back));
                }
                TopologyPlan::Edges { edges }
            }
        })
    }

    fn edge(&mut self, pair: &At<Vec<At<String>>>) -> Option<(AgentName, AgentName)> {
        let [from, to] = pair.value.as_slice() else {
            self.meets(MeetingProblem::NotAPair { at: pair.at });
            return None;
        };
        let known = [from, to].map(|typed| self.known_agent("the topology", typed));
        if from.value == to.value {
            self.meets(MeetingProblem::NotAPair { at: pair.at });
            return None;
        }
        let name = |typed: &At<String>| AgentName::new(&typed.value).ok();
        known.into_iter().all(|known| known).then(|| Some((name(from)?, name(to)?)))?
    }

    pub(super) fn channel(&self) -> Option<ChannelPlan> {
        let ChannelFile::Text(TextChannelFile { max_tokens, credits, impair }) =
            self.file.channel.as_ref()?;
        Some(ChannelPlan {
            max_tokens: count(max_tokens),
            credits: u32::try_from(credits.value).unwrap_or_default(),
            impair: ImpairPlan {
                loss: impair.loss.value,
                delay_ticks: count64(&impair.delay_ticks),
            },
        })
    }

    pub(super) fn flood(&self) -> FloodPlan {
        let FloodFile { messages_per_tick, tokens_per_tick, repeats_per_tick, silence_ticks } =
            &self.file.flood;
        FloodPlan {
            messages_per_tick: messages_per_tick.as_ref().map(count64),
            tokens_per_tick: tokens_per_tick.as_ref().map(count64),
            repeats_per_tick: repeats_per_tick.as_ref().map(count64),
            silence_ticks: count64(silence_ticks),
        }
    }

    pub(super) fn script(&mut self, file: &ScriptFile) -> Option<Script> {
        Some(match file {
            ScriptFile::Echo(_) => Script::Echo,
            ScriptFile::Fixed(fixed) => Script::Fixed { text: fixed.text.clone() },
            ScriptFile::Table(table) => {
                let answers: BTreeMap<String, String> = table.answers.clone();
                Script::Table { answers, otherwise: table.otherwise.clone() }
            }
            ScriptFile::RandomWords(random) => {
                let words = self.filled("words", "words = [\"yes\", \"no\"]", &random.words)?;
                Script::RandomWords { words, length: count(&random.length) }
            }
            ScriptFile::Voter(voter) => {
                Script::Voter { among: self.filled("among", OPINIONS, &voter.among)? }
            }
            ScriptFile::Majority(majority) => {
                Script::Majority { among: self.filled("among", OPINIONS, &majority.among)? }
            }
        })
    }

    /// A list that must have something in it.
    fn filled(
        &mut self,
        key: &'static str,
        example: &'static str,
        typed: &At<Vec<String>>,
    ) -> Option<Vec<String>> {
        if typed.value.is_empty() {
            self.meets(MeetingProblem::Empty { key, example, at: typed.at });
            return None;
        }
        Some(typed.value.clone())
    }

    pub(super) fn task(&mut self) -> Option<TaskPlan> {
        let file = self.file;
        let task = file.task.as_ref()?;
        for (name, agent) in file.agents() {
            let (shown, at) = (quote(&name.value), name.at);
            match task {
                TaskFile::Support(_) if agent.script.is_some() => {
                    self.meets(MeetingProblem::ScriptInSupport { name: shown, at });
                }
                TaskFile::Talk(_) if agent.transfer.is_some() => {
                    self.meets(MeetingProblem::ModelInTalk { name: shown, at });
                }
                _ => {}
            }
        }
        match task {
            TaskFile::Support(support) => self.support(support).map(TaskPlan::Support),
            TaskFile::Talk(TalkFile { openings }) => {
                let example = "openings = [\"Where shall we eat?\"]";
                let openings = self.filled("openings", example, openings)?;
                Some(TaskPlan::Talk(TalkPlan { openings }))
            }
        }
    }
}

const OPINIONS: &str = "among = [\"red\", \"blue\"]";
