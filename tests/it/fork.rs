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

/// The first tick from play on at whose end `agent` has learnt and does not learn; its generation then.
fn learnt(events: &[Event], agent: &str) -> (u64, u32) {
    let (mut playing, mut learning, mut generation) = (false, false, 0);
    for tick in events.chunk_by(|one, other| one.tick == other.tick) {
        for event in tick {
            match &event.kind {
                EventKind::PhaseStarted { phase, .. } => {
                    playing |= *phase == Phase::Play;
                }
                EventKind::TriggerFired { agent: own, job: Some(_), .. }
                | EventKind::TrainingStarted { agent: own, .. }
                    if own.as_str() == agent =>
                {
                    learning = true;
                }
                EventKind::GenerationPublished { agent: own, generation: new, .. }
                    if own.as_str() == agent =>
                {
                    (learning, generation) = (false, new.0);
                }
                _ => {}
            }
        }
        if playing && !learning && generation > 1 {
            return (tick[0].tick, generation);
        }
    }
    panic!("{agent} never rests in play");
}

#[test]
fn a_fork_goes_on_with_other_weights_or_another_channel() {
    let folder = tempfile::tempdir().unwrap();
    let parent = folder.path().join("parent");
    run(&parent);
    let whole = log(&parent);
    let (tick, generation) = learnt(&events(&whole), "evaluate");

    // What it knew after its transfer, in place of what it learnt since.
    let first = parent.join("adapters/evaluate/g1");
    let weights = folder.path().join("weights");
    let exchange = format!("evaluate={}", first.display());
    succeeded(&fork(&parent, tick, &weights, &["--adapter", &exchange]));
    let (_, differs) = common(&whole, &log(&weights));
    assert!(differs > tick, "{differs} comes after {tick}");
    let next = format!("adapters/evaluate/g{}/adapter_model.safetensors", generation + 1);
    let given = fs::read(first.join("adapter_model.safetensors")).unwrap();
    assert!(fs::read(weights.join(next)).unwrap() == given, "they are its next generation");
    let after = events(&log(&weights)).into_iter().find_map(|event| match event.kind {
        EventKind::MessageDelivered { from, generation, .. }
            if event.tick > tick && from.as_str() == "evaluate" =>
        {
            Some(generation.0)
        }
        _ => None,
    });
    assert_eq!(after, Some(generation + 1), "it speaks with them");
    let manifest = fs::read_to_string(weights.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["fork"]["adapters"][0]["agent"], "evaluate");

    let narrow = folder.path().join("narrow");
    succeeded(&fork(&parent, tick, &narrow, &["--set", "channel.text.max_tokens=2"]));
    let longest = |wanted: &dyn Fn(u64) -> bool| {
        let tokens = events(&log(&narrow)).into_iter().filter_map(|event| match event.kind {
            EventKind::MessageDelivered { tokens, .. } if wanted(event.tick) => Some(tokens),
            _ => None,
        });
        tokens.max()
    };
    assert!(longest(&|at| at <= tick) > Some(2));
    assert_eq!(longest(&|at| at > tick), Some(2), "from there on messages are cut");
    let (_, differs) = common(&whole, &log(&narrow));
    assert!(differs > tick, "{differs} comes after {tick}");
}

/// A society in a ring, forked with one edge less.
#[test]
fn a_fork_goes_on_in_another_topology() {
    const AT: u64 = 6;
    let folder = tempfile::tempdir().unwrap();
    let (parent, cut) = (folder.path().join("parent"), folder.path().join("cut"));
    let pairs = |pairs: &[(u32, u32)]| {
        let pair = |(a, b): &(u32, u32)| format!("[\"citizen-{a}\", \"citizen-{b}\"]");
        let pairs: Vec<String> = pairs.iter().map(pair).collect();
        format!("topology={{ edges = {{ pairs = [{}] }} }}", pairs.join(", "))
    };
    let ring = pairs(&[(1, 2), (2, 3), (3, 4), (4, 1)]);
    let out = parent.display().to_string();
    let small = ["agents.citizen.copies=4", "episodes=20", "protocol.gossip.rounds=10", &ring];
    let mut arguments = vec!["run", "scenarios/opinions", "--display", "none", "--out", &out];
    arguments.extend(small.iter().flat_map(|set| ["--set", set]));
    succeeded(&polylogue(&arguments));
    succeeded(&fork(&parent, AT, &cut, &["--set", &pairs(&[(1, 2), (2, 3), (3, 4)])]));
    let (_, differs) = common(&log(&parent), &log(&cut));
    assert!(differs > AT, "{differs} comes after {AT}");
    // How often the first and the last talked to each other, up to the fork and after it.
    let across = |directory: &Path| {
        let (mut before, mut after) = (0, 0);
        for event in events(&log(directory)) {
            let EventKind::MessageDelivered { from, to, .. } = event.kind else { continue };
            let both = |a, b| from.as_str() == a && to.iter().any(|name| name.as_str() == b);
            if both("citizen-1", "citizen-4") || both("citizen-4", "citizen-1") {
                *(if event.tick <= AT { &mut before } else { &mut after }) += 1;
            }
        }
        (before, after)
    };
    let (whole, forked) = (across(&parent), across(&cut));
    assert!(whole.0 > 0 && whole.1 > 0, "{whole:?}");
    assert_eq!(forked, (whole.0, 0));
}

#[test]
fn what_a_fork_cannot_change_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let parent = folder.path().join("parent");
    run(&parent);
    for (number, (more, told)) in [
        (["--set", "task.support.holdout_limit=3"], "cannot change the task"),
        (["--set", "episodes=0"], "episodes"),
        (["--set", "agents.reply.transfer.lora.rank=2"], "cannot change which agents there are"),
        (["--adapter", "reply=nowhere"], "the weights of reply"),
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
