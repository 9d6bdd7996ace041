//! `polylogue replay RUN`: shows a recorded run again, on the same screen or as the same lines.

use std::path::PathBuf;

use clap::Args;
use miette::IntoDiagnostic;
use sim::recording::{self, RecordingError, Survey, Times};
use sim::run::Finished;
use sim::work::Work;
use tokio::sync::mpsc;

use crate::app::replay::Replay;
use crate::app::{App, Command, Options, Sources};
use crate::exit_code::Exit;
use crate::input::Keyboard;
use crate::plain::Plain;
use crate::player::{Player, Wish};
use crate::run::{Display, EPISODES_PER_LINE};
use crate::terminal::Screen;

/// Events that may wait for the screen, and wishes for the player.
const BOUND: usize = 1_024;

/// What the command takes.
#[derive(Debug, Args)]
pub(crate) struct ReplayArguments {
    /// Directory of a run, finished or not.
    run: PathBuf,
    /// So many times as fast as the run was; lines come at once unless this is given.
    #[arg(long, value_parser = pace)]
    speed: Option<f64>,
    /// Begin where this tick has ended.
    #[arg(long, value_name = "TICK", default_value_t)]
    from: u64,
    /// How to watch: a screen on a terminal and plain lines elsewhere, unless said otherwise.
    #[arg(long, value_enum, default_value_t)]
    display: Display,
    /// Draw the screen with ASCII only.
    #[arg(long)]
    ascii: bool,
}

/// A speed that a person may ask for.
fn pace(typed: &str) -> Result<f64, String> {
    let pace: f64 = typed.parse().map_err(|error| format!("{error}: write a number such as 4"))?;
    let sensible = (Replay::SLOWEST..=Replay::FASTEST).contains(&pace);
    let refusal = || format!("choose from {} to {}", Replay::SLOWEST, Replay::FASTEST);
    sensible.then_some(pace).ok_or_else(refusal)
}

/// Runs the command.
pub(crate) fn replay(arguments: &ReplayArguments) -> miette::Result<Exit> {
    let survey = recording::survey(&arguments.run).into_diagnostic()?;
    if let Some(remark) = remark(&survey) {
        crate::summary::remark(&remark);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
    match arguments.display.chosen() {
        Display::Tui => {
            let options = Options {
                ascii: arguments.ascii,
                colour: std::env::var_os("NO_COLOR").is_none(),
                run_directory: arguments.run.display().to_string(),
            };
            let pace = arguments.speed.unwrap_or(1.0);
            let app = App::of_recording(options, Replay::new(pace, &survey));
            let player = Player::open(&arguments.run, pace).into_diagnostic()?;
            let (shown, played) = runtime.block_on(on_screen(
                app,
                player,
                work(Times::of(&arguments.run)),
                arguments.from,
            ));
            played.into_diagnostic()?;
            if let Err(error) = shown {
                crate::summary::complain(&format!("the screen: {error}"));
                return Ok(Exit::RunFailed);
            }
        }
        Display::Plain => {
            runtime.block_on(in_lines(arguments)).into_diagnostic()?;
            print(&survey, arguments);
        }
        Display::Auto | Display::None => print(&survey, arguments),
    }
    Ok(Exit::Done)
}

/// What a person should know of a recording that is not whole.
fn remark(survey: &Survey) -> Option<String> {
    let ended = format!("after {} events, in tick {}", survey.events, survey.last_tick);
    match (survey.torn, survey.finished) {
        (Some(torn), _) => Some(format!(
            "the recording was cut off {ended}: line {} holds only {} bytes and is left out",
            torn.line, torn.bytes
        )),
        (None, false) => Some(format!("the recording has no end: the last of it is {ended}")),
        (None, true) => None,
    }
}

fn print(survey: &Survey, arguments: &ReplayArguments) {
    if survey.finished {
        let seconds = Times::of(&arguments.run).whole() as f64 / 1e3;
        let finished = Finished { summary: survey.summary.clone(), seconds };
        crate::summary::print(&finished, &arguments.run);
    }
}

/// What was done up to the end of a tick, as it was recorded.
fn work(times: Times) -> impl FnMut(u64) -> Option<Work> {
    let mut last = None;
    move |tick| {
        if last.is_none_or(|(known, _)| known != tick) {
            last = Some((tick, times.work(tick)));
        }
        last.map(|(_, work)| work)
    }
}

async fn on_screen(
    mut app: App,
    player: Player,
    work: impl FnMut(u64) -> Option<Work> + 'static,
    from: u64,
) -> (std::io::Result<()>, Result<(), RecordingError>) {
    let (sender, events) = mpsc::channel(BOUND);
    let (wishes, granted) = mpsc::channel(BOUND);
    let shown = async {
        let mut screen = Screen::take()?;
        let (keyboard, inputs) = Keyboard::open()?;
        let missed = Box::new(|| 0);
        let sources = Sources { inputs, events, missed, work: Box::new(work) };
        // A wish is lost where a thousand wait: a key that was held down too long.
        let obey = move |command| {
            if let Some(wish) = wish(command) {
                let _ = wishes.try_send(wish);
            }
        };
        let shown = app.run(&mut screen.terminal, sources, obey).await;
        drop(keyboard);
        shown
    };
    tokio::join!(shown, player.play(from, sender, granted))
}

/// What a command of the screen means to a player.
pub(crate) fn wish(command: Command) -> Option<Wish> {
    match command {
        Command::Pause => Some(Wish::Hold),
        Command::Resume => Some(Wish::GoOn),
        Command::Pace(pace) => Some(Wish::Pace(pace)),
        Command::Step => Some(Wish::Step),
        Command::Seek(tick) => Some(Wish::Seek(tick)),
        // The player ends with the screen.
        Command::Stop | Command::Leave => None,
    }
}

async fn in_lines(arguments: &ReplayArguments) -> Result<(), RecordingError> {
    let mut plain = Plain::new(EPISODES_PER_LINE);
    let mut work = work(Times::of(&arguments.run));
    let Some(pace) = arguments.speed else {
        for recorded in recording::open(&arguments.run)? {
            let event = recorded?.event;
            let lines = plain.lines(&event, &mut work);
            if event.tick >= arguments.from {
                lines.into_iter().for_each(crate::output::say);
            }
        }
        return Ok(());
    };
    let last = recording::survey(&arguments.run)?.events.checked_sub(1);
    let player = Player::open(&arguments.run, pace)?;
    let (sender, mut events) = mpsc::channel(BOUND);
    let (wishes, granted) = mpsc::channel(1);
    let shown = async move {
        while let Some(event) = events.recv().await {
            let lines = plain.lines(&event, &mut work);
            if event.tick >= arguments.from {
                lines.into_iter().for_each(crate::output::say);
            }
            if Some(event.seq) == last {
                break;
            }
        }
        // With nobody left to wish, the player ends.
        drop(wishes);
    };
    tokio::join!(player.play(arguments.from, sender, granted), shown).0
}
