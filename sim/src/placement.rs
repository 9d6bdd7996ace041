//! On which device of a run each agent lives.
//!
//! Agents with a model, in the order of their names, go to one device after the other, and to the first again
//! after the last. So it depends on the scenario and the number of devices alone: a run that is taken up again
//! is divided as it was.

use std::collections::BTreeMap;

use agents::name::AgentName;

use crate::scenario::Scenario;

/// The place of each agent with a model among the devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement(BTreeMap<AgentName, usize>);

impl Placement {
    /// Divides the agents of a scenario among so many devices.
    #[must_use]
    pub fn of(scenario: &Scenario, devices: usize) -> Self {
        let models = scenario.agents.iter().filter(|(_, plan)| plan.model().is_some());
        let turns = (0..devices.max(1)).cycle();
        Self(models.map(|(name, _)| name.clone()).zip(turns).collect())
    }

    /// The device of an agent; the first for one without a model, which asks none.
    #[must_use]
    pub fn device(&self, agent: &AgentName) -> usize {
        self.0.get(agent).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn agents_with_a_model_take_turns() {
        let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let of = |name: &str, devices| {
            let scenario = crate::scenario::load(&scenarios.join(name), &[], None).unwrap();
            let placement = Placement::of(&scenario, devices);
            let names = scenario.agents.keys();
            names.map(|name| placement.device(name)).collect::<Vec<_>>()
        };
        // evaluate, reply, understand
        assert_eq!(of("customer_service", 2), [0, 1, 0]);
        assert_eq!(of("customer_service", 5), [0, 1, 2]);
        assert_eq!(of("customer_service", 1), [0, 0, 0]);
        assert!(of("opinions", 3).iter().all(|&device| device == 0), "scripts ask no device");
    }
}
