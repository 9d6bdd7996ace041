//! A run that is ready, played to its end while somebody watches: on a screen, as lines, or not at all.

use std::cell::Cell;
use std::io;

use miette::IntoDiagnostic;
use sim::control::Control;
use sim::feed::{self, Feed, Watch};
use sim::run::{Finished, Prepared, RunError};

use crate::app::{App, Command, Options, Sources};
use crate::exit_code::Exit;
use crate::input::Keyboard;
use crate::plain::Plain;
use crate::run::{Display, EPISODES_PER_LINE};
use crate::signals::Signals;
use crate::terminal::Screen;

/// Plays a run and prints what it came to.
pub(crate) fn play(prepared: Prepared, display: Display, ascii: bool) -> miette::Result<Exit> {
    for notice in prepared.notices() {
        crate::summary::remark(notice);
    }
    let directory = prepared.directory().to_owned();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
    // How a run that is ended early will have ended.
    let asked = Cell::new(Exit::Stopped);
    let watched = watched(prepared, display.chosen(), ascii, &asked);
    match runtime.block_on(watched) {
        Ok(finished) => {
            crate::summary::print(&finished, &directory);
            Ok(if finished.summary.stopped { asked.get() } else { Exit::Done })
        }
        Err(error) => {
            crate::summary::complain(&error.to_string());
            Ok(if error.is_input() { Exit::BadInput } else { Exit::RunFailed })
        }
    }
}

async fn watched(
    prepared: Prepared,
    display: Display,
    ascii: bool,
    asked: &Cell<Exit>,
) -> Result<Finished, RunError> {
    let control = Control::default();
    let directory = prepared.directory().display().to_string();
    let (feed, watch) = feed::channel();
    match display {
        Display::Tui => {
            let options = Options {
                ascii,
                colour: std::env::var_os("NO_COLOR").is_none(),
                run_directory: directory,
            };
            let screen = on_screen(watch, control.clone(), options, asked);
            let (result, screen) = tokio::join!(prepared.play(feed, control), screen);
            if let Err(error) = screen {
                crate::summary::complain(&format!("the screen: {error}"));
            }
            result
        }
        Display::Plain => {
            let obeyed = obeying_signals(control.clone(), asked);
            let played = async { tokio::join!(prepared.play(feed, control), in_lines(watch)).0 };
            tokio::select! {
                result = played => result,
                never = obeyed => match never {},
            }
        }
        Display::Auto | Display::None => {
            let obeyed = obeying_signals(control.clone(), asked);
            tokio::select! {
                result = prepared.play(Feed::unwatched(), control) => result,
                never = obeyed => match never {},
            }
        }
    }
}

/// Ends the run after its tick at the first request of the system, and leaves at once at the second.
async fn obeying_signals(control: Control, asked: &Cell<Exit>) -> std::convert::Infallible {
    let Ok(mut signals) = Signals::listen() else { return std::future::pending().await };
    asked.set(signals.next().await);
    control.stop();
    crate::summary::remark("ending after this tick; ask again to leave at once");
    signals.next().await.leave_at_once()
}

/// Shows the run until the person leaves. One who asks twice does not wait for the tick; where the terminal
/// is gone, the run ends after its tick.
async fn on_screen(
    watch: Watch,
    control: Control,
    options: Options,
    asked: &Cell<Exit>,
) -> io::Result<()> {
    let work = watch.work();
    let (events, missed) = watch.into_parts();
    let mut app = App::new(options);
    let shown = async {
        let mut screen = Screen::take()?;
        let (keyboard, inputs) = Keyboard::open()?;
        let (missed, work) = (Box::new(missed), Box::new(work));
        let sources = Sources { inputs, events, missed, work };
        let obey = |command| match command {
            Command::Pause => control.pause(),
            Command::Resume => control.resume(),
            Command::Stop | Command::Leave => control.stop(),
            // Keys of recordings only.
            Command::Pace(_) | Command::Step | Command::Seek(_) => {}
        };
        let signalled = async {
            let Ok(mut signals) = Signals::listen() else { return std::future::pending().await };
            loop {
                asked.set(signals.next().await);
                keyboard.ask();
            }
        };
        tokio::select! {
            shown = app.run(&mut screen.terminal, sources, obey) => shown,
            never = signalled => never,
        }
    }
    .await;
    control.stop();
    if app.stopping && !app.state.run.is_over() {
        asked.get().leave_at_once();
    }
    shown
}

async fn in_lines(watch: Watch) {
    let mut work = watch.work();
    let (mut events, _missed) = watch.into_parts();
    let mut plain = Plain::new(EPISODES_PER_LINE);
    while let Some(event) = events.recv().await {
        plain.lines(&event, &mut work).into_iter().for_each(crate::output::say);
    }
}
