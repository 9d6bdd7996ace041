//! Who plays in a run, and on what: backbones on the devices whose agents have them, and each agent with what it
//! starts from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agents::backbone::Backbone;
use agents::error::ModelError;
use agents::name::AgentName;
use agents::seed::Seed;
use serde_json::{Value, json};

use super::{Open, RunError, RunOptions, start};
use crate::agent::model::ModelMind;
use crate::agent::{Mind, Role};
use crate::backbone::{self, Fetching};
use crate::conductor::stage::Member;
use crate::placement::Placement;
use crate::scenario::suggestion::message;
use crate::scenario::{AgentPlan, MindPlan, Scenario};
use crate::task::Task;

/// Where weights come from that nobody has trained: a fork with another seed keeps those of its history.
pub(super) fn initial_seed(scenario: &Scenario, options: &RunOptions) -> Seed {
    Seed::new(options.initial_seed.unwrap_or(scenario.seed))
}

/// Backbones by name and device, and where each came from.
type Backbones = (BTreeMap<(String, usize), Arc<Backbone>>, BTreeMap<String, Value>);

/// Opens each backbone on the devices whose agents have it; one that nobody has on the first, so that what is
/// wrong with it is found.
pub(super) fn backbones(
    scenario: &Scenario,
    placement: &Placement,
    devices: &[Open],
    options: &RunOptions,
    hear: &mut dyn FnMut(&Fetching),
) -> Result<Backbones, RunError> {
    let (mut backbones, mut origins) = (BTreeMap::new(), BTreeMap::new());
    for (name, plan) in &scenario.backbones {
        let fail = |error: ModelError| RunError::Backbone { name: name.clone(), error };
        let has = |agent: &AgentPlan| agent.model().is_some_and(|model| model.backbone == *name);
        let users = scenario.agents.iter().filter(|(_, plan)| has(plan));
        let mut places: BTreeSet<usize> = users.map(|(user, _)| placement.device(user)).collect();
        let first = places.pop_first().unwrap_or_default();
        let seed = initial_seed(scenario, options).child("backbone").child(name);
        let ready = |backbone: Backbone| {
            if plan.from_scratch { backbone.from_scratch(seed) } else { Ok(backbone) }
        };
        let device = &devices[first].device;
        let opened = backbone::open(&plan.source, device, plan.precision, &options.hub, hear);
        let opened = opened.map_err(fail)?;
        for place in places {
            let backbone = opened.on(&devices[place].device).and_then(ready).map_err(fail)?;
            backbones.insert((name.clone(), place), Arc::new(backbone));
        }
        let backbone = ready(opened.backbone).map_err(fail)?;
        backbones.insert((name.clone(), first), Arc::new(backbone));
        origins.insert(name.clone(), opened.origin);
    }
    Ok((backbones, origins))
}

/// The agents, and what is recorded and said of them.
#[derive(Default)]
pub(super) struct Cast {
    pub(super) members: BTreeMap<AgentName, Member>,
    /// For the manifest.
    pub(super) origins: BTreeMap<AgentName, Value>,
    pub(super) notices: Vec<String>,
}

/// Makes the agents, each on its device.
pub(super) fn cast(
    scenario: &Scenario,
    task: &Task,
    (backbones, placement): (&BTreeMap<(String, usize), Arc<Backbone>>, &Placement),
    seed: Seed,
) -> Result<Cast, RunError> {
    let mut cast = Cast::default();
    for (name, plan) in &scenario.agents {
        let fail = |reason: String| RunError::Agent { agent: name.clone(), reason };
        let mind = match &plan.mind {
            MindPlan::Script(script) => Mind::Script(script.clone()),
            MindPlan::Model(model) => {
                let device = placement.device(name);
                let backbone = backbones
                    .get(&(model.backbone.clone(), device))
                    .cloned()
                    .ok_or_else(|| fail(format!("there is no backbone `{}`", model.backbone)))?;
                let seed = seed.child(name.as_str());
                let start = start::of(&model.transfer, &backbone, task, seed).map_err(fail)?;
                start::can_learn(&start.adapter, &scenario.settings_of(name)).map_err(fail)?;
                let adapter = start.origin.map(|origin| (name.clone(), json!({"adapter": origin})));
                cast.origins.extend(adapter);
                let notice = |words| message(format_args!("agent `{name}`: {words}"));
                cast.notices.extend(start.notice.map(notice));
                Mind::Model(ModelMind {
                    role: Role::of(&model.transfer),
                    backbone,
                    device,
                    adapter: Arc::new(start.adapter),
                    temperature: model.temperature,
                    filter: model.filter,
                    max_tokens: scenario.channel.max_tokens,
                })
            }
        };
        cast.members.insert(name.clone(), Member { plan: plan.clone(), mind });
    }
    Ok(cast)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::backbone::DeviceKind;

    /// A fork with another seed goes on with the network that its history had.
    #[test]
    fn a_network_at_random_follows_from_the_seed_of_the_history() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/customer_service");
        let set = ["backbone.base.from_scratch=true".to_owned()];
        let of = |seed: u64, initial_seed: Option<u64>| {
            let scenario = crate::scenario::load(&path, &set, Some(seed)).unwrap();
            let options = RunOptions { initial_seed, ..RunOptions::default() };
            let (kind, device) = (DeviceKind::Cpu, DeviceKind::Cpu.open().unwrap());
            let devices = [Open { kind, device }];
            let placement = Placement::of(&scenario, devices.len());
            let opened = backbones(&scenario, &placement, &devices, &options, &mut |_| {});
            let (backbones, _) = opened.unwrap();
            let adapter = agents::adapter::AdapterSpec {
                method: agents::adapter::Method::Layers { freeze_layers: 0 },
                head: None,
            };
            // Its weights are copies of the network's.
            let copies = agents::adapter::Adapter::initial(
                adapter,
                &backbones[&("base".to_owned(), 0)],
                Seed::new(0),
            );
            copies.unwrap().digest().unwrap()
        };
        let before = of(7, None);
        assert_ne!(of(5, None), before);
        assert_eq!(of(5, Some(7)), before);
    }
}
