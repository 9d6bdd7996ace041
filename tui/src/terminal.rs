//! The terminal while a screen is on it: raw mode and the alternate screen, taken and given back.
//!
//! Given back on every way out: at the end, on an error, and when the screen's own code panics. An actor
//! that panics does not touch it: the actor library catches that panic and the run goes on, so its
//! message is kept and comes out on standard error once the screen is gone. The hook that ratatui's
//! `init` installs would take the screen down for any panic anywhere; it is not used.

use std::cell::Cell;
use std::io::{self, Stdout, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

/// Messages of panics that are kept while a screen is up.
const KEPT: usize = 20;

/// Whether the terminal is ours at the moment.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What panics elsewhere had to say meanwhile.
static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether this thread is running the screen's own code right now.
    static OWNS: Cell<bool> = const { Cell::new(false) };
}

/// The terminal, ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    /// Where to draw.
    pub(crate) terminal: Terminal<CrosstermBackend<Frames<Stdout>>>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When standard output is not a terminal that can do it.
    pub(crate) fn take() -> io::Result<Self> {
        install_hook();
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        match enter() {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn enter() -> io::Result<Terminal<CrosstermBackend<Frames<Stdout>>>> {
    execute!(io::stdout(), EnterAlternateScreen, Hide)?;
    Terminal::new(CrosstermBackend::new(Frames::new(io::stdout())))
}

/// Restores the terminal if it is ours, then says what was kept. Doing it twice does nothing twice.
fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // On the way out there is nobody left to tell of a failure.
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
    let messages = std::mem::take(&mut *MESSAGES.lock().unwrap_or_else(PoisonError::into_inner));
    for message in messages {
        let _ = writeln!(io::stderr(), "{message}");
    }
}

/// Runs the screen's own code: a panic in there is the screen's, one in between is not, even where actors
/// share the thread.
pub(crate) fn owning<T>(work: impl FnOnce() -> T) -> T {
    struct Release(bool);
    impl Drop for Release {
        fn drop(&mut self) {
            OWNS.set(self.0);
        }
    }
    let _release = Release(OWNS.replace(true));
    work()
}

/// Puts our hook before the one that was there, once per process.
fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            match fate(TAKEN.load(Ordering::SeqCst), OWNS.get()) {
                Fate::Told => before(panic),
                Fate::RestoredAndTold => {
                    give_back();
                    before(panic);
                }
                Fate::Kept => keep(panic.to_string()),
            }
        }));
    });
}

/// What becomes of a panic.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// No screen is up.
    Told,
    /// The screen's own.
    RestoredAndTold,
    /// Somebody else's while the screen is up.
    Kept,
}

fn fate(taken: bool, owns: bool) -> Fate {
    match (taken, owns) {
        (false, _) => Fate::Told,
        (true, true) => Fate::RestoredAndTold,
        (true, false) => Fate::Kept,
    }
}

/// Keeps a message for later; one line, made safe, the newest of too many dropped.
fn keep(message: String) {
    let mut messages = MESSAGES.lock().unwrap_or_else(PoisonError::into_inner);
    if messages.len() < KEPT {
        messages.push(crate::untrusted::Untrusted(&message).to_string());
    }
}

/// Sends each frame in one piece between the marks of a synchronised update (DEC mode 2026), so that a
/// terminal that knows them never shows half a frame. Others ignore them.
#[derive(Debug)]
pub(crate) struct Frames<W> {
    out: W,
    frame: Vec<u8>,
}

impl<W> Frames<W> {
    fn new(out: W) -> Self {
        Self { out, frame: Vec::new() }
    }
}

impl<W: Write> Write for Frames<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.frame.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.frame.is_empty() {
            self.out.write_all(b"\x1b[?2026h")?;
            self.out.write_all(&self.frame)?;
            self.out.write_all(b"\x1b[?2026l")?;
            self.frame.clear();
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use miette::IntoDiagnostic as _;

    use super::*;

    #[test]
    fn only_the_screens_own_panic_takes_it_down() {
        assert_eq!(fate(false, false), Fate::Told);
        assert_eq!(fate(false, true), Fate::Told);
        assert_eq!(fate(true, true), Fate::RestoredAndTold);
        assert_eq!(fate(true, false), Fate::Kept);
    }

    #[test]
    fn a_thread_owns_the_screen_only_while_it_runs_its_code() {
        assert!(!OWNS.get());
        owning(|| {
            assert!(OWNS.get());
            let elsewhere = std::thread::spawn(|| OWNS.get()).join();
            assert!(matches!(elsewhere, Ok(false)));
        });
        assert!(!OWNS.get());
        let caught =
            std::panic::catch_unwind(|| owning(|| std::panic::resume_unwind(Box::new(()))));
        assert!(caught.is_err() && !OWNS.get());
    }

    /// Played by the test below, in a terminal of its own.
    #[test]
    #[ignore = "it takes the terminal and ends the process"]
    fn a_screen_that_panics() {
        let exit = crate::ended(|| {
            let mut screen = Screen::take().into_diagnostic()?;
            owning(|| {
                screen.terminal.draw(|frame| frame.render_widget("drawn", frame.area())).unwrap();
                panic!("a mistake of ours");
            })
        });
        exit.leave_at_once();
    }

    /// On a pseudo-terminal of the program `script` (util-linux).
    #[cfg(target_os = "linux")]
    #[test]
    fn a_bug_gives_the_terminal_back_before_it_is_told_and_ends_with_70() {
        let own = std::env::current_exe().unwrap();
        let test = "terminal::tests::a_screen_that_panics";
        let shell = format!(
            "stty rows 24 cols 80; {} --exact {test} --ignored --nocapture; echo \"code $?\"; stty -a",
            own.display()
        );
        let output = std::process::Command::new("script")
            .args(["--quiet", "--flush", "--command", &shell, "/dev/null"])
            .env("TERM", "xterm-256color")
            .output()
            .unwrap();
        let written = String::from_utf8_lossy(&output.stdout).into_owned();
        let place = |what: &str| written.find(what).unwrap_or_else(|| panic!("{what}: {written}"));
        let order = [
            "\u{1b}[?1049h",
            "drawn",
            "\u{1b}[?1049l",
            "\u{1b}[?25h",
            "a mistake of ours",
            "code 70",
        ];
        assert!(order.map(place).is_sorted(), "{written}");
        let modes = &written[place("code 70")..];
        for mode in ["icanon", "echo", "isig", "opost"] {
            assert!(modes.split_whitespace().any(|word| word == mode), "{mode}: {written}");
        }
    }

    #[test]
    fn a_frame_leaves_in_one_piece() {
        let mut frames = Frames::new(Vec::new());
        frames.write_all(b"ab").unwrap();
        frames.write_all(b"c").unwrap();
        assert!(frames.out.is_empty());
        frames.flush().unwrap();
        frames.flush().unwrap();
        assert_eq!(frames.out, b"\x1b[?2026habc\x1b[?2026l");
    }
}
