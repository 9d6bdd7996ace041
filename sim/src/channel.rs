//! The one place where a message crosses from its sender to who hears it.
//!
//! Construct, intervene, impair, deliver, inject: so far the text channel constructs a message from what
//! was said, cuts it to the token budget, and delivers it.

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

/// Sends what was said through the channel; lengths are in tokens of the sender's vocabulary.
///
/// # Errors
/// When the sender's words cannot be tokenized.
pub fn cross(
    plan: &ChannelPlan,
    tokenizer: &Tokenizer,
    said: Said,
) -> agents::error::Result<Delivered> {
    let text = match &said {
        Said::Text { text } => text.clone(),
        Said::Label { label, .. } => agents::prompt::words(label),
        Said::Verdict { .. } => return Ok(Delivered { said, tokens: 1, cut: 0 }),
    };
    let tokens = tokenizer.encode(&text)?;
    let cut = tokens.len().saturating_sub(plan.max_tokens);
    if cut == 0 {
        return Ok(Delivered { said, tokens: tokens.len(), cut });
    }
    let short = tokenizer.decode(&tokens[..plan.max_tokens])?;
    let said = match said {
        Said::Label { confidence, .. } => Said::Label { label: short, confidence },
        _ => Said::Text { text: short },
    };
    Ok(Delivered { said, tokens: plan.max_tokens, cut })
}
