//! From the source to tokens, with whitespace trimmed as by jinja2 with `trim_blocks` and `lstrip_blocks`.

use super::{Fault, Result};

/// A token of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Text between tags.
    Data(String),
    /// `{{` and `}}`.
    Print,
    EndPrint,
    /// `{%` and `%}`.
    Tag,
    EndTag,
    Name(String),
    Text(String),
    Int(i64),
    Float(f64),
    Sign(&'static str),
}

/// Operators and brackets, longer ones first.
const SIGNS: [&str; 25] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",",
];

/// The tokens of a template, each with its line.
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, usize)>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { rest: source, line: 1, fresh: true, found: Vec::new() };
    while !lexer.rest.is_empty() {
        lexer.data().map_err(|fault| fault.at(lexer.line))?;
    }
    Ok(lexer.found)
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    /// Nothing stands before `rest` in its line.
    fresh: bool,
    found: Vec<(Token, usize)>,
}

impl<'a> Lexer<'a> {
    /// Reads text up to a tag, and the tag.
    fn data(&mut self) -> Result<()> {
        let opening =
            |at: &usize| matches!(self.rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
        let Some(at) = self.rest.match_indices('{').map(|(at, _)| at).find(opening) else {
            let data = self.skip(self.rest.len());
            self.push_data(data);
            return Ok(());
        };
        let (kind, sign) =
            (self.rest.as_bytes()[at + 1], self.rest.as_bytes().get(at + 2).copied());
        let (fresh, data) = (self.fresh, &self.rest[..at]);
        let kept = match sign {
            Some(b'-') => data.trim_end(),
            Some(b'+') => data,
            _ if kind == b'{' => data,
            _ => without_indent(data, fresh),
        };
        self.push_data(kept);
        self.skip(at + 2 + usize::from(matches!(sign, Some(b'-' | b'+'))));
        match kind {
            b'#' => {
                let end =
                    self.rest.find("#}").ok_or_else(|| Fault::new("a comment without end"))?;
                let sign = end.checked_sub(1).map(|at| self.rest.as_bytes()[at]);
                self.skip(end + 2);
                self.trim(sign, true);
            }
            b'%' => self.tag(Token::Tag, Token::EndTag, "%}")?,
            _ => self.tag(Token::Print, Token::EndPrint, "}}")?,
        }
        Ok(())
    }

    fn push_data(&mut self, data: &str) {
        if !data.is_empty() {
            self.found.push((Token::Data(data.to_owned()), self.line));
        }
    }

    /// Leaves `length` bytes behind.
    fn skip(&mut self, length: usize) -> &'a str {
        let (passed, rest) = self.rest.split_at(length);
        self.line += passed.matches('\n').count();
        if let Some(last) = passed.chars().next_back() {
            self.fresh = last == '\n';
        }
        self.rest = rest;
        passed
    }

    /// Leaves the whitespace after a tag behind that its closing sign, or a line's end, takes away.
    fn trim(&mut self, sign: Option<u8>, block: bool) {
        if sign == Some(b'-') {
            let length = self.rest.len() - self.rest.trim_start().len();
            self.skip(length);
        } else if block && sign != Some(b'+') && self.rest.starts_with('\n') {
            self.skip(1);
        }
    }

    /// Reads the inside of a tag.
    fn tag(&mut self, open: Token, close: Token, end: &str) -> Result<()> {
        let block = open == Token::Tag;
        self.found.push((open, self.line));
        let mut brackets: Vec<&str> = Vec::new();
        loop {
            let space = self.rest.len() - self.rest.trim_start().len();
            self.skip(space);
            let sign =
                self.rest.bytes().next().filter(|sign| *sign == b'-' || (block && *sign == b'+'));
            let after = &self.rest[usize::from(sign.is_some())..];
            if brackets.is_empty() && after.starts_with(end) {
                self.found.push((close, self.line));
                self.skip(usize::from(sign.is_some()) + end.len());
                self.trim(sign, block);
                return Ok(());
            }
            let token = self.token()?;
            match &token {
                Token::Sign(sign @ ("(" | "[" | "{")) => brackets.push(sign),
                Token::Sign(sign @ (")" | "]" | "}")) => {
                    let matching = brackets.pop().map(|open| match open {
                        "(" => ")",
                        "[" => "]",
                        _ => "}",
                    });
                    if matching != Some(*sign) {
                        return Err(Fault::new(format!("`{sign}` closes nothing")));
                    }
                }
                _ => {}
            }
            self.found.push((token, self.line));
        }
    }

    fn token(&mut self) -> Result<Token> {
        let Some(first) = self.rest.chars().next() else {
            return Err(Fault::new("a tag without end"));
        };
        let length =
            |is: fn(char) -> bool| self.rest.find(|c: char| !is(c)).unwrap_or(self.rest.len());
        if first == '_' || first.is_alphabetic() {
            let length = length(|c| c == '_' || c.is_alphanumeric());
            return Ok(Token::Name(self.skip(length).to_owned()));
        }
        if first.is_ascii_digit() {
            return self.number();
        }
        if first == '\'' || first == '"' {
            return self.text(first);
        }
        let Some(sign) = SIGNS.into_iter().find(|sign| self.rest.starts_with(sign)) else {
            return Err(Fault::new(format!("{first:?} means nothing in a tag")));
        };
        self.skip(sign.len());
        Ok(Token::Sign(sign))
    }

    fn number(&mut self) -> Result<Token> {
        let digits =
            |text: &str| text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let mut length = digits(self.rest);
        let mut whole = true;
        if let Some(fraction) = self.rest[length..].strip_prefix('.')
            && fraction.starts_with(|c: char| c.is_ascii_digit())
        {
            length += 1 + digits(fraction);
            whole = false;
        }
        if let Some(exponent) = self.rest[length..].strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            if exponent[sign..].starts_with(|c: char| c.is_ascii_digit()) {
                length += 1 + sign + digits(&exponent[sign..]);
                whole = false;
            }
        }
        let text = self.skip(length).replace('_', "");
        let wrong = || Fault::new(format!("{text} is too large a number"));
        if whole {
            let number = text.parse().ok().ok_or_else(wrong)?;
            return Ok(Token::Int(number));
        }
        Ok(Token::Float(text.parse().ok().ok_or_else(wrong)?))
    }

    /// A text in quotes, with the escapes of Python.
    fn text(&mut self, mark: char) -> Result<Token> {
        let (rest, mut text) = (self.rest, String::new());
        let mut letters = rest.char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            if letter == mark {
                self.skip(at + 1);
                return Ok(Token::Text(text));
            }
            if letter != '\\' {
                text.push(letter);
                continue;
            }
            let Some((at, escape)) = letters.next() else { break };
            let digits = match escape {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => 0,
            };
            match escape {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'b' => text.push('\u{8}'),
                'f' => text.push('\u{c}'),
                'v' => text.push('\u{b}'),
                'a' => text.push('\u{7}'),
                '0' => text.push('\0'),
                '\\' | '\'' | '"' => text.push(escape),
                '\n' => {}
                'x' | 'u' | 'U' => {
                    let code = rest.get(at + 1..at + 1 + digits);
                    let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
                    let Some(letter) = code.and_then(char::from_u32) else {
                        return Err(Fault::new(format!(
                            "\\{escape} is not followed by a character's number"
                        )));
                    };
                    text.push(letter);
                    letters.nth(digits - 1);
                }
                other => text.extend(['\\', other]),
            }
        }
        Err(Fault::new("a text without end"))
    }
}

/// Without the spaces before a tag that stands first in its line.
fn without_indent(data: &str, fresh: bool) -> &str {
    let start = data.rfind('\n').map_or(0, |at| at + 1);
    let first = start > 0 || fresh;
    if first && data[start..].trim().is_empty() { &data[..start] } else { data }
}
