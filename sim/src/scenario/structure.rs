//! The form of a scenario file: a walk over its tables along the schema that finds every unknown key, wrong
//! type, missing key, open choice and number out of bounds, each with its place.
//!
//! What cannot be decoded is taken out, up to the nearest table that can do without it, so that the checks of
//! [`super::validate`] still see the rest. Meaning (names, files, who plays what) is not looked at here.

mod complaint;

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::problem::Problem;

/// Takes out of the file what cannot be decoded, and says why.
pub(super) fn walk(schema: &Value, file: &mut Spanned<DeTable<'_>>, text: &str) -> Vec<Problem> {
    let end = text.trim_end().len();
    let mut walk = Walk { root: schema, path: Vec::new(), problems: Vec::new(), end };
    walk.table(schema, end..end, file.get_mut());
    walk.problems
}

struct Walk<'s> {
    root: &'s Value,
    path: Vec<String>,
    problems: Vec<Problem>,
    /// Where the file ends.
    end: usize,
}

impl<'s> Walk<'s> {
    /// Whether the value can be decoded; `key` is where its key stands.
    fn value(
        &mut self,
        schema: &'s Value,
        key: Range<usize>,
        found: &mut Spanned<DeValue<'_>>,
    ) -> bool {
        let at = found.span();
        if let Some(variants) = schema["oneOf"].as_array() {
            return match found.get_mut() {
                DeValue::Table(table) => self.choice(variants, key, table),
                other => self.wrong_type("object", other, at),
            };
        }
        let expected = schema["type"].as_str().unwrap_or_default();
        match (expected, found.get_mut()) {
            ("object", DeValue::Table(table)) => self.table(schema, key, table),
            ("array", DeValue::Array(list)) => {
                let mut fits = true;
                let tables = schema["items"]["type"] == "object";
                let items = std::mem::replace(list, DeArray::new()).into_iter().enumerate();
                for (index, mut item) in items {
                    self.path.push(index.to_string());
                    let place = if tables { item.span() } else { key.clone() };
                    let kept = self.value(&schema["items"], place, &mut item);
                    self.path.pop();
                    fits &= kept || tables;
                    if kept {
                        list.push(item);
                    }
                }
                fits
            }
            ("integer", DeValue::Integer(number)) => {
                let value = i128::from_str_radix(number.as_str(), number.radix());
                let value = value.unwrap_or(i128::MAX);
                self.whole_number(schema, value, &number.to_string(), at);
                i64::try_from(value).is_ok()
            }
            ("number", DeValue::Integer(number)) => {
                let value = i64::from_str_radix(number.as_str(), number.radix());
                let bounded = value.as_ref().map_or(f64::INFINITY, |value| *value as f64);
                self.number(schema, bounded, &number.to_string(), at);
                value.is_ok()
            }
            ("number", DeValue::Float(number)) => {
                let value = number.as_str().parse::<f64>().unwrap_or(f64::NAN);
                self.number(schema, value, number.as_str(), at);
                value.is_finite()
                    || number.as_str().contains("nan")
                    || number.as_str().contains("inf")
            }
            ("string", DeValue::String(_)) | ("boolean", DeValue::Boolean(_)) => true,
            (expected, other) => self.wrong_type(expected, other, at),
        }
    }

    /// Whether a table has all it needs, after what it may not have is gone.
    fn table(&mut self, schema: &'s Value, key: Range<usize>, table: &mut DeTable<'_>) -> bool {
        let properties = schema["properties"].as_object();
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let mut gone = Vec::new();
        for (name, value) in table.iter_mut() {
            let known = properties.and_then(|all| all.get(name.get_ref().as_ref())).or(others);
            let kept = match known {
                Some(schema) => {
                    self.path.push(name.get_ref().to_string());
                    let kept = self.value(schema, name.span(), value);
                    self.path.pop();
                    kept
                }
                None => self.unknown_key(schema, name),
            };
            if !kept {
                gone.push(name.get_ref().to_string());
            }
        }
        let required = schema["required"].as_array();
        let required = || required.into_iter().flatten().filter_map(Value::as_str);
        for name in required().filter(|name| !table.contains_key(*name)) {
            self.missing(name, &schema["properties"][name], key.clone());
        }
        for name in &gone {
            table.remove(name.as_str());
        }
        required().all(|name| table.contains_key(name))
    }

    /// Whether exactly one variant is chosen and can be decoded.
    fn choice(
        &mut self,
        variants: &'s [Value],
        key: Range<usize>,
        table: &mut DeTable<'_>,
    ) -> bool {
        let name = |variant: &'s Value| variant["required"][0].as_str().unwrap_or_default();
        let (mut chosen, mut fits) = (Vec::new(), true);
        let mut places = Vec::new();
        for (typed, value) in table.iter_mut() {
            let Some(variant) = variants.iter().find(|one| name(one) == typed.get_ref().as_ref())
            else {
                let known: Vec<&str> = variants.iter().map(name).collect();
                fits = self.unknown_variant(typed, &known);
                continue;
            };
            self.path.push(typed.get_ref().to_string());
            fits &= self.value(&variant["properties"][name(variant)], typed.span(), value);
            self.path.pop();
            chosen.push(name(variant));
            places.push(typed.span());
        }
        let known: Vec<&str> = variants.iter().map(name).collect();
        match places.into_iter().max_by_key(|place| place.start) {
            None if fits => self.no_variant(&known, key),
            Some(last) if chosen.len() > 1 => self.several_variants(&chosen, last),
            _ => fits && chosen.len() == 1,
        }
    }
}
