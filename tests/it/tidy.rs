//! The rules of the house that a machine can check.

use std::fs;
use std::path::{Path, PathBuf};

use polylogue_tests::root;

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

fn sources() -> Vec<(PathBuf, String)> {
    ["agents", "sim", "tui", "tests"]
        .iter()
        .flat_map(|name| files(&root().join(name), "rs"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

fn offenders(is_bad: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let shown = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    let bad = |(path, text): &(PathBuf, String)| is_bad(path, text).then(|| shown(path));
    sources().iter().filter_map(bad).collect()
}

const NONE: [String; 0] = [];

#[test]
fn every_file_opens_with_what_it_is() {
    assert_eq!(offenders(|_, text| !text.starts_with("//! ")), NONE);
}

#[test]
fn no_file_is_longer_than_500_lines() {
    assert_eq!(offenders(|_, text| text.lines().count() > 500), NONE);
}

#[test]
fn no_grab_bags() {
    let names = [
        "util", "utils", "common", "helper", "helpers", "manager", "base", "misc", "types", "imp",
        "mod",
    ];
    let is_bad = |path: &Path| {
        path.file_stem().is_some_and(|stem| names.iter().any(|name| stem.to_str() == Some(*name)))
    };
    assert_eq!(offenders(|path, _| is_bad(path)), NONE);
}

#[test]
fn nothing_is_left_behind() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimpl", "emented!")];
    assert_eq!(offenders(|_, text| marks.iter().any(|mark| text.contains(mark))), NONE);
}

#[test]
fn dependencies_run_one_way() {
    let names = |text: &str, krate: &str| {
        text.lines().any(|line| {
            let line = line.trim_start();
            !line.starts_with("//") && line.contains(&format!("{krate}::"))
        })
    };
    let within = |path: &Path, folder: &str| path.starts_with(root().join(folder));
    let wrong = offenders(|path, text| {
        let agents = within(path, "agents");
        let tui = within(path, "tui");
        let sim = within(path, "sim");
        (!agents && (names(text, "candle_core") || names(text, "tokenizers")))
            || (!tui && (names(text, "ratatui") || names(text, "crossterm")))
            || (!sim && names(text, "ractor") && !within(path, "tests"))
    });
    assert_eq!(wrong, NONE);
}

#[test]
fn the_pure_parts_stay_pure() {
    let pure = [
        "protocol",
        "topology",
        "mailbox",
        "flood",
        "script",
        "channel",
        "metric",
        "training/trigger",
        "conductor/stage",
        "event",
        "summary",
    ];
    let wrong = offenders(|path, text| {
        let sim = root().join("sim/src");
        let is_pure = pure
            .iter()
            .any(|part| path == sim.join(format!("{part}.rs")) || path.starts_with(sim.join(part)));
        is_pure
            && ["async ", "ractor::", "std::fs", "clock::", "tokio::"]
                .iter()
                .any(|word| text.contains(word))
    });
    assert_eq!(wrong, NONE);
}

/// A society's prompts come from `agents::prompt` alone, where every word has its origin. Only the channel counts
/// and cuts tokens itself.
#[test]
fn nobody_writes_prompts_of_their_own() {
    let reads = |text: &str| text.contains(".encode(") || text.contains(".encode_with_specials(");
    let found = offenders(|path, text| path.starts_with(root().join("sim/src")) && reads(text));
    let may = ["sim/src/channel.rs", "sim/src/tuning.rs"];
    let found: Vec<String> =
        found.into_iter().filter(|path| !may.contains(&path.as_str())).collect();
    assert_eq!(found, NONE);
}

#[test]
fn every_module_is_named_in_its_crate_layout() {
    for name in ["agents", "sim"] {
        let text = fs::read_to_string(root().join(name).join("src/lib.rs")).unwrap();
        for line in text.lines().filter_map(|l| l.strip_prefix("pub mod ")) {
            let module = line.trim_end_matches(';');
            assert!(text.contains(&format!("//! - [`{module}`]")), "{name}: {module}");
        }
    }
}

#[test]
fn no_reports_of_where_things_lay() {
    let words = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    assert_eq!(offenders(|_, text| words.iter().any(|word| text.contains(word))), NONE);
}

#[test]
fn every_kind_of_event_is_documented() {
    let source = fs::read_to_string(root().join("sim/src/event.rs")).unwrap();
    let documents = fs::read_to_string(root().join("docs/recording.md")).unwrap();
    let (_, kinds) = source.split_once("pub enum EventKind {").unwrap();
    let mut count = 0;
    for line in kinds.lines().take_while(|line| *line != "}") {
        let variant = line.strip_prefix("    ").and_then(|line| line.strip_suffix(" {"));
        let Some(variant) = variant.filter(|name| name.starts_with(char::is_uppercase)) else {
            continue;
        };
        let mut name = String::new();
        for letter in variant.chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.extend(letter.to_lowercase());
        }
        assert!(documents.contains(&format!("`{name}`")), "{name} is not in docs/recording.md");
        count += 1;
    }
    assert!(count >= 15, "the kinds were found");
}
