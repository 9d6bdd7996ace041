//! Attention of rows that are each one token of some sequence, over keys and values in pages.
//!
//! A sequence has pages of its own, which never move. Whose rows they are, and where in their sequences, is
//! said once for all layers of a pass.

#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod plain;

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use crate::backbone::Architecture;

/// Tokens of a page.
pub(crate) const PAGE: usize = 32;

/// How keys and values lie in a page: `[layers, keys and values, key heads, PAGE, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    layers: usize,
    heads: usize,
    key_heads: usize,
    /// Of a head.
    pub(crate) width: usize,
}

impl Shape {
    pub(crate) fn of(architecture: &Architecture) -> Self {
        Self {
            layers: architecture.depth(),
            heads: architecture.heads,
            key_heads: architecture.key_heads,
            width: architecture.head_width,
        }
    }

    /// Numbers of a page.
    pub(crate) fn numbers(self) -> usize {
        self.layers * 2 * self.key_heads * PAGE * self.width
    }

    /// Where a head's keys (0) or values (1) of a layer begin.
    pub(crate) fn at(self, layer: usize, which: usize, head: usize) -> usize {
        ((layer * 2 + which) * self.key_heads + head) * PAGE * self.width
    }

    /// A page of nothing.
    pub(crate) fn page(self, dtype: DType, device: &Device) -> Result<Page> {
        Tensor::zeros(self.numbers(), dtype, device).map(Arc::new)
    }
}

/// A page, `[numbers]`; sequences that began alike share it.
pub(crate) type Page = Arc<Tensor>;

/// Which token of which sequence a row is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) sequence: usize,
    pub(crate) position: usize,
}

/// The rows of a pass and the pages of their sequences.
#[derive(Debug)]
pub(crate) struct Paged {
    shape: Shape,
    sequences: Vec<Vec<Page>>,
    /// None where a row is of nobody: it keeps nothing and its attention is 0.
    rows: Vec<Option<Place>>,
    #[cfg(feature = "cuda")]
    table: Option<cuda::Table>,
}

impl Paged {
    /// Every row must lie within the pages of its sequence, in a page that no other sequence shares.
    ///
    /// # Errors
    /// When the device has no memory for a table of them.
    pub(crate) fn new(
        shape: Shape,
        sequences: Vec<Vec<Page>>,
        rows: Vec<Option<Place>>,
        device: &Device,
    ) -> Result<Self> {
        for place in rows.iter().flatten() {
            let pages = sequences.get(place.sequence).map_or(0, Vec::len);
            if place.position >= pages * PAGE {
                candle_core::bail!("a row at {} has {pages} pages", place.position);
            }
        }
        #[cfg(feature = "cuda")]
        let table = match device {
            Device::Cuda(device) => Some(cuda::Table::new(&sequences, &rows, device)?),
            _ => None,
        };
        #[cfg(not(feature = "cuda"))]
        let _ = device;
        Ok(Self {
            shape,
            sequences,
            rows,
            #[cfg(feature = "cuda")]
            table,
        })
    }

    /// The position of each row in its sequence; 0 for those of nobody.
    pub(crate) fn positions(&self) -> Vec<u32> {
        self.rows.iter().map(|row| row.map_or(0, |place| place.position as u32)).collect()
    }

    /// Keeps the keys and values `[rows, key heads, width]` of a layer.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub(crate) fn keep(&self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<()> {
        let wanted = (self.rows.len(), self.shape.key_heads, self.shape.width);
        if keys.dims3()? != wanted || values.dims3()? != wanted || layer >= self.shape.layers {
            candle_core::bail!("keys of shape {:?} where {wanted:?} fit", keys.dims());
        }
        let (keys, values) = (keys.contiguous()?, values.contiguous()?);
        #[cfg(feature = "cuda")]
        if let Some(table) = &self.table {
            return table.keep(self.shape, layer, &keys, &values);
        }
        self.keep_plainly(layer, &keys, &values)
    }

    /// What the queries `[rows, heads, width]` of a layer find at their positions and before: the weighted
    /// values, of the same shape. `window` is how far each looks back, itself included.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub(crate) fn attend(
        &self,
        layer: usize,
        queries: &Tensor,
        window: Option<usize>,
        scale: f64,
    ) -> Result<Tensor> {
        let wanted = (self.rows.len(), self.shape.heads, self.shape.width);
        if queries.dims3()? != wanted || layer >= self.shape.layers {
            candle_core::bail!("queries of shape {:?} where {wanted:?} fit", queries.dims());
        }
        let queries = queries.contiguous()?;
        #[cfg(feature = "cuda")]
        if let Some(table) = &self.table {
            return table.attend(self.shape, layer, &queries, window, scale as f32);
        }
        self.attend_plainly(layer, &queries, window, scale)
    }
}
