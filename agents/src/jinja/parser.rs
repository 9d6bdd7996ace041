//! From tokens to statements.

mod expression;

use super::lexer::Token;
use super::syntax::{Loop, Macro, Statement, Target, What};
use super::{Fault, Result};

/// How deep brackets and blocks may lie in each other.
const DEEPEST: usize = 64;

/// Parses all tokens of a template.
pub(super) fn parse(tokens: Vec<(Token, usize)>) -> Result<Vec<Statement>> {
    let mut parser = Parser { tokens, at: 0, depth: 0, loops: 0 };
    let statements = parser.block("template", &[]).map_err(|fault| fault.at(parser.line()))?;
    Ok(statements.0)
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
    /// How many loops are open around this place.
    loops: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    /// The line of the next token, or of the last one.
    fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |(_, line)| *line)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Some(Token::Sign(found)) if *found == sign)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(found)) if found == word)
    }

    /// Takes a sign where it is next.
    fn takes(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    /// Takes a word where it is next.
    fn takes_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<()> {
        if self.takes(sign) { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    fn name(&mut self) -> Result<String> {
        match self.peek() {
            Some(Token::Name(name)) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    fn close(&mut self, end: &Token) -> Result<()> {
        if self.peek() == Some(end) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected("the end of the tag"))
    }

    fn unexpected(&self, expected: &str) -> Fault {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(Token::Name(name)) => format!("`{name}`"),
            Some(Token::Sign(sign)) => format!("`{sign}`"),
            Some(Token::Text(text)) => format!("{:?}", text.chars().take(20).collect::<String>()),
            Some(Token::Int(number)) => format!("`{number}`"),
            Some(Token::Float(number)) => format!("`{number}`"),
            Some(Token::EndTag | Token::EndPrint) => "the end of the tag".to_owned(),
            Some(Token::Tag | Token::Print | Token::Data(_)) => "text".to_owned(),
        };
        Fault::new(format!("expected {expected}, found {found}")).at(self.line())
    }

    /// Does something one level deeper.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == DEEPEST {
            let reason = format!("brackets and blocks in each other, deeper than {DEEPEST}");
            return Err(Fault::new(reason).at(self.line()));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// The statements up to a tag that begins with one of `ends`; also which one. That tag is read up to
    /// its first word.
    fn block(&mut self, of: &str, ends: &[&'static str]) -> Result<(Vec<Statement>, &'static str)> {
        let opened = self.line();
        self.deeper(|parser| {
            let mut statements = Vec::new();
            while let Some((token, line)) = parser.tokens.get(parser.at).cloned() {
                parser.at += 1;
                let what = match token {
                    Token::Data(text) => What::Data(text),
                    Token::Print => {
                        let value = parser.row(Self::expression)?;
                        parser.close(&Token::EndPrint)?;
                        What::Print(value)
                    }
                    _ => {
                        let word = parser.name()?;
                        if let Some(end) = ends.iter().find(|end| **end == word) {
                            return Ok((statements, *end));
                        }
                        parser.statement(&word).map_err(|fault| fault.at(line))?
                    }
                };
                statements.push(Statement { line, what });
            }
            match ends.last() {
                None => Ok((statements, "")),
                Some(end) => Err(Fault::new(format!("`{of}` without `{end}`")).at(opened)),
            }
        })
    }

    fn statement(&mut self, word: &str) -> Result<What> {
        match word {
            "if" => self.branches(),
            "for" => self.for_loop(),
            "set" => self.set(),
            "macro" => self.definition(),
            "generation" => {
                self.close(&Token::EndTag)?;
                let (body, _) = self.block("generation", &["endgeneration"])?;
                self.close(&Token::EndTag)?;
                Ok(What::Scope(body))
            }
            "break" | "continue" if self.loops == 0 => {
                Err(Fault::new(format!("`{word}` outside of a loop")))
            }
            "break" | "continue" => {
                self.close(&Token::EndTag)?;
                Ok(if word == "break" { What::Break } else { What::Continue })
            }
            other => Err(Fault::new(format!(
                "tag `{other}` is unknown; known are if, for, set, macro, generation, break, continue"
            ))),
        }
    }

    fn branches(&mut self) -> Result<What> {
        let mut arms = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let condition = self.row(Self::any)?;
            self.close(&Token::EndTag)?;
            let (body, end) = self.block("if", &["elif", "else", "endif"])?;
            arms.push((condition, body));
            if end == "elif" {
                continue;
            }
            self.close(&Token::EndTag)?;
            if end == "else" {
                otherwise = self.block("else", &["endif"])?.0;
                self.close(&Token::EndTag)?;
            }
            return Ok(What::If { arms, otherwise });
        }
    }

    fn for_loop(&mut self) -> Result<What> {
        let names = self.names()?;
        if !self.takes_word("in") {
            return Err(self.unexpected("`in`"));
        }
        let over = self.row(Self::any)?;
        let only_if = if self.takes_word("if") { Some(self.expression()?) } else { None };
        self.close(&Token::EndTag)?;
        self.loops += 1;
        let (body, end) = self.block("for", &["else", "endfor"])?;
        self.loops -= 1;
        self.close(&Token::EndTag)?;
        let mut otherwise = Vec::new();
        if end == "else" {
            otherwise = self.block("else", &["endfor"])?.0;
            self.close(&Token::EndTag)?;
        }
        Ok(What::For(Box::new(Loop { names, over, only_if, body, otherwise })))
    }

    /// One or more names, maybe in brackets.
    fn names(&mut self) -> Result<Vec<String>> {
        let bracket = self.takes("(");
        let mut names = vec![self.name()?];
        while self.takes(",") {
            names.push(self.name()?);
        }
        if bracket {
            self.expect(")")?;
        }
        Ok(names)
    }

    fn set(&mut self) -> Result<What> {
        let mut names = self.names()?;
        let target = if names.len() == 1 && self.takes(".") {
            Target::Member(names.remove(0), self.name()?)
        } else {
            Target::Names(names)
        };
        match target {
            Target::Names(mut names) if names.len() == 1 && !self.is_sign("=") => {
                self.close(&Token::EndTag)?;
                let (body, _) = self.block("set", &["endset"])?;
                self.close(&Token::EndTag)?;
                Ok(What::SetText(names.remove(0), body))
            }
            target => {
                self.expect("=")?;
                let value = self.row(Self::expression)?;
                self.close(&Token::EndTag)?;
                Ok(What::Set(target, value))
            }
        }
    }

    fn definition(&mut self) -> Result<What> {
        let name = self.name()?;
        let mut parameters = Vec::new();
        self.expect("(")?;
        while !self.takes(")") {
            let parameter = self.name()?;
            let default = if self.takes("=") { Some(self.expression()?) } else { None };
            parameters.push((parameter, default));
            if !self.takes(",") && !self.is_sign(")") {
                return Err(self.unexpected("`,` or `)`"));
            }
        }
        self.close(&Token::EndTag)?;
        let loops = std::mem::take(&mut self.loops);
        let (body, _) = self.block("macro", &["endmacro"])?;
        self.loops = loops;
        self.takes_word(&name);
        self.close(&Token::EndTag)?;
        Ok(What::Macro(Macro { name, parameters, body }))
    }
}
