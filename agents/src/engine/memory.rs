//! How much memory a run will take, from descriptions alone, and how much there is.
//!
//! Figures of weights, adapters, optimisers and caches are exact; what a training step keeps is an estimate
//! from what its operations store. Nothing here allocates what it counts.

mod adapter;

use std::fmt;
use std::path::Path;

pub use self::adapter::{AdapterBytes, of_adapter};
use crate::backbone::gguf::Gguf;
use crate::backbone::{Architecture, Precision, read_file};
use crate::error::{ModelError, Result};
use crate::learning::accumulation::side_by_side;
use crate::learning::job::Settings;
use crate::session::{tile, whole};

/// Bytes of an f32.
const NUMBER: u64 = 4;
/// What is kept free for the program itself and the system.
const RESERVE: u64 = 256 << 20;

/// Bytes that a run takes at most, by what for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Weights of backbones.
    pub backbones: u64,
    /// Weights of adapters.
    pub adapters: u64,
    /// Optimisers, gradients and what one training step keeps.
    pub training: u64,
    /// Keys and values.
    pub cache: u64,
    /// What a step of texts takes on a card beside those.
    pub steps: u64,
    /// What was said in episodes in progress, and waits to be read.
    pub messages: u64,
}

impl Footprint {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        let kept = [self.backbones, self.adapters, self.cache, self.messages];
        kept.into_iter().chain([self.training, self.steps]).fold(0, u64::saturating_add)
    }

    /// Refuses what cannot fit into `available` bytes; nothing is refused where that is not known.
    ///
    /// # Errors
    /// With the figures and what to change.
    pub fn check(&self, available: Option<u64>) -> Result<()> {
        let Some(available) = available else { return Ok(()) };
        let room = available.saturating_sub(RESERVE);
        if self.total() <= room {
            return Ok(());
        }
        let parts = [
            (self.backbones, "a smaller or a quantised backbone (.gguf)"),
            (self.adapters, "fewer agents, or a smaller rank or `freeze_layers` for them"),
            (self.training, "a smaller `micro_batch_tokens`, or `recompute = true`"),
            (self.cache, "a smaller `concurrent_episodes` or `max_tokens`"),
            (self.steps, "a smaller `concurrent_episodes`, or a backbone with fewer tokens"),
            (self.messages, "fewer agents, `rounds` or `concurrent_episodes`, or another topology"),
        ];
        let largest = parts.into_iter().max_by_key(|(bytes, _)| *bytes);
        let advice = largest.map_or("", |(_, advice)| advice);
        Err(ModelError::Memory { needed: self.to_string(), available: mib(room), advice })
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (backbones {}, adapters {}, training {}, cache {}, steps {}, messages {})",
            mib(self.total()),
            mib(self.backbones),
            mib(self.adapters),
            mib(self.training),
            mib(self.cache),
            mib(self.steps),
            mib(self.messages)
        )
    }
}

/// Bytes for people.
#[must_use]
pub fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Bytes that can be allocated now: what the system calls available, or less where a control group says so.
/// None where neither tells.
#[must_use]
pub fn available() -> Option<u64> {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    let system = text("/proc/meminfo").and_then(|text| meminfo(&text));
    let number = |path: &str| text(path)?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(most, used)| most.saturating_sub(used));
    system.into_iter().chain(group).min()
}

fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The architecture of a model's folder or `.gguf` file, and the bytes its weights take in memory.
///
/// # Errors
/// When its configuration cannot be read.
pub fn of_model(path: &Path) -> Result<(Architecture, u64)> {
    if Gguf::is(path) {
        let file = Gguf::open(path)?;
        let architecture = Architecture::from_json(&file.config()?.to_string(), path)?;
        let fail = |source| ModelError::File { path: path.into(), source };
        let stored = std::fs::metadata(path).map_err(fail)?.len();
        // The table of embeddings is expanded beside its blocks.
        let table = (architecture.vocabulary * architecture.hidden) as u64 * NUMBER;
        return Ok((architecture, stored + table));
    }
    let config = path.join("config.json");
    let json = String::from_utf8_lossy(&read_file(&config)?).into_owned();
    let architecture = Architecture::from_json(&json, &config)?;
    let bytes = of_backbone(&architecture);
    Ok((architecture, bytes))
}

/// Bytes of all weights in f32.
#[must_use]
pub fn of_backbone(architecture: &Architecture) -> u64 {
    let numbers = |(_, shape): (String, Vec<usize>)| shape.iter().product::<usize>() as u64;
    architecture.weights().into_iter().map(numbers).sum::<u64>() * NUMBER
}

/// Bytes that jobs for these adapters take while they run at once: values, moments and gradients of each and
/// what the forward pass reads in their place, and what the micro-batches in progress keep for the way back,
/// in numbers of the type that the network computes in.
#[must_use]
pub fn of_training(
    architecture: &Architecture,
    precision: Precision,
    trained: &[AdapterBytes],
    settings: &Settings,
    is_cpu: bool,
) -> u64 {
    if trained.is_empty() {
        return 0;
    }
    let tokens = settings.micro_batch_tokens as u64 * side_by_side(is_cpu) as u64;
    let shared = tokens * kept(architecture, precision, settings);
    let own =
        |adapter: &AdapterBytes| adapter.trained.saturating_mul(4).saturating_add(adapter.copies);
    trained.iter().map(own).fold(shared, u64::saturating_add)
}

/// Bytes that a step of so many texts takes on a card, with as much of prompts as a step reads at most: what
/// the widest layer computes for a pass, and the logits of every pass, in the network's numbers and in f32.
#[must_use]
pub fn of_steps(
    architecture: &Architecture,
    precision: Precision,
    sequences: usize,
    prompt_tokens: usize,
) -> u64 {
    let (tile, number) = (tile(sequences), precision.bytes());
    let passes = (sequences + prompt_tokens).div_ceil(tile) as u64;
    let (hidden, inner) = (architecture.hidden as u64, architecture.inner as u64);
    let logits = architecture.vocabulary as u64 * (number + NUMBER);
    tile as u64 * (passes * logits + (6 * hidden + 3 * inner) * number)
}

/// Bytes that a training step keeps for each token.
fn kept(architecture: &Architecture, precision: Precision, settings: &Settings) -> u64 {
    let (hidden, inner) = (architecture.hidden as u64, architecture.inner as u64);
    let seen = settings.micro_batch_tokens.min(architecture.positions) as u64;
    let layer = 10 * hidden + 5 * inner + architecture.heads as u64 * seen;
    let depth = architecture.depth() as u64;
    let layers = if settings.recompute { layer + depth * hidden } else { depth * layer };
    // Logits, their softmax and their gradient, in f32 whatever the layers are in.
    layers * precision.bytes() + 3 * architecture.vocabulary as u64 * NUMBER
}

/// Bytes of keys and values of `sequences`, each `tokens` long, in whole blocks as sessions keep them: in f32 on
/// a CPU, on a card as the network is.
#[must_use]
pub fn of_cache(
    architecture: &Architecture,
    kept: Precision,
    sequences: usize,
    tokens: usize,
) -> u64 {
    let token = 2 * architecture.depth() * architecture.key_width();
    let tokens = whole(tokens.min(architecture.positions));
    (sequences * tokens) as u64 * token as u64 * kept.bytes()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::backbone::builtin;

    #[test]
    fn a_backbone_takes_what_is_predicted() {
        let backbone = builtin::polylogue_tiny(&Device::Cpu).unwrap();
        let stored = backbone.weights().values().map(|w| w.dims().iter().product::<usize>());
        let predicted = of_backbone(backbone.network.architecture());
        assert_eq!(predicted, 4 * stored.sum::<usize>() as u64);
    }

    #[test]
    fn half_numbers_are_half_of_what_a_network_computes_and_nothing_else() {
        let backbone = builtin::polylogue_tiny(&Device::Cpu).unwrap();
        let architecture = backbone.network.architecture();
        let cache = |precision| of_cache(architecture, precision, 3, 10);
        assert_eq!(cache(Precision::F32), 2 * cache(Precision::Bf16));
        let training = |precision, trained: &[AdapterBytes]| {
            of_training(architecture, precision, trained, &Settings::default(), true)
        };
        let own = AdapterBytes { trained: 1000, ..AdapterBytes::default() };
        let [whole, half] = [Precision::F32, Precision::Bf16].map(|p| training(p, &[own]));
        let logits = 3 * architecture.vocabulary as u64 * NUMBER;
        let threads = rayon::current_num_threads() as u64;
        let fixed = logits * Settings::default().micro_batch_tokens as u64 * threads + 4000;
        assert_eq!(whole - fixed, 2 * (half - fixed));
        assert_eq!(training(Precision::F32, &[]), 0);
    }

    #[test]
    fn what_cannot_fit_is_refused_with_the_largest_part_named() {
        let mut footprint = Footprint { cache: 3 << 30, adapters: 1 << 30, ..Footprint::default() };
        assert!(footprint.check(None).is_ok() && footprint.check(Some(5 << 30)).is_ok());
        let says = footprint.check(Some(4 << 30)).unwrap_err().to_string();
        assert!(says.contains("4096 MiB") && says.contains("concurrent_episodes"), "{says}");
        footprint.backbones = 9 << 30;
        let says = footprint.check(Some(4 << 30)).unwrap_err().to_string();
        assert!(says.contains("quantised"), "{says}");
    }

    #[test]
    fn the_systems_own_words_are_read() {
        let text = "MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:   23068672 kB\n";
        assert_eq!(meminfo(text), Some(22 << 30));
        assert_eq!(meminfo("MemAvailable: many kB"), None);
    }
}
