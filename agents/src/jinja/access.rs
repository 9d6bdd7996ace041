//! Looking into values: members, items, slices and what they hold.

use super::meter::{Meter, STEP};
use super::value::Value;
use super::{Fault, Result};

impl Meter {
    /// What a loop over a value goes through: items, keys or letters.
    pub(super) fn items(&mut self, value: &Value) -> Result<Vec<Value>> {
        match value {
            Value::Undefined => Ok(Vec::new()),
            Value::List(list) => {
                self.pay(STEP * list.items.len())?;
                Ok(list.items.clone())
            }
            Value::Map(map) => {
                self.pay(STEP * map.entries.len())?;
                Ok(map.entries.iter().map(|(key, _)| key.clone()).collect())
            }
            Value::Text(text) => {
                let mut buffer = [0; 4];
                text.chars().map(|letter| self.text(letter.encode_utf8(&mut buffer))).collect()
            }
            other => Err(Fault::new(format!("{} cannot be gone through", other.kind()))),
        }
    }

    /// The pairs of a map.
    pub(super) fn pairs(&mut self, value: &Value) -> Result<Vec<Value>> {
        match value {
            Value::Undefined => Ok(Vec::new()),
            Value::Map(map) => map
                .entries
                .iter()
                .map(|(key, value)| {
                    self.pay(STEP)?;
                    self.list(vec![key.clone(), value.clone()], true)
                })
                .collect(),
            other => Err(Fault::new(format!("{} has no pairs, only a map has", other.kind()))),
        }
    }

    /// A member by its name.
    pub(super) fn member(&mut self, value: &Value, name: &str) -> Result<Value> {
        match value {
            Value::Undefined => {
                Err(Fault::new(format!("an undefined value is asked for its `{name}`")))
            }
            Value::Map(map) => {
                self.pay(STEP * map.entries.len() + name.len())?;
                let is = |key: &Value| matches!(key, Value::Text(key) if **key == *name);
                let found = map.entries.iter().find(|(key, _)| is(key));
                Ok(found.map_or(Value::Undefined, |(_, value)| value.clone()))
            }
            _ => Ok(Value::Undefined),
        }
    }

    /// An item by its index or key.
    pub(super) fn item(&mut self, value: &Value, index: &Value) -> Result<Value> {
        match (value, index.whole()) {
            (Value::Map(map), _) => Ok(map.get(index, self)?.cloned().unwrap_or(Value::Undefined)),
            (Value::List(list), Some(index)) => {
                let found = place(index, list.items.len()).and_then(|at| list.items.get(at));
                Ok(found.cloned().unwrap_or(Value::Undefined))
            }
            (Value::Text(text), Some(index)) => {
                self.pay(text.len())?;
                let at = place(index, text.chars().count());
                match at.and_then(|at| text.chars().nth(at)) {
                    Some(letter) => self.text(letter.encode_utf8(&mut [0; 4])),
                    None => Ok(Value::Undefined),
                }
            }
            (Value::Undefined, _) => Err(Fault::new("an undefined value is asked for an item")),
            _ => Ok(Value::Undefined),
        }
    }

    /// A slice with start, end and step, as Python cuts it.
    pub(super) fn slice(&mut self, value: &Value, ends: [Option<i64>; 3]) -> Result<Value> {
        match value {
            Value::List(list) => {
                self.pay(STEP * list.items.len())?;
                let items = places(ends, list.items.len())?.into_iter();
                self.list(items.map(|at| list.items[at].clone()).collect(), list.tuple)
            }
            Value::Text(text) => {
                self.pay(STEP * text.len())?;
                let letters: Vec<char> = text.chars().collect();
                let places = places(ends, letters.len())?;
                self.text(&places.into_iter().map(|at| letters[at]).collect::<String>())
            }
            Value::Undefined => Err(Fault::new("an undefined value is cut into slices")),
            other => Err(Fault::new(format!("{} has no slices", other.kind()))),
        }
    }

    /// Whether a value holds another: an item, a key or a part of a text.
    pub(super) fn contains(&mut self, value: &Value, item: &Value) -> Result<bool> {
        match (value, item) {
            (Value::Undefined, _) => Ok(false),
            (Value::List(list), _) => {
                for other in &list.items {
                    if other.equals(item, self)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Value::Map(map), _) => Ok(map.get(item, self)?.is_some()),
            (Value::Text(text), Value::Text(part)) => {
                self.pay(text.len() + part.len())?;
                Ok(text.contains(&**part))
            }
            _ => Err(Fault::new(format!("{} holds no {}", value.kind(), item.kind()))),
        }
    }
}

/// Where an index points to; negative ones count from the end.
fn place(index: i64, length: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(length as i64)? } else { index };
    usize::try_from(index).ok()
}

/// The places that a slice takes.
fn places([start, end, step]: [Option<i64>; 3], length: usize) -> Result<Vec<usize>> {
    let (length, step) = (length as i64, step.unwrap_or(1));
    if step == 0 {
        return Err(Fault::new("a slice whose step is zero"));
    }
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let limit = |at: i64| {
        let at = if at < 0 { at.saturating_add(length) } else { at };
        at.clamp(low, high)
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (mut at, end) = (start.map_or(first, limit), end.map_or(last, limit));
    let mut places = Vec::new();
    while if step > 0 { at < end } else { at > end } {
        places.extend(usize::try_from(at));
        at = at.saturating_add(step);
    }
    Ok(places)
}
