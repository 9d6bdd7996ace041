//! The travel data: large and varied enough, every item consistent, nothing of the holdout in the training
//! file.

use std::collections::{BTreeMap, BTreeSet};

use polylogue_tests::root;
use serde_json::Value;

/// Two messages whose sets of three-letter sequences overlap this much are near-duplicates.
const NEAR: f64 = 0.5;

fn rows(name: &str) -> Vec<Value> {
    let path = root().join("scenarios/customer_service").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap()
}

fn triples(text: &str) -> BTreeSet<[char; 3]> {
    let letters: Vec<char> =
        text.to_lowercase().chars().filter(|c| c.is_alphanumeric() || c.is_whitespace()).collect();
    letters.windows(3).map(|w| [w[0], w[1], w[2]]).collect()
}

fn overlap(a: &BTreeSet<[char; 3]>, b: &BTreeSet<[char; 3]>) -> f64 {
    let both = a.intersection(b).count() as f64;
    both / (a.len() as f64 + b.len() as f64 - both)
}

#[test]
fn there_are_enough_intents_and_distinct_messages() {
    let all: Vec<Value> = [rows("travel.jsonl"), rows("travel-holdout.jsonl")].concat();
    let distinct: BTreeSet<&str> = all.iter().map(|row| text(row, "text")).collect();
    assert_eq!(distinct.len(), all.len(), "no message twice");
    assert!(all.len() >= 1_200);
    let mut by_intent: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &all {
        *by_intent.entry(text(row, "intent")).or_default() += 1;
    }
    assert!(by_intent.len() >= 24);
    assert!(by_intent.values().all(|&count| count >= 40), "{by_intent:?}");
}

#[test]
fn every_item_is_consistent() {
    for row in [rows("travel.jsonl"), rows("travel-holdout.jsonl")].concat() {
        let (message, reply) = (text(&row, "text"), text(&row, "reply").to_lowercase());
        for slot in row["slots"].as_object().unwrap().values() {
            assert!(message.contains(slot.as_str().unwrap()), "{slot} in {message}");
        }
        let groups = row["must"].as_array().unwrap();
        assert!(groups.len() >= 2);
        for group in groups {
            let satisfied = group
                .as_array()
                .unwrap()
                .iter()
                .any(|one| reply.contains(&one.as_str().unwrap().to_lowercase()));
            assert!(satisfied, "{group} in {reply}");
        }
    }
}

#[test]
fn nothing_of_the_holdout_is_nearly_in_the_training_file() {
    let train: Vec<_> = rows("travel.jsonl").iter().map(|row| triples(text(row, "text"))).collect();
    for row in rows("travel-holdout.jsonl") {
        let own = triples(text(&row, "text"));
        let nearest = train.iter().map(|other| overlap(&own, other)).fold(0.0, f64::max);
        assert!(nearest < NEAR, "{nearest:.2} {}", text(&row, "text"));
    }
}
