//! Curves drawn in characters: one with axes and marks, and a small one without.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;
use ratatui::widgets::canvas::{Canvas, Line as Stroke};

use super::theme::{Sign, Theme, Tone};
use crate::state::curve::Mark;

/// Columns left of the axis.
const GUTTER: u16 = 4;

/// A curve of shares, from 0 to 1, over steps from 1 to `length`.
#[derive(Debug)]
pub(crate) struct Plot<'a> {
    /// Step and value.
    pub(crate) points: &'a [(u64, f64)],
    /// Steps of the whole width.
    pub(crate) length: u64,
    /// What happened at which step.
    pub(crate) marks: Vec<(u64, Mark)>,
    /// The curve's tone.
    pub(crate) tone: Tone,
}

impl Plot<'_> {
    /// Draws it; the axis below carries the marks.
    pub(crate) fn draw(&self, theme: Theme, area: Rect, buffer: &mut Buffer) {
        if area.width <= GUTTER + 4 || area.height < 3 {
            return;
        }
        let graph =
            Rect::new(area.x + GUTTER + 1, area.y, area.width - GUTTER - 1, area.height - 1);
        self.axes(theme, area, graph, buffer);
        let color = theme.style(self.tone).fg.unwrap_or(Color::Reset);
        let end = self.length.max(2) as f64;
        Canvas::default()
            .marker(theme.marker())
            .x_bounds([1.0, end])
            .y_bounds([0.0, 1.0])
            .paint(|context| {
                for pair in self.points.windows(2) {
                    let ((x1, y1), (x2, y2)) = (pair[0], pair[1]);
                    context.draw(&Stroke { x1: x1 as f64, y1, x2: x2 as f64, y2, color });
                }
                if let [(x, y)] = self.points {
                    context.draw(&Stroke { x1: *x as f64, y1: *y, x2: *x as f64, y2: *y, color });
                }
            })
            .render(graph, buffer);
    }

    fn axes(&self, theme: Theme, area: Rect, graph: Rect, buffer: &mut Buffer) {
        let quiet = theme.style(Tone::Quiet);
        let middle = graph.y + (graph.height - 1) / 2;
        for y in graph.top()..graph.bottom() {
            let label = match y {
                _ if y == graph.top() => "1.0",
                _ if y + 1 == graph.bottom() => "0.0",
                _ if y == middle && graph.height % 2 == 1 => "0.5",
                _ => "",
            };
            let line = format!("{label:>3} {}", theme.sign(Sign::Axis));
            buffer.set_string(area.x, y, line, quiet);
        }
        let y = graph.bottom();
        buffer.set_string(area.x + GUTTER, y, theme.sign(Sign::Corner), quiet);
        let across = theme.sign(Sign::Across).repeat(usize::from(graph.width));
        buffer.set_string(graph.x, y, across, quiet);
        // Marks of more weight are written over those of less.
        let mut marks = self.marks.clone();
        marks.sort_by_key(|(_, mark)| *mark);
        for (step, mark) in marks {
            let (letter, tone) = letter(mark);
            buffer.set_string(self.column(step, graph), y, letter, theme.style(tone));
        }
    }

    fn column(&self, step: u64, graph: Rect) -> u16 {
        let share = (step.max(1) - 1) as f64 / (self.length.max(2) - 1) as f64;
        let offset = (share.min(1.0) * f64::from(graph.width - 1)).round();
        graph.x + offset as u16
    }
}

/// A mark's letter.
pub(crate) fn letter(mark: Mark) -> (&'static str, Tone) {
    match mark {
        Mark::Trigger => ("T", Tone::Attention),
        Mark::Swap => ("S", Tone::Good),
        Mark::Rollback => ("R", Tone::Bad),
    }
}

/// What the letters mean.
pub(crate) fn legend(theme: Theme) -> Line<'static> {
    let words = [(Mark::Trigger, "trigger"), (Mark::Swap, "swap"), (Mark::Rollback, "rollback")];
    let mut spans = vec![Span::raw(" ")];
    for (mark, word) in words {
        let (letter, tone) = letter(mark);
        spans.push(Span::styled(letter, theme.style(tone)));
        spans.push(Span::styled(format!(" {word} "), theme.style(Tone::Quiet)));
    }
    Line::from(spans)
}

/// A small curve `rows` high, from its own lowest to its own highest value; the highest row first.
pub(crate) fn small(
    theme: Theme,
    points: &[(u64, f64)],
    columns: usize,
    rows: usize,
) -> Vec<String> {
    let values = resampled(points, columns);
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let range = (high - low).max(f64::EPSILON);
    let eighths = |value: f64| ((value - low) / range * (rows * 8 - 1) as f64).round() as usize;
    let row = |above: usize| {
        let column = |value: &f64| match eighths(*value).checked_sub(above * 8) {
            Some(height) => theme.bars()[height.min(7)],
            None => " ",
        };
        values.iter().map(column).collect()
    };
    (0..rows).rev().map(row).collect()
}

/// At most one value per column: the mean of those that fall into it.
fn resampled(points: &[(u64, f64)], columns: usize) -> Vec<f64> {
    if points.len() <= columns {
        return points.iter().map(|(_, value)| *value).collect();
    }
    (0..columns)
        .map(|column| {
            let from = column * points.len() / columns;
            let to = ((column + 1) * points.len() / columns).max(from + 1);
            let part = &points[from..to];
            part.iter().map(|(_, value)| value).sum::<f64>() / part.len() as f64
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Options;

    fn theme() -> Theme {
        Theme::of(&Options::default())
    }

    #[test]
    fn a_small_curve_spans_its_rows() {
        let points: Vec<(u64, f64)> = (0..16).map(|step| (step, 15.0 - step as f64)).collect();
        assert_eq!(small(theme(), &points, 16, 1), ["██▇▇▆▆▅▅▄▄▃▃▂▂▁▁"]);
        assert_eq!(small(theme(), &points, 16, 2), ["█▇▆▅▄▃▂▁        ", "█████████▇▆▅▄▃▂▁"]);
        assert_eq!(small(theme(), &[], 16, 1), [""]);
        assert_eq!(small(theme(), &[(1, 0.5)], 16, 1), ["▁"]);
    }

    #[test]
    fn more_points_than_columns_are_averaged() {
        let points: Vec<(u64, f64)> = (0..10).map(|step| (step, step as f64)).collect();
        assert_eq!(resampled(&points, 5), [0.5, 2.5, 4.5, 6.5, 8.5]);
        assert_eq!(resampled(&points, 3).len(), 3);
    }
}
