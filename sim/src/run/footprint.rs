//! What a run will take of memory, from its scenario alone: said by `check`, and looked at before a model is
//! loaded. Nothing is allocated here.

use std::collections::BTreeMap;

use agents::adapter::Method;
use agents::backbone::{Architecture, Precision, builtin};
use agents::device::DeviceKind;
pub use agents::engine::memory::{Footprint, available};
use agents::engine::memory::{of_adapter, of_backbone, of_cache, of_model, of_training};
use agents::engine::schedule::Limits;

use crate::conductor::stage::HOLDOUT_WIDTH;
use crate::scenario::{BackboneSource, Scenario, TransferPlan};
use crate::traffic::Traffic;

/// Tokens of a prompt that are reckoned with.
const PROMPT: usize = 256;

/// What the run of a scenario takes at most; models of the hub are not counted, because only their folders
/// say how large they are.
#[must_use]
pub fn footprint(scenario: &Scenario) -> Footprint {
    let mut known: BTreeMap<&str, Architecture> = BTreeMap::new();
    let mut total = Footprint::default();
    for (name, plan) in &scenario.backbones {
        // What cannot be read is told, with all that is wrong with it, when it is loaded.
        let expanded = |(architecture, _): (Architecture, u64)| {
            let bytes =
                of_backbone(&architecture) / Precision::F32.bytes() * plan.precision.bytes();
            (architecture, bytes)
        };
        let found = match &plan.source {
            BackboneSource::Builtin => embedded(),
            BackboneSource::Path(path) => of_model(path).ok(),
            BackboneSource::Hub(_) => None,
        };
        // Quantised weights stay so in f32 only.
        let found = if plan.precision == Precision::F32 { found } else { found.map(expanded) };
        if let Some((architecture, bytes)) = found {
            total.backbones += bytes;
            known.insert(name, architecture);
        }
    }
    let width = scenario.concurrent_episodes.max(HOLDOUT_WIDTH).min(Limits::default().sequences);
    for (name, architecture) in &known {
        let mut trained = Vec::new();
        let (mut settings, mut writes) = (None, false);
        let models = scenario.agents.iter().filter_map(|(agent, own)| Some((agent, own.model()?)));
        for (agent, plan) in models.filter(|(_, plan)| plan.backbone == **name) {
            let method = match &plan.transfer {
                TransferPlan::Feature { .. } | TransferPlan::Adapter { .. } => Method::Frozen,
                TransferPlan::Text(method) => method.clone(),
                TransferPlan::Head { freeze_layers, .. } => {
                    Method::Layers { freeze_layers: *freeze_layers }
                }
            };
            writes |= plan.transfer.labels().is_none();
            let bytes = of_adapter(architecture, &method);
            total.adapters += bytes;
            trained.push(bytes);
            let largest = scenario.settings_of(agent).into_iter();
            settings = largest.chain(settings).max_by_key(|own| own.micro_batch_tokens);
        }
        if let Some(settings) = settings {
            total.training += of_training(architecture, &trained, &settings);
        }
        if writes {
            total.cache += of_cache(architecture, width, PROMPT + scenario.channel.max_tokens);
        }
    }
    let episodes = scenario.episodes.min(scenario.concurrent_episodes as u64);
    total.messages = Traffic::of(scenario).memory(episodes);
    total
}

fn embedded() -> Option<(Architecture, u64)> {
    let backbone = builtin::polylogue_tiny(&DeviceKind::Cpu.open().ok()?).ok()?;
    let architecture = Architecture::clone(backbone.network.architecture());
    let bytes = of_backbone(&architecture);
    Some((architecture, bytes))
}
