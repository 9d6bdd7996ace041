//! A chat template: whatever its source is, a conversation written with it, or an error.

#![no_main]

use agents::chat_template::{ChatTemplate, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let Ok(template) = ChatTemplate::parse(source, Some("<s>"), Some("</s>")) else { return };
    let turns = [
        Message::new("system", "Reply in one short sentence."),
        Message::new("user", "Where's  my \"bag\"?\n<b>日本 e\u{301}\u{0}"),
        Message::new("assistant", ""),
        Message::new("user", "<think>\n1 < 2</think> {{ messages }}"),
    ];
    let _ = template.render(&turns, true);
    let _ = template.render(&turns[1..3], false);
});
