//! The page of keys and signs, made from the key table.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};

use super::footer::label;
use super::panel::{panel, title};
use super::plot::legend;
use super::theme::{Theme, Tone};
use crate::keys;
use crate::state::agent::Activity;

pub(crate) fn draw(replay: bool, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let inside = panel(theme, title(theme, "Help", true), true, area, buffer);
    let width = usize::from(inside.width);
    let mut lines: Vec<Line<'static>> = keys::bindings(replay)
        .filter_map(|binding| {
            Some(Line::from(vec![
                Span::styled(format!("{:<11}", label(theme, binding)), theme.style(Tone::Focus)),
                Span::raw(theme.fit(binding.help?, width.saturating_sub(11))),
            ]))
        })
        .collect();
    if usize::from(inside.height) >= lines.len() + 6 {
        lines.push(Line::default());
    }
    lines.push(activities(theme));
    lines.push(marks(theme));
    Paragraph::new(lines).render(inside, buffer);
}

/// The signs of what agents do.
fn activities(theme: Theme) -> Line<'static> {
    let mut spans = vec![Span::styled(format!("{:<11}", "agents"), theme.style(Tone::Strong))];
    let all = [Activity::Waiting, Activity::Speaking, Activity::Learning, Activity::Restarting];
    for activity in all {
        let (sign, word, tone) = theme.activity(activity);
        spans.push(Span::styled(format!("{sign} {word}  "), theme.style(tone)));
    }
    Line::from(spans)
}

/// The letters below the reward.
fn marks(theme: Theme) -> Line<'static> {
    let mut spans = vec![Span::styled(format!("{:<10}", "curves"), theme.style(Tone::Strong))];
    spans.extend(legend(theme).spans);
    Line::from(spans)
}
