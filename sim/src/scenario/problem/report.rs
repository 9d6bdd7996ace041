//! All mistakes of one scenario as one error that shows each at its line and column.
//!
//! Prints nothing itself; any `miette` handler renders it.

use std::fmt;

use miette::{Diagnostic, NamedSource, SourceCode};

use super::Problem;
use crate::scenario::suggestion;

/// Why a scenario was refused: every mistake in it, in the order of the file.
pub struct Problems(Box<Report>);

/// Most mistakes that are shown; a hostile file could contain a hundred thousand.
const MOST_SHOWN: usize = 50;

struct Report {
    /// The text that the mistakes point into, made harmless.
    source: NamedSource<String>,
    all: Vec<Problem>,
    /// How many there were before the last were left out.
    count: usize,
}

impl Problems {
    /// Collects mistakes in a text.
    pub(in crate::scenario) fn new(name: &str, text: &str, mut all: Vec<Problem>) -> Self {
        all.sort_by_key(Problem::offset);
        let count = all.len();
        all.truncate(MOST_SHOWN);
        let source = NamedSource::new(name, suggestion::harmless(text));
        Self(Box::new(Report { source, all, count }))
    }

    /// The mistakes, in the order of the file; the first fifty where there are more.
    #[must_use]
    pub fn all(&self) -> &[Problem] {
        &self.0.all
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.count {
            1 => write!(f, "the scenario has a mistake"),
            count if count > MOST_SHOWN => {
                write!(f, "the scenario has {count} mistakes; the first {MOST_SHOWN} are shown")
            }
            count => write!(f, "the scenario has {count} mistakes"),
        }
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

impl std::error::Error for Problems {}

impl Diagnostic for Problems {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.0.source)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.all().iter().map(|problem| problem as &dyn Diagnostic)))
    }
}
