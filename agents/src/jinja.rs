//! The part of Jinja that chat templates are written in, evaluated under a budget.
//!
//! A template is foreign code. Every step, and every byte that a step reads or makes, is paid for before it
//! is done; the size of a list counts all that it holds, as often as it holds it. So time and memory are
//! bounded whatever the template does, and so is the depth of values, expressions and calls. It reads nothing
//! but what it is given. Printed values look as Python prints them; whitespace is trimmed as by jinja2 with
//! `trim_blocks` and `lstrip_blocks`.
//!
//! Left out is what no chat template was seen to use: inheritance, imports, `call`, `filter`, `with`, `raw`,
//! recursive loops, escaping, and most filters.

mod access;
mod evaluate;
mod filter;
mod lexer;
mod meter;
mod method;
mod parser;
mod syntax;
mod value;

use self::evaluate::Interpreter;
use self::syntax::Statement;

/// The largest template in bytes.
const LARGEST: usize = 256 << 10;

/// What is wrong with a template, or what it did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fault {
    /// The line, from 1.
    line: Option<usize>,
    reason: String,
}

impl Fault {
    fn new(reason: impl Into<String>) -> Self {
        Self { line: None, reason: reason.into() }
    }

    /// The same at a line, where none is known yet.
    fn at(self, line: usize) -> Self {
        Self { line: self.line.or(Some(line)), ..self }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

type Result<T, E = Fault> = std::result::Result<T, E>;

/// A parsed template.
#[derive(Clone, Debug)]
pub(crate) struct Template(Vec<Statement>);

impl Template {
    /// Parses a template.
    pub(crate) fn parse(source: &str) -> Result<Self> {
        if source.len() > LARGEST {
            let found = source.len();
            return Err(Fault::new(format!(
                "{found} bytes are more than the {LARGEST} that are read"
            )));
        }
        parser::parse(lexer::tokens(source)?).map(Self)
    }

    /// Writes the text of a template for named values.
    pub(crate) fn render(
        &self,
        context: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String> {
        Interpreter::new(context)?.run(&self.0)
    }
}

#[cfg(test)]
mod tests;
