//! Recordings as they are written, cut off, damaged, and from the future.

use std::io::Write as _;

use super::*;
use crate::recorder::{Claim, Recorder};
use crate::work::TickWork;

const HEADER: &str = "{\"format\":\"polylogue-events/1.1\"}\n";
/// An event of every kind.
const EVERY_KIND: &str = include_str!("../../../fuzz/corpus/recording/every_kind");
/// The kinds that each minor version of the format brought; what is listed here never changes.
const BROUGHT: [&[&str]; 2] = [
    &[
        "run_started",
        "phase_started",
        "transfer_finished",
        "episode_started",
        "message_delivered",
        "episode_finished",
        "trigger_fired",
        "training_started",
        "training_stepped",
        "generation_published",
        "training_rolled_back",
        "agent_failed",
        "agent_restarted",
        "holdout_scored",
        "run_finished",
    ],
    &[
        "fault_injected",
        "agent_quarantined",
        "reply_rejected",
        "turn_skipped",
        "engine_failed",
        "engine_restarted",
        "trainer_failed",
        "trainer_restarted",
        "recording_paused",
        "recording_resumed",
        "society_restarted",
        "talk_finished",
        "agent_silenced",
    ],
];

fn line(seq: u64, tick: u64) -> String {
    format!(
        "{{\"seq\":{seq},\"tick\":{tick},\"event\":{{\"agent_failed\":{{\"agent\":\"a\",\"reason\":\"é\"}}}}}}\n"
    )
}

/// All events of a log and its torn line, or the message of the error.
fn read(log: &str) -> Result<(Vec<u64>, Option<Torn>), String> {
    let mut recording =
        Recording::new(log.as_bytes(), Path::new("log")).map_err(|e| e.to_string())?;
    let mut seqs = Vec::new();
    while let Some(recorded) = recording.read().map_err(|e| e.to_string())? {
        seqs.push(recorded.event.seq);
    }
    assert!(recording.read().unwrap().is_none(), "the end stays the end");
    Ok((seqs, recording.torn()))
}

fn refused(log: &str, parts: &[&str]) {
    let error = read(log).unwrap_err();
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn what_was_written_is_read_and_every_cut_only_loses_the_end() {
    let log = format!("{HEADER}{}{}{}", line(0, 0), line(1, 0), line(2, 5));
    assert_eq!(read(&log).unwrap(), (vec![0, 1, 2], None));
    let ends: Vec<usize> =
        log.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i).collect();
    for cut in HEADER.len()..log.len() {
        // A letter may be cut in half too.
        let mut recording = Recording::new(&log.as_bytes()[..cut], Path::new("log")).unwrap();
        let events = recording.by_ref().map(Result::unwrap).count();
        // An event that lacks only its line end is whole.
        assert_eq!(events, ends[1..].iter().filter(|end| **end <= cut).count(), "cut at {cut}");
        let rest = cut - ends.iter().filter(|end| **end < cut).max().map_or(0, |end| end + 1);
        let torn = rest > 0 && !ends.contains(&cut);
        assert_eq!(recording.torn().map(|torn| torn.bytes), torn.then_some(rest), "cut at {cut}");
    }
}

#[test]
fn damage_is_refused_with_its_line() {
    let (first, second) = (line(0, 0), line(1, 0));
    refused(&format!("{HEADER}{first}{}\n{}", "{\"seq\":1", line(2, 0)), &["log, line 3"]);
    refused(&format!("{HEADER}{first}\n{second}"), &["line 3"]);
    // A whole last line was never cut off.
    refused(&format!("{HEADER}{first}\u{0}\u{0}\n"), &["line 3"]);
    refused(
        &format!("{HEADER}{first}{}", line(2, 0)),
        &["line 3", "event 2 stands where 1 should"],
    );
    refused(&format!("{HEADER}{first}{first}"), &["line 3", "event 0"]);
    refused(&format!("{HEADER}{}{}", line(0, 4), line(1, 3)), &["tick 3 comes after tick 4"]);
    let unknown = "{\"seq\":0,\"tick\":0,\"event\":{\"danced\":{}}}\n";
    refused(&format!("{HEADER}{unknown}"), &["line 2", "danced"]);
    refused(&format!("{HEADER}\"{}", "x".repeat(LONGEST_LINE)), &["line 2", "longer than"]);
}

#[test]
fn versions_are_told_apart() {
    refused("", &["no events"]);
    refused("{\"format\":\"polylogue-ev", &["no events"]);
    refused("hello\n", &["no recording", "polylogue-events/1"]);
    refused("{\"format\":\"other/1\"}\n", &["no recording"]);
    refused("{\"format\":\"polylogue-events/+1\"}\n", &["no recording"]);
    refused(
        "{\"format\":\"polylogue-events/2.3\"}\n",
        &["polylogue-events/2.3", "reads polylogue-events/1.1:", "manifest.json"],
    );
    // A newer minor version has more kinds; they keep their place.
    let newer = "{\"format\":\"polylogue-events/1.7\",\"more\":1}\n";
    let unknown = "{\"seq\":1,\"tick\":2,\"event\":{\"danced\":{}}}\n";
    let log = format!("{newer}{}{unknown}{}", line(0, 0), line(2, 2));
    assert_eq!(read(&log).unwrap().0, [0, 2]);
    refused(&format!("{newer}{}{}", line(0, 0), unknown.replace(":1,", ":3,")), &["line 3"]);
}

#[test]
fn a_compressed_log_reads_the_same_cut_off_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(Claim::of(folder.path()).unwrap()).unwrap();
    let mut events = Vec::new();
    for seq in 0..2_000 {
        let text = line(seq, seq / 3);
        let event: Event = serde_json::from_str(&text).unwrap();
        recorder.record(&event).unwrap();
        events.push(Recorded { event, line: text.trim_end().to_owned() });
    }
    recorder.end_tick(&TickWork { tick: 666, ..TickWork::default() }).unwrap();
    let all = |folder: &Path| open(folder).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(all(folder.path()), events);
    let plain = std::fs::read(folder.path().join(LOG)).unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).unwrap();
    let packed = packed.finish().unwrap();
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join(COMPRESSED), &packed).unwrap();
    assert_eq!(all(other.path()), events);
    let survey = survey(other.path()).unwrap();
    assert_eq!((survey.events, survey.last_tick, survey.finished), (2_000, 666, false));
    std::fs::write(other.path().join(COMPRESSED), &packed[..packed.len() / 2]).unwrap();
    let kept = all(other.path());
    assert!(!kept.is_empty() && kept.len() < events.len());
    assert_eq!(kept, events[..kept.len()]);
}

#[test]
fn a_folder_without_a_log_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("holds no events.jsonl"), "{error}");
    std::fs::create_dir(folder.path().join(LOG)).unwrap();
    assert!(matches!(open(folder.path()), Err(RecordingError::NoLog { .. })));
}

/// Scores are not numbers where there was nothing to score; JSON writes those as null.
#[test]
fn a_number_that_is_none_is_read_back() {
    let text = "{\"seq\":0,\"tick\":0,\"event\":{\"holdout_scored\":{\"phase\":\"before\",\"scores\":\
        {\"items\":0,\"intent_accuracy\":0.5,\"resolved_rate\":0.0,\"evaluator_auc\":null}}}}";
    let event: Event = serde_json::from_str(text).unwrap();
    let EventKind::HoldoutScored { scores, .. } = &event.kind else { panic!() };
    assert!(scores.evaluator_auc.is_nan());
    assert_eq!(serde_json::to_string(&event).unwrap(), text);
}

/// The kind in a line of a log.
fn kind(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["event"].as_object().unwrap().keys().next().unwrap().clone()
}

/// A kind that is not listed needs a new minor version: one more list, `Version::OURS`, `FORMAT` and the table
/// in `docs/recording.md`.
#[test]
fn every_kind_came_with_a_version() {
    assert_eq!(Version::OURS.to_string(), crate::recorder::FORMAT);
    assert_eq!(Version::OURS.minor as usize + 1, BROUGHT.len());
    let unknown = "{\"seq\":0,\"tick\":0,\"event\":{\"danced\":{}}}";
    let told = serde_json::from_str::<Event>(unknown).unwrap_err().to_string();
    let (_, known) = told.split_once("expected one of ").unwrap();
    let mut known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    let mut listed = BROUGHT.concat();
    known.sort_unstable();
    listed.sort_unstable();
    assert_eq!(known, listed);
    let mut shown: Vec<String> = EVERY_KIND.lines().skip(1).map(kind).collect();
    shown.sort_unstable();
    assert_eq!(shown, listed);
    assert_eq!(read(EVERY_KIND).unwrap().0.len(), listed.len());
}

#[test]
fn logs_of_every_minor_version_are_read() {
    for minor in 0..BROUGHT.len() {
        let kinds = BROUGHT[..=minor].concat();
        let format = Version { major: 1, minor: minor as u32 };
        let mut log = format!("{{\"format\":\"{format}\"}}\n");
        let lines = EVERY_KIND.lines().skip(1).filter(|line| kinds.contains(&kind(line).as_str()));
        for (seq, line) in lines.enumerate() {
            let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["seq"] = seq.into();
            log.extend([event.to_string().as_str(), "\n"]);
        }
        // Messages have no `heard` there, as before 1.1.
        assert_eq!(read(&log).unwrap().0.len(), kinds.len(), "1.{minor}");
    }
}
