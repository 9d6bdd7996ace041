//! Which files of a repository a backbone needs.
//!
//! Pure but for the index of shards, which is read from the cache. Names in it come from strangers.

use std::collections::BTreeSet;
use std::path::Path;

use super::error::HubError;
use super::model::{HubModel, is_plain};
use crate::backbone::checkpoint::{self, PICKLES, SINGLE};
use crate::error::Result;

pub(super) use crate::backbone::checkpoint::INDEX;

/// The largest index of shards that is fetched, in bytes.
pub(super) const LARGEST_INDEX: u64 = 16 << 20;
/// The largest file that is not weights, in bytes; vocabularies reach 40 MB.
pub(super) const LARGEST_SMALL: u64 = 256 << 20;
/// Most shards of one model.
const MOST_SHARDS: usize = 512;
/// Most GGUF files that a message lists.
const LISTED: usize = 8;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
/// May hold the chat template; other tools' caches do not always have it.
pub(super) const CHAT: &str = "tokenizer_config.json";
/// What a backbone or its chat template may read besides. The second and the third are read by nothing here:
/// a merged model gets copies of them, for transformers.
const OPTIONAL: [&str; 5] = [
    CHAT,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
];

/// What is fetched of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// Files that are no weights.
    pub(super) small: Vec<&'static str>,
    /// The weights.
    pub(super) weights: Weights,
}

/// How a repository keeps its weights.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Weights {
    /// In one file.
    One(String),
    /// In the shards that [`INDEX`] names.
    Shards,
}

/// What is fetched of a repository with these files.
pub(super) fn of(model: &HubModel, files: &BTreeSet<&str>) -> Result<Selection, HubError> {
    let missing = |file: &'static str, advice: &str| HubError::MissingFile {
        model: model.to_string(),
        file,
        advice: advice.to_owned(),
    };
    if let Some(file) = model.file() {
        if !files.contains(file) {
            return Err(missing("such file", &ggufs(model, files)));
        }
        return Ok(Selection { small: Vec::new(), weights: Weights::One(file.to_owned()) });
    }
    let weights = if files.contains(SINGLE) {
        Weights::One(SINGLE.to_owned())
    } else if files.contains(INDEX) {
        Weights::Shards
    } else if let Some(file) = pickle(files) {
        let file = file.escape_debug().take(100).collect();
        return Err(HubError::Pickle { model: model.to_string(), file });
    } else {
        return Err(missing(SINGLE, &ggufs(model, files)));
    };
    if !files.contains(CONFIG) {
        return Err(missing(CONFIG, "it is no model of the transformers library"));
    }
    if !files.contains(TOKENIZER) {
        let advice = "only fast tokenizers are read; load it with transformers' AutoTokenizer, save it with \
                      save_pretrained into a folder with the model, and name the folder with `path`";
        return Err(missing(TOKENIZER, advice));
    }
    let optional = OPTIONAL.into_iter().filter(|file| files.contains(file));
    Ok(Selection { small: [CONFIG, TOKENIZER].into_iter().chain(optional).collect(), weights })
}

/// The shards that an index in the cache names, all of them in the repository.
pub(super) fn shards(index: &Path, files: &BTreeSet<&str>) -> Result<BTreeSet<String>> {
    let shards = checkpoint::shards(index)?;
    let refuse = |reason: String| HubError::Malformed { what: "index of shards", reason };
    if shards.is_empty() || shards.len() > MOST_SHARDS {
        let reason = format!("it names {} shards; 1 to {MOST_SHARDS} are fetched", shards.len());
        return Err(refuse(reason).into());
    }
    for shard in &shards {
        if !is_plain(shard) || !files.contains(shard.as_str()) {
            return Err(refuse(format!("{shard:?} is not a file of the repository")).into());
        }
    }
    Ok(shards)
}

/// What a snapshot lacks of a model; nothing where it is complete.
pub(super) fn missing(model: &HubModel, snapshot: &Path) -> Vec<String> {
    let lacks = |file: &&str| !snapshot.join(file).is_file();
    if let Some(file) = model.file() {
        return Some(file).into_iter().filter(lacks).map(str::to_owned).collect();
    }
    let mut missing: Vec<String> =
        [CONFIG, TOKENIZER].into_iter().filter(lacks).map(str::to_owned).collect();
    if lacks(&SINGLE) {
        match checkpoint::shards(&snapshot.join(INDEX)) {
            Ok(shards) => missing.extend(shards.into_iter().filter(|shard| lacks(&shard.as_str()))),
            Err(_no_index) => missing.push(SINGLE.to_owned()),
        }
    }
    missing
}

fn pickle<'a>(files: &BTreeSet<&'a str>) -> Option<&'a str> {
    let ending = |file: &str| file.rsplit_once('.').map(|(_, ending)| ending.to_owned());
    files
        .iter()
        .find(|file| {
            !file.contains('/') && ending(file).is_some_and(|e| PICKLES.contains(&e.as_str()))
        })
        .copied()
}

/// The advice to name one of the GGUF files that are there.
fn ggufs(model: &HubModel, files: &BTreeSet<&str>) -> String {
    let names: Vec<&str> = files
        .iter()
        .filter(|file| file.ends_with(".gguf") && is_plain(file))
        .take(LISTED)
        .copied()
        .collect();
    if names.is_empty() {
        return "it holds no weights that can be read (safetensors or GGUF)".to_owned();
    }
    let names = names.join(", ");
    format!("write {}/FILE with one of {names}", model.repository())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(model: &str, files: &[&str]) -> Result<Selection, HubError> {
        of(&model.parse().unwrap(), &files.iter().copied().collect())
    }

    #[test]
    fn only_what_is_needed_is_chosen() {
        let files = [
            "README.md",
            ".gitattributes",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "../../x",
        ];
        let chosen = select("a/b", &files).unwrap();
        assert_eq!(chosen.small, ["config.json", "tokenizer.json", "tokenizer_config.json"]);
        assert_eq!(chosen.weights, Weights::One("model.safetensors".to_owned()));
        let sharded = ["config.json", "tokenizer.json", "model.safetensors.index.json"];
        assert_eq!(select("a/b", &sharded).unwrap().weights, Weights::Shards);
        let gguf = select("a/b/x.gguf", &["x.gguf", "y.gguf"]).unwrap();
        assert_eq!((gguf.small.len(), gguf.weights), (0, Weights::One("x.gguf".to_owned())));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_a_way_out() {
        let says = |model: &str, files: &[&str]| select(model, files).unwrap_err().to_string();
        let pickles = ["config.json", "tokenizer.json", "pytorch_model.bin"];
        assert!(says("a/b", &pickles).contains("pytorch_model.bin, a pickle file"));
        assert!(says("a/b", &["config.json", "model.safetensors"]).contains("AutoTokenizer"));
        assert!(says("a/b", &["model.safetensors", "tokenizer.json"]).contains("no config.json"));
        assert!(
            says("a/b", &["q4.gguf", "\u{1b}.gguf"])
                .ends_with("write a/b/FILE with one of q4.gguf")
        );
        assert!(says("a/b/x.gguf", &["q4.gguf"]).contains("one of q4.gguf"));
        assert!(says("a/b", &["README.md"]).contains("no weights"));
    }
}
