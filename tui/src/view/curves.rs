//! How well it goes: reward and recognised intents over episodes, losses over the steps of learning.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::number::{grouped, loss, percent};
use super::panel::{corner, panel, row, title};
use super::plot::{Plot, legend, small};
use super::theme::{Sign, Theme, Tone};
use crate::app::{App, Pane};
use crate::state::agent::Agent;
use crate::state::curve::{Curve, Mark, WINDOW};

/// From this width on recognised intents have a curve of their own.
const WIDE: u16 = 100;

pub(crate) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    if app.state.run.is_talk {
        // Nothing is right or wrong there, and nobody learns.
        reward(app, theme, area, buffer);
    } else if app.enlarged {
        let [left, right] =
            Layout::horizontal([Constraint::Percentage(64), Constraint::Min(0)]).areas(area);
        let [upper, lower] =
            Layout::vertical([Constraint::Percentage(50), Constraint::Min(0)]).areas(left);
        reward(app, theme, upper, buffer);
        accuracy(app, theme, lower, buffer);
        losses(app, theme, right, buffer);
    } else if area.width >= WIDE {
        let widths = [Constraint::Percentage(42), Constraint::Percentage(28), Constraint::Min(0)];
        let [left, middle, right] = Layout::horizontal(widths).areas(area);
        reward(app, theme, left, buffer);
        accuracy(app, theme, middle, buffer);
        losses(app, theme, right, buffer);
    } else {
        let [left, right] =
            Layout::horizontal([Constraint::Percentage(60), Constraint::Min(0)]).areas(area);
        reward(app, theme, left, buffer);
        losses(app, theme, right, buffer);
    }
}

/// What episodes come to: their reward or, where agents just talk, how far they agree.
fn reward(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let focused = app.pane == Pane::Curves;
    let curves = &app.state.curves;
    let (name, curve) = if app.state.run.is_talk {
        ("Agreement", &curves.agreement)
    } else {
        ("Reward", &curves.reward)
    };
    let words = match curve.last() {
        Some(last) if area.width >= 45 => format!("3 {name} {last:.2}, mean of {WINDOW}"),
        Some(last) => format!("3 {name} {last:.2}"),
        None => format!("3 {name}"),
    };
    let inside = panel(theme, title(theme, &words, focused), focused, area, buffer);
    let marks = curves.marks.iter().copied().collect();
    over_episodes(app, theme, curve, marks, Tone::Agent(0), inside, buffer);
    if !curves.marks.is_empty() {
        let legend = legend(theme);
        let width = u16::try_from(legend.width()).unwrap_or(u16::MAX);
        if width + 4 <= area.width {
            legend.render(Rect::new(area.right() - width - 2, area.bottom() - 1, width, 1), buffer);
        }
    }
}

fn accuracy(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let focused = app.enlarged;
    let curve = &app.state.curves.accuracy;
    let words = match curve.last() {
        Some(last) => format!("Intent recognised {}", percent(last)),
        None => "Intent recognised".to_owned(),
    };
    let inside = panel(theme, title(theme, &words, false), focused, area, buffer);
    over_episodes(app, theme, curve, Vec::new(), Tone::Agent(3), inside, buffer);
    let episodes = app.state.run.episodes;
    if curve.steps() > 0 && episodes > 0 {
        let words = format!("episode {} of {}", grouped(curve.steps()), grouped(episodes));
        corner(&words, theme.style(Tone::Quiet), area, buffer);
    }
}

fn over_episodes(
    app: &App,
    theme: Theme,
    curve: &Curve,
    marks: Vec<(u64, Mark)>,
    tone: Tone,
    inside: Rect,
    buffer: &mut Buffer,
) {
    if curve.steps() == 0 && marks.is_empty() {
        return Line::styled("begins with play", theme.style(Tone::Quiet)).render(inside, buffer);
    }
    let length = app.state.run.episodes.max(curve.steps());
    Plot { points: curve.points(), length, marks, tone }.draw(theme, inside, buffer);
}

fn losses(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let inside = panel(theme, title(theme, "Loss", false), app.enlarged, area, buffer);
    let learners: Vec<(usize, &Agent)> =
        app.state.agents.iter().enumerate().filter(|(_, agent)| agent.losses.steps() > 0).collect();
    if learners.is_empty() {
        return Line::styled("nobody has learned yet", theme.style(Tone::Quiet))
            .render(inside, buffer);
    }
    let count = u16::try_from(learners.len()).unwrap_or(u16::MAX);
    let height = (inside.height / count).clamp(1, 6);
    let mut y = inside.y;
    for (position, agent) in learners {
        if y >= inside.bottom() {
            return corner("more enlarged", theme.style(Tone::Attention), area, buffer);
        }
        one_loss(
            theme,
            position,
            agent,
            Rect { y, height: height.min(inside.bottom() - y), ..inside },
            buffer,
        );
        y += height;
    }
}

/// An agent's losses: a line of words, and the curve beside or below it.
fn one_loss(theme: Theme, position: usize, agent: &Agent, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    let style = theme.style(Tone::Agent(position));
    let numbers = format!(
        "{} {} {}",
        loss(agent.losses.first()),
        theme.sign(Sign::To),
        loss(agent.losses.last())
    );
    let name = theme.fit(&agent.name, 11);
    let points = agent.losses.points();
    if area.height == 1 {
        let columns = width.saturating_sub(12 + numbers.len() + 1);
        let curve = small(theme, points, columns, 1).concat();
        let left = vec![Span::styled(format!("{name:<12}"), style), Span::styled(curve, style)];
        return row(left, Span::raw(numbers), width).render(area, buffer);
    }
    row(vec![Span::styled(name, style)], Span::raw(numbers), width).render(area, buffer);
    // A row stays empty before the next agent, where there is one to spare.
    let rows = if area.height >= 4 { area.height - 2 } else { area.height - 1 };
    for (offset, line) in small(theme, points, width, usize::from(rows)).iter().enumerate() {
        let y = area.y + 1 + u16::try_from(offset).unwrap_or(0);
        buffer.set_string(area.x, y, line, style);
    }
}
