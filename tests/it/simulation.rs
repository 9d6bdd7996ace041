//! Random societies of scripted agents: whatever protocol, topology, channel and faults chance picks, the
//! promises hold. Each is played calm, with its faults, and now and then twice or in pieces.
//!
//! `POLYLOGUE_SOCIETIES=10000` plays so many; `POLYLOGUE_SOCIETY=N` plays the one of seed N again, which is what
//! a failure prints.

mod invariants;
mod society;

use std::path::Path;

use agents::seed::Seed;
use polylogue_tests::{events, play};
use rand::Rng;
use sim::clock::Timer;
use sim::event::{Event, EventKind};
use sim::run::{ResumeOptions, Resumed, RunOptions, prepare, resume};
use sim::scenario::{Scenario, load};
use tempfile::TempDir;

use invariants::check;
use society::Society;

/// Societies of the ordinary test.
const USUAL: u64 = 150;

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
    if seed.is_multiple_of(4)
        && Played::new(&(society.calm.clone() + &society.faults)).log != hurt.log
    {
        return Err("the same society was another one the second time".to_owned());
    }
    if seed.is_multiple_of(8) {
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
