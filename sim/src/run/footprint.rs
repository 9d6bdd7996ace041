//! What a run will take of memory, from its scenario alone: said by `check`, and looked at before a model is
//! loaded. Nothing is allocated here.

use std::collections::BTreeMap;

use agents::adapter::Method;
use agents::adapter::file::Description;
use agents::backbone::{Architecture, Precision, builtin};
use agents::device::free_memory;
pub use agents::engine::memory::Footprint;
use agents::engine::memory::{
    available, of_adapter, of_backbone, of_cache, of_model, of_steps, of_training,
};
use agents::engine::schedule::Limits;
use agents::name::AgentName;

use super::{Open, RunError, open};
use crate::backbone::{DeviceKind, Devices};
use crate::placement::Placement;
use crate::scenario::{BackboneSource, Scenario, TransferPlan};
use crate::traffic::Traffic;

/// Tokens of a prompt that are reckoned with.
const PROMPT: usize = 256;

/// What a run takes at most of a device's memory, and what is free there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Whose memory.
    pub device: DeviceKind,
    /// What is predicted.
    pub predicted: Footprint,
    /// Bytes that are free; none where that is not known.
    pub free: Option<u64>,
}

impl Need {
    /// Refuses what cannot fit, with what would help.
    ///
    /// # Errors
    /// Where more is predicted than is free.
    pub fn check(&self) -> Result<(), RunError> {
        let refuse = |error| RunError::Memory { device: self.device, error };
        self.predicted.check(self.free).map_err(refuse)
    }
}

/// What a run of a scenario would need of these devices, which are opened for it; nothing is loaded.
///
/// # Errors
/// Where a device cannot be used.
pub fn needs(scenario: &Scenario, devices: &Devices) -> Result<Vec<Need>, RunError> {
    Ok(of_open(scenario, &open(devices)?))
}

/// The same of devices that are open already.
pub(super) fn of_open(scenario: &Scenario, devices: &[Open]) -> Vec<Need> {
    let need = |(device, predicted)| {
        let free = match devices.iter().find(|open| open.kind == device) {
            Some(open) => free_memory(&open.device),
            // What was said is kept in the machine's own memory, whatever runs the models.
            None => available(),
        };
        Need { device, predicted, free }
    };
    let kinds: Vec<DeviceKind> = devices.iter().map(|open| open.kind).collect();
    predicted(scenario, &kinds).into_iter().map(need).collect()
}

/// What the run of a scenario takes at most of each device; models of the hub are not counted, because only their
/// folders say how large they are.
fn predicted(scenario: &Scenario, devices: &[DeviceKind]) -> BTreeMap<DeviceKind, Footprint> {
    let known = known(scenario);
    let placement = Placement::of(scenario, devices.len());
    let mut all: BTreeMap<DeviceKind, Footprint> = BTreeMap::new();
    for (place, &device) in devices.iter().enumerate() {
        let total = all.entry(device).or_default();
        for (name, model) in &known {
            model.add(scenario, (name, device), |agent| placement.device(agent) == place, total);
        }
    }
    all.entry(DeviceKind::Cpu).or_default().messages = Traffic::of(scenario).memory();
    all
}

/// How many texts an engine has in progress at most: one in each episode, for those who write speak one after the
/// other there.
pub(super) fn sequences(scenario: &Scenario) -> usize {
    let episodes = usize::try_from(Traffic::of(scenario).episodes).unwrap_or(usize::MAX);
    episodes.min(Limits::default().sequences)
}

/// What is known of a model before it is loaded.
struct Known {
    architecture: Architecture,
    precision: Precision,
    /// Bytes of its weights.
    bytes: u64,
}

/// The models of a scenario whose size can be told. What cannot be read is told, with all that is wrong with it,
/// when it is loaded.
fn known(scenario: &Scenario) -> BTreeMap<&str, Known> {
    let mut known = BTreeMap::new();
    for (name, plan) in &scenario.backbones {
        let found = match &plan.source {
            BackboneSource::Builtin => embedded(),
            BackboneSource::Path(path) => of_model(path).ok(),
            BackboneSource::Hub(_) => None,
        };
        let Some((architecture, stored)) = found else { continue };
        let precision = plan.precision;
        // Quantised weights stay so in f32 only.
        let bytes = match precision {
            Precision::F32 => stored,
            other => of_backbone(&architecture) / Precision::F32.bytes() * other.bytes(),
        };
        known.insert(name.as_str(), Known { architecture, precision, bytes });
    }
    known
}

impl Known {
    /// Adds what it and its agents that live in one place take there.
    fn add(
        &self,
        scenario: &Scenario,
        (name, device): (&str, DeviceKind),
        lives_here: impl Fn(&AgentName) -> bool,
        total: &mut Footprint,
    ) {
        let Self { architecture, precision, bytes } = self;
        let mut trained = Vec::new();
        let (mut settings, mut longest) = (None, None);
        let models = scenario.agents.iter().filter_map(|(agent, own)| Some((agent, own.model()?)));
        let models = models.filter(|(_, plan)| plan.backbone == name);
        for (agent, plan) in models.filter(|(agent, _)| lives_here(agent)) {
            let method = match &plan.transfer {
                TransferPlan::Feature { .. } => Method::Frozen,
                // What is wrong with its files is told when they are loaded.
                TransferPlan::Adapter { folder, .. } => {
                    Description::read(folder).map_or(Method::Frozen, |found| found.method)
                }
                TransferPlan::Text(method) => method.clone(),
                TransferPlan::Head { freeze_layers, .. } => {
                    Method::Layers { freeze_layers: *freeze_layers }
                }
            };
            if plan.transfer.labels().is_none() {
                // All texts in progress may be of the one whose adapter puts most before them.
                longest = longest.max(Some(method.virtual_tokens()));
            }
            let bytes = of_adapter(architecture, *precision, &method);
            total.adapters = total.adapters.saturating_add(bytes.total());
            trained.push(bytes);
            let largest = scenario.settings_of(agent).into_iter();
            settings = largest.chain(settings).max_by_key(|own| own.micro_batch_tokens);
        }
        if !trained.is_empty() {
            total.backbones += bytes;
        }
        if let Some(settings) = settings {
            let is_cpu = device == DeviceKind::Cpu;
            total.training += of_training(architecture, *precision, &trained, &settings, is_cpu);
        }
        if let Some(virtual_tokens) = longest {
            // Sessions on a CPU keep keys and values in f32.
            let kept = if device == DeviceKind::Cpu { Precision::F32 } else { *precision };
            let tokens = (PROMPT + scenario.channel.max_tokens).saturating_add(virtual_tokens);
            total.cache += of_cache(architecture, kept, sequences(scenario), tokens);
            if device != DeviceKind::Cpu {
                let (sequences, prompts) = (sequences(scenario), Limits::default().prompt_tokens);
                total.steps += of_steps(architecture, *precision, sequences, prompts);
            }
        }
    }
}

fn embedded() -> Option<(Architecture, u64)> {
    let backbone = builtin::polylogue_tiny(&DeviceKind::Cpu.open().ok()?).ok()?;
    let architecture = Architecture::clone(backbone.network.architecture());
    let bytes = of_backbone(&architecture);
    Some((architecture, bytes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use agents::adapter::{Adapter, AdapterSpec};
    use agents::engine::Engine;
    use agents::engine::queue::{Answer, Request, Want};
    use agents::seed::Seed;
    use agents::writing::Draw;

    use super::*;

    fn scenario(set: &[&str]) -> Scenario {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/customer_service");
        let set: Vec<String> = set.iter().map(|&set| set.to_owned()).collect();
        crate::scenario::load(&path, &set, None).unwrap()
    }

    /// The prediction needs no card to be there.
    #[test]
    fn each_device_is_told_what_its_agents_take() {
        let scenario = scenario(&[]);
        let (cpu, cards) = (DeviceKind::Cpu, [DeviceKind::Cuda(0), DeviceKind::Cuda(1)]);
        let alone = predicted(&scenario, &[cpu])[&cpu];
        let divided = predicted(&scenario, &cards);
        assert!(divided.keys().eq([cpu, cards[0], cards[1]].iter()));
        let [one, other] = cards.map(|card| divided[&card]);
        assert_eq!(divided[&cpu], Footprint { messages: alone.messages, ..Footprint::default() });
        assert_eq!((one.backbones, other.backbones), (alone.backbones, alone.backbones));
        assert_eq!(one.adapters + other.adapters, alone.adapters);
        assert!(one.adapters > 0 && other.adapters > 0 && one.messages == 0);
        // `reply`, the second of three, is the only one that writes.
        assert_eq!((one.cache, other.cache), (0, alone.cache));
        let (architecture, _) = embedded().unwrap();
        let logits = 128 * architecture.vocabulary as u64 * (4 + 4);
        let passes = (96 + 512u64).div_ceil(128);
        assert!(alone.steps == 0 && one.steps == 0);
        assert!((passes * logits..(passes + 1) * logits).contains(&other.steps), "{other:?}");
    }

    /// Cards fill their passes up to this number, so more than are needed cost something.
    #[test]
    fn engines_run_as_many_texts_at_once_as_are_predicted() {
        let devices = open(&Devices::default()).unwrap();
        // The holdout is played 96 episodes wide, whatever the scenario says of play.
        for (concurrent, expected) in [(8, 96), (200, 200), (1000, 256)] {
            let set = format!("concurrent_episodes={concurrent}");
            let scenario = scenario(&[&set, "episodes=1000"]);
            let [engine] = super::super::limits(&devices, &scenario)[..] else { panic!("one") };
            assert_eq!(engine.sequences, expected, "{set}");
            let cache = predicted(&scenario, &[DeviceKind::Cpu])[&DeviceKind::Cpu].cache;
            let (architecture, _) = embedded().unwrap();
            let tokens = PROMPT + scenario.channel.max_tokens;
            assert_eq!(cache, of_cache(&architecture, Precision::F32, engine.sequences, tokens));
        }
    }

    /// Every text as long as the scenario allows, as many at once as it can ask for.
    #[test]
    fn engines_promise_what_is_predicted_also_to_virtual_tokens() {
        let device = DeviceKind::Cpu;
        let backbone = Arc::new(builtin::polylogue_tiny(&device.open().unwrap()).unwrap());
        let name = AgentName::new("reply").unwrap();
        for (transfer, blocks) in [
            ("prefix={tokens=40}", 10),
            ("prompt={tokens=70}", 11),
            ("ia3={targets=[\"v_proj\"]}", 9),
        ] {
            let set = format!("agents.reply.transfer={{{transfer}}}");
            let scenario = scenario(&[&set, "channel.text.max_tokens=10"]);
            let plan = &scenario.agents[&name].model().unwrap().transfer;
            let TransferPlan::Text(method) = plan else { panic!("{plan:?}") };
            let spec = AdapterSpec { method: method.clone(), head: None };
            let adapter = Arc::new(Adapter::initial(spec, &backbone, Seed::new(1)).unwrap());
            let [limits] = super::super::limits(&open(&Devices::default()).unwrap(), &scenario)[..]
            else {
                panic!("one device")
            };
            let engine = Engine::start_with(limits, || 0).unwrap();
            let (send, answers) = channel();
            for episode in 0..limits.sequences as u64 {
                // No two begin alike, so nothing is kept beside them.
                let token = |place| (episode * 256 + place) % 2000;
                let send = send.clone();
                let request = Request {
                    key: (0, name.clone(), episode),
                    backbone: Arc::clone(&backbone),
                    adapter: Arc::clone(&adapter),
                    tokens: (0..PROMPT as u64).map(|place| token(place) as u32).collect(),
                    want: Want::Text(Draw::likeliest(scenario.channel.max_tokens, Vec::new())),
                    answer: Answer::new(move |got| drop(send.send(got))),
                };
                engine.handle().infer(request).unwrap();
            }
            // Nobody ends before all have begun, so there is no need to wait for the others.
            assert!(answers.recv().unwrap().is_ok());
            let most = engine.handle().usage_at_most();
            let foretold = predicted(&scenario, &[device])[&device].cache;
            assert_eq!(
                (most.running, most.cache_bytes),
                (limits.sequences as u64, foretold),
                "{transfer}"
            );
            let (architecture, _) = embedded().unwrap();
            let all = of_cache(&architecture, Precision::F32, 96, 32 * blocks);
            assert_eq!(foretold, all, "{transfer}");
        }
    }

    #[test]
    fn adapters_take_more_beside_a_network_in_sixteen_bits_and_backbones_less() {
        let cpu = DeviceKind::Cpu;
        let of = |set: &[&str]| predicted(&scenario(set), &[cpu])[&cpu];
        let (whole, half) = (of(&[]), of(&["backbone.base.dtype=\"bf16\""]));
        assert_eq!(whole.backbones, 2 * half.backbones);
        assert_eq!(2 * half.adapters, 3 * whole.adapters, "all of it once more, in half the bytes");
    }
}
