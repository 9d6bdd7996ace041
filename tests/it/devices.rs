//! The devices of a run: those that cannot be used are told before anything is written, a society is divided
//! among several, and a run is taken up again on devices like those it had.

use std::path::Path;

use polylogue_tests::{play, polylogue, root};
use sim::clock::Timer;
use sim::run::RunOptions;

use crate::resume::{TINY, outcome};

/// What was said, in one line: a report breaks lines where a terminal would.
fn words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    text.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}

fn refused(arguments: &[&str], told: &[&str]) {
    let output = polylogue(arguments);
    let said = words(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    for part in told {
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

fn recorded(run: &Path) -> String {
    let text = std::fs::read_to_string(run.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    manifest["device"].as_str().unwrap().to_owned()
}

#[test]
fn a_device_that_is_not_there_is_told_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let place = out.to_str().unwrap();
    // No machine has a card of this number, whether the program was built for one or not.
    let device = ["--device", "cuda:97"];
    let tuning = ["--method", "frozen", "--folds", "2", "--out", place];
    for command in [
        vec!["run", "scenarios/customer_service", "--out", place],
        vec!["check", "scenarios/customer_service"],
        [&["tune", "--model", "polylogue-tiny", "--train", "none.csv"], &tuning[..]].concat(),
        vec!["pretrain", "scenarios/pretrain", "--out", place],
        vec!["bench"],
    ] {
        refused(&[command, device.to_vec()].concat(), &["cannot use the device cuda:97"]);
    }
    assert!(!out.exists());
    refused(
        &["run", "scenarios/opinions", "--device", "cpu,gpu"],
        &["expected cpu, cuda or cuda:N"],
    );
}

#[test]
fn a_run_goes_on_with_devices_like_those_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let [run, other] = ["run", "other"].map(|name| folder.path().join(name));
    let [run_at, other_at] = [&run, &other].map(|path| path.to_str().unwrap());
    let set = ["--set", "episodes=4", "--display", "none"];
    let begin = [&["run", "scenarios/opinions", "--out", run_at], &set[..]].concat();
    assert_eq!(polylogue(&begin).status.code(), Some(0));
    assert_eq!(recorded(&run), "cpu");
    let fork = ["fork", run_at, "--at", "8", "--out", other_at];
    let card = ["--device", "cuda:97"];
    let bits = ["was begun with --device cpu", "--unchecked"];
    refused(&[&fork[..], &card].concat(), &bits);
    // Whoever does not mind other bits is told what is wrong with the device itself.
    let unminded = [&fork[..], &card, &["--unchecked"]].concat();
    refused(&unminded, &["cannot use the device cuda:97"]);
    refused(&["verify", run_at, "--device", "cuda:97"], &["cannot use the device cuda:97"]);
    let forked = polylogue(&[&fork[..], &["--display", "none"]].concat());
    assert_eq!(forked.status.code(), Some(0), "{}", words(&forked.stderr));
    // A run of which only the beginning is left.
    std::fs::write(run.join("events.jsonl"), "").unwrap();
    refused(&["resume", run_at, "--device", "cuda:97"], &bits);
    // Before a run could have others, its device was written like this.
    let manifest = run.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"device\": \"cpu\"", "\"device\": \"Cpu\"")).unwrap();
    let resumed = polylogue(&["resume", run_at, "--device", "cpu", "--display", "none"]);
    assert_eq!(resumed.status.code(), Some(0), "{}", words(&resumed.stderr));
}

/// Loses its engines, its trainer and agents on the way.
const FAULTS: &str = r#"faults=[
    { kind = "lost_engine", at_tick = 5, times = 2 },
    { kind = "lost_trainer", at_tick = 0, times = 1 },
    { kind = "panic", agent = "reply", at_tick = 4 },
    { kind = "hang", agent = "understand", at_tick = 6 },
]"#;

fn played(devices: &str, more: &[&str]) -> (tempfile::TempDir, Outcome) {
    let path = root().join("scenarios/customer_service");
    let set: Vec<String> = TINY.iter().chain(more).map(|&set| set.to_owned()).collect();
    let scenario = sim::scenario::load(&path, &set, None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = RunOptions {
        out: Some(folder.path().into()),
        devices: devices.parse().unwrap(),
        timer: Timer::Jump,
        ..RunOptions::default()
    };
    play(sim::run::prepare(scenario, &options, &mut |_| {}).unwrap()).unwrap();
    let outcome = outcome(folder.path());
    (folder, outcome)
}

type Outcome = std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>;

fn assert_same(one: &Outcome, other: &Outcome, what: &str) {
    assert!(one.keys().eq(other.keys()), "{what}: {:?} {:?}", one.keys(), other.keys());
    let differ: Vec<_> = one.iter().filter(|(name, bytes)| other[*name] != **bytes).collect();
    let differ: Vec<_> = differ.iter().map(|(name, _)| name).collect();
    assert!(differ.is_empty(), "{what}: {differ:?}");
}

/// What the engines did, added up over the ticks of a run.
fn counted(run: &Path, what: &str) -> u64 {
    let times = std::fs::read_to_string(run.join("times.jsonl")).unwrap();
    let lines = times.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| line["engine"][what].as_u64()).sum()
}

#[test]
fn a_society_on_several_devices_comes_to_the_same_as_on_one() {
    let (one, alone) = played("cpu", &[]);
    let (two, divided) = played("cpu,cpu", &[]);
    assert_eq!([&one, &two].map(|run| recorded(run.path())), ["cpu", "cpu,cpu"]);
    assert_same(&alone, &divided, "two engines");
    for what in ["written_tokens", "classes", "training_steps"] {
        let [one, two] = [&one, &two].map(|run| counted(run.path(), what));
        assert!(one > 0 && one == two, "{what}: {one} on one engine, {two} on two");
    }
    // More devices than agents; and the same through failures of every shared part.
    assert_same(&alone, &played("cpu,cpu,cpu,cpu", &[]).1, "four engines");
    let patient = "supervision.restarts=100";
    let hurt = played("cpu", &[FAULTS, patient]).1;
    assert_same(&hurt, &played("cpu,cpu", &[FAULTS, patient]).1, "two engines that are lost");
    let kept = |outcome: &Outcome| -> Vec<_> {
        outcome
            .iter()
            .filter(|(name, _)| name.starts_with("adapters"))
            .map(|(n, b)| (n.clone(), b.clone()))
            .collect()
    };
    assert!(kept(&hurt) == kept(&alone), "failures change no weights");
}

#[test]
fn a_run_on_several_devices_is_verified_and_goes_on_there() {
    let (run, whole) = played("cpu,cpu", &[]);
    let place = run.path().to_str().unwrap();
    let verified = polylogue(&["verify", place]);
    assert_eq!(verified.status.code(), Some(0), "{}", words(&verified.stderr));
    assert!(!words(&verified.stderr).contains("--device"), "{}", words(&verified.stderr));
    let verified = polylogue(&["verify", place, "--device", "cpu"]);
    let told = "the run had --device cpu,cpu, and is played again with cpu";
    assert!(words(&verified.stderr).contains(told), "{}", words(&verified.stderr));
    // Cut off in the middle of the log, where jobs are in progress.
    let log = run.path().join("events.jsonl");
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() - 200]).unwrap();
    std::fs::remove_file(run.path().join("summary.json")).unwrap();
    refused(&["resume", place, "--device", "cpu"], &["was begun with --device cpu,cpu"]);
    let resumed = polylogue(&["resume", place, "--display", "none"]);
    assert_eq!(resumed.status.code(), Some(0), "{}", words(&resumed.stderr));
    assert_same(&whole, &outcome(run.path()), "taken up again");
}

#[test]
fn a_run_that_went_on_elsewhere_says_so() {
    let (run, _) = played("cpu,cpu", &[]);
    let place = run.path().to_str().unwrap();
    let log = run.path().join("events.jsonl");
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() - 200]).unwrap();
    std::fs::remove_file(run.path().join("summary.json")).unwrap();
    // So early that ticks are left after it.
    let saved = std::fs::read_dir(run.path().join("checkpoints")).unwrap();
    let last = saved.map(|entry| entry.unwrap().path()).max().unwrap();
    std::fs::remove_dir_all(last).unwrap();
    let resumed = ["resume", place, "--device", "cpu", "--unchecked", "--display", "none"];
    let resumed = polylogue(&resumed);
    let told = words(&resumed.stderr);
    assert_eq!(resumed.status.code(), Some(0), "{told}");
    assert!(told.contains("the run had --device cpu,cpu, and goes on with cpu"), "{told}");
    assert_eq!(recorded(run.path()), "cpu");
    let text = std::fs::read_to_string(run.path().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let before = &manifest["devices_before"];
    assert_eq!((&before[0]["device"], before[1].is_null()), (&"cpu,cpu".into(), true));
    let tick = before[0]["until"].as_u64().unwrap();
    assert!(tick > 4, "{tick}");
    // Played again it begins where it began.
    let verified = words(&polylogue(&["verify", place]).stderr);
    let told = format!("the run went on with --device cpu after tick {tick}, and had cpu,cpu");
    assert!(verified.contains(&told), "{verified}");
    // A fork goes on with what its tick had.
    let folder = tempfile::tempdir().unwrap();
    for (at, device) in [(4, "cpu,cpu"), (tick + 1, "cpu")] {
        let other = folder.path().join(at.to_string());
        let at = at.to_string();
        let fork = ["fork", place, "--at", &at, "--out", other.to_str().unwrap()];
        let forked = polylogue(&[&fork[..], &["--display", "none"]].concat());
        assert_eq!(forked.status.code(), Some(0), "{at}: {}", words(&forked.stderr));
        assert_eq!(recorded(&other), device, "{at}");
    }
}

#[test]
fn what_cannot_fit_is_refused_by_check_as_by_run() {
    let mut large = vec!["scenarios/opinions", "--device", "cpu,cpu"];
    for set in ["agents.citizen.copies=4096", "protocol.gossip.rounds=10000"] {
        large.extend(["--set", set]);
    }
    let told = ["the run does not fit into the memory of cpu: it needs", "try fewer agents"];
    refused(&[&["check"], &large[..]].concat(), &told);
    refused(&[&["run"], &large[..]].concat(), &told);
}
