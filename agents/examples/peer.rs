//! Our side of the comparisons in `tests/peers`: runs one request on one model directory and writes what
//! came out, so that a Python script can put it beside transformers and PEFT.
//!
//! `peer logits|gradients|embed MODEL REQUEST.json OUT.safetensors`, `peer train|save|generate
//! MODEL REQUEST.json`. The formats are in `tests/peers/README.md`. Not part of the product.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use agents::adapter::head::{Pooling, features};
use agents::adapter::{Adapter, AdapterSpec, Method};
use agents::backbone::{Backbone, Pass, Precision, Rows, Tokens, checkpoint};
use agents::device::DeviceKind;
use agents::learning::job::{Job, JobSpec, Lesson, Settings};
use agents::learning::objective::TextExample;
use agents::learning::objective::supervised::{ClassExample, Examples};
use agents::probe::{self, Loss};
use agents::seed::Seed;
use agents::session::{Drawn, Part, Session, Slot};
use agents::writing::{self, Draw, Row};
use candle_core::{D, DType, Device, Tensor};
use serde::Deserialize;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a script asks for.
#[derive(Deserialize)]
struct Request {
    /// Rows of tokens.
    #[serde(default)]
    tokens: Vec<Vec<u32>>,
    /// Texts to embed, tokenized here.
    #[serde(default)]
    texts: Vec<String>,
    /// Tokens to write after each row.
    #[serde(default)]
    max_tokens: usize,
    /// A PEFT directory.
    adapter: Option<PathBuf>,
    /// For `write`: a PEFT directory for each row.
    #[serde(default)]
    adapters: Vec<PathBuf>,
    /// For encoders: weights of the hidden states in the loss, `[all tokens, hidden]` under `weights`.
    weights: Option<PathBuf>,
    /// For adapters with a head: the class of each row.
    labels: Option<Vec<u32>>,
    /// A new adapter to train, as ours are described; an adapter directory where absent.
    spec: Option<AdapterSpec>,
    /// First tokens of each row that carry no loss.
    #[serde(default)]
    prompt: usize,
    #[serde(default)]
    steps: usize,
    #[serde(default)]
    learning_rate: f64,
    /// Where a trained or saved adapter goes.
    out: Option<PathBuf>,
    micro_batch_tokens: Option<usize>,
    #[serde(default)]
    recompute: bool,
    /// `cpu` where absent.
    device: Option<String>,
    /// What the network computes in.
    #[serde(default)]
    dtype: Precision,
}

fn main() -> Outcome<()> {
    #[expect(unsafe_code, reason = "as the product does: freed memory is kept for reuse")]
    // SAFETY: stores a number under an option's index, which may be done at any time.
    unsafe {
        libmimalloc_sys::mi_option_set(15, -1);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, model, request, rest @ ..] = arguments.as_slice() else {
        let usage =
            "logits|gradients|embed|train|save|generate MODEL REQUEST.json [OUT.safetensors]";
        return Err(format!("usage: peer {usage}").into());
    };
    let request: Request = serde_json::from_slice(&std::fs::read(request)?)?;
    let device: DeviceKind = request.device.as_deref().unwrap_or("cpu").parse()?;
    let backbone = probe::load_as(Path::new(model), request.dtype.dtype(), &device.open()?)?;
    let backbone = Arc::new(backbone);
    let adapter = match (&request.adapter, &request.spec) {
        (Some(directory), _) => Some(Adapter::load(directory, &backbone)?),
        (None, Some(spec)) => Some(Adapter::initial(spec.clone(), &backbone, Seed::new(1))?),
        (None, None) => None,
    };
    let out = rest.first().map(Path::new);
    match (command.as_str(), out) {
        ("logits", Some(out)) => logits(&backbone, adapter.as_ref(), &request, out),
        ("gradients", Some(out)) => gradients(&backbone, adapter.as_ref(), &request, out),
        ("embed", Some(out)) => embed(&backbone, &request.texts, out),
        ("train", _) => train(backbone, adapter, request),
        ("save", _) => {
            let adapter = adapter.ok_or("saving needs an adapter or a spec")?;
            Ok(adapter.save(&request.out.ok_or("saving needs `out`")?)?)
        }
        ("write", _) => write(&backbone, &request),
        ("generate", _) => generate(&backbone, adapter, &request),
        _ => Err("an output file is missing, or the command is unknown".into()),
    }
}

/// Hidden states, logits and class logits of every row, run together in one padded batch.
fn logits(
    backbone: &Backbone,
    adapter: Option<&Adapter>,
    request: &Request,
    out: &Path,
) -> Outcome<()> {
    let network = &backbone.network;
    let owners = [Rows { adapter, count: request.tokens.len() }];
    let tokens = Tokens::pack(&request.tokens, &owners, network.device())?;
    let states = network.states(&tokens, Pass::of(&owners), network.depth())?;
    let top = states.last().ok_or("no states")?;
    let hidden = network.finish(top, &owners)?;
    let mut tensors = BTreeMap::new();
    for (row, ids) in request.tokens.iter().enumerate() {
        let text = tokens.text(row);
        let own = hidden.get(row)?.narrow(0, text.start, ids.len())?;
        if network.architecture().family.is_decoder() {
            let rows = [Rows { adapter, count: ids.len() }];
            tensors.insert(format!("logits.{row}"), network.logits(&own, &rows)?);
        }
        tensors.insert(format!("hidden.{row}"), own);
    }
    if let Some(head) = adapter.and_then(Adapter::head) {
        let features = features(network, &states, &owners, &tokens, head.pooling)?;
        let classes = head.logits(&features)?;
        for row in 0..request.tokens.len() {
            tensors.insert(format!("classes.{row}"), classes.get(row)?);
        }
    }
    Ok(checkpoint::write(&tensors, DType::F32, out)?)
}

/// The loss and the gradient of every trained tensor, under PEFT's names.
fn gradients(
    backbone: &Backbone,
    adapter: Option<&Adapter>,
    request: &Request,
    out: &Path,
) -> Outcome<()> {
    let adapter = adapter.ok_or("gradients need an adapter")?;
    let weights = match &request.weights {
        Some(path) => checkpoint::read_all(path, backbone.network.device())?.remove("weights"),
        None => None,
    };
    let loss = match (&request.labels, &weights) {
        (Some(labels), _) => Loss::Classes(labels),
        (None, Some(weights)) => Loss::Weighted(weights),
        (None, None) => Loss::NextTokens,
    };
    let found = probe::gradients(backbone, adapter, &request.tokens, loss, request.recompute)?;
    let mut tensors = BTreeMap::from([(
        "loss".to_owned(),
        Tensor::new(found.loss as f32, &Device::Cpu)?.unsqueeze(D::Minus1)?,
    )]);
    tensors.extend(adapter.under_disk_names(found.tensors)?);
    Ok(checkpoint::write(&tensors, DType::F32, out)?)
}

/// Sentence embeddings: final hidden states, averaged over the tokens of a text, of length one.
fn embed(backbone: &Backbone, texts: &[String], out: &Path) -> Outcome<()> {
    let network = &backbone.network;
    let mut parts = Vec::new();
    for texts in texts.chunks(32) {
        let rows = texts
            .iter()
            .map(|text| backbone.tokenizer.encode_with_specials(text, 256))
            .collect::<Result<Vec<_>, _>>()?;
        let owners = [Rows { adapter: None, count: rows.len() }];
        let tokens = Tokens::pack(&rows, &owners, network.device())?;
        let states = network.states(&tokens, Pass::of(&owners), network.depth())?;
        let mean = features(network, &states, &owners, &tokens, Pooling::Mean)?;
        let length = mean.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        parts.push(mean.broadcast_div(&length)?);
    }
    let tensors = BTreeMap::from([("embeddings".to_owned(), Tensor::cat(&parts, 0)?)]);
    Ok(checkpoint::write(&tensors, DType::F32, out)?)
}

/// The likeliest token again and again, all rows at once; prints the tokens.
fn generate(backbone: &Arc<Backbone>, adapter: Option<Adapter>, request: &Request) -> Outcome<()> {
    let adapter = adapter.map(Arc::new);
    let row = |prompt: &Vec<u32>| {
        let draw = Draw::likeliest(request.max_tokens, Vec::new());
        Row { adapter: adapter.clone(), prompt: prompt.clone(), draw }
    };
    let texts = writing::write(backbone, request.tokens.iter().map(row).collect())?;
    let written: Vec<Vec<u32>> = texts.into_iter().map(|text| text.tokens).collect();
    Ok(serde_json::to_writer(std::io::stdout(), &written)?)
}

/// All rows at once, each under its own adapter; prompts are read first and not timed.
fn write(backbone: &Arc<Backbone>, request: &Request) -> Outcome<()> {
    let mut session = Session::new(Arc::clone(backbone))?.with_width(request.tokens.len());
    let (mut slots, mut first) = (Vec::new(), Vec::new());
    for (row, tokens) in request.tokens.iter().enumerate() {
        let adapter = match request.adapters.get(row) {
            Some(folder) => Some(Arc::new(Adapter::load(folder, backbone)?)),
            None => None,
        };
        let slot = session.open(adapter);
        let logits = session.step(&[Part::new(slot, tokens, true)])?;
        slots.push(slot);
        first.extend(logits.likeliest()?.wait()?);
    }
    let mut written: Vec<Vec<u32>> = first.iter().map(|&token| vec![token]).collect();
    let mut keep = |tokens: Vec<u32>| {
        written.iter_mut().zip(tokens).for_each(|(row, token)| row.push(token));
    };
    let mut last: Option<Drawn> = None;
    let mut seconds = Vec::new();
    for _ in 0..request.max_tokens {
        let start = Instant::now();
        let part = |(row, &slot): (usize, &Slot)| match &last {
            Some(last) => Part::drawn(slot, last, row),
            None => Part::new(slot, std::slice::from_ref(&first[row]), true),
        };
        let parts: Vec<Part<'_>> = slots.iter().enumerate().map(part).collect();
        let drawn = session.step(&parts)?.likeliest()?;
        // A card has this step before the tokens of the last one are looked at, as in an engine.
        last.replace(drawn).map(|before| before.wait()).transpose()?.map(&mut keep);
        seconds.push(start.elapsed().as_secs_f64());
    }
    last.map(|last| last.wait()).transpose()?.map(&mut keep);
    seconds.drain(..seconds.len().min(1));
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN);
    let speed = slots.len() as f64 / median;
    let found = json!({"tokens_per_second": speed, "written": written, "seconds": seconds});
    Ok(serde_json::to_writer(std::io::stdout(), &found)?)
}

/// Rows with a class each, or texts where the request has no labels.
fn examples(request: &Request) -> Outcome<Examples> {
    if let Some(labels) = &request.labels {
        if labels.len() != request.tokens.len() {
            return Err("there must be one label a row".into());
        }
        let example = |(tokens, label): (&Vec<u32>, &u32)| ClassExample {
            tokens: tokens.clone(),
            label: *label as usize,
        };
        return Ok(Examples::Classes(request.tokens.iter().zip(labels).map(example).collect()));
    }
    let example = |row: &Vec<u32>| {
        let (prompt, reply) = row.split_at_checked(request.prompt.max(1))?;
        Some(TextExample { prompt: prompt.to_vec(), reply: reply.to_vec() })
    };
    let texts: Option<Vec<_>> = request.tokens.iter().map(example).collect();
    Ok(Examples::Texts(texts.ok_or("a row is shorter than its prompt")?))
}

/// Trains on the rows and prints speed, memory and losses.
fn train(backbone: Arc<Backbone>, adapter: Option<Adapter>, request: Request) -> Outcome<()> {
    let from = Arc::new(adapter.ok_or("training needs an adapter or a spec")?);
    if matches!(from.spec().method, Method::Frozen) {
        return Err("a frozen adapter has nothing to train here".into());
    }
    let count = request.tokens.len();
    let tokens: usize = request.tokens.iter().map(Vec::len).sum();
    let mut settings = Settings { recompute: request.recompute, ..Settings::default() };
    if let Some(budget) = request.micro_batch_tokens {
        settings.micro_batch_tokens = budget;
    }
    let spec = JobSpec {
        lesson: Lesson::Supervised(examples(&request)?),
        steps: request.steps,
        batch: count,
        learning_rate: request.learning_rate,
        settings,
        seed: Seed::new(2),
    };
    let mut job = Job::new(backbone, from, spec)?;
    let (mut losses, mut seconds) = (Vec::new(), Vec::new());
    while !job.is_done() {
        let start = Instant::now();
        losses.push(job.step()?.loss);
        seconds.push(start.elapsed().as_secs_f64());
    }
    let next = job.finish()?;
    if let Some(out) = &request.out {
        next.save(out)?;
    }
    // The first step warms up; the median of the others is what counts.
    let mut steady = seconds.get(1..).filter(|s| !s.is_empty()).unwrap_or(&seconds).to_vec();
    steady.sort_by(f64::total_cmp);
    let median = steady.get(steady.len() / 2).copied().unwrap_or(f64::NAN);
    let figures = json!({
        "tokens_per_second": tokens as f64 / median,
        "peak_bytes": peak(),
        "losses": losses,
        "seconds": seconds,
    });
    Ok(serde_json::to_writer(std::io::stdout(), &figures)?)
}

/// Peak resident memory of this process in bytes, as Linux reports it; 0 elsewhere.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes =
        line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse().ok());
    kilobytes.unwrap_or(0_u64) * 1024
}
