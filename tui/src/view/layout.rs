//! Which part of the screen goes where, by its size and by what the person looks at.

use ratatui::layout::{Constraint, Layout, Rect, Size};

use super::{agents, progress};
use crate::app::{App, Pane};

/// Below this nothing but a request for more room is shown.
pub(crate) const SMALLEST: Size = Size { width: 60, height: 15 };

/// From this width on there is room for everything.
const WIDE: u16 = 110;

/// From this height on curves are shown beside everything else.
const TALL: u16 = 20;

/// Where the parts go; what is not shown has no place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Places {
    /// Which run, how it stands.
    pub(crate) header: Rect,
    /// All between header and footer.
    pub(crate) body: Rect,
    /// The society.
    pub(crate) agents: Option<Rect>,
    /// How far the run is.
    pub(crate) progress: Option<Rect>,
    /// Learning and supervision.
    pub(crate) logbook: Option<Rect>,
    /// What was said, or the summary.
    pub(crate) messages: Option<Rect>,
    /// Reward and losses.
    pub(crate) curves: Option<Rect>,
    /// The keys.
    pub(crate) footer: Rect,
}

impl Places {
    /// Finds the places in an area.
    pub(crate) fn of(app: &App, area: Rect) -> Self {
        let rows = [Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)];
        let [header, body, footer] = Layout::vertical(rows).areas(area);
        let places = Self { header, body, footer, ..Self::default() };
        if app.enlarged {
            return match app.pane {
                Pane::Agents => Self { agents: Some(body), ..places },
                Pane::Messages => Self { messages: Some(body), ..places },
                Pane::Curves => Self { curves: Some(body), ..places },
            };
        }
        let (upper, curves) = if area.height < TALL {
            (body, None)
        } else {
            let height = (area.height * 3 / 10).clamp(8, 16);
            let [upper, lower] =
                Layout::vertical([Constraint::Min(0), Constraint::Length(height)]).areas(body);
            (upper, Some(lower))
        };
        let left = if area.width >= WIDE { 48 } else { area.width * 37 / 80 };
        let [left, messages] =
            Layout::horizontal([Constraint::Length(left), Constraint::Min(0)]).areas(upper);
        Self { messages: Some(messages), curves, ..places }.with_left(app, left)
    }

    /// Stacks what stands at the left: agents as they need, progress as it needs, the logbook below.
    fn with_left(self, app: &App, area: Rect) -> Self {
        let count = app.state.agents.len().max(1);
        let roomy = area.height >= 20;
        let progress = if roomy { progress::FULL } else { progress::SHORT };
        let room = area.height.saturating_sub(progress);
        let wanted = agents::height(count, roomy);
        let agents = if wanted <= room { wanted } else { agents::height(count, false).min(room) };
        let rows = [Constraint::Length(agents), Constraint::Length(progress), Constraint::Min(0)];
        let [agents, progress, logbook] = Layout::vertical(rows).areas(area);
        let logbook = (logbook.height > 2).then_some(logbook);
        let agents = match logbook {
            Some(_) => agents,
            None => Rect { height: area.height - progress.height, ..area },
        };
        let progress = Rect { y: agents.bottom(), ..progress };
        Self { agents: Some(agents), progress: Some(progress), logbook, ..self }
    }
}
