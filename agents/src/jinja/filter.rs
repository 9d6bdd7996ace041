//! Filters and tests: those that chat templates use.

mod json;

use super::evaluate::Given;
use super::meter::{Meter, STEP};
use super::method::{joined, replaced, strip};
use super::value::Value;
use super::{Fault, Result};

/// Applies a filter.
pub(super) fn apply(
    name: &str,
    value: &Value,
    given: &Given<'_>,
    meter: &mut Meter,
) -> Result<Value> {
    let argument = |index: usize, name: &str| given.get(index, name);
    match name {
        "default" | "d" => {
            let falsy = argument(1, "boolean").is_some_and(Value::is_true) && !value.is_true();
            if !falsy && !matches!(value, Value::Undefined) {
                return Ok(value.clone());
            }
            argument(0, "default_value").cloned().map_or_else(|| meter.text(""), Ok)
        }
        "tojson" => json::write(value, given, meter),
        "string" | "safe" => printed(value, meter).and_then(|text| meter.text(&text)),
        "trim" => {
            let text = printed(value, meter)?;
            let letters = match argument(0, "chars") {
                Some(Value::Text(letters)) => Some(&**letters),
                _ => None,
            };
            let cut = strip(&text, letters, true, true, meter)?;
            meter.text(cut)
        }
        "upper" => printed(value, meter).and_then(|text| cased(&text, Case::Upper, meter)),
        "lower" => printed(value, meter).and_then(|text| cased(&text, Case::Lower, meter)),
        "title" => printed(value, meter).and_then(|text| cased(&text, Case::Title, meter)),
        "capitalize" => printed(value, meter).and_then(|text| cased(&text, Case::First, meter)),
        "replace" => {
            let text = printed(value, meter)?;
            let count = argument(2, "count").and_then(Value::whole).unwrap_or(i64::MAX);
            match (argument(0, "old"), argument(1, "new")) {
                (Some(Value::Text(old)), Some(Value::Text(new))) => {
                    replaced(&text, old, new, count, meter)
                }
                _ => Err(Fault::new("`replace` takes two texts")),
            }
        }
        "length" | "count" => length(value, meter),
        "list" => {
            let items = meter.items(value)?;
            meter.list(items, false)
        }
        "items" => {
            let pairs = meter.pairs(value)?;
            meter.list(pairs, false)
        }
        "first" => Ok(meter.items(value)?.into_iter().next().unwrap_or(Value::Undefined)),
        "last" => Ok(meter.items(value)?.pop().unwrap_or(Value::Undefined)),
        "reverse" => meter.slice(value, [None, None, Some(-1)]),
        "dictsort" => sorted(value, meter),
        "join" => {
            let between = match argument(0, "d") {
                Some(between) => printed(between, meter)?,
                None => String::new(),
            };
            let items = meter.items(value)?;
            joined(&items, &between, meter)
        }
        "int" => whole(value, argument(0, "default")),
        "map" => mapped(value, given, meter),
        "select" | "reject" | "selectattr" | "rejectattr" => selected(name, value, given, meter),
        other => Err(Fault::new(format!("filter `{other}` is not known here"))),
    }
}

/// A value as a text.
fn printed(value: &Value, meter: &mut Meter) -> Result<String> {
    let mut text = String::new();
    value.print(&mut text, meter)?;
    Ok(text)
}

fn length(value: &Value, meter: &mut Meter) -> Result<Value> {
    let length = match value {
        Value::Undefined => 0,
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.entries.len(),
        Value::Text(text) => {
            meter.pay(text.len())?;
            text.chars().count()
        }
        other => return Err(Fault::new(format!("{} has no length", other.kind()))),
    };
    Ok(Value::Int(length as i64))
}

fn whole(value: &Value, default: Option<&Value>) -> Result<Value> {
    let number = match value {
        Value::Text(text) => text.trim().parse().ok(),
        Value::Float(number) if number.abs() < 9e18 => Some(*number as i64),
        other => other.whole(),
    };
    Ok(number.map_or_else(|| default.cloned().unwrap_or(Value::Int(0)), Value::Int))
}

/// The pairs of a map by their keys, upper and lower case being the same.
fn sorted(value: &Value, meter: &mut Meter) -> Result<Value> {
    meter.pay(value.weight().saturating_mul(32))?;
    let Value::Map(map) = value else {
        return Err(Fault::new(format!("{} cannot be sorted by keys", value.kind())));
    };
    let mut pairs = Vec::new();
    for (key, value) in &map.entries {
        let Value::Text(name) = key else {
            return Err(Fault::new("only maps whose keys are texts can be sorted"));
        };
        pairs.push((name.to_lowercase(), meter.list(vec![key.clone(), value.clone()], true)?));
    }
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    meter.list(pairs.into_iter().map(|(_, pair)| pair).collect(), false)
}

/// A member of each item, or what another filter makes of it.
fn mapped(value: &Value, given: &Given<'_>, meter: &mut Meter) -> Result<Value> {
    let items = meter.items(value)?;
    let mut results = Vec::with_capacity(items.len());
    for item in &items {
        meter.pay(STEP)?;
        results.push(match (given.plain.first(), given.get(1, "attribute")) {
            (None, Some(Value::Text(member))) => meter.member(item, member)?,
            (Some(Value::Text(name)), None) if **name != *"map" => {
                apply(name, item, &Given { plain: Vec::new(), named: Vec::new() }, meter)?
            }
            _ => return Err(Fault::new("`map` takes the name of a filter, or `attribute=`")),
        });
    }
    meter.list(results, false)
}

/// The items that pass a test, or do not; or whose member does.
fn selected(name: &str, value: &Value, given: &Given<'_>, meter: &mut Meter) -> Result<Value> {
    let mut arguments = given.plain.as_slice();
    let by = if name.ends_with("attr") {
        let Some((Value::Text(member), rest)) = arguments.split_first() else {
            return Err(Fault::new(format!("`{name}` takes the name of a member")));
        };
        arguments = rest;
        Some(member)
    } else {
        None
    };
    let (check, arguments) = match arguments.split_first() {
        Some((Value::Text(check), rest)) => (Some(check), rest),
        _ => (None, arguments),
    };
    let mut kept = Vec::new();
    for item in meter.items(value)? {
        meter.pay(STEP)?;
        let looked_at = match by {
            Some(member) => meter.member(&item, member)?,
            None => item.clone(),
        };
        let passes = match check {
            Some(check) => test(check, &looked_at, arguments, meter)?,
            None => looked_at.is_true(),
        };
        if passes == name.starts_with("select") {
            kept.push(item);
        }
    }
    meter.list(kept, false)
}

/// Whether a test holds.
pub(super) fn test(name: &str, value: &Value, given: &[Value], meter: &mut Meter) -> Result<bool> {
    Ok(match (name, given) {
        ("defined", []) => !matches!(value, Value::Undefined),
        ("undefined", []) => matches!(value, Value::Undefined),
        ("none", []) => matches!(value, Value::None),
        ("true", []) => matches!(value, Value::Bool(true)),
        ("false", []) => matches!(value, Value::Bool(false)),
        ("boolean", []) => matches!(value, Value::Bool(_)),
        ("integer", []) => matches!(value, Value::Int(_)),
        ("float", []) => matches!(value, Value::Float(_)),
        ("number", []) => value.number().is_some(),
        ("string", []) => matches!(value, Value::Text(_)),
        ("mapping", []) => matches!(value, Value::Map(_)),
        ("callable", []) => matches!(value, Value::Macro(_) | Value::Function(_)),
        ("iterable" | "sequence", []) => {
            matches!(value, Value::Text(_) | Value::List(_) | Value::Map(_) | Value::Undefined)
        }
        ("equalto" | "eq" | "==", [other]) => value.equals(other, meter)?,
        ("ne" | "!=", [other]) => !value.equals(other, meter)?,
        ("in", [other]) => meter.contains(other, value)?,
        _ => return Err(Fault::new(format!("test `{name}` is not known here"))),
    })
}

/// How a text is spelt anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Case {
    Upper,
    Lower,
    /// The first letter of every word.
    Title,
    /// The first letter only.
    First,
}

/// A text with other capitals.
pub(super) fn cased(text: &str, case: Case, meter: &mut Meter) -> Result<Value> {
    // No letter becomes more than three.
    meter.pay(text.len().saturating_mul(4))?;
    let text = match case {
        Case::Upper => text.to_uppercase(),
        Case::Lower => text.to_lowercase(),
        Case::Title | Case::First => {
            let (mut spelt, mut first) = (String::with_capacity(text.len()), true);
            for letter in text.chars() {
                if first {
                    spelt.extend(letter.to_uppercase());
                } else {
                    spelt.extend(letter.to_lowercase());
                }
                first = case == Case::Title && !letter.is_alphabetic();
            }
            spelt
        }
    };
    meter.text(&text)
}
