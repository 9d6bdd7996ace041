//! `scenario.toml` and a `--set` on the line before it: whatever they are, a checked scenario or mistakes that
//! can be shown, and nothing is read outside of the scenario's folder.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sim::scenario::TaskPlan;

/// A folder with data; its scenario is written anew for each input.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("polylogue-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let data = "{\"text\":\"a\",\"intent\":\"b\"}\n";
    for name in ["train.jsonl", "holdout.jsonl"] {
        std::fs::write(folder.join(name), data).expect("a file");
    }
    folder
});

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (change, text) = data.split_at(end);
    let file = FOLDER.join("scenario.toml");
    std::fs::write(&file, text).expect("a file");
    let change = String::from_utf8_lossy(change).into_owned();
    let changes = if change.is_empty() { Vec::new() } else { vec![change] };
    match sim::scenario::load(&file, &changes, None) {
        Ok(scenario) => {
            assert!(!scenario.agents.is_empty() && scenario.episodes > 0);
            if changes.is_empty() {
                let TaskPlan::Support(task) = &scenario.task else { return };
                assert!(task.train.starts_with(&*FOLDER));
                assert!(!task.train.components().any(|part| part.as_os_str() == ".."));
            }
        }
        Err(problems) => {
            assert!(!problems.all().is_empty());
            let shown = format!("{:?}", miette::Report::new(problems));
            assert!(!shown.contains('\u{202e}'), "{shown}");
        }
    }
});
