//! Sequences in progress on one backbone: each reads tokens under its own adapter and keeps what it read.
//!
//! Sequences join and leave between steps without touching the others. A step takes any mixture of them,
//! some reading a part of a prompt, others one token. What a sequence gets depends on its own tokens and
//! adapter only, to the last bit: not on who else is in the step, not on how a prompt was cut into parts,
//! not on the number of threads. Nothing here samples, queues or trains, and nothing is recorded for a
//! backward pass.
//!
//! On a CPU a step reads every weight once for all its rows and runs as one team of threads
//! ([`crate::kernel`]). On a GPU rows go through the network that trains, as many at a time whoever they are
//! of, with attention, adapters and draws in kernels of our own ([`crate::gpu`]). What neither can read goes
//! through that network one sequence at a time.

mod apart;
mod cache;
mod change;
mod drawn;
mod features;
mod logits;
mod pass;
mod plan;
mod step;
mod turn;

use std::sync::Arc;

use self::apart::Pages;
pub(crate) use self::cache::whole;
use self::cache::{Kept, Shape};
pub use self::drawn::Drawn;
use self::drawn::Source;
pub(crate) use self::features::Whole;
pub use self::logits::{Logits, Pick};
use self::plan::Listing;
use self::turn::Turns;
use crate::adapter::Adapter;
use crate::backbone::Backbone;
use crate::error::{ModelError, Result};
use crate::gpu::{Changes, Shore};
use crate::kernel;

/// Rows of a pass on a GPU where nobody says how many sequences there will be.
const TILE: usize = 64;
/// The fewest and the most rows of a pass on a GPU.
const TILES: [usize; 2] = [16, 256];

/// A sequence of a [`Session`]. It stays valid until it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    index: usize,
    /// Distinguishes those that had the same place one after the other.
    stamp: u64,
}

/// Rows of a pass on a GPU for about so many sequences at once.
pub(crate) fn tile(sequences: usize) -> usize {
    let [least, most] = TILES;
    sequences.clamp(least, most).next_power_of_two()
}

/// What one sequence reads in a step.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    slot: Slot,
    reads: Reads<'a>,
    logits: bool,
}

#[derive(Clone, Copy, Debug)]
enum Reads<'a> {
    Tokens(&'a [u32]),
    /// The token of a draw.
    Drawn(&'a Drawn, usize),
}

impl<'a> Part<'a> {
    /// A sequence reads its next tokens, at least one; `logits` says whether those after the last of them are
    /// wanted.
    #[must_use]
    pub fn new(slot: Slot, tokens: &'a [u32], logits: bool) -> Self {
        Self { slot, reads: Reads::Tokens(tokens), logits }
    }

    /// A sequence reads the token of draw number `index` of an earlier step, which may still be on a GPU; its
    /// next logits are wanted.
    #[must_use]
    pub fn drawn(slot: Slot, drawn: &'a Drawn, index: usize) -> Self {
        Self { slot, reads: Reads::Drawn(drawn, index), logits: true }
    }

    /// How many tokens it reads.
    #[must_use]
    pub fn count(&self) -> usize {
        match self.reads {
            Reads::Tokens(tokens) => tokens.len(),
            Reads::Drawn(..) => 1,
        }
    }

    /// Whether logits are wanted.
    #[must_use]
    pub fn wants_logits(&self) -> bool {
        self.logits
    }

    /// What is wrong with it.
    fn fault(&self, vocabulary: usize) -> Option<String> {
        match self.reads {
            Reads::Tokens([]) => Some("a sequence has no tokens to read".to_owned()),
            Reads::Tokens(tokens) => {
                let outside = tokens.iter().find(|&&token| token as usize >= vocabulary);
                outside.map(|token| format!("token {token} is outside {vocabulary}"))
            }
            Reads::Drawn(drawn, index) => (index >= drawn.len())
                .then(|| format!("there is no draw {index} among {}", drawn.len())),
        }
    }

    /// What it reads, one after the other.
    fn inputs(&self) -> impl Iterator<Item = Source<'a>> + use<'a> {
        let (tokens, drawn) = match self.reads {
            Reads::Tokens(tokens) => (tokens, None),
            Reads::Drawn(drawn, index) => ([].as_slice(), drawn.source(index)),
        };
        tokens.iter().map(|&token| Source::Here(token)).chain(drawn)
    }
}

/// A sequence: whose it is, and what it has read.
#[derive(Debug)]
struct Sequence {
    adapter: Option<Arc<Adapter>>,
    read: Read,
}

/// Keys and values of a sequence.
#[derive(Clone, Debug)]
enum Read {
    /// In blocks, appended in place.
    Kept(Kept),
    /// In pages, as the network that trains has its numbers.
    Apart(Pages),
}

impl Read {
    fn length(&self) -> usize {
        match self {
            Self::Kept(kept) => kept.length,
            Self::Apart(pages) => pages.length(),
        }
    }
}

/// Sequences in progress on one backbone.
#[derive(Debug)]
pub struct Session {
    backbone: Arc<Backbone>,
    places: Vec<(u64, Option<Sequence>)>,
    stamp: u64,
    threads: usize,
    shape: Shape,
    turns: Turns,
    /// Whether the backbone's weights can be read where they lie.
    direct: bool,
    parameters: usize,
    /// Rows of a pass through the network that trains, with rows of nobody where there are fewer: products
    /// of one shape are computed in one way, so nobody notices who else is there. None for one sequence at a
    /// time.
    tile: Option<usize>,
    /// What adapters changed in each such pass of the last steps.
    changes: Vec<Option<Changes>>,
    /// Where drawn tokens come to.
    shore: Shore,
    /// Whether they are said to be on their way in main memory too.
    is_late: bool,
}

impl Session {
    /// No sequences yet.
    ///
    /// # Errors
    /// When the backbone is an encoder, which cannot write.
    pub fn new(backbone: Arc<Backbone>) -> Result<Self> {
        let family = backbone.network.architecture().family;
        if !family.is_decoder() {
            let reason = format!("{} is an encoder: it cannot write", family.name());
            return Err(ModelError::Incompatible { doing: "read a text token by token", reason });
        }
        let architecture = backbone.network.architecture();
        let listed = plan::plan(&backbone.network, &[None], &[], &mut Listing::default());
        Ok(Self {
            places: Vec::new(),
            stamp: 0,
            threads: kernel::threads(),
            shape: Shape::of(architecture),
            turns: Turns::default(),
            direct: listed.is_ok(),
            parameters: architecture.parameters(),
            tile: (!backbone.network.device().is_cpu()).then_some(TILE),
            changes: Vec::new(),
            shore: Shore::default(),
            is_late: false,
            backbone,
        })
    }

    /// The same with this many threads; as many as the machine has cores where not said.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// The same for about so many sequences at once, where rows go through a GPU: fewer rows are filled up to
    /// the next power of two, more take several passes.
    #[must_use]
    pub fn with_width(mut self, sequences: usize) -> Self {
        self.tile = self.tile.map(|_| tile(sequences));
        self
    }

    /// The same with drawn tokens that are said to be on their way, as they are from a GPU.
    #[cfg(test)]
    pub(crate) fn late(mut self) -> Self {
        self.is_late = true;
        self
    }

    /// The backbone that all of them share.
    #[must_use]
    pub fn backbone(&self) -> &Arc<Backbone> {
        &self.backbone
    }

    /// Begins a sequence under an adapter, for as long as it lives; what it reads can never be seen under
    /// another adapter or generation.
    pub fn open(&mut self, adapter: Option<Arc<Adapter>>) -> Slot {
        let direct = self.is_direct(adapter.as_deref());
        let begun = direct.then(|| self.begin(adapter.as_deref()));
        // What cannot be read directly is the business of the network, which says what is wrong.
        let read = match begun {
            Some(Ok(kept)) => Read::Kept(kept),
            _ => Read::Apart(Pages::default()),
        };
        self.place(Sequence { adapter, read })
    }

    /// Whether an adapter's weights can be read where they lie, and the backbone's too.
    fn is_direct(&self, adapter: Option<&Adapter>) -> bool {
        let listed = |adapter| {
            let (network, listing) = (&self.backbone.network, &mut Listing::default());
            plan::plan(network, &[Some(adapter)], &[adapter], listing).is_ok()
        };
        self.direct && adapter.is_none_or(listed)
    }

    /// Begins a sequence that has read what `slot` has read. Both go on by themselves.
    ///
    /// # Errors
    /// When `slot` was closed.
    pub fn fork(&mut self, slot: Slot) -> Result<Slot> {
        let from = self.sequence(slot)?;
        let sequence = Sequence { adapter: from.adapter.clone(), read: from.read.clone() };
        Ok(self.place(sequence))
    }

    /// Ends a sequence and frees its memory; nothing happens where it has ended already.
    pub fn close(&mut self, slot: Slot) {
        if let Some(place) = self.places.get_mut(slot.index).filter(|place| place.0 == slot.stamp) {
            place.1 = None;
        }
    }

    /// How many tokens a sequence has read, its adapter's virtual tokens included.
    ///
    /// # Errors
    /// When it was closed.
    pub fn length(&self, slot: Slot) -> Result<usize> {
        Ok(self.sequence(slot)?.read.length())
    }

    /// How many tokens a sequence can still read.
    ///
    /// # Errors
    /// When it was closed.
    pub fn room(&self, slot: Slot) -> Result<usize> {
        let sequence = self.sequence(slot)?;
        let ahead = match (&sequence.adapter, sequence.read.length()) {
            (Some(adapter), 0) => adapter.virtual_tokens(),
            (_, read) => read,
        };
        Ok(self.backbone.network.architecture().positions.saturating_sub(ahead))
    }

    /// Bytes of keys and values that one token takes, the rest of its block not counted.
    #[must_use]
    pub fn bytes_per_token(&self) -> usize {
        let architecture = self.backbone.network.architecture();
        let dtype = self.backbone.network.dtype();
        let number = if self.direct { size_of::<f32>() } else { dtype.size_in_bytes() };
        2 * architecture.depth() * architecture.key_width() * number
    }

    /// Bytes of keys and values that a text of so many tokens takes.
    #[must_use]
    pub fn bytes(&self, tokens: usize) -> usize {
        whole(tokens) * self.bytes_per_token()
    }

    /// Bytes of the blocks that there are, each once whoever shares it.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        let sequences = self.places.iter().filter_map(|place| place.1.as_ref());
        let blocks = sequences.flat_map(|sequence| match &sequence.read {
            Read::Kept(kept) => kept.blocks.as_slice(),
            Read::Apart(_) => &[],
        });
        let blocks: std::collections::BTreeSet<_> = blocks.map(Arc::as_ptr).collect();
        blocks.len() * self.bytes(1)
    }

    fn check(&self, parts: &[Part<'_>]) -> Result<()> {
        let vocabulary = self.backbone.network.architecture().vocabulary;
        let mut seen = std::collections::BTreeSet::new();
        for part in parts {
            let room = self.room(part.slot)?;
            if part.count() > room {
                let limit = self.backbone.network.architecture().positions;
                let found = limit - room + part.count();
                return Err(ModelError::TooLong { found, limit });
            }
            let fault = if !seen.insert(part.slot) {
                Some("a sequence occurs twice in one step".to_owned())
            } else {
                part.fault(vocabulary)
            };
            if let Some(reason) = fault {
                return Err(ModelError::Incompatible { doing: "read a text", reason });
            }
        }
        Ok(())
    }

    fn sequence(&self, slot: Slot) -> Result<&Sequence> {
        let place = self.places.get(slot.index).filter(|place| place.0 == slot.stamp);
        place.and_then(|place| place.1.as_ref()).ok_or_else(|| ModelError::Incompatible {
            doing: "go on with a text",
            reason: "its sequence was closed".to_owned(),
        })
    }

    fn place(&mut self, sequence: Sequence) -> Slot {
        self.stamp += 1;
        let free = self.places.iter().position(|place| place.1.is_none());
        let index = free.unwrap_or(self.places.len());
        let place = (self.stamp, Some(sequence));
        match free {
            Some(index) => self.places[index] = place,
            None => self.places.push(place),
        }
        Slot { index, stamp: self.stamp }
    }
}

#[cfg(test)]
mod tests;
