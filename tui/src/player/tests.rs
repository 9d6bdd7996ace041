//! A recording that is played shows what its run showed, wherever one jumps on the way.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::Size;
use sim::recorder::{Claim, Recorder};
use sim::recording::survey;
use sim::work::Usage;
use tempfile::TempDir;

use super::*;
use crate::app::replay::Replay;
use crate::app::{App, Options, screenplay};
use crate::keys::Key;

/// A whole run on disk, a second of wall time for each tick.
fn recorded(events: &[Event]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(Claim::of(folder.path()).unwrap()).unwrap();
    let mut tick = 0;
    for event in events {
        if event.tick != tick {
            let work = recorder.work(tick, &Usage::default());
            recorder.end_tick(&work).unwrap();
            tick = event.tick;
        }
        recorder.record(event).unwrap();
    }
    let work = recorder.work(tick, &Usage::default());
    recorder.end_tick(&work).unwrap();
    drop(recorder);
    let line = |tick| format!("{{\"tick\":{tick},\"milliseconds\":{}}}\n", tick * 1_000);
    let times: String = (0..=tick).map(line).collect();
    std::fs::write(folder.path().join("times.jsonl"), times).unwrap();
    folder
}

fn live(events: &[Event]) -> App {
    let mut app = App::new(options());
    events.iter().for_each(|event| app.handle(event));
    app
}

fn options() -> Options {
    Options { colour: true, run_directory: "runs/one".into(), ..Options::default() }
}

/// Every pane and the summary; without the first and the last row, which tell a recording from a run.
fn screens(app: &mut App) -> Vec<String> {
    let mut all = Vec::new();
    app.resize(Size::new(120, 40));
    for keys in [['2', 's'], ['1', 'e'], ['2', '2'], ['3', '3'], ['e', 'e']] {
        for key in keys {
            app.key(Key::Char(key));
        }
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
        terminal.draw(|frame| crate::view::render(app, frame)).unwrap();
        let text = terminal.backend().to_string();
        let rows: Vec<&str> = text.lines().collect();
        all.push(rows[1..rows.len() - 1].join("\n"));
    }
    all
}

/// Plays a recording as far as it goes by itself, then grants wishes one after the other.
async fn watched(folder: &Path, from: u64, wishes: &[Wish]) -> App {
    let survey = survey(folder).unwrap();
    let mut app = App::of_recording(options(), Replay::new(1.0, &survey));
    let (sender, mut events) = mpsc::channel(8_192);
    let mut player = Player::open(folder, 1.0).unwrap();
    assert!(player.until(from, &sender).await.unwrap().is_ok());
    let mut wishes = wishes.iter();
    loop {
        while player.wait().is_some() {
            assert!(player.play_tick(&sender).await.unwrap().is_ok());
        }
        while let Ok(event) = events.try_recv() {
            app.handle(&event);
        }
        let Some(wish) = wishes.next() else { return app };
        assert!(player.grant(*wish, &sender).await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn the_last_screen_of_a_recording_is_that_of_its_run() {
    let events = screenplay::whole_run();
    let folder = recorded(&events);
    let expected = screens(&mut live(&events));
    assert_eq!(screens(&mut watched(folder.path(), 0, &[]).await), expected);
    let way = [Wish::Hold, Wish::Seek(30), Wish::Step, Wish::Seek(7), Wish::Pace(9.0), Wish::GoOn];
    assert_eq!(screens(&mut watched(folder.path(), 50, &way).await), expected);
}

#[tokio::test]
async fn any_moment_of_a_run_can_be_seen_again() {
    let events = screenplay::whole_run();
    let folder = recorded(&events);
    let ticks: std::collections::BTreeSet<u64> = events.iter().map(|event| event.tick).collect();
    for tick in ticks.into_iter().skip(1).step_by(31) {
        let until: Vec<Event> = events.iter().filter(|e| e.tick <= tick).cloned().collect();
        let expected = screens(&mut live(&until));
        // Played to its end, then back.
        let back = [Wish::Hold, Wish::Seek(tick)];
        assert_eq!(screens(&mut watched(folder.path(), 0, &back).await), expected, "{tick}");
        // One tick less, then a step.
        let step = [Wish::Hold, Wish::Seek(tick - 1), Wish::Step];
        assert_eq!(screens(&mut watched(folder.path(), 0, &step).await), expected, "{tick}");
    }
}

#[tokio::test]
async fn the_pace_is_that_of_the_run_times_what_was_wished() {
    let folder = recorded(&screenplay::whole_run());
    let (sender, _events) = mpsc::channel(8_192);
    let mut player = Player::open(folder.path(), 1.0).unwrap();
    assert!(player.until(5, &sender).await.unwrap().is_ok());
    // A second between two ticks was recorded.
    for (pace, milliseconds) in [(1.0, 1_000), (4.0, 250), (0.5, 2_000), (1e-3, 3_000)] {
        assert!(player.grant(Wish::Pace(pace), &sender).await.unwrap().is_ok());
        assert_eq!(player.wait(), Some(Duration::from_millis(milliseconds)), "{pace}");
    }
    assert!(player.grant(Wish::Hold, &sender).await.unwrap().is_ok());
    assert_eq!(player.wait(), None);
    // Without recorded times four ticks a second.
    std::fs::remove_file(folder.path().join("times.jsonl")).unwrap();
    assert_eq!(Player::open(folder.path(), 1.0).unwrap().wait(), Some(USUAL_WAIT));
}

#[tokio::test]
async fn a_player_ends_with_its_screen() {
    let folder = recorded(&screenplay::whole_run());
    let (sender, events) = mpsc::channel(1);
    let (_wish, granted) = mpsc::channel(1);
    drop(events);
    Player::open(folder.path(), 4_096.0).unwrap().play(9, sender, granted).await.unwrap();
}

#[tokio::test]
async fn a_recording_that_was_cut_off_ends_without_a_result() {
    let events = screenplay::play().events;
    let folder = recorded(&events);
    let log = folder.path().join("events.jsonl");
    let text = std::fs::read(&log).unwrap();
    std::fs::write(&log, &text[..text.len() - 9]).unwrap();
    let app = watched(folder.path(), 0, &[]).await;
    assert_eq!(app.state.run.seen, events.len() as u64 - 1);
    assert_eq!(app.state.run.ending, crate::state::run::Ending::Lost);
}
