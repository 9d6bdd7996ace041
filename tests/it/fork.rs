//! Runs that share the history of another: equal up to the fork, and equal after it where nothing was changed.

use std::fs;
use std::path::Path;
use std::process::Output;

use polylogue_tests::{events, polylogue};
use sim::event::{Event, EventKind, Phase};

use crate::resume::{TINY, outcome};

fn run(out: &Path) {
    let out = out.display().to_string();
    let mut arguments =
        vec!["run", "scenarios/customer_service", "--display", "none", "--out", &out];
    arguments.extend(TINY.iter().flat_map(|set| ["--set", set]));
    succeeded(&polylogue(&arguments));
}

fn fork(parent: &Path, at: u64, out: &Path, more: &[&str]) -> Output {
    let (parent, out, at) =
        (parent.display().to_string(), out.display().to_string(), at.to_string());
    let mut arguments = vec!["fork", &parent, "--at", &at, "--out", &out, "--display", "none"];
    arguments.extend(more);
    polylogue(&arguments)
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("events.jsonl")).unwrap()
}

/// A tick in which a label was said in play, and the episode.
fn labelled(events: &[Event]) -> (u64, u64) {
    let play =
        |event: &&Event| !matches!(event.kind, EventKind::PhaseStarted { phase: Phase::Play, .. });
    let found = events.iter().skip_while(play).find_map(|event| match event.kind {
        EventKind::MessageDelivered { episode, turn: 0, .. } => Some((event.tick, episode)),
        _ => None,
    });
    found.unwrap()
}

/// How many first lines two logs share, and the tick of the first that differs.
fn common(one: &str, other: &str) -> (usize, u64) {
    let lines = one.lines().zip(other.lines()).take_while(|(one, other)| one == other).count();
    (lines, events(one)[lines - 1].tick)
}

#[test]
fn a_fork_has_the_history_of_its_parent_and_what_was_changed_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let parent = folder.path().join("parent");
    run(&parent);
    let whole = log(&parent);
    let (tick, episode) = labelled(&events(&whole));

    // From a checkpoint, from between two, and from before the first.
    for at in [tick, tick + 1] {
        let same = folder.path().join(format!("same-{at}"));
        succeeded(&fork(&parent, at, &same, &[]));
        let (ours, theirs) = (outcome(&same), outcome(&parent));
        assert!(ours == theirs, "a fork without a change is the same run");
    }

    let edited = folder.path().join("edited");
    let edit = format!("{episode}:0=lost_baggage_of_somebody_else");
    succeeded(&fork(&parent, tick, &edited, &["--edit", &edit]));
    let (_, first) = common(&whole, &log(&edited));
    assert!(first > tick, "{first} comes after {tick}");
    let manifest = fs::read_to_string(edited.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["fork"]["tick"], tick);
    assert_eq!(manifest["fork"]["edits"][0], edit);

    let other = folder.path().join("seed");
    succeeded(&fork(&parent, tick, &other, &["--seed", "99"]));
    let (_, first) = common(&whole, &log(&other));
    assert!(first > tick && log(&other) != whole, "{first}");
}

#[test]
fn what_a_fork_cannot_change_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let parent = folder.path().join("parent");
    run(&parent);
    for (number, (more, told)) in [
        (["--set", "task.support.holdout_limit=3"], "cannot change the task"),
        (["--set", "episodes=0"], "episodes"),
        (["--edit", "99999:0=x"], "there is no message 99999:0"),
        (["--adapter", "nobody=here"], "no such agent"),
    ]
    .into_iter()
    .enumerate()
    {
        let output = fork(&parent, 6, &folder.path().join(number.to_string()), &more);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.replace('\n', " ").contains(told), "{said}");
    }
    let output = fork(&parent, 10_000, &folder.path().join("late"), &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("ends before tick 10000"));
}
