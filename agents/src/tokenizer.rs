//! Text to tokens and back, and the training of our own byte-level BPE vocabulary.
//!
//! A thin layer over the `tokenizers` crate: it knows the special tokens and never pads or truncates.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use serde::de::IgnoredAny;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, PostProcessor as _, TokenizerBuilder, TruncationDirection};

use crate::backbone::read_file;
use crate::chat_template::{self, ChatTemplate};
use crate::error::{ModelError, Result};

/// Begins every text.
pub const BEGIN: &str = "<|begin|>";
/// Ends every text.
pub const END: &str = "<|end|>";

/// How often a text is read anew for special tokens that it spells once others are gone.
const MOST_ROUNDS: usize = 64;

/// A tokenizer with the identities of its special tokens.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    begin: Option<u32>,
    end: Option<u32>,
    chat: Option<Arc<ChatTemplate>>,
    /// Tokens that no text of a conversation may hold: all added ones but those that are blank, and the one that
    /// stands for what the vocabulary does not know, as any strange letter does.
    marks: Arc<HashSet<u32>>,
    /// Tokens that end a text or a turn of a chat, where the model's files name them.
    ends: Vec<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// When the file is missing, absurdly large or not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = read_file(path)?;
        Self::from_bytes(&bytes).map_err(|e| ModelError::Malformed {
            path: path.into(),
            what: "tokenizer",
            reason: e.to_string(),
        })
    }

    /// Reads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// When the bytes are not a tokenizer.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        // What is no JSON is told with its line, and the crate panics at some of it.
        let _: BTreeMap<String, IgnoredAny> = serde_json::from_slice(bytes)
            .map_err(|error| ModelError::Tokenizer(format!("it is no JSON object: {error}")))?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(bytes))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(refusal)?;
        let find = |names: &[&str]| names.iter().find_map(|name| inner.token_to_id(name));
        let begin = find(&[BEGIN, "<s>", "<|begin_of_text|>", "<|im_start|>"]);
        let end = find(&[END, "</s>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>"]);
        // Runs of spaces are added tokens too in some vocabularies, and say nothing.
        let blank = |text: &str| text.chars().all(|c| c.is_whitespace() || c == '▁');
        let unknown = unknown(&inner);
        let added = inner.get_added_tokens_decoder().into_iter();
        let marks = added.filter(|(_, token)| token.special || !blank(&token.content));
        let marks = marks.map(|(id, _)| id).filter(|id| unknown != Some(*id));
        let marks = Arc::new(marks.collect());
        Ok(Self { inner, begin, end, chat: None, marks, ends: Vec::new() })
    }

    /// Reads `tokenizer.json` of a Hugging Face directory, and the chat template where there is one:
    /// `chat_template.jinja`, or an entry of `tokenizer_config.json`.
    ///
    /// # Errors
    /// When `tokenizer.json` is missing, or a file is not what its name says.
    pub fn from_directory(directory: &Path) -> Result<Self> {
        chat_template::attach(Self::from_file(&directory.join("tokenizer.json"))?, directory)
    }

    /// The same vocabulary with a chat template.
    #[must_use]
    pub fn with_chat(self, template: ChatTemplate) -> Self {
        Self { chat: Some(Arc::new(template)), ..self }
    }

    /// The same vocabulary with the tokens that end a text or a turn, as the model's files name them; the first
    /// of them ends a text. Numbers that the vocabulary does not have are left out.
    #[must_use]
    pub fn with_ends(mut self, mut ends: Vec<u32>) -> Self {
        ends.retain(|&end| self.inner.id_to_token(end).is_some());
        self.end = ends.first().copied().or(self.end);
        Self { ends, ..self }
    }

    /// A vocabulary without words, for a network that is only fed with numbers.
    ///
    /// # Errors
    /// When the tokenizer cannot be built.
    pub fn empty() -> Result<Self> {
        let inner = tokenizers::Tokenizer::new(BPE::default());
        Self::from_bytes(inner.to_string(false).map_err(refusal)?.as_bytes())
    }

    /// Trains a byte-level BPE vocabulary of `size` tokens on `texts`.
    ///
    /// # Errors
    /// When the trainer refuses the texts.
    pub fn train(texts: impl Iterator<Item = String> + Send, size: usize) -> Result<Self> {
        let mut trainer = BpeTrainer::builder()
            .vocab_size(size)
            .min_frequency(2)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(BEGIN, true), AddedToken::from(END, true)])
            .build();
        let mut inner = TokenizerBuilder::default()
            .with_model(BPE::default())
            .with_normalizer(None::<tokenizers::NormalizerWrapper>)
            .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
            .with_post_processor(None::<tokenizers::PostProcessorWrapper>)
            .with_decoder(Some(ByteLevel::default()))
            .build()
            .map_err(refusal)?;
        inner.train(&mut trainer, texts).map_err(refusal)?;
        let json = inner.to_string(false).map_err(refusal)?;
        Self::from_bytes(json.as_bytes())
    }

    /// The tokens of a text, without special tokens.
    ///
    /// # Errors
    /// When the text holds what the vocabulary cannot express.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(guarded(|| self.inner.encode_fast(text, false))?.get_ids().to_vec())
    }

    /// The tokens of a text between the special ones that the model was pretrained with (`[CLS]` and
    /// `[SEP]` for BERT, the beginning for a decoder), at most `longest` of them: the end of the text is
    /// cut off, the special tokens stay.
    ///
    /// # Errors
    /// When the text holds what the vocabulary cannot express.
    pub fn encode_with_specials(&self, text: &str, longest: usize) -> Result<Vec<u32>> {
        let mut text = guarded(|| self.inner.encode(text, false))?;
        let added = self.inner.get_post_processor().map_or(0, |post| post.added_tokens(false));
        let begin = self.begin.filter(|_| added == 0);
        let room = longest.saturating_sub(added + usize::from(begin.is_some()));
        let all = guarded(|| {
            text.truncate(room, 0, TruncationDirection::Right);
            self.inner.post_process(text, None, true)
        })?;
        Ok(begin.into_iter().chain(all.get_ids().iter().copied()).collect())
    }

    /// The text of tokens; special tokens are left out.
    ///
    /// # Errors
    /// When a token is not in the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        guarded(|| self.inner.decode(tokens, true))
    }

    /// The token that begins a text, where the vocabulary has one.
    #[must_use]
    pub fn begin(&self) -> Option<u32> {
        self.begin
    }

    /// The token that ends a text, where there is one: the first that the model's files name, else one that has
    /// a usual name.
    #[must_use]
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// How the model's authors write a conversation, where they say so.
    #[must_use]
    pub fn chat(&self) -> Option<&ChatTemplate> {
        self.chat.as_deref()
    }

    /// The tokens that the model's files name as those that end a text or a turn of a chat.
    #[must_use]
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The number of a token.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A text without what would be read as added tokens, so that it cannot pass for a turn of its own.
    ///
    /// Tokens count whether or not they are declared special: models mark turns, thoughts and tools with
    /// both kinds.
    ///
    /// # Errors
    /// When the text holds what the vocabulary cannot express, or still spells such a token after
    /// 64 rounds of removal.
    pub fn without_specials(&self, text: &str) -> Result<String> {
        let mut text = text.to_owned();
        for _ in 0..MOST_ROUNDS {
            let read = guarded(|| self.inner.encode(text.as_str(), false))?;
            let spans = read.get_ids().iter().zip(read.get_offsets());
            let mut spans = spans.filter(|(id, _)| self.marks.contains(*id)).peekable();
            if spans.peek().is_none() {
                return Ok(text);
            }
            // What is left can spell such a token anew, so it is read once more.
            let (mut plain, mut end) = (String::with_capacity(text.len()), 0);
            for (_, &(from, to)) in spans {
                plain.push_str(text.get(end..from).unwrap_or_default());
                end = end.max(to);
            }
            plain.push_str(text.get(end..).unwrap_or_default());
            text = plain;
        }
        Err(ModelError::Tokenizer(format!(
            "a text still spells special tokens after {MOST_ROUNDS} were removed one within another"
        )))
    }

    /// The number of tokens in the vocabulary, special ones included.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// When the tokenizer cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(false).map_err(refusal)
    }
}

/// The token that stands for what a vocabulary does not know.
fn unknown(inner: &tokenizers::Tokenizer) -> Option<u32> {
    let name = match inner.get_model() {
        ModelWrapper::BPE(model) => model.get_unk_token().as_deref()?,
        ModelWrapper::WordPiece(model) => &model.unk_token,
        ModelWrapper::WordLevel(model) => &model.unk_token,
        // The crate does not tell; this is what the kind's own trainer calls it.
        ModelWrapper::Unigram(_) => "<unk>",
    };
    inner.token_to_id(name)
}

/// Runs code of the crate that panics on some files of others, and makes an error of that.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(refusal),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or(panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            let reason = text.unwrap_or_else(|| "for an unknown reason".to_owned());
            Err(ModelError::Tokenizer(format!("the file cannot be used: {reason}")))
        }
    }
}

fn refusal(error: tokenizers::Error) -> ModelError {
    ModelError::Tokenizer(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word-piece vocabulary with BERT's template.
    const BERT: &str = r###"{"version":"1.0","truncation":null,"padding":null,
        "added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"WhitespaceSplit"},
        "post_processor":{"type":"BertProcessing","sep":["[SEP]",1],"cls":["[CLS]",0]},
        "decoder":null,"model":{"type":"WordLevel","unk_token":"[UNK]",
        "vocab":{"[CLS]":0,"[SEP]":1,"[UNK]":2,"a":3,"b":4,"c":5}}}"###;

    #[test]
    fn special_tokens_stay_where_a_text_is_cut() {
        let bert = Tokenizer::from_bytes(BERT.as_bytes()).unwrap();
        assert_eq!(bert.encode_with_specials("a b c", 9).unwrap(), [0, 3, 4, 5, 1]);
        assert_eq!(bert.encode_with_specials("a b c", 4).unwrap(), [0, 3, 4, 1]);
        assert_eq!(bert.encode_with_specials("", 4).unwrap(), [0, 1]);
        let own = Tokenizer::train(["ab ab ab".to_owned()].into_iter(), 300).unwrap();
        let tokens = own.encode_with_specials("ab ab ab", 2).unwrap();
        assert_eq!((tokens.len(), tokens.first().copied()), (2, own.begin()));
    }

    /// The crate panics at the second and the third.
    #[test]
    fn damaged_files_are_refused() {
        let cut = r#"{"version":"1.0","pre_tokenizer":{"type":"ByteLevel","add_"#;
        let kind = BERT.replace(r#"{"type":"WhitespaceSplit"}"#, r#"{"type":{}}"#);
        let number = BERT.replace(r#"{"type":"WhitespaceSplit"}"#, "7");
        for file in ["", "[]", cut, &kind, &number] {
            let refused = Tokenizer::from_bytes(file.as_bytes());
            assert!(matches!(refused, Err(ModelError::Tokenizer(_))), "{file}");
        }
    }

    #[test]
    fn a_text_cannot_spell_special_tokens() {
        let own = Tokenizer::train(["ab ab ab".to_owned()].into_iter(), 300).unwrap();
        let forged = "ab<|e<|end|>nd|> <|begin|>ab";
        assert!(own.encode(forged).unwrap().contains(&own.end().unwrap()));
        let plain = own.without_specials(forged).unwrap();
        assert_eq!(plain, "ab ab");
        assert_eq!(own.without_specials("ab <|en|> é").unwrap(), "ab <|en|> é");
        let deep = format!("{}{}", "<|e".repeat(99), "nd|>".repeat(99));
        let refused = own.without_specials(&deep).unwrap_err().to_string();
        assert!(refused.contains("still spells special tokens"), "{refused}");
    }

    /// A vocabulary of ours with a change to its file.
    fn changed(change: impl Fn(&mut serde_json::Value)) -> Tokenizer {
        let own = Tokenizer::train(["ab ab ab".to_owned()].into_iter(), 300).unwrap();
        let mut json = serde_json::from_str(&own.to_json().unwrap()).unwrap();
        change(&mut json);
        Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
    }

    /// Composing the note U+1D160 takes three times its bytes, so the text grows as the token goes.
    #[test]
    fn a_text_that_grows_cannot_keep_a_special_token() {
        let composing = changed(|json| json["normalizer"] = serde_json::json!({"type": "NFC"}));
        let forged = "ab <|e<|end|>nd|> ab \u{1D160}\u{1D160}";
        let plain = composing.without_specials(forged).unwrap();
        assert_eq!(plain, "ab  ab \u{1D160}\u{1D160}");
        assert!(!composing.encode(&plain).unwrap().contains(&composing.end().unwrap()));
    }

    #[test]
    fn added_tokens_are_removed_whether_or_not_they_are_special() {
        let thinking = changed(|json| {
            let added = json["added_tokens"].as_array_mut().unwrap();
            for (id, content) in [(300, "<think>"), (301, "  ")] {
                added.push(serde_json::json!({"id": id, "content": content, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false, "special": false}));
            }
        });
        let id = thinking.id("<think>").unwrap();
        assert!(thinking.encode("ab<think>").unwrap().contains(&id));
        assert_eq!(thinking.without_specials("ab  <thi<think>nk>ab").unwrap(), "ab  ab");
    }

    /// A strange letter is no forgery: what it becomes must stay in the text.
    #[test]
    fn what_the_vocabulary_does_not_know_stays() {
        let added = r##"{"id":2,"content":"[UNK]","single_word":false,"lstrip":false,"rstrip":false,
            "normalized":false,"special":true}"##;
        let file = BERT.replace(r#""added_tokens":[]"#, &format!(r#""added_tokens":[{added}]"#));
        let bert = Tokenizer::from_bytes(file.as_bytes()).unwrap();
        assert_eq!(bert.encode("a \u{2603} b").unwrap(), [3, 2, 4]);
        assert_eq!(bert.without_specials("a \u{2603} b").unwrap(), "a \u{2603} b");
    }

    #[test]
    fn an_absurdly_large_file_is_refused_unread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let refused = Tokenizer::from_file(&path).unwrap_err().to_string();
        assert!(refused.contains("1099511627776 bytes are more than the"), "{refused}");
    }
}
