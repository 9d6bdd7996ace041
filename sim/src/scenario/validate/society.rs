//! Checks of backbones, agents and who speaks when.

use std::collections::BTreeMap;

use agents::backbone::Precision;
use agents::backbone::gguf::Gguf;
use agents::hub::HubError;
use agents::name::AgentName;
use agents::sampler::Filter;
use miette::SourceSpan;

use super::{Check, Seen, count};
use crate::scenario::file::{AdapterFile, AgentFile, BackboneFile, TaskFile, TransferFile};
use crate::scenario::place::At;
use crate::scenario::problem::Problem;
use crate::scenario::problem::meeting::MeetingProblem;
use crate::scenario::suggestion::{advice, quote};
use crate::scenario::words::{self, meaning, names};
use crate::scenario::{
    AgentPlan, BackbonePlan, BackboneSource, Labels, MindPlan, ModelPlan, WarmUpPlan,
};

/// What an agent can do in a pipeline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Classifier,
    Writer,
    Judge,
}

impl Part {
    const PIPELINE: [Self; 3] = [Self::Classifier, Self::Writer, Self::Judge];

    /// The part that an agent's transfer gives it; nothing where its labels are unknown.
    pub(super) fn of(agent: &AgentFile) -> Option<Self> {
        let labels = match agent.transfer.as_ref()? {
            TransferFile::Feature(feature) => &feature.labels,
            TransferFile::Head(head) => &head.labels,
            TransferFile::Lora(_)
            | TransferFile::Ia3(_)
            | TransferFile::Vera(_)
            | TransferFile::Prompt(_)
            | TransferFile::Prefix(_)
            | TransferFile::Full(_)
            | TransferFile::Adapter(AdapterFile { labels: None, .. }) => {
                return Some(Self::Writer);
            }
            TransferFile::Adapter(AdapterFile { labels: Some(labels), .. }) => labels,
        };
        Some(match meaning(&words::LABELS, &labels.value)? {
            Labels::Intent => Self::Classifier,
            Labels::Resolved => Self::Judge,
        })
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Classifier => "classifier",
            Self::Writer => "writer",
            Self::Judge => "judge",
        }
    }

    fn transfer(self) -> &'static str {
        match self {
            Self::Classifier => "an agent with `transfer.feature = { labels = \"intent\" }`",
            Self::Writer => "an agent with `transfer.lora = { … }`",
            Self::Judge => "an agent with `transfer.head = { labels = \"resolved\", … }`",
        }
    }
}

impl Check<'_> {
    pub(super) fn backbones(&mut self) -> BTreeMap<String, BackbonePlan> {
        let mut plans = BTreeMap::new();
        for (name, backbone) in self.file.backbone.iter().flatten() {
            let typed = backbone.dtype.as_ref();
            let precision = typed.map(|typed| self.choice("dtype", &words::PRECISIONS, typed));
            let precision = precision.unwrap_or(Some(Precision::F32));
            let source = self.backbone_source(name, backbone);
            if let (Some(source), Some(precision)) = (source, precision) {
                let from_scratch = backbone.from_scratch;
                let plan = BackbonePlan { source, from_scratch, precision };
                plans.insert(name.value.clone(), plan);
            }
        }
        plans
    }

    fn backbone_source(
        &mut self,
        name: &At<String>,
        file: &BackboneFile,
    ) -> Option<BackboneSource> {
        let shown = quote(&name.value);
        let all = [&file.builtin, &file.path, &file.hub];
        let mut given: Vec<SourceSpan> = all.into_iter().flatten().map(|typed| typed.at).collect();
        given.sort_by_key(SourceSpan::offset);
        if let [first, at, ..] = *given.as_slice() {
            self.problems.push(Problem::TwoBackboneSources { name: shown, first, at });
            return None;
        }
        if let Some(builtin) = &file.builtin {
            let source = meaning(&words::BUILTINS, &builtin.value);
            if source.is_none() {
                let help = advice(&builtin.value, names(&words::BUILTINS));
                let name = quote(&builtin.value);
                self.problems.push(Problem::UnknownBuiltin { name, at: builtin.at, help });
            }
            return source;
        }
        if let Some(typed) = &file.path {
            let path = self.path(&["backbone", &name.value, "path"], typed)?;
            let there = match (self.setting.look)(&path) {
                Seen::Folder => true,
                Seen::File { .. } => Gguf::is(&path),
                Seen::Nothing => false,
            };
            if !there {
                let path = quote(&path.display().to_string());
                self.problems.push(Problem::MissingBackbone { name: shown, path, at: typed.at });
            }
            return Some(BackboneSource::Path(path));
        }
        let Some(typed) = &file.hub else {
            self.problems.push(Problem::NoBackboneSource { name: shown, at: name.at });
            return None;
        };
        match typed.value.parse() {
            Ok(model) => Some(BackboneSource::Hub(model)),
            Err(error) => {
                let reason = match error {
                    HubError::Name { reason, .. } => reason.to_owned(),
                    other => other.to_string(),
                };
                let name = quote(&typed.value);
                self.problems.push(Problem::InvalidHubModel { name, reason, at: typed.at });
                None
            }
        }
    }

    pub(super) fn agents(&mut self) -> BTreeMap<AgentName, AgentPlan> {
        let mut plans = BTreeMap::new();
        let file = self.file;
        if let (Some(agents), true) = (&file.agents, self.declared.agents.is_empty()) {
            self.problems.push(Problem::NoAgents { at: agents.at });
        }
        for (name, agent) in file.agents() {
            let names: Vec<_> =
                agent.names(&name.value).iter().map(|n| AgentName::new(n)).collect();
            if names.iter().any(Result::is_err) {
                let (name, at) = (quote(&name.value), name.at);
                self.problems.push(Problem::InvalidAgentName { name, at });
            }
            let mind = self.mind(name, agent);
            let supervision = self.agent_supervision(&agent.supervision);
            let Some(mind) = mind else { continue };
            for valid in names.into_iter().flatten() {
                let plan = AgentPlan { mind: mind.clone(), supervision };
                if plans.insert(valid.clone(), plan).is_some() {
                    let (name, at) = (valid.to_string(), name.at);
                    self.meets(MeetingProblem::SameName { name, at });
                }
            }
        }
        plans
    }

    /// What an agent thinks with.
    fn mind(&mut self, name: &At<String>, agent: &AgentFile) -> Option<MindPlan> {
        let (shown, at) = (quote(&name.value), name.at);
        if let Some(script) = &agent.script {
            let others =
                [("transfer", agent.transfer.is_some()), ("backbone", agent.backbone.is_some())];
            if let Some((also, _)) = others.into_iter().find(|(_, there)| *there) {
                self.meets(MeetingProblem::TwoMinds { name: shown, also, at });
            }
            return self.script(script).map(MindPlan::Script);
        }
        let typed = |key: &str| self.declared.keys.contains(&(name.value.clone(), key.to_owned()));
        let (backbone, transfer) = match (&agent.backbone, &agent.transfer) {
            (Some(backbone), Some(transfer)) => (backbone, transfer),
            // What could not be decoded was reported before.
            (None, _) if typed("backbone") => return None,
            (_, None) if typed("transfer") => return None,
            (None, None) if typed("script") => return None,
            (None, None) => {
                self.meets(MeetingProblem::NoMind { name: shown, at });
                return None;
            }
            (backbone, _) => {
                let missing = if backbone.is_none() { "backbone" } else { "transfer" };
                self.meets(MeetingProblem::HalfAModel { name: shown, missing, at });
                return None;
            }
        };
        self.known_backbone(name, backbone);
        let transfer = self.transfer(&name.value, transfer);
        let settings = self.settings(&agent.warm_up.settings, agent.transfer.as_ref());
        let warm_up = WarmUpPlan {
            examples_per_intent: count(&agent.warm_up.examples_per_intent),
            steps: count(&agent.warm_up.steps),
            batch: count(&agent.warm_up.batch),
            learning_rate: agent.warm_up.learning_rate.value,
            settings: settings?,
        };
        let (backbone, transfer) = (backbone.value.clone(), transfer?);
        let temperature = agent.temperature.value;
        let filter = Filter {
            top_k: agent.top_k.as_ref().map(count),
            top_p: agent.top_p.as_ref().map(|share| share.value),
            min_p: agent.min_p.as_ref().map(|share| share.value),
        };
        let model = ModelPlan { backbone, transfer, warm_up, temperature, filter };
        Some(MindPlan::Model(Box::new(model)))
    }

    fn known_backbone(&mut self, agent: &At<String>, typed: &At<String>) {
        let known = &self.declared.backbones;
        if !known.contains(&typed.value) {
            let help = advice(&typed.value, known.iter().map(String::as_str));
            self.problems.push(Problem::UnknownBackbone {
                agent: quote(&agent.value),
                name: quote(&typed.value),
                at: typed.at,
                help,
            });
        }
    }

    pub(super) fn labels(&mut self, typed: &At<String>) -> Option<Labels> {
        let labels = meaning(&words::LABELS, &typed.value);
        if labels.is_none() {
            let help = advice(&typed.value, names(&words::LABELS));
            self.problems.push(Problem::UnknownLabels {
                name: quote(&typed.value),
                at: typed.at,
                help,
            });
        }
        labels
    }

    /// Checks an order of all agents.
    pub(super) fn order(&mut self, order: &At<Vec<At<String>>>) -> Option<Vec<AgentName>> {
        let before = self.problems.len();
        let mut seen: BTreeMap<&str, SourceSpan> = BTreeMap::new();
        for typed in &order.value {
            let name = quote(&typed.value);
            if let Some(&first) = seen.get(typed.value.as_str()) {
                self.problems.push(Problem::DuplicateInOrder { name, first, at: typed.at });
                continue;
            }
            seen.insert(&typed.value, typed.at);
            self.known_agent("the order", typed);
        }
        let file = self.file;
        let agents = file.agents().flat_map(|(name, agent)| {
            agent.names(&name.value).into_iter().map(move |own| (name, own))
        });
        for (name, own) in agents {
            if !seen.contains_key(own.as_str()) {
                let help = self.right_order().map_or_else(
                    || "add it to the order, or remove the agent".to_owned(),
                    |order| format!("write `order = {order}`"),
                );
                let (at, order, name) = (name.at, order.at, quote(&own));
                self.problems.push(Problem::AgentNotInOrder { name, at, order, help });
            }
        }
        let plays_support = matches!(self.file.task, Some(TaskFile::Support(_)));
        if plays_support && self.problems.len() == before && !self.declared.agents.is_empty() {
            self.parts(order);
        }
        order.value.iter().map(|typed| AgentName::new(&typed.value).ok()).collect()
    }

    /// Checks that the agents of an order play the parts of a pipeline, where all parts are known.
    fn parts(&mut self, order: &At<Vec<At<String>>>) {
        let part = |name: &At<String>| self.file.agent(name).and_then(Part::of);
        let Some(parts) = order.value.iter().map(part).collect::<Option<Vec<Part>>>() else {
            return;
        };
        if parts == Part::PIPELINE {
            return;
        }
        let nouns: Vec<&str> = parts.iter().map(|part| part.noun()).collect();
        let shown = match nouns.as_slice() {
            [] => "this is nobody".to_owned(),
            nouns => format!("this is {}", nouns.join(", ")),
        };
        let help =
            match (self.right_order(), Part::PIPELINE.iter().find(|part| !parts.contains(part))) {
                (Some(order), _) => format!("write `order = {order}`"),
                (None, Some(part)) => format!("add {}", part.transfer()),
                (None, None) => "keep one agent of each part and remove the others".to_owned(),
            };
        self.problems.push(Problem::WrongParts { parts: shown, at: order.at, help });
    }

    /// The order that makes a pipeline, where there is exactly one agent for each part.
    fn right_order(&self) -> Option<String> {
        let only = |part: Part| {
            let mut all = self.file.agents().filter(|(_, agent)| Part::of(agent) == Some(part));
            let (name, _) = all.next()?;
            all.next().is_none().then(|| format!("\"{}\"", name.value.escape_debug()))
        };
        let order: Option<Vec<String>> = Part::PIPELINE.into_iter().map(only).collect();
        order
            .filter(|order| order.len() == self.declared.agents.len())
            .map(|order| format!("[{}]", order.join(", ")))
    }

    /// Whether an agent is in the file; otherwise says so.
    pub(super) fn known_agent(&mut self, place: &str, typed: &At<String>) -> bool {
        let known = &self.declared.agents;
        // One that could not be decoded is there all the same; of copies there is none with the bare name.
        let is_decoded = self.file.agents().any(|(name, _)| name.value == typed.value);
        let found = self.file.agent(typed).is_some() || known.contains(&typed.value) && !is_decoded;
        // Without any agents, that was the mistake.
        if !found && !known.is_empty() {
            let help = advice(&typed.value, known.iter().map(String::as_str));
            let (place, name) = (place.to_owned(), quote(&typed.value));
            self.problems.push(Problem::UnknownAgent { place, name, at: typed.at, help });
        }
        found
    }
}
