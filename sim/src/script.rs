//! Agents without a model: what they say follows from a rule, from what they heard and from the seed.
//!
//! They stand in for models where a protocol, a topology or a channel is the question: thousands of them cost
//! nothing. A script has no memory of its own: what it must know, it is told with its turn.

use std::collections::BTreeMap;

use agents::seed::Seed;
use rand::Rng;

use crate::agent::Turn;
use crate::event::Said;

/// The rule of a scripted agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// Says again what it heard last; what the episode began with where it heard nothing.
    Echo,
    /// Always says the same.
    Fixed {
        /// Its words.
        text: String,
    },
    /// Has an answer to each thing that it may hear last.
    Table {
        /// What it hears, and what it answers.
        answers: BTreeMap<String, String>,
        /// What it says to everything else.
        otherwise: String,
    },
    /// Says random words.
    RandomWords {
        /// The words it knows.
        words: Vec<String>,
        /// How many it says.
        length: usize,
    },
    /// The voter model (Clifford and Sudbury 1973; Holley and Liggett 1975): takes over a random one of the
    /// opinions that it hears.
    Voter {
        /// The opinions; it begins with a random one.
        among: Vec<String>,
    },
    /// Majority rule (Galam 2002): takes over the commonest of its own opinion and those it hears, the first
    /// in the alphabet where several are.
    Majority {
        /// The opinions; it begins with a random one.
        among: Vec<String>,
    },
}

impl Script {
    /// The rule's name in scenarios.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Fixed { .. } => "fixed",
            Self::Table { .. } => "table",
            Self::RandomWords { .. } => "random_words",
            Self::Voter { .. } => "voter",
            Self::Majority { .. } => "majority",
        }
    }

    /// What it says on a turn; `seed` is the agent's.
    #[must_use]
    pub fn say(&self, turn: &Turn, seed: Seed) -> Said {
        let stream = || seed.index(turn.episode).index(u64::from(turn.turn)).stream();
        let heard = || turn.heard.iter().filter_map(|spoken| words(spoken));
        let last = || heard().next_back().unwrap_or(&turn.query);
        let text = match self {
            Self::Echo => last().to_owned(),
            Self::Fixed { text } => text.clone(),
            Self::Table { answers, otherwise } => answers.get(last()).unwrap_or(otherwise).clone(),
            Self::RandomWords { words, length } => {
                let mut stream = stream();
                let said = (0..*length).filter_map(|_| drawn(words, &mut stream));
                said.collect::<Vec<_>>().join(" ")
            }
            Self::Voter { among } => {
                let heard: Vec<&str> = heard().collect();
                let own = turn.own.as_deref().and_then(words);
                match (heard.as_slice(), own) {
                    ([], Some(own)) => own.to_owned(),
                    ([], None) => first(among, &mut stream()),
                    (heard, _) => drawn(heard, &mut stream()).unwrap_or_default().into(),
                }
            }
            Self::Majority { among } => {
                let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
                for word in heard().chain(turn.own.as_deref().and_then(words)) {
                    *counts.entry(word).or_default() += 1;
                }
                let most = counts.values().max();
                let commonest = counts.iter().find(|(_, count)| Some(*count) == most);
                commonest
                    .map_or_else(|| first(among, &mut stream()), |(word, _)| (*word).to_owned())
            }
        };
        Said::Text { text }
    }
}

fn words(said: &Said) -> Option<&str> {
    match said {
        Said::Text { text } => Some(text),
        Said::Label { label, .. } => Some(label),
        Said::Verdict { .. } => None,
    }
}

/// The opinion that an agent begins with.
fn first(among: &[String], stream: &mut impl Rng) -> String {
    drawn(among, stream).unwrap_or_default().into()
}

fn drawn<'w, T: AsRef<str>>(words: &'w [T], stream: &mut impl Rng) -> Option<&'w str> {
    if words.is_empty() {
        return None;
    }
    words.get(stream.random_range(0..words.len())).map(AsRef::as_ref)
}

#[cfg(test)]
mod tests {
    use agents::prompt::provenance::Origin;

    use super::*;
    use crate::event::Spoken;

    fn text(text: &str) -> Spoken {
        Spoken::new(Origin::Task, Said::Text { text: text.to_owned() })
    }

    fn say(script: &Script, heard: &[&str], own: Option<&str>, seed: u64) -> String {
        let turn = Turn {
            query: "begin".to_owned(),
            heard: heard.iter().map(|&word| text(word)).collect(),
            own: own.map(text),
            ..Turn::default()
        };
        match script.say(&turn, Seed::new(seed)) {
            Said::Text { text } => text,
            other => panic!("{other:?}"),
        }
    }

    fn all(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn rules_without_chance() {
        assert_eq!(say(&Script::Echo, &[], None, 1), "begin");
        assert_eq!(say(&Script::Echo, &["a", "b"], None, 1), "b");
        assert_eq!(say(&Script::Fixed { text: "x".into() }, &["a"], None, 1), "x");
        let answers = [("ping".to_owned(), "pong".to_owned())].into();
        let table = Script::Table { answers, otherwise: "?".into() };
        assert_eq!(say(&table, &["ping"], None, 1), "pong");
        assert_eq!(say(&table, &["ping", "other"], None, 1), "?");
    }

    #[test]
    fn random_words_follow_from_the_seed() {
        let script = Script::RandomWords { words: all(&["a", "b", "c", "d"]), length: 6 };
        assert_eq!(say(&script, &[], None, 1), say(&script, &["x"], None, 1));
        assert_ne!(say(&script, &[], None, 1), say(&script, &[], None, 2));
        assert_eq!(say(&script, &[], None, 1).split(' ').count(), 6);
    }

    #[test]
    fn opinions_spread() {
        let voter = Script::Voter { among: all(&["red", "blue"]) };
        assert!(["red", "blue"].contains(&say(&voter, &[], None, 3).as_str()));
        assert_eq!(say(&voter, &[], Some("blue"), 3), "blue", "it keeps its opinion");
        let takes = |opinion: &str| {
            (0..64)
                .filter(|seed| say(&voter, &["x", "y", "y"], Some("blue"), *seed) == opinion)
                .count()
        };
        assert_eq!(takes("x") + takes("y"), 64, "only what it heard");
        assert!(takes("x") > 8 && takes("y") > takes("x"));
        let majority = Script::Majority { among: all(&["red", "blue"]) };
        assert_eq!(say(&majority, &["red", "blue", "red"], Some("blue"), 3), "blue", "a tie");
        assert_eq!(say(&majority, &["red", "red"], Some("blue"), 3), "red");
        assert_eq!(say(&majority, &[], Some("red"), 3), "red");
    }
}
