//! Processes without a screen that are asked to end: twice, while a tick does not end, and while they verify.

#![cfg(unix)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use polylogue_tests::{binary, root};

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

/// Whether the process hears both requests itself.
fn listens(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Bit N - 1 stands for signal N: 2 interrupts, 15 terminates.
    caught.is_none_or(|mask| mask & (1 << 1) != 0 && mask & (1 << 14) != 0)
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
