//! How far the run is: its parts, and the jobs that are under way.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};
use sim::event::{Phase, Scores};

use super::number::{grouped, percent};
use super::panel::{bar, panel, title};
use super::theme::{Sign, Theme, Tone};
use crate::app::App;
use crate::state::agent::Job;
use crate::state::run::{Ending, share};
use crate::untrusted::columns;

/// Rows with all parts of the run and one job.
pub(crate) const FULL: u16 = 7;

/// Rows with the present part and one job.
pub(crate) const SHORT: u16 = 4;

const PHASES: [Phase; 4] = [Phase::Transfer, Phase::Before, Phase::Play, Phase::After];

pub(crate) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let inside = panel(theme, title(theme, "Progress", false), false, area, buffer);
    let width = usize::from(inside.width);
    let mut lines = Vec::new();
    if area.height >= FULL {
        let parts = PHASES.into_iter();
        let parts = parts.filter(|phase| !app.state.run.is_talk || *phase == Phase::Play);
        lines.extend(parts.map(|phase| phase_line(app, theme, phase, width)));
    } else {
        lines.push(phase_line(app, theme, app.state.run.phase.unwrap_or(Phase::Transfer), width));
    }
    lines.push(job_line(app, theme, width));
    Paragraph::new(lines).render(inside, buffer);
}

fn phase_line(app: &App, theme: Theme, phase: Phase, width: usize) -> Line<'static> {
    let run = &app.state.run;
    let room = if width >= 40 { 15 } else { phase.title().len() + 1 };
    let name = format!("{:<room$}", phase.title());
    let present = run.phase == Some(phase) && !run.is_over();
    let (sign, tone) = match run.phase {
        _ if present => (Sign::Now, Tone::Strong),
        Some(now) if phase < now => (Sign::Right, Tone::Plain),
        Some(now) if phase == now && run.ending == Ending::Done => (Sign::Right, Tone::Plain),
        Some(now) if phase == now => (Sign::Wrong, Tone::Attention),
        _ => (Sign::Later, Tone::Quiet),
    };
    let mut spans = vec![Span::styled(format!("{} {name}", theme.sign(sign)), theme.style(tone))];
    if present {
        let count = format!(" {}/{}", grouped(run.done), grouped(run.length));
        let columns = width.saturating_sub(2 + room + count.len());
        spans.extend(bar(theme, run.share(), columns, Tone::Good));
        spans.push(Span::raw(count));
    } else if let Some(scores) = scores(app, phase) {
        let words = format!(
            "intent {}, resolved {}",
            percent(scores.intent_accuracy),
            percent(scores.resolved_rate)
        );
        let words = theme.fit(&words, width.saturating_sub(2 + room));
        spans.push(Span::styled(words, theme.style(Tone::Quiet)));
    } else if sign == Sign::Wrong {
        let words = format!("ended at {}/{}", grouped(run.done), grouped(run.length));
        spans.push(Span::styled(words, theme.style(tone)));
    }
    Line::from(spans)
}

fn scores(app: &App, phase: Phase) -> Option<&Scores> {
    match phase {
        Phase::Before => app.state.before.as_ref(),
        Phase::After => app.state.after.as_ref(),
        Phase::Transfer | Phase::Play => None,
    }
}

/// The job under way; of several the first, and how many more.
fn job_line(app: &App, theme: Theme, width: usize) -> Line<'static> {
    let mut jobs =
        app.state.agents.iter().filter_map(|agent| agent.job.as_ref().map(|job| (agent, job)));
    let Some((agent, job)) = jobs.next().filter(|_| !app.state.run.is_over()) else {
        return Line::styled(
            format!("{} no job under way", theme.sign(Sign::Later)),
            theme.style(Tone::Quiet),
        );
    };
    let tail = job_tail(job, jobs.count());
    let name = theme
        .fit(&format!("{} {}", agent.name, job.objective), width.saturating_sub(9 + tail.len()));
    let room = if width >= 40 { columns(&name).max(14) } else { columns(&name) };
    let full = width.saturating_sub(3 + room + tail.len());
    let sign = theme.sign(Sign::Learning);
    let mut spans =
        vec![Span::styled(format!("{sign} {name:<room$} "), theme.style(Tone::Learning))];
    spans.extend(bar(theme, share(job.step as u64, job.steps as u64), full, Tone::Learning));
    spans.push(Span::raw(tail));
    Line::from(spans)
}

fn job_tail(job: &Job, more: usize) -> String {
    let more = if more > 0 { format!(", {more} more") } else { String::new() };
    format!(" {}/{}{more}", job.step, job.steps)
}
