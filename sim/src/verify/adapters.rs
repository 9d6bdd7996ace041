//! Compares the adapters that two runs kept, file by file.

use std::fs;
use std::path::{Path, PathBuf};

use agents::backbone::digest;

use crate::scenario::suggestion::message;

/// How many generations are equal, and what is to be said of the others.
///
/// Only those that the second run made are looked at; one that the recorded run did not keep is told.
pub(super) fn compare(recorded: &Path, made: &Path) -> (usize, Vec<String>) {
    let (mut equal, mut other) = (0, Vec::new());
    for generation in below(&made.join("adapters")).iter().flat_map(|agent| below(agent)) {
        let Ok(name) = generation.strip_prefix(made) else { continue };
        let shown = message(name.display());
        let there = recorded.join(name);
        if !there.is_dir() {
            other.push(format!("{shown} is not in the run directory"));
            continue;
        }
        let wrong = below(&generation).into_iter().find(|file| {
            let same = file.file_name().map(|name| there.join(name));
            let digests = (digest::of_file(file), same.map(|same| digest::of_file(&same)));
            !matches!(digests, (Ok(one), Some(Ok(same))) if one == same)
        });
        match wrong.and_then(|file| Some(file.file_name()?.to_owned())) {
            Some(file) => other.push(format!("{shown}: {} differs", message(file.display()))),
            None => equal += 1,
        }
    }
    (equal, other)
}

/// What is in a folder, in the order of its names; nothing where there is none.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_and_missing_adapters_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |run: &str, generation: &str, text: &str| {
            let path = folder.path().join(run).join("adapters/reply").join(generation);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("adapter_model.safetensors"), text).unwrap();
        };
        for (generation, old, new) in [("g1", "a", "a"), ("g2", "a", "b")] {
            write("old", generation, old);
            write("new", generation, new);
        }
        write("new", "g3", "c");
        let (equal, other) = compare(&folder.path().join("old"), &folder.path().join("new"));
        assert_eq!(equal, 1);
        let expected = [
            "adapters/reply/g2: adapter_model.safetensors differs",
            "adapters/reply/g3 is not in the run directory",
        ];
        assert_eq!(other, expected);
    }
}
