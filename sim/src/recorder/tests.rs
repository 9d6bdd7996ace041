//! Logs that are begun and gone on with.

use std::fs;

use super::*;
use crate::durable::tests::synced;
use crate::event::EventKind;

fn event(seq: u64) -> Event {
    let agent = "a".to_owned().try_into().unwrap();
    Event { seq, tick: seq, kind: EventKind::AgentFailed { agent, reason: "x".into() } }
}

/// A log of five ticks, and how far it was after the third.
fn played(directory: &Path) -> LogEnd {
    let mut recorder = Recorder::create(Claim::of_new(directory).unwrap()).unwrap();
    let mut end = None;
    for seq in 0..5 {
        recorder.record(&event(seq)).unwrap();
        let work = recorder.work(seq, &Usage::default());
        recorder.end_tick(&work).unwrap();
        if seq == 2 {
            end = Some(recorder.commit().unwrap());
        }
    }
    end.unwrap()
}

#[test]
fn the_names_of_logs_are_handed_to_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("runs/one");
    synced();
    let claim = Claim::of_new(&run).unwrap();
    assert_eq!(synced(), [folder.path().to_owned(), folder.path().join("runs")]);
    let mut recorder = Recorder::create(claim).unwrap();
    assert_eq!(synced(), std::slice::from_ref(&run));
    let end = recorder.commit().unwrap();
    drop(recorder);
    fs::remove_file(run.join(TIMES)).unwrap();
    Recorder::reopen(Claim::of(&run).unwrap(), &end).unwrap();
    assert_eq!(synced(), [run]);
}

#[test]
fn times_are_gone_on_with_as_far_as_they_are_there() {
    for (left, kept) in [(None, 0), (Some(0), 0), (Some(20), 0), (Some(40), 1)] {
        let folder = tempfile::tempdir().unwrap();
        let end = played(folder.path());
        let path = folder.path().join(TIMES);
        let times = fs::read_to_string(&path).unwrap();
        match left {
            None => fs::remove_file(&path).unwrap(),
            Some(bytes) => fs::write(&path, &times[..bytes]).unwrap(),
        }
        let mut recorder = Recorder::reopen(Claim::of(folder.path()).unwrap(), &end).unwrap();
        recorder.record(&event(3)).unwrap();
        let work = recorder.work(3, &Usage::default());
        recorder.end_tick(&work).unwrap();
        let now = fs::read_to_string(&path).unwrap();
        let ticks = now.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["tick"].as_u64().unwrap()
        });
        assert_eq!(ticks.collect::<Vec<_>>(), [[0, 3].as_slice(), &[3]][1 - kept], "{now}");
        assert_eq!(fs::read_to_string(folder.path().join(LOG)).unwrap().lines().count(), 5);
    }
}

#[test]
fn nothing_is_cut_off_a_log_that_is_not_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let end = played(folder.path());
    let path = folder.path().join(LOG);
    let changed = fs::read_to_string(&path).unwrap().replacen("agent_failed", "agent_fbiled", 1);
    fs::write(&path, &changed).unwrap();
    let error = Recorder::reopen(Claim::of(folder.path()).unwrap(), &end).unwrap_err();
    assert!(error.to_string().contains("not what it was"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), changed);
}
