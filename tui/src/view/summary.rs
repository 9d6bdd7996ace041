//! What came of a run that ended: holdout before and after, jobs per agent, where the files are.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};
use sim::event::Scores;

use super::number::{counted, percent};
use super::panel::{panel, title};
use super::theme::{Sign, Theme, Tone};
use crate::app::{App, Pane};
use crate::state::agent::Agent;
use crate::state::run::Ending;
use crate::untrusted::Untrusted;

pub(crate) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let focused = app.pane == Pane::Messages;
    let inside = panel(theme, title(theme, "Summary", focused), focused, area, buffer);
    let roomy = inside.height >= 18;
    let mut lines = vec![standing(app, theme)];
    let gap = |lines: &mut Vec<Line<'static>>| {
        if roomy {
            lines.push(Line::default());
        }
    };
    gap(&mut lines);
    if app.state.run.is_talk {
        let agreement = app.state.curves.agreement.last().map(percent);
        let agreement = agreement.unwrap_or_else(|| "-".to_owned());
        lines.push(Line::raw(format!("Agreement at the end of the last talks: {agreement}")));
    } else {
        lines.extend(holdout(app, theme, usize::from(inside.width)));
    }
    gap(&mut lines);
    let room = usize::from(inside.height).saturating_sub(lines.len() + 3);
    lines.extend(agents(app, theme, usize::from(inside.width), room));
    gap(&mut lines);
    lines.extend(directory(app, theme, usize::from(inside.width)));
    Paragraph::new(lines).render(inside, buffer);
}

fn standing(app: &App, theme: Theme) -> Line<'static> {
    let run = &app.state.run;
    let curves = &app.state.curves;
    let played = curves.reward.steps() + curves.agreement.steps();
    let (sign, word, tone) = match run.ending {
        Ending::Lost => (Sign::Wrong, "no result", Tone::Bad),
        Ending::Stopped => (Sign::Right, "stopped", Tone::Attention),
        Ending::Done | Ending::Running => (Sign::Right, "played", Tone::Good),
    };
    Line::from(vec![
        Span::styled(format!("{} {word}: ", theme.sign(sign)), theme.style(tone)),
        Span::raw(format!("{}, {}", counted(played, "episode"), counted(run.tick, "tick"))),
    ])
}

fn holdout(app: &App, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let (before, after) = (app.state.before.as_ref(), app.state.after.as_ref());
    let items = after.or(before).map_or(0, |scores| scores.items);
    let room = width.saturating_sub(21).clamp(8, 18);
    let name = theme.fit(&format!("Holdout of {items}"), room);
    let heads = format!("{name:<room$}{:>7}{:>7}{:>7}", "before", "after", "change");
    let line = |name: &str, score: fn(&Scores) -> f64| {
        let name = format!("{:<room$}", theme.fit(name, room));
        score_line(theme, name, before.map(score), after.map(score))
    };
    vec![
        Line::styled(heads, theme.style(Tone::Strong)),
        line("intent recognised", |scores| scores.intent_accuracy),
        line("query resolved", |scores| scores.resolved_rate),
        line("evaluator's AUC", |scores| scores.evaluator_auc),
    ]
}

fn score_line(
    theme: Theme,
    name: String,
    before: Option<f64>,
    after: Option<f64>,
) -> Line<'static> {
    let shown =
        |score: Option<f64>| score.map_or_else(|| "-".to_owned(), |score| format!("{score:.3}"));
    let change = before.zip(after).map(|(before, after)| after - before);
    // A change that is not shown is none.
    let (words, tone) = match change.map(|change| (change * 1_000.0).round() / 1_000.0) {
        Some(change) if change > 0.0 => (format!("+{change:.3}"), Tone::Good),
        Some(change) if change < 0.0 => (format!("{change:.3}"), Tone::Bad),
        Some(_) => ("same".to_owned(), Tone::Plain),
        None => ("-".to_owned(), Tone::Quiet),
    };
    Line::from(vec![
        Span::raw(format!("{name}{:>7}{:>7}", shown(before), shown(after))),
        Span::styled(format!("{words:>7}"), theme.style(tone)),
    ])
}

fn agents(app: &App, theme: Theme, width: usize, count: usize) -> Vec<Line<'static>> {
    let room = width.saturating_sub(27).clamp(3, 14);
    let heads =
        format!("{:<room$}{:>4}{:>5}{:>8}{:>10}", "Agent", "gen", "jobs", "undone", "restarts");
    let mut lines = vec![Line::styled(heads, theme.style(Tone::Strong))];
    lines.extend(app.state.agents.iter().enumerate().take(count).map(|(position, agent)| {
        let Agent { generation, jobs, rolled_back, restarts, .. } = agent;
        let generation = format!("g{generation}");
        let name = format!("{:<room$}", theme.fit(&agent.name, room));
        Line::from(vec![
            Span::styled(name, theme.style(Tone::Agent(position))),
            Span::raw(format!("{generation:>4}{jobs:>5}{rolled_back:>8}{restarts:>10}")),
        ])
    }));
    lines
}

fn directory(app: &App, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let path = &app.options.run_directory;
    if path.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![Line::styled("Everything is in", theme.style(Tone::Strong))];
    lines.extend(Untrusted(path).wrap(width, 2, theme.charset()).into_iter().map(Line::raw));
    lines
}
