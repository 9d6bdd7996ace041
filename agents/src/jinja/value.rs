//! Values of a template, and how they are compared and printed: as Python does.
//!
//! Nothing here pays: callers pay for a value's weight first.

use std::cmp::Ordering;
use std::rc::Rc;

use super::meter::{Meter, STEP};
use super::{Fault, Result};

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Undefined,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    List(Rc<List>),
    Map(Rc<Map>),
    /// A namespace, a macro or a loop, by its place in the interpreter: none can hold itself.
    Namespace(usize),
    Macro(usize),
    Loop(usize),
    /// A function of ours.
    Function(&'static str),
}

/// Values in a row.
#[derive(Debug)]
pub(super) struct List {
    pub(super) items: Vec<Value>,
    /// Printed in parentheses.
    pub(super) tuple: bool,
    pub(super) weight: usize,
    pub(super) depth: usize,
}

/// Values by keys, in the order of insertion.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) entries: Vec<(Value, Value)>,
    pub(super) weight: usize,
    pub(super) depth: usize,
}

impl Map {
    /// The value of a key; pays for the keys that it looks at.
    pub(super) fn get(&self, key: &Value, meter: &mut Meter) -> Result<Option<&Value>> {
        for (known, value) in &self.entries {
            if known.equals(key, meter)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

impl Value {
    /// What it costs to look at all of it.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Text(text) => STEP + text.len(),
            Self::List(list) => list.weight,
            Self::Map(map) => map.weight,
            _ => STEP,
        }
    }

    /// How many levels of lists and maps it has.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::List(list) => list.depth,
            Self::Map(map) => map.depth,
            _ => 0,
        }
    }

    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined => "an undefined value",
            Self::None => "none",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Namespace(_) => "a namespace",
            Self::Macro(_) => "a macro",
            Self::Loop(_) => "a loop",
            Self::Function(_) => "a function",
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Undefined | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.entries.is_empty(),
            Self::Namespace(_) | Self::Macro(_) | Self::Loop(_) | Self::Function(_) => true,
        }
    }

    /// As a number, where it is one; truth values are 0 and 1.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Bool(value) => Some(f64::from(u8::from(*value))),
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// As a whole number, where it is one.
    pub(super) fn whole(&self) -> Option<i64> {
        match self {
            Self::Bool(value) => Some(i64::from(*value)),
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// Whether it is the same as another value; pays for what it looks at.
    pub(super) fn equals(&self, other: &Self, meter: &mut Meter) -> Result<bool> {
        meter.pay(STEP)?;
        if let (Some(a), Some(b)) = (self.whole(), other.whole()) {
            return Ok(a == b);
        }
        if let (Some(a), Some(b)) = (self.number(), other.number()) {
            return Ok(a == b);
        }
        match (self, other) {
            (Self::Undefined, Self::Undefined) | (Self::None, Self::None) => Ok(true),
            (Self::Text(a), Self::Text(b)) if a.len() == b.len() => {
                meter.pay(a.len())?;
                Ok(a == b)
            }
            (Self::List(a), Self::List(b)) => {
                let mut same = a.tuple == b.tuple && a.items.len() == b.items.len();
                for (a, b) in a.items.iter().zip(&b.items) {
                    same = same && a.equals(b, meter)?;
                }
                Ok(same)
            }
            (Self::Map(a), Self::Map(b)) => {
                let mut same = a.entries.len() == b.entries.len();
                for (key, value) in &a.entries {
                    same = same
                        && match b.get(key, meter)? {
                            Some(other) => value.equals(other, meter)?,
                            None => false,
                        };
                }
                Ok(same)
            }
            (Self::Namespace(a), Self::Namespace(b))
            | (Self::Macro(a), Self::Macro(b))
            | (Self::Loop(a), Self::Loop(b)) => Ok(a == b),
            (Self::Function(a), Self::Function(b)) => Ok(a == b),
            _ => Ok(false),
        }
    }

    pub(super) fn order(&self, other: &Self) -> Result<Ordering> {
        let order = match (self, other) {
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            _ => match (self.whole(), other.whole()) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                _ => self.number().zip(other.number()).and_then(|(a, b)| a.partial_cmp(&b)),
            },
        };
        order.ok_or_else(|| {
            Fault::new(format!("{} and {} have no order", self.kind(), other.kind()))
        })
    }

    /// Writes it as `{{ value }}` does.
    pub(super) fn print(&self, out: &mut String, meter: &mut Meter) -> Result<()> {
        match self {
            Self::Undefined => Ok(()),
            Self::Text(text) => meter.write(out, text),
            other => other.represent(out, meter),
        }
    }

    /// Writes it as within a list: texts in quotes.
    fn represent(&self, out: &mut String, meter: &mut Meter) -> Result<()> {
        meter.pay(STEP)?;
        match self {
            Self::Undefined => meter.write(out, "Undefined"),
            Self::None => meter.write(out, "None"),
            Self::Bool(true) => meter.write(out, "True"),
            Self::Bool(false) => meter.write(out, "False"),
            Self::Int(value) => meter.write(out, &value.to_string()),
            Self::Float(value) => meter.write(out, &float(*value)),
            Self::Text(text) => quote(text, out, meter),
            Self::List(list) => {
                let (open, close) = if list.tuple { ("(", ")") } else { ("[", "]") };
                meter.write(out, open)?;
                for (index, item) in list.items.iter().enumerate() {
                    meter.write(out, if index > 0 { ", " } else { "" })?;
                    item.represent(out, meter)?;
                }
                meter.write(out, if list.tuple && list.items.len() == 1 { "," } else { "" })?;
                meter.write(out, close)
            }
            Self::Map(map) => {
                meter.write(out, "{")?;
                for (index, (key, value)) in map.entries.iter().enumerate() {
                    meter.write(out, if index > 0 { ", " } else { "" })?;
                    key.represent(out, meter)?;
                    meter.write(out, ": ")?;
                    value.represent(out, meter)?;
                }
                meter.write(out, "}")
            }
            other => Err(Fault::new(format!("{} cannot be printed", other.kind()))),
        }
    }
}

/// A float as Python writes it: the shortest digits, with an exponent where it is very large or small.
pub(super) fn float(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "nan".to_owned() } else { value.to_string() };
    }
    if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// A text in quotes, as Python's `repr` writes it.
fn quote(text: &str, out: &mut String, meter: &mut Meter) -> Result<()> {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut buffer = [0; 4];
    meter.write(out, mark.encode_utf8(&mut buffer))?;
    for letter in text.chars() {
        match letter {
            '\n' => meter.write(out, "\\n")?,
            '\r' => meter.write(out, "\\r")?,
            '\t' => meter.write(out, "\\t")?,
            '\\' => meter.write(out, "\\\\")?,
            c if c == mark => meter.write(out, &format!("\\{c}"))?,
            c if u32::from(c) < 0x20 || (0x7f..0xa1).contains(&u32::from(c)) => {
                meter.write(out, &format!("\\x{:02x}", u32::from(c)))?;
            }
            c => meter.write(out, c.encode_utf8(&mut buffer))?,
        }
    }
    meter.write(out, mark.encode_utf8(&mut buffer))
}
