//! How well classes are told apart: accuracy, and precision, recall and F1 of each class.

use serde::{Deserialize, Serialize};

/// Scores of a classifier on some examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// Share that was right.
    pub accuracy: f64,
    /// Mean of the classes' F1; classes that neither occur nor are said do not count.
    pub macro_f1: f64,
    /// Each class, in the order of its index.
    pub classes: Vec<ClassScore>,
}

/// Scores of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Share of what was said to be of the class that is.
    pub precision: f64,
    /// Share of the class that was found.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// How many examples are of the class.
    pub support: usize,
}

impl ClassScores {
    /// Scores of what was `said` where `truth` is right, among so many classes.
    ///
    /// ```
    /// let scores = sim::metric::classes::ClassScores::of(&[0, 0, 1, 1], &[0, 1, 1, 1], 2);
    /// assert!((scores.accuracy - 0.75).abs() < 1e-12);
    /// assert!((scores.classes[1].precision - 2.0 / 3.0).abs() < 1e-12);
    /// assert!((scores.macro_f1 - (2.0 / 3.0 + 0.8) / 2.0).abs() < 1e-12);
    /// ```
    #[must_use]
    pub fn of(truth: &[usize], said: &[usize], classes: usize) -> Self {
        let mut counts = vec![[0_usize; 3]; classes];
        for (&right, &answer) in truth.iter().zip(said) {
            counts[right][0] += 1;
            counts[answer][1] += 1;
            counts[right][2] += usize::from(right == answer);
        }
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let score = |&[support, said, hits]: &[usize; 3]| ClassScore {
            precision: share(hits, said),
            recall: share(hits, support),
            f1: share(2 * hits, said + support),
            support,
        };
        let seen: Vec<f64> = counts
            .iter()
            .filter(|[support, said, _]| support + said > 0)
            .map(|count| score(count).f1)
            .collect();
        let hits: usize = counts.iter().map(|[_, _, hits]| hits).sum();
        Self {
            accuracy: share(hits, truth.len()),
            macro_f1: seen.iter().sum::<f64>() / seen.len().max(1) as f64,
            classes: counts.iter().map(score).collect(),
        }
    }
}
