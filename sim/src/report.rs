//! Several runs side by side: means with 95 % intervals, grouped by the folder that runs lie in.
//!
//! Reads `summary.json`, and the recording where there is none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::event::Scores;
use crate::metric::interval::mean_interval;
use crate::recording;
use crate::scenario::suggestion::{message, quote};
use crate::summary::Summary;

/// The largest summary that is read, in bytes.
const LARGEST_SUMMARY: u64 = 16 << 20;

/// Why a run directory cannot be reported on.
#[derive(Debug, thiserror::Error)]
#[error("{} is not the directory of a finished run: {reason}", message(path.display()))]
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
        let group = parent.map_or_else(|| "runs".to_owned(), |p| cell(&p.to_string_lossy()));
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
            if before.is_empty() && after.is_empty() {
                continue;
            }
            let count = summaries.len();
            let cells = [before, after, gain].map(|values| shown(&values));
            lines.push(format!("| {group} | {count} | {title} | {} |", cells.join(" | ")));
        }
        let talks = summaries.iter().flat_map(|summary| &summary.talk);
        let agreement: Vec<f64> = talks.map(|talk| talk.agreement).collect();
        if !agreement.is_empty() {
            let (count, agreement) = (agreement.len(), shown(&agreement));
            lines.push(format!("| {group} | {count} | agreement | - | {agreement} | - |"));
        }
    }
    Ok(lines.join("\n"))
}

/// A folder's name in a table: harmless in a terminal and in Markdown.
fn cell(name: &str) -> String {
    let quoted = quote(name);
    quoted.trim_matches('`').replace('|', "/")
}

fn shown(values: &[f64]) -> String {
    if values.is_empty() {
        return "-".to_owned();
    }
    let (mean, half) = mean_interval(values);
    if half.is_nan() { format!("{mean:.3}") } else { format!("{mean:.3} ± {half:.3}") }
}

fn read(directory: &Path) -> Result<Summary, ReportError> {
    let refuse = |reason: String| ReportError { path: directory.into(), reason };
    let path = directory.join("summary.json");
    let summary = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.len() > LARGEST_SUMMARY => {
            Err("summary.json is too large".to_owned())
        }
        Ok(_) => std::fs::read_to_string(&path)
            .map_err(|e| e.to_string())
            .and_then(|text| serde_json::from_str(&text).map_err(|e| format!("summary.json: {e}"))),
        Err(_) => from_recording(directory),
    };
    summary.map_err(|reason| refuse(message(reason)))
}

/// The same from the events: a summary is a fold over them.
fn from_recording(directory: &Path) -> Result<Summary, String> {
    let survey = recording::survey(directory).map_err(|error| error.to_string())?;
    if !survey.finished {
        return Err(format!(
            "its recording has no end, the last tick in it is {}",
            survey.last_tick
        ));
    }
    Ok(survey.summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::TalkSummary;

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
    fn talks_are_reported_by_their_agreement() {
        let folder = tempfile::tempdir().unwrap();
        let mut summary = Summary::default();
        summary.talk = Some(TalkSummary { agreement: 0.625, ..TalkSummary::default() });
        let text = serde_json::to_string(&summary).unwrap();
        std::fs::write(folder.path().join("summary.json"), text).unwrap();
        let table = table(&[folder.path().to_owned()]).unwrap();
        assert!(table.ends_with("| 1 | agreement | - | 0.625 | - |"), "{table}");
        assert!(!table.contains("NaN") && !table.contains("accuracy"), "{table}");
    }

    #[test]
    fn a_recording_without_a_summary_is_reported_once_it_has_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("hostile|\u{202e}\u{1b}[2J").join("1");
        std::fs::create_dir_all(&directory).unwrap();
        let line =
            |seq: u64, kind: &str| format!("{{\"seq\":{seq},\"tick\":{seq},\"event\":{kind}}}\n");
        let scores = r#""scores":{"items":4,"intent_accuracy":0.25,"resolved_rate":0.0,"evaluator_auc":0.5}"#;
        let mut log = "{\"format\":\"polylogue-events/1\"}\n".to_owned();
        log += &line(0, &format!(r#"{{"holdout_scored":{{"phase":"before",{scores}}}}}"#));
        log += &line(1, &format!(r#"{{"holdout_scored":{{"phase":"after",{scores}}}}}"#));
        std::fs::write(directory.join("events.jsonl"), &log).unwrap();
        let refused = table(std::slice::from_ref(&directory)).unwrap_err().to_string();
        assert!(refused.contains("has no end, the last tick in it is 1"), "{refused}");
        log += &line(2, r#"{"run_finished":{"episodes":1,"stopped":false,"generations":{}}}"#);
        std::fs::write(directory.join("events.jsonl"), &log).unwrap();
        let table = table(&[directory]).unwrap();
        let row = r"| hostile/\u{202e}\u{1b}[2J | 1 | intent accuracy | 0.250 | 0.250 | 0.000 |";
        assert!(table.contains(row), "{table}");
    }

    #[test]
    fn a_folder_without_a_run_is_named() {
        let error = table(&[PathBuf::from("nowhere")]).unwrap_err();
        assert!(error.to_string().starts_with("nowhere is not the directory"));
    }
}
