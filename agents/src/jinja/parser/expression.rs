//! From tokens to expressions; the levels are those of jinja2, the loosest first.

use super::super::lexer::Token;
use super::super::syntax::{Arguments, Comparison, Expression, Link, Operator};
use super::super::{Fault, Result};
use super::Parser;

type Level = fn(&mut Parser) -> Result<Expression>;

impl Parser {
    /// One expression, or several with commas between, which are a tuple.
    pub(super) fn row(&mut self, level: Level) -> Result<Expression> {
        let first = level(self)?;
        if !self.is_sign(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.takes(",") {
            if matches!(self.peek(), None | Some(Token::EndPrint | Token::EndTag))
                || self.is_sign(")")
                || self.is_word("if")
            {
                break;
            }
            items.push(level(self)?);
        }
        Ok(Expression::Tuple(items))
    }

    /// `then if condition else otherwise`.
    pub(super) fn expression(&mut self) -> Result<Expression> {
        self.deeper(|parser| {
            let then = parser.any()?;
            if !parser.takes_word("if") {
                return Ok(then);
            }
            let condition = parser.any()?;
            let otherwise =
                if parser.takes_word("else") { Some(parser.expression()?) } else { None };
            Ok(Expression::Choice(Box::new((then, condition, otherwise))))
        })
    }

    pub(super) fn any(&mut self) -> Result<Expression> {
        self.words("or", Self::all, Expression::Any)
    }

    fn all(&mut self) -> Result<Expression> {
        self.words("and", Self::negation, Expression::All)
    }

    /// Expressions with a word between.
    fn words(
        &mut self,
        word: &str,
        level: Level,
        join: fn(Vec<Expression>) -> Expression,
    ) -> Result<Expression> {
        let first = level(self)?;
        if !self.is_word(word) {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.takes_word(word) {
            items.push(level(self)?);
        }
        Ok(join(items))
    }

    fn negation(&mut self) -> Result<Expression> {
        if !self.takes_word("not") {
            return self.comparison();
        }
        self.deeper(|parser| Ok(Expression::Not(Box::new(parser.negation()?))))
    }

    fn comparison(&mut self) -> Result<Expression> {
        use Comparison::{Equal, Greater, GreaterOrEqual, In, Less, LessOrEqual, NotIn, Unequal};
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.peek() {
                Some(Token::Sign("==")) => Equal,
                Some(Token::Sign("!=")) => Unequal,
                Some(Token::Sign("<")) => Less,
                Some(Token::Sign("<=")) => LessOrEqual,
                Some(Token::Sign(">")) => Greater,
                Some(Token::Sign(">=")) => GreaterOrEqual,
                Some(Token::Name(word)) if word == "in" => In,
                Some(Token::Name(word)) if word == "not" => {
                    let next = self.tokens.get(self.at + 1).map(|(token, _)| token);
                    if !matches!(next, Some(Token::Name(word)) if word == "in") {
                        break;
                    }
                    self.at += 1;
                    NotIn
                }
                _ => break,
            };
            self.at += 1;
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expression::Compare(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Result<Expression> {
        self.arithmetic(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::joined)
    }

    fn joined(&mut self) -> Result<Expression> {
        let first = self.product()?;
        if !self.is_sign("~") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.takes("~") {
            items.push(self.product()?);
        }
        Ok(Expression::Joined(items))
    }

    fn product(&mut self) -> Result<Expression> {
        let operators = [
            ("*", Operator::Multiply),
            ("//", Operator::Floor),
            ("/", Operator::Divide),
            ("%", Operator::Remainder),
        ];
        self.arithmetic(&operators, |parser| {
            parser.arithmetic(&[("**", Operator::Power)], |parser| parser.unary(true))
        })
    }

    /// Operands with operators of one level between.
    fn arithmetic(&mut self, operators: &[(&str, Operator)], level: Level) -> Result<Expression> {
        let first = level(self)?;
        let mut rest = Vec::new();
        while let Some((_, operator)) = operators.iter().find(|(sign, _)| self.is_sign(sign)) {
            self.at += 1;
            rest.push((*operator, level(self)?));
        }
        Ok(if rest.is_empty() { first } else { Expression::Arithmetic(Box::new(first), rest) })
    }

    /// A value with its sign; filters and tests apply to both together.
    fn unary(&mut self, filters: bool) -> Result<Expression> {
        let value = if self.takes("-") {
            self.deeper(|parser| Ok(Expression::Negative(Box::new(parser.unary(false)?))))?
        } else if self.takes("+") {
            self.deeper(|parser| parser.unary(false))?
        } else {
            self.primary()?
        };
        let mut links = Vec::new();
        self.members(&mut links)?;
        if filters {
            self.filters(&mut links)?;
        }
        Ok(if links.is_empty() { value } else { Expression::Path(Box::new(value), links) })
    }

    fn primary(&mut self) -> Result<Expression> {
        let Some(token) = self.peek().cloned() else { return Err(self.unexpected("a value")) };
        let value = match token {
            Token::Name(name) => match name.as_str() {
                "true" | "True" => Expression::Bool(true),
                "false" | "False" => Expression::Bool(false),
                "none" | "None" => Expression::None,
                "and" | "or" | "not" | "if" | "else" | "in" | "is" => {
                    return Err(self.unexpected("a value"));
                }
                _ => Expression::Name(name),
            },
            Token::Int(number) => Expression::Int(number),
            Token::Float(number) => Expression::Float(number),
            Token::Text(mut text) => {
                while let Some((Token::Text(more), _)) = self.tokens.get(self.at + 1) {
                    text.push_str(more);
                    self.at += 1;
                }
                Expression::Text(text)
            }
            Token::Sign(sign @ ("(" | "[" | "{")) => {
                self.at += 1;
                return match sign {
                    "(" => self.brackets(),
                    "[" => Ok(Expression::List(self.several("]", Self::expression)?)),
                    _ => Ok(Expression::Map(self.several("}", |parser| {
                        let key = parser.expression()?;
                        parser.expect(":")?;
                        Ok((key, parser.expression()?))
                    })?)),
                };
            }
            _ => return Err(self.unexpected("a value")),
        };
        self.at += 1;
        Ok(value)
    }

    /// What stands in round brackets: one value, or a tuple.
    fn brackets(&mut self) -> Result<Expression> {
        if self.takes(")") {
            return Ok(Expression::Tuple(Vec::new()));
        }
        let inner = self.row(Self::expression)?;
        self.expect(")")?;
        Ok(inner)
    }

    /// Things with commas between, up to a bracket.
    fn several<T>(&mut self, end: &str, one: fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut found = Vec::new();
        while !self.takes(end) {
            found.push(one(self)?);
            if !self.takes(",") && !self.is_sign(end) {
                return Err(self.unexpected(&format!("`,` or `{end}`")));
            }
        }
        Ok(found)
    }

    /// Members, items, slices and calls.
    fn members(&mut self, links: &mut Vec<Link>) -> Result<()> {
        loop {
            if self.takes(".") {
                let name = match self.next() {
                    Some(Token::Name(name)) => name,
                    Some(Token::Int(index)) => {
                        links.push(Link::Item(Expression::Int(index)));
                        continue;
                    }
                    _ => return Err(Fault::new("a `.` without a name")),
                };
                links.push(if self.takes("(") {
                    Link::Method(name, self.arguments()?)
                } else {
                    Link::Member(name)
                });
            } else if self.takes("[") {
                links.push(self.subscript()?);
            } else if self.takes("(") {
                links.push(Link::Call(self.arguments()?));
            } else {
                return Ok(());
            }
        }
    }

    fn subscript(&mut self) -> Result<Link> {
        let mut parts: [Option<Expression>; 3] = [None, None, None];
        let mut part = 0;
        loop {
            if self.takes("]") {
                break;
            }
            if self.takes(":") {
                part += 1;
                if part == parts.len() {
                    return Err(self.unexpected("`]`"));
                }
                continue;
            }
            if parts[part].is_some() {
                return Err(self.unexpected("`]`"));
            }
            parts[part] = Some(self.expression()?);
        }
        match (part, parts) {
            (0, [Some(index), _, _]) => Ok(Link::Item(index)),
            (0, _) => Err(Fault::new("`[]` without an index")),
            (_, parts) => Ok(Link::Slice(parts)),
        }
    }

    /// Filters, tests and calls of what they give.
    fn filters(&mut self, links: &mut Vec<Link>) -> Result<()> {
        loop {
            if self.takes("|") {
                let name = self.name()?;
                let arguments =
                    if self.takes("(") { self.arguments()? } else { Arguments::default() };
                links.push(Link::Filter(name, arguments));
            } else if self.takes_word("is") {
                let negated = self.takes_word("not");
                let name = self.name()?;
                let arguments = self.test_arguments()?;
                links.push(Link::Test { name, arguments, negated });
            } else {
                return Ok(());
            }
        }
    }

    /// The arguments of a test: in brackets, or one value without.
    fn test_arguments(&mut self) -> Result<Arguments> {
        if self.takes("(") {
            return self.arguments();
        }
        let one = match self.peek() {
            Some(Token::Name(name)) => {
                !["else", "or", "and", "is", "if", "in", "not"].contains(&name.as_str())
            }
            Some(Token::Text(_) | Token::Int(_) | Token::Float(_)) => true,
            _ => self.is_sign("[") || self.is_sign("{"),
        };
        if !one {
            return Ok(Arguments::default());
        }
        let value = self.deeper(|parser| parser.unary(false))?;
        Ok(Arguments { plain: vec![value], named: Vec::new() })
    }

    /// Arguments up to the closing bracket.
    fn arguments(&mut self) -> Result<Arguments> {
        let mut arguments = Arguments::default();
        while !self.takes(")") {
            let named = matches!(self.tokens.get(self.at + 1), Some((Token::Sign("="), _)));
            if named {
                let name = self.name()?;
                self.expect("=")?;
                arguments.named.push((name, self.expression()?));
            } else if arguments.named.is_empty() {
                arguments.plain.push(self.expression()?);
            } else {
                return Err(self.unexpected("a named argument"));
            }
            if !self.takes(",") && !self.is_sign(")") {
                return Err(self.unexpected("`,` or `)`"));
            }
        }
        Ok(arguments)
    }
}
