//! The wall times of a recorded run, and what its engines did: for showing it again, and for nothing else.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::work::{TickWork, Work};

/// The most that is read of the file, in bytes; ticks beyond have no time.
const LARGEST: u64 = 64 << 20;

/// When each tick ended, and what was done in it.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<TickWork>);

impl Times {
    /// Reads `times.jsonl` of a run directory as far as it makes sense; without one there are no times.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        let mut text = String::new();
        let file = File::open(directory.join("times.jsonl"));
        // A text that was cut off within a letter is of no use, and neither are the times then.
        if file.and_then(|file| file.take(LARGEST).read_to_string(&mut text)).is_err() {
            return Self::default();
        }
        let mut times: Vec<TickWork> = Vec::new();
        for line in text.lines().map_while(|line| serde_json::from_str::<TickWork>(line).ok()) {
            if times.last().is_none_or(|last| last.tick < line.tick) {
                times.push(line);
            }
        }
        Self(times)
    }

    /// Milliseconds between the ends of two ticks; none where one of them is not known.
    #[must_use]
    pub fn between(&self, before: u64, tick: u64) -> Option<u64> {
        Some(self.at(tick)?.saturating_sub(self.at(before)?))
    }

    /// Milliseconds that the run took.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.0.last().map_or(0, |line| line.milliseconds)
    }

    /// What was done up to the end of a tick.
    #[must_use]
    pub fn work(&self, tick: u64) -> Work {
        let mut work = Work::default();
        self.0.iter().take_while(|line| line.tick <= tick).for_each(|line| work.add(line));
        work
    }

    fn at(&self, tick: u64) -> Option<u64> {
        let place = self.0.binary_search_by_key(&tick, |line| line.tick).ok()?;
        self.0.get(place).map(|line| line.milliseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_far_as_they_make_sense() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Times::of(folder.path()).whole(), 0);
        let line = |tick, ms| format!("{{\"tick\":{tick},\"milliseconds\":{ms}}}\n");
        let text = [line(1, 10), line(2, 25), line(4, 20), line(5, 90), "{\"tick\":6".to_owned()];
        std::fs::write(folder.path().join("times.jsonl"), text.concat()).unwrap();
        let times = Times::of(folder.path());
        assert_eq!(times.between(1, 2), Some(15));
        assert_eq!(times.between(2, 4), Some(0), "a clock that was set back");
        assert_eq!(times.between(2, 3), None);
        assert_eq!(times.whole(), 90);
        assert_eq!(times.work(3).took, 25);
    }
}
