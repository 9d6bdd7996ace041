//! Examples of a tuning: texts with classes from CSV, JSON lines or plain lines, and how they are parted.
//!
//! Classes are sorted by name. Parts keep the shares of the classes and are drawn with the seed; the same
//! seed gives the same parts for every method, so that methods can be compared part by part.

use std::path::{Path, PathBuf};

use agents::seed::Seed;
use rand::seq::SliceRandom;
use serde_json::Value;

use super::error::TuneError;
use super::plan::{DataPlan, Source, Split};
use crate::scenario::suggestion::{advice, quote};

/// The largest data file that is read.
const LARGEST_FILE: u64 = 512 << 20;
/// Columns that hold the class unless one is named.
const LABELS: [&str; 3] = ["label", "category", "intent"];

/// A text and its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The text.
    pub text: String,
    /// Index of its class.
    pub label: usize,
}

/// All examples and their classes.
#[derive(Clone, Debug)]
pub struct Data {
    /// The classes, sorted.
    pub labels: Vec<String>,
    /// The examples: first those to learn from, then those of test files.
    pub examples: Vec<Example>,
    /// How many of them are to learn from.
    pub train: usize,
}

/// One training and what it is measured on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is called in reports and folders.
    pub name: String,
    /// The seed of its training.
    pub seed: u64,
    /// Examples to learn from.
    pub train: Vec<usize>,
    /// Examples to measure on.
    pub test: Vec<usize>,
}

impl Data {
    /// Reads the files of a plan.
    ///
    /// # Errors
    /// When a file cannot be read, lacks a column, or has fewer than two classes.
    pub fn read(plan: &DataPlan) -> Result<Self, TuneError> {
        let mut rows = Vec::new();
        for source in &plan.train {
            rows.extend(read(source, plan)?);
        }
        let train = rows.len();
        let mut labels: Vec<String> = rows.iter().map(|(_, label)| label.clone()).collect();
        labels.sort();
        labels.dedup();
        if labels.len() < 2 {
            let what = format!("the examples have {} class: nothing to tell apart", labels.len());
            return Err(TuneError::setting(what, "add examples of another class"));
        }
        if let Split::Test(files) = &plan.split {
            for source in files {
                let more = read(source, plan)?;
                if let Some((_, label)) =
                    more.iter().find(|(_, l)| labels.binary_search(l).is_err())
                {
                    let path = quote(&source.path.display().to_string());
                    let what =
                        format!("{path} has the class {}, which is never learned", quote(label));
                    let help = advice(label, labels.iter().map(String::as_str));
                    return Err(TuneError::Setting { what, help });
                }
                rows.extend(more);
            }
        }
        let examples = rows
            .into_iter()
            .map(|(text, label)| Example { text, label: labels.binary_search(&label).unwrap_or(0) })
            .collect();
        Ok(Self { labels, examples, train })
    }

    /// The trainings of a plan, in order.
    ///
    /// # Errors
    /// When a class has too few examples.
    pub fn parts(
        &self,
        plan: &DataPlan,
        seed: u64,
        repeats: usize,
    ) -> Result<Vec<Part>, TuneError> {
        let mut parts = Vec::new();
        for repeat in 0..repeats as u64 {
            let number = seed.wrapping_add(repeat);
            let seed = Seed::new(number).child("tuning");
            let classes = self.shuffled(seed.child("split"));
            let named = |name: &str| match repeats {
                1 => name.to_owned(),
                _ => format!("seed {number} {name}"),
            };
            let mut add = |name: &str, train: Vec<usize>, test: Vec<usize>| {
                let train = self.few(train, plan.shots, seed.child("shots"))?;
                parts.push(Part { name: named(name), seed: number, train, test });
                Ok::<_, TuneError>(())
            };
            match &plan.split {
                Split::Test(_) => {
                    let test = (self.train..self.examples.len()).collect();
                    add("test", (0..self.train).collect(), test)?;
                }
                Split::Validate(share) => {
                    let held = |class: &[usize]| (class.len() as f64 * share).round() as usize;
                    let gone = |class: &Vec<usize>| !class.is_empty() && held(class) == class.len();
                    if let Some(class) = classes.iter().position(gone) {
                        let name = quote(&self.labels[class]);
                        let what =
                            format!("of the class {name} nothing would be left to learn from");
                        return Err(TuneError::setting(what, "ask for a smaller --validate"));
                    }
                    if classes.iter().all(|class| held(class) == 0) {
                        let what = "no class has so many examples that one would be held out";
                        return Err(TuneError::setting(what, "ask for a larger --validate"));
                    }
                    let take = |part: fn(&[usize], usize) -> &[usize]| {
                        classes.iter().flat_map(|c| part(c, held(c)).to_vec()).collect()
                    };
                    add("validation", take(|c, n| &c[n..]), take(|c, n| &c[..n]))?;
                }
                Split::Folds(folds) => {
                    if let Some(class) = classes.iter().position(|class| class.len() < *folds) {
                        let name = quote(&self.labels[class]);
                        let what =
                            format!("the class {name} has fewer examples than there are folds");
                        return Err(TuneError::setting(what, "ask for fewer folds"));
                    }
                    for fold in 0..*folds {
                        let take = |own: bool| {
                            let of = |c: &Vec<usize>| {
                                let all = c.iter().copied().enumerate();
                                let chosen = all.filter(|(i, _)| (i % folds == fold) == own);
                                chosen.map(|(_, example)| example).collect::<Vec<_>>()
                            };
                            classes.iter().flat_map(of).collect::<Vec<_>>()
                        };
                        add(&format!("fold {}", fold + 1), take(false), take(true))?;
                    }
                }
            }
        }
        Ok(parts)
    }

    /// The training examples of each class, in an order of the seed.
    fn shuffled(&self, seed: Seed) -> Vec<Vec<usize>> {
        let mut classes = vec![Vec::new(); self.labels.len()];
        for (index, example) in self.examples[..self.train].iter().enumerate() {
            classes[example.label].push(index);
        }
        for (label, class) in classes.iter_mut().enumerate() {
            class.shuffle(&mut seed.index(label as u64).stream());
        }
        classes
    }

    /// So many examples of each class.
    fn few(
        &self,
        mut train: Vec<usize>,
        shots: Option<usize>,
        seed: Seed,
    ) -> Result<Vec<usize>, TuneError> {
        let Some(shots) = shots else { return Ok(train) };
        train.shuffle(&mut seed.stream());
        let mut taken = vec![0; self.labels.len()];
        train.retain(|&index| {
            let count = &mut taken[self.examples[index].label];
            *count += 1;
            *count <= shots
        });
        match taken.iter().position(|&count| count < shots) {
            Some(class) => {
                let (name, count) = (quote(&self.labels[class]), taken[class]);
                let what = format!("the class {name} has only {count} of {shots} examples");
                Err(TuneError::setting(what, "ask for fewer with --shots"))
            }
            None => Ok(train),
        }
    }
}

/// Texts and classes of a file.
fn read(source: &Source, plan: &DataPlan) -> Result<Vec<(String, String)>, TuneError> {
    let path = &source.path;
    let fail = |reason: String| TuneError::Unreadable { path: path.clone(), reason };
    let size = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
    if size > LARGEST_FILE {
        return Err(fail(format!("{size} bytes are more than the {LARGEST_FILE} that are read")));
    }
    let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    let reader = Reader { path, plan };
    let rows = match (&source.label, path.extension().and_then(|e| e.to_str())) {
        (Some(label), _) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            lines.map(|line| (line.to_owned(), label.clone())).collect()
        }
        (None, Some("csv")) => reader.csv(&bytes)?,
        (None, Some("jsonl")) => reader.json_lines(&bytes)?,
        (None, _) => {
            let what = format!("{} is neither .csv nor .jsonl", quote(&path.display().to_string()));
            let help = "write LABEL=FILE for a file whose lines are texts of one class";
            return Err(TuneError::setting(what, help));
        }
    };
    if rows.is_empty() {
        let what = format!("{} has no examples", quote(&path.display().to_string()));
        return Err(TuneError::setting(what, "name a file that has some"));
    }
    Ok(rows)
}

struct Reader<'a> {
    path: &'a PathBuf,
    plan: &'a DataPlan,
}

impl Reader<'_> {
    fn line(&self, line: u64, reason: impl ToString) -> TuneError {
        TuneError::Line { path: self.path.clone(), line, reason: reason.to_string() }
    }

    /// The columns of text and class among those there are.
    fn columns(&self, found: &[&str]) -> Result<(String, String), TuneError> {
        let missing = |name: &str, flag: &str| {
            let path = quote(&Path::new(self.path).display().to_string());
            let help = advice(name, found.iter().copied());
            let help = format!("{help}. Name it with {flag}");
            TuneError::Setting { what: format!("{path} has no column {}", quote(name)), help }
        };
        let text = &self.plan.text;
        if !found.contains(&text.as_str()) {
            return Err(missing(text, "--text"));
        }
        let label = match &self.plan.label {
            Some(label) => Some(label.as_str()).filter(|label| found.contains(label)),
            None => LABELS.into_iter().find(|label| found.contains(label)),
        };
        let wanted = self.plan.label.as_deref().unwrap_or(LABELS[0]);
        let label = label.ok_or_else(|| missing(wanted, "--label"))?;
        Ok((text.clone(), label.to_owned()))
    }

    fn csv(&self, bytes: &[u8]) -> Result<Vec<(String, String)>, TuneError> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(bytes);
        let headers = reader.headers().map_err(|e| self.line(1, e))?.clone();
        let names: Vec<&str> = headers.iter().collect();
        let (text, label) = self.columns(&names)?;
        let place = |name: &str| names.iter().position(|found| *found == name).unwrap_or(0);
        let (text, label) = (place(&text), place(&label));
        reader
            .records()
            .map(|row| {
                let at = |e: &csv::Error| e.position().map_or(0, csv::Position::line);
                let row = row.map_err(|e| self.line(at(&e), e))?;
                let cell = |index: usize| row.get(index).unwrap_or_default().to_owned();
                Ok((cell(text), cell(label)))
            })
            .collect()
    }

    fn json_lines(&self, bytes: &[u8]) -> Result<Vec<(String, String)>, TuneError> {
        let content = String::from_utf8_lossy(bytes);
        let mut rows = Vec::new();
        for (index, line) in content.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let number = index as u64 + 1;
            let value: Value = serde_json::from_str(line).map_err(|e| self.line(number, e))?;
            let Some(object) = value.as_object() else {
                return Err(self.line(number, "not a JSON object"));
            };
            let names: Vec<&str> = object.keys().map(String::as_str).collect();
            let (text, label) = self.columns(&names)?;
            let word = |name: &str| match &object[name] {
                Value::String(word) => Ok(word.clone()),
                Value::Number(number) => Ok(number.to_string()),
                Value::Bool(truth) => Ok(truth.to_string()),
                _ => Err(self.line(number, format!("{} is not a text", quote(name)))),
            };
            rows.push((word(&text)?, word(&label)?));
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests;
