//! Colours and signs. Sixteen colours, so that a person's own palette holds; none at all on request, and
//! signs of ASCII on request. Every sign comes with a word or a number beside it.

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::symbols::border;

use crate::app::Options;
use crate::state::agent::Activity;
use crate::untrusted::{Charset, Untrusted};

/// How something is meant, rather than which colour it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it comes.
    Plain,
    /// Can be overlooked.
    Quiet,
    /// Shall be seen first.
    Strong,
    /// Went well.
    Good,
    /// Went badly.
    Bad,
    /// Asks for a look.
    Attention,
    /// Learns.
    Learning,
    /// What keys go to.
    Focus,
    /// Stands out as a block.
    Badge,
    /// One of the agents, by its position.
    Agent(usize),
}

/// Signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Went well.
    Right,
    /// Went badly.
    Wrong,
    /// Goes on.
    Now,
    /// Has not begun.
    Later,
    /// Speaks.
    Speaking,
    /// Learns.
    Learning,
    /// Starts anew.
    Restarting,
    /// Is held.
    Held,
    /// Has the focus.
    Focus,
    /// Something is below.
    Below,
    /// From one to the other.
    To,
    /// A bar's full part.
    Full,
    /// A bar's empty part.
    Empty,
    /// A line across.
    Across,
    /// The axis at the left.
    Axis,
    /// The corner of two axes.
    Corner,
}

/// The columns of a small curve, from low to high.
const BARS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const ASCII_BARS: [&str; 8] = [".", ".", ":", "-", "=", "+", "*", "#"];

const ASCII_BORDER: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// Agents' colours, in turn.
const AGENTS: [Color; 6] =
    [Color::Cyan, Color::Magenta, Color::Yellow, Color::Blue, Color::Green, Color::LightRed];

/// How the person wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    ascii: bool,
    colour: bool,
}

impl Theme {
    pub(crate) fn of(options: &Options) -> Self {
        Self { ascii: options.ascii, colour: options.colour }
    }

    /// The style of a tone.
    pub(crate) fn style(self, tone: Tone) -> Style {
        let plain = Style::new();
        let style = match tone {
            Tone::Plain => plain,
            Tone::Quiet => plain.fg(Color::DarkGray),
            Tone::Strong => plain.add_modifier(Modifier::BOLD),
            Tone::Good => plain.fg(Color::Green),
            Tone::Bad => plain.fg(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Attention => plain.fg(Color::Yellow).add_modifier(Modifier::BOLD),
            Tone::Learning => plain.fg(Color::Magenta),
            Tone::Focus => plain.fg(Color::Cyan).add_modifier(Modifier::BOLD),
            Tone::Badge => plain.add_modifier(Modifier::BOLD | Modifier::REVERSED),
            Tone::Agent(position) => plain.fg(AGENTS[position % AGENTS.len()]),
        };
        match (self.colour, tone) {
            (true, _) => style,
            (false, Tone::Quiet) => plain.add_modifier(Modifier::DIM),
            (false, _) => Style { fg: None, ..style },
        }
    }

    /// A sign.
    pub(crate) fn sign(self, sign: Sign) -> &'static str {
        let (unicode, ascii) = match sign {
            Sign::Right => ("✔", "+"),
            Sign::Wrong => ("✘", "x"),
            Sign::Now => ("▶", ">"),
            Sign::Later => ("○", "."),
            Sign::Speaking => ("●", "*"),
            Sign::Learning => ("◆", "#"),
            Sign::Restarting => ("↻", "!"),
            Sign::Held => ("‖", "="),
            Sign::Focus => ("▸", ">"),
            Sign::Below => ("↓", "v"),
            Sign::To => ("→", ">"),
            Sign::Full => ("█", "#"),
            Sign::Empty => ("░", "."),
            Sign::Across => ("─", "-"),
            Sign::Axis => ("│", "|"),
            Sign::Corner => ("└", "+"),
        };
        if self.ascii { ascii } else { unicode }
    }

    /// Sign, word and tone of what an agent does.
    pub(crate) fn activity(self, activity: Activity) -> (&'static str, &'static str, Tone) {
        match activity {
            Activity::Quarantined => (self.sign(Sign::Held), "quarantined", Tone::Bad),
            Activity::Restarting => (self.sign(Sign::Restarting), "restarting", Tone::Bad),
            Activity::Learning => (self.sign(Sign::Learning), "learning", Tone::Learning),
            Activity::Speaking => (self.sign(Sign::Speaking), "speaking", Tone::Good),
            Activity::Waiting => (self.sign(Sign::Later), "waiting", Tone::Quiet),
        }
    }

    /// Columns of a small curve.
    pub(crate) fn bars(self) -> &'static [&'static str; 8] {
        if self.ascii { &ASCII_BARS } else { &BARS }
    }

    /// What a curve is drawn with.
    pub(crate) fn marker(self) -> Marker {
        if self.ascii { Marker::Custom('*') } else { Marker::Braille }
    }

    /// What panes are framed with.
    pub(crate) fn border(self) -> border::Set<'static> {
        if self.ascii { ASCII_BORDER } else { border::ROUNDED }
    }

    /// What the terminal can draw.
    pub(crate) fn charset(self) -> Charset {
        if self.ascii { Charset::Ascii } else { Charset::Unicode }
    }

    /// An untrusted text on one line.
    pub(crate) fn fit(self, text: &str, width: usize) -> String {
        Untrusted(text).fit(width, self.charset())
    }
}
