//! Runs statements: scopes, loops, macros and what is written.

mod expression;

use std::collections::HashMap;

use super::meter::{Meter, STEP};
use super::syntax::{Loop, Macro, Statement, Target, What};
use super::value::Value;
use super::{Fault, Result};

/// How many evaluations may be under way in each other.
const DEEPEST: usize = 256;

/// The values of names.
type Scope<'a> = HashMap<&'a str, Value>;

/// How a block ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flow {
    Through,
    Break,
    Continue,
}

/// Evaluated arguments.
pub(super) struct Given<'a> {
    pub(super) plain: Vec<Value>,
    pub(super) named: Vec<(&'a str, Value)>,
}

impl Given<'_> {
    /// The argument at a place or with a name.
    pub(super) fn get(&self, index: usize, name: &str) -> Option<&Value> {
        let named = || self.named.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        self.plain.get(index).or_else(named)
    }
}

/// A loop that is under way.
struct Iteration {
    items: Vec<Value>,
    at: usize,
}

/// A rendering.
pub(super) struct Interpreter<'a> {
    meter: Meter,
    /// The names of the template, and those of the blocks that are open.
    scopes: Vec<Scope<'a>>,
    namespaces: Vec<Scope<'a>>,
    macros: Vec<&'a Macro>,
    loops: Vec<Iteration>,
    out: String,
    depth: usize,
}

impl<'a> Interpreter<'a> {
    pub(super) fn new(context: &'a serde_json::Map<String, serde_json::Value>) -> Result<Self> {
        let mut meter = Meter::new();
        let names = context.iter().map(|(name, value)| Ok((name.as_str(), meter.json(value)?)));
        let names = names.collect::<Result<Scope<'a>>>()?;
        Ok(Self {
            meter,
            scopes: vec![names],
            namespaces: Vec::new(),
            macros: Vec::new(),
            loops: Vec::new(),
            out: String::new(),
            depth: 0,
        })
    }

    /// The text that the statements write.
    pub(super) fn run(mut self, statements: &'a [Statement]) -> Result<String> {
        self.block(statements)?;
        Ok(self.out)
    }

    /// Does something one level deeper.
    fn deeper<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == DEEPEST {
            return Err(Fault::new(format!("it calls itself, deeper than {DEEPEST}")));
        }
        self.depth += 1;
        let done = act(self);
        self.depth -= 1;
        done
    }

    fn block(&mut self, statements: &'a [Statement]) -> Result<Flow> {
        self.deeper(|this| {
            for statement in statements {
                this.meter.pay(STEP)?;
                let flow = this.statement(&statement.what).map_err(|e| e.at(statement.line))?;
                if flow != Flow::Through {
                    return Ok(flow);
                }
            }
            Ok(Flow::Through)
        })
    }

    fn statement(&mut self, what: &'a What) -> Result<Flow> {
        match what {
            What::Data(text) => self.meter.write(&mut self.out, text)?,
            What::Print(value) => {
                let value = self.evaluate(value)?;
                value.print(&mut self.out, &mut self.meter)?;
            }
            What::If { arms, otherwise } => {
                for (condition, body) in arms {
                    if self.evaluate(condition)?.is_true() {
                        return self.block(body);
                    }
                }
                return self.block(otherwise);
            }
            What::For(each) => return self.for_loop(each),
            What::Set(target, value) => {
                let value = self.evaluate(value)?;
                self.set(target, value)?;
            }
            What::SetText(name, body) => {
                let text = self.captured(|this| this.scoped(Scope::new(), body).map(|_| ()))?;
                self.define(name, text);
            }
            What::Macro(definition) => {
                self.macros.push(definition);
                self.define(&definition.name, Value::Macro(self.macros.len() - 1));
            }
            What::Scope(body) => return self.scoped(Scope::new(), body),
            What::Break => return Ok(Flow::Break),
            What::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Through)
    }

    fn define(&mut self, name: &'a str, value: Value) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, value);
        }
    }

    fn set(&mut self, target: &'a Target, value: Value) -> Result<()> {
        match target {
            Target::Names(names) => {
                for (name, value) in self.spread(names, value)? {
                    self.define(name, value);
                }
                Ok(())
            }
            Target::Member(name, member) => match self.lookup(name)? {
                Value::Namespace(index) => {
                    self.namespaces[index].insert(member, value);
                    Ok(())
                }
                other => Err(Fault::new(format!(
                    "`{name}` is {}; only members of a namespace can be set",
                    other.kind()
                ))),
            },
        }
    }

    /// One name takes a value, several take what it holds.
    fn spread(&mut self, names: &'a [String], value: Value) -> Result<Vec<(&'a str, Value)>> {
        if let [name] = names {
            return Ok(vec![(name, value)]);
        }
        let values = self.meter.items(&value)?;
        if values.len() != names.len() {
            let (found, expected) = (values.len(), names.len());
            return Err(Fault::new(format!("{found} values for {expected} names")));
        }
        Ok(names.iter().map(String::as_str).zip(values).collect())
    }

    /// Runs a block with names of its own.
    fn scoped(&mut self, scope: Scope<'a>, body: &'a [Statement]) -> Result<Flow> {
        self.scopes.push(scope);
        let flow = self.block(body);
        self.scopes.pop();
        flow
    }

    /// What is written meanwhile, as a text.
    fn captured(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<Value> {
        let outer = std::mem::take(&mut self.out);
        let done = act(self);
        let text = std::mem::replace(&mut self.out, outer);
        done?;
        self.meter.text(&text)
    }

    fn for_loop(&mut self, each: &'a Loop) -> Result<Flow> {
        let over = self.evaluate(&each.over)?;
        let mut items = self.meter.items(&over)?;
        if let Some(condition) = &each.only_if {
            let mut kept = Vec::new();
            for item in items {
                self.meter.pay(STEP)?;
                let scope = self.spread(&each.names, item.clone())?.into_iter().collect();
                self.scopes.push(scope);
                let keep = self.evaluate(condition);
                self.scopes.pop();
                if keep?.is_true() {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            return self.scoped(Scope::new(), &each.otherwise);
        }
        let id = self.loops.len();
        self.loops.push(Iteration { items: items.clone(), at: 0 });
        for (at, item) in items.into_iter().enumerate() {
            self.meter.pay(STEP)?;
            self.loops[id].at = at;
            let mut scope: Scope<'a> = self.spread(&each.names, item)?.into_iter().collect();
            scope.insert("loop", Value::Loop(id));
            if self.scoped(scope, &each.body)? == Flow::Break {
                break;
            }
        }
        self.loops.truncate(id);
        Ok(Flow::Through)
    }

    /// The text of a macro for arguments. It sees its own names and those of the template.
    fn call(&mut self, index: usize, given: Given<'a>) -> Result<Value> {
        let definition = self.macros[index];
        let (name, parameters) = (&definition.name, &definition.parameters);
        let unknown =
            given.named.iter().find(|(name, _)| parameters.iter().all(|(p, _)| p != name));
        if let Some((unknown, _)) = unknown {
            return Err(Fault::new(format!("macro `{name}` has no parameter `{unknown}`")));
        }
        if given.plain.len() > parameters.len() {
            return Err(Fault::new(format!("macro `{name}` takes {} arguments", parameters.len())));
        }
        let inner = self.scopes.split_off(1);
        self.scopes.push(Scope::new());
        let text = self.captured(|this| {
            for (index, (name, default)) in parameters.iter().enumerate() {
                let value = match (given.get(index, name), default) {
                    (Some(value), _) => value.clone(),
                    (None, Some(default)) => this.evaluate(default)?,
                    (None, None) => Value::Undefined,
                };
                this.define(name, value);
            }
            this.block(&definition.body).map(|_| ())
        });
        self.scopes.truncate(1);
        self.scopes.extend(inner);
        text
    }
}
