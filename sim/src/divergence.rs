//! Where two logs part: what was still equal, both versions of what was not, and which fields differ.

use std::collections::VecDeque;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// Fields that are listed at most.
const MOST_CHANGES: usize = 32;

/// Characters of a value that are shown.
const LONGEST: usize = 300;

/// The first place where two logs differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// Number of the event.
    pub seq: u64,
    /// Its tick, in the first log where it has one.
    pub tick: u64,
    /// Lines that were equal before it, the last ones.
    pub before: Vec<String>,
    /// The line in the first log; none where that had ended.
    pub first: Option<String>,
    /// The line in the second log; none where that had ended.
    pub second: Option<String>,
    /// In which fields the two differ.
    pub changes: Vec<Change>,
}

impl Divergence {
    /// Two lines at the same place; at least one of them is there.
    #[must_use]
    pub fn new(before: &Context, first: Option<&str>, second: Option<&str>) -> Self {
        let parsed = |line: Option<&str>| -> Value {
            line.and_then(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null)
        };
        let (one, other) = (parsed(first), parsed(second));
        let place = if first.is_some() { &one } else { &other };
        let number = |name: &str| place.get(name).and_then(Value::as_u64).unwrap_or_default();
        let changes = match (first, second) {
            (Some(_), Some(_)) => changes(&one, &other),
            _ => Vec::new(),
        };
        Self {
            seq: number("seq"),
            tick: number("tick"),
            before: before.0.iter().cloned().collect(),
            first: first.map(str::to_owned),
            second: second.map(str::to_owned),
            changes,
        }
    }
}

/// The last lines that were equal.
#[derive(Clone, Debug, Default)]
pub struct Context(VecDeque<String>);

impl Context {
    /// Takes a line in and forgets the oldest of more than `keep`.
    pub fn push(&mut self, line: &str, keep: usize) {
        self.0.push_back(line.to_owned());
        while self.0.len() > keep {
            self.0.pop_front();
        }
    }
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its keys with dots between them.
    pub place: String,
    /// The first value as JSON; none where there is no such field.
    pub first: Option<String>,
    /// The second.
    pub second: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| match value {
            None => "nothing".to_owned(),
            Some(value) => match value.char_indices().nth(LONGEST) {
                Some((end, _)) => format!("{}…", &value[..end]),
                None => value.clone(),
            },
        };
        write!(f, "{}: {} is now {}", self.place, shown(&self.first), shown(&self.second))
    }
}

/// The fields in which two values differ, the first thirty-two.
#[must_use]
pub fn changes(first: &Value, second: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare("", Some(first), Some(second), &mut found);
    found
}

fn compare(place: &str, first: Option<&Value>, second: Option<&Value>, found: &mut Vec<Change>) {
    if first == second || found.len() >= MOST_CHANGES {
        return;
    }
    let below =
        |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    match (first, second) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            for (key, value) in one {
                compare(&below(key), Some(value), other.get(key), found);
            }
            for (key, value) in other.iter().filter(|(key, _)| !one.contains_key(*key)) {
                compare(&below(key), None, Some(value), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for index in 0..one.len().max(other.len()) {
                compare(&below(&index.to_string()), one.get(index), other.get(index), found);
            }
        }
        _ => found.push(Change {
            place: place.to_owned(),
            first: first.map(Value::to_string),
            second: second.map(Value::to_string),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(first: &str, second: &str) -> Vec<String> {
        let parse = |text| serde_json::from_str(text).unwrap();
        changes(&parse(first), &parse(second)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_differs_is_named() {
        let first = r#"{"a":1,"b":{"c":"x","d":[1,2]},"e":null}"#;
        assert!(told(first, first).is_empty());
        let second = r#"{"a":1,"b":{"c":"y","d":[1,3,4]},"f":true}"#;
        let expected = [
            r#"b.c: "x" is now "y""#,
            "b.d.1: 2 is now 3",
            "b.d.2: nothing is now 4",
            "e: null is now nothing",
            "f: nothing is now true",
        ];
        assert_eq!(told(first, second), expected);
        assert_eq!(told("1", "{}"), [": 1 is now {}"]);
    }

    #[test]
    fn huge_differences_are_cut() {
        let many = |value: u32| {
            let fields: Vec<String> = (0..100).map(|i| format!("\"k{i}\":{value}")).collect();
            format!("{{{}}}", fields.join(","))
        };
        assert_eq!(told(&many(1), &many(2)).len(), MOST_CHANGES);
        let long = format!("\"{}\"", "é".repeat(1_000));
        assert!(told(&long, "1")[0].chars().count() < LONGEST + 30);
    }

    #[test]
    fn a_divergence_knows_its_place_and_what_was_before() {
        let mut context = Context::default();
        for line in ["a", "b", "c"] {
            context.push(line, 2);
        }
        let line = r#"{"seq":3,"tick":2,"event":{"danced":{}}}"#;
        let found = Divergence::new(&context, None, Some(line));
        assert_eq!((found.seq, found.tick), (3, 2));
        assert_eq!(found.before, ["b", "c"]);
        assert!(found.changes.is_empty());
    }
}
