//! Random societies of scripted agents: whatever protocol, topology, channel and faults chance picks, the
//! promises hold. Each is played calm, with its faults, and now and then twice or in pieces.
//!
//! `POLYLOGUE_SOCIETIES=10000` plays so many; `POLYLOGUE_SOCIETY=N` plays the one of seed N again, which is what
//! a failure prints.

mod invariants;

use std::path::Path;

use agents::seed::{Seed, Stream};
use polylogue_tests::{events, play};
use rand::Rng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use sim::clock::Timer;
use sim::event::{Event, EventKind};
use sim::run::{ResumeOptions, Resumed, RunOptions, prepare, resume};
use sim::scenario::{Scenario, load};
use tempfile::TempDir;

use invariants::check;

/// Societies of the ordinary test.
const USUAL: u64 = 150;

/// A society as a scenario file, and the faults that shall leave no trace.
struct Society {
    calm: String,
    faults: String,
}

fn one_of<'a>(stream: &mut Stream, all: &[&'a str]) -> &'a str {
    all.choose(stream).copied().unwrap_or_default()
}

fn script(stream: &mut Stream) -> String {
    let opinions = "among = [\"red\", \"green and blue\", \"a b c d e\"]";
    match stream.random_range(0..6) {
        0 => "{ echo = {} }".to_owned(),
        1 => "{ fixed = { text = \"I\\u202E said\\u0007 so\" } }".to_owned(),
        2 => {
            let answers = "{ \"x\" = \"y\", \"y\" = \"x y z\" }";
            format!("{{ table = {{ answers = {answers}, otherwise = \"x\" }} }}")
        }
        3 => {
            let length = stream.random_range(1..12);
            format!("{{ random_words = {{ words = [\"x\", \"y\", \"z\"], length = {length} }} }}")
        }
        4 => format!("{{ voter = {{ {opinions} }} }}"),
        _ => format!("{{ majority = {{ {opinions} }} }}"),
    }
}

impl Society {
    fn new(seed: u64) -> Self {
        let mut stream = Seed::new(seed).child("society").stream();
        let random = &mut stream;
        let count = random.random_range(1..8);
        let mut names: Vec<String> = (0..count).map(|index| format!("a{index}")).collect();
        let mut text = format!(
            "seed = {seed}\nepisodes = {}\nconcurrent_episodes = {}\n",
            random.random_range(1..7),
            random.random_range(1..5)
        );
        for name in &names {
            text += &format!("[agents.{name}]\nscript = {}\n", script(random));
        }
        let openings = one_of(random, &["[\"x\"]", "[\"x\", \"\", \"what is it about?\"]"]);
        text += &format!("[task.talk]\nopenings = {openings}\n");
        names.shuffle(random);
        let order = format!("{names:?}");
        let rounds = random.random_range(1..6);
        let is_pipeline = random.random_bool(0.2);
        text += &match random.random_range(0..4) {
            _ if is_pipeline => format!("[protocol.pipeline]\norder = {order}\n"),
            0 => format!("[protocol.round_robin]\nrounds = {rounds}\norder = {order}\n"),
            1 => format!("[protocol.round_robin]\nrounds = {rounds}\n"),
            2 => format!("[protocol.broadcast]\nrounds = {rounds}\n"),
            _ => {
                let fanout = random.random_range(1..4);
                format!("[protocol.gossip]\nrounds = {rounds}\nfanout = {fanout}\n")
            }
        };
        if !is_pipeline {
            text += &match random.random_range(0..7) {
                0 => "[topology.complete]\n".to_owned(),
                1 => "[topology.ring]\n".to_owned(),
                2 => "[topology.line]\n".to_owned(),
                3 => format!("[topology.star]\nhub = {:?}\n", names[0]),
                4 => format!("[topology.random]\nprobability = {:.2}\n", random.random::<f64>()),
                5 if count > 1 => {
                    let one_way = random.random::<bool>();
                    format!(
                        "[topology.edges]\npairs = [{:?}]\nboth_ways = {one_way}\n",
                        &names[..2]
                    )
                }
                _ => String::new(),
            };
        }
        text += &format!(
            "[channel.text]\nmax_tokens = {}\ncredits = {}\n",
            random.random_range(1..9),
            random.random_range(1..5)
        );
        let loss = one_of(random, &["0.0", "0.0", "0.3", "1.0"]);
        let delay = one_of(random, &["0", "0", "1", "4"]);
        text += &format!("impair = {{ loss = {loss}, delay_ticks = {delay} }}\n");
        if random.random_bool(0.4) {
            text += &format!("[flood]\nsilence_ticks = {}\n", random.random_range(0..4));
            for (limit, most) in
                [("messages_per_tick", 4), ("tokens_per_tick", 12), ("repeats_per_tick", 4)]
            {
                if random.random_bool(0.5) {
                    text += &format!("{limit} = {}\n", random.random_range(1..most));
                }
            }
        }
        let every = random.random_range(1..4);
        let strategy = one_of(random, &["one_for_one", "one_for_all", "rest_for_one"]);
        text +=
            &format!("[checkpoints]\nevery_ticks = {every}\nkeep = {}\n", u8::from(seed % 8 == 0));
        text += &format!("[supervision]\nrestarts = 100000\nstrategy = \"{strategy}\"\n");
        let kinds =
            ["panic", "hang", "slow_reply", "malformed_reply", "out_of_memory", "disk_full"];
        let faults: String = (0..random.random_range(0..4))
            .map(|_| {
                let kind = one_of(random, &kinds);
                let whose = match kind {
                    "disk_full" => String::new(),
                    _ => format!("agent = {:?}\n", names[random.random_range(0..count)]),
                };
                let when = match random.random_range(0..2) {
                    0 => format!(
                        "at_tick = {}\ntimes = {}",
                        random.random_range(0..8),
                        random.random_range(1..4)
                    ),
                    _ => format!("probability = {:.2}", random.random::<f64>()),
                };
                format!("[[faults]]\nkind = \"{kind}\"\n{whose}{when}\n")
            })
            .collect();
        Self { calm: text, faults }
    }
}

/// A scenario played to its end, and its log.
struct Played {
    scenario: Scenario,
    log: String,
    directory: TempDir,
}

impl Played {
    fn new(text: &str) -> Self {
        let (scenario, directory) = loaded(text);
        let options = options(directory.path());
        let prepared = prepare(scenario.clone(), &options, &mut |_| {}).unwrap();
        play(prepared).unwrap();
        Self::read(scenario, directory)
    }

    /// The same, left between two ticks and taken up again.
    fn in_pieces(text: &str, until: u64) -> Self {
        let (scenario, directory) = loaded(text);
        let options = options(directory.path());
        drop(prepare(scenario.clone(), &options, &mut |_| {}).unwrap());
        for until in [Some(until), None] {
            let options = ResumeOptions {
                directory: directory.path().join("run"),
                timer: Timer::Jump,
                until,
                ..ResumeOptions::default()
            };
            match resume(&options, &mut |_| {}).unwrap() {
                Resumed::Ready(prepared) => drop(play(*prepared).unwrap()),
                Resumed::Finished(_) => break,
            }
        }
        Self::read(scenario, directory)
    }

    fn read(scenario: Scenario, directory: TempDir) -> Self {
        let log = std::fs::read_to_string(directory.path().join("run/events.jsonl")).unwrap();
        Self { scenario, log, directory }
    }

    fn transcript(&self) -> Vec<(u64, EventKind)> {
        let all = events(&self.log).into_iter().filter(|event| !event.kind.is_supervision());
        all.map(|Event { tick, kind, .. }| (tick, kind)).collect()
    }
}

fn loaded(text: &str) -> (Scenario, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    // A run is called like its folder.
    let folder = directory.path().join("society");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("scenario.toml"), text).unwrap();
    let scenario = load(&folder, &[], None)
        .unwrap_or_else(|problems| panic!("{:?}", miette::Report::new(problems)));
    (scenario, directory)
}

fn options(directory: &Path) -> RunOptions {
    let out = Some(directory.join("run"));
    RunOptions { out, timer: Timer::Jump, unchecked: true, ..RunOptions::default() }
}

/// What was seen in all societies, so that none of it is missing.
#[derive(Debug, Default)]
struct Seen {
    messages: u64,
    faults: u64,
    lost: u64,
    refused: u64,
    late: u64,
    silenced: u64,
    skipped: u64,
}

impl Seen {
    fn note(&mut self, log: &str) {
        for event in events(log) {
            match event.kind {
                EventKind::MessageDelivered { lost, refused, delay, .. } => {
                    self.messages += 1;
                    self.lost += lost.len() as u64;
                    self.refused += refused.len() as u64;
                    self.late += u64::from(delay > 0);
                }
                EventKind::FaultInjected { .. } => self.faults += 1,
                EventKind::AgentSilenced { .. } => self.silenced += 1,
                EventKind::TurnSkipped { .. } => self.skipped += 1,
                _ => {}
            }
        }
    }
}

/// Plays the society of a seed in all ways; what is wrong with it, if anything.
fn examine(seed: u64, seen: &mut Seen) -> Result<(), String> {
    let society = Society::new(seed);
    let calm = Played::new(&society.calm);
    check(&calm.scenario, &events(&calm.log))?;
    let hurt = Played::new(&(society.calm.clone() + &society.faults));
    check(&hurt.scenario, &events(&hurt.log)).map_err(|e| format!("with faults: {e}"))?;
    if calm.transcript() != hurt.transcript() {
        return Err("the faults left a trace in the transcript".to_owned());
    }
    if seed % 4 == 0 && Played::new(&(society.calm.clone() + &society.faults)).log != hurt.log {
        return Err("the same society was another one the second time".to_owned());
    }
    if seed % 8 == 0 {
        let last = events(&hurt.log).last().map_or(0, |event| event.tick);
        let until = Seed::new(seed).child("until").stream().random_range(0..=last);
        let pieces = Played::in_pieces(&(society.calm.clone() + &society.faults), until);
        if pieces.log != hurt.log {
            let place = pieces.directory.keep();
            return Err(format!(
                "left after tick {until}, it went on otherwise: {}",
                place.display()
            ));
        }
    }
    seen.note(&hurt.log);
    Ok(())
}

#[test]
fn random_societies_keep_their_promises() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("POLYLOGUE_SOCIETY") {
        Some(one) => one..one + 1,
        None => 0..number("POLYLOGUE_SOCIETIES").unwrap_or(USUAL),
    };
    let all = seeds.end - seeds.start;
    let mut seen = Seen::default();
    for seed in seeds {
        if let Err(reason) = examine(seed, &mut seen) {
            let Society { calm, faults } = Society::new(seed);
            panic!("{calm}{faults}\nPOLYLOGUE_SOCIETY={seed} plays this one again: {reason}");
        }
    }
    println!("{all} societies: {seen:?}");
    let Seen { messages, faults, lost, refused, late, silenced, skipped } = seen;
    if all >= USUAL {
        let counts = [messages, faults, lost, refused, late, silenced, skipped];
        assert!(counts.iter().all(|count| *count > 0), "something never happened: {seen:?}");
    }
}
