//! The golden models and adapters that hostile adapter files are tried on.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use agents::adapter::Adapter;
use agents::backbone::{Backbone, Pass, Rows, Tokens};
use agents::device::DeviceKind;
use agents::probe;

/// `family/adapter`, chosen by the digits from 0.
const ADAPTERS: [&str; 9] = [
    "llama/lora",
    "llama/ia3",
    "llama/vera",
    "llama/prompt",
    "llama/prefix",
    "llama/dora",
    "bert/seq_cls",
    "bert/ia3",
    "llama/seq_cls",
];

/// A model with the files of one of its adapters.
pub struct Golden {
    backbone: Backbone,
    config: Vec<u8>,
    weights: Vec<u8>,
}

static ALL: LazyLock<Vec<Golden>> = LazyLock::new(|| ADAPTERS.iter().map(|at| load(at)).collect());

fn load(at: &str) -> Golden {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(at);
    let device = DeviceKind::Cpu.open().expect("the CPU");
    let model = folder.parent().expect("a model above its adapter");
    let backbone = probe::load(model, &device).expect("a golden model");
    let read = |name: &str| std::fs::read(folder.join(name)).expect("a golden adapter");
    let (config, weights) = (read("adapter_config.json"), read("adapter_model.safetensors"));
    Golden { backbone, config, weights }
}

/// The adapter of a digit; other bytes choose one too.
pub fn choose(byte: u8) -> &'static Golden {
    &ALL[usize::from(byte.wrapping_sub(b'0')) % ALL.len()]
}

impl Golden {
    /// Loads the adapter with other files in place of its own and, if there is one then, runs it.
    pub fn run(&self, config: Option<&[u8]>, weights: Option<&[u8]>) {
        let folder = Path::new("adapter");
        let config = config.unwrap_or(&self.config);
        let weights = weights.unwrap_or(&self.weights).to_vec();
        let adapter = Adapter::from_bytes(config, weights, folder, &self.backbone);
        let Ok(adapter) = adapter else { return };
        let rows = [vec![3, 17, 5, 9], vec![11]];
        let owners = [Rows { adapter: Some(&adapter), count: rows.len() }];
        let network = &self.backbone.network;
        let Ok(tokens) = Tokens::pack(&rows, &owners, network.device()) else { return };
        let Ok(states) = network.states(&tokens, Pass::of(&owners), network.depth()) else {
            return;
        };
        let _ = states.last().map(|top| network.finish(top, &owners));
        let _ = adapter.digest();
    }
}
