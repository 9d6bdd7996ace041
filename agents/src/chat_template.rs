//! Chat templates: the Jinja text with which a model's authors write a conversation, rendered as they do.
//!
//! Does not tokenize, and passes no tools and no documents. Three things are decided here: models that can
//! think first are told not to (`enable_thinking` is false: replies are short); today is always 26 July 2024
//! (`strftime_now`), so that runs can be repeated; and a template is foreign code, so it runs under a budget
//! of steps and memory and reads nothing but the conversation.

mod files;
mod marks;

use std::path::PathBuf;

use serde_json::{Map, Value, json};

pub(crate) use self::files::{attach, read};
use crate::error::{ModelError, Result};
use crate::jinja::Template;

/// One turn of a conversation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of `role` that says `content`.
    pub fn new(role: &'static str, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// Why a template cannot be used, kept until somebody wants to: classifiers never do.
#[derive(Clone, Debug)]
struct Unusable {
    /// The file that it comes from.
    path: PathBuf,
    /// What the file should have been.
    what: &'static str,
    reason: String,
}

/// A chat template with the tokens that it may write.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    template: Result<Template, Unusable>,
    /// The names and texts of special tokens.
    tokens: Map<String, Value>,
    /// What it writes around turns and words could imitate.
    marks: Vec<String>,
}

impl ChatTemplate {
    /// Parses a template; `bos` and `eos` are the texts of the tokens that begin and end a text.
    ///
    /// # Errors
    /// When it is too large, is no Jinja, or uses what is not known here.
    pub fn parse(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self> {
        let template =
            Template::parse(source).map_err(|e| ModelError::ChatTemplate(e.to_string()))?;
        let tokens = [("bos_token", bos), ("eos_token", eos)];
        let tokens =
            tokens.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into())));
        let mut own = Self { template: Ok(template), tokens: tokens.collect(), marks: Vec::new() };
        own.marks = marks::of(&own);
        Ok(own)
    }

    /// What it writes around turns besides special tokens, where words could imitate it within a line: `[INST]`,
    /// `<<SYS>>`, `###`, `USER:`.
    #[must_use]
    pub fn marks(&self) -> &[String] {
        &self.marks
    }

    /// Writes a conversation; with `add_generation_prompt`, up to where the model shall speak.
    ///
    /// # Errors
    /// When the template refuses the conversation, fails, does more than it may, or could not be parsed.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let template = match &self.template {
            Ok(template) => template,
            Err(Unusable { path, what, reason }) => {
                let (path, reason) = (path.clone(), reason.clone());
                return Err(ModelError::Malformed { path, what, reason });
            }
        };
        let turn = |message: &Message| json!({"role": message.role, "content": message.content});
        let mut context = self.tokens.clone();
        context.insert("messages".to_owned(), messages.iter().map(turn).collect());
        context.insert("add_generation_prompt".to_owned(), add_generation_prompt.into());
        context.insert("enable_thinking".to_owned(), false.into());
        for absent in ["tools", "documents"] {
            context.insert(absent.to_owned(), Value::Null);
        }
        template.render(&context).map_err(|e| ModelError::ChatTemplate(e.to_string()))
    }
}

#[cfg(test)]
mod tests;
