//! `--set path=value`: changes to the text of a scenario before it is read.
//!
//! The value is TOML, or else a text. The changed text is what is checked, recorded and pointed into; whether
//! the new value makes sense is not decided here.

use std::sync::Arc;

use miette::NamedSource;
use toml_edit::{DocumentMut, InlineTable, Item, Key, Table, Value};

use super::problem::Problem;
use super::suggestion::quote;

/// One change.
#[derive(Clone, Debug)]
pub(super) struct Override {
    /// The keys that lead to the value; positions in a list count from 0.
    pub(super) path: Vec<String>,
    value: Value,
    /// As typed, for messages.
    typed: String,
    /// Where the value begins in it.
    equals: usize,
}

impl Override {
    /// Reads `path=value`.
    pub(super) fn parse(typed: &str) -> Result<Self, Problem> {
        let invalid = |from: usize, to: usize, reason: &str| Problem::InvalidOverride {
            typed: source(typed),
            at: (from, to - from).into(),
            reason: reason.to_owned(),
        };
        let Some(equals) = typed.find('=') else {
            return Err(invalid(0, typed.len(), "there is no `=`"));
        };
        let (left, right) = (&typed[..equals], &typed[equals + 1..]);
        let Ok(keys) = Key::parse(left.trim()) else {
            return Err(invalid(0, equals, "not keys with dots between them"));
        };
        let path = keys.iter().map(|key| key.get().to_owned()).collect();
        let mut value =
            right.trim().parse::<Value>().unwrap_or_else(|_no_toml| Value::from(right.trim()));
        value.decor_mut().clear();
        Ok(Self { path, value, typed: typed.to_owned(), equals })
    }

    /// The change that `--seed` makes.
    pub(super) fn seed(seed: i64) -> Self {
        let typed = format!("seed={seed}");
        Self { path: vec!["seed".to_owned()], value: Value::from(seed), typed, equals: 4 }
    }

    /// Changes the document.
    pub(super) fn apply(&self, document: &mut DocumentMut) -> Result<(), Problem> {
        let Some((last, way)) = self.path.split_last() else { return Ok(()) };
        let mut item = document.as_item_mut();
        for (depth, key) in way.iter().enumerate() {
            item = self.step(item, key, depth)?;
        }
        self.put(item, last, way.len())
    }

    /// Goes one key deeper, making a table where there is nothing yet.
    fn step<'d>(
        &self,
        item: &'d mut Item,
        key: &str,
        depth: usize,
    ) -> Result<&'d mut Item, Problem> {
        if let Some(length) = length(item) {
            let index = self.index(key, length, depth)?;
            return item.get_mut(index).ok_or_else(|| self.unreachable(depth, "nothing is there"));
        }
        let inline = item.is_inline_table();
        let Some(table) = item.as_table_like_mut() else {
            let reason = format!("{} is a single value, nothing is below it", self.name(depth));
            return Err(self.unreachable(depth, &reason));
        };
        if !table.contains_key(key) {
            let new = if inline {
                Item::Value(Value::InlineTable(InlineTable::new()))
            } else {
                let mut new = Table::new();
                new.set_dotted(true);
                Item::Table(new)
            };
            table.insert(key, new);
        }
        table.get_mut(key).ok_or_else(|| self.unreachable(depth, "nothing is there"))
    }

    fn put(&self, item: &mut Item, key: &str, depth: usize) -> Result<(), Problem> {
        let mut value = self.value.clone();
        if let Some(length) = length(item) {
            let index = self.index(key, length, depth)?;
            let of_tables = item.is_array_of_tables();
            let slot = item.get_mut(index);
            let slot = slot.ok_or_else(|| self.unreachable(depth, "nothing is there"))?;
            *slot = match value {
                Value::InlineTable(table) if of_tables => Item::Table(table.into_table()),
                _ if of_tables => return Err(self.unreachable(depth, "only a table can be here")),
                value => Item::Value(value),
            };
            return Ok(());
        }
        let Some(table) = item.as_table_like_mut() else {
            let reason = format!("{} is a single value, nothing is below it", self.name(depth));
            return Err(self.unreachable(depth, &reason));
        };
        match table.get_mut(key) {
            Some(Item::Value(old)) => {
                // Keeps the comment behind the value.
                *value.decor_mut() = old.decor().clone();
                *old = value;
            }
            _ => {
                // Removed first: a table's key stands in brackets and has no space after it.
                table.remove(key);
                table.insert(key, Item::Value(value));
            }
        }
        Ok(())
    }

    fn index(&self, key: &str, length: usize, depth: usize) -> Result<usize, Problem> {
        match key.parse::<usize>() {
            Ok(index) if index < length => Ok(index),
            _ if length == 0 => Err(self.unreachable(depth, "the list is empty")),
            _ => {
                let entries = if length == 1 { "entry" } else { "entries" };
                let list = self.name(depth);
                let reason = format!("{list} has {length} {entries}, counted from 0");
                Err(self.unreachable(depth, &reason))
            }
        }
    }

    /// The table or value that the first `depth` keys lead to.
    fn name(&self, depth: usize) -> String {
        quote(&self.path[..depth].join("."))
    }

    fn unreachable(&self, depth: usize, reason: &str) -> Problem {
        Problem::UnreachableOverride {
            place: quote(&self.path[..=depth].join(".")),
            typed: source(&self.typed),
            at: (0, self.equals).into(),
            reason: reason.to_owned(),
        }
    }
}

/// The length of a list, or nothing for other items.
fn length(item: &Item) -> Option<usize> {
    let tables = item.as_array_of_tables().map(toml_edit::ArrayOfTables::len);
    tables.or_else(|| item.as_array().map(toml_edit::Array::len))
}

fn source(typed: &str) -> Arc<NamedSource<String>> {
    Arc::new(NamedSource::new("--set", super::suggestion::harmless(typed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "seed = 7 # why\n[backbone.base]\nbuiltin = \"x\"\n[agents.reply]\n\
        transfer.lora = { rank = 8 }\n[[triggers]]\nagent = \"a\"\ntrain.grpo = { steps = 8 }\n";

    fn set(changes: &[&str]) -> Result<String, String> {
        let mut document: DocumentMut = TEXT.parse().unwrap();
        for change in changes {
            let change = Override::parse(change).map_err(|e| format!("{e:?}"))?;
            change.apply(&mut document).map_err(|e| format!("{e:?}"))?;
        }
        let text = document.to_string();
        text.parse::<DocumentMut>().map_err(|e| format!("{text}\n{e}"))?;
        Ok(text)
    }

    fn check(change: &str, old: &str, new: &str) {
        assert_eq!(set(&[change]).unwrap(), TEXT.replace(old, new), "--set {change}");
    }

    #[test]
    fn values_change_in_place_and_comments_stay() {
        check("seed=3", "seed = 7 #", "seed = 3 #");
        check("triggers.0.train.grpo.steps=4", "steps = 8", "steps = 4");
        check("agents.reply.transfer.lora.rank=2", "rank = 8", "rank = 2");
        check("backbone.base.builtin=../my.csv", "\"x\"", "\"../my.csv\"");
        check("backbone.base.from_scratch=true", "\"x\"\n", "\"x\"\nfrom_scratch = true\n");
    }

    #[test]
    fn tables_and_lists_can_be_replaced_and_made() {
        let without = set(&["triggers=[]"]).unwrap();
        assert!(
            without.contains("triggers = []") && !without.contains("[[triggers]]"),
            "{without}"
        );
        let made = set(&["agents.reply.warm_up.steps=5", "channel.text.max_tokens=9"]).unwrap();
        assert!(made.contains("warm_up.steps = 5"), "{made}");
        assert!(made.contains("channel.text.max_tokens = 9"), "{made}");
        let whole = set(&["triggers.0={agent=\"b\"}", "agents.other={backbone=\"base\"}"]).unwrap();
        assert!(whole.contains("agent=\"b\"") || whole.contains("agent = \"b\""), "{whole}");
    }

    #[test]
    fn impossible_changes_are_refused() {
        for change in [
            "",
            "seed",
            "a..b=1",
            "=1",
            "seed.x=1",
            "triggers.1.agent=1",
            "triggers.x=1",
            "triggers.0=1",
        ] {
            assert!(set(&[change]).is_err(), "--set {change}");
        }
    }
}
