//! `tojson` as chat templates expect it: as Python writes JSON, with nothing escaped for HTML.

use super::super::evaluate::Given;
use super::super::meter::{Meter, STEP};
use super::super::value::{Value, float};
use super::super::{Fault, Result};

/// Widest indent, in spaces.
const WIDEST: i64 = 16;

/// The JSON of a value.
pub(super) fn write(value: &Value, given: &Given<'_>, meter: &mut Meter) -> Result<Value> {
    let known = ["ensure_ascii", "indent", "separators", "sort_keys"];
    if let Some((name, _)) = given.named.iter().find(|(name, _)| !known.contains(name)) {
        return Err(Fault::new(format!("`tojson` is given `{name}=`, which is not known here")));
    }
    let is_set = |name: &str| given.named.iter().any(|(n, v)| *n == name && v.is_true());
    if is_set("separators") || is_set("sort_keys") {
        return Err(Fault::new(
            "`tojson` is asked for separators or sorted keys, which it has not",
        ));
    }
    let indent = match given.named.iter().find(|(name, _)| *name == "indent") {
        Some((_, width)) => width.whole(),
        None => None,
    };
    let ascii = given.plain.first().is_some_and(Value::is_true) || is_set("ensure_ascii");
    let mut writer = Writer {
        indent: indent.map(|width| " ".repeat(width.clamp(0, WIDEST) as usize)),
        ascii,
        text: String::new(),
        meter,
    };
    writer.value(value, 1)?;
    let text = writer.text;
    meter.text(&text)
}

struct Writer<'m> {
    /// Spaces for each level, where every item has a line of its own.
    indent: Option<String>,
    ascii: bool,
    text: String,
    meter: &'m mut Meter,
}

impl Writer<'_> {
    fn push(&mut self, text: &str) -> Result<()> {
        self.meter.write(&mut self.text, text)
    }

    /// What stands before an item, or before a closing bracket.
    fn separate(&mut self, comma: bool, level: usize) -> Result<()> {
        match &self.indent {
            Some(indent) => {
                let space = format!("{}\n{}", if comma { "," } else { "" }, indent.repeat(level));
                self.push(&space)
            }
            None => self.push(if comma { ", " } else { "" }),
        }
    }

    fn value(&mut self, value: &Value, level: usize) -> Result<()> {
        self.meter.pay(STEP)?;
        match value {
            Value::None => self.push("null"),
            Value::Bool(true) => self.push("true"),
            Value::Bool(false) => self.push("false"),
            Value::Int(number) => self.push(&number.to_string()),
            Value::Float(number) if number.is_nan() => self.push("NaN"),
            Value::Float(number) if number.is_infinite() => {
                self.push(if *number > 0.0 { "Infinity" } else { "-Infinity" })
            }
            Value::Float(number) => self.push(&float(*number)),
            Value::Text(text) => self.quoted(text),
            Value::List(list) if list.items.is_empty() => self.push("[]"),
            Value::Map(map) if map.entries.is_empty() => self.push("{}"),
            Value::List(list) => {
                self.push("[")?;
                for (index, item) in list.items.iter().enumerate() {
                    self.separate(index > 0, level)?;
                    self.value(item, level + 1)?;
                }
                self.separate(false, level - 1)?;
                self.push("]")
            }
            Value::Map(map) => {
                self.push("{")?;
                for (index, (key, value)) in map.entries.iter().enumerate() {
                    self.separate(index > 0, level)?;
                    match key {
                        Value::Text(key) => self.quoted(key)?,
                        _ => return Err(Fault::new("only texts can be keys in JSON")),
                    }
                    self.push(": ")?;
                    self.value(value, level + 1)?;
                }
                self.separate(false, level - 1)?;
                self.push("}")
            }
            other => Err(Fault::new(format!("{} has no JSON", other.kind()))),
        }
    }

    fn quoted(&mut self, text: &str) -> Result<()> {
        self.push("\"")?;
        let mut units = [0; 2];
        for letter in text.chars() {
            match letter {
                '"' => self.push("\\\"")?,
                '\\' => self.push("\\\\")?,
                '\n' => self.push("\\n")?,
                '\r' => self.push("\\r")?,
                '\t' => self.push("\\t")?,
                '\u{8}' => self.push("\\b")?,
                '\u{c}' => self.push("\\f")?,
                c if u32::from(c) < 0x20 || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut units) {
                        self.push(&format!("\\u{unit:04x}"))?;
                    }
                }
                c => self.push(c.encode_utf8(&mut [0; 4]))?,
            }
        }
        self.push("\"")
    }
}
