//! Small computed sums and word problems with small numbers, each answer right.

use agents::seed::Stream;
use rand::Rng;

const THINGS: [&str; 16] = [
    "apples", "tickets", "letters", "coins", "chairs", "books", "eggs", "stamps", "cups", "shirts",
    "bags", "pens", "boxes", "plates", "keys", "tables",
];
const PEOPLE: [&str; 12] = [
    "Anna", "Tom", "Maria", "Omar", "Lena", "Jack", "Priya", "Noah", "Sara", "Ivan", "Mei", "Paul",
];

/// A document of a few sums.
#[must_use]
pub fn document(stream: &mut Stream) -> String {
    let lines = stream.random_range(1..=4);
    let texts: Vec<String> = (0..lines).map(|_| sum(stream)).collect();
    texts.join("\n") + "\n"
}

fn sum(stream: &mut Stream) -> String {
    let (a, b) = (stream.random_range(2..60_u32), stream.random_range(2..40_u32));
    let (small, times) = (stream.random_range(2..13_u32), stream.random_range(2..13_u32));
    let thing = THINGS[stream.random_range(0..THINGS.len())];
    let who = PEOPLE[stream.random_range(0..PEOPLE.len())];
    let other = PEOPLE[stream.random_range(0..PEOPLE.len())];
    let (high, low) = (a.max(b), a.min(b));
    match stream.random_range(0..11) {
        0 => format!("{a} + {b} = {}", a + b),
        1 => format!("{high} - {low} = {}", high - low),
        2 => format!("{small} x {times} = {}", small * times),
        3 => format!("{} / {small} = {times}", small * times),
        4 => format!(
            "question: {who} has {a} {thing} and gets {b} more. how many {thing} now?\nanswer: {}",
            a + b
        ),
        5 => format!(
            "question: {who} had {high} {thing} and gave {low} to {other}. how many are left?\nanswer: {}",
            high - low
        ),
        6 => format!(
            "question: one of the {thing} costs {small} euros. what do {times} cost?\nanswer: {} euros",
            small * times
        ),
        7 => format!(
            "question: {} {thing} are shared by {small} people. how many for each?\nanswer: {times}",
            small * times
        ),
        8 => format!("question: which is more, {a} or {}?\nanswer: {}", a + b, a + b),
        9 => {
            let (hour, wait) = (stream.random_range(1..12_u32), stream.random_range(1..10_u32));
            let end = (hour + wait - 1) % 12 + 1;
            format!(
                "question: it is {hour} o'clock. what time is it in {wait} hours?\nanswer: {end} o'clock"
            )
        }
        _ => format!(
            "{who} counted {a} {thing}, {other} counted {b}. together they counted {}.",
            a + b
        ),
    }
}
