//! How two logs part, as lines for people. What stands in logs is untrusted.

use sim::divergence::Divergence;

use crate::untrusted::{Charset, Untrusted};

/// Columns of a log's line that are shown.
const COLUMNS: usize = 400;

/// The first difference; `first` and `second` say what the two logs are, in words of equal length.
pub(crate) fn lines(divergence: &Divergence, first: &str, second: &str) -> Vec<String> {
    let shown = |line: &str| Untrusted(line).fit(COLUMNS, Charset::Unicode);
    let mut lines = vec![format!(
        "the first difference is event {} in tick {}, after {} equal ones",
        divergence.seq, divergence.tick, divergence.seq
    )];
    let room = first.len().max(second.len()).max("equal".len());
    lines.extend(
        divergence.before.iter().map(|line| format!("  {:<room$}  {}", "equal", shown(line))),
    );
    for (word, line) in [(first, &divergence.first), (second, &divergence.second)] {
        let line = line.as_ref().map_or_else(|| "(nothing: it ends here)".to_owned(), |l| shown(l));
        lines.push(format!("  {word:<room$}  {line}"));
    }
    if divergence.changes.is_empty() && divergence.first.is_some() && divergence.second.is_some() {
        lines.push("  the same values, written differently".to_owned());
    }
    let changes =
        divergence.changes.iter().map(|change| format!("  {}", shown(&change.to_string())));
    lines.extend(changes);
    lines
}
