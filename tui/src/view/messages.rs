//! What was said: exchange by exchange in the order in which they ended, the newest at the bottom; below
//! them the ones that are under way, a row each.
//!
//! All words of users and
//! models go through [`crate::untrusted`].

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};
use sim::event::Said;

use super::number::{counted, percent};
use super::panel::{corner, panel, row, title};
use super::theme::{Sign, Theme, Tone};
use crate::app::{App, Pane, Scroll};
use crate::state::exchange::{Answer, Entry, Exchange, Message, Outcome};
use crate::untrusted::{Untrusted, columns};

/// Lines that one message may take where there is the whole screen.
const LINES: usize = 4;

/// Columns of an agent's name, at most.
const NAME: usize = 12;

/// From this many rows on an empty row stands between two exchanges.
const ROOMY: u16 = 14;

pub(crate) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let focused = app.pane == Pane::Messages;
    let words = if app.paused { "2 Messages, paused" } else { "2 Messages" };
    let inside = panel(theme, title(theme, words, focused), focused, area, buffer);
    let stream = &app.state.stream;
    if stream.end() == 0 && stream.under_way().len() == 0 {
        return Line::styled("nothing said yet", theme.style(Tone::Quiet)).render(inside, buffer);
    }
    let top = match app.scroll {
        Scroll::Following => first_in_sight(app, area),
        Scroll::Held { top, .. } => top.max(stream.first()),
    };
    let page = Page::of(app, theme, area);
    let ended = (top..stream.end()).flat_map(|number| page.lines(number)).take(page.height);
    Paragraph::new(ended.collect::<Vec<_>>()).render(inside, buffer);
    let below = Rect {
        y: inside.bottom() - rows_under_way(app, inside.height),
        height: rows_under_way(app, inside.height),
        ..inside
    };
    Paragraph::new(page.under_way(usize::from(below.height))).render(below, buffer);
    if let Scroll::Held { seen, .. } = app.scroll {
        let words = match stream.end().saturating_sub(seen) {
            0 => "end follows".to_owned(),
            new => format!("{} {new} new below", theme.sign(Sign::Below)),
        };
        corner(&words, theme.style(Tone::Attention), area, buffer);
    }
}

/// Rows for the exchanges under way, the line above them included: a quarter of all.
fn rows_under_way(app: &App, height: u16) -> u16 {
    match u16::try_from(app.state.stream.under_way().len()).unwrap_or(u16::MAX) {
        0 => 0,
        count => (count.min(height / 4).max(1) + 1).min(height),
    }
}

/// The first entry to show so that the last one is in sight. Its exchange is whole, if one fits at all.
pub(crate) fn first_in_sight(app: &App, area: Rect) -> u64 {
    let page = Page::of(app, Theme::of(&app.options), area);
    let stream = &app.state.stream;
    let (mut top, mut used) = (stream.end(), 0);
    while top > stream.first() {
        used += page.lines(top - 1).len();
        // The empty row after the last one needs no room.
        if used > page.height + usize::from(page.roomy) && top < stream.end() {
            break;
        }
        top -= 1;
    }
    top
}

/// Whether all from an entry on is in sight.
pub(crate) fn reaches_the_end(app: &App, top: u64, area: Rect) -> bool {
    top >= first_in_sight(app, area)
}

/// About how many entries are in sight.
pub(crate) fn visible(app: &App, area: Rect) -> u64 {
    app.state.stream.end().saturating_sub(first_in_sight(app, area)).max(1)
}

/// How entries become lines in an area.
struct Page<'a> {
    app: &'a App,
    theme: Theme,
    width: usize,
    height: usize,
    roomy: bool,
    lines: usize,
    /// Columns of the longest name.
    name: usize,
}

impl<'a> Page<'a> {
    fn of(app: &'a App, theme: Theme, area: Rect) -> Self {
        let (width, inner) = (area.width.saturating_sub(4), area.height.saturating_sub(2));
        let height = inner - rows_under_way(app, inner);
        Self {
            app,
            theme,
            width: usize::from(width),
            height: usize::from(height),
            roomy: inner >= ROOMY,
            lines: if app.enlarged { LINES } else { 1 },
            name: app
                .state
                .agents
                .iter()
                .map(|agent| agent.name.len())
                .max()
                .unwrap_or(0)
                .min(NAME),
        }
    }

    fn lines(&self, number: u64) -> Vec<Line<'static>> {
        let mut lines = match self.app.state.stream.get(number) {
            Some(Entry::Exchange(exchange)) => self.exchange(exchange),
            Some(Entry::Phase(phase)) => vec![self.divider(phase.title())],
            None => return Vec::new(),
        };
        if self.roomy {
            lines.push(Line::default());
        }
        lines
    }

    fn exchange(&self, exchange: &Exchange) -> Vec<Line<'static>> {
        let mut lines = self.query(exchange);
        for message in &exchange.messages {
            lines.extend(self.message(exchange, message));
        }
        lines
    }

    /// A line across with words in it.
    fn divider(&self, words: &str) -> Line<'static> {
        let across = self.theme.sign(Sign::Across);
        let words = format!("{} {words} ", across.repeat(2));
        let rest = self.width.saturating_sub(columns(&words));
        Line::styled(words + &across.repeat(rest), self.theme.style(Tone::Quiet))
    }

    /// The exchanges under way, as many as there are rows for after the line above them.
    fn under_way(&self, rows: usize) -> Vec<Line<'static>> {
        let exchanges = self.app.state.stream.under_way();
        if rows == 0 {
            return Vec::new();
        }
        let mut lines = vec![self.divider(&format!("{} under way", exchanges.len()))];
        lines.extend(exchanges.take(rows - 1).map(|exchange| self.brief(exchange)));
        lines
    }

    /// An exchange under way in one row: what was asked, what was said last, whose turn it is.
    fn brief(&self, exchange: &Exchange) -> Line<'static> {
        let number = format!("#{} ", exchange.episode);
        let turn = self.app.state.turn_in(exchange.episode);
        let turn = turn.map_or_else(String::new, |agent| {
            let room = self.name;
            let name = self.theme.fit(&agent.name, room);
            format!("{} {name:<room$}", self.theme.sign(Sign::Speaking))
        });
        let last = exchange.messages.last().filter(|_| self.width >= 60);
        let said = last.map_or_else(String::new, |message| self.said_briefly(&message.said));
        let room =
            self.width.saturating_sub(columns(&number) + columns(&said) + columns(&turn) + 4);
        let query = self.theme.fit(&exchange.query, room);
        let left = vec![
            Span::styled(number, self.theme.style(Tone::Quiet)),
            Span::styled(format!("{query}  "), self.theme.style(Tone::Plain)),
        ];
        row(
            left,
            Span::styled(format!("{said}  {turn}"), self.theme.style(Tone::Quiet)),
            self.width,
        )
    }

    fn said_briefly(&self, said: &Said) -> String {
        match said {
            Said::Label { label, confidence } => {
                format!("{} {}", self.theme.fit(label, 18), percent(*confidence))
            }
            Said::Verdict { resolved } => format!("resolved {}", percent(*resolved)),
            Said::Text { text } => self.theme.fit(text, 24),
        }
    }

    /// What was asked, and how it ended.
    fn query(&self, exchange: &Exchange) -> Vec<Line<'static>> {
        let number = format!("#{} ", exchange.episode);
        let (words, tone) = match &exchange.outcome {
            Some(outcome) => self.outcome(outcome),
            None => (String::new(), Tone::Plain),
        };
        let apart = if words.is_empty() { 0 } else { columns(&words) + 2 };
        let room = self.width.saturating_sub(number.len() + apart);
        let mut asked =
            Untrusted(&exchange.query).wrap(room, self.lines, self.theme.charset()).into_iter();
        let left = vec![
            Span::styled(number.clone(), self.theme.style(Tone::Quiet)),
            Span::styled(asked.next().unwrap_or_default(), self.theme.style(Tone::Strong)),
        ];
        let mut lines = vec![row(left, Span::styled(words, self.theme.style(tone)), self.width)];
        let indent = " ".repeat(number.len());
        lines.extend(
            asked.map(|more| {
                Line::styled(format!("{indent}{more}"), self.theme.style(Tone::Strong))
            }),
        );
        lines
    }

    fn outcome(&self, outcome: &Outcome) -> (String, Tone) {
        match outcome {
            Outcome::Answer(answer) => self.answer(answer),
            Outcome::Talk { most, agreement } => {
                let most = self.theme.fit(most, 18);
                let tone = if *agreement >= 0.5 { Tone::Good } else { Tone::Plain };
                (format!("{} say {most}", percent(*agreement)), tone)
            }
        }
    }

    fn answer(&self, outcome: &Answer) -> (String, Tone) {
        let (sign, word, tone) = if outcome.resolved {
            (Sign::Right, "resolved", Tone::Good)
        } else {
            (Sign::Wrong, "missed", Tone::Bad)
        };
        let reward = if self.width >= 60 { " reward" } else { "" };
        (format!("{} {word}{reward} {:.2}", self.theme.sign(sign), outcome.reward), tone)
    }

    fn message(&self, exchange: &Exchange, message: &Message) -> Vec<Line<'static>> {
        let head = self.head(&message.from, message.generation);
        let remark = self.remark(exchange, message);
        let room = self.width.saturating_sub(columns(&head) + columns(&remark.content));
        let (said, lines) = match &message.said {
            Said::Label { label, confidence } => {
                let sure = format!(" {}", percent(*confidence));
                (vec![self.theme.fit(label, room.saturating_sub(sure.len())) + &sure], 1)
            }
            Said::Verdict { resolved } => (vec![format!("resolved {}", percent(*resolved))], 1),
            Said::Text { text } => {
                (Untrusted(text).wrap(room, self.lines, self.theme.charset()), self.lines)
            }
        };
        let indent = " ".repeat(columns(&head));
        let agent = self.app.state.position(&message.from).map_or(Tone::Plain, Tone::Agent);
        let mut said = said.into_iter().take(lines);
        let first = vec![
            Span::styled(head, self.theme.style(agent)),
            Span::raw(said.next().unwrap_or_default()),
            remark,
        ];
        let mut all = vec![Line::from(first)];
        all.extend(said.map(|more| Line::raw(format!("{indent}{more}"))));
        all
    }

    /// Whether signs must do without their words.
    fn narrow(&self) -> bool {
        self.width < 50
    }

    /// Who speaks, and with which version of its weights.
    fn head(&self, name: &str, generation: u32) -> String {
        let (room, name) = (self.name, self.theme.fit(name, self.name.max(1)));
        format!("  {name:<room$} {:<3} ", format!("g{generation}"))
    }

    /// What there is to say about a message: whether it was right, once known, and what was cut off.
    fn remark(&self, exchange: &Exchange, message: &Message) -> Span<'static> {
        let cut = match message.cut {
            0 => String::new(),
            cut => format!(", {} cut", counted(cut as u64, "token")),
        };
        let judged = match (&exchange.outcome, &message.said) {
            (Some(Outcome::Answer(answer)), Said::Label { .. }) => {
                Some((answer.intent_correct, answer.intent.as_str()))
            }
            (Some(Outcome::Answer(answer)), Said::Verdict { .. }) => {
                Some((answer.verdict_correct, ""))
            }
            _ => None,
        };
        let (right, wrong) = (self.theme.sign(Sign::Right), self.theme.sign(Sign::Wrong));
        let (words, tone) = match judged {
            None => (String::new(), Tone::Quiet),
            Some((true, _)) if self.narrow() => (format!("  {right}"), Tone::Good),
            Some((false, _)) if self.narrow() => (format!("  {wrong}"), Tone::Bad),
            Some((true, _)) => (format!("  {right} right"), Tone::Good),
            Some((false, "")) => (format!("  {wrong} wrong"), Tone::Bad),
            Some((false, intent)) => {
                (format!("  {wrong} was {}", self.theme.fit(intent, 20)), Tone::Bad)
            }
        };
        Span::styled(words + &cut, self.theme.style(tone))
    }
}
