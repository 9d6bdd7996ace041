//! The keys: one table from which the dispatcher, the footer and the help screen are made.
//!
//! Says what a key means, not what it does; that is in [`crate::app`].

/// A key as we know it, whatever the terminal sent for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A printable character.
    Char(char),
    /// Tabulator.
    Tab,
    /// Shift and tabulator.
    BackTab,
    /// Escape.
    Escape,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the beginning.
    Home,
    /// To the end.
    End,
    /// Control and C.
    Interrupt,
}

/// What a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// End the run after this tick; again, or after the run: leave.
    Quit,
    /// Hold the run, or let it go on.
    TogglePause,
    /// Show or hide the help.
    ToggleHelp,
    /// Show or hide what the engine does.
    ToggleEngine,
    /// Go to the next pane.
    NextPane,
    /// Go to the pane before.
    PreviousPane,
    /// Go to the agents.
    FocusAgents,
    /// Go to the messages.
    FocusMessages,
    /// Go to the curves.
    FocusCurves,
    /// Give the whole screen to the pane, or take it back.
    ToggleEnlarged,
    /// Show or hide the summary of a run that ended.
    ToggleSummary,
    /// One step back to the plain screen.
    Back,
    /// One entry up.
    ScrollUp,
    /// One entry down.
    ScrollDown,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the oldest entry.
    ToOldest,
    /// To the newest entry, and follow.
    ToNewest,
    /// Play one tick of a recording.
    Step,
    /// Play a recording twice as fast.
    Faster,
    /// Play a recording half as fast.
    Slower,
    /// Show an earlier part of a recording.
    JumpBack,
    /// Show a later part of a recording.
    JumpOn,
}

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Binding {
    /// The keys that mean it.
    pub(crate) keys: &'static [Key],
    /// What they mean.
    pub(crate) action: Action,
    /// The keys, as people write them.
    pub(crate) label: &'static str,
    /// A word for the footer; none where the line above says enough.
    pub(crate) short: Option<&'static str>,
    /// A sentence for the help; none where the line above says it as well.
    pub(crate) help: Option<&'static str>,
}

const fn binding(
    keys: &'static [Key],
    action: Action,
    label: &'static str,
    short: Option<&'static str>,
    help: &'static str,
) -> Binding {
    let help = if help.is_empty() { None } else { Some(help) };
    Binding { keys, action, label, short, help }
}

/// All the keys, the most wanted first: a narrow footer shows the first ones only.
pub(crate) const TABLE: &[Binding] = &[
    binding(
        &[Key::Char('q'), Key::Interrupt],
        Action::Quit,
        "q",
        Some("quit"),
        "end the run after this tick; a second q or Ctrl-C leaves at once",
    ),
    binding(
        &[Key::Char(' ')],
        Action::TogglePause,
        "space",
        Some("pause"),
        "hold the run, or let it go on",
    ),
    binding(&[Key::Char('?')], Action::ToggleHelp, "?", Some("help"), "show or hide this page"),
    binding(
        &[Key::Tab],
        Action::NextPane,
        "tab",
        Some("next pane"),
        "go to the next pane; with shift to the one before",
    ),
    binding(&[Key::BackTab], Action::PreviousPane, "shift-tab", None, ""),
    binding(
        &[Key::Char('e')],
        Action::ToggleEnlarged,
        "e",
        Some("enlarge"),
        "give the pane the whole screen, or take it back",
    ),
    binding(
        &[Key::Char('4')],
        Action::ToggleEngine,
        "4",
        Some("engine"),
        "show or hide what the engine does: speed, queue, memory, time",
    ),
    binding(
        &[Key::Up, Key::Char('k')],
        Action::ScrollUp,
        "↑ ↓",
        Some("scroll"),
        "by one (or k and j); up stops following",
    ),
    binding(&[Key::Down, Key::Char('j')], Action::ScrollDown, "↓", None, ""),
    binding(
        &[Key::End, Key::Char('G')],
        Action::ToNewest,
        "end",
        Some("follow"),
        "to the newest message (or G), and follow",
    ),
    binding(&[Key::Escape], Action::Back, "esc", Some("back"), "one step back to the plain screen"),
    binding(
        &[Key::Char('s')],
        Action::ToggleSummary,
        "s",
        None,
        "show or hide the summary, after the run",
    ),
    binding(
        &[Key::Char('1')],
        Action::FocusAgents,
        "1 2 3",
        None,
        "go to the agents, the messages, the curves",
    ),
    binding(&[Key::Char('2')], Action::FocusMessages, "2", None, ""),
    binding(&[Key::Char('3')], Action::FocusCurves, "3", None, ""),
    binding(&[Key::PageUp], Action::PageUp, "pgup pgdn", None, "a page up or down"),
    binding(&[Key::PageDown], Action::PageDown, "pgdn", None, ""),
    binding(
        &[Key::Home, Key::Char('g')],
        Action::ToOldest,
        "home",
        None,
        "to the oldest message (or g)",
    ),
];

/// The keys that a recording has besides.
pub(crate) const REPLAY: &[Binding] = &[
    binding(&[Key::Char('.')], Action::Step, ".", Some("step"), "play one tick of the recording"),
    binding(
        &[Key::Char('+'), Key::Char('=')],
        Action::Faster,
        "+",
        Some("faster"),
        "play the recording twice as fast",
    ),
    binding(&[Key::Char('-')], Action::Slower, "-", Some("slower"), "play it half as fast"),
    binding(
        &[Key::Char('[')],
        Action::JumpBack,
        "[",
        Some("back"),
        "go back by a twentieth of the recording",
    ),
    binding(
        &[Key::Char(']')],
        Action::JumpOn,
        "]",
        Some("on"),
        "go on by a twentieth of the recording",
    ),
];

/// Bindings of the present screen, the most wanted first.
pub(crate) fn bindings(replay: bool) -> impl Iterator<Item = &'static Binding> {
    let (first, rest) = TABLE.split_at(3);
    let more = if replay { REPLAY } else { &[] };
    first.iter().chain(more).chain(rest)
}

/// What a key means, if anything.
pub(crate) fn meaning(key: Key, replay: bool) -> Option<Action> {
    bindings(replay).find(|binding| binding.keys.contains(&key)).map(|binding| binding.action)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_key_and_no_action_is_there_twice() {
        let mut keys = HashSet::new();
        let mut actions = HashSet::new();
        for binding in bindings(true) {
            assert!(actions.insert(binding.action), "{:?} is there twice", binding.action);
            for key in binding.keys {
                assert!(keys.insert(*key), "{key:?} is there twice");
                assert_eq!(meaning(*key, true), Some(binding.action));
            }
        }
        assert_eq!(meaning(Key::Char('x'), true), None);
        assert_eq!(meaning(Key::Char('+'), false), None, "a live run goes at its own pace");
    }

    #[test]
    fn every_key_is_explained() {
        for binding in bindings(true) {
            assert!(!binding.keys.is_empty() && !binding.label.is_empty());
            assert!(binding.help.is_none_or(|help| !help.ends_with('.')), "{:?}", binding.help);
            assert!(binding.short.is_none_or(|short| !short.is_empty()));
        }
    }
}
