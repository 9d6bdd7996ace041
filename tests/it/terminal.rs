//! The screen on a real terminal: a pseudo-terminal of the program `script` (util-linux), read by an emulator.
//!
//! While the screen is up nobody but it may write there, whatever fails; on every way out the terminal is as it
//! was before, and the exit code says how the run ended.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use polylogue_tests::{binary, root};

use crate::resume::TINY;

/// How long anything may take; a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(180);
/// Takes the alternate screen, and gives it back.
const ENTER: &[u8] = b"\x1b[?1049h";
const LEAVE: &[u8] = b"\x1b[?1049l";
/// Begin and end a frame: nothing may be written outside of them.
const FRAME: [&[u8]; 2] = [b"\x1b[?2026h", b"\x1b[?2026l"];
/// What a panic's message begins with, after the thread's name.
const PANIC: &str = "panicked at";
/// A turn that is never answered: its tick does not end.
const HANG: &str = "faults=[{ kind = \"hang\", agent = \"understand\", at_tick = 0 }]";

/// A terminal of 40 lines and 120 columns with a program in it.
struct Terminal {
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
    folder: tempfile::TempDir,
}

impl Terminal {
    /// Plays the tiny society on the screen, with some more settings.
    fn run(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run").display().to_string();
        let mut arguments = vec!["run", "scenarios/customer_service", "--display", "tui"];
        arguments.extend(["--out", &out]);
        arguments.extend(TINY.iter().chain(settings).flat_map(|set| ["--set", *set]));
        // The shell writes before and after, and tells the modes of the terminal.
        let script = folder.path().join("script.sh");
        let quoted: Vec<String> =
            arguments.iter().map(|part| format!("'{}'", part.replace('\'', "'\\''"))).collect();
        let pid = folder.path().join("pid");
        let text = format!(
            "stty rows 40 cols 120\necho before\n\
             sh -c 'echo $$ > {}; exec \"$0\" \"$@\"' {} {}\necho \"code $?\"\nstty -a\n",
            pid.display(),
            binary().display(),
            quoted.join(" ")
        );
        fs::write(&script, text).unwrap();
        let mut child = Command::new("script")
            .args(["--quiet", "--flush", "--command", &format!("sh {}", script.display())])
            .arg("/dev/null")
            .current_dir(root())
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`script` of util-linux");
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut source, target) = (child.stdout.take().unwrap(), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = source.read(&mut bytes) {
                target.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { child, written, folder }
    }

    fn written(&self) -> Vec<u8> {
        self.written.lock().unwrap().clone()
    }

    /// What stands on the screen now.
    fn screen(&self) -> vt100::Parser {
        let mut parser = vt100::Parser::new(40, 120, 0);
        parser.process(&self.written());
        parser
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "there is no runtime: another process is waited for"
    )]
    fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is(self) {
            let shown = self.screen().screen().contents();
            assert!(begun.elapsed() < PATIENCE, "{what} did not come; on the screen:\n{shown}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for words on the screen.
    fn shows(&self, words: &str) {
        self.until(words, |own| own.screen().screen().contents().contains(words));
    }

    /// Waits until the run has written so many ticks, and the screen is up.
    fn reaches(&self, ticks: usize) {
        let times = self.folder.path().join("run/times.jsonl");
        let read = || fs::read_to_string(&times).unwrap_or_default().lines().count();
        self.until("the tick", |own| read() >= ticks && contains(&own.written(), FRAME[1]));
    }

    fn types(&mut self, keys: &[u8]) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(keys).unwrap();
        stdin.flush().unwrap();
    }

    /// Sends a signal to the program itself.
    fn signal(&self, name: &str) {
        let pid = fs::read_to_string(self.folder.path().join("pid")).unwrap();
        let sent = Command::new("kill").args(["-s", name, pid.trim()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end; the terminal must be as it was, and only frames may have been on the screen. What was
    /// written afterwards comes back.
    fn ends(mut self, code: i32) -> String {
        // All that the shell says at its end is there once it says this.
        self.until("the end", |own| contains(&own.written(), b"-extproc"));
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
        let written = self.written();
        let (before, rest) = split(&written, ENTER).expect("the alternate screen was taken");
        let (shown, after) = split(rest, LEAVE).expect("the alternate screen was given back");
        assert!(!contains(after, ENTER), "it is taken once");
        assert!(contains(before, b"before"));
        let frames = only_frames(shown);
        assert!(frames > 1, "{frames} frames");
        let mut live = vt100::Parser::new(40, 120, 0);
        live.process(&written[..before.len() + ENTER.len() + shown.len()]);
        assert!(live.screen().alternate_screen() && live.screen().hide_cursor());
        let end = self.screen();
        let screen = end.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor());
        assert!(!screen.bracketed_paste() && !screen.application_cursor());
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        let after = String::from_utf8_lossy(after).into_owned();
        assert!(after.contains(&format!("code {code}\r\n")), "{after}");
        for mode in ["icanon", "echo", "isig", "opost"] {
            let is_set = after.split_whitespace().any(|word| word == mode);
            assert!(is_set, "`{mode}` is not in {after}");
        }
        after
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind; one that did not has nothing left.
        if let Ok(pid) = fs::read_to_string(self.folder.path().join("pid")) {
            let _ = Command::new("kill")
                .args(["-s", "KILL", pid.trim()])
                .stderr(Stdio::null())
                .status();
        }
        let _ = self.child.kill();
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    find(bytes, wanted).is_some()
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let place = find(bytes, at)?;
    Some((&bytes[..place], &bytes[place + at.len()..]))
}

/// Checks that frames are all that was written, but for the cursor; how many there are.
fn only_frames(mut bytes: &[u8]) -> usize {
    let (mut frames, mut between) = (0, Vec::new());
    while let Some((outside, rest)) = split(bytes, FRAME[0]) {
        between.extend_from_slice(outside);
        bytes = match split(rest, FRAME[1]) {
            Some((_, rest)) => rest,
            None => b"",
        };
        frames += 1;
    }
    between.extend_from_slice(bytes);
    let outside = String::from_utf8_lossy(&between);
    let outside = outside.replace("\x1b[?25l", "").replace("\x1b[?25h", "");
    assert_eq!(outside, "", "somebody else wrote on the screen");
    frames
}

#[test]
fn a_panic_of_an_actor_leaves_the_screen_as_it_is_and_is_told_afterwards() {
    let faults = "faults=[{ kind = \"panic\", agent = \"reply\", at_tick = 0, times = 2 }]";
    let mut terminal = Terminal::run(&[faults]);
    terminal.shows("2 restarts");
    // The run goes on to its end, and its summary stays until the person leaves.
    terminal.shows("DONE");
    assert!(terminal.screen().screen().alternate_screen());
    terminal.types(b"q");
    let after = terminal.ends(0);
    assert_eq!(after.matches(PANIC).count(), 2, "{after}");
    assert!(after.contains("a panic that the scenario ordered"), "{after}");
}

#[test]
fn q_ends_the_run_after_its_tick_and_then_the_screen() {
    let mut terminal = Terminal::run(&["episodes=5000"]);
    terminal.reaches(6);
    terminal.types(b"q");
    terminal.shows("DONE, stopped early");
    terminal.types(b"q");
    let after = terminal.ends(130);
    assert!(after.contains("stopped early"), "{after}");
}

#[test]
fn a_second_key_leaves_a_tick_that_does_not_end() {
    for keys in [&b"\x03"[..], b"q"] {
        let mut terminal = Terminal::run(&[HANG]);
        terminal.shows("hang");
        terminal.types(keys);
        terminal.shows("leaves at once");
        terminal.types(keys);
        let after = terminal.ends(130);
        assert!(!after.contains("stopped early"), "nothing came to an end: {after}");
    }
}

#[test]
fn a_request_of_the_system_ends_the_run_and_the_screen() {
    let terminal = Terminal::run(&["episodes=5000"]);
    terminal.reaches(6);
    terminal.signal("TERM");
    let after = terminal.ends(143);
    assert!(after.contains("stopped early"), "{after}");
}

#[test]
fn a_second_request_leaves_a_tick_that_does_not_end() {
    let terminal = Terminal::run(&[HANG]);
    terminal.shows("hang");
    terminal.signal("TERM");
    terminal.shows("leaves at once");
    terminal.signal("TERM");
    terminal.ends(143);
}
