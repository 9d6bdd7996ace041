//! The words of the walk's complaints: what is wrong in whose value, and what to type instead.
//!
//! Everything is said in terms of the schema: names, types, bounds, descriptions and examples.

use std::fmt::Write as _;
use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::Walk;
use crate::scenario::problem::Problem;
use crate::scenario::suggestion::{advice, list, nearest, quote};

impl<'s> Walk<'s> {
    /// Always false: what is complained about cannot be decoded.
    fn complain(&mut self, problem: Problem) -> bool {
        self.problems.push(problem);
        false
    }

    /// The dotted path of the current value, for `--set` and for people.
    fn place(&self) -> String {
        if self.path.is_empty() { "the scenario".to_owned() } else { quote(&self.path.join(".")) }
    }

    /// The last part of the current path that is a name.
    fn key(&self) -> &str {
        let name = self.path.iter().rev().find(|part| part.parse::<usize>().is_err());
        name.map_or("", String::as_str)
    }

    pub(super) fn unknown_key(&mut self, schema: &Value, name: &Spanned<DeString<'_>>) -> bool {
        let typed = name.get_ref().as_ref();
        let (here, top) = (names(schema), names(self.root));
        let help = if nearest(typed, &here).is_none() && top.contains(&typed) {
            format!("{} belongs to the top of the file, above the first `[table]`", quote(typed))
        } else {
            advice(typed, here)
        };
        let (key, place) = (quote(typed), self.place());
        self.complain(Problem::UnknownKey { key, place, at: name.span().into(), help })
    }

    pub(super) fn unknown_variant(&mut self, name: &Spanned<DeString<'_>>, known: &[&str]) -> bool {
        let typed = name.get_ref().as_ref();
        let help = advice(typed, known.iter().copied());
        let (key, place) = (quote(typed), self.place());
        self.complain(Problem::UnknownKey { key, place, at: name.span().into(), help })
    }

    pub(super) fn no_variant(&mut self, known: &[&str], at: Range<usize>) -> bool {
        let (place, help) = (self.place(), self.choices(known));
        self.complain(Problem::NoVariant { place, at: at.into(), help })
    }

    pub(super) fn several_variants(&mut self, chosen: &[&str], at: Range<usize>) -> bool {
        let (place, help) = (self.place(), "keep one and remove the others".to_owned());
        self.complain(Problem::SeveralVariants { place, chosen: list(chosen), at: at.into(), help })
    }

    fn choices(&self, known: &[&str]) -> String {
        let name = self.key();
        let all: Vec<String> =
            known.iter().map(|one| format!("`{name}.{one} = {{ … }}`")).collect();
        format!("write {}", all.join(" or "))
    }

    pub(super) fn missing(&mut self, name: &str, schema: &'s Value, key: Range<usize>) -> bool {
        let variants = schema["oneOf"].as_array().map(|variants| {
            let name = |one: &'s Value| one["required"][0].as_str().unwrap_or_default();
            variants.iter().map(name).collect::<Vec<_>>()
        });
        let description = description(schema);
        let is_table = variants.is_some() || schema["type"] == "object";
        if self.path.is_empty() && is_table {
            let below = variants.as_ref().map_or("NAME", |all| all[0]);
            let help = format!("add a table `[{name}.{below}]`: {description}");
            let (name, at) = (name.to_owned(), (self.end, 0).into());
            return self.complain(Problem::MissingTable { name, at, help });
        }
        if let Some(known) = variants {
            self.path.push(name.to_owned());
            self.no_variant(&known, key);
            self.path.pop();
            return false;
        }
        let help = match schema["examples"].get(0) {
            Some(example) => format!("add `{name} = {}`: {description}", toml_text(example)),
            None => format!("add `{name}`: {description}"),
        };
        let (name, place) = (name.to_owned(), self.place());
        self.complain(Problem::MissingKey { name, place, at: key.into(), help })
    }

    pub(super) fn wrong_type(
        &mut self,
        expected: &str,
        found: &DeValue<'_>,
        at: Range<usize>,
    ) -> bool {
        let name = self.key().to_owned();
        let in_list = self.path.last().is_some_and(|part| *part != name);
        let left = if in_list { String::new() } else { format!("{name} = ") };
        let help = match (expected, found) {
            ("integer" | "number", DeValue::String(text)) if text.parse::<f64>().is_ok() => {
                format!("remove the quotes: `{left}{text}`")
            }
            ("integer", DeValue::Float(number)) => match number.as_str().parse::<f64>() {
                Ok(value) if value.is_finite() => format!("write `{left}{value:.0}`"),
                _ => "write a whole number, without point or exponent".to_owned(),
            },
            ("boolean", DeValue::String(text)) if matches!(text.as_ref(), "true" | "false") => {
                format!("remove the quotes: `{left}{text}`")
            }
            ("string", DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)) => {
                format!("put it in quotes: `{left}\"…\"`")
            }
            ("array", DeValue::Table(_)) => {
                format!("write `[[{name}]]` with two brackets above each entry")
            }
            ("array", _) => format!("put it in brackets: `{left}[…]`"),
            ("object", DeValue::Array(_)) => {
                format!("write `[{name}.NAME]` with one bracket for each entry")
            }
            ("object", _) => format!("write it as a table: `{left}{{ … }}`"),
            _ => format!("write {}", kind(expected)),
        };
        let (key, expected, found) = (self.place(), kind(expected), kind_of(found));
        self.complain(Problem::WrongType { key, expected, found, at: at.into(), help })
    }

    pub(super) fn whole_number(
        &mut self,
        schema: &Value,
        value: i128,
        found: &str,
        at: Range<usize>,
    ) {
        let low = schema["minimum"].as_i64().unwrap_or(i64::MIN);
        let high = schema["maximum"].as_i64().unwrap_or(i64::MAX);
        if !(i128::from(low)..=i128::from(high)).contains(&value) {
            let bounds = format!("a whole number from {low} to {high}");
            self.out_of_range(schema, quote(found), bounds, at);
        }
    }

    pub(super) fn number(&mut self, schema: &Value, value: f64, found: &str, at: Range<usize>) {
        let above = schema["exclusiveMinimum"].as_f64();
        let low = schema["minimum"].as_f64();
        let high = schema["maximum"].as_f64();
        let mut bounds = "a number".to_owned();
        if let Some(above) = above {
            let _ = write!(bounds, " above {above}");
        }
        if let Some(low) = low {
            let _ = write!(bounds, " from {low}");
        }
        if let Some(high) = high {
            let _ = write!(bounds, "{} {high}", if above.is_some() { " and up to" } else { " to" });
        }
        let fits = above.is_none_or(|above| value > above)
            && low.is_none_or(|low| value >= low)
            && high.is_none_or(|high| value <= high);
        let bounded = above.or(low).or(high).is_some();
        if bounded && !fits {
            self.out_of_range(schema, quote(found), bounds, at);
        } else if !value.is_finite() {
            let key = self.place();
            self.complain(Problem::NotFinite { key, found: quote(found), at: at.into() });
        }
    }

    fn out_of_range(&mut self, schema: &Value, found: String, bounds: String, at: Range<usize>) {
        let (key, at) = (self.place(), at.into());
        let problem = match self.key() {
            "rank" => {
                let place = quote(&self.path[..self.path.len() - 1].join("."));
                Problem::RankOutOfRange { place, found, bounds, at }
            }
            "alpha" => Problem::AlphaOutOfRange { key, found, bounds, at },
            "freeze_layers" => Problem::FrozenLayersOutOfRange { key, found, bounds, at },
            "temperature" => Problem::TemperatureOutOfRange { key, found, bounds, at },
            "learning_rate" => Problem::LearningRateOutOfRange { key, found, bounds, at },
            name => {
                let usual = schema.get("default").or_else(|| schema["examples"].get(0));
                let help = match usual {
                    Some(usual) => {
                        format!("write for example `{name} = {usual}`: {}", description(schema))
                    }
                    None => description(schema),
                };
                Problem::CountOutOfRange { key, found, bounds, at, help }
            }
        };
        self.complain(problem);
    }
}

/// The keys that a table of the schema may have.
fn names(schema: &Value) -> Vec<&str> {
    let properties = schema["properties"].as_object();
    properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

/// What a field is for, as a part of a sentence.
fn description(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
    let text = text.trim_end_matches('.');
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
    let rest = letters.as_str();
    // A name such as GRPO or LoRA+ keeps its letters.
    let is_name = rest.chars().take_while(|c| !c.is_whitespace()).any(char::is_uppercase);
    if is_name { text.to_owned() } else { format!("{first}{rest}") }
}

/// An example of the schema as one would type it.
fn toml_text(example: &Value) -> String {
    match example {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A type of the schema, for people.
fn kind(expected: &str) -> &'static str {
    match expected {
        "object" => "a table",
        "array" => "a list",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        _ => "a text in quotes",
    }
}

/// The type of a value, for people.
fn kind_of(found: &DeValue<'_>) -> &'static str {
    match found {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point or an exponent",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
