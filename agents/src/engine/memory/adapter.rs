//! How much memory an adapter takes, from its method alone.
//!
//! Counted as [`crate::adapter`] keeps it: all its numbers in f32, and what the forward pass reads instead of
//! them. Its head is not counted, and neither are vectors of the width of the network in own layers' norms.

use super::NUMBER;
use crate::adapter::Method;
use crate::adapter::lora::Init;
use crate::adapter::virtual_tokens::prefix_width;
use crate::backbone::{Architecture, Precision};

/// Bytes of one adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdapterBytes {
    /// Numbers that training changes.
    pub trained: u64,
    /// Numbers that stay as they were drawn or found.
    pub fixed: u64,
    /// What the forward pass reads in place of them: all of them once more where the network computes in 16
    /// bits, and what a method puts together from its numbers.
    pub copies: u64,
}

impl AdapterBytes {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.trained.saturating_add(self.fixed).saturating_add(self.copies)
    }
}

/// Bytes of an adapter of this method on a network that computes in `precision`.
#[must_use]
pub fn of_adapter(
    architecture: &Architecture,
    precision: Precision,
    method: &Method,
) -> AdapterBytes {
    let Numbers { trained, fixed, assembled, whole } = numbers(architecture, method);
    let copied = match precision {
        Precision::F32 => assembled,
        Precision::Bf16 | Precision::F16 => whole,
    };
    AdapterBytes {
        trained: trained.saturating_mul(NUMBER),
        fixed: fixed.saturating_mul(NUMBER),
        copies: copied.saturating_mul(precision.bytes()),
    }
}

/// The same in numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    trained: u64,
    fixed: u64,
    /// Read by the forward pass and not the adapter's own tensors, in f32.
    assembled: u64,
    /// Read by the forward pass, where none of it can be the adapter's own tensors.
    whole: u64,
}

impl Numbers {
    /// Those that the forward pass reads as they are.
    fn plain(trained: u64) -> Self {
        Self { trained, whole: trained, ..Self::default() }
    }
}

fn numbers(architecture: &Architecture, method: &Method) -> Numbers {
    let count = |(_, shape): &(String, Vec<usize>)| shape.iter().product::<usize>() as u64;
    match method {
        Method::Frozen => Numbers::default(),
        Method::Lora(lora) => {
            let sites = sites(architecture, &lora.targets);
            let sides = sites.iter().map(|(_, [out, width])| out + width);
            let pairs = product(lora.rank as u64, sum(sides));
            let magnitudes =
                if lora.dora { sum(sites.iter().map(|(_, [out, _])| *out)) } else { 0 };
            // PiSSA goes on from the pair that it began with, and the two are read as one of twice the rank.
            let fixed = if lora.init == Init::Pissa { pairs } else { 0 };
            Numbers {
                trained: pairs.saturating_add(magnitudes),
                fixed,
                assembled: fixed.saturating_mul(2).saturating_add(magnitudes),
                whole: pairs.saturating_add(fixed).saturating_add(magnitudes),
            }
        }
        Method::Ia3(ia3) => {
            let sites = sites(architecture, &ia3.targets);
            Numbers::plain(sum(sites
                .iter()
                .map(|(path, [out, width])| if ia3.scales_input(path) { *width } else { *out })))
        }
        Method::Vera(vera) => {
            let (rank, sites) = (vera.rank as u64, sites(architecture, &vera.targets));
            let widest =
                |side: usize| sites.iter().map(|(_, sides)| sides[side]).max().unwrap_or(0);
            let trained = sum(sites.iter().map(|(_, [out, _])| rank.saturating_add(*out)));
            let fixed = product(rank, widest(0) + widest(1));
            // A narrower map has its columns of `A` side by side; rows of `B` are read where they lie.
            let narrower = sites.iter().map(|(_, [_, width])| *width);
            let narrower = narrower.filter(|&width| width < widest(1));
            let assembled = product(rank, sum(narrower));
            let whole = trained.saturating_add(fixed).saturating_add(assembled);
            Numbers { trained, fixed, assembled, whole }
        }
        Method::Prompt { tokens } => {
            Numbers::plain(product(*tokens as u64, architecture.hidden as u64))
        }
        Method::Prefix { tokens } => {
            let trained = product(*tokens as u64, prefix_width(architecture) as u64);
            // Turned to one layer after the other.
            Numbers { assembled: trained, ..Numbers::plain(trained) }
        }
        Method::Layers { freeze_layers } => {
            let blocks = (*freeze_layers..architecture.depth())
                .flat_map(|layer| architecture.block_weights(layer));
            let norm = architecture.outer_weights().into_iter().filter(|(name, _)| {
                architecture.family.final_norm().is_some_and(|norm| name.starts_with(norm))
            });
            Numbers::plain(sum(blocks.chain(norm).map(|weight| count(&weight))))
        }
        Method::Full => Numbers::plain(sum(architecture.weights().iter().map(count))),
    }
}

/// Path and shape `[out, in]` of each map of each block that is adapted.
fn sites(architecture: &Architecture, targets: &[String]) -> Vec<(String, [u64; 2])> {
    let mut modules: Vec<_> =
        targets.iter().flat_map(|target| architecture.targets(target)).collect();
    modules.sort_unstable();
    modules.dedup();
    let at = |layer| {
        let site = move |&module| {
            let sides = architecture.shape(module).map(|side| side as u64);
            Some((architecture.path(layer, module)?, sides))
        };
        modules.iter().filter_map(site).collect::<Vec<_>>()
    };
    (0..architecture.depth()).flat_map(at).collect()
}

fn sum(parts: impl Iterator<Item = u64>) -> u64 {
    parts.fold(0, u64::saturating_add)
}

fn product(a: u64, b: u64) -> u64 {
    a.saturating_mul(b)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::adapter::ia3::Ia3Spec;
    use crate::adapter::lora::LoraSpec;
    use crate::adapter::vera::VeraSpec;
    use crate::adapter::{Adapter, AdapterSpec};
    use crate::backbone::builtin;
    use crate::seed::Seed;

    #[test]
    fn numbers_are_those_of_an_adapter() {
        let backbone = builtin::polylogue_tiny(&Device::Cpu).unwrap();
        let architecture = backbone.network.architecture();
        let lora = |rank, targets: &[&str]| LoraSpec::new(rank, 8.0, targets);
        let (mut dora, mut pissa) = (lora(2, &["k_proj", "o_proj"]), lora(2, &["down_proj"]));
        (dora.dora, pissa.dora, pissa.init) = (true, true, Init::Pissa);
        let vera = |targets: &[&str]| {
            let targets = targets.iter().map(|&target| target.to_owned()).collect();
            Method::Vera(VeraSpec { rank: 3, targets, d_initial: 0.1, dropout: 0.0 })
        };
        for method in [
            Method::Lora(lora(4, &["q_proj", "v_proj"])),
            // The same maps twice are adapted once.
            Method::Lora(lora(2, &["all-linear", "q_proj"])),
            Method::Lora(dora),
            Method::Lora(pissa),
            Method::Ia3(Ia3Spec::usual(architecture.family)),
            vera(&["q_proj", "v_proj"]),
            vera(&["all-linear"]),
            Method::Prompt { tokens: 5 },
            Method::Prefix { tokens: 3 },
            Method::Layers { freeze_layers: 2 },
            Method::Full,
            Method::Frozen,
        ] {
            let spec = AdapterSpec { method: method.clone(), head: None };
            let adapter = Adapter::initial(spec, &backbone, Seed::new(1)).unwrap();
            let count = |(_, tensor): (&String, &Tensor)| tensor.elem_count() as u64;
            let found: [u64; 2] =
                [adapter.trained().map(count).sum(), adapter.fixed().map(count).sum()];
            let Numbers { trained, fixed, .. } = numbers(architecture, &method);
            assert_eq!([trained, fixed], found, "{method:?}");
        }
    }

    #[test]
    fn sizes_that_nobody_has_do_not_overflow() {
        let backbone = builtin::polylogue_tiny(&Device::Cpu).unwrap();
        let method = Method::Prompt { tokens: usize::MAX };
        let bytes = of_adapter(backbone.network.architecture(), Precision::Bf16, &method);
        assert_eq!(bytes.total(), u64::MAX);
    }
}
