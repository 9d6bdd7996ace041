//! Reading data sets: JSON lines or CSV, by the names of their columns.
//!
//! Where the data has no column of required contents, a reply resolves a query if it names the intent:
//! every longer word of the label. Where it has no replies, one that does so is made.

use std::path::{Path, PathBuf};

use agents::prompt::words;
use serde_json::Value;

use super::support::Item;
use crate::scenario::Columns;

/// The largest data file that is read.
const LARGEST_FILE: u64 = 512 << 20;

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The file cannot be read.
    #[error("could not read {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A line is not what it should be.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A column is missing.
    #[error(
        "{path} has no column `{column}`; it has {found}. Name it with --set task.support.columns.{role}=NAME"
    )]
    Column {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        column: String,
        /// What it is for: `text` or `intent`.
        role: &'static str,
        /// The columns there are.
        found: String,
    },
    /// There is nothing in it.
    #[error("{path} has no items")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to tell apart.
    #[error("{path} has only one intent: there is nothing to recognise")]
    OneIntent {
        /// The file.
        path: PathBuf,
    },
    /// The holdout asks for what nobody can learn.
    #[error("{path} has the intent `{intent}`, which does not occur in the training file")]
    UnknownIntent {
        /// The file.
        path: PathBuf,
        /// The intent.
        intent: String,
    },
}

/// A line of a data set.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) text: String,
    pub(super) intent: String,
    pub(super) must: Option<Vec<Vec<String>>>,
    pub(super) reply: Option<String>,
}

pub(super) fn read(path: &Path, columns: &Columns) -> Result<Vec<Record>, TaskError> {
    let fail = |e: std::io::Error| TaskError::File { path: path.into(), reason: e.to_string() };
    let size = std::fs::metadata(path).map_err(fail)?.len();
    if size > LARGEST_FILE {
        let reason = format!("{size} bytes are more than the {LARGEST_FILE} that are read");
        return Err(TaskError::File { path: path.into(), reason });
    }
    let bytes = std::fs::read(path).map_err(fail)?;
    let is_csv = path.extension().is_some_and(|extension| extension == "csv");
    let records =
        if is_csv { csv(&bytes, path, columns)? } else { json_lines(&bytes, path, columns)? };
    if records.is_empty() {
        return Err(TaskError::Empty { path: path.into() });
    }
    Ok(records)
}

fn csv(bytes: &[u8], path: &Path, columns: &Columns) -> Result<Vec<Record>, TaskError> {
    let line = |line: u64, reason: String| TaskError::Line { path: path.into(), line, reason };
    let mut reader = ::csv::ReaderBuilder::new().flexible(false).from_reader(bytes);
    let headers = reader.headers().map_err(|e| line(1, e.to_string()))?.clone();
    let place = |name: &str| headers.iter().position(|header| header.trim() == name);
    let needed = |name: &str, role: &'static str| {
        place(name).ok_or_else(|| TaskError::Column {
            path: path.into(),
            column: name.to_owned(),
            role,
            found: list(headers.iter()),
        })
    };
    let text = needed(&columns.text, "text")?;
    let intent = needed(&columns.intent, "intent")?;
    let (must, reply) = (place(&columns.must), place(&columns.reply));
    let mut records = Vec::new();
    for row in reader.records() {
        let row =
            row.map_err(|e| line(e.position().map_or(0, ::csv::Position::line), e.to_string()))?;
        let at = row.position().map_or(0, ::csv::Position::line);
        let cell = |index: usize| row.get(index).unwrap_or_default().to_owned();
        let must = match must {
            Some(index) => Some(
                serde_json::from_str(&cell(index))
                    .map_err(|e| line(at, format!("`{}`: {e}", columns.must)))?,
            ),
            None => None,
        };
        records.push(Record {
            text: cell(text),
            intent: cell(intent),
            must,
            reply: reply.map(&cell),
        });
    }
    Ok(records)
}

fn json_lines(bytes: &[u8], path: &Path, columns: &Columns) -> Result<Vec<Record>, TaskError> {
    let content = String::from_utf8_lossy(bytes);
    let mut records = Vec::new();
    for (index, text) in content.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let number = index as u64 + 1;
        let fail = |reason: String| TaskError::Line { path: path.into(), line: number, reason };
        let value: Value = serde_json::from_str(text).map_err(|e| fail(e.to_string()))?;
        let keys = || value.as_object().map(|o| list(o.keys().map(String::as_str)));
        let needed = |name: &str, role: &'static str| match value.get(name).and_then(Value::as_str)
        {
            Some(found) => Ok(found.to_owned()),
            None => Err(TaskError::Column {
                path: path.into(),
                column: name.to_owned(),
                role,
                found: keys().unwrap_or_default(),
            }),
        };
        let must = match value.get(&columns.must) {
            Some(groups) => Some(
                serde_json::from_value(groups.clone())
                    .map_err(|e| fail(format!("`{}`: {e}", columns.must)))?,
            ),
            None => None,
        };
        records.push(Record {
            text: needed(&columns.text, "text")?,
            intent: needed(&columns.intent, "intent")?,
            must,
            reply: value.get(&columns.reply).and_then(Value::as_str).map(str::to_owned),
        });
    }
    Ok(records)
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

pub(super) fn items(
    records: Vec<Record>,
    labels: &[String],
    path: &Path,
) -> Result<Vec<Item>, TaskError> {
    records
        .into_iter()
        .map(|record| {
            let intent = labels.binary_search(&record.intent).map_err(|_place| {
                TaskError::UnknownIntent { path: path.into(), intent: record.intent.clone() }
            })?;
            let named = words(&record.intent);
            let must = record.must.unwrap_or_else(|| naming(&named));
            let reply = record.reply.unwrap_or_else(|| format!("This is about: {named}."));
            Ok(Item { query: record.text, intent, must, reply })
        })
        .collect()
}

/// Groups that a reply which names an intent satisfies: its longer words, or all where none is long.
fn naming(label: &str) -> Vec<Vec<String>> {
    let all: Vec<&str> = label.split_whitespace().collect();
    let long: Vec<&str> = all.iter().copied().filter(|word| word.len() > 3).collect();
    let chosen = if long.is_empty() { all } else { long };
    chosen.into_iter().map(|word| vec![word.to_owned()]).collect()
}
