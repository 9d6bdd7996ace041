//! Recorded runs played again and compared, and runs that are asked to end, through the real command line.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use polylogue_tests::{SMALL, binary, events, polylogue, polylogue_with, root};
use sim::event::EventKind;
use tempfile::TempDir;

/// A scenario of its own and the folder for its runs.
fn scenario() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let source = root().join("scenarios/customer_service");
    let scenario = folder.path().join("society");
    fs::create_dir(&scenario).unwrap();
    for name in ["scenario.toml", "travel.jsonl", "travel-holdout.jsonl"] {
        fs::copy(source.join(name), scenario.join(name)).unwrap();
    }
    let scenario = scenario.to_string_lossy().into_owned();
    (folder, scenario)
}

const TINY: [&str; 3] =
    ["episodes=12", "task.support.holdout_limit=4", "agents.understand.warm_up.steps=4"];

fn arguments<'a>(scenario: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["run", scenario, "--out", out, "--display", "plain"];
    for set in SMALL.into_iter().chain(TINY).chain(more.iter().copied()) {
        arguments.extend(["--set", set]);
    }
    arguments
}

/// Plays a run and gives its directory.
fn played(folder: &Path, scenario: &str, name: &str, more: &[&str], threads: &str) -> String {
    let out = folder.join(name).to_string_lossy().into_owned();
    let output =
        polylogue_with(&arguments(scenario, &out, more), &[("RAYON_NUM_THREADS", threads)]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    out
}

/// Exit code, standard output and standard error.
fn said(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = polylogue(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn copy(from: &str, to: &str) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = Path::new(to).join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path.to_string_lossy(), &target.to_string_lossy());
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_run_comes_out_the_same_on_any_number_of_threads_and_changes_are_found() {
    let (folder, scenario) = scenario();
    let fault = "faults=[{ agent = \"reply\", at_tick = 8, kind = \"panic\" }]";
    let run = played(folder.path(), &scenario, "one", &[fault], "1");
    let (code, out, err) = said(&["verify", &run, "--threads", "2"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let log = fs::read_to_string(format!("{run}/events.jsonl")).unwrap();
    let count = log.lines().count() - 1;
    assert!(
        out.contains("comes out the same") && err.contains("events are equal, tick"),
        "{out}{err}"
    );
    assert!(out.replace(',', "").contains(&format!("{count} events")), "{out}");

    // One number in the middle of the log.
    let changed = format!("{run}-changed");
    copy(&run, &changed);
    let line = log.lines().find(|line| line.contains("training_stepped")).unwrap();
    let seq = serde_json::from_str::<sim::event::Event>(line).unwrap().seq;
    let other = line.replace("\"step\":", "\"step\":1");
    fs::write(format!("{changed}/events.jsonl"), log.replace(line, &other)).unwrap();
    let (code, out, _) = said(&["verify", &changed]);
    assert_eq!(code, Some(1), "{out}");
    for part in [format!("the first difference is event {seq} "), "training_stepped.step: ".into()]
    {
        assert!(out.contains(&part), "`{part}` is not in: {out}");
    }
    let (code, out, _) = said(&["diff", &run, &changed]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains(&format!("the first difference is event {seq} ")), "{out}");

    // A recording that was cut off, and an adapter that is not the one that was published.
    fs::write(format!("{changed}/events.jsonl"), &log[..log.len() / 2]).unwrap();
    let weights = format!("{changed}/adapters/reply/g1/adapter_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let (code, out, _) = said(&["verify", &changed]);
    assert_eq!(code, Some(1), "{out}");
    let both = out.contains("adapters/reply/g1: adapter_model.safetensors differs")
        && out.contains("it was cut off there");
    assert!(both, "{out}");
}

#[test]
fn what_a_run_was_made_from_must_be_there_unchanged() {
    let (folder, scenario) = scenario();
    let run = played(folder.path(), &scenario, "one", &[], "2");
    let moved = folder.path().join("moved").to_string_lossy().into_owned();
    fs::rename(&scenario, &moved).unwrap();
    let (code, _, err) = said(&["verify", &run]);
    assert_eq!(code, Some(2), "{err}");
    let data = format!("{moved}/travel.jsonl");
    let text = fs::read_to_string(&data).unwrap();
    fs::write(&data, format!("{text}\n")).unwrap();
    let (code, _, err) = said(&["verify", &run, "--scenario", &moved]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("data.train"), "{err}");
}

#[test]
fn two_runs_are_compared_in_words_and_as_json() {
    let (folder, scenario) = scenario();
    let one = played(folder.path(), &scenario, "one", &[], "2");
    let other = played(folder.path(), &scenario, "other", &["seed=8"], "2");
    let (code, out, _) = said(&["diff", &one, &one]);
    assert_eq!((code, out.contains("are equal")), (Some(0), true), "{out}");
    let (code, out, _) = said(&["diff", &one, &other]);
    assert_eq!(code, Some(1));
    for part in ["event 0 in tick 0", "run_started.seed: 7 is now 8", "messages", "intent after"] {
        assert!(out.contains(part), "`{part}` is not in: {out}");
    }
    let (_, out, _) = said(&["diff", &one, &other, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["second"]["seed"], &json["divergence"]["seq"]), (&8.into(), &0.into()));
    assert!(json["messages"]["reply"]["equal"].is_u64());
    let (code, _, err) = said(&["diff", &one, "no/such/run"]);
    assert_eq!(code, Some(2), "{err}");
}

#[test]
fn a_run_that_no_disk_can_hold_is_refused_before_it_begins() {
    let (folder, scenario) = scenario();
    let out = folder.path().join("run").to_string_lossy().into_owned();
    let more = ["episodes=10000000", "triggers.0.when.threshold.cooldown=0"];
    let (code, _, err) = said(&arguments(&scenario, &out, &more));
    let told = err.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("this run may need") && told.contains("--unchecked"), "{told}");
    assert!(!Path::new(&out).exists(), "no run directory is left");
}

/// A run that would take hours, begun; its lines so far were read up to the beginning of play.
fn begun(scenario: &str, out: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let more = ["episodes=1000000", "triggers=[]"];
    let mut child = Command::new(binary())
        .args(arguments(scenario, out, &more))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("play begins") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the run began");
    }
    (child, lines)
}

#[cfg(unix)]
fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[cfg(unix)]
#[test]
fn a_run_that_is_asked_to_end_finishes_its_tick() {
    let (folder, scenario) = scenario();
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let out = folder.path().join(signal).to_string_lossy().into_owned();
        let (mut child, lines) = begun(&scenario, &out);
        send(signal, &child);
        let rest: Vec<String> = lines.lines().map(Result::unwrap).collect();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert!(rest.iter().any(|line| line.contains("stopped early after")), "{rest:?}");
        let log = fs::read_to_string(format!("{out}/events.jsonl")).unwrap();
        let events = events(&log);
        let last = events.last().unwrap();
        assert!(matches!(last.kind, EventKind::RunFinished { stopped: true, .. }), "{last:?}");
        assert!(PathBuf::from(format!("{out}/summary.json")).exists());
        if signal == "-INT" {
            // Ended early in the same tick, it comes out the same.
            let (code, out, err) = said(&["verify", &out]);
            assert_eq!(code, Some(0), "{out}{err}");
        }
    }
}
