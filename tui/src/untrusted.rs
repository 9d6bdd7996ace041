//! Words that a model or a user wrote, shown only through here.
//!
//! Nothing is deleted and nothing acts: what a terminal would obey or hide (control, bidirectional,
//! zero-width, tag and filler characters, unusual spaces) appears as its number, U+200B as `<200B>`. A
//! literal text that looks like such a number has its `<` numbered, so two different texts never look
//! alike. Marks piled on one letter beyond [`MARKS`] appear as their count, `<+9>`. Widths are counted
//! in terminal columns. It does not judge what the words say.

use std::fmt;

use unicode_width::UnicodeWidthChar;

/// Combining marks that one letter may carry.
const MARKS: usize = 3;

/// Columns of a tabulator or line end never reach the screen; this many characters of a text are read at
/// most, however long it is.
const LONGEST: usize = 16_384;

/// Which characters the terminal is trusted to draw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Charset {
    /// Whatever has a width.
    #[default]
    Unicode,
    /// Space to `~`; all else appears as its number.
    Ascii,
}

impl Charset {
    /// What stands where a text was cut.
    fn ellipsis(self) -> char {
        match self {
            Self::Unicode => '…',
            Self::Ascii => '~',
        }
    }
}

/// A text that has not been looked at by us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Untrusted<'a>(pub(crate) &'a str);

impl Untrusted<'_> {
    /// One line of at most `width` columns; an ellipsis stands where it was cut.
    pub(crate) fn fit(self, width: usize, charset: Charset) -> String {
        let mut lines = self.wrap(width, 1, charset);
        lines.pop().unwrap_or_default()
    }

    /// At most `lines` lines of at most `width` columns each, broken at spaces where there are some; an
    /// ellipsis ends the last one where the text is longer. Always at least one line.
    pub(crate) fn wrap(self, width: usize, lines: usize, charset: Charset) -> Vec<String> {
        let mut page =
            Page { width, lines, charset, done: Vec::new(), line: String::new(), used: 0 };
        for piece in Pieces::new(self.0, charset) {
            if !page.put(&piece) {
                break;
            }
        }
        page.done.push(page.line);
        page.done
    }
}

impl fmt::Display for Untrusted<'_> {
    /// All of it on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in Pieces::new(self.0, Charset::Unicode) {
            f.write_str(&piece.text)?;
        }
        Ok(())
    }
}

/// What is drawn together and never torn apart: a letter with its marks, or a number in brackets.
struct Piece {
    text: String,
    width: usize,
}

/// Lines being filled.
struct Page {
    width: usize,
    lines: usize,
    charset: Charset,
    done: Vec<String>,
    line: String,
    used: usize,
}

impl Page {
    /// Adds a piece; false when the page is full and ends in an ellipsis.
    fn put(&mut self, piece: &Piece) -> bool {
        if self.used + piece.width <= self.width {
            self.line.push_str(&piece.text);
            self.used += piece.width;
            return true;
        }
        if self.done.len() + 1 >= self.lines {
            self.cut();
            return false;
        }
        if piece.text == " " {
            self.turn(String::new());
            return true;
        }
        let word = match self.line.rfind(' ') {
            Some(space) if piece.width < self.width => self.line.split_off(space)[1..].to_owned(),
            _ => String::new(),
        };
        self.turn(word);
        self.put(piece)
    }

    /// Begins the next line with a word.
    fn turn(&mut self, word: String) {
        self.used = columns(&word);
        self.done.push(std::mem::replace(&mut self.line, word));
    }

    /// Ends the line in an ellipsis, in the room that there is.
    fn cut(&mut self) {
        while self.used + 1 > self.width {
            let Some(last) = self.line.pop() else { return };
            self.used = self.used.saturating_sub(last.width().unwrap_or(0));
        }
        self.line.push(self.charset.ellipsis());
    }
}

/// Columns of a text that is already safe.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Cuts a text into pieces.
struct Pieces<'a> {
    rest: std::iter::Peekable<std::str::CharIndices<'a>>,
    text: &'a str,
    charset: Charset,
    read: usize,
}

impl<'a> Pieces<'a> {
    fn new(text: &'a str, charset: Charset) -> Self {
        Self { rest: text.char_indices().peekable(), text, charset, read: 0 }
    }

    /// The marks that follow a letter.
    fn marks(&mut self, piece: &mut String) -> usize {
        let (mut marks, mut width) = (0, 0);
        while let Some((_, mark)) = self.rest.next_if(|(_, c)| is_mark(*c) && self.read < LONGEST) {
            self.read += 1;
            marks += 1;
            if marks <= MARKS {
                piece.push(mark);
            }
        }
        if marks > MARKS {
            let more = format!("<+{}>", marks - MARKS);
            width = more.len();
            piece.push_str(&more);
        }
        width
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.read == LONGEST {
            self.read += 1;
            let more = self.rest.next().map(|(at, _)| self.text.len() - at)?;
            let text = format!("<+{more} bytes>");
            return Some(Piece { width: text.len(), text });
        }
        if self.read > LONGEST {
            return None;
        }
        let (at, letter) = self.rest.next()?;
        self.read += 1;
        let looks_like_ours = letter == '<' && is_number(&self.text[at + 1..]);
        if looks_like_ours
            || is_hidden(letter)
            || (self.charset == Charset::Ascii && !letter.is_ascii())
        {
            let text = format!("<{:02X}>", u32::from(letter));
            return Some(Piece { width: text.len(), text });
        }
        if is_mark(letter) {
            // A mark without a letter sits on a dotted circle, as in dictionaries.
            let mut text = String::from("\u{25CC}");
            text.push(letter);
            let width = 1 + self.marks(&mut text);
            return Some(Piece { text, width });
        }
        let mut text = String::from(letter);
        let width = letter.width().unwrap_or(0);
        let width = match self.charset {
            Charset::Unicode => width + self.marks(&mut text),
            Charset::Ascii => width,
        };
        Some(Piece { text, width })
    }
}

/// Whether what follows a `<` reads like a number that we would write.
fn is_number(rest: &str) -> bool {
    let Some(end) = rest.bytes().take(24).position(|b| b == b'>') else { return false };
    let inner = &rest.as_bytes()[..end];
    let hexadecimal = (2..=6).contains(&end) && inner.iter().all(u8::is_ascii_hexdigit);
    hexadecimal || inner.first() == Some(&b'+')
}

/// Whether a character is drawn on top of the one before it.
fn is_mark(letter: char) -> bool {
    !is_hidden(letter) && letter.width() == Some(0)
}

/// Whether a terminal would obey this character, or show nothing for it, or something that cannot be
/// told from a plain space.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(u32::from(letter),
            0xA0 | 0xAD | 0x034F | 0x061C | 0x115F | 0x1160 | 0x1680 | 0x17B4 | 0x17B5
            | 0x180B..=0x180F
            | 0x2000..=0x200F
            | 0x2028..=0x202F
            | 0x205F..=0x206F
            | 0x2800 | 0x3000 | 0x3164
            | 0xE000..=0xF8FF
            | 0xFE00..=0xFE0F
            | 0xFEFF | 0xFFA0
            | 0xFFF0..=0xFFFB
            | 0x1_D173..=0x1_D17A
            | 0xE_0000..=0x10_FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts that somebody would send on purpose.
    const HOSTILE: &[&str] = &[
        "",
        "plain words",
        "\u{1b}]52;c;c2VjcmV0\u{7}\u{1b}[2J\u{1b}[31m",
        "a\u{200B}b\u{200D}c\u{FEFF}d\u{2060}",
        "\u{202E}gnp.exe\u{202C}\u{2066}x\u{2069}",
        "hi\u{E0048}\u{E0049}\u{E007F}",
        "Z\u{0300}\u{0301}\u{0302}\u{0303}\u{0304}\u{0305}\u{0306}algo",
        "\u{0301}\u{0301}\u{0301}\u{0301}\u{0301}",
        "one\r\ntwo\ttabs\u{2028}three\u{85}",
        "漢字かなカナ 漢字かなカナ",
        "👩\u{200D}👩\u{200D}👧 👍🏽 🇫🇷",
        "<200B> <1B> <+3> <no> < <",
        "\u{3164}\u{2800}\u{A0}\u{3000}",
        "नमस्ते ภาษาไทย العربية \u{1112}\u{1161}\u{11ab}",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "\u{FFFE}\u{10FFFF}\u{E0100}\u{FE0F}",
    ];

    fn is_calm(text: &str) -> bool {
        !text.chars().any(is_hidden)
    }

    #[test]
    fn hidden_characters_are_numbered() {
        assert_eq!(Untrusted("a\u{200B}b\u{1b}[2J\n").to_string(), "a<200B>b<1B>[2J<0A>");
        assert_eq!(Untrusted("\u{E0041}\u{202E}\u{A0}").to_string(), "<E0041><202E><A0>");
    }

    #[test]
    fn a_text_that_imitates_a_number_is_told_apart() {
        assert_eq!(Untrusted("<200B> a < b <b>").to_string(), "<3C>200B> a < b <b>");
        assert_eq!(Untrusted("<+9>").to_string(), "<3C>+9>");
    }

    #[test]
    fn piled_marks_are_counted() {
        assert_eq!(
            Untrusted("e\u{301}\u{301}\u{301}\u{301}\u{301}x").to_string(),
            "e\u{301}\u{301}\u{301}<+2>x"
        );
        assert_eq!(Untrusted("\u{301}").to_string(), "\u{25CC}\u{301}");
    }

    #[test]
    fn nothing_hostile_survives_and_no_line_is_too_long() {
        for text in HOSTILE {
            for charset in [Charset::Unicode, Charset::Ascii] {
                for width in 0..40 {
                    for lines in 1..4 {
                        let page = Untrusted(text).wrap(width, lines, charset);
                        assert!(!page.is_empty() && page.len() <= lines, "{text:?} {width}");
                        for line in page {
                            assert!(columns(&line) <= width, "{text:?} at {width}: {line:?}");
                            assert!(is_calm(&line), "{text:?} at {width}: {line:?}");
                            assert!(charset == Charset::Unicode || line.is_ascii(), "{line:?}");
                        }
                    }
                }
            }
            assert!(is_calm(&Untrusted(text).to_string()));
        }
    }

    #[test]
    fn every_character_by_itself_is_calm_and_its_own() {
        let mut seen = std::collections::HashMap::new();
        for letter in '\0'..=char::MAX {
            let text = String::from(letter);
            let shown = Untrusted(&text).to_string();
            assert!(is_calm(&shown) && columns(&shown) > 0, "{letter:?}");
            assert_eq!(seen.insert(shown, letter), None, "{letter:?} looks like another");
        }
    }

    #[test]
    fn lines_break_at_spaces_and_end_in_an_ellipsis() {
        assert_eq!(
            Untrusted("book a table for two").wrap(8, 3, Charset::Unicode),
            ["book a", "table", "for two"]
        );
        assert_eq!(
            Untrusted("book a table for two").wrap(8, 2, Charset::Unicode),
            ["book a", "table f…"]
        );
        assert_eq!(Untrusted("book a table").fit(7, Charset::Unicode), "book a…");
        assert_eq!(Untrusted("漢字漢字").fit(5, Charset::Unicode), "漢字…");
        assert_eq!(Untrusted("漢字").fit(20, Charset::Ascii), "<6F22><5B57>");
    }

    #[test]
    fn a_text_without_end_is_read_only_so_far() {
        let long = "x".repeat(10_000_000);
        assert!(Untrusted(&long).to_string().ends_with("<+9983616 bytes>"));
        assert_eq!(Untrusted(&long).fit(4, Charset::Unicode), "xxx…");
    }
}
