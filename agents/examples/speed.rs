//! How fast this machine writes: tokens a second of sessions, beside what memory and arithmetic allow.
//!
//! `speed MODEL KEPT SEQUENCES TARGETS PROMPT TOKENS [ROUNDS [ADAPTERS]]` loads a model directory, keeps its
//! matrices as `f32`, `bf16`, `f16` or in a type of GGUF files such as `q8_0` or `q4_k`, gives each sequence a
//! LoRA adapter of its own on the maps TARGETS (`none`, `q_proj,v_proj`, `all-linear`), or one of so many
//! ADAPTERS in turn, reads PROMPT tokens and writes TOKENS, ROUNDS times. Prints one line of JSON. Part of
//! `tests/peers`, not of the product.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use agents::adapter::lora::LoraSpec;
use agents::adapter::{Adapter, AdapterSpec, Generation, Method};
use agents::backbone::{Architecture, Backbone, Weight};
use agents::bench::Machine;
use agents::probe;
use agents::sampler::likeliest;
use agents::seed::Seed;
use agents::session::{Part, Session, Slot};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    #[expect(unsafe_code, reason = "as the product does: freed memory is kept for reuse")]
    // SAFETY: stores a number under an option's index, which may be done at any time.
    unsafe {
        libmimalloc_sys::mi_option_set(15, -1);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, kept, sequences, targets, prompt, tokens, rest @ ..] = arguments.as_slice() else {
        return Err(
            "usage: speed MODEL KEPT SEQUENCES TARGETS PROMPT TOKENS [ROUNDS [ADAPTERS]]".into()
        );
    };
    let (sequences, prompt): (usize, usize) = (sequences.parse()?, prompt.parse()?);
    let tokens: usize = tokens.parse()?;
    let rounds: usize = rest.first().map_or(Ok(1), |rounds| rounds.parse())?;
    let backbone = Arc::new(load(Path::new(model), kept)?);
    let bytes: usize = weight_bytes(&backbone);
    let some: usize = rest.get(1).map_or(Ok(sequences), |count| count.parse())?;
    let adapters = adapters(&backbone, targets, some)?;
    let of_each = || adapters.iter().cycle().take(sequences);
    let begun = Instant::now();
    let mut figures = Vec::new();
    let mut written = Vec::new();
    for _ in 0..rounds.max(1) {
        let bandwidth = Machine::measure(&backbone, &|| begun.elapsed().as_secs_f64())?.bandwidth;
        let mut session = Session::new(Arc::clone(&backbone))?;
        let slots: Vec<Slot> = of_each().map(|a| session.open(a.clone())).collect();
        let start = Instant::now();
        let texts: Vec<Vec<u32>> =
            (0..sequences).map(|i| (0..prompt).map(|j| text(i, j)).collect()).collect();
        let parts: Vec<Part<'_>> =
            slots.iter().zip(&texts).map(|(&slot, tokens)| Part::new(slot, tokens, true)).collect();
        let logits = session.step(&parts)?;
        let likeliest_of = |i| logits.of(i).map(|logits| [likeliest(&logits) as u32]);
        let mut next: Vec<[u32; 1]> = (0..sequences).map(likeliest_of).collect::<Result<_, _>>()?;
        let reading = start.elapsed().as_secs_f64();
        written = vec![Vec::new(); sequences];
        let mut seconds = Vec::with_capacity(tokens);
        for _ in 0..tokens {
            let start = Instant::now();
            let parts: Vec<Part<'_>> = slots
                .iter()
                .zip(&next)
                .map(|(&slot, tokens)| Part::new(slot, tokens, true))
                .collect();
            let logits = session.step(&parts)?;
            for (i, next) in next.iter_mut().enumerate() {
                written[i].push(next[0]);
                *next = [likeliest(&logits.of(i)?) as u32];
            }
            seconds.push(start.elapsed().as_secs_f64());
        }
        // The first step warms up; the median of the others counts, as on the other sides.
        seconds.drain(..seconds.len().min(1));
        seconds.sort_by(f64::total_cmp);
        let steps = seconds.get(seconds.len() / 2).map_or(f64::NAN, |median| 1.0 / median);
        figures.push(json!({
            "tokens_per_second": steps * sequences as f64,
            "prompt_tokens_per_second": (sequences * prompt) as f64 / reading,
            "bandwidth": bandwidth,
            "share_of_bandwidth": bytes as f64 * steps / bandwidth,
        }));
    }
    let out = json!({ "weight_bytes": bytes, "rounds": figures, "written": written });
    Ok(serde_json::to_writer(std::io::stdout(), &out)?)
}

fn text(sequence: usize, place: usize) -> u32 {
    ((sequence * 131 + place * 17) % 20_000 + 10) as u32
}

/// The model with its matrices kept as wanted.
fn load(model: &Path, kept: &str) -> Outcome<Backbone> {
    let backbone = probe::load(model, &Device::Cpu)?;
    let convert = |tensor: &Tensor| -> Outcome<Weight> {
        Ok(match kept {
            "f32" => Weight::Dense(tensor.clone()),
            "bf16" => Weight::Dense(tensor.to_dtype(DType::BF16)?),
            "f16" => Weight::Dense(tensor.to_dtype(DType::F16)?),
            _ => {
                let dtype = blocks(kept).ok_or("KEPT is f32, bf16, f16 or a type of blocks")?;
                if tensor.rank() == 2 {
                    let dtype = fitting(dtype, tensor.dim(1)?);
                    Weight::Quantized(Arc::new(QTensor::quantize(tensor, dtype)?))
                } else {
                    Weight::Dense(tensor.clone())
                }
            }
        })
    };
    let weights: Outcome<BTreeMap<String, Weight>> = backbone
        .weights()
        .iter()
        .map(|(name, weight)| Ok((name.clone(), convert(&weight.dequantize()?)?)))
        .collect();
    let architecture = Architecture::clone(backbone.network.architecture());
    Ok(Backbone::assemble(architecture, weights?, backbone.tokenizer.clone())?)
}

fn blocks(kept: &str) -> Option<GgmlDType> {
    Some(match kept {
        "q4_0" => GgmlDType::Q4_0,
        "q4_1" => GgmlDType::Q4_1,
        "q5_0" => GgmlDType::Q5_0,
        "q5_1" => GgmlDType::Q5_1,
        "q8_0" => GgmlDType::Q8_0,
        "q2_k" => GgmlDType::Q2K,
        "q3_k" => GgmlDType::Q3K,
        "q4_k" => GgmlDType::Q4K,
        "q5_k" => GgmlDType::Q5K,
        "q6_k" => GgmlDType::Q6K,
        _ => return None,
    })
}

/// What llama.cpp keeps a matrix in whose rows do not fill blocks of 256 numbers.
fn fitting(dtype: GgmlDType, width: usize) -> GgmlDType {
    match dtype {
        _ if width.is_multiple_of(dtype.block_size()) => dtype,
        GgmlDType::Q2K | GgmlDType::Q3K => GgmlDType::Q4_0,
        GgmlDType::Q4K => GgmlDType::Q5_0,
        GgmlDType::Q5K => GgmlDType::Q5_1,
        _ => GgmlDType::Q8_0,
    }
}

/// Bytes of weights that a step reads: the embedding only as the output head.
fn weight_bytes(backbone: &Backbone) -> usize {
    let tied = backbone.network.architecture().tied;
    let read = |name: &&String| tied || !name.contains("embed_tokens");
    let bytes = |weight: &Weight| match weight {
        Weight::Dense(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
        Weight::Quantized(tensor) => tensor.storage_size_in_bytes(),
    };
    backbone.weights().iter().filter(|(name, _)| read(name)).map(|(_, w)| bytes(w)).sum()
}

/// Adapters, each with a second matrix that is not zero, nor so large that activations overflow: numbers below
/// the least normal one take a hundred times as long.
fn adapters(
    backbone: &Backbone,
    targets: &str,
    count: usize,
) -> Outcome<Vec<Option<Arc<Adapter>>>> {
    if targets == "none" {
        return Ok(vec![None; count]);
    }
    let names: Vec<&str> = targets.split(',').collect();
    let one = |index: usize| -> Outcome<Option<Arc<Adapter>>> {
        let method = Method::Lora(LoraSpec::new(8, 16.0, &names));
        let spec = AdapterSpec { method, head: None };
        let initial = Adapter::initial(spec.clone(), backbone, Seed::new(index as u64))?;
        let tensors: Outcome<BTreeMap<String, Tensor>> = initial
            .tensors()
            .iter()
            .map(|(name, tensor)| Ok((name.clone(), (tensor + 0.001 * (index % 16 + 1) as f64)?)))
            .collect();
        let adapter = Adapter::assemble(spec, Generation(1), tensors?, backbone)?;
        Ok(Some(Arc::new(adapter)))
    };
    (0..count).map(one).collect()
}
