//! Checks of the task's data files: that they are there, can be read, and have the columns.
//!
//! Their contents are read later, by the task.

use std::path::PathBuf;

use super::{Check, Seen, count};
use crate::scenario::file::{ColumnsFile, SupportFile};
use crate::scenario::place::At;
use crate::scenario::problem::Problem;
use crate::scenario::suggestion::{advice, quote};
use crate::scenario::words::DATA_FORMATS;
use crate::scenario::{Columns, SupportPlan};

impl Check<'_> {
    pub(super) fn support(&mut self, support: &SupportFile) -> Option<SupportPlan> {
        let before = self.problems.len();
        let train = self.data(support, "train", &support.train, true);
        // A column that both files lack is one mistake.
        let columns_fit = self.problems.len() == before;
        let holdout = self.data(support, "holdout", &support.holdout, columns_fit);
        let columns = &support.columns;
        Some(SupportPlan {
            train: train?,
            holdout: holdout?,
            holdout_limit: count(&support.holdout_limit),
            columns: Columns {
                text: columns.text.value.clone(),
                intent: columns.intent.value.clone(),
                must: columns.must.value.clone(),
                reply: columns.reply.value.clone(),
            },
        })
    }

    fn data(
        &mut self,
        support: &SupportFile,
        key: &str,
        typed: &At<String>,
        check_columns: bool,
    ) -> Option<PathBuf> {
        let path = self.path(&["task", "support", key], typed)?;
        let shown = quote(&path.display().to_string());
        let at = typed.at;
        let extension = path.extension().and_then(|extension| extension.to_str());
        if !extension.is_some_and(|extension| DATA_FORMATS.contains(&extension)) {
            self.problems.push(Problem::UnknownDataFormat { path: shown, at });
            return Some(path);
        }
        match (self.setting.look)(&path) {
            Seen::File { columns } if check_columns && !columns.is_empty() => {
                self.columns(&support.columns, &columns, &shown, typed);
            }
            Seen::File { .. } => {}
            Seen::Nothing | Seen::Folder => {
                let help = format!(
                    "put it into the scenario's folder, or name another with --set task.support.{key}=PATH"
                );
                self.problems.push(Problem::MissingData { path: shown, at, help });
            }
        }
        Some(path)
    }

    fn columns(&mut self, named: &ColumnsFile, found: &[String], path: &str, file: &At<String>) {
        let default = ColumnsFile::default();
        let all = [
            ("text", &named.text, &default.text),
            ("intent", &named.intent, &default.intent),
            ("must", &named.must, &default.must),
            ("reply", &named.reply, &default.reply),
        ];
        for (role, column, usual) in all {
            // Data without the last two is used all the same, unless somebody named them on purpose.
            let needed = matches!(role, "text" | "intent") || column != usual;
            if needed && !found.contains(&column.value) {
                let at = if column.is_typed() { column.at } else { file.at };
                let found = advice(&column.value, found.iter().map(String::as_str));
                let help = format!("{found}. Name it with `columns = {{ {role} = \"…\" }}`");
                let (name, path) = (quote(&column.value), path.to_owned());
                self.problems.push(Problem::UnknownColumn { path, name, role, at, help });
            }
        }
    }
}
