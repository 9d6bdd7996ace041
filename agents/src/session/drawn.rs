//! Tokens that were drawn from the logits of a step, and may still be on their way from a GPU.

use candle_core::Tensor;

use crate::error::Result;
use crate::gpu::Arrival;

/// The tokens of some draws, in their order.
#[derive(Debug, Default)]
pub struct Drawn {
    pub(super) tokens: Vec<Token>,
    pub(super) arrivals: Vec<Arrival>,
}

/// Where a drawn token is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Token {
    Here(u32),
    /// In an arrival, and its place there.
    Coming(usize, usize),
}

/// A drawn token to read, wherever it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    Here(u32),
    /// Among these tokens.
    There(&'a Tensor, usize),
}

impl Drawn {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Whether all of them are known here, so that nobody waits for them.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// The tokens; waits for those that are on their way.
    ///
    /// # Errors
    /// When a GPU fails.
    pub fn wait(&self) -> Result<Vec<u32>> {
        let arrived: Vec<Vec<u32>> =
            self.arrivals.iter().map(Arrival::wait).collect::<candle_core::Result<_>>()?;
        let token = |token: &Token| match *token {
            Token::Here(token) => token,
            Token::Coming(arrival, place) => arrived[arrival][place],
        };
        Ok(self.tokens.iter().map(token).collect())
    }

    /// Where a token is; none where there are not so many.
    pub(super) fn source(&self, index: usize) -> Option<Source<'_>> {
        Some(match *self.tokens.get(index)? {
            Token::Here(token) => Source::Here(token),
            Token::Coming(arrival, place) => Source::There(self.arrivals[arrival].tokens(), place),
        })
    }
}
