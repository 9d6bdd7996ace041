//! What happened to agents, newest at the bottom: learning and supervision.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};

use super::panel::{panel, title};
use super::theme::{Sign, Theme, Tone};
use crate::app::App;
use crate::state::log::{LogLine, Notice};
use crate::untrusted::columns;

pub(crate) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let inside = panel(theme, title(theme, "Learning and supervision", false), false, area, buffer);
    let width = usize::from(inside.width);
    let mut lines: Vec<Line<'static>> = app
        .state
        .log
        .newest(usize::from(inside.height))
        .map(|line| log_line(app, theme, line, width))
        .collect();
    if lines.is_empty() {
        lines.push(Line::styled("nothing so far", theme.style(Tone::Quiet)));
    }
    Paragraph::new(lines).render(inside, buffer);
}

fn log_line(app: &App, theme: Theme, line: &LogLine, width: usize) -> Line<'static> {
    let (sign, tone) = sign(theme, line.notice);
    let tick = format!("{:>4} ", line.tick);
    let agent = format!("{} ", theme.fit(&line.agent, 20));
    let word = format!("{} ", line.notice.word());
    let room = width.saturating_sub(columns(&tick) + 2 + columns(&agent) + columns(&word));
    let words = theme.fit(&line.words, room);
    let own = app.state.position(&line.agent).map_or(Tone::Plain, Tone::Agent);
    Line::from(vec![
        Span::styled(tick, theme.style(Tone::Quiet)),
        Span::styled(format!("{sign} "), theme.style(tone)),
        Span::styled(agent, theme.style(own)),
        Span::styled(word, theme.style(tone)),
        Span::styled(words, theme.style(Tone::Quiet)),
    ])
}

/// Sign and tone of a notice; triggers, swaps and rollbacks have the letters they have in the curves.
fn sign(theme: Theme, notice: Notice) -> (&'static str, Tone) {
    match notice {
        Notice::Transferred => (theme.sign(Sign::Right), Tone::Good),
        Notice::Fired => ("T", Tone::Attention),
        Notice::Learning => (theme.sign(Sign::Learning), Tone::Learning),
        Notice::Swapped => ("S", Tone::Good),
        Notice::RolledBack => ("R", Tone::Bad),
        Notice::Failed => (theme.sign(Sign::Wrong), Tone::Bad),
        Notice::Restarted => (theme.sign(Sign::Restarting), Tone::Good),
        Notice::Struck => (theme.sign(Sign::Restarting), Tone::Attention),
        Notice::Quarantined => (theme.sign(Sign::Held), Tone::Bad),
        Notice::Silenced => (theme.sign(Sign::Held), Tone::Attention),
        Notice::Rejected | Notice::Skipped => (theme.sign(Sign::Wrong), Tone::Attention),
    }
}
