//! The frame around a part of the screen, and rows with something at either end.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Widget};

use super::theme::{Sign, Theme, Tone};

/// Draws a frame with a title and gives what is inside, one column off the frame at either side.
pub(crate) fn panel(
    theme: Theme,
    title: Line<'static>,
    focused: bool,
    area: Rect,
    buffer: &mut Buffer,
) -> Rect {
    let tone = if focused { Tone::Focus } else { Tone::Quiet };
    let block =
        Block::bordered().border_set(theme.border()).border_style(theme.style(tone)).title(title);
    let inside = block.inner(area);
    block.render(area, buffer);
    Rect { x: inside.x + 1, width: inside.width.saturating_sub(2), ..inside }
}

/// A title; the one with the focus has a sign before it.
pub(crate) fn title(theme: Theme, words: &str, focused: bool) -> Line<'static> {
    if focused {
        let words = format!(" {} {words} ", theme.sign(Sign::Focus));
        Line::styled(words, theme.style(Tone::Focus))
    } else {
        Line::styled(format!(" {words} "), theme.style(Tone::Strong))
    }
}

/// Words at the lower right of a frame.
pub(crate) fn corner(words: &str, style: Style, area: Rect, buffer: &mut Buffer) {
    let words = format!(" {words} ");
    let line = Line::styled(words, style);
    let width = u16::try_from(line.width()).unwrap_or(u16::MAX);
    if width + 4 <= area.width && area.height > 0 {
        let place = Rect::new(area.right() - width - 2, area.bottom() - 1, width, 1);
        line.render(place, buffer);
    }
}

/// A row with something at the right end; the left is expected to leave room for it.
pub(crate) fn row(left: Vec<Span<'static>>, right: Span<'static>, width: usize) -> Line<'static> {
    let used: usize = left.iter().map(Span::width).sum();
    let gap = width.saturating_sub(used + right.width());
    let mut spans = left;
    spans.push(Span::raw(" ".repeat(gap)));
    spans.push(right);
    Line::from(spans)
}

/// A bar of some columns, full to a share from 0 to 1.
pub(crate) fn bar(theme: Theme, share: f64, columns: usize, tone: Tone) -> [Span<'static>; 2] {
    let full = ((share.clamp(0.0, 1.0) * columns as f64).round() as usize).min(columns);
    [
        Span::styled(theme.sign(Sign::Full).repeat(full), theme.style(tone)),
        Span::styled(theme.sign(Sign::Empty).repeat(columns - full), theme.style(Tone::Quiet)),
    ]
}
