//! What waits for an agent to read it: in order, bounded, and with room set aside for each speaker.
//!
//! A speaker has so many credits with each listener: unread messages that it may have there. A message takes
//! one, reading gives it back, and without any the message is refused. So one who talks without end fills
//! nobody's mailbox but its own share, and a mailbox never holds more than its speakers have credits.
//!
//! Messages of one speaker are read in the order in which they were sent, however long each was on its way.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::topology::Seat;

/// An agent's unread messages within an episode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    letters: VecDeque<Letter>,
    speakers: BTreeMap<Seat, Speaker>,
}

/// A message on its way or unread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Letter {
    from: Seat,
    /// The turn at which it was said.
    turn: u32,
    /// The tick from which on it can be read.
    due: u64,
}

/// What is unread of one speaker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Speaker {
    unread: u32,
    /// When the last of them arrives.
    last: u64,
}

impl Mailbox {
    /// Takes a message of `from` that arrives at tick `due`; false where `from` has no credit left.
    pub fn put(&mut self, from: Seat, turn: u32, due: u64, credits: u32) -> bool {
        let speaker = self.speakers.entry(from).or_default();
        if speaker.unread >= credits {
            return false;
        }
        speaker.unread += 1;
        speaker.last = speaker.last.max(due);
        self.letters.push_back(Letter { from, turn, due: speaker.last });
        true
    }

    /// The turns that have arrived by a tick, in the order in which they were said; they are read now.
    pub fn read(&mut self, tick: u64) -> Vec<u32> {
        if self.letters.iter().all(|letter| letter.due <= tick) {
            self.speakers.clear();
            return self.letters.drain(..).map(|letter| letter.turn).collect();
        }
        let mut read = Vec::new();
        let speakers = &mut self.speakers;
        self.letters.retain(|letter| {
            let stays = letter.due > tick;
            if !stays {
                read.push(letter.turn);
                if let Some(speaker) = speakers.get_mut(&letter.from) {
                    speaker.unread -= 1;
                }
            }
            stays
        });
        read
    }

    /// Whether something is still on its way after a tick.
    #[must_use]
    pub fn expects(&self, tick: u64) -> bool {
        self.letters.iter().any(|letter| letter.due > tick)
    }

    /// How many messages are unread.
    #[must_use]
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// Whether nothing is unread.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_speaker_has_its_own_credits_and_gets_them_back() {
        let mut mailbox = Mailbox::default();
        assert!(mailbox.put(0, 0, 1, 2));
        assert!(mailbox.put(0, 1, 1, 2));
        assert!(!mailbox.put(0, 2, 1, 2), "no credit is left");
        assert!(mailbox.put(1, 3, 1, 2), "another one has its own");
        assert_eq!(mailbox.read(1), [0, 1, 3]);
        assert!(mailbox.is_empty());
        assert!(mailbox.put(0, 4, 2, 2));
    }

    #[test]
    fn what_is_late_holds_up_what_the_same_speaker_said_after_it_and_nobody_else() {
        let mut mailbox = Mailbox::default();
        mailbox.put(0, 0, 5, 9);
        mailbox.put(0, 1, 2, 9);
        mailbox.put(1, 2, 2, 9);
        assert_eq!(mailbox.read(2), [2]);
        assert!(mailbox.expects(2));
        assert_eq!(mailbox.read(4), [0_u32; 0]);
        assert_eq!(mailbox.read(5), [0, 1]);
        assert!(!mailbox.expects(5));
    }

    #[test]
    fn reading_a_part_gives_back_its_credits_only() {
        let mut mailbox = Mailbox::default();
        assert!(mailbox.put(0, 0, 1, 2) && mailbox.put(0, 1, 9, 2));
        assert_eq!(mailbox.read(1), [0]);
        assert!(mailbox.put(0, 2, 2, 2));
        assert!(!mailbox.put(0, 3, 2, 2));
        assert_eq!(mailbox.read(9), [1, 2]);
    }
}
