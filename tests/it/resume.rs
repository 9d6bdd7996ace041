//! Runs that are killed, damaged and taken up again: they end as if nothing had happened, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use agents::seed::{Seed, Stream};
use polylogue_tests::{binary, root};
use rand::Rng;

/// A society that learns in every way and plays in seconds.
pub(crate) const TINY: [&str; 14] = [
    "episodes=24",
    "concurrent_episodes=8",
    "training_steps_per_tick=2",
    "task.support.holdout_limit=4",
    "channel.text.max_tokens=8",
    "agents.understand.warm_up={ examples_per_intent = 2, steps = 24, batch = 8 }",
    "agents.reply.warm_up={ examples_per_intent = 1, steps = 24, batch = 2 }",
    "agents.evaluate.warm_up={ examples_per_intent = 1, steps = 4, batch = 2 }",
    "triggers.0.when.threshold={ signal = \"reward\", mean_of = 8, below = 1.1, cooldown = 8 }",
    "triggers.0.train.grpo={ steps = 3, prompts = 2, group = 2, learning_rate = 2e-3, buffer = 16 }",
    "triggers.1.when.periodic.every=8",
    "triggers.1.train.supervised={ steps = 10, batch = 8, learning_rate = 2e-3, buffer = 64 }",
    "triggers.3={ agent = \"evaluate\", when.periodic.every = 9, train.supervised = { steps = 3, batch = 2, learning_rate = 1e-3, buffer = 16 } }",
    "checkpoints={ every_ticks = 2, keep = 2 }",
];

/// The files of a run that must be equal, by name; wall times and what names a place are left out.
pub(crate) fn outcome(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![directory.join("adapters")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    for name in ["events.jsonl", "summary.json"] {
        files.insert(name.into(), fs::read(directory.join(name)).unwrap());
    }
    files
}

/// Says which files differ rather than showing them.
fn assert_same(whole: &BTreeMap<PathBuf, Vec<u8>>, directory: &Path, what: &str) {
    let found = outcome(directory);
    let names: Vec<_> = found.keys().collect();
    assert_eq!(names, whole.keys().collect::<Vec<_>>(), "{what}");
    let differ: Vec<_> = whole.iter().filter(|(name, bytes)| found[*name] != **bytes).collect();
    let differ: Vec<_> = differ.into_iter().map(|(name, _)| name).collect();
    assert!(differ.is_empty(), "{what}: {differ:?}");
}

struct Life {
    binary: PathBuf,
    directory: PathBuf,
}

impl Life {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        // A run that was killed before it was set up is no run yet.
        if self.directory.join("manifest.json").exists() {
            command.arg("resume").arg(&self.directory);
        } else {
            command.arg("run").arg("scenarios/customer_service").arg("--out").arg(&self.directory);
            command.args(TINY.iter().flat_map(|set| ["--set", set]));
        }
        command.args(["--display", "none"]).current_dir(root());
        command
    }

    fn start(&self) -> Child {
        self.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn output(&self) -> Output {
        self.command().output().unwrap()
    }

    fn log(&self) -> PathBuf {
        self.directory.join("events.jsonl")
    }

    /// Checkpoints by tick.
    fn checkpoints(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.join("checkpoints"));
        let mut all: Vec<PathBuf> =
            entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        all.retain(|path| path.extension().is_none());
        all.sort();
        all
    }

    /// What the disk may have lost: everything after the last checkpoint, or only a part of it.
    fn tear(&self, stream: &mut Stream) {
        let Ok(bytes) = fs::read(self.log()) else { return };
        // Of the last checkpoint that this test has not spoilt.
        let kept = self.checkpoints().iter().rev().find_map(|path| {
            let text = fs::read(path.join("manifest.json")).ok()?;
            let manifest: serde_json::Value = serde_json::from_slice(&text).ok()?;
            Some(manifest["log"]["events"]["bytes"].as_u64()? as usize)
        });
        let end = stream.random_range(kept.unwrap_or(0).min(bytes.len())..=bytes.len());
        let mut bytes = bytes[..end].to_vec();
        if stream.random() {
            bytes.extend_from_slice(b"{\"seq\":99,\"tick\":4,\"event\":{\"mess");
        }
        fs::write(self.log(), bytes).unwrap();
    }

    /// What a crash or a bad disk may have done to checkpoints.
    fn spoil(&self, stream: &mut Stream) {
        let all = self.checkpoints();
        let Some(last) = all.last() else { return };
        let half = last.with_extension("partial");
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("state.cbor"), b"half").unwrap();
        if stream.random_bool(0.3) {
            let name = ["state.cbor", "manifest.json"][stream.random_range(0..2)];
            let mut bytes = fs::read(last.join(name)).unwrap();
            let place = stream.random_range(0..bytes.len());
            if stream.random() {
                bytes.truncate(place)
            } else {
                bytes[place] ^= 0x10
            }
            fs::write(last.join(name), bytes).unwrap();
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "there is no runtime: another process is waited for"
    )]
    /// Waits for a moment of the stream's choice; whether the process is still there then.
    fn wait(&self, child: &mut Child, longest: Duration, stream: &mut Stream) -> bool {
        let size = || fs::metadata(self.log()).map_or(0, |found| found.len());
        let more = stream.random_bool(0.4).then(|| size() + stream.random_range(1..20_000));
        let share = if more.is_some() { 1.0 } else { stream.random_range(0.0..0.8) };
        let begun = Instant::now();
        while begun.elapsed() < longest.mul_f64(share) {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if more.is_some_and(|bytes| size() >= bytes) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.try_wait().unwrap().is_none()
    }

    /// Kills the run again and again until it ends by itself; how often that was.
    fn live(&self, longest: Duration, most: usize, stream: &mut Stream) -> usize {
        let mut kills = 0;
        loop {
            let mut child = self.start();
            if kills < most && self.wait(&mut child, longest, stream) {
                child.kill().unwrap();
                kills += 1;
                child.wait().unwrap();
                if stream.random_bool(0.6) {
                    self.tear(stream);
                }
                if stream.random_bool(0.4) {
                    self.spoil(stream);
                }
                continue;
            }
            let output = child.wait_with_output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "after {kills} kills: {told}");
            return kills;
        }
    }
}

/// Plays whole, then `lives` times with kills; all kills.
fn killed_again_and_again(lives: u64, most: usize, wanted: usize) -> usize {
    let (binary, folder) = (binary(), tempfile::tempdir().unwrap());
    let whole = Life { binary: binary.clone(), directory: folder.path().join("whole") };
    let begun = Instant::now();
    let output = whole.output();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let longest = begun.elapsed();
    let wanted_files = outcome(&whole.directory);
    let mut kills = 0;
    for seed in 0..lives {
        let mut stream = Seed::new(seed).child("kill").stream();
        let life = Life { binary: binary.clone(), directory: folder.path().join(seed.to_string()) };
        kills += life.live(longest, most.min(wanted - kills), &mut stream);
        assert_same(&wanted_files, &life.directory, &format!("seed {seed}, {kills} kills so far"));
        fs::remove_dir_all(&life.directory).unwrap();
        println!("life {seed}: {kills} kills so far");
        if kills >= wanted {
            break;
        }
    }
    kills
}

/// What another version wrote is left alone rather than begun again.
#[test]
fn a_run_of_another_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let life = Life { binary: binary(), directory: folder.path().join("run") };
    assert!(life.output().status.success());
    fs::remove_file(life.directory.join("summary.json")).unwrap();
    let log = fs::read_to_string(life.log()).unwrap();
    // Without its end, the run could go on.
    let cut = log.trim_end().rfind('\n').unwrap() + 1;
    let manifests: Vec<PathBuf> =
        life.checkpoints().iter().map(|path| path.join("manifest.json")).collect();
    let formats = |from: &str, to: &str| {
        for path in &manifests {
            let text = fs::read_to_string(path).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(path, text.replace(from, to)).unwrap();
        }
    };
    let (ours, theirs) = ("polylogue-checkpoint/2", "polylogue-checkpoint/1");
    let refused = |log: &str, found: &str| {
        fs::write(life.log(), log).unwrap();
        let output = life.output();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = told.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("begun by another version") && told.contains(found), "{told}");
        assert_eq!(fs::read_to_string(life.log()).unwrap(), log);
    };
    formats(ours, theirs);
    refused(&log[..cut], theirs);
    formats(theirs, ours);
    refused(&log[..cut].replacen("events/1.1", "events/1", 1), "polylogue-events/1,");
    refused(&log[..cut].replacen("events/1.1", "events/2.0", 1), "polylogue-events/2,");
    fs::write(life.log(), &log[..cut]).unwrap();
    assert!(life.output().status.success());
    assert_eq!(fs::read_to_string(life.log()).unwrap(), log);
}

#[test]
fn a_run_that_is_killed_and_torn_ends_as_if_nothing_had_happened() {
    assert!(killed_again_and_again(3, 3, 9) >= 3);
}

/// `cargo test -p polylogue-tests --test it two_hundred_kills -- --ignored --nocapture`
#[test]
#[ignore = "it takes many minutes"]
fn two_hundred_kills_change_nothing() {
    let begun = Instant::now();
    let kills = killed_again_and_again(200, 12, 200);
    println!("{kills} kills, all runs ended the same, {:.0} s", begun.elapsed().as_secs_f64());
    assert_eq!(kills, 200);
}
