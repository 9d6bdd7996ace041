//! What a chat template writes around turns, found out by having it write some: the control text of templates
//! that use no special tokens.
//!
//! Only what cannot be taken for ordinary words counts: pieces in brackets, rows of `#`, names in capitals with a
//! colon. Names at the beginning of a line need no place here: words that are not ours begin no line.

use super::{ChatTemplate, Message};

/// Stands for what is said; no template writes it by itself.
const SAID: &str = "qxzvj";

/// The marks of a template; none where it refuses every sample.
pub(super) fn of(template: &ChatTemplate) -> Vec<String> {
    let mut marks = Vec::new();
    for roles in
        [&["system", "user", "assistant", "user"][..], &["user", "assistant", "user"], &["user"]]
    {
        let turns: Vec<Message> = roles.iter().map(|role| Message::new(role, SAID)).collect();
        for text in [true, false].into_iter().flat_map(|begun| template.render(&turns, begun)) {
            for word in text.split(SAID).flat_map(str::split_whitespace) {
                marks.extend(bracketed(word).map(str::to_owned));
                marks.extend(plain(word).map(str::to_owned));
            }
        }
    }
    marks.sort();
    marks.dedup();
    // The longest first: `<<SYS>>` goes before what it holds.
    marks.sort_by_key(|mark| std::cmp::Reverse(mark.len()));
    marks
}

/// The pieces in brackets of a word.
fn bracketed(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        loop {
            let from = rest.find(['<', '[', '{'])?;
            let inner = &rest[from..];
            let close = inner.find(['>', ']', '}'])?;
            let ends = |c: char| matches!(c, '>' | ']' | '}');
            let end = close + inner[close..].find(|c| !ends(c)).unwrap_or(inner.len() - close);
            let (piece, after) = inner.split_at(end);
            rest = after;
            if piece.contains(char::is_alphanumeric) {
                return Some(piece);
            }
        }
    })
}

/// A row of `#`, or a name in capitals with a colon.
fn plain(word: &str) -> Option<&str> {
    let row = word.len() > 1 && word.bytes().all(|byte| byte == b'#');
    let name = word.strip_suffix(':').is_some_and(|name| {
        name.len() > 1 && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    });
    (row || name).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(source: &str) -> Vec<String> {
        ChatTemplate::parse(source, Some("<s>"), Some("</s>")).unwrap().marks
    }

    #[test]
    fn control_text_is_told_from_words() {
        let llama = "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}[INST] <<SYS>>\n\
            {{ m.content }}\n<</SYS>>\n\n{% elif m.role == 'user' %}[INST] {{ m.content }} [/INST]\
            {% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";
        assert_eq!(marks(llama), ["<</SYS>>", "<<SYS>>", "[/INST]", "[INST]", "</s>", "<s>"]);
        let vicuna = "A chat from 26 July.{% for m in messages %} {{ m.role | upper }}: {{ m.content }}\
            {% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}";
        assert_eq!(marks(vicuna), ["ASSISTANT:", "SYSTEM:", "USER:"]);
        let alpaca = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n{% endfor %}";
        assert_eq!(marks(alpaca), ["###"]);
        assert!(marks("{{ raise_exception('no') }}").is_empty());
    }
}
