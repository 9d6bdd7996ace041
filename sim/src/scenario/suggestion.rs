//! Advice on a mistyped name: the nearest known one, and which ones there are.
//!
//! Also how a text from the file is quoted in a message: one line, short, nothing invisible.

/// Longest quoted text, in characters.
const LONGEST_QUOTE: usize = 60;

/// Longest message with texts from files in it, in characters.
const LONGEST_MESSAGE: usize = 2000;

/// Most names that are listed.
const LONGEST_LIST: usize = 12;

/// Most names that are compared, and the longest that is: a hostile file shall not keep us busy.
const MOST_COMPARED: usize = 200;
const LONGEST_COMPARED: usize = 64;

/// "did you mean …?" where a name is near, and the names there are.
pub(crate) fn advice<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().take(MOST_COMPARED).collect();
    match nearest(found, &known) {
        Some(name) if known.len() == 1 => format!("did you mean {}?", quote(name)),
        Some(name) => format!("did you mean {}? Possible: {}", quote(name), list(&known)),
        None if known.is_empty() => "there is none to choose from".to_owned(),
        None => format!("possible: {}", list(&known)),
    }
}

/// The known name that `found` was probably meant to be.
pub(crate) fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let bare = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
    if found.len() > LONGEST_COMPARED {
        return None;
    }
    let typed = bare(found);
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&typed, &bare(name)), *name))
        .filter(|(distance, name)| {
            let length = name.chars().count().max(typed.chars().count());
            // Typing mistakes rarely spare so little that the first letter is wrong too.
            let begins_alike = bare(name).chars().next() == typed.chars().next();
            (*distance <= length / 3 && (begins_alike || *distance <= 1))
                || (typed.len() >= 3 && bare(name).starts_with(&typed))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Names for a sentence.
pub(crate) fn list(names: &[&str]) -> String {
    let mut quoted: Vec<String> = names.iter().take(LONGEST_LIST).map(|name| quote(name)).collect();
    if names.len() > LONGEST_LIST {
        quoted.push(format!("and {} more", names.len() - LONGEST_LIST));
    }
    quoted.join(", ")
}

/// A text from the file, fit for a message.
pub(crate) fn quote(text: &str) -> String {
    let mut short: String = text.chars().take(LONGEST_QUOTE).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST_QUOTE).is_some() {
        short.push('…');
    }
    format!("`{short}`")
}

/// The text with everything that could move a terminal's cursor replaced, every byte in its old place.
pub(crate) fn harmless(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\r' | '\t' => c,
        c if !(c.is_control() || is_invisible(c)) => c,
        c => match c.len_utf8() {
            1 => '?',
            2 => '¿',
            3 => '\u{fffd}',
            _ => '\u{1f6ab}',
        },
    };
    text.chars().map(shown).collect()
}

/// A message with texts from files in it, fit for a terminal: harmless, and of bounded length.
///
/// Errors of commands that end on a terminal are all written through here.
pub(crate) fn message(text: impl std::fmt::Display) -> String {
    let text = harmless(&text.to_string());
    match text.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Marks that change the direction of text, join or hide characters.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["q_proj", "k_proj", "reward", "intent_correct"];
        assert_eq!(nearest("reward_", &known), Some("reward"));
        assert_eq!(nearest("intent-corect", &known), Some("intent_correct"));
        assert_eq!(nearest("query_projection", &known), None);
        assert_eq!(nearest("value_proj", &["v_proj", "gate_proj"]), None);
        assert_eq!(nearest("eward", &known), Some("reward"));
    }

    #[test]
    fn quotes_are_short_and_visible() {
        assert_eq!(quote("a\u{1b}[2J"), "`a\\u{1b}[2J`");
        assert!(quote(&"x".repeat(500)).chars().count() < 70);
    }

    #[test]
    fn messages_are_harmless_and_of_bounded_length() {
        assert_eq!(message("weight `a\u{1b}[2J`"), "weight `a?[2J`");
        assert_eq!(message("é".repeat(1 << 20)).chars().count(), LONGEST_MESSAGE + 1);
    }

    #[test]
    fn harmless_text_keeps_every_byte_in_its_place() {
        let text = "a\u{1b}b\u{85}c\u{202e}d\ne";
        let shown = harmless(text);
        assert_eq!(shown.len(), text.len());
        assert_eq!(shown, "a?b¿c\u{fffd}d\ne");
    }
}
