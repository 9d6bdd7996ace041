//! `events.jsonl` of a run directory: whatever the bytes are, events in order or an error that names the line;
//! what was read is folded and compared with itself.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sim::divergence::{Context, Divergence};
use sim::recording::Recording;
use sim::summary::Summary;

fuzz_target!(|data: &[u8]| {
    let Ok(mut recording) = Recording::new(data, Path::new("events.jsonl")) else { return };
    let (mut summary, mut context) = (Summary::default(), Context::default());
    let (mut next, mut tick, mut last) = (0, 0, None);
    while let Ok(Some(recorded)) = recording.read() {
        let event = &recorded.event;
        assert!(event.seq >= next && event.tick >= tick);
        assert!(event.seq == next || recording.unknown() > 0);
        (next, tick) = (event.seq + 1, event.tick);
        summary.apply(event);
        let written = serde_json::to_string(event).expect("an event");
        let again: sim::event::Event = serde_json::from_str(&written).expect("the same event");
        assert_eq!((again.seq, again.tick), (event.seq, event.tick));
        context.push(&recorded.line, 3);
        let found = Divergence::new(&context, Some(&written), last.as_deref());
        assert!(found.changes.len() <= 32);
        last = Some(recorded.line);
    }
    assert!(matches!(recording.read(), Ok(None)), "the end stays the end");
    let _ = serde_json::to_string(&summary).expect("a summary");
});
