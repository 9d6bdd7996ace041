//! The real application on screens of fixed sizes.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};
use serde_json::json;
use sim::work::{Now, TickWork, Usage, Work};

use super::screenplay::{self, Script};
use super::*;

type TestTerminal = Terminal<TestBackend>;

fn app(events: &[Event]) -> App {
    app_with(events, Options { colour: true, ..Options::default() })
}

fn app_with(events: &[Event], options: Options) -> App {
    let mut app = App::new(Options {
        run_directory: "runs/2026-11-24T12-40-45_travel-support_7".into(),
        ..options
    });
    for event in events {
        app.handle(event);
    }
    app
}

fn shown(app: &mut App, width: u16, height: u16) -> TestTerminal {
    app.resize(Size::new(width, height));
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::render(app, frame)).unwrap();
    terminal
}

/// Compares the screen at both sizes.
fn check(name: &str, app: &mut App) {
    for (width, height) in [(80, 24), (120, 40)] {
        check_at(name, app, width, height);
    }
}

fn check_at(name: &str, app: &mut App, width: u16, height: u16) {
    let terminal = shown(app, width, height);
    insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(format!("{name}_{width}x{height}"), terminal.backend());
    });
}

fn press(app: &mut App, keys: &[Key]) -> Vec<Command> {
    keys.iter().filter_map(|key| app.key(*key)).collect()
}

/// The screen as one text.
fn text(terminal: &TestTerminal) -> String {
    terminal.backend().to_string()
}

#[test]
fn nothing_yet() {
    check("nothing", &mut app(&[]));
}

#[test]
fn start() {
    check("start", &mut app(&screenplay::start().events));
}

#[test]
fn play_with_a_trigger_that_fires() {
    check("play", &mut app(&screenplay::play().events));
}

#[test]
fn learning() {
    check("learning", &mut app(&screenplay::learning().events));
}

#[test]
fn paused() {
    let mut app = app(&screenplay::play().events);
    assert_eq!(press(&mut app, &[Key::Char(' ')]), [Command::Pause]);
    check("paused", &mut app);
    assert_eq!(press(&mut app, &[Key::Char(' ')]), [Command::Resume]);
}

#[test]
fn stopping() {
    let mut app = app(&screenplay::play().events);
    assert_eq!(press(&mut app, &[Key::Char('q')]), [Command::Stop]);
    check_at("stopping", &mut app, 80, 24);
    assert_eq!(press(&mut app, &[Key::Char(' '), Key::Char('q')]), [Command::Leave]);
}

#[test]
fn help() {
    let mut app = app(&screenplay::play().events);
    assert_eq!(press(&mut app, &[Key::Char('?')]), []);
    check("help", &mut app);
}

#[test]
fn an_agent_failed_and_another_one_restarted() {
    let mut script = screenplay::learning();
    script.fail("evaluate").tick().restart("evaluate").tick().fail("reply");
    check("restarted", &mut app(&script.events));
}

#[test]
fn faults_and_what_was_done_about_them() {
    let mut script = screenplay::play();
    for kind in [
        json!({ "fault_injected": { "fault": "hang", "agent": "reply", "episode": 3 } }),
        json!({ "agent_failed": { "agent": "reply", "reason": "it did not answer within 20 s" } }),
        json!({ "agent_restarted": { "agent": "reply", "restarts": 4, "generation": 2 } }),
        json!({ "engine_failed": { "reason": "its thread has ended" } }),
        json!({ "engine_restarted": { "restarts": 1, "jobs": 2 } }),
        json!({ "trainer_failed": { "reason": "a panic\u{1b}[2J" } }),
        json!({ "trainer_restarted": { "restarts": 1, "jobs": 2 } }),
        json!({ "recording_paused": { "reason": "events.jsonl: no storage space" } }),
        json!({ "recording_resumed": { "retries": 2 } }),
        json!({ "reply_rejected": { "agent": "understand", "episode": 3, "attempt": 1, "reason": "malformed answer" } }),
        json!({ "society_restarted": { "reason": "reply failed too often", "restarts": 1 } }),
        json!({ "agent_quarantined": { "agent": "evaluate", "reason": "it panicked" } }),
        json!({ "turn_skipped": { "episode": 3, "turn": 2, "agent": "evaluate", "reason": "it is in quarantine" } }),
    ] {
        script.write(kind);
    }
    check("faults", &mut app(&script.events));
    let mut plain = crate::plain::Plain::new(1_000);
    let lines: Vec<String> = script
        .events
        .iter()
        .rev()
        .take(13)
        .rev()
        .flat_map(|event| plain.lines(event, |_| None))
        .collect();
    insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("faults_in_lines", lines.join("\n"));
    });
}

#[test]
fn done() {
    check("done", &mut app(&screenplay::whole_run()));
}

#[test]
fn stopped_and_lost() {
    let mut script = screenplay::play();
    script.finish(true);
    check_at("stopped", &mut app(&script.events), 80, 24);
    let mut app = app(&screenplay::play().events);
    app.close_feed();
    check_at("lost", &mut app, 80, 24);
}

#[test]
fn enlarged_panes() {
    for (key, name) in [('1', "agents"), ('2', "messages"), ('3', "curves")] {
        let mut app = app(&screenplay::learning().events);
        press(&mut app, &[Key::Char(key), Key::Char('e')]);
        check(&format!("enlarged_{name}"), &mut app);
    }
}

#[test]
fn ascii_only() {
    let mut app =
        app_with(&screenplay::learning().events, Options { ascii: true, ..Options::default() });
    for pane in ['1', '2', '3', 'e', '1', '2', '3', '?'] {
        press(&mut app, &[Key::Char(pane)]);
        for (width, height) in [(60, 15), (80, 24), (120, 40)] {
            let terminal = shown(&mut app, width, height);
            for cell in terminal.backend().buffer().content() {
                assert!(cell.symbol().is_ascii(), "{:?} in {pane}", cell.symbol());
            }
        }
    }
    press(&mut app, &[Key::Escape, Key::Escape]);
    check_at("ascii", &mut app, 80, 24);
}

#[test]
fn too_small() {
    check_at("too_small", &mut app(&screenplay::play().events), 59, 14);
    check_at("smallest", &mut app(&screenplay::play().events), 60, 15);
}

#[test]
fn no_size_and_no_moment_breaks_it() {
    let events = screenplay::whole_run();
    for width in (0..150).step_by(13) {
        for height in (0..50).step_by(7) {
            let mut app = app(&[]);
            for (position, event) in events.iter().enumerate() {
                app.handle(event);
                if position % 97 == 0 {
                    shown(&mut app, width, height);
                    press(&mut app, &[Key::Up, Key::Char('e'), Key::PageDown, Key::Tab]);
                }
            }
            shown(&mut app, width, height);
        }
    }
}

#[test]
fn without_colours_nothing_has_one() {
    let mut app = app_with(&screenplay::learning().events, Options::default());
    let terminal = shown(&mut app, 120, 40);
    for cell in terminal.backend().buffer().content() {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{:?}", cell.symbol());
    }
}

#[test]
fn the_badge_and_a_mark_stand_out() {
    let mut app = app(&screenplay::play().events);
    let terminal = shown(&mut app, 80, 24);
    let buffer = terminal.backend().buffer();
    assert!(buffer[(1, 0)].modifier.contains(Modifier::REVERSED));
    let axis =
        (0..80).find_map(|x| (15..24).map(|y| &buffer[(x, y)]).find(|cell| cell.symbol() == "S"));
    assert_eq!(axis.map(|cell| cell.fg), Some(Color::Green));
}

#[test]
fn scrolling_holds_and_following_goes_on() {
    let mut script = screenplay::play();
    let mut app = app(&script.events);
    shown(&mut app, 80, 24);
    press(&mut app, &[Key::Up, Key::Up]);
    let held = app.scroll;
    let before = text(&shown(&mut app, 80, 24));
    assert!(before.contains("end follows"), "{before}");
    let seen = script.events.len();
    script.episode(129).episode(130);
    script.events[seen..].iter().for_each(|event| app.handle(event));
    let after = text(&shown(&mut app, 80, 24));
    assert_eq!(app.scroll, held);
    assert!(after.contains("↓ 2 new below"), "{after}");
    press(&mut app, &[Key::End]);
    let newest = text(&shown(&mut app, 80, 24));
    assert!(newest.contains("#130") && !newest.contains("new below"), "{newest}");
    press(&mut app, &[Key::PageUp]);
    assert_ne!(app.scroll, Scroll::Following);
    press(&mut app, &[Key::PageDown, Key::PageDown]);
    assert_eq!(app.scroll, Scroll::Following);
    press(&mut app, &[Key::Home]);
    assert_eq!(app.scroll, Scroll::Held { top: 0, seen: app.state.stream.end() });
    press(&mut app, &[Key::Escape]);
    assert_eq!(app.scroll, Scroll::Following);
}

#[test]
fn what_the_engine_does_is_said_where_there_is_room() {
    for (width, wanted) in [(80, "500 tok/s"), (120, "12 rows, 4 waiting, cache 3 MiB")] {
        let mut app = app(&screenplay::play().events);
        assert!(app.work(Some(worked())) && !app.work(Some(worked())));
        let screen = text(&shown(&mut app, width, 24));
        assert!(screen.contains(wanted), "{screen}");
    }
}

/// Two ticks of an engine.
fn worked() -> Work {
    let engine = Usage {
        steps: 10,
        rows: 120,
        prompt_tokens: 250,
        shared_tokens: 90,
        written_tokens: 250,
        classes: 7,
        class_tokens: 500,
        training_steps: 3,
        text_time: 1_500_000_000,
        class_time: 500_000_000,
        training_time: 250_000_000,
        waiting: 4,
        running: 16,
        cache_bytes: 3 << 20,
    };
    let mut work = Work::default();
    let first = Usage { waiting: 2_400, training_steps: 12_345, ..engine };
    work.add(&TickWork { tick: 133, milliseconds: 7_000, engine: first });
    work.add(&TickWork { tick: 134, milliseconds: 9_750, engine });
    let usage = Usage { waiting: 1, running: 15, cache_bytes: 2 << 20, ..engine };
    work.now = Some(Now { usage, sequences: 96, cache_bytes: Some(11 << 30) });
    work
}

#[test]
fn all_that_is_known_of_the_engine_has_a_page() {
    let mut app = app(&screenplay::play().events);
    press(&mut app, &[Key::Char('4')]);
    assert!(text(&shown(&mut app, 80, 24)).contains("Nothing yet."));
    app.work(Some(worked()));
    check("engine", &mut app);
    // What changes within a tick is news to who looks at it only.
    let mut later = worked();
    later.now = None;
    assert!(app.work(Some(later)));
    for keys in [Key::Escape, Key::Char('4'), Key::Char('2'), Key::Char('e')] {
        app.engine = true;
        press(&mut app, &[keys]);
        assert!(!app.engine, "{keys:?}");
    }
    assert!(!app.work(Some(worked())));
}

#[test]
fn what_was_missed_is_said() {
    let mut app = app(&screenplay::play().events);
    assert!(app.missed(1_234) && !app.missed(1_234));
    let screen = text(&shown(&mut app, 80, 24));
    assert!(screen.contains("1,234 missed"), "{screen}");
}

#[test]
fn after_the_run_q_leaves_and_s_shows_the_summary() {
    let mut app = app(&screenplay::whole_run());
    assert!(app.summary);
    press(&mut app, &[Key::Char('s')]);
    assert!(text(&shown(&mut app, 80, 24)).contains("2 Messages"));
    press(&mut app, &[Key::Char('s')]);
    assert!(text(&shown(&mut app, 80, 24)).contains("Summary"));
    assert_eq!(press(&mut app, &[Key::Char(' '), Key::Interrupt]), [Command::Leave]);
}

#[test]
fn nothing_hostile_reaches_the_screen() {
    let mut app = app(&screenplay::play().events);
    let screen = text(&shown(&mut app, 120, 40));
    assert!(
        screen.contains("<202E>") && screen.contains("<200B>") && screen.contains("<1B>[31m"),
        "{screen}"
    );
}

#[tokio::test]
async fn the_loop_takes_in_events_obeys_keys_and_leaves() {
    let (inputs, input_receiver) = mpsc::channel(8);
    let (events, event_receiver) = mpsc::channel(4_096);
    for event in screenplay::whole_run() {
        events.send(event).await.unwrap();
    }
    drop(events);
    let sources = Sources {
        inputs: input_receiver,
        events: event_receiver,
        missed: Box::new(|| 3),
        work: Box::new(|_| None),
    };
    let mut app = app(&[]);
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let mut commands = Vec::new();
    let keys = async {
        // The summary stays until a person leaves.
        tokio::time::sleep(Duration::from_millis(300)).await;
        inputs.send(Input::Key(Key::Char('q'))).await.unwrap();
    };
    let (result, ()) =
        tokio::join!(app.run(&mut terminal, sources, |command| commands.push(command)), keys);
    result.unwrap();
    assert_eq!(commands, [Command::Leave]);
    let screen = text(&terminal);
    assert!(screen.contains("DONE") && screen.contains("3 missed"), "{screen}");
}

fn recording(events: &[Event]) -> App {
    let last_tick = 500;
    let survey = sim::recording::Survey { events: 4_000, last_tick, ..Default::default() };
    let mut app = App::of_recording(
        Options { colour: true, run_directory: "runs/one".into(), ..Options::default() },
        replay::Replay::new(1.0, &survey),
    );
    events.iter().for_each(|event| app.handle(event));
    app
}

#[test]
fn a_recording_says_so_and_has_its_keys() {
    let mut app = recording(&screenplay::play().events);
    check("replay", &mut app);
    let tick = app.state.run.tick;
    let keys = ['+', '=', '-', '.', '[', ']'].map(Key::Char);
    let wanted = [
        Command::Pace(2.0),
        Command::Pace(4.0),
        Command::Pace(2.0),
        Command::Step,
        Command::Seek(tick - 25),
        Command::Seek(tick + 25),
    ];
    assert_eq!(press(&mut app, &keys), wanted);
    assert!(app.paused, "a step holds");
    check_at("replay_held", &mut app, 80, 24);
    press(&mut app, &[Key::Char('?')]);
    check("replay_help", &mut app);
    press(&mut app, &[Key::Char('?')]);
    assert_eq!(
        press(&mut app, &[Key::Char(' '), Key::Char('q')]),
        [Command::Resume, Command::Leave]
    );
}

#[test]
fn paces_have_a_limit_and_read_well() {
    let mut app = recording(&[]);
    press(&mut app, &[Key::Char('-'); 20]);
    let words = |app: &App| app.replay.map(|replay| replay.pace_in_words()).unwrap();
    assert_eq!(words(&app), "1/64x");
    press(&mut app, &[Key::Char('+'); 40]);
    assert_eq!(words(&app), "4096x");
}

#[test]
fn an_unknown_agent_is_met() {
    let mut script = Script::default();
    script.fail("stranger").restart("stranger");
    let mut app = app(&script.events);
    let screen = text(&shown(&mut app, 80, 24));
    assert!(screen.contains("stranger") && screen.contains("restart 1 on g2"), "{screen}");
}
