//! The last line: the keys, from the key table, as many as there is room for.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use sim::work::mib;

use super::panel::row;
use super::theme::{Sign, Theme, Tone};
use crate::app::App;
use crate::keys::{self, Action, Binding};
use crate::untrusted::columns;

/// Columns that keys have before anything is said about the engine.
const KEYS: usize = 66;

pub(crate) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    let (notice, tone) = notice(app, theme);
    // The first words about the engine always have room, and more of them on a wide screen.
    let most = width.saturating_sub(KEYS);
    let kept = if notice.is_empty() { columns(&engine(app, most)) } else { 0 };
    let mut room = width.saturating_sub(columns(&notice) + 2 + kept);
    let mut left = Vec::new();
    for binding in keys::bindings(app.replay.is_some()) {
        let Some(short) = short(app, binding) else { continue };
        let keys = format!(" {}", label(theme, binding));
        let words = format!(" {short} ");
        let Some(rest) = room.checked_sub(columns(&keys) + columns(&words)) else { break };
        room = rest;
        left.push(Span::styled(keys, theme.style(Tone::Strong)));
        left.push(Span::styled(words, theme.style(Tone::Quiet)));
    }
    let notice = if notice.is_empty() { engine(app, room + kept) } else { notice };
    let line: Line<'_> = row(left, Span::styled(notice, theme.style(tone)), width);
    line.render(area, buffer);
}

/// The keys of a binding as people write them.
pub(crate) fn label(theme: Theme, binding: &Binding) -> &'static str {
    match (binding.action, theme.charset()) {
        (Action::ScrollUp, crate::untrusted::Charset::Ascii) => "up down",
        _ => binding.label,
    }
}

/// The footer's word for a binding, as things stand.
fn short(app: &App, binding: &Binding) -> Option<&'static str> {
    let over = app.state.run.is_over();
    match binding.action {
        Action::TogglePause if over || app.stopping => None,
        Action::TogglePause if app.paused => Some("resume"),
        Action::ToggleSummary if over => Some("summary"),
        Action::ToggleEnlarged if app.enlarged => Some("shrink"),
        Action::ToggleEngine if app.engine => Some("society"),
        _ => binding.short,
    }
}

/// What the engine did in the last tick, in as many words as there is room for.
fn engine(app: &App, room: usize) -> String {
    let Some(work) = app.work.filter(|_| !app.state.run.is_over()) else { return String::new() };
    let did = work.last.engine;
    let mut words = String::new();
    let answers = [
        format!("{:.0} tok/s", did.tokens_per_second()),
        format!("{:.0} rows", did.occupancy()),
        format!("{} waiting", did.waiting),
        format!("cache {}", mib(did.cache_bytes)),
    ];
    let jobs = format!("{} job steps", did.training_steps);
    let answers = answers.into_iter().filter(|_| did.tokens() > 0);
    let parts = answers.chain((did.training_steps > 0).then_some(jobs));
    for part in parts {
        let longer = if words.is_empty() { part } else { format!("{words}, {part}") };
        if columns(&longer) + 1 > room {
            break;
        }
        words = longer;
    }
    if words.is_empty() { words } else { words + " " }
}

/// What the person should know about the keys right now.
fn notice(app: &App, theme: Theme) -> (String, Tone) {
    let held = theme.sign(Sign::Held);
    if app.stopping {
        (format!("{held} stopping after this tick; q leaves at once "), Tone::Attention)
    } else if app.paused {
        let words = if app.replay.is_some() { "held" } else { "paused; space resumes" };
        (format!("{held} {words} "), Tone::Attention)
    } else {
        (String::new(), Tone::Plain)
    }
}
