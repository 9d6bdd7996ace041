//! Run directories that were compressed, damaged, tampered with or made only in part: nothing that was played is
//! lost without a word, and nothing outside is touched.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use polylogue_tests::{SMALL, events, play, polylogue, root};
use sim::clock::Timer;
use sim::event::EventKind;
use sim::run::{Edit, ForkError, ForkOptions, Prepared, ResumeError, ResumeOptions, Resumed};
use sim::run::{RunError, RunOptions};
use tempfile::TempDir;

/// A society without models that plays in a moment.
const SOCIETY: [&str; 4] = [
    "agents.citizen.copies=4",
    "episodes=20",
    "protocol.gossip.rounds=10",
    "checkpoints={ every_ticks = 4, keep = 2 }",
];

/// A place for runs, and a finished one in it.
struct Place {
    folder: TempDir,
    run: PathBuf,
}

fn prepare(scenario: &str, set: &[&str], out: &Path) -> Result<Prepared, RunError> {
    let set: Vec<String> = set.iter().map(|&set| set.to_owned()).collect();
    let scenario = sim::scenario::load(&root().join("scenarios").join(scenario), &set, None);
    let scenario =
        scenario.unwrap_or_else(|problems| panic!("{:?}", miette::Report::new(problems)));
    let (out, timer) = (Some(out.to_owned()), Timer::Jump);
    sim::run::prepare(scenario, &RunOptions { out, timer, ..RunOptions::default() }, &mut |_| {})
}

impl Place {
    fn with(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        let set: Vec<&str> = SOCIETY.iter().chain(more).copied().collect();
        play(prepare("opinions", &set, &run).unwrap()).unwrap();
        Self { folder, run }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        log(&self.run)
    }

    /// Takes the run's end away: what a process that is killed leaves.
    fn cut_off(&self) {
        let log = self.log();
        let end = log.trim_end().rfind('\n').unwrap() + 1;
        fs::write(self.run.join("events.jsonl"), &log[..end]).unwrap();
        fs::remove_file(self.run.join("summary.json")).unwrap();
    }

    fn compress(&self) {
        let (plain, packed) = (self.run.join("events.jsonl"), self.run.join("events.jsonl.gz"));
        let target = fs::File::create(packed).unwrap();
        let mut target = flate2::write::GzEncoder::new(target, flate2::Compression::fast());
        target.write_all(&fs::read(&plain).unwrap()).unwrap();
        target.finish().unwrap();
        fs::remove_file(plain).unwrap();
    }

    fn fork(&self, at: u64, name: &str) -> ForkOptions {
        let (parent, out) = (self.run.clone(), Some(self.at(name)));
        ForkOptions { parent, at, out, timer: Timer::Jump, ..ForkOptions::default() }
    }
}

fn log(run: &Path) -> String {
    fs::read_to_string(run.join("events.jsonl")).unwrap()
}

fn resume(run: &Path) -> Result<Resumed, ResumeError> {
    let directory = run.to_owned();
    let options = ResumeOptions { directory, timer: Timer::Jump, ..ResumeOptions::default() };
    sim::run::resume(&options, &mut |_| {})
}

/// Goes on to the end; what was said before.
fn gone_on(run: &Path) -> String {
    let Resumed::Ready(prepared) = resume(run).unwrap() else { panic!("it came to its end") };
    let notices = prepared.notices().join("\n");
    play(*prepared).unwrap();
    notices
}

fn fork(options: &ForkOptions) -> Result<Prepared, ForkError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(sim::run::fork(options, &mut |_| {}))
}

fn forked(options: &ForkOptions) -> PathBuf {
    let prepared = fork(options).unwrap();
    let out = prepared.directory().to_owned();
    play(prepared).unwrap();
    out
}

/// Why a fork is refused: the user's mistake, of which nothing is left.
fn refused(options: &ForkOptions) -> String {
    let error = fork(options).unwrap_err();
    assert!(error.is_input(), "{error}");
    assert!(!options.out.as_ref().unwrap().exists(), "{error}");
    error.to_string()
}

#[test]
fn a_compressed_run_is_left_alone_and_can_be_forked() {
    let place = Place::with(&[]);
    let whole = place.log();
    let plain = forked(&place.fork(6, "plain"));
    place.compress();
    let packed = fs::read(place.run.join("events.jsonl.gz")).unwrap();
    assert!(matches!(resume(&place.run), Ok(Resumed::Finished(_))));
    fs::remove_file(place.run.join("summary.json")).unwrap();
    assert!(matches!(resume(&place.run), Ok(Resumed::Finished(_))), "its log says so");
    let error = prepare("opinions", &SOCIETY, &place.run).unwrap_err();
    assert!(error.is_input() && error.to_string().contains("a run in it already"), "{error}");
    for (at, name) in [(6, "between"), (8, "checkpoint")] {
        assert!(log(&forked(&place.fork(at, name))) == whole, "{name}");
    }
    assert!(log(&plain) == whole);
    assert_eq!(fs::read(place.run.join("events.jsonl.gz")).unwrap(), packed);
    assert!(!place.run.join("events.jsonl").exists());
}

#[test]
fn a_run_that_was_compressed_before_its_end_is_refused_with_advice() {
    let place = Place::with(&[]);
    place.cut_off();
    place.compress();
    let error = resume(&place.run).unwrap_err();
    assert!(error.is_input() && error.to_string().contains("with `gunzip "), "{error}");
    assert!(!place.run.join("events.jsonl").exists());
}

#[cfg(unix)]
#[test]
fn a_link_in_a_run_directory_is_refused_and_what_it_leads_to_is_left_alone() {
    let place = Place::with(&[]);
    place.cut_off();
    let precious = place.at("precious");
    for name in ["lock", "times.jsonl", "manifest.json.partial", "checkpoints/tick-000099"] {
        fs::write(&precious, "precious").unwrap();
        let link = place.run.join(name);
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        let output = polylogue(&["resume", &place.run.display().to_string()]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = told.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("it is a link"), "{told}");
        assert_eq!(fs::read(&precious).unwrap(), b"precious", "{name}");
        fs::remove_file(link).unwrap();
    }
}

/// One byte of the log was changed, so no checkpoint suits it any more.
#[test]
fn what_was_played_is_put_aside_where_no_checkpoint_can_be_used() {
    let place = Place::with(&[]);
    let whole = place.log();
    let changed = whole.replacen("run_started", "run_stbrted", 1);
    place.cut_off();
    fs::write(place.run.join("events.jsonl"), &changed).unwrap();
    let told = gone_on(&place.run);
    assert!(told.contains("events.jsonl were changed"), "{told}");
    assert!(told.contains("what was there is in ") && told.contains("put-aside-1"), "{told}");
    assert!(!told.contains("the one before it is taken"), "{told}");
    assert!(place.log() == whole);
    assert!(log(&place.run.join("put-aside-1")) == changed);
    assert!(place.run.join("put-aside-1/checkpoints").is_dir());

    // The checkpoints were removed, and the log goes further than they would have.
    place.cut_off();
    fs::remove_dir_all(place.run.join("checkpoints")).unwrap();
    let told = gone_on(&place.run);
    assert!(told.contains("put-aside-2"), "{told}");
    assert!(whole.starts_with(&log(&place.run.join("put-aside-2"))));
    assert!(place.log() == whole);
}

#[test]
fn a_damaged_checkpoint_is_told_and_the_one_before_it_taken() {
    let place = Place::with(&[]);
    let whole = place.log();
    place.cut_off();
    let folders = fs::read_dir(place.run.join("checkpoints")).unwrap();
    let last = folders.map(|entry| entry.unwrap().path()).max().unwrap();
    fs::write(last.join("state.cbor"), "damaged").unwrap();
    let told = gone_on(&place.run);
    assert!(told.contains("the one before it is taken") && !told.contains("put-aside"), "{told}");
    assert!(place.log() == whole && !place.run.join("put-aside-1").exists());
}

#[test]
fn times_that_are_lost_are_no_reason_not_to_go_on() {
    let place = Place::with(&[]);
    let (whole, times) = (place.log(), place.run.join("times.jsonl"));
    for short in [None, Some("{\"tick\":1,\"milliseconds\":987654321}\n{\"tick\":2,\"mill")] {
        place.cut_off();
        match short {
            None => fs::remove_file(&times).unwrap(),
            Some(text) => fs::write(&times, text).unwrap(),
        }
        let fork = forked(&place.fork(6, if short.is_some() { "short" } else { "none" }));
        assert!(log(&fork) == whole);
        gone_on(&place.run);
        assert!(place.log() == whole);
        let lines = fs::read_to_string(&times).unwrap();
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["milliseconds"].is_u64(), "{lines}");
        }
        assert_eq!(lines.contains("\"milliseconds\":987654321}"), short.is_some(), "{lines}");
    }
}

#[test]
fn a_refused_fork_leaves_nothing() {
    let place = Place::with(&[]);
    let (checkpoint, between) = (8, 6);
    for at in [checkpoint, between] {
        let edits: Vec<Edit> = vec!["999:0=x".parse().unwrap()];
        let wrong = ForkOptions { edits, ..place.fork(at, "fork") };
        assert!(refused(&wrong).contains("there is no message 999:0"));
    }
    let late = refused(&place.fork(9_999, "fork"));
    assert!(late.contains("ends before tick 9999") && late.contains("came to its end"), "{late}");
    assert_eq!(forked(&place.fork(between, "fork")), place.at("fork"), "the name is free");

    // Of a parent that was cut off, only playing on tells where it ends.
    place.cut_off();
    let late = refused(&place.fork(9_999, "late"));
    assert!(late.contains("ends before tick 9999"), "{late}");
    // What was there before stays.
    let theirs = place.at("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("notes.txt"), "mine").unwrap();
    fork(&place.fork(9_999, "theirs")).unwrap_err();
    let left = fs::read_dir(&theirs).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["notes.txt"]);
}

#[test]
fn a_fork_that_was_killed_while_it_was_made_says_so_to_the_next() {
    let place = Place::with(&[]);
    let out = place.at("fork");
    fs::create_dir(&out).unwrap();
    let text = fs::read_to_string(place.run.join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    manifest["fork"] = serde_json::json!({"parent": place.run, "complete": false});
    fs::write(out.join("manifest.json"), manifest.to_string()).unwrap();
    let error = fork(&place.fork(6, "fork")).unwrap_err().to_string();
    assert!(error.contains("remove the folder and fork again"), "{error}");
    assert!(out.join("manifest.json").exists());
}

#[test]
fn the_history_before_a_fork_is_that_of_its_parent() {
    let place = Place::with(&[]);
    let first = forked(&ForkOptions { seed: Some(5), ..place.fork(8, "first") });
    let of = |at, name| ForkOptions { parent: first.clone(), ..place.fork(at, name) };
    let told = refused(&of(5, "second"));
    let parent = place.run.display().to_string();
    assert!(told.contains("before tick 8 is that of") && told.contains(&parent), "{told}");
    for (at, name) in [(8, "there"), (10, "after")] {
        assert!(log(&forked(&of(at, name))) == log(&first), "{name}");
    }
    // Without its checkpoints it has no history of its own that could be played.
    fs::remove_dir_all(first.join("checkpoints")).unwrap();
    assert!(refused(&of(10, "third")).contains("fork its parent again"));
}

/// Strikes are counted by position; another fault in the same place has not struck yet.
#[test]
fn a_fault_that_a_fork_brings_strikes() {
    let fault = |agent: &str, tick: u64| {
        format!("faults=[{{ kind = \"panic\", agent = \"{agent}\", at_tick = {tick} }}]")
    };
    let place = Place::with(&[&fault("citizen-1", 3)]);
    let struck = |log: &str| -> Vec<(u64, String)> {
        let strikes = events(log).into_iter().filter_map(|event| match event.kind {
            EventKind::FaultInjected { agent: Some(agent), .. } => {
                Some((event.tick, agent.to_string()))
            }
            _ => None,
        });
        strikes.collect()
    };
    let before = struck(&place.log());
    assert_eq!(before.len(), 1);
    let set = vec![fault("citizen-2", 9)];
    let other = struck(&log(&forked(&ForkOptions { set, ..place.fork(6, "other") })));
    assert_eq!(other.len(), 2, "{other:?}");
    assert!(other[0] == before[0] && other[1].0 >= 9 && other[1].1 == "citizen-2", "{other:?}");
    let set = vec!["channel.text.max_tokens=4".to_owned()];
    let same = struck(&log(&forked(&ForkOptions { set, ..place.fork(6, "same") })));
    assert_eq!(same, before, "the same fault does not strike again");
}

/// An agent that has not learnt keeps the weights it began with, and a network at random stays the one it was.
#[test]
fn another_seed_leaves_weights_that_nobody_trained_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let more = [
        "episodes=8",
        "task.support.holdout_limit=2",
        "agents.reply.warm_up.steps=0",
        "checkpoints={ every_ticks=1, keep=50 }",
        "triggers=[]",
    ];
    let set: Vec<&str> = SMALL[..6].iter().chain(&more).copied().collect();
    play(prepare("customer_service", &set, &run).unwrap()).unwrap();
    let options = |parent: &Path, seed, name| ForkOptions {
        parent: parent.to_owned(),
        at: 8,
        out: Some(folder.path().join(name)),
        seed: Some(seed),
        timer: Timer::Jump,
        ..ForkOptions::default()
    };
    let first = forked(&options(&run, 5, "first"));
    let second = forked(&options(&first, 6, "second"));
    let weights = |run: &Path| {
        let text = fs::read_to_string(run.join("checkpoints/tick-000008/manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        manifest["adapters"]["reply"].clone()
    };
    assert_eq!(weights(&run), weights(&second));
    for (fork, seed) in [(&first, 5), (&second, 6)] {
        let text = fs::read_to_string(fork.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(manifest["seed"], seed);
        assert_eq!(manifest["fork"]["initial_seed"], 7, "that of the history");
    }
}

#[test]
fn what_begins_unchecked_can_be_carried_on_so() {
    let place = Place::with(&[]);
    let run = place.run.display().to_string();
    let fork = place.at("fork").display().to_string();
    for arguments in [
        &["resume", &run, "--unchecked"][..],
        &["fork", &run, "--at", "6", "--out", &fork, "--display", "none", "--unchecked"],
        &["verify", &run, "--unchecked"],
    ] {
        let output = polylogue(arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}
