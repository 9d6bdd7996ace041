//! From a path on the command line to a checked scenario.
//!
//! The only file of `scenario/` that touches the disk: the checks ask it what is where. Nothing is written.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::Path;

use serde::Deserialize as _;
use toml::de::DeTable;
use toml_edit::DocumentMut;

use super::file::ScenarioFile;
use super::overrides::Override;
use super::problem::Problem;
use super::problem::report::Problems;
use super::suggestion::{advice, nearest};
use super::validate::{Seen, Setting};
use super::{Origin, Scenario};
use super::{schema, structure, validate};
use crate::recording::Manifest;

/// The largest scenario that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// The longest first line of a data file that is read for its columns, in bytes.
const LONGEST_LINE: u64 = 1 << 16;

/// The scenario of a run as it was after all overrides.
const RESOLVED: &str = "scenario.resolved.toml";

/// The name of a scenario inside its folder.
const FILE_NAME: &str = "scenario.toml";

/// Reads and checks a scenario: a folder that holds `scenario.toml`, or a TOML file.
///
/// Each override is `path=value`, as in `triggers.0.train.grpo.steps=4`; a seed replaces the file's.
///
/// # Errors
/// With every mistake of the scenario at once.
pub fn load(path: &Path, overrides: &[String], seed: Option<u64>) -> Result<Scenario, Problems> {
    let file = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
    let shown = file.display().to_string();
    let source = read(path, &file).map_err(|problem| Problems::new(&shown, "", vec![problem]))?;
    let mut problems = Vec::new();
    let mut changes: Vec<Override> = Vec::new();
    for typed in overrides {
        match Override::parse(typed) {
            Ok(change) => changes.push(change),
            Err(problem) => problems.push(problem),
        }
    }
    let data_from_command_line = changes.iter().map(|change| change.path.clone()).collect();
    changes.extend(seed.and_then(|seed| i64::try_from(seed).ok()).map(Override::seed));
    let resolved = match changed(&source, &changes, &mut problems) {
        Ok(resolved) => resolved,
        Err(mut syntax) => {
            syntax.append(&mut problems);
            return Err(Problems::new(&shown, &source, syntax));
        }
    };
    let shown = match (overrides.is_empty(), seed) {
        (false, _) => format!("{shown} with --set"),
        (true, Some(_)) => format!("{shown} with --seed"),
        (true, None) => shown,
    };
    let folder = file.parent().unwrap_or(Path::new(""));
    let origin = Origin::now(folder, data_from_command_line);
    let setting = Setting {
        folder,
        working_folder: Path::new(""),
        stays: &|path| stays(folder, path),
        look: &look,
        from_command_line: origin.from_command_line.clone(),
    };
    let mut scenario = check(&resolved, &setting, problems)
        .map_err(|problems| Problems::new(&shown, &resolved, problems))?;
    scenario.name = name(&file);
    scenario.seed = seed.unwrap_or(scenario.seed);
    (scenario.source, scenario.origin) = (source, origin);
    Ok(scenario)
}

/// Reads and checks the scenario of a recorded run again, as it was after `--set` and `--seed`. Where the
/// scenario's folder is elsewhere now, `folder` says where; none where that is not known at all.
#[must_use]
pub fn recorded(
    directory: &Path,
    manifest: &Manifest,
    folder: Option<&Path>,
) -> Option<Result<Scenario, Problems>> {
    changed_since(directory, manifest, folder, &[], None)
}

/// The same with further values changed; paths among them are relative to where the run was begun.
#[must_use]
pub fn changed_since(
    directory: &Path,
    manifest: &Manifest,
    folder: Option<&Path>,
    overrides: &[String],
    seed: Option<u64>,
) -> Option<Result<Scenario, Problems>> {
    let mut origin = match (manifest.origin.clone(), folder) {
        (None, None) => return None,
        (origin, _) => origin.unwrap_or_default(),
    };
    if let Some(folder) = folder {
        folder.clone_into(&mut origin.folder);
    }
    let text = |name: &str| {
        let file = directory.join(name);
        read(&file, &file)
            .map_err(|problem| Problems::new(&file.display().to_string(), "", vec![problem]))
    };
    let scenario = || {
        let (source, resolved) = (text(FILE_NAME)?, text(RESOLVED)?);
        let shown = directory.join(RESOLVED).display().to_string();
        let mut problems = Vec::new();
        let mut changes: Vec<Override> = Vec::new();
        for typed in overrides {
            match Override::parse(typed) {
                Ok(change) => changes.push(change),
                Err(problem) => problems.push(problem),
            }
        }
        let mut origin = origin.clone();
        origin.from_command_line.extend(changes.iter().map(|change| change.path.clone()));
        changes.extend(seed.and_then(|seed| i64::try_from(seed).ok()).map(Override::seed));
        let resolved = changed(&resolved, &changes, &mut problems)
            .map_err(|syntax| Problems::new(&shown, &resolved, syntax))?;
        let setting = Setting {
            folder: &origin.folder,
            working_folder: &origin.working_folder,
            stays: &|path| stays(&origin.folder, path),
            look: &look,
            from_command_line: origin.from_command_line.clone(),
        };
        let checked = check(&resolved, &setting, problems);
        let mut scenario =
            checked.map_err(|problems| Problems::new(&shown, &resolved, problems))?;
        // A name is part of a path where a run directory is made.
        scenario.name = manifest.scenario.replace('/', "_");
        let seed = seed.unwrap_or(manifest.seed);
        (scenario.seed, scenario.source, scenario.origin) = (seed, source, origin.clone());
        Ok(scenario)
    };
    Some(scenario())
}

/// Checks a text; `problems` are those found before.
fn check(
    resolved: &str,
    setting: &Setting<'_>,
    mut problems: Vec<Problem>,
) -> Result<Scenario, Vec<Problem>> {
    let (mut table, errors) = DeTable::parse_recoverable(resolved);
    if !errors.is_empty() {
        problems.extend(errors.iter().map(|error| syntax(error, resolved)));
        return Err(problems);
    }
    let declared = validate::Declared::new(table.get_ref());
    problems.extend(structure::walk(&schema::value(), &mut table, resolved));
    let file = ScenarioFile::deserialize(toml::de::Deserializer::from(table));
    match file {
        Ok(file) => validate::scenario(&file, &declared, setting, resolved, problems),
        Err(error) => {
            if problems.is_empty() {
                let at = error.span().unwrap_or_default().into();
                let reason = error.message().to_owned();
                problems.push(Problem::Undecodable { reason, at });
            }
            Err(problems)
        }
    }
}

/// The text with all changes made; mistakes in the changes go to `problems`.
fn changed(
    source: &str,
    changes: &[Override],
    problems: &mut Vec<Problem>,
) -> Result<String, Vec<Problem>> {
    let (_, errors) = DeTable::parse_recoverable(source);
    if !errors.is_empty() {
        return Err(errors.iter().map(|error| syntax(error, source)).collect());
    }
    if changes.is_empty() {
        return Ok(source.to_owned());
    }
    let mut document: DocumentMut = source.parse().map_err(|error: toml_edit::TomlError| {
        let at = error.span().unwrap_or_default().into();
        vec![Problem::Syntax { reason: error.message().to_owned(), at, help: None }]
    })?;
    for change in changes {
        if let Err(problem) = change.apply(&mut document) {
            problems.push(problem);
        }
    }
    Ok(document.to_string())
}

fn syntax(error: &toml::de::Error, text: &str) -> Problem {
    let span = error.span().unwrap_or_default();
    let duplicate = error.message().contains("duplicate key");
    let line = text.get(..span.start).and_then(|before| before.lines().last()).unwrap_or_default();
    let help = if duplicate {
        Some(
            "each key and each `[table]` may occur once; for several entries of a list write `[[…]]`",
        )
    } else if line.contains('=') {
        Some("texts stand in quotes, lists in [ ], tables in { }")
    } else {
        None
    };
    let reason = error.message().trim().replace('\n', "; ");
    Problem::Syntax { reason, at: span.into(), help: help.map(str::to_owned) }
}

/// The folder's name, or the file's where it is not called `scenario.toml`.
fn name(file: &Path) -> String {
    let called_otherwise = file.file_name().is_some_and(|name| name != FILE_NAME);
    let full = std::path::absolute(file).unwrap_or_else(|_unknown| file.to_owned());
    let part =
        if called_otherwise { full.file_stem() } else { full.parent().and_then(Path::file_name) };
    part.map_or_else(|| "scenario".to_owned(), |part| part.to_string_lossy().into_owned())
}

fn read(path: &Path, file: &Path) -> Result<String, Problem> {
    let shown = file.display().to_string();
    let unreadable = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => missing(path, file),
        _ => Problem::UnreadableFile { path: shown.clone(), reason: e.to_string() },
    };
    // A pipe would make us wait for ever.
    if !std::fs::metadata(file).map_err(unreadable)?.is_file() {
        let reason = "it is not an ordinary file".to_owned();
        return Err(Problem::UnreadableFile { path: shown, reason });
    }
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(unreadable)?;
    opened.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Problem::FileTooLarge { path: shown, limit: LARGEST });
    }
    String::from_utf8(bytes).map_err(|e| {
        let offset = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
        Problem::NotText { path: shown, offset, line }
    })
}

fn missing(path: &Path, file: &Path) -> Problem {
    let help = if path == file {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let entries = std::fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten();
        let names: Vec<String> =
            entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let typed = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        match nearest(&typed, &names) {
            Some(_) => advice(&typed, nearest(&typed, &names)),
            None => {
                "give a folder with a scenario.toml, such as scenarios/customer_service".to_owned()
            }
        }
    } else {
        "the folder is there, but has no scenario.toml".to_owned()
    };
    Problem::MissingFile { path: file.display().to_string(), help }
}

/// Entries of a folder that are looked at for links: a model has fewer files.
const MOST_ENTRIES: usize = 1_000;

/// Whether a path, and in a folder each entry, is below the scenario's folder once links are followed. What is
/// not there leads nowhere.
pub(crate) fn stays(folder: &Path, path: &Path) -> bool {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let (Ok(root), Ok(real)) = (folder.canonicalize(), path.canonicalize()) else { return true };
    if !real.starts_with(&root) {
        return false;
    }
    let entries = std::fs::read_dir(&real).into_iter().flatten().flatten().take(MOST_ENTRIES);
    let mut targets = entries.filter_map(|entry| entry.path().canonicalize().ok());
    targets.all(|target| target.starts_with(&root))
}

/// What is at a path, and which columns it has where it is data.
fn look(path: &Path) -> Seen {
    let Ok(metadata) = std::fs::metadata(path) else { return Seen::Nothing };
    if metadata.is_dir() {
        return Seen::Folder;
    }
    let columns = if metadata.is_file() { columns(path) } else { None };
    Seen::File { columns: columns.unwrap_or_default() }
}

fn columns(path: &Path) -> Option<Vec<String>> {
    let extension = path.extension()?.to_str()?;
    let mut line = String::new();
    let reader = File::open(path).ok()?.take(LONGEST_LINE);
    match extension {
        "csv" => {
            let mut reader = csv::Reader::from_reader(reader);
            Some(reader.headers().ok()?.iter().map(|name| name.trim().to_owned()).collect())
        }
        "jsonl" => {
            let mut reader = BufReader::new(reader);
            while line.trim().is_empty() && reader.read_line(&mut line).ok()? > 0 {}
            let record: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(&line).ok()?;
            Some(record.into_iter().map(|(name, _)| name).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
