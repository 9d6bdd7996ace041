//! The one place where a message crosses from its sender to who hears it.
//!
//! Construct, intervene, impair, deliver, inject: so far the text channel constructs a message from what
//! was said, cuts it to the token budget, loses and delays it as the scenario orders, and delivers it.

pub mod impairment;

use agents::tokenizer::Tokenizer;

use crate::event::Said;
use crate::scenario::ChannelPlan;

/// A message as it arrives.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// What arrives.
    pub said: Said,
    /// Its length in the sender's tokens.
    pub tokens: usize,
    /// Tokens that were cut off.
    pub cut: usize,
}

/// What messages of a sender are measured in.
#[derive(Clone, Copy, Debug)]
pub enum Measure<'t> {
    /// Tokens of its vocabulary.
    Tokens(&'t Tokenizer),
    /// Words between spaces: a scripted agent has no vocabulary.
    Words,
}

/// Sends what was said through the channel.
///
/// # Errors
/// When the sender's words cannot be tokenized.
pub fn cross(
    plan: &ChannelPlan,
    measure: Measure<'_>,
    said: Said,
) -> agents::error::Result<Delivered> {
    let text = match &said {
        Said::Text { text } => text.clone(),
        Said::Label { label, .. } => agents::prompt::words(label),
        Said::Verdict { .. } => return Ok(Delivered { said, tokens: 1, cut: 0 }),
    };
    let most = plan.max_tokens;
    let (count, short) = match measure {
        Measure::Tokens(tokenizer) => {
            let tokens = tokenizer.encode(&text)?;
            let short = tokens.get(..most).filter(|short| short.len() < tokens.len());
            (tokens.len(), short.map(|short| tokenizer.decode(short)).transpose()?)
        }
        Measure::Words => {
            let count = text.split_whitespace().count();
            let short = || text.split_whitespace().take(most).collect::<Vec<_>>().join(" ");
            (count, (count > most).then(short))
        }
    };
    let Some(short) = short else { return Ok(Delivered { said, tokens: count, cut: 0 }) };
    let said = match said {
        Said::Label { confidence, .. } => Said::Label { label: short, confidence },
        _ => Said::Text { text: short },
    };
    Ok(Delivered { said, tokens: most, cut: count - most })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::ImpairPlan;

    #[test]
    fn words_beyond_the_budget_are_cut_off() {
        let plan = ChannelPlan { max_tokens: 2, credits: 1, impair: ImpairPlan::default() };
        let text = |text: &str| Said::Text { text: text.to_owned() };
        let crossed = |words: &str| cross(&plan, Measure::Words, text(words)).unwrap();
        assert_eq!(crossed("a  b"), Delivered { said: text("a  b"), tokens: 2, cut: 0 });
        assert_eq!(crossed("a b c d"), Delivered { said: text("a b"), tokens: 2, cut: 2 });
        assert_eq!(crossed(""), Delivered { said: text(""), tokens: 0, cut: 0 });
    }
}
