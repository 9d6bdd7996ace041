//! How it looks: from the application to a frame, and nothing back.
//!
//! Pure: drawing the same application twice gives the same frame. Colours only repeat what a word or a
//! sign says already.

pub(crate) mod agents;
pub(crate) mod curves;
pub(crate) mod engine;
pub(crate) mod footer;
pub(crate) mod header;
pub(crate) mod help;
pub(crate) mod layout;
pub(crate) mod logbook;
pub(crate) mod messages;
pub(crate) mod number;
pub(crate) mod panel;
pub(crate) mod plot;
pub(crate) mod progress;
pub(crate) mod summary;
pub(crate) mod theme;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Widget};

use crate::app::App;
use layout::{Places, SMALLEST};
use theme::{Theme, Tone};

/// Draws all of it.
pub(crate) fn render(app: &App, frame: &mut Frame<'_>) {
    let area = frame.area();
    draw(app, area, frame.buffer_mut());
}

fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = Theme::of(&app.options);
    if area.width < SMALLEST.width || area.height < SMALLEST.height {
        return too_small(theme, area, buffer);
    }
    let places = Places::of(app, area);
    header::draw(app, theme, places.header, buffer);
    footer::draw(app, theme, places.footer, buffer);
    if app.help {
        return help::draw(app.replay.is_some(), theme, places.body, buffer);
    }
    if app.engine {
        return engine::draw(app, theme, places.body, buffer);
    }
    if let Some(area) = places.agents {
        agents::draw(app, theme, area, buffer);
    }
    if let Some(area) = places.progress {
        progress::draw(app, theme, area, buffer);
    }
    if let Some(area) = places.logbook {
        logbook::draw(app, theme, area, buffer);
    }
    if let Some(area) = places.messages {
        if app.summary {
            summary::draw(app, theme, area, buffer);
        } else {
            messages::draw(app, theme, area, buffer);
        }
    }
    if let Some(area) = places.curves {
        curves::draw(app, theme, area, buffer);
    }
}

/// Where the messages are, or would be.
pub(crate) fn messages_area(app: &App, area: Rect) -> Rect {
    Places::of(app, area).messages.unwrap_or_default()
}

fn too_small(theme: Theme, area: Rect, buffer: &mut Buffer) {
    let words =
        format!("needs {}x{}, has {}x{}", SMALLEST.width, SMALLEST.height, area.width, area.height);
    let line = Line::styled(words, theme.style(Tone::Attention));
    let middle = Rect { y: area.y + area.height / 2, height: area.height.min(1), ..area };
    Paragraph::new(line).alignment(Alignment::Center).render(middle, buffer);
}
