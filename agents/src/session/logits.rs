//! The logits of a step, wherever they are, and the tokens that are drawn from them.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use rand::Rng;
use rayon::prelude::*;

use super::drawn::{Drawn, Token};
use crate::error::Result;
use crate::gpu::{self, Arrival, Shore};
use crate::sampler::{Filter, pick};
use crate::seed::{Seed, Stream};

/// How a token is drawn from the logits of a part.
#[derive(Debug)]
pub struct Pick<'a> {
    /// Whose logits.
    pub part: usize,
    /// 0 takes the likeliest token.
    pub temperature: f64,
    /// Which tokens may be drawn at all.
    pub filter: &'a Filter,
    /// Where randomness comes from; it is asked once, or not at all where the temperature is 0.
    pub stream: &'a mut Stream,
}

/// Logits of one pass, `[wanted rows, vocabulary]`.
#[derive(Clone, Debug)]
pub(super) enum Numbers {
    /// In main memory.
    Here(Vec<f32>),
    /// On a GPU.
    There(Tensor),
}

/// The logits of a step, for the parts that wanted them.
#[derive(Clone, Debug, Default)]
pub struct Logits {
    width: usize,
    pub(super) passes: Vec<Numbers>,
    /// The pass and the row of each part's logits.
    pub(super) places: Vec<Option<(usize, usize)>>,
    /// Where tokens come to from a GPU.
    shore: Shore,
    /// Whether tokens are said to be on their way although nothing of them is: a test of who waits for them.
    is_late: bool,
}

impl Logits {
    /// None yet, for so many parts.
    pub(super) fn of_parts(width: usize, parts: usize, shore: Shore, is_late: bool) -> Self {
        Self { width, passes: Vec::new(), places: vec![None; parts], shore, is_late }
    }

    /// The logits of a part, `[vocabulary]`; empty where the part did not want them.
    ///
    /// # Errors
    /// When a GPU does not give them.
    pub fn of(&self, part: usize) -> Result<Cow<'_, [f32]>> {
        let Some(&Some((pass, row))) = self.places.get(part) else { return Ok(Cow::default()) };
        match &self.passes[pass] {
            Numbers::Here(all) => Ok(Cow::Borrowed(&all[row * self.width..(row + 1) * self.width])),
            Numbers::There(all) => Ok(Cow::Owned(all.get(row)?.to_vec1()?)),
        }
    }

    /// The likeliest token of every part, as [`Self::draw`] gives tokens.
    ///
    /// # Errors
    /// When a GPU fails.
    pub fn likeliest(&self) -> Result<Drawn> {
        let filter = Filter::default();
        let mut streams: Vec<Stream> = self.places.iter().map(|_| Seed::new(0).stream()).collect();
        let picks = streams.iter_mut().enumerate();
        let pick = |(part, stream)| Pick { part, temperature: 0.0, filter: &filter, stream };
        self.draw(picks.map(pick).collect())
    }

    /// A token for each draw, in their order: drawn where the logits are, and not waited for. A part without
    /// logits gives 0.
    ///
    /// # Errors
    /// When a GPU fails.
    pub fn draw(&self, draws: Vec<Pick<'_>>) -> Result<Drawn> {
        let mut tokens = vec![Token::Here(0); draws.len()];
        let mut arrivals = Vec::new();
        let mut here = Vec::new();
        let mut there: Vec<Vec<(usize, usize, Pick<'_>)>> = Vec::new();
        there.resize_with(self.passes.len(), Vec::new);
        for (at, draw) in draws.into_iter().enumerate() {
            let Some(&Some((pass, row))) = self.places.get(draw.part) else { continue };
            match &self.passes[pass] {
                Numbers::Here(all) => {
                    here.push((at, &all[row * self.width..(row + 1) * self.width], draw));
                }
                Numbers::There(_) => there[pass].push((at, row, draw)),
            }
        }
        // Draws are independent of each other: each has its own stream.
        let drawn: Vec<(usize, u32)> = here
            .into_par_iter()
            .map(|(at, logits, draw)| {
                (at, pick(logits, draw.temperature, draw.filter, draw.stream))
            })
            .collect();
        if self.is_late {
            let all: Vec<u32> = drawn.iter().map(|&(_, token)| token).collect();
            let places = drawn.iter().enumerate();
            places.for_each(|(place, &(at, _))| tokens[at] = Token::Coming(0, place));
            arrivals.push(Arrival::here(Tensor::new(all, &Device::Cpu)?));
        } else {
            drawn.into_iter().for_each(|(at, token)| tokens[at] = Token::Here(token));
        }
        for (pass, draws) in self.passes.iter().zip(there) {
            let Numbers::There(all) = pass else { continue };
            if draws.is_empty() {
                continue;
            }
            let mut asks = vec![[0.0, 0.0, 1.0, 0.0, 0.0]; all.dim(0)?];
            let mut places = Vec::with_capacity(draws.len());
            for (at, row, draw) in draws {
                asks[row] = ask(draw.filter, draw.temperature, draw.stream);
                places.push((at, row));
            }
            let coming = |row| Token::Coming(arrivals.len(), row);
            places.into_iter().for_each(|(at, row)| tokens[at] = coming(row));
            arrivals.push(gpu::draw(all, &asks, &self.shore)?);
        }
        Ok(Drawn { tokens, arrivals })
    }
}

fn ask(filter: &Filter, temperature: f64, stream: &mut Stream) -> gpu::Ask {
    let number = if temperature > 0.0 { stream.random() } else { 0.0 };
    let top_k = filter.top_k.map_or(0.0, |most| most.max(1) as f64);
    [temperature, top_k, filter.top_p.unwrap_or(1.0), filter.min_p.unwrap_or(0.0), number]
}
