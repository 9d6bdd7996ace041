//! What a society costs: it is played, then an engine alone is asked for the same.
//!
//! `alone SCENARIO OUT [KEY=VALUE]...` plays the scenario into the run directory OUT, hears what is asked of its
//! engine, and asks an engine with the same limits for the same: classes, texts, and steps of jobs in their order.
//! Once as nobody but an oracle could, all at once. And once as a program without a society would: what an episode
//! asks next, it asks when it has its answers, and an episode begins when no more of them are in progress than were
//! in the society. Prints one line of JSON. The clock of the society runs from the first class or text that is asked
//! for, so without what agents learn before they play, to the end of the run: actors, protocol, channel, events,
//! files. `tests/peers/run society` sets them beside each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use agents::adapter::Adapter;
use agents::backbone::Backbone;
use agents::engine::Engine;
use agents::engine::queue::{Answer, EngineHandle, Key, Request, Want};
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
    let at_once = timed(limits, |engine| all_at_once(engine, heard.all.clone()))?;
    let in_turn = timed(limits, |engine| in_turn(engine, heard.all.clone()))?;
    #[expect(clippy::print_stdout, reason = "what the program is for")]
    {
        println!("{}", json!({ "society": society, "in_turn": in_turn, "at_once": at_once }));
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

/// Has a new engine do something; how long that took, in seconds, and what it counted.
fn timed(
    limits: Limits,
    work: impl FnOnce(&EngineHandle) -> Result<(), Failure>,
) -> Result<Value, Failure> {
    let engine = Engine::start_with(limits, nanoseconds)?;
    let start = nanoseconds();
    work(&engine.handle())?;
    let seconds = (nanoseconds() - start) as f64 / 1e9;
    Ok(json!({ "seconds": seconds, "did": engine.handle().usage() }))
}

/// Asks for everything at once, and waits for all answers.
fn all_at_once(engine: &EngineHandle, all: Vec<Asked>) -> Result<(), Failure> {
    let (sender, answers) = channel();
    let mut open = 0;
    for asked in all {
        open += send(engine, asked, &sender, None)?;
    }
    for _ in 0..open {
        answers.recv()?.1?;
    }
    Ok(())
}

/// An episode: what it asks for, round by round.
#[derive(Debug, Default)]
struct Episode {
    rounds: VecDeque<Vec<Asked>>,
    /// Answers that it waits for.
    open: usize,
    /// How many were in progress in the society when it began, itself included.
    company: usize,
}

/// Rounds after which nobody waits for an episode: what has its number then is another one. Before and after play
/// the evaluator judges under the same numbers.
const SILENCE: u64 = 32;

/// The episodes in the order in which they began, and everything else.
fn episodes(all: Vec<Asked>) -> (Vec<Episode>, Vec<Asked>) {
    // The present episode of each number, and the first and the last round of every episode.
    let mut numbers: BTreeMap<u64, usize> = BTreeMap::new();
    let mut spans: Vec<[u64; 2]> = Vec::new();
    let mut found: Vec<Episode> = Vec::new();
    let mut rest = Vec::new();
    for asked in all {
        let Asked::Answer { key: (round, _, number), .. } = asked else {
            rest.push(asked);
            continue;
        };
        let present = numbers.get(&number).copied();
        let goes_on = present.filter(|&place: &usize| round - spans[place][1] <= SILENCE);
        let place = goes_on.unwrap_or(found.len());
        if goes_on.is_none() {
            numbers.insert(number, place);
            spans.push([round, 0]);
            found.push(Episode::default());
        }
        let rounds = &mut found[place].rounds;
        if spans[place][1] != round {
            rounds.push_back(Vec::new());
        }
        spans[place][1] = round;
        rounds.back_mut().into_iter().for_each(|asks| asks.push(asked.clone()));
    }
    for (own, [began, _]) in found.iter_mut().zip(&spans) {
        own.company = spans.iter().filter(|[from, to]| (from..=to).contains(&began)).count();
    }
    (found, rest)
}

/// Asks as an episode can: the next round when it has its answers.
fn in_turn(engine: &EngineHandle, all: Vec<Asked>) -> Result<(), Failure> {
    let (sender, answers) = channel();
    let (mut episodes, rest) = episodes(all);
    let mut open = 0;
    for asked in rest {
        open += send(engine, asked, &sender, None)?;
    }
    let mut running = BTreeSet::new();
    let mut next = 0;
    loop {
        while next < episodes.len() && running.len() < episodes[next].company {
            running.insert(next);
            next += 1;
        }
        let ready: Vec<usize> =
            running.iter().copied().filter(|&number| episodes[number].open == 0).collect();
        for number in ready {
            let Some(round) = episodes[number].rounds.pop_front() else {
                running.remove(&number);
                continue;
            };
            for asked in round {
                episodes[number].open += send(engine, asked, &sender, Some(number))?;
            }
        }
        if next < episodes.len() && running.len() < episodes[next].company {
            continue;
        }
        if running.is_empty() && open == 0 {
            return Ok(());
        }
        let (whose, answer) = answers.recv()?;
        answer?;
        match whose {
            Some(number) => episodes[number].open -= 1,
            None => open -= 1,
        }
    }
}

/// Whose answer it is, and whether it is one.
type Answered = (Option<usize>, Result<(), ModelError>);

/// Sends a request on; how many answers it will have.
fn send(
    engine: &EngineHandle,
    asked: Asked,
    sender: &Sender<Answered>,
    whose: Option<usize>,
) -> Result<usize, Failure> {
    Ok(match asked {
        Asked::Answer { key, backbone, adapter, tokens, draw } => {
            let want = draw.map_or(Want::Classes, Want::Text);
            let answer = done(sender, whose);
            engine.infer(Request { key, backbone, adapter, tokens, want, answer })?;
            1
        }
        Asked::Job { job, backbone, adapter, spec } => {
            engine.start(job, backbone, adapter, spec, None, done(sender, whose))?;
            1
        }
        Asked::Steps { jobs, steps } => {
            let jobs: Vec<_> = jobs.into_iter().map(|job| (job, done(sender, whose))).collect();
            let answers = jobs.len();
            engine.advance_together(jobs, steps)?;
            answers
        }
    })
}

fn done<T: Send + 'static>(sender: &Sender<Answered>, whose: Option<usize>) -> Answer<T> {
    let sender = sender.clone();
    Answer::new(move |result: Result<T, ModelError>| {
        // Who measures has gone where nobody receives.
        let _ = sender.send((whose, result.map(drop)));
    })
}
