//! Conversations of the source domain: a customer asks, the topic is named, an agent answers, somebody
//! judges whether that resolved the matter. Some answers are wrong on purpose, and judged so.

use agents::seed::Stream;
use rand::Rng;

use super::grammar::{Grammar, Memory};

/// Conversations about a grammar's topics.
#[derive(Debug)]
pub struct Dialogues {
    grammar: Grammar,
}

impl Dialogues {
    /// Wraps a grammar that has topics.
    #[must_use]
    pub fn new(grammar: Grammar) -> Self {
        Self { grammar }
    }

    /// One conversation, in one of several forms.
    #[must_use]
    pub fn document(&self, stream: &mut Stream) -> String {
        let topics = self.grammar.topics();
        let index = stream.random_range(0..topics.len());
        let topic = &topics[index];
        let mut memory = Memory::default();
        let mut say = |texts: &[super::grammar::Template], stream: &mut Stream| {
            let template = &texts[stream.random_range(0..texts.len())];
            self.grammar.expand(template, &mut memory, stream)
        };
        let ask = say(&topic.ask, stream);
        let mut text = format!("customer: {ask}\n");
        let form = stream.random_range(0..10);
        if form < 7 {
            text.extend(["topic: ", &topic.name, "\n"]);
        }
        if form == 0 {
            return text;
        }
        let judged = form >= 4;
        let right = !judged || stream.random_bool(0.5);
        let answered = if right {
            topic
        } else {
            let step = stream.random_range(1..topics.len());
            &topics[(index + step) % topics.len()]
        };
        text.extend(["agent: ", &say(&answered.answer, stream), "\n"]);
        if judged {
            text += if right { "resolved: yes\n" } else { "resolved: no\n" };
        } else if form < 3 {
            text.extend(["customer: ", &say(&topic.follow, stream), "\n"]);
        }
        text
    }
}
