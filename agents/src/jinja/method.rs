//! Methods of texts and maps as Python names them, and functions.

use super::evaluate::Given;
use super::filter::{Case, cased};
use super::meter::{Meter, STEP};
use super::value::Value;
use super::{Fault, Result};

/// The functions that there are.
const FUNCTIONS: [&str; 4] = ["namespace", "raise_exception", "range", "strftime_now"];

/// A function by its name.
pub(super) fn function(name: &str) -> Option<Value> {
    FUNCTIONS.into_iter().find(|known| *known == name).map(Value::Function)
}

/// Calls a function other than `namespace`.
pub(super) fn call_function(name: &str, given: &Given<'_>, meter: &mut Meter) -> Result<Value> {
    match (name, given.plain.as_slice()) {
        ("raise_exception", [message]) => {
            let mut text = String::new();
            message.print(&mut text, meter)?;
            Err(Fault::new(format!("it refuses the conversation: {text}")))
        }
        ("range", [end]) => range(0, whole(end)?, 1, meter),
        ("range", [start, end]) => range(whole(start)?, whole(end)?, 1, meter),
        ("range", [start, end, step]) => range(whole(start)?, whole(end)?, whole(step)?, meter),
        ("strftime_now", [Value::Text(format)]) => today(format, meter),
        _ => Err(Fault::new(format!("`{name}` is called with other arguments than it takes"))),
    }
}

fn whole(value: &Value) -> Result<i64> {
    value.whole().ok_or_else(|| Fault::new(format!("{} is no whole number", value.kind())))
}

fn range(start: i64, end: i64, step: i64, meter: &mut Meter) -> Result<Value> {
    if step == 0 {
        return Err(Fault::new("a range whose step is zero"));
    }
    let mut numbers = Vec::new();
    let mut at = start;
    while if step > 0 { at < end } else { at > end } {
        meter.pay(2 * STEP)?;
        numbers.push(Value::Int(at));
        at = at.saturating_add(step);
    }
    meter.list(numbers, false)
}

/// The date that every template is told: Friday, 26 July 2024, midnight. A run must come out the same on any
/// day, and this is the date that Llama 3's own template falls back on.
fn today(format: &str, meter: &mut Meter) -> Result<Value> {
    meter.pay(16 * format.len())?;
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        text.push_str(match letters.next() {
            Some('d') => "26",
            Some('m') => "07",
            Some('Y') => "2024",
            Some('y') => "24",
            Some('B') => "July",
            Some('b') => "Jul",
            Some('A') => "Friday",
            Some('a') => "Fri",
            Some('j') => "208",
            Some('H' | 'M' | 'S') => "00",
            Some('F') => "2024-07-26",
            Some('T') => "00:00:00",
            Some('%') => "%",
            other => {
                let code = other.map(String::from).unwrap_or_default();
                return Err(Fault::new(format!("strftime_now does not know `%{code}`")));
            }
        });
    }
    meter.text(&text)
}

/// Calls a method of a text or a map.
pub(super) fn call(
    value: &Value,
    name: &str,
    given: &Given<'_>,
    meter: &mut Meter,
) -> Result<Value> {
    let unknown =
        || Fault::new(format!("{} has no method `{name}` that is known here", value.kind()));
    if let Some((named, _)) = given.named.first() {
        return Err(Fault::new(format!("`{name}` is given `{named}=`, which is not known here")));
    }
    meter.read(value)?;
    match value {
        Value::Text(text) => text_method(text, name, &given.plain, meter)?.ok_or_else(unknown),
        Value::Map(map) => match (name, given.plain.as_slice()) {
            ("items", []) => {
                let pairs = meter.pairs(value)?;
                meter.list(pairs, false)
            }
            ("keys", []) => {
                let keys = meter.items(value)?;
                meter.list(keys, false)
            }
            ("values", []) => {
                let values = map.entries.iter().map(|(_, value)| value.clone()).collect();
                meter.list(values, false)
            }
            ("get", [key]) => Ok(map.get(key, meter)?.cloned().unwrap_or(Value::None)),
            ("get", [key, default]) => Ok(map.get(key, meter)?.unwrap_or(default).clone()),
            _ => Err(unknown()),
        },
        _ => Err(unknown()),
    }
}

fn text_method(
    text: &str,
    name: &str,
    given: &[Value],
    meter: &mut Meter,
) -> Result<Option<Value>> {
    for argument in given {
        meter.read(argument)?;
    }
    let boolean = |holds| Ok(Some(Value::Bool(holds)));
    let result = match (name, given) {
        ("strip" | "lstrip" | "rstrip", [] | [Value::None | Value::Text(_)]) => {
            let letters = match given {
                [Value::Text(letters)] => Some(&**letters),
                _ => None,
            };
            let cut = strip(text, letters, name != "rstrip", name != "lstrip", meter)?;
            meter.text(cut)?
        }
        ("startswith", [Value::Text(start)]) => return boolean(text.starts_with(&**start)),
        ("endswith", [Value::Text(end)]) => return boolean(text.ends_with(&**end)),
        ("upper", []) => cased(text, Case::Upper, meter)?,
        ("lower", []) => cased(text, Case::Lower, meter)?,
        ("title", []) => cased(text, Case::Title, meter)?,
        ("capitalize", []) => cased(text, Case::First, meter)?,
        ("replace", [Value::Text(old), Value::Text(new)]) => {
            replaced(text, old, new, i64::MAX, meter)?
        }
        ("replace", [Value::Text(old), Value::Text(new), count]) => {
            replaced(text, old, new, whole(count)?, meter)?
        }
        ("split", []) => split(text.split_whitespace(), meter)?,
        ("split", [Value::Text(by)]) if !by.is_empty() => split(text.split(&**by), meter)?,
        ("split", [Value::Text(by), count]) if !by.is_empty() => {
            match usize::try_from(whole(count)?) {
                Ok(count) => split(text.splitn(count.saturating_add(1), &**by), meter)?,
                Err(_) => split(text.split(&**by), meter)?,
            }
        }
        ("join", [items]) => {
            let items = meter.items(items)?;
            joined(&items, text, meter)?
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

fn split<'t>(parts: impl Iterator<Item = &'t str>, meter: &mut Meter) -> Result<Value> {
    let parts = parts.map(|part| meter.text(part)).collect::<Result<_>>()?;
    meter.list(parts, false)
}

/// A text without whitespace, or without given letters, at its ends.
pub(super) fn strip<'t>(
    text: &'t str,
    letters: Option<&str>,
    left: bool,
    right: bool,
    meter: &mut Meter,
) -> Result<&'t str> {
    meter.pay(text.len().saturating_mul(1 + letters.map_or(0, |letters| letters.len() / 16)))?;
    let goes = |letter: char| match letters {
        Some(letters) => letters.contains(letter),
        None => letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter),
    };
    let text = if left { text.trim_start_matches(goes) } else { text };
    Ok(if right { text.trim_end_matches(goes) } else { text })
}

/// A text with one part in place of another, at most so many times; all where that is negative.
pub(super) fn replaced(
    text: &str,
    old: &str,
    new: &str,
    count: i64,
    meter: &mut Meter,
) -> Result<Value> {
    meter.pay(text.len())?;
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    let found = text.matches(old).count().min(most);
    meter.pay(text.len().saturating_add(found.saturating_mul(new.len())))?;
    meter.text(&text.replacen(old, new, found))
}

/// Values as texts with a text between.
pub(super) fn joined(items: &[Value], between: &str, meter: &mut Meter) -> Result<Value> {
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        meter.pay(STEP)?;
        if index > 0 {
            meter.write(&mut text, between)?;
        }
        item.print(&mut text, meter)?;
    }
    meter.text(&text)
}
