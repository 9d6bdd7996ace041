//! Finds the chat template of a Hugging Face directory, and the tokens that end a text or a turn.

use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use super::{ChatTemplate, Unusable};
use crate::error::{ModelError, Result};
use crate::tokenizer::Tokenizer;

/// The largest file that is read here, in bytes: a tokenizer's configuration may list every added token.
const LARGEST: u64 = 64 << 20;

/// Gives a tokenizer the chat template of a directory, where it has one: `chat_template.jinja`, or else the
/// entry of `tokenizer_config.json` (of several, the one named `default`). The tokens that end a text or a
/// turn are those that `generation_config.json`, or else `config.json`, names as `eos_token_id`, and the
/// `eos_token` of `tokenizer_config.json`.
///
/// A template that cannot be used is an error where it is used.
///
/// # Errors
/// When a file cannot be read, is no JSON or is absurdly large; the error names it.
pub(crate) fn attach(tokenizer: Tokenizer, directory: &Path) -> Result<Tokenizer> {
    let config_path = directory.join("tokenizer_config.json");
    let config = json(&config_path)?;
    let file = directory.join("chat_template.jinja");
    let (bos, eos) = (token(&config, "bos_token"), token(&config, "eos_token"));
    let template = match text(&file)? {
        Some(source) => Some(read(&source, bos, eos, &file)),
        None => match entry(&config) {
            Ok(source) => source.map(|source| read(source, bos, eos, &config_path)),
            Err(reason) => Some(unusable(&config_path, "tokenizer configuration", reason)),
        },
    };
    let mut ends = numbers(&json(&directory.join("generation_config.json"))?);
    if ends.is_empty() {
        ends = numbers(&json(&directory.join("config.json"))?);
    }
    ends.extend(eos.and_then(|eos| tokenizer.id(eos)));
    let tokenizer = tokenizer.with_ends(ends);
    Ok(match template {
        Some(template) => tokenizer.with_chat(template),
        None => tokenizer,
    })
}

/// Parses a template; what is wrong with it is told, with the file that it comes from, when it is used.
pub(crate) fn read(
    source: &str,
    bos: Option<&str>,
    eos: Option<&str>,
    path: &Path,
) -> ChatTemplate {
    ChatTemplate::parse(source, bos, eos).unwrap_or_else(|error| {
        let reason = match error {
            ModelError::ChatTemplate(reason) => reason,
            other => other.to_string(),
        };
        unusable(path, "chat template", reason)
    })
}

/// What stands for a template that cannot be used.
fn unusable(path: &Path, what: &'static str, reason: String) -> ChatTemplate {
    let unusable = Unusable { path: path.into(), what, reason };
    ChatTemplate { template: Err(unusable), tokens: Map::new(), marks: Vec::new() }
}

/// A file of JSON; null where there is no such file.
fn json(path: &Path) -> Result<Value> {
    let Some(text) = text(path)? else { return Ok(Value::Null) };
    serde_json::from_str(&text).map_err(|e| malformed(path, "JSON file", e.to_string()))
}

/// A text file that need not exist.
fn text(path: &Path) -> Result<Option<String>> {
    let fail = |source| ModelError::File { path: path.into(), source };
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail(e)),
    };
    if size > LARGEST {
        let reason = format!("{size} bytes are more than the {LARGEST} that are read");
        return Err(malformed(path, "text file", reason));
    }
    std::fs::read_to_string(path).map(Some).map_err(fail)
}

/// The template of a tokenizer's configuration: a text, or of a list the one named `default`; or why it has
/// none that can be used.
fn entry(config: &Value) -> Result<Option<&str>, String> {
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => Ok(Some(source)),
        Some(Value::Array(entries)) => {
            let named = |entry: &Value| entry["name"].as_str().map(str::to_owned);
            let default = entries.iter().find(|entry| entry["name"] == "default");
            match default.map(|entry| &entry["template"]) {
                Some(Value::String(source)) => Ok(Some(source)),
                _ => {
                    let names: Vec<String> = entries.iter().filter_map(named).collect();
                    Err(format!("no chat template named `default`, only {names:?}"))
                }
            }
        }
        Some(_) => Err("`chat_template` is neither a text nor a list".to_owned()),
    }
}

/// A special token of a tokenizer's configuration: a text, or an object with its `content`.
fn token<'a>(config: &'a Value, name: &str) -> Option<&'a str> {
    let token = config.get(name)?;
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// The tokens that a configuration names as `eos_token_id`: one, or several.
fn numbers(config: &Value) -> Vec<u32> {
    let number = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match config.get("eos_token_id") {
        Some(Value::Array(ids)) => ids.iter().filter_map(number).collect(),
        Some(id) => number(id).into_iter().collect(),
        None => Vec::new(),
    }
}

fn malformed(path: &Path, what: &'static str, reason: String) -> ModelError {
    ModelError::Malformed { path: path.into(), what, reason }
}
