//! The page of what the engine does: in the last tick, so far, and at this moment.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Widget};
use sim::work::{Now, Usage, Work, mib};

use super::number::grouped;
use super::panel::{panel, title};
use super::theme::{Theme, Tone};
use crate::app::App;

/// Columns of a number.
const NUMBER: usize = 14;

pub(crate) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let inside = panel(theme, title(theme, "4 Engine", true), true, area, buffer);
    let width = usize::from(inside.width);
    let lines = match &app.work {
        Some(work) => lines(work, theme, width),
        None => vec![Line::styled("Nothing yet.", theme.style(Tone::Quiet))],
    };
    Paragraph::new(lines).render(inside, buffer);
}

fn lines(work: &Work, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let room = width.saturating_sub(2 * NUMBER);
    let row = |name: &str, last: &str, whole: &str| {
        format!("{:<room$}{last:>NUMBER$}{whole:>NUMBER$}", theme.fit(name, room))
    };
    let heads = row("", "last tick", "so far");
    let mut lines = vec![Line::styled(heads, theme.style(Tone::Strong))];
    for (name, value) in ROWS {
        let [last, whole] =
            [(&work.last.engine, work.last_took), (&work.whole, work.took)].map(value);
        lines.push(Line::raw(row(name, &last, &whole)));
    }
    if let Some(now) = &work.now {
        lines.push(Line::styled(theme.fit(&at_this_moment(now), width), theme.style(Tone::Strong)));
    }
    lines
}

/// A line of figures: of what was done in so many milliseconds.
type Row = (&'static str, fn((&Usage, u64)) -> String);

const ROWS: [Row; 17] = [
    ("tokens a second while answering", |(did, _)| grouped(did.tokens_per_second() as u64)),
    ("  tokens of prompts, read", |(did, _)| grouped(did.prompt_tokens)),
    ("  tokens of prompts, shared: not read anew", |(did, _)| grouped(did.shared_tokens)),
    ("  tokens written", |(did, _)| grouped(did.written_tokens)),
    ("  tokens read for classes", |(did, _)| grouped(did.class_tokens)),
    ("steps with texts", |(did, _)| grouped(did.steps)),
    ("sequences in a step, in the mean", |(did, _)| format!("{:.1}", did.occupancy())),
    ("rows that wanted a class", |(did, _)| grouped(did.classes)),
    ("training steps", |(did, _)| grouped(did.training_steps)),
    ("requests waiting, at most", |(did, _)| grouped(did.waiting)),
    ("sequences in progress, at most", |(did, _)| grouped(did.running)),
    ("keys and values, at most", |(did, _)| mib(did.cache_bytes)),
    ("seconds", |(_, took)| seconds(took * MILLION)),
    ("  with texts", |(did, _)| seconds(did.text_time)),
    ("  with classes", |(did, _)| seconds(did.class_time)),
    ("  with training", |(did, _)| seconds(did.training_time)),
    ("  of none of them", |(did, took)| seconds((took * MILLION).saturating_sub(did.time()))),
];

/// Nanoseconds of a millisecond.
const MILLION: u64 = 1_000_000;

fn seconds(nanoseconds: u64) -> String {
    format!("{:.2}", nanoseconds as f64 / 1e9)
}

fn at_this_moment(now: &Now) -> String {
    let Now { usage, sequences, cache_bytes } = now;
    let bound = cache_bytes.map(|bytes| format!(" of {}", mib(bytes))).unwrap_or_default();
    format!(
        "now: {} of {sequences} sequences, {} waiting, keys and values {}{bound}",
        usage.running,
        grouped(usage.waiting),
        mib(usage.cache_bytes)
    )
}
