//! A step through the network that trains: each row is one token of a sequence, with keys and values in pages.
//!
//! Rows of all sequences share a pass where the session says how wide passes are; then every pass has that
//! many rows, some of nobody. Elsewhere a pass is of one sequence.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::drawn::Source;
use super::logits::Numbers;
use super::{Logits, Part, Read, Session};
use crate::adapter::Adapter;
use crate::backbone::{Apart, Pass, Rows, Tokens};
use crate::error::Result;
use crate::gpu::Changes;
use crate::gpu::paged::{PAGE, Page, Paged, Place, Shape};

/// What a sequence has read.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    all: Vec<Page>,
    length: usize,
}

impl Pages {
    /// Tokens read, virtual ones included.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Makes room up to `end` in pages that no other sequence shares.
    fn reserve(&mut self, end: usize, shape: Shape, backbone: &Tensor) -> Result<()> {
        if let Some(last) = self.all.get_mut(self.length / PAGE)
            && !self.length.is_multiple_of(PAGE)
            && Arc::get_mut(last).is_none()
        {
            *last = Arc::new(last.copy()?);
        }
        while self.all.len() * PAGE < end {
            self.all.push(shape.page(backbone.dtype(), backbone.device())?);
        }
        Ok(())
    }
}

/// What a row reads.
#[derive(Clone, Copy)]
enum Input<'p> {
    Token(Source<'p>),
    /// A vector of the adapter's prompt.
    Prompt(usize),
}

/// One token of one part.
struct Row<'p> {
    part: usize,
    input: Input<'p>,
    position: usize,
    /// Whether the logits after it are wanted.
    wanted: bool,
}

fn address(adapter: Option<&Arc<Adapter>>) -> usize {
    adapter.map_or(0, |adapter| Arc::as_ptr(adapter).addr())
}

impl Session {
    /// Reads the tokens of some parts.
    pub(super) fn read_apart(
        &mut self,
        parts: &[Part<'_>],
        mut chosen: Vec<usize>,
        logits: &mut Logits,
    ) -> Result<()> {
        // Rows that share weights are neighbours.
        chosen.sort_by_key(|&part| address(self.adapter_of(parts, part)));
        let mut rows = Vec::new();
        for &part in &chosen {
            self.begin_apart(parts, part)?;
            let length = self.pages_of(parts, part).map_or(0, |pages| pages.length);
            let prompt = self.adapter_of(parts, part).and_then(|adapter| adapter.prompt());
            let ahead = match prompt {
                Some(prompt) if length == 0 => prompt.dim(0)?,
                _ => 0,
            };
            let inputs =
                (0..ahead).map(Input::Prompt).chain(parts[part].inputs().map(Input::Token));
            let last = ahead + parts[part].count();
            rows.extend(inputs.enumerate().map(|(index, input)| Row {
                part,
                input,
                position: length + index,
                wanted: parts[part].logits && index + 1 == last,
            }));
        }
        let passes: Vec<&[Row<'_>]> = match self.tile {
            Some(tile) => rows.chunks(tile).collect(),
            None => rows.chunk_by(|a, b| a.part == b.part).collect(),
        };
        self.changes.truncate(passes.len());
        for (number, rows) in passes.into_iter().enumerate() {
            self.pass_apart(parts, number, rows, logits)?;
        }
        // A step that fails has not been read by anybody.
        for row in rows {
            if let Some(pages) = self.pages_of(parts, row.part) {
                pages.length = row.position + 1;
            }
        }
        Ok(())
    }

    fn adapter_of(&self, parts: &[Part<'_>], part: usize) -> Option<&Arc<Adapter>> {
        self.places[parts[part].slot.index].1.as_ref()?.adapter.as_ref()
    }

    fn pages_of(&mut self, parts: &[Part<'_>], part: usize) -> Option<&mut Pages> {
        match &mut self.places[parts[part].slot.index].1.as_mut()?.read {
            Read::Apart(pages) => Some(pages),
            Read::Kept(_) => None,
        }
    }

    /// Before its first token a sequence has the keys and values of its adapter's prefix.
    fn begin_apart(&mut self, parts: &[Part<'_>], part: usize) -> Result<()> {
        let Some(adapter) = self.adapter_of(parts, part).cloned() else { return Ok(()) };
        let backbone = Arc::clone(&self.backbone);
        let (shape, embedding) = (self.shape, &backbone.network.outer().embedding);
        let Some(pages) = self.pages_of(parts, part) else { return Ok(()) };
        let Some([first, _]) = adapter.prefix(0).filter(|_| pages.length == 0) else {
            return Ok(());
        };
        let count = first.dim(1)?;
        pages.reserve(count, shape, embedding)?;
        let rows = (0..count).map(|position| Some(Place { sequence: 0, position })).collect();
        let paged = Paged::new(shape, vec![pages.all.clone()], rows, embedding.device())?;
        for layer in 0..backbone.network.depth() {
            let Some([keys, values]) = adapter.prefix(layer) else { continue };
            let by_token = |tensor: &Tensor| {
                tensor.detach().transpose(0, 1)?.to_dtype(embedding.dtype())?.contiguous()
            };
            paged.keep(layer, &by_token(keys)?, &by_token(values)?)?;
        }
        pages.length = count;
        Ok(())
    }

    /// One pass of these rows, so many of the step before it.
    fn pass_apart(
        &mut self,
        parts: &[Part<'_>],
        number: usize,
        rows: &[Row<'_>],
        logits: &mut Logits,
    ) -> Result<()> {
        let backbone = Arc::clone(&self.backbone);
        let network = &backbone.network;
        let (shape, device) = (self.shape, network.device());
        let count = self.tile.unwrap_or(rows.len());
        let mut sequences = Vec::new();
        let mut places = Vec::with_capacity(count);
        for own in rows.chunk_by(|a, b| a.part == b.part) {
            let end = own.last().map_or(0, |row| row.position + 1);
            let Some(pages) = self.pages_of(parts, own[0].part) else { continue };
            pages.reserve(end, shape, &network.outer().embedding)?;
            let place =
                |row: &Row<'_>| Some(Place { sequence: sequences.len(), position: row.position });
            places.extend(own.iter().map(place));
            sequences.push(pages.all.clone());
        }
        places.resize(count, None);
        let paged = Paged::new(shape, sequences, places, device)?;
        let mut owners: Vec<Option<Arc<Adapter>>> =
            rows.iter().map(|row| self.adapter_of(parts, row.part).cloned()).collect();
        owners.resize(count, None);
        self.changes.resize_with(self.changes.len().max(number + 1), || None);
        let changes = &mut self.changes[number];
        if !changes.as_ref().is_some_and(|changes| changes.is_of(&owners)) {
            *changes = Changes::new(&owners, network.dtype(), device)?;
        }
        let tokens = Tokens::apart(&ids(rows, count, device)?, paged.positions())?;
        let groups = Rows::group(owners.iter().map(Option::as_deref));
        let mut pass = Pass {
            rows: &groups,
            apart: Some(Apart { paged: &paged, changes: self.changes[number].as_ref() }),
            ..Pass::default()
        };
        let x = network.embed(&tokens, &mut pass)?;
        let x = with_prompts(x, rows, &owners)?;
        let hidden = network.hidden_from(x, &tokens, pass)?.squeeze(1)?;
        let mut wanted: Vec<u32> = Vec::new();
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.wanted) {
            logits.places[row.part] = Some((logits.passes.len(), wanted.len()));
            wanted.push(index as u32);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let found = wanted.len();
        let heads: Vec<Option<&Adapter>> = (0..self.tile.unwrap_or(found))
            .map(|at| owners[wanted.get(at).map_or(count - 1, |&row| row as usize)].as_deref())
            .collect();
        wanted.resize(heads.len(), (count - 1) as u32);
        let hidden = hidden.index_select(&Tensor::new(wanted, device)?, 0)?;
        let all = network.logits(&hidden, &Rows::group(heads.into_iter()))?;
        let all = all.narrow(0, 0, found)?.to_dtype(candle_core::DType::F32)?;
        logits.passes.push(match device {
            Device::Cpu => Numbers::Here(all.flatten_all()?.to_vec1()?),
            _ => Numbers::There(all),
        });
        Ok(())
    }
}

/// The tokens of `count` rows, `[count]`; 0 where none is read. Those that are on the device stay there.
fn ids(rows: &[Row<'_>], count: usize, device: &Device) -> Result<Tensor> {
    let mut known = vec![0; count];
    let mut places: Vec<u32> = (0..count as u32).collect();
    let mut drawn: Vec<&Tensor> = Vec::new();
    let mut ends = vec![count];
    for (at, row) in rows.iter().enumerate() {
        match row.input {
            Input::Token(Source::Here(token)) => known[at] = token,
            Input::Token(Source::There(tokens, place)) => {
                let which = drawn.iter().position(|other| other.id() == tokens.id());
                let which = which.unwrap_or(drawn.len());
                if which == drawn.len() {
                    drawn.push(tokens);
                    ends.push(ends[which] + tokens.elem_count());
                }
                places[at] = (ends[which] + place) as u32;
            }
            Input::Prompt(_) => {}
        }
    }
    let known = Tensor::new(known, device)?;
    if drawn.is_empty() {
        return Ok(known);
    }
    drawn.insert(0, &known);
    Ok(Tensor::cat(&drawn, 0)?.index_select(&Tensor::new(places, device)?, 0)?)
}

/// Puts the vectors of prompts where no token is read, `[rows, 1, hidden]`.
fn with_prompts(x: Tensor, rows: &[Row<'_>], owners: &[Option<Arc<Adapter>>]) -> Result<Tensor> {
    let mut pieces = Vec::new();
    let mut done = 0;
    for (index, row) in rows.iter().enumerate() {
        let prompt = owners[index].as_ref().and_then(|adapter| adapter.prompt());
        let (Input::Prompt(at), Some(prompt)) = (row.input, prompt) else { continue };
        if done < index {
            pieces.push(x.narrow(0, done, index - done)?);
        }
        pieces.push(prompt.detach().narrow(0, at, 1)?.unsqueeze(0)?.to_dtype(x.dtype())?);
        done = index + 1;
    }
    if pieces.is_empty() {
        return Ok(x);
    }
    if done < x.dim(0)? {
        pieces.push(x.narrow(0, done, x.dim(0)? - done)?);
    }
    Ok(Tensor::cat(&pieces, 0)?)
}
