//! Two recordings side by side: where they part, and what that came to.
//!
//! Both are read once, line by line and together. Messages are matched by episode and turn, wherever they
//! stand in the logs.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use agents::backbone::digest::hexadecimal;
use agents::name::AgentName;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::divergence::{Context, Divergence};
use crate::event::{Event, EventKind, Scores};
use crate::recorder::visible;
use crate::recording::{self, Recorded, RecordingError, RecordingFile};
use crate::summary::Summary;

/// Messages that may wait for their counterpart; more of them are taken to have none.
const WAITING: usize = 1 << 20;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    First,
    Second,
}

/// One of the recordings.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Side {
    /// The run directory, as given.
    pub directory: String,
    /// The scenario's name, untrusted.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Events.
    pub events: u64,
    /// The last tick.
    pub last_tick: u64,
    /// Whether the run came to its end, early or not.
    pub finished: bool,
    /// Whether the last line was cut off.
    pub torn: bool,
    /// SHA-256 of the log's events, a line each, in hexadecimal.
    pub sha256: String,
    /// Holdout scores before play.
    pub before: Option<Scores>,
    /// Holdout scores after play.
    pub after: Option<Scores>,
    /// Mean reward of the last episodes of play.
    pub reward_last: Option<f64>,
}

/// The messages of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Messages {
    /// The same words to the same listener in the same turn.
    pub equal: u64,
    /// Other words, or another speaker or listener, in the same turn.
    pub different: u64,
    /// Turns that only the first run has.
    pub only_first: u64,
    /// Turns that only the second run has.
    pub only_second: u64,
}

/// The generations of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Generations {
    /// The same weights.
    pub equal: u32,
    /// Other weights.
    pub different: Vec<u32>,
    /// Published in the first run only.
    pub only_first: Vec<u32>,
    /// Published in the second run only.
    pub only_second: Vec<u32>,
}

/// How two recordings differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// The first recording.
    pub first: Side,
    /// The second recording.
    pub second: Side,
    /// Where they part; none where all events are equal.
    pub divergence: Option<Divergence>,
    /// Messages by speaker.
    pub messages: BTreeMap<AgentName, Messages>,
    /// Generations by agent.
    pub generations: BTreeMap<AgentName, Generations>,
}

/// Compares two recordings; `context` equal events are kept to be shown before the first difference.
///
/// # Errors
/// When one of them cannot be read.
pub fn compare(first: &Path, second: &Path, context: usize) -> Result<Difference, RecordingError> {
    let mut one = Half::open(first)?;
    let mut other = Half::open(second)?;
    let mut recent = Context::default();
    let mut difference = Difference::default();
    let mut matching = Matching::default();
    loop {
        let lines = (one.read()?, other.read()?);
        if difference.divergence.is_none() {
            let lines = (lines.0.as_ref(), lines.1.as_ref());
            match lines.0.or(lines.1) {
                Some(line) if lines.0.map(|l| &l.line) == lines.1.map(|l| &l.line) => {
                    recent.push(&line.line, context);
                }
                Some(_) => {
                    let line = |recorded: Option<&Recorded>| recorded.map(|r| r.line.clone());
                    let (one, other) = (line(lines.0), line(lines.1));
                    let found = Divergence::new(&recent, one.as_deref(), other.as_deref());
                    difference.divergence = Some(found);
                }
                None => {}
            }
        }
        if lines.0.is_none() && lines.1.is_none() {
            break;
        }
        for (which, line) in [(Which::First, lines.0), (Which::Second, lines.1)] {
            if let Some(Recorded { event, .. }) = line {
                matching.take(which, &event, &mut difference.messages);
            }
        }
    }
    (difference.first, difference.second) = (one.side(first), other.side(second));
    difference.generations = matching.end(&mut difference.messages);
    Ok(difference)
}

/// All of a difference as JSON, in which nothing acts on a terminal.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn json(difference: &Difference) -> serde_json::Result<String> {
    visible::json(difference)
}

/// A recording while it is read.
struct Half {
    recording: RecordingFile,
    hash: Sha256,
    summary: Summary,
    side: Side,
}

impl Half {
    fn open(directory: &Path) -> Result<Self, RecordingError> {
        let recording = recording::open(directory)?;
        let (hash, summary, side) = (Sha256::new(), Summary::default(), Side::default());
        Ok(Self { recording, hash, summary, side })
    }

    fn read(&mut self) -> Result<Option<Recorded>, RecordingError> {
        let recorded = self.recording.read()?;
        if let Some(Recorded { event, line }) = &recorded {
            self.hash.update(line);
            self.hash.update("\n");
            self.summary.apply(event);
            (self.side.events, self.side.last_tick) = (event.seq + 1, event.tick);
            self.side.finished = matches!(event.kind, EventKind::RunFinished { .. });
        }
        Ok(recorded)
    }

    fn side(self, directory: &Path) -> Side {
        let Summary { scenario, seed, before, after, reward_last, .. } = self.summary;
        Side {
            directory: directory.display().to_string(),
            scenario,
            seed,
            torn: self.recording.torn().is_some(),
            sha256: hexadecimal(&self.hash.finalize()),
            before,
            after,
            reward_last,
            ..self.side
        }
    }
}

/// Messages and generations that look for their counterparts.
#[derive(Default)]
struct Matching {
    /// By episode and turn: whose, a digest of the message, and who said it.
    waiting: BTreeMap<(u64, u32), (Which, u64, AgentName)>,
    /// Digests of weights in both runs.
    generations: BTreeMap<(AgentName, u32), [Option<String>; 2]>,
}

impl Matching {
    fn take(&mut self, which: Which, event: &Event, all: &mut BTreeMap<AgentName, Messages>) {
        match &event.kind {
            EventKind::MessageDelivered { episode, turn, from, to, said, .. } => {
                let mut hasher = DefaultHasher::new();
                // Numbers have no order of their own, their texts do.
                format!("{from} {to:?} {said:?}").hash(&mut hasher);
                let message = (which, hasher.finish(), from.clone());
                self.message((*episode, *turn), message, all);
            }
            EventKind::GenerationPublished { agent, generation, digest, .. } => {
                let digests = self.generations.entry((agent.clone(), generation.0)).or_default();
                digests[usize::from(which == Which::Second)] = Some(digest.clone());
            }
            _ => {}
        }
    }

    fn message(
        &mut self,
        place: (u64, u32),
        message: (Which, u64, AgentName),
        all: &mut BTreeMap<AgentName, Messages>,
    ) {
        let (which, digest, from) = message;
        match self.waiting.remove(&place) {
            Some((other, found, speaker)) if other != which => {
                let first = if which == Which::First { from } else { speaker };
                let counts = all.entry(first).or_default();
                if found == digest { counts.equal += 1 } else { counts.different += 1 }
            }
            // A turn that comes twice in one run belongs to no other.
            Some(again) => Self::alone(again, all),
            None => {
                self.waiting.insert(place, (which, digest, from));
                if self.waiting.len() > WAITING
                    && let Some((_, oldest)) = self.waiting.pop_first()
                {
                    Self::alone(oldest, all);
                }
            }
        }
    }

    fn alone((which, _, from): (Which, u64, AgentName), all: &mut BTreeMap<AgentName, Messages>) {
        let counts = all.entry(from).or_default();
        match which {
            Which::First => counts.only_first += 1,
            Which::Second => counts.only_second += 1,
        }
    }

    /// Whoever still waits has no counterpart.
    fn end(self, all: &mut BTreeMap<AgentName, Messages>) -> BTreeMap<AgentName, Generations> {
        self.waiting.into_values().for_each(|message| Self::alone(message, all));
        let mut generations: BTreeMap<AgentName, Generations> = BTreeMap::new();
        for ((agent, number), digests) in self.generations {
            let own = generations.entry(agent).or_default();
            match digests {
                [Some(one), Some(other)] if one == other => own.equal += 1,
                [Some(_), Some(_)] => own.different.push(number),
                [Some(_), None] => own.only_first.push(number),
                [None, _] => own.only_second.push(number),
            }
        }
        generations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(folder: &Path, name: &str, kinds: &[String]) -> std::path::PathBuf {
        let directory = folder.join(name);
        std::fs::create_dir(&directory).unwrap();
        let line = |(seq, kind): (usize, &String)| {
            format!("{{\"seq\":{seq},\"tick\":{seq},\"event\":{kind}}}\n")
        };
        let events: String = kinds.iter().enumerate().map(line).collect();
        let log = format!("{{\"format\":\"polylogue-events/1\"}}\n{events}");
        std::fs::write(directory.join("events.jsonl"), log).unwrap();
        directory
    }

    fn message(episode: u64, from: &str, words: &str) -> String {
        format!(
            r#"{{"message_delivered":{{"episode":{episode},"turn":0,"from":"{from}","to":null,"generation":1,"said":{{"text":{{"text":"{words}"}}}},"tokens":1,"cut":0}}}}"#
        )
    }

    fn published(generation: u32, digest: &str) -> String {
        format!(
            r#"{{"generation_published":{{"agent":"b","generation":{generation},"job":0,"digest":"{digest}"}}}}"#
        )
    }

    #[test]
    fn equal_recordings_have_no_difference() {
        let folder = tempfile::tempdir().unwrap();
        let kinds = [message(0, "a", "x"), published(1, "d")];
        let one = recorded(folder.path(), "one", &kinds);
        let found = compare(&one, &recorded(folder.path(), "other", &kinds), 3).unwrap();
        assert_eq!(found.divergence, None);
        let alone = Messages { equal: 1, ..Messages::default() };
        assert_eq!(found.messages.values().copied().collect::<Vec<_>>(), [alone]);
        assert_eq!(found.first.sha256, found.second.sha256);
    }

    #[test]
    fn messages_are_matched_by_turn_and_generations_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let one = [
            message(0, "a", "same"),
            message(1, "a", "mine"),
            message(2, "a", "moved"),
            published(1, "d"),
            published(2, "e"),
            published(3, "f"),
            message(3, "b", "alone"),
        ];
        let other = [
            message(0, "a", "same"),
            message(1, "a", "yours"),
            published(1, "d"),
            published(2, "z"),
            message(2, "a", "moved"),
        ];
        let one = recorded(folder.path(), "one", &one);
        let found = compare(&one, &recorded(folder.path(), "other", &other), 3).unwrap();
        let divergence = found.divergence.unwrap();
        assert_eq!((divergence.seq, divergence.before.len()), (1, 1));
        let change = divergence.changes[0].to_string();
        assert_eq!(change, r#"event.message_delivered.said.text.text: "mine" is now "yours""#);
        let counts: Vec<(String, Messages)> =
            found.messages.into_iter().map(|(name, m)| (name.to_string(), m)).collect();
        let a = Messages { equal: 2, different: 1, ..Messages::default() };
        let b = Messages { only_first: 1, ..Messages::default() };
        assert_eq!(counts, [("a".to_owned(), a), ("b".to_owned(), b)]);
        let generations: Vec<Generations> = found.generations.into_values().collect();
        let only_first = vec![3];
        let expected =
            Generations { equal: 1, different: vec![2], only_first, only_second: vec![] };
        assert_eq!(generations, [expected]);
        assert_eq!((found.first.events, found.second.events), (7, 5));
    }
}
