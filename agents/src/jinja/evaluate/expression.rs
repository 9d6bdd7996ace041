//! Evaluates expressions.

use super::super::meter::STEP;
use super::super::syntax::{Arguments, Comparison, Expression, Link, Operator};
use super::super::value::Value;
use super::super::{Fault, Result, filter, method};
use super::{Given, Interpreter};

impl<'a> Interpreter<'a> {
    pub(super) fn evaluate(&mut self, expression: &'a Expression) -> Result<Value> {
        self.meter.pay(STEP)?;
        self.deeper(|this| this.value(expression))
    }

    fn value(&mut self, expression: &'a Expression) -> Result<Value> {
        Ok(match expression {
            Expression::None => Value::None,
            Expression::Bool(value) => Value::Bool(*value),
            Expression::Int(value) => Value::Int(*value),
            Expression::Float(value) => Value::Float(*value),
            Expression::Text(text) => self.meter.text(text)?,
            Expression::Name(name) => self.lookup(name)?,
            Expression::List(items) => {
                let items = self.all(items)?;
                self.meter.list(items, false)?
            }
            Expression::Tuple(items) => {
                let items = self.all(items)?;
                self.meter.list(items, true)?
            }
            Expression::Map(pairs) => {
                let pairs = pairs.iter().map(|(k, v)| Ok((self.evaluate(k)?, self.evaluate(v)?)));
                let pairs = pairs.collect::<Result<_>>()?;
                self.meter.map(pairs)?
            }
            Expression::Not(value) => Value::Bool(!self.evaluate(value)?.is_true()),
            Expression::Negative(value) => negative(&self.evaluate(value)?)?,
            Expression::Any(items) => self.first_that(items, true)?,
            Expression::All(items) => self.first_that(items, false)?,
            Expression::Compare(first, rest) => self.compare(first, rest)?,
            Expression::Arithmetic(first, rest) => {
                let mut value = self.evaluate(first)?;
                for (operator, operand) in rest {
                    let operand = self.evaluate(operand)?;
                    value = self.arithmetic(&value, *operator, &operand)?;
                }
                value
            }
            Expression::Joined(items) => {
                let mut text = String::new();
                for item in items {
                    self.evaluate(item)?.print(&mut text, &mut self.meter)?;
                }
                self.meter.text(&text)?
            }
            Expression::Choice(choice) => {
                let (then, condition, otherwise) = &**choice;
                if self.evaluate(condition)?.is_true() {
                    self.evaluate(then)?
                } else {
                    otherwise.as_ref().map_or(Ok(Value::Undefined), |other| self.evaluate(other))?
                }
            }
            Expression::Path(first, links) => {
                let mut value = self.evaluate(first)?;
                for link in links {
                    self.meter.pay(STEP)?;
                    value = self.follow(&value, link)?;
                }
                value
            }
        })
    }

    fn all(&mut self, items: &'a [Expression]) -> Result<Vec<Value>> {
        items.iter().map(|item| self.evaluate(item)).collect()
    }

    /// The first value that is true, or false; else the last.
    fn first_that(&mut self, items: &'a [Expression], truth: bool) -> Result<Value> {
        let mut value = Value::Undefined;
        for item in items {
            value = self.evaluate(item)?;
            if value.is_true() == truth {
                break;
            }
        }
        Ok(value)
    }

    pub(super) fn lookup(&mut self, name: &str) -> Result<Value> {
        self.meter.pay(self.scopes.len() + name.len())?;
        let found = self.scopes.iter().rev().find_map(|scope| scope.get(name));
        Ok(found.cloned().or_else(|| method::function(name)).unwrap_or(Value::Undefined))
    }

    fn given(&mut self, arguments: &'a Arguments) -> Result<Given<'a>> {
        let plain = self.all(&arguments.plain)?;
        let named = arguments.named.iter();
        let named = named.map(|(name, value)| Ok((name.as_str(), self.evaluate(value)?)));
        Ok(Given { plain, named: named.collect::<Result<_>>()? })
    }

    fn follow(&mut self, value: &Value, link: &'a Link) -> Result<Value> {
        match link {
            Link::Member(name) => self.member(value, name),
            Link::Item(index) => {
                let index = self.evaluate(index)?;
                match (value, &index) {
                    (Value::Namespace(_) | Value::Loop(_), Value::Text(name)) => {
                        self.member(value, name)
                    }
                    _ => self.meter.item(value, &index),
                }
            }
            Link::Slice(parts) => {
                let mut ends = [None; 3];
                for (end, part) in ends.iter_mut().zip(parts) {
                    let Some(part) = part else { continue };
                    *end = match self.evaluate(part)? {
                        Value::None => None,
                        other => Some(whole(&other)?),
                    };
                }
                self.meter.slice(value, ends)
            }
            Link::Call(arguments) => {
                let given = self.given(arguments)?;
                match value {
                    Value::Macro(index) => self.call(*index, given),
                    Value::Function("namespace") => {
                        self.meter.pay(STEP * (1 + given.named.len()))?;
                        self.namespaces.push(given.named.into_iter().collect());
                        Ok(Value::Namespace(self.namespaces.len() - 1))
                    }
                    Value::Function(name) => method::call_function(name, &given, &mut self.meter),
                    other => Err(Fault::new(format!("{} cannot be called", other.kind()))),
                }
            }
            Link::Method(name, arguments) => {
                let given = self.given(arguments)?;
                match self.member(value, name)? {
                    Value::Macro(index) => self.call(index, given),
                    _ => method::call(value, name, &given, &mut self.meter),
                }
            }
            Link::Filter(name, arguments) => {
                let given = self.given(arguments)?;
                filter::apply(name, value, &given, &mut self.meter)
            }
            Link::Test { name, arguments, negated } => {
                let given = self.given(arguments)?;
                let holds = filter::test(name, value, &given.plain, &mut self.meter)?;
                Ok(Value::Bool(holds != *negated))
            }
        }
    }

    /// A member by its name; what has none of that name gives an undefined value.
    fn member(&mut self, value: &Value, name: &str) -> Result<Value> {
        let found = match value {
            Value::Namespace(index) => self.namespaces[*index].get(name).cloned(),
            Value::Loop(index) => self.loop_member(*index, name),
            other => return self.meter.member(other, name),
        };
        Ok(found.unwrap_or(Value::Undefined))
    }

    fn loop_member(&self, index: usize, name: &str) -> Option<Value> {
        let iteration = self.loops.get(index)?;
        let (at, length) = (iteration.at, iteration.items.len());
        let number = |value: usize| Some(Value::Int(value as i64));
        match name {
            "index" => number(at + 1),
            "index0" => number(at),
            "revindex" => number(length - at),
            "revindex0" => number(length - at - 1),
            "length" => number(length),
            "first" => Some(Value::Bool(at == 0)),
            "last" => Some(Value::Bool(at + 1 == length)),
            "previtem" => iteration.items.get(at.checked_sub(1)?).cloned(),
            "nextitem" => iteration.items.get(at + 1).cloned(),
            _ => None,
        }
    }

    fn compare(
        &mut self,
        first: &'a Expression,
        rest: &'a [(Comparison, Expression)],
    ) -> Result<Value> {
        let mut left = self.evaluate(first)?;
        for (comparison, right) in rest {
            let right = self.evaluate(right)?;
            let meter = &mut self.meter;
            let holds = match comparison {
                Comparison::Equal => left.equals(&right, meter)?,
                Comparison::Unequal => !left.equals(&right, meter)?,
                Comparison::In => meter.contains(&right, &left)?,
                Comparison::NotIn => !meter.contains(&right, &left)?,
                ordered => {
                    meter.pay(left.weight().min(right.weight()))?;
                    let order = left.order(&right)?;
                    match ordered {
                        Comparison::Less => order.is_lt(),
                        Comparison::LessOrEqual => order.is_le(),
                        Comparison::Greater => order.is_gt(),
                        _ => order.is_ge(),
                    }
                }
            };
            if !holds {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    fn arithmetic(&mut self, left: &Value, operator: Operator, right: &Value) -> Result<Value> {
        match (operator, left, right) {
            (Operator::Add, Value::Text(a), Value::Text(b)) => {
                self.meter.pay(a.len() + b.len())?;
                self.meter.text(&[&**a, &**b].concat())
            }
            (Operator::Add, Value::List(a), Value::List(b)) if a.tuple == b.tuple => {
                self.meter.pay(STEP * (a.items.len() + b.items.len()))?;
                self.meter.list([a.items.as_slice(), &b.items].concat(), a.tuple)
            }
            (Operator::Multiply, Value::Text(_) | Value::List(_), Value::Int(times)) => {
                self.repeat(left, *times)
            }
            (Operator::Multiply, Value::Int(times), Value::Text(_) | Value::List(_)) => {
                self.repeat(right, *times)
            }
            _ => numeric(left, operator, right),
        }
    }

    fn repeat(&mut self, value: &Value, times: i64) -> Result<Value> {
        let times = usize::try_from(times).unwrap_or(0);
        self.meter.pay(value.weight().saturating_mul(times))?;
        match value {
            Value::Text(text) => self.meter.text(&text.repeat(times)),
            Value::List(list) => {
                let items = std::iter::repeat_n(&list.items, times).flatten().cloned().collect();
                self.meter.list(items, list.tuple)
            }
            other => Err(Fault::new(format!("{} cannot be repeated", other.kind()))),
        }
    }
}

fn negative(value: &Value) -> Result<Value> {
    match (value.whole().and_then(i64::checked_neg), value) {
        (Some(number), _) => Ok(Value::Int(number)),
        (None, Value::Float(number)) => Ok(Value::Float(-number)),
        _ => Err(Fault::new(format!("{} has no negative", value.kind()))),
    }
}

pub(super) fn whole(value: &Value) -> Result<i64> {
    let wrong = || Fault::new(format!("{} is no whole number", value.kind()));
    value.whole().ok_or_else(wrong)
}

/// What an operator makes of two numbers: whole ones stay whole, save divided by `/`.
fn numeric(left: &Value, operator: Operator, right: &Value) -> Result<Value> {
    let (Some(a), Some(b)) = (left.number(), right.number()) else {
        return Err(Fault::new(format!(
            "{} and {} cannot be put together by an operator",
            left.kind(),
            right.kind()
        )));
    };
    let divides = matches!(operator, Operator::Divide | Operator::Floor | Operator::Remainder);
    if divides && b == 0.0 {
        return Err(Fault::new("it divides by zero"));
    }
    if let (Some(a), Some(b)) = (left.whole(), right.whole())
        && operator != Operator::Divide
        && !(operator == Operator::Power && b < 0)
    {
        let number = match operator {
            Operator::Add => a.checked_add(b),
            Operator::Subtract => a.checked_sub(b),
            Operator::Multiply => a.checked_mul(b),
            Operator::Power => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            _ => a.checked_rem(b).and_then(|rest| {
                let rest = if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest };
                if operator == Operator::Remainder {
                    Some(rest)
                } else {
                    a.checked_sub(rest).and_then(|whole| whole.checked_div(b))
                }
            }),
        };
        return number.map(Value::Int).ok_or_else(|| Fault::new("a number becomes too large"));
    }
    Ok(Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::Floor => (a / b).floor(),
        Operator::Remainder => a - b * (a / b).floor(),
        Operator::Power => a.powf(b),
    }))
}
