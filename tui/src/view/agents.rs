//! The society: who there is, what each does, and with which version of its weights.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Widget};

use super::number::{counted, grouped, loss};
use super::panel::{corner, panel, row, title};
use super::theme::{Theme, Tone};
use crate::app::{App, Pane};
use crate::state::agent::{Activity, Agent};

/// Rows of one agent with its details, and a row between two of them.
const DETAILED: u16 = 4;

/// Rows of the pane for so many agents.
pub(crate) fn height(count: usize, detailed: bool) -> u16 {
    let count = u16::try_from(count).unwrap_or(u16::MAX / DETAILED);
    if detailed {
        count.saturating_mul(DETAILED).saturating_add(1)
    } else {
        count.saturating_add(2)
    }
}

pub(crate) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let focused = app.pane == Pane::Agents;
    let inside = panel(theme, title(theme, "1 Agents", focused), focused, area, buffer);
    let agents = &app.state.agents;
    if agents.is_empty() {
        return Line::styled("not introduced yet", theme.style(Tone::Quiet)).render(inside, buffer);
    }
    if app.enlarged {
        return table(app, theme, area, inside, buffer);
    }
    let detailed =
        inside.height + 1 >= DETAILED * u16::try_from(agents.len()).unwrap_or(u16::MAX / DETAILED);
    let width = usize::from(inside.width);
    let shown = if detailed { agents.len() } else { usize::from(inside.height) };
    let top = app.top_agent.min(agents.len().saturating_sub(shown));
    let mut lines = Vec::new();
    for (position, agent) in agents.iter().enumerate().skip(top).take(shown) {
        lines.push(summary_line(app, theme, position, agent, width));
        if detailed {
            lines.extend(details(agent, theme, width));
        }
    }
    Paragraph::new(lines).render(inside, buffer);
    more(theme, agents.len() - shown.min(agents.len()), area, buffer);
}

/// Says that not all agents are in sight.
fn more(theme: Theme, hidden: usize, area: Rect, buffer: &mut Buffer) {
    if hidden > 0 {
        corner(&format!("{hidden} more"), theme.style(Tone::Attention), area, buffer);
    }
}

/// Name, activity and generation.
fn summary_line(
    app: &App,
    theme: Theme,
    position: usize,
    agent: &Agent,
    width: usize,
) -> Line<'static> {
    let (sign, word, tone) = theme.activity(app.state.activity_of(position));
    let room = width.saturating_sub(21).clamp(6, 20);
    let name = theme.fit(&agent.name, room);
    let left = vec![
        Span::styled(format!("{name:<room$}"), theme.style(Tone::Agent(position))),
        Span::styled(format!(" {sign} {word}"), theme.style(tone)),
        Span::raw(amount(app, position, agent)),
    ];
    row(left, Span::styled(format!("g{}", agent.generation), theme.style(Tone::Strong)), width)
}

/// How much of its activity: steps of a job, or messages that wait.
fn amount(app: &App, position: usize, agent: &Agent) -> String {
    match (app.state.activity_of(position), &agent.job) {
        (Activity::Learning, Some(job)) => format!(" {}/{}", job.step, job.steps),
        (Activity::Speaking, _) => format!(" {}", app.state.waiting_for(position)),
        _ => String::new(),
    }
}

fn details(agent: &Agent, theme: Theme, width: usize) -> [Line<'static>; 3] {
    let style = theme.style(Tone::Quiet);
    let trained =
        format!("  {}, trains {}", agent.transfer, counted(agent.trainable as u64, "number"));
    let lived = format!(
        "  {}, loss {}, {}",
        counted(agent.turns, "turn"),
        loss(agent.loss),
        counted(u64::from(agent.restarts), "restart")
    );
    [
        Line::styled(theme.fit(&trained, width), style),
        Line::styled(theme.fit(&lived, width), style),
        Line::default(),
    ]
}

/// Everything that is known, one row per agent.
fn table(app: &App, theme: Theme, area: Rect, inside: Rect, buffer: &mut Buffer) {
    let room = usize::from(inside.height.saturating_sub(2));
    let agents = &app.state.agents;
    let top = app.top_agent.min(agents.len().saturating_sub(room));
    let rows = agents.iter().enumerate().skip(top).take(room).map(|(position, agent)| {
        let (sign, word, tone) = theme.activity(app.state.activity_of(position));
        let doing = format!("{sign} {word}{}", amount(app, position, agent));
        Row::new([
            Cell::new(agent.name.clone()).style(theme.style(Tone::Agent(position))),
            Cell::new(doing).style(theme.style(tone)),
            Cell::new(theme.fit(&agent.transfer, 9)),
            Cell::new(theme.fit(&agent.backbone, 10)),
            Cell::new(number(grouped(agent.trainable as u64), 9)),
            Cell::new(number(format!("g{}", agent.generation), 5)),
            Cell::new(number(grouped(agent.turns), 6)),
            Cell::new(number(loss(agent.loss), 7)),
            Cell::new(number(agent.jobs.to_string(), 4)),
            Cell::new(number(agent.restarts.to_string(), 8)),
        ])
    });
    let heads = [
        "Agent",
        "Doing",
        "Transfer",
        "Backbone",
        "  Numbers",
        "  Gen",
        " Turns",
        "   Loss",
        "Jobs",
        "Restarts",
    ];
    let widths = if inside.width >= 105 {
        [18, 18, 9, 10, 9, 5, 6, 7, 4, 8]
    } else {
        [11, 16, 0, 0, 9, 5, 6, 7, 4, 8]
    };
    Table::new(rows, widths.map(Constraint::Length))
        .header(Row::new(heads).style(theme.style(Tone::Strong)).bottom_margin(1))
        .column_spacing(1)
        .render(inside, buffer);
    more(theme, agents.len().saturating_sub(room), area, buffer);
}

/// A number, so that its digits stand below those of others.
fn number(text: String, width: usize) -> String {
    format!("{text:>width$}")
}
