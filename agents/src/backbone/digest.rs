//! SHA-256 digests of the files that a backbone is loaded from, for the record of a run.
//!
//! Files are read piece by piece; nothing of them is kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::checkpoint::{self, INDEX, SINGLE};
use super::gguf::Gguf;
use crate::error::{ModelError, Result};

/// What a folder may hold besides: how a conversation is written and where a turn ends.
const OPTIONAL: [&str; 3] =
    ["tokenizer_config.json", "chat_template.jinja", "generation_config.json"];

/// The files that [`super::Backbone::load`] reads at a path, by name, each with its SHA-256 in lower-case
/// hexadecimal: a GGUF file, or of a folder `config.json`, `tokenizer.json`, the weights, and where they are
/// there `tokenizer_config.json`, `chat_template.jinja` and `generation_config.json`.
///
/// # Errors
/// When a file is missing or cannot be read.
pub fn digests(path: &Path) -> Result<BTreeMap<String, String>> {
    if Gguf::is(path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(BTreeMap::from([(name, of_file(path)?)]));
    }
    let mut names = vec!["config.json".to_owned(), "tokenizer.json".to_owned()];
    names.extend(OPTIONAL.iter().filter(|name| path.join(name).is_file()).map(ToString::to_string));
    let index = path.join(INDEX);
    if index.exists() && !path.join(SINGLE).exists() {
        names.push(INDEX.to_owned());
        names.extend(checkpoint::shards(&index)?);
    } else {
        names.push(SINGLE.to_owned());
    }
    names.into_iter().map(|name| Ok((name.clone(), of_file(&path.join(name))?))).collect()
}

/// The digest of a text or of bytes in memory.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// The digest of a file.
///
/// # Errors
/// When it cannot be read.
pub fn of_file(path: &Path) -> Result<String> {
    let fail = |source| ModelError::File { path: path.into(), source };
    let mut digest = Sha256::new();
    let mut file = File::open(path).map_err(fail)?;
    std::io::copy(&mut file, &mut digest).map_err(fail)?;
    Ok(hexadecimal(&digest.finalize()))
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "abc" and of nothing, from FIPS 180-4's examples.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_are_those_of_the_files_that_are_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("config.json", "abc");
        write("tokenizer.json", "");
        write("README.md", "not loaded");
        assert!(digests(folder.path()).is_err(), "weights are missing");
        write(INDEX, r#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#);
        write("one.safetensors", "abc");
        write("two.safetensors", "");
        let found = digests(folder.path()).unwrap();
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        let sharded =
            ["config.json", INDEX, "one.safetensors", "tokenizer.json", "two.safetensors"];
        assert_eq!(names, sharded);
        assert_eq!(
            (found["config.json"].as_str(), found["two.safetensors"].as_str()),
            (ABC, EMPTY)
        );
        write(SINGLE, "abc");
        let found = digests(folder.path()).unwrap();
        assert_eq!((found.len(), found[SINGLE].as_str()), (3, ABC));
        write("chat_template.jinja", "abc");
        write("generation_config.json", "");
        let found = digests(folder.path()).unwrap();
        assert_eq!((found.len(), found["chat_template.jinja"].as_str()), (5, ABC));
        write("x.gguf", "abc");
        let found = digests(&folder.path().join("x.gguf")).unwrap();
        assert_eq!(found, BTreeMap::from([("x.gguf".to_owned(), ABC.to_owned())]));
        assert_eq!(of_bytes(b"abc"), ABC);
    }
}
