//! What a society costs: it is played, then an engine alone is given the same requests, all at once.
//!
//! `alone SCENARIO OUT [KEY=VALUE]...` plays the scenario into the run directory OUT, hears what is asked of its
//! engine, and asks an engine with the same limits, and one with room for 256 sequences, for the same: classes,
//! texts, and steps of jobs in their order. Prints one line of JSON. The first clock runs from the first class
//! or text that is asked for, so without what agents learn before they play, to the end of the run: actors,
//! protocol, channel, events, files. `tests/peers/run society` sets them beside each other.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use agents::adapter::Adapter;
use agents::backbone::Backbone;
use agents::engine::Engine;
use agents::engine::queue::{Answer, Key, Request, Want};
use agents::engine::schedule::Limits;
use agents::engine::witness::Witness;
use agents::error::ModelError;
use agents::learning::job::JobSpec;
use agents::writing::Draw;
use serde_json::{Value, json};
use sim::clock::nanoseconds;
use sim::control::Control;
use sim::feed::Feed;
use sim::run::{RunOptions, prepare};
use sim::scenario::load;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    #[expect(unsafe_code, reason = "as the product does: freed memory is kept for reuse")]
    // SAFETY: stores a number under an option's index, which may be done at any time.
    unsafe {
        libmimalloc_sys::mi_option_set(15, -1);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scenario, out, changes @ ..] = arguments.as_slice() else {
        return Err("usage: alone SCENARIO OUT [KEY=VALUE]...".into());
    };
    let scenario =
        load(Path::new(scenario), changes, None).map_err(|problems| format!("{problems:?}"))?;
    let options = RunOptions { out: Some(out.into()), ..RunOptions::default() };
    let mut prepared = prepare(scenario, &options, &mut |_| {})?;
    let [limits] = prepared.limits()[..] else { return Err("it has more than one engine".into()) };
    let heard = Arc::new(Heard::default());
    prepared.witness(Arc::clone(&heard) as Arc<dyn Witness>);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(prepared.play(Feed::unwatched(), Control::default()))?;
    let ended = nanoseconds();
    let heard = std::mem::take(&mut *heard.0.lock().unwrap_or_else(PoisonError::into_inner));
    let society = (ended - heard.began.ok_or("nothing was asked for")?) as f64 / 1e9;
    let same = ask(&heard, limits)?;
    let wide = ask(&heard, Limits { sequences: limits.sequences.max(256), ..limits })?;
    #[expect(clippy::print_stdout, reason = "what the program is for")]
    {
        println!("{}", json!({ "society": society, "alone": same, "wide": wide }));
    }
    Ok(())
}

/// What an engine was asked for.
#[derive(Clone, Debug)]
enum Asked {
    Answer {
        key: Key,
        backbone: Arc<Backbone>,
        adapter: Arc<Adapter>,
        tokens: Vec<u32>,
        draw: Option<Draw>,
    },
    Job {
        job: u64,
        backbone: Arc<Backbone>,
        adapter: Arc<Adapter>,
        spec: JobSpec,
    },
    Steps {
        jobs: Vec<u64>,
        steps: usize,
    },
}

/// Everything from the first class or text on.
#[derive(Debug, Default)]
struct Heard(Mutex<Requests>);

#[derive(Debug, Default)]
struct Requests {
    /// When the first class or text was asked for, in nanoseconds.
    began: Option<u64>,
    all: Vec<Asked>,
}

impl Heard {
    fn hear(&self, asked: Asked) {
        let mut requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(asked, Asked::Answer { .. }) {
            requests.began.get_or_insert_with(nanoseconds);
        }
        if requests.began.is_some() {
            requests.all.push(asked);
        }
    }
}

impl Witness for Heard {
    fn asked(&self, request: &Request) {
        let draw = match &request.want {
            Want::Classes => None,
            Want::Text(draw) => Some(draw.clone()),
        };
        self.hear(Asked::Answer {
            key: request.key.clone(),
            backbone: Arc::clone(&request.backbone),
            adapter: Arc::clone(&request.adapter),
            tokens: request.tokens.clone(),
            draw,
        });
    }

    fn began(&self, job: u64, backbone: &Arc<Backbone>, adapter: &Arc<Adapter>, spec: &JobSpec) {
        let (backbone, adapter, spec) = (Arc::clone(backbone), Arc::clone(adapter), spec.clone());
        self.hear(Asked::Job { job, backbone, adapter, spec });
    }

    fn advanced(&self, jobs: &[u64], steps: usize) {
        self.hear(Asked::Steps { jobs: jobs.to_vec(), steps });
    }
}

/// Has a new engine do all of it; how long that took, in seconds, and what it counted.
fn ask(requests: &Requests, limits: Limits) -> Result<Value, Failure> {
    let engine = Engine::start_with(limits, nanoseconds)?;
    let (sender, answers) = channel();
    let all = requests.all.clone();
    let start = nanoseconds();
    let mut open = 0;
    for asked in all {
        open += send(&engine, asked, &sender)?;
    }
    for _ in 0..open {
        answers.recv()??;
    }
    let seconds = (nanoseconds() - start) as f64 / 1e9;
    Ok(json!({ "seconds": seconds, "sequences": limits.sequences, "did": engine.handle().usage() }))
}

/// Sends a request on; how many answers it will have.
fn send(
    engine: &Engine,
    asked: Asked,
    sender: &Sender<Result<(), ModelError>>,
) -> Result<usize, Failure> {
    let handle = engine.handle();
    Ok(match asked {
        Asked::Answer { key, backbone, adapter, tokens, draw } => {
            let want = draw.map_or(Want::Classes, Want::Text);
            let answer = done(sender);
            handle.infer(Request { key, backbone, adapter, tokens, want, answer })?;
            1
        }
        Asked::Job { job, backbone, adapter, spec } => {
            handle.start(job, backbone, adapter, spec, None, done(sender))?;
            1
        }
        Asked::Steps { jobs, steps } => {
            let jobs: Vec<_> = jobs.into_iter().map(|job| (job, done(sender))).collect();
            let answers = jobs.len();
            handle.advance_together(jobs, steps)?;
            answers
        }
    })
}

fn done<T: Send + 'static>(sender: &Sender<Result<(), ModelError>>) -> Answer<T> {
    let sender = sender.clone();
    Answer::new(move |result: Result<T, ModelError>| {
        // Who measures has gone where nobody receives.
        let _ = sender.send(result.map(drop));
    })
}
