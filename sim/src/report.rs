//! Several runs side by side: means with 95 % intervals, grouped by the folder that runs lie in.
//!
//! Reads `summary.json` files and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::event::Scores;
use crate::metric::interval::mean_interval;
use crate::summary::Summary;

/// Why a run directory cannot be reported on.
#[derive(Debug, thiserror::Error)]
#[error("{path} is not the directory of a finished run: {reason}")]
pub struct ReportError {
    /// The directory.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// A score of a finished run: its title, and where it stands in the holdout's scores.
struct Score(&'static str, fn(&Scores) -> f64);

const SCORES: [Score; 3] = [
    Score("intent accuracy", |scores| scores.intent_accuracy),
    Score("resolved rate", |scores| scores.resolved_rate),
    Score("evaluator AUC", |scores| scores.evaluator_auc),
];

/// A table of the runs in `directories`, as Markdown.
///
/// # Errors
/// When a directory holds no finished run.
pub fn table(directories: &[PathBuf]) -> Result<String, ReportError> {
    let mut groups: BTreeMap<String, Vec<Summary>> = BTreeMap::new();
    for directory in directories {
        let parent = directory.parent().and_then(Path::file_name);
        let group = parent.map_or_else(|| "runs".to_owned(), |p| p.to_string_lossy().into_owned());
        groups.entry(group).or_default().push(read(directory)?);
    }
    let mut lines = vec![
        "| group | runs | score | holdout before | holdout after | gain |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for (group, summaries) in &groups {
        for Score(title, value) in SCORES {
            let before: Vec<f64> = summaries.iter().flat_map(|s| &s.before).map(value).collect();
            let after: Vec<f64> = summaries.iter().flat_map(|s| &s.after).map(value).collect();
            let gain: Vec<f64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
            let count = summaries.len();
            let cells = [before, after, gain].map(|values| shown(&values));
            lines.push(format!("| {group} | {count} | {title} | {} |", cells.join(" | ")));
        }
    }
    Ok(lines.join("\n"))
}

fn shown(values: &[f64]) -> String {
    let (mean, half) = mean_interval(values);
    if half.is_nan() { format!("{mean:.3}") } else { format!("{mean:.3} ± {half:.3}") }
}

fn read(directory: &Path) -> Result<Summary, ReportError> {
    let refuse = |reason: String| ReportError { path: directory.into(), reason };
    let path = directory.join("summary.json");
    let text = std::fs::read_to_string(path).map_err(|e| refuse(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| refuse(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_grouped_by_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut directories = Vec::new();
        for (seed, accuracy) in [(1, 0.5), (2, 0.7)] {
            let directory = folder.path().join("with").join(seed.to_string());
            std::fs::create_dir_all(&directory).unwrap();
            let scores = |intent_accuracy| {
                let (resolved_rate, evaluator_auc) = (0.1, 0.5);
                Some(Scores { items: 4, intent_accuracy, resolved_rate, evaluator_auc })
            };
            let mut summary = Summary::default();
            summary.before = scores(0.2);
            summary.after = scores(accuracy);
            let text = serde_json::to_string(&summary).unwrap();
            std::fs::write(directory.join("summary.json"), text).unwrap();
            directories.push(directory);
        }
        let table = table(&directories).unwrap();
        // t(0.975, 1 degree of freedom) = 12.706; the standard error of 0.5 and 0.7 is 0.1.
        let row = "| with | 2 | intent accuracy | 0.200 ± 0.000 | 0.600 ± 1.271 | 0.400 ± 1.271 |";
        assert!(table.contains(row), "{table}");
    }

    #[test]
    fn a_folder_without_a_run_is_named() {
        let error = table(&[PathBuf::from("nowhere")]).unwrap_err();
        assert!(error.to_string().starts_with("nowhere is not the directory"));
    }
}
