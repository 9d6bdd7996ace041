//! The budget of a rendering: what is read and made is paid for here, before it is.

use std::rc::Rc;

use super::value::{List, Map, Value};
use super::{Fault, Result};

/// What a rendering may cost: about the bytes that it reads and makes.
const BUDGET: usize = 16 << 20;
/// What a step costs, and a value besides what it holds.
pub(super) const STEP: usize = 16;
/// How deep values may lie in each other.
const DEEPEST: usize = 32;

/// What is left of the budget.
#[derive(Debug)]
pub(super) struct Meter {
    left: usize,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { left: BUDGET }
    }

    /// Pays for something that is about to be done.
    pub(super) fn pay(&mut self, cost: usize) -> Result<()> {
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Fault::new("it does more than a chat template may (or never ends)")),
        }
    }

    /// Pays for reading a value with all that it holds.
    pub(super) fn read(&mut self, value: &Value) -> Result<()> {
        self.pay(value.weight())
    }

    /// Appends to a text.
    pub(super) fn write(&mut self, out: &mut String, text: &str) -> Result<()> {
        self.pay(text.len())?;
        out.push_str(text);
        Ok(())
    }

    /// A text.
    pub(super) fn text(&mut self, text: &str) -> Result<Value> {
        self.pay(STEP + text.len())?;
        Ok(Value::Text(Rc::from(text)))
    }

    /// A list, or a tuple. Whoever gathered the items has paid for gathering them.
    pub(super) fn list(&mut self, items: Vec<Value>, tuple: bool) -> Result<Value> {
        let (weight, depth) = self.hold(items.iter())?;
        Ok(Value::List(Rc::new(List { items, tuple, weight, depth })))
    }

    /// A map; of equal keys the last one counts, in the place of the first.
    pub(super) fn map(&mut self, pairs: Vec<(Value, Value)>) -> Result<Value> {
        let mut entries: Vec<(Value, Value)> = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            if matches!(key, Value::List(_) | Value::Map(_)) {
                return Err(Fault::new(format!("{} cannot be a key", key.kind())));
            }
            let mut known = None;
            for (index, (other, _)) in entries.iter().enumerate() {
                if other.equals(&key, self)? {
                    known = Some(index);
                    break;
                }
            }
            match known {
                Some(index) => entries[index].1 = value,
                None => entries.push((key, value)),
            }
        }
        let (weight, depth) = self.hold(entries.iter().flat_map(|(key, value)| [key, value]))?;
        Ok(Value::Map(Rc::new(Map { entries, weight, depth })))
    }

    /// Pays for a value that holds others: its weight and depth.
    fn hold<'a>(&mut self, held: impl Iterator<Item = &'a Value>) -> Result<(usize, usize)> {
        let (mut weight, mut depth) = (STEP, 1);
        for value in held {
            weight = value.weight().saturating_add(weight);
            depth = depth.max(1 + value.depth());
        }
        if depth > DEEPEST {
            return Err(Fault::new(format!("it puts values in each other, deeper than {DEEPEST}")));
        }
        self.pay(weight)?;
        Ok((weight, depth))
    }

    /// A value of JSON.
    pub(super) fn json(&mut self, json: &serde_json::Value) -> Result<Value> {
        use serde_json::Value as Json;
        self.pay(STEP)?;
        Ok(match json {
            Json::Null => Value::None,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(number) => Value::Int(number),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => self.text(text)?,
            Json::Array(items) => {
                let items = items.iter().map(|item| self.json(item)).collect::<Result<_>>()?;
                self.list(items, false)?
            }
            Json::Object(entries) => {
                let pairs =
                    entries.iter().map(|(key, value)| Ok((self.text(key)?, self.json(value)?)));
                let pairs = pairs.collect::<Result<_>>()?;
                self.map(pairs)?
            }
        })
    }
}
