//! Context-free grammars of texts, written as TOML: a table of rules, each a list of alternatives.
//!
//! In an alternative, `{rule}` expands another rule, `{rule#k}` does so once per document and repeats
//! the result, `{3..12}` is a number, `{code}` an order code, `{^rule}` begins with a capital and
//! `{~rule}` is typed in haste. Unknown rules are found when the file is read.

use std::collections::BTreeMap;

use agents::seed::Stream;
use rand::Rng;
use serde::Deserialize;

use super::typing::hasty;

/// Deeper than any sensible sentence: beyond it an expansion is cut.
const DEEPEST: usize = 24;

/// Why a grammar cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GrammarError {
    /// The file is not TOML of the expected form.
    #[error("grammar {name}: {reason}")]
    Toml {
        /// The grammar's file name.
        name: String,
        /// What the parser said.
        reason: String,
    },
    /// A rule is used that nobody defines.
    #[error("grammar {name}: `{{{rule}}}` in `{within}` is not defined")]
    Undefined {
        /// The grammar's file name.
        name: String,
        /// The unknown rule.
        rule: String,
        /// Where it is used.
        within: String,
    },
    /// A rule without alternatives.
    #[error("grammar {name}: rule `{rule}` has no alternatives")]
    Empty {
        /// The grammar's file name.
        name: String,
        /// The rule.
        rule: String,
    },
}

/// One alternative, ready to expand.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Slot { what: What, key: Option<String>, capital: bool, hasty: bool },
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Rule(String),
    Number(u32, u32),
    Code,
}

/// Texts that a document repeats.
pub type Memory = BTreeMap<String, String>;

/// A subject of conversations.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// What customers write.
    pub ask: Vec<Template>,
    /// What the agent answers.
    pub answer: Vec<Template>,
    /// What the customer says then.
    pub follow: Vec<Template>,
}

/// A parsed and checked grammar.
#[derive(Clone, Debug)]
pub struct Grammar {
    rules: BTreeMap<String, Vec<Template>>,
    topics: Vec<Topic>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrammarFile {
    rules: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    topics: Vec<TopicFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicFile {
    name: String,
    ask: Vec<String>,
    answer: Vec<String>,
    follow: Vec<String>,
}

impl Grammar {
    /// Parses and checks a grammar; `name` is for messages.
    ///
    /// # Errors
    /// When the TOML is malformed, a rule is undefined or has no alternatives.
    pub fn parse(name: &str, toml: &str) -> Result<Self, GrammarError> {
        let file: GrammarFile = toml::from_str(toml)
            .map_err(|e| GrammarError::Toml { name: name.to_owned(), reason: e.to_string() })?;
        let all = |texts: &[String]| texts.iter().map(|t| Template::parse(t)).collect();
        let rules: BTreeMap<String, Vec<Template>> =
            file.rules.iter().map(|(rule, texts)| (rule.clone(), all(texts))).collect();
        let topics: Vec<Topic> = file
            .topics
            .iter()
            .map(|topic| Topic {
                name: topic.name.clone(),
                ask: all(&topic.ask),
                answer: all(&topic.answer),
                follow: all(&topic.follow),
            })
            .collect();
        let grammar = Self { rules, topics };
        grammar.check(name)?;
        Ok(grammar)
    }

    fn check(&self, name: &str) -> Result<(), GrammarError> {
        let within_topics = self.topics.iter().flat_map(|topic| {
            [&topic.ask, &topic.answer, &topic.follow].map(|texts| (&topic.name, texts))
        });
        for (rule, templates) in self.rules.iter().chain(within_topics) {
            if templates.is_empty() {
                return Err(GrammarError::Empty { name: name.to_owned(), rule: rule.clone() });
            }
            for part in templates.iter().flat_map(|template| &template.0) {
                if let Part::Slot { what: What::Rule(used), .. } = part
                    && !self.rules.contains_key(used)
                {
                    return Err(GrammarError::Undefined {
                        name: name.to_owned(),
                        rule: used.clone(),
                        within: rule.clone(),
                    });
                }
            }
        }
        if self.topics.is_empty() && !self.rules.contains_key("document") {
            let rule = "document".to_owned();
            return Err(GrammarError::Empty { name: name.to_owned(), rule });
        }
        Ok(())
    }

    /// The subjects of conversations; none in a grammar of documents.
    #[must_use]
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// A text of the rule `document`.
    #[must_use]
    pub fn document(&self, stream: &mut Stream) -> String {
        let mut memory = Memory::new();
        self.rule("document", &mut memory, stream, 0)
    }

    /// A text of a template; `memory` keeps what the document must repeat.
    #[must_use]
    pub fn expand(&self, template: &Template, memory: &mut Memory, stream: &mut Stream) -> String {
        self.expand_at(template, memory, stream, 0)
    }

    fn rule(&self, name: &str, memory: &mut Memory, stream: &mut Stream, depth: usize) -> String {
        match self.rules.get(name) {
            Some(templates) if depth < DEEPEST => {
                let template = &templates[stream.random_range(0..templates.len())];
                self.expand_at(template, memory, stream, depth + 1)
            }
            _ => String::new(),
        }
    }

    fn expand_at(
        &self,
        template: &Template,
        memory: &mut Memory,
        stream: &mut Stream,
        depth: usize,
    ) -> String {
        let mut text = String::new();
        for part in &template.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Slot { what, key, capital, hasty: typed } => {
                    let remembered = key.as_ref().and_then(|key| memory.get(key).cloned());
                    let mut value = match remembered {
                        Some(value) => value,
                        None => {
                            let value = self.value(what, memory, stream, depth);
                            if let Some(key) = key {
                                memory.insert(key.clone(), value.clone());
                            }
                            value
                        }
                    };
                    if *typed {
                        value = hasty(&value, stream);
                    }
                    if *capital {
                        value = capitalised(&value);
                    }
                    text.push_str(&value);
                }
            }
        }
        text
    }

    fn value(&self, what: &What, memory: &mut Memory, stream: &mut Stream, depth: usize) -> String {
        match what {
            What::Rule(rule) => self.rule(rule, memory, stream, depth),
            What::Number(low, high) => stream.random_range(*low..=*high).to_string(),
            What::Code => {
                const SIGNS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
                (0..6).map(|_| char::from(SIGNS[stream.random_range(0..SIGNS.len())])).collect()
            }
        }
    }
}

impl Template {
    fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((slot, tail)) = after.split_once('}') else { break };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::slot(slot));
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Self(parts)
    }
}

impl Part {
    fn slot(text: &str) -> Self {
        let (marks, body): (Vec<char>, &str) = {
            let body = text.trim_start_matches(['^', '~']);
            (text[..text.len() - body.len()].chars().collect(), body)
        };
        let (name, key) = match body.split_once('#') {
            // The key includes the rule: `{name#a}` and `{city#a}` are different memories.
            Some((name, _)) => (name, Some(body.to_owned())),
            None => (body, None),
        };
        let number = name.split_once("..").and_then(|(low, high)| {
            let (low, high) = (low.parse().ok()?, high.parse().ok()?);
            (low <= high).then_some(What::Number(low, high))
        });
        let what = match number {
            Some(number) => number,
            None if name == "code" => What::Code,
            None => What::Rule(name.to_owned()),
        };
        Self::Slot { what, key, capital: marks.contains(&'^'), hasty: marks.contains(&'~') }
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use agents::seed::Seed;

    use super::*;

    fn expand(toml: &str) -> String {
        Grammar::parse("test", toml).unwrap().document(&mut Seed::new(1).stream())
    }

    #[test]
    fn remembered_slots_agree_and_capitals_are_set() {
        let text = expand(
            "[rules]\ndocument = [\"{^thing#a} and {thing#a}, {3..3} {code#o} {code#o}\"]\nthing = [\"lamp\", \"hat\"]",
        );
        let words: Vec<&str> = text.split(' ').collect();
        assert_eq!(words[0].to_lowercase(), words[2].trim_end_matches(','));
        assert!(words[0].starts_with(char::is_uppercase));
        assert_eq!((words[3], words[4]), ("3", words[5]));
    }

    #[test]
    fn undefined_rules_are_named() {
        let error = Grammar::parse("g", "[rules]\ndocument = [\"a {missing}\"]").unwrap_err();
        assert_eq!(error.to_string(), "grammar g: `{missing}` in `document` is not defined");
    }

    #[test]
    fn endless_recursion_is_cut() {
        assert!(expand("[rules]\ndocument = [\"x{document}\"]").len() <= DEEPEST);
    }
}
