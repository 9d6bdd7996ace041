//! The first line: which run, how it stands, and how much the screen has seen of it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;
use ratatui::widgets::Widget;

use super::number::{counted, grouped};
use super::panel::row;
use super::theme::{Sign, Theme, Tone};
use crate::app::App;
use crate::state::run::Ending;

/// What stands there while a run goes on.
const RUNNING: &str = "RUNNING";

pub(crate) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    let run = &app.state.run;
    let (sign, word) = standing(app, theme);
    let word = match &app.replay {
        Some(replay) if word == RUNNING => format!("REPLAY {}", replay.pace_in_words()),
        Some(_) => format!("REPLAY, {word}"),
        None => word.to_owned(),
    };
    let badge = Span::styled(format!(" {sign} {word} "), theme.style(Tone::Badge));

    let apart = if app.replay.is_some() { "" } else { ", " };
    let seen = format!("{}{apart}", counted(run.seen, "event"));
    // A recording loses nothing on its way here.
    let (tick, missed) = match &app.replay {
        Some(replay) => (
            format!("tick {} of {}  ", grouped(run.tick), grouped(replay.last_tick)),
            " ".to_owned(),
        ),
        None => {
            (format!("tick {}  ", grouped(run.tick)), format!("{} missed ", grouped(run.missed)))
        }
    };
    let right = format!("{tick}{seen}{missed}");

    // What matters least is left out first.
    let mut left = vec![badge, Span::styled("  Polylogue", theme.style(Tone::Strong))];
    let used: usize = left.iter().map(Span::width).sum();
    let mut room = width.saturating_sub(used + right.len() + 2);
    if !run.scenario.is_empty() {
        let parts = [
            theme.fit(&run.scenario, room.saturating_sub(2).min(40)),
            theme.fit(&run.protocol, 24),
            format!("seed {}", run.seed),
        ];
        for (position, part) in parts.into_iter().enumerate() {
            let tone = if position == 0 { Tone::Plain } else { Tone::Quiet };
            let span = Span::styled(format!("  {part}"), theme.style(tone));
            let Some(rest) = room.checked_sub(span.width()) else { break };
            room = rest;
            left.push(span);
        }
    }
    let tone = if run.missed > 0 { Tone::Attention } else { Tone::Quiet };
    row(left, Span::styled(right, theme.style(tone)), width).render(area, buffer);
}

/// Sign and word for how the run stands.
fn standing(app: &App, theme: Theme) -> (&'static str, &'static str) {
    match app.state.run.ending {
        Ending::Done => (theme.sign(Sign::Right), "DONE"),
        Ending::Stopped => (theme.sign(Sign::Right), "DONE, stopped early"),
        Ending::Lost => (theme.sign(Sign::Wrong), "ENDED without a result"),
        Ending::Running if app.stopping => (theme.sign(Sign::Held), "STOPPING"),
        Ending::Running if app.paused => (theme.sign(Sign::Held), "PAUSED"),
        Ending::Running if app.state.run.phase.is_none() => (theme.sign(Sign::Later), "STARTING"),
        Ending::Running => (theme.sign(Sign::Now), RUNNING),
    }
}
