//! Every mistake that a scenario can contain is reported at its line and column, with a way out.
//!
//! One file in `tests/invalid_scenarios/` and one snapshot in `tests/snapshots/` for each, both named after
//! the mistake. Mistakes of the command line and of files that are no text are made here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use miette::{Diagnostic as _, GraphicalReportHandler, GraphicalTheme};
use sim::scenario;
use sim::scenario::problem::report::Problems;

/// Relative to the package, where cargo runs tests.
const FOLDER: &str = "invalid_scenarios";

/// A scenario whose only mistake is none of the overrides below.
const NEARLY_VALID: &str = "invalid_scenarios/unknown_signal.toml";

fn refused(path: &Path, overrides: &[&str]) -> Problems {
    let overrides: Vec<String> = overrides.iter().map(|&one| one.to_owned()).collect();
    match scenario::load(path, &overrides, None) {
        Ok(_) => panic!("{} was accepted", path.display()),
        Err(problems) => problems,
    }
}

/// The report without colours, as people see it in a terminal of 100 columns.
fn report(problems: &Problems) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::none()).with_width(100);
    let mut text = String::new();
    handler.render_report(&mut text, problems).unwrap();
    text
}

fn check(name: &str, problems: &Problems) {
    check_text(name, &report(problems));
}

fn check_text(name: &str, report: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(format!("invalid_scenario_{name}"), report));
}

/// The names of the variants of the mistakes in a report.
fn kinds(problems: &Problems) -> Vec<String> {
    let names = problems.all().iter().map(|problem| format!("{problem:?}"));
    let bare = |name: &str| {
        let own = name.strip_prefix("Fault(").or_else(|| name.strip_prefix("Meeting("));
        own.unwrap_or(name).to_owned()
    };
    names.map(|name| bare(name.split([' ', '{']).next().unwrap())).collect()
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect();
    files.sort();
    files
}

#[test]
fn each_mistake_is_reported() {
    for file in files() {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let problems = refused(&file, &[]);
        let expected = match name {
            "five_mistakes" => 5,
            "side_by_side" => 8,
            "syntax" => problems.all().len(),
            _ => 1,
        };
        assert_eq!(problems.all().len(), expected, "{name}: {:?}", kinds(&problems));
        check(name, &problems);
    }
}

#[test]
fn mistakes_on_the_command_line_are_reported() {
    let overrides = [
        ("invalid_override", "triggers.0.when.threshold.signal"),
        ("invalid_override_key", "triggers..signal=reward"),
        ("unreachable_override", "seed.value=3"),
        ("unreachable_override_position", "triggers.3.agent=reply"),
    ];
    for (name, typed) in overrides {
        let problems =
            refused(Path::new(NEARLY_VALID), &[typed, "triggers.0.when.threshold.signal=reward"]);
        assert_eq!(problems.all().len(), 1, "{name}: {:?}", kinds(&problems));
        check(name, &problems);
    }
    let problems = refused(Path::new(NEARLY_VALID), &["triggers=[]", "channel.text.max_tokens=0"]);
    check("count_out_of_range_with_set", &problems);
}

#[test]
fn missing_and_oversized_files_are_reported() {
    check("missing_file", &refused(Path::new("invalid_scenarios/unknown_signals.toml"), &[]));
    check("missing_file_in_folder", &refused(Path::new(FOLDER), &[]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scenario.toml");
    std::fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
    let problems = refused(&path, &[]);
    assert_eq!(kinds(&problems), ["FileTooLarge"]);
    // The message without the folder, whose name differs each time.
    let message = problems.all()[0].to_string();
    let shown = message.replace(&path.display().to_string(), "scenario.toml");
    check_text("file_too_large", &shown);
}

#[test]
fn every_kind_of_mistake_has_a_file() {
    let variants = |source: &str, opening: &str| -> BTreeSet<String> {
        let (_, variants) = source.split_once(opening).unwrap();
        let (variants, _) = variants.split_once("\n}\n").unwrap();
        variants
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
            .filter(|line| line.starts_with(char::is_uppercase))
            .map(|line| line.split([' ', '{', ',', '(']).next().unwrap().to_owned())
            .collect()
    };
    let problems = include_str!("../../sim/src/scenario/problem.rs");
    let mut all = variants(problems, "pub enum Problem {");
    assert!(all.remove("Fault"));
    let faults = include_str!("../../sim/src/scenario/problem/fault.rs");
    all.extend(variants(faults, "pub enum FaultProblem {"));
    assert!(all.remove("Meeting"));
    let meetings = include_str!("../../sim/src/scenario/problem/meeting.rs");
    all.extend(variants(meetings, "pub enum MeetingProblem {"));
    assert!(all.len() > 30, "{all:?}");
    for file in files() {
        for kind in kinds(&refused(&file, &[])) {
            all.remove(&kind);
        }
    }
    // Made in the tests above, or only by a broken disk or a mistake of ours.
    for elsewhere in [
        "MissingFile",
        "UnreadableFile",
        "FileTooLarge",
        "InvalidOverride",
        "UnreachableOverride",
        "Undecodable",
    ] {
        assert!(all.remove(elsewhere), "{elsewhere} has a file; take it off this list");
    }
    assert!(all.is_empty(), "no file in tests/{FOLDER} shows {all:?}");
}

#[test]
fn every_mistake_says_what_to_do() {
    for file in files() {
        for problem in refused(&file, &[]).all() {
            let helped = problem.help().is_some() || format!("{problem:?}").starts_with("Syntax");
            assert!(helped, "{}: {problem:?} has no help", file.display());
        }
    }
}
