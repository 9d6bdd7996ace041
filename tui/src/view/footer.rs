//! The last line: the keys, from the key table, as many as there is room for.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::panel::row;
use super::theme::{Sign, Theme, Tone};
use crate::app::App;
use crate::keys::{self, Action, Binding};
use crate::untrusted::columns;

pub(crate) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    let (notice, tone) = notice(app, theme);
    let mut room = width.saturating_sub(columns(&notice) + 2);
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
    let line: Line<'_> = row(left, Span::styled(notice, theme.style(tone)), width);
    line.render(area, buffer);
}

/// The keys of a binding as people write them.
pub(crate) fn label(theme: Theme, binding: &Binding) -> &'static str {
    match (binding.action, theme.charset()) {
        (Action::ScrollUp, crate::untrusted::Charset::Ascii) => "up",
        (Action::ScrollDown, crate::untrusted::Charset::Ascii) => "down",
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
        _ => binding.short,
    }
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
