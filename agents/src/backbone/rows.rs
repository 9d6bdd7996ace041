//! The rows of a batch: whose they are, their tokens, and which columns hold what.
//!
//! Columns of a batch are `[virtual tokens | padding | tokens]`. Virtual tokens belong to adapters that
//! prompt or prefix (an adapter with fewer of them uses the last columns of that part); padding is on the
//! left, so that every row ends at the last column. Nothing here runs a network.

use std::ops::Range;

use candle_core::{Device, Tensor};

use crate::adapter::Adapter;
use crate::error::{ModelError, Result};

/// Consecutive rows of a batch that belong to one adapter (or to the bare backbone).
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Whose rows they are.
    pub adapter: Option<&'a Adapter>,
    /// How many there are.
    pub count: usize,
}

impl<'a> Rows<'a> {
    /// Neighbours of one adapter as one group.
    pub(crate) fn group(adapters: impl Iterator<Item = Option<&'a Adapter>>) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for adapter in adapters {
            match groups.last_mut() {
                Some(last)
                    if last.adapter.map(std::ptr::from_ref) == adapter.map(std::ptr::from_ref) =>
                {
                    last.count += 1;
                }
                _ => groups.push(Self { adapter, count: 1 }),
            }
        }
        groups
    }
}

/// Where things are in one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Virtual tokens of the row's adapter.
    pub virtual_tokens: usize,
    /// Columns of padding before the first token.
    pub padding: usize,
}

/// Tokens of a batch.
#[derive(Clone, Debug)]
pub struct Tokens {
    ids: Tensor,
    /// Columns for virtual tokens.
    lead: usize,
    spans: Vec<Span>,
    /// Where each row stands in a sequence of its own, for rows of one token each.
    apart: Option<Vec<u32>>,
}

impl Tokens {
    /// Rows of one token each, `[rows]`, every one at its own position of some sequence; what came before them
    /// is nobody's business here.
    ///
    /// # Errors
    /// When there is not a position for each token.
    pub(crate) fn apart(ids: &Tensor, positions: Vec<u32>) -> Result<Self> {
        let count = ids.elem_count();
        if count != positions.len() {
            let reason = format!("{count} tokens have {} positions", positions.len());
            return Err(ModelError::Examples(reason));
        }
        let spans = vec![Span::default(); count];
        let ids = ids.reshape((count, 1))?;
        Ok(Self { ids, lead: 0, spans, apart: Some(positions) })
    }

    /// The positions of rows of one token each.
    pub(crate) fn own_positions(&self) -> Option<&[u32]> {
        self.apart.as_deref()
    }

    /// Packs rows of tokens, with columns for the virtual tokens of their adapters.
    ///
    /// # Errors
    /// When a row is empty, or the rows do not add up.
    pub fn pack(rows: &[Vec<u32>], owners: &[Rows<'_>], device: &Device) -> Result<Self> {
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        if rows.iter().any(Vec::is_empty) {
            return Err(ModelError::Examples("a row without tokens".to_owned()));
        }
        let tokens = |owner: &Rows<'_>| owner.adapter.map_or(0, Adapter::virtual_tokens);
        let own: Vec<usize> = owners
            .iter()
            .flat_map(|owner| std::iter::repeat_n(tokens(owner), owner.count))
            .collect();
        if own.len() != rows.len() {
            return Err(ModelError::Examples(format!(
                "{} rows have {} owners",
                rows.len(),
                own.len()
            )));
        }
        let lead = own.iter().copied().max().unwrap_or(0);
        let mut ids = Vec::with_capacity(rows.len() * (lead + longest));
        let mut spans = Vec::with_capacity(rows.len());
        for (row, virtual_tokens) in rows.iter().zip(own) {
            let padding = longest - row.len();
            ids.extend(std::iter::repeat_n(0, lead + padding));
            ids.extend_from_slice(row);
            spans.push(Span { virtual_tokens, padding });
        }
        Ok(Self {
            ids: Tensor::from_vec(ids, (rows.len(), lead + longest), device)?,
            lead,
            spans,
            apart: None,
        })
    }

    /// Token numbers, `[rows, columns]`; 0 in columns without a token.
    #[must_use]
    pub fn ids(&self) -> &Tensor {
        &self.ids
    }

    /// Columns for virtual tokens.
    #[must_use]
    pub fn lead(&self) -> usize {
        self.lead
    }

    /// Where things are in each row.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The same columns of some of the rows.
    ///
    /// # Errors
    /// When there are not so many rows.
    pub(crate) fn part(&self, rows: Range<usize>) -> Result<Self> {
        let ids = self.ids.narrow(0, rows.start, rows.len())?;
        let apart = self.apart.as_ref().map(|all| all[rows.clone()].to_vec());
        Ok(Self { ids, lead: self.lead, spans: self.spans[rows].to_vec(), apart })
    }

    /// Number of columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.ids.dims().get(1).copied().unwrap_or(0)
    }

    /// The columns that hold the tokens of a row.
    #[must_use]
    pub fn text(&self, row: usize) -> Range<usize> {
        let padding = self.spans.get(row).map_or(0, |span| span.padding);
        self.lead + padding..self.width()
    }

    /// Position of a column in its row: virtual tokens count, padding does not.
    pub(crate) fn position(&self, span: Span, column: usize) -> usize {
        if column < self.lead {
            (column + span.virtual_tokens).saturating_sub(self.lead)
        } else {
            span.virtual_tokens + (column - self.lead).saturating_sub(span.padding)
        }
    }

    /// Positions of all columns of rows that lie as `spans` say, after `seen` columns before them.
    pub(crate) fn positions(&self, spans: &[Span], seen: usize) -> impl Iterator<Item = usize> {
        let columns = seen..seen + self.width();
        spans.iter().flat_map(move |&span| columns.clone().map(move |c| self.position(span, c)))
    }

    /// Whether a column holds something that others may look at.
    pub(crate) fn is_visible(&self, span: Span, column: usize) -> bool {
        if column < self.lead {
            column + span.virtual_tokens >= self.lead
        } else {
            column >= self.lead + span.padding
        }
    }

    /// Whether all rows lie alike, without any hidden column.
    pub(crate) fn is_even(&self) -> bool {
        self.spans.iter().all(|s| s.padding == 0 && s.virtual_tokens == self.lead)
    }
}

/// Neighbouring rows that share the same own weights, as one group.
pub(crate) fn merge<'a, T>(
    rows: &[Rows<'a>],
    own: impl Fn(&'a Adapter) -> Option<&'a T>,
) -> Vec<(Option<&'a T>, usize)> {
    let mut groups: Vec<(Option<&'a T>, usize)> = Vec::new();
    for row in rows {
        let weights = row.adapter.and_then(&own);
        match groups.last_mut() {
            Some((last, count))
                if last.map(std::ptr::from_ref) == weights.map(std::ptr::from_ref) =>
            {
                *count += row.count;
            }
            _ => groups.push((weights, row.count)),
        }
    }
    groups
}

/// Applies `f` to each group of rows and puts the results together again.
pub(crate) fn by_group<T>(
    x: &Tensor,
    groups: &[(Option<&T>, usize)],
    f: impl Fn(&Tensor, Option<&T>) -> Result<Tensor>,
) -> Result<Tensor> {
    if let [(own, _)] = groups {
        return f(x, *own);
    }
    let mut start = 0;
    let mut parts = Vec::with_capacity(groups.len());
    for &(own, count) in groups {
        parts.push(f(&x.narrow(0, start, count)?, own)?);
        start += count;
    }
    Ok(Tensor::cat(&parts, 0)?)
}
