//! An event as a line of the log in which nothing is hidden: characters that a terminal would obey or show
//! as nothing stand there as `\uXXXX`. To a reader of JSON that is the same text.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use crate::event::Event;

/// An event in one line, without its end.
///
/// # Errors
/// When it cannot be written as JSON.
pub(super) fn line(event: &Event) -> serde_json::Result<String> {
    json(event)
}

/// Anything in one line, with what is hidden made visible.
///
/// # Errors
/// When it cannot be written as JSON.
pub(crate) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut bytes = Vec::with_capacity(256);
    value.serialize(&mut Serializer::with_formatter(&mut bytes, Visible))?;
    // JSON is text.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Compact JSON with hidden characters escaped. JSON's own rules escape those below U+0020.
struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut written = 0;
        // Most texts are plain: those are written as they are.
        for (place, letter) in fragment.char_indices().filter(|(_, letter)| is_hidden(*letter)) {
            writer.write_all(&fragment.as_bytes()[written..place])?;
            for unit in letter.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            written = place + letter.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[written..])
    }
}

/// Whether a terminal would obey this character, or show nothing for it. Variation selectors stay: they
/// belong to ordinary emoji.
fn is_hidden(letter: char) -> bool {
    if letter.is_ascii() {
        return letter == '\u{7f}';
    }
    matches!(u32::from(letter),
        0x80..=0x9F
        | 0xAD | 0x034F | 0x061C | 0x115F | 0x1160 | 0x17B4 | 0x17B5
        | 0x180B..=0x180F
        | 0x200B..=0x200F
        | 0x2028..=0x202E
        | 0x2060..=0x206F
        | 0x3164 | 0xFEFF | 0xFFA0
        | 0xFFF0..=0xFFFB
        | 0x1_D173..=0x1_D17A
        | 0xE_0000..=0xE_0FFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;

    fn written(reason: &str) -> (Event, String) {
        let kind = EventKind::AgentFailed {
            agent: "a".to_owned().try_into().unwrap(),
            reason: reason.into(),
        };
        let event = Event { seq: 3, tick: 4, kind };
        let line = line(&event).unwrap();
        (event, line)
    }

    #[test]
    fn hidden_characters_are_numbers_and_come_back_as_themselves() {
        let hostile = "a\u{202e}b\u{e0041}\u{9b}2J\u{7f}\u{1b}[2J\u{200b}\n\"";
        let (event, line) = written(hostile);
        assert!(
            line.contains(r#"a\u202eb\udb40\udc41\u009b2J\u007f\u001b[2J\u200b\n\""#),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }

    #[test]
    fn plain_texts_are_written_as_serde_writes_them() {
        for text in ["", "plain", "où est le musée", "漢字", "\u{2764}\u{fe0f}", "\\ / \" \t"] {
            let (event, line) = written(text);
            assert_eq!(line, serde_json::to_string(&event).unwrap());
        }
    }
}
