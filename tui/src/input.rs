//! From what the terminal sends to [`Key`]s. Reads the keyboard in a thread of its own, so that the
//! screen's loop only ever waits on channels.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use crate::keys::Key;

/// Inputs that may wait for the screen's loop; a person is slower than that.
const BOUND: usize = 64;

/// How long the thread waits before it looks whether it shall end.
const PATIENCE: Duration = Duration::from_millis(100);

/// What can come from a terminal and matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A key went down.
    Key(Key),
    /// The terminal has another size, or must be drawn anew.
    Resized,
    /// The system asks the process to end.
    Asked,
}

/// The thread that reads; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Keyboard {
    ended: Arc<AtomicBool>,
    /// Weak, so that the receiver ends with the thread.
    sender: mpsc::WeakSender<Input>,
    thread: Option<JoinHandle<()>>,
}

impl Keyboard {
    /// Begins to read. The receiver ends when the terminal is gone.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub(crate) fn open() -> io::Result<(Self, mpsc::Receiver<Input>)> {
        let (sender, receiver) = mpsc::channel(BOUND);
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let weak = sender.downgrade();
        let thread = std::thread::Builder::new()
            .name("keyboard".into())
            .spawn(move || read(&sender, &seen))?;
        Ok((Self { ended, sender: weak, thread: Some(thread) }, receiver))
    }

    /// Tells the screen that the system asks for the end. It is lost where the screen is stuck, like a key.
    pub(crate) fn ask(&self) {
        if let Some(sender) = self.sender.upgrade() {
            let _ = sender.try_send(Input::Asked);
        }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic in there has been told by its hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

fn read(sender: &mpsc::Sender<Input>, ended: &AtomicBool) {
    while !ended.load(Ordering::SeqCst) {
        let event = match event::poll(PATIENCE) {
            Ok(true) => event::read(),
            Ok(false) => continue,
            Err(_) => return,
        };
        let Ok(event) = event else { return };
        // A full channel means a stuck screen: the key is lost, the thread is not.
        if let Some(input) = translate(&event)
            && let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(input)
        {
            return;
        }
    }
}

/// What an event of the terminal means to us, if anything.
pub(crate) fn translate(event: &Event) -> Option<Input> {
    match event {
        Event::Key(key) if key.kind == KeyEventKind::Press => key_of(key).map(Input::Key),
        Event::Key(key) if key.kind == KeyEventKind::Repeat => {
            key_of(key).filter(|key| is_movement(*key)).map(Input::Key)
        }
        Event::Resize(..) | Event::FocusGained => Some(Input::Resized),
        _ => None,
    }
}

/// Keys that may repeat while held down.
fn is_movement(key: Key) -> bool {
    matches!(key, Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Char('j' | 'k'))
}

fn key_of(key: &KeyEvent) -> Option<Key> {
    if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
        let interrupts =
            key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
        return interrupts.then_some(Key::Interrupt);
    }
    match key.code {
        KeyCode::Char(letter) => Some(Key::Char(letter)),
        KeyCode::Tab => Some(Key::Tab),
        KeyCode::BackTab => Some(Key::BackTab),
        KeyCode::Esc => Some(Key::Escape),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::PageUp => Some(Key::PageUp),
        KeyCode::PageDown => Some(Key::PageDown),
        KeyCode::Home => Some(Key::Home),
        KeyCode::End => Some(Key::End),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode, modifiers: KeyModifiers) -> Event {
        Event::Key(KeyEvent::new(code, modifiers))
    }

    #[test]
    fn keys_are_known_and_releases_are_not() {
        let none = KeyModifiers::NONE;
        assert_eq!(translate(&press(KeyCode::Char('q'), none)), Some(Input::Key(Key::Char('q'))));
        assert_eq!(
            translate(&press(KeyCode::Char('c'), KeyModifiers::CONTROL)),
            Some(Input::Key(Key::Interrupt))
        );
        assert_eq!(translate(&press(KeyCode::Char('q'), KeyModifiers::ALT)), None);
        assert_eq!(translate(&Event::Resize(80, 24)), Some(Input::Resized));
        let mut key = KeyEvent::new(KeyCode::Char('q'), none);
        key.kind = KeyEventKind::Release;
        assert_eq!(translate(&Event::Key(key)), None);
        key.kind = KeyEventKind::Repeat;
        assert_eq!(translate(&Event::Key(key)), None, "a held q is one q, not two");
    }
}
