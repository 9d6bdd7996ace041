//! The command line on a pseudo-terminal: what a person's terminal shows, as an emulator of another author
//! understands it.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use polylogue_tests::{SMALL, binary, root};

const ROWS: u16 = 60;
const COLUMNS: u16 = 120;

/// A command on a terminal of its own, which `script` of util-linux gives it.
struct Terminal {
    screen: vt100::Parser,
    output: Receiver<Vec<u8>>,
    keyboard: ChildStdin,
    child: Child,
}

impl Terminal {
    /// Nothing where there is no such `script`.
    fn run(arguments: &[&str]) -> Option<Self> {
        let has_script = Command::new("script").arg("--version").output();
        if !has_script
            .is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("util-linux"))
        {
            println!("skipped: there is no `script` of util-linux");
            return None;
        }
        let quoted = |word: &str| format!("'{}'", word.replace('\'', "'\\''"));
        let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
        let program = quoted(&binary().display().to_string());
        let command =
            format!("stty rows {ROWS} cols {COLUMNS}; exec {program} {}", words.join(" "));
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .current_dir(root())
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm-256color")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut reader = child.stdout.take().unwrap();
        let keyboard = child.stdin.take().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Some(Self { screen: vt100::Parser::new(ROWS, COLUMNS, 0), output, keyboard, child })
    }

    fn text(&self) -> String {
        self.screen.screen().contents()
    }

    /// Goes on until the screen shows something.
    fn wait_for(&mut self, words: &str) {
        while !self.text().contains(words) {
            match self.output.recv_timeout(Duration::from_secs(180)) {
                Ok(bytes) => self.screen.process(&bytes),
                Err(end) => panic!("no `{words}`: {end}\n{}", self.text()),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Goes on until the command has ended; its exit code.
    fn end(&mut self) -> Option<i32> {
        while let Ok(bytes) = self.output.recv_timeout(Duration::from_secs(180)) {
            self.screen.process(&bytes);
        }
        self.child.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Does nothing to a command that has ended.
        let _ = self.child.kill();
    }
}

#[test]
fn a_panic_of_an_actor_leaves_the_screen_intact() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("run").display().to_string();
    let faults = r#"faults=[
        { kind = "panic", agent = "understand", at_tick = 4 },
        { kind = "lost_trainer", at_tick = 0 },
        { kind = "lost_engine", at_tick = 5 },
    ]"#;
    let mut arguments =
        vec!["run", "scenarios/customer_service", "--display", "tui", "--out", &out];
    for set in SMALL.iter().chain(&[faults]) {
        arguments.extend(["--set", *set]);
    }
    let Some(mut terminal) = Terminal::run(&arguments) else { return };
    // The understanding agent next speaks after the engine was lost.
    for words in ["trainer restart 1", "engine restart 1", "understand restart 1 on g1"] {
        terminal.wait_for(words);
    }
    let shown = terminal.text();
    assert!(terminal.screen.screen().alternate_screen(), "the screen is still up\n{shown}");
    for words in ["understand restart 1 on g1", "trainer restart 1", "1 Agents", "customer_service"]
    {
        assert!(shown.contains(words), "no `{words}` in\n{shown}");
    }
    assert!(!shown.contains("panicked at") && !shown.contains("agent.rs"), "{shown}");
    // Frames are whole: every pane has its corners, and the last line has the keys.
    assert_eq!(shown.matches('╭').count(), shown.matches('╯').count(), "{shown}");
    let footer = shown.lines().last().unwrap_or_default();
    assert!(footer.contains("help"), "{footer}");

    terminal.press("q");
    terminal.wait_for("stopped");
    assert!(terminal.screen.screen().alternate_screen());
    terminal.press("q");
    let code = terminal.end();
    let left = terminal.text();
    assert_eq!(code, Some(0), "{left}");
    assert!(!terminal.screen.screen().alternate_screen(), "the terminal is given back\n{left}");
    assert!(!terminal.screen.screen().hide_cursor(), "with its cursor");
    assert!(left.contains("a panic that the scenario ordered"), "what was kept is said\n{left}");
}
