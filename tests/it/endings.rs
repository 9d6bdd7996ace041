//! How processes without a screen end: when they are asked to, once or twice, while they play or verify; when
//! nobody reads any more; when a run fails, and when the disk refuses its summary.

#![cfg(unix)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use polylogue_tests::{binary, events, root};
use sim::event::{Event, EventKind};

use crate::resume::TINY;

/// How long anything may take; a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(180);

fn started(arguments: &[&str], temporary: &Path) -> Child {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(root()).env("TMPDIR", temporary);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn play<'a>(out: &'a str, display: &'a str, settings: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["run", "scenarios/customer_service", "--display", display];
    arguments.extend(["--out", out]);
    arguments.extend(TINY.iter().chain(settings).flat_map(|set| ["--set", *set]));
    arguments
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[expect(clippy::disallowed_methods, reason = "there is no runtime: another process is waited for")]
fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for the end of a process that shall not take long to end.
fn ended(child: Child) -> Output {
    let waiting = std::thread::spawn(|| child.wait_with_output().unwrap());
    until("the end", || waiting.is_finished());
    waiting.join().unwrap()
}

/// A mask of signals of a process, by its name in the status; the lowest bit stands for number 1. None where the
/// system does not say.
fn mask(process: impl std::fmt::Display, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Whether the process hears both requests itself: 2 interrupts, 15 terminates.
fn listens(child: &Child) -> bool {
    mask(child.id(), "SigCgt:").is_none_or(|mask| mask & (1 << 1) != 0 && mask & (1 << 14) != 0)
}

#[test]
fn a_second_request_leaves_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let hang = "faults=[{ kind = \"hang\", agent = \"understand\", at_tick = 4 }]";
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let out = folder.path().join(signal).display().to_string();
        let mut child = started(&play(&out, "plain", &[hang]), folder.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("ordered fault: hang of understand")));
        send(signal, &child);
        let told = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(told.into_iter().any(|line| line.contains("ask again to leave at once")));
        assert_eq!(child.try_wait().unwrap(), None, "the tick does not end");
        send(signal, &child);
        let output = ended(child);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

#[test]
fn verify_leaves_no_folder_behind_when_it_is_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run").display().to_string();
    let output = started(&play(&run, "none", &[]), folder.path()).wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let temporary = folder.path().join(signal);
        fs::create_dir(&temporary).unwrap();
        let there = || fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path());
        // While the second run is prepared, and while it plays.
        for moment in ["", "run/events.jsonl"] {
            let child = started(&["verify", &run], &temporary);
            until("the second run", || there().any(|place| place.join(moment).exists()));
            // The folder is there a little before the signals are listened to.
            until("a process that listens", || listens(&child));
            send(signal, &child);
            let output = ended(child);
            assert_eq!(output.status.code(), Some(code), "{output:?}");
            assert_eq!(there().collect::<Vec<_>>(), [] as [std::path::PathBuf; 0]);
        }
    }
}

/// A run of opinions, whose agents need no model.
fn opinions<'a>(out: &'a str, display: &'a str, settings: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["run", "scenarios/opinions", "--display", display, "--out", out];
    arguments.extend(settings.iter().flat_map(|set| ["--set", *set]));
    arguments
}

/// A small one.
const FEW: [&str; 3] = ["agents.citizen.copies=6", "episodes=40", "protocol.gossip.rounds=6"];

fn logged(out: &str) -> Vec<Event> {
    events(&fs::read_to_string(Path::new(out).join("events.jsonl")).unwrap())
}

fn ends_well(out: &str) -> bool {
    matches!(logged(out).last().unwrap().kind, EventKind::RunFinished { .. })
}

/// Whether this process, and so the one it starts, ignores that its terminal is gone.
fn ignores_hang_up() -> bool {
    mask("self", "SigIgn:").is_some_and(|mask| mask & 1 != 0)
}

#[test]
fn a_run_that_is_asked_to_end_is_saved_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let seldom = ["checkpoints.every_ticks=100000", "episodes=100000"];
    for (signal, code) in [("INT", 130), ("HUP", 129)] {
        if signal == "HUP" && ignores_hang_up() {
            continue;
        }
        let out = folder.path().join(signal).display().to_string();
        let mut arguments = opinions(&out, "none", &seldom);
        // So many episodes would fill a disk.
        arguments.push("--unchecked");
        let child = started(&arguments, folder.path());
        let log = Path::new(&out).join("events.jsonl");
        until("a part of the log", || fs::metadata(&log).is_ok_and(|found| found.len() > 100_000));
        until("a process that listens", || listens(&child));
        send(signal, &child);
        let output = ended(child);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(ends_well(&out));
        let last = logged(&out).last().unwrap().tick;
        let saved = Path::new(&out).join(format!("checkpoints/tick-{:06}", last - 1));
        assert!(saved.join("manifest.json").exists(), "the tick before the last, {last}, is saved");
    }
}

#[test]
fn a_run_goes_on_when_nobody_reads_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").display().to_string();
    let mut child = started(&opinions(&out, "plain", &FEW), folder.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("run of opinions"));
    drop(lines);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(ends_well(&out) && Path::new(&out).join("summary.json").exists());
}

#[test]
fn a_run_that_fails_has_logged_why() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").display().to_string();
    let panics = "faults=[{ kind = \"panic\", agent = \"citizen-3\", probability = 1.0 }]";
    let settings = [FEW.as_slice(), &[panics]].concat();
    let output = ended(started(&opinions(&out, "none", &settings), folder.path()));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let count = |is: fn(&EventKind) -> bool| logged(&out).iter().filter(|e| is(&e.kind)).count();
    let struck = count(|kind| matches!(kind, EventKind::FaultInjected { .. }));
    let failed = count(|kind| matches!(kind, EventKind::AgentFailed { .. }));
    assert!(struck > 1 && struck == failed, "{struck} faults, {failed} failures");
}

#[test]
fn nothing_follows_the_end_in_a_log_whose_summary_was_refused_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").display().to_string();
    let settings = [FEW.as_slice(), &["episodes=600"]].concat();
    let child = started(&opinions(&out, "none", &settings), folder.path());
    let log = Path::new(&out).join("events.jsonl");
    until("the log", || log.exists());
    // In its place a summary cannot be written.
    let obstacle = Path::new(&out).join("summary.json.partial");
    fs::create_dir(&obstacle).unwrap();
    assert!(!Path::new(&out).join("summary.json").exists(), "there is time for an obstacle");
    until("the end of the log", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("run_finished"))
    });
    fs::remove_dir(&obstacle).unwrap();
    let output = ended(child);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(ends_well(&out));
    let times = fs::read_to_string(Path::new(&out).join("times.jsonl")).unwrap();
    let ticks: Vec<u64> = times
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["tick"].as_u64().unwrap()
        })
        .collect();
    assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]), "each tick once");
    let verified = ended(started(&["verify", &out], folder.path()));
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
}
