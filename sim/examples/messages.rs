//! What messages cost: scripted agents, thousands of them, with and without the log. No model runs.
//!
//! `cargo run --release -p polylogue-sim --example messages -- [round_trips|latency|broadcast|spawn|soak]...`
//! prints `name value unit` lines; `tests/peers/run messages` sets them beside AutoGen-core and AgentScope.
//! A round trip is a turn: the conductor asks an agent, the agent answers. A delivery is a message that a
//! listener was handed with its turn, not one that only lies in its mailbox.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sim::clock::{Stopwatch, nanoseconds};
use sim::control::Control;
use sim::feed::Feed;
use sim::recorder::Observer;
use sim::run::{Finished, RunOptions, prepare};
use sim::scenario::load;

type Failure = Box<dyn std::error::Error>;

/// The parts of this measurement.
const PARTS: [&str; 5] = ["round_trips", "latency", "broadcast", "spawn", "soak"];

fn main() -> Result<(), Failure> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let Some(other) = asked.iter().find(|part| !PARTS.contains(&part.as_str())) {
        return Err(format!("no part is called {other}; there are {}", PARTS.join(", ")).into());
    }
    for part in PARTS.iter().filter(|part| asked.is_empty() || asked.iter().any(|a| a == *part)) {
        match *part {
            "round_trips" => round_trips()?,
            "latency" => latency()?,
            "broadcast" => broadcast()?,
            "spawn" => spawn()?,
            _ => soak()?,
        }
    }
    Ok(())
}

/// A society of scripted agents as a scenario file; checkpoints only where somebody asks for them.
fn society(agents: &str, protocol: &str, episodes: u64, width: u64) -> String {
    format!(
        "seed = 7\nepisodes = {episodes}\nconcurrent_episodes = {width}\n{agents}\
         [task.talk]\nopenings = [\"ping\"]\n[protocol]\n{protocol}\n\
         [channel.text]\nmax_tokens = 8\ncredits = 1000\n[checkpoints]\nkeep = 0\n"
    )
}

fn echoes(copies: usize) -> String {
    format!("[agents.a]\ncopies = {copies}\nscript.echo = {{}}\n")
}

/// Plays a scenario; `observer` sees its ticks end.
fn play(
    text: &str,
    recorded: bool,
    observer: Option<Box<dyn Observer>>,
) -> Result<Finished, Failure> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("scenario.toml");
    std::fs::write(&path, text)?;
    let scenario = load(&path, &[], None).map_err(|problems| format!("{problems:?}"))?;
    let out = Some(directory.path().join("run"));
    let options = RunOptions { out, unchecked: true, ..RunOptions::default() };
    let mut prepared = prepare(scenario, &options, &mut |_| {})?;
    if !recorded {
        prepared.unrecorded();
    }
    if let Some(observer) = observer {
        prepared.observe(observer);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(prepared.play(Feed::unwatched(), Control::default()))?)
}

fn say(name: &str, value: f64, unit: &str) {
    #[expect(clippy::print_stdout, reason = "what the program is for")]
    {
        println!("{name} {value:.6} {unit}");
    }
}

fn word(recorded: bool) -> &'static str {
    if recorded { "recorded" } else { "unrecorded" }
}

/// Pairs that talk, 64 side by side.
fn round_trips() -> Result<(), Failure> {
    let text = society(&echoes(2), "round_robin = { rounds = 500 }", 640, 64);
    for recorded in [false, true] {
        let finished = play(&text, recorded, None)?;
        let talk = finished.summary.talk.unwrap_or_default();
        let speed = talk.messages as f64 / finished.seconds;
        say(&format!("round_trips.{}", word(recorded)), speed, "round_trips/s");
    }
    Ok(())
}

/// When each tick ended.
#[derive(Clone, Debug, Default)]
struct Ticks(Arc<Mutex<Vec<u64>>>);

impl Observer for Ticks {
    fn line(&mut self, _line: &str) {}

    fn tick_ended(&mut self, _tick: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(nanoseconds());
    }
}

/// One pair that talks: each tick holds one round trip and all that a tick costs.
fn latency() -> Result<(), Failure> {
    let text = society(&echoes(2), "round_robin = { rounds = 50000 }", 1, 1);
    for recorded in [false, true] {
        let ticks = Ticks::default();
        play(&text, recorded, Some(Box::new(ticks.clone())))?;
        let times = ticks.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The first ones warm up.
        let pairs = times.windows(2).skip(1_000);
        let mut spans: Vec<u64> = pairs.map(|pair| pair[1] - pair[0]).collect();
        spans.sort_unstable();
        for (name, share) in [("median", 0.5), ("p99", 0.99)] {
            let at = (spans.len() as f64 * share) as usize;
            let span = spans.get(at).copied().unwrap_or_default();
            say(&format!("latency.{}.{name}", word(recorded)), span as f64 / 1e3, "us");
        }
    }
    Ok(())
}

/// A hundred agents that all hear each other.
fn broadcast() -> Result<(), Failure> {
    let (agents, rounds, episodes) = (100_u64, 50_u64, 20_u64);
    let protocol = format!("broadcast = {{ rounds = {rounds} }}");
    let text = society(&echoes(agents as usize), &protocol, episodes, 2);
    // What is said in the last round, nobody is handed any more.
    let heard = agents * (agents - 1) * (rounds - 1) * episodes;
    for recorded in [false, true] {
        let finished = play(&text, recorded, None)?;
        let speed = heard as f64 / finished.seconds;
        say(&format!("broadcast.{}", word(recorded)), speed, "deliveries/s");
    }
    Ok(())
}

/// When the log began.
#[derive(Clone, Debug, Default)]
struct Begun(Arc<Mutex<Option<u64>>>);

impl Observer for Begun {
    fn line(&mut self, _line: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(nanoseconds);
    }

    fn tick_ended(&mut self, _tick: u64) {}
}

/// A society of a hundred thousand: from the first actor to the moment when the conductor begins.
fn spawn() -> Result<(), Failure> {
    let groups = 25_usize;
    let group = |index: usize| {
        let letter = char::from(b'a' + (index % 26) as u8);
        format!("[agents.{letter}]\ncopies = 4000\nscript.echo = {{}}\n")
    };
    let agents: String = (0..groups).map(group).collect();
    let text = society(&agents, "pipeline = { order = [] }", 1, 1);
    let text = text.replace("pipeline = { order = [] }", "round_robin = { rounds = 1 }")
        + "[topology.line]\n";
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("scenario.toml");
    std::fs::write(&path, text)?;
    let scenario = load(&path, &[], None).map_err(|problems| format!("{problems:?}"))?;
    let out = Some(directory.path().join("run"));
    let options = RunOptions { out, unchecked: true, ..RunOptions::default() };
    let mut prepared = prepare(scenario, &options, &mut |_| {})?;
    let begun = Begun::default();
    prepared.observe(Box::new(begun.clone()));
    let control = Control::default();
    // Nobody needs to speak.
    control.stop();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = nanoseconds();
    runtime.block_on(prepared.play(Feed::unwatched(), control))?;
    let end = begun.0.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(start);
    let seconds = (end - start) as f64 / 1e9;
    say("spawn", groups as f64 * 4_000.0 / seconds, "agents/s");
    Ok(())
}

/// Resident memory in MiB; none where the system does not say.
fn resident() -> Option<f64> {
    let text = std::fs::read_to_string(Path::new("/proc/self/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}

/// Memory at every hundredth tick.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<f64>>>);

impl Observer for Memory {
    fn line(&mut self, _line: &str) {}

    fn tick_ended(&mut self, tick: u64) {
        if tick.is_multiple_of(100) {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(resident());
        }
    }
}

/// Ten million messages through a thousand agents.
fn soak() -> Result<(), Failure> {
    let text = society(&echoes(1_000), "gossip = { rounds = 100, fanout = 1 }", 100, 2);
    let memory = Memory::default();
    let watch = Stopwatch::start();
    let finished = play(&text, false, Some(Box::new(memory.clone())))?;
    let talk = finished.summary.talk.unwrap_or_default();
    say("soak.messages", talk.messages as f64, "messages");
    say("soak.deliveries", talk.deliveries as f64, "deliveries");
    say("soak.speed", talk.messages as f64 / watch.seconds(), "messages/s");
    let all = memory.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let quarter = all.len() / 4;
    let (early, late) = (most(&all[..quarter]), most(&all[all.len() - quarter..]));
    say("soak.memory.first_quarter", early, "MiB");
    say("soak.memory.last_quarter", late, "MiB");
    Ok(())
}
