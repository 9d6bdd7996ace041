//! The tokenizer of a GGUF file, written down as a `tokenizer.json` would be and read as one.
//!
//! Two kinds exist in the files that are read: byte-level BPE (`gpt2`) with its merges, and SentencePiece
//! BPE (`llama`) whose merges follow from the scores of its pieces. Both with the normaliser and the splits
//! that their names stand for; a name that is not known here is refused, for other splits would be wrong
//! without anybody noticing.

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::gguf_file::Value as Entry;
use serde_json::{Map, Value, json};

use super::Gguf;
use crate::chat_template;
use crate::error::{ModelError, Result};
use crate::tokenizer::Tokenizer;

/// Most tokens of a vocabulary: the largest known, Gemma's, has 262,144.
const MOST_TOKENS: usize = 1 << 20;
/// Longest piece of a SentencePiece vocabulary, in bytes.
const LONGEST_PIECE: usize = 512;
/// Most merges that follow from scores: Gemma's 262,144 pieces have half a million.
const MOST_MERGES: usize = 1 << 22;
/// Splits under which llama.cpp begins texts with a token of their own.
const LLAMA3: [&str; 3] = ["llama-bpe", "llama3", "llama-v3"];
const WORDS: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+";
const REST: &str = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SHORT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)";

impl Gguf {
    /// The vocabulary.
    ///
    /// # Errors
    /// When it is missing, malformed, or of a kind that is not known.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let tokens = self.texts("tokens")?;
        if tokens.len() > MOST_TOKENS {
            let reason = format!("{} tokens; {MOST_TOKENS} are read", tokens.len());
            return Err(ModelError::Tokenizer(format!("the GGUF file has {reason}")));
        }
        let kinds: Vec<i64> = self
            .array("token_type")
            .unwrap_or_default()
            .iter()
            .map(|kind| match kind {
                Entry::I32(kind) => i64::from(*kind),
                Entry::U32(kind) => i64::from(*kind),
                _ => 1,
            })
            .collect();
        let kind = |token: usize| kinds.get(token).copied().unwrap_or(1);
        let mut json = match self.text("tokenizer.ggml.model") {
            Some("gpt2") => self.byte_level()?,
            Some("llama") => self.sentence_piece(&tokens, &kind)?,
            other => return Err(unknown("kind", other.unwrap_or("none"))),
        };
        let vocabulary: Map<String, Value> =
            tokens.iter().enumerate().map(|(id, text)| ((*text).to_owned(), json!(id))).collect();
        if vocabulary.len() < tokens.len() {
            return Err(ModelError::Tokenizer("the GGUF file has a token twice".to_owned()));
        }
        json["model"]["vocab"] = Value::Object(vocabulary);
        json["post_processor"] = self.around(&tokens);
        // Unknown and control tokens are special; the user's own are only never split.
        let added = tokens.iter().enumerate().filter(|(id, _)| (2..=4).contains(&kind(*id))).map(
            |(id, text)| {
                json!({
                    "id": id, "content": text, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": kind(id) != 4,
                })
            },
        );
        json["added_tokens"] = added.collect();
        let text = json.to_string();
        // The tree takes many times the text's memory, and reading the text takes as much again.
        drop(json);
        Tokenizer::from_bytes(text.as_bytes())
    }

    /// What puts the tokens of the beginning and the end around a text, where the file or its kind says so.
    fn around(&self, tokens: &[&str]) -> Value {
        let llama3 = self.splits().is_some_and(|splits| LLAMA3.contains(&splits));
        let begins = llama3 || self.text("tokenizer.ggml.model") == Some("llama");
        let token = |wanted: &str, usual: bool, key: &str| {
            let wanted = match self.entry(wanted) {
                Some(Entry::Bool(wanted)) => *wanted,
                _ => usual,
            };
            let id = self.id(key).filter(|_| wanted)?;
            tokens.get(id as usize).map(|text| (*text, id))
        };
        let begin = token("add_bos_token", begins, "bos_token_id");
        let end = token("add_eos_token", false, "eos_token_id");
        let special = |(text, _): (&str, u32)| json!({"SpecialToken": {"id": text, "type_id": 0}});
        let sequence = |id: &&str| json!({"Sequence": {"id": id, "type_id": 0}});
        let template = |texts: &[&str]| -> Vec<Value> {
            let texts = texts.iter().map(sequence);
            begin.map(special).into_iter().chain(texts).chain(end.map(special)).collect()
        };
        let tokens: Map<String, Value> = begin
            .into_iter()
            .chain(end)
            .map(|(text, id)| (text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]})))
            .collect();
        if tokens.is_empty() {
            return Value::Null;
        }
        json!({"type": "TemplateProcessing", "single": template(&["A"]),
            "pair": template(&["A", "B"]), "special_tokens": tokens})
    }

    /// The vocabulary with the file's chat template, where it has one; `path` is for errors.
    ///
    /// # Errors
    /// As [`Gguf::tokenizer`]. A malformed template is an error where it is used.
    pub fn chat_tokenizer(&self, path: &Path) -> Result<Tokenizer> {
        let ends = ["eos_token_id", "eot_token_id", "eom_token_id"];
        let ends = ends.into_iter().filter_map(|key| self.id(key));
        let tokenizer = self.tokenizer()?.with_ends(ends.collect());
        let Some(source) = self.chat_template() else { return Ok(tokenizer) };
        let tokens = self.texts("tokens")?;
        let text = |key: &str| self.id(key).and_then(|id| tokens.get(id as usize).copied());
        let template =
            chat_template::read(source, text("bos_token_id"), text("eos_token_id"), path);
        Ok(tokenizer.with_chat(template))
    }

    fn byte_level(&self) -> Result<Value> {
        let merges = self.texts("merges")?.into_iter().map(|merge| {
            let reason = || ModelError::Tokenizer(format!("{merge:?} is no merge of two pieces"));
            merge.split_once(' ').ok_or_else(reason)
        });
        let merges = merges.collect::<Result<Vec<_>>>()?;
        let bytes = |regex: bool| {
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": regex})
        };
        let sequence = |first: Value, regex: bool| json!({"type": "Sequence", "pretokenizers": [first, bytes(regex)]});
        let split = |digits: &str| {
            let regex = format!("{SHORT}|{WORDS}|{digits}|{REST}");
            let split = json!({"type": "Split", "pattern": {"Regex": regex},
                "behavior": "Isolated", "invert": false});
            sequence(split, false)
        };
        let pre = self.splits().unwrap_or("none");
        let whole = LLAMA3.contains(&pre);
        let splits = match pre {
            "gpt-2" => bytes(true),
            "qwen2" => split(r"\p{N}"),
            "smollm" => sequence(json!({"type": "Digits", "individual_digits": true}), true),
            _ if whole => split(r"\p{N}{1,3}"),
            other => return Err(unknown("splits", other)),
        };
        Ok(json!({
            "version": "1.0",
            "normalizer": (pre == "qwen2").then(|| json!({"type": "NFC"})),
            "pre_tokenizer": splits,
            "decoder": bytes(true),
            "model": {"type": "BPE", "ignore_merges": whole, "merges": merges},
        }))
    }

    fn sentence_piece(&self, tokens: &[&str], kind: &dyn Fn(usize) -> i64) -> Result<Value> {
        let scores: Vec<f32> = self
            .array("scores")
            .unwrap_or_default()
            .iter()
            .filter_map(|s| s.to_f32().ok())
            .collect();
        if scores.len() != tokens.len() {
            let reason = format!("{} scores for {} tokens", scores.len(), tokens.len());
            return Err(ModelError::Tokenizer(reason));
        }
        let prefix = match self.entry("add_space_prefix") {
            Some(Entry::Bool(prefix)) => *prefix,
            _ => true,
        };
        let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let unspace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
        let (mut before, mut after) =
            (vec![space], vec![unspace, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})]);
        if prefix {
            before.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
            after.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let unknown = (0..tokens.len()).find(|&id| kind(id) == 2).map(|id| tokens[id]);
        Ok(json!({
            "version": "1.0",
            "normalizer": {"type": "Sequence", "normalizers": before},
            "decoder": {"type": "Sequence", "decoders": after},
            "model": {"type": "BPE", "unk_token": unknown, "fuse_unk": true, "byte_fallback": true,
                "merges": merges(tokens, &scores, kind)?},
        }))
    }

    /// The name of the splits before merging.
    fn splits(&self) -> Option<&str> {
        self.text("tokenizer.ggml.pre")
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.content.metadata.get(&format!("tokenizer.ggml.{key}"))
    }

    /// The number of a token that an entry names.
    fn id(&self, key: &str) -> Option<u32> {
        match self.entry(key) {
            Some(Entry::U32(id)) => Some(*id),
            Some(Entry::I32(id)) => u32::try_from(*id).ok(),
            _ => None,
        }
    }

    fn array(&self, key: &str) -> Option<&[Entry]> {
        match self.entry(key) {
            Some(Entry::Array(values)) => Some(values),
            _ => None,
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<&str>> {
        let missing = || ModelError::Tokenizer(format!("the GGUF file has no {key}"));
        let texts = self.array(key).ok_or_else(missing)?.iter().map(|value| match value {
            Entry::String(text) => Ok(text.as_str()),
            _ => Err(missing()),
        });
        texts.collect()
    }
}

/// Every way to make a piece of two, best pieces first; equally good ones in the order of their parts.
fn merges<'a>(
    tokens: &[&'a str],
    scores: &[f32],
    kind: &dyn Fn(usize) -> i64,
) -> Result<Vec<(&'a str, &'a str)>> {
    let pieces = || tokens.iter().enumerate().filter(|(id, _)| matches!(kind(*id), 1 | 4));
    let ids: HashMap<&str, usize> = pieces().map(|(id, text)| (*text, id)).collect();
    let mut found = Vec::new();
    for (id, text) in pieces() {
        if text.len() > LONGEST_PIECE {
            let reason = format!("a piece of {} bytes; {LONGEST_PIECE} are read", text.len());
            return Err(ModelError::Tokenizer(reason));
        }
        let first = found.len();
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                found.push((scores.get(id).copied().unwrap_or(0.0), l, r, left, right));
            }
        }
        if found.len() > MOST_MERGES {
            return Err(ModelError::Tokenizer(format!("more than {MOST_MERGES} merges")));
        }
        found[first..].sort_by_key(|&(_, l, r, _, _)| (l, r));
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    Ok(found.into_iter().map(|(_, _, _, left, right)| (left, right)).collect())
}

fn unknown(what: &str, found: &str) -> ModelError {
    ModelError::Tokenizer(format!("the GGUF file has {what} {found:?}, which are not known"))
}
