//! A view into a running network: read the residual stream at every layer and token, and change it.
//!
//! What probes read and what latent channels inject goes through here; the network itself knows neither.

use candle_core::Tensor;

use crate::error::Result;

/// Called by a forward pass at the embeddings (layer 0) and after every block (layers 1 to depth).
pub trait Hooks {
    /// Sees the residual stream `[rows, columns, hidden]`; what it returns takes its place.
    ///
    /// # Errors
    /// Whatever goes wrong inside ends the pass.
    fn residual(&mut self, layer: usize, stream: &Tensor) -> Result<Option<Tensor>>;
}

/// Keeps the residual stream of chosen layers.
#[derive(Debug, Default)]
pub struct Reader {
    /// Layers to keep.
    pub layers: Vec<usize>,
    /// What was seen, `(layer, stream)`, in order.
    pub seen: Vec<(usize, Tensor)>,
}

impl Hooks for Reader {
    fn residual(&mut self, layer: usize, stream: &Tensor) -> Result<Option<Tensor>> {
        if self.layers.contains(&layer) {
            self.seen.push((layer, stream.clone()));
        }
        Ok(None)
    }
}

/// Puts a vector in place of, or on top of, the residual stream at one layer, row and column.
#[derive(Debug)]
pub struct Writer {
    /// The layer.
    pub layer: usize,
    /// The row.
    pub row: usize,
    /// The column.
    pub column: usize,
    /// What to write, `[hidden]`.
    pub vector: Tensor,
    /// Whether to add it to what is there.
    pub add: bool,
}

impl Hooks for Writer {
    fn residual(&mut self, layer: usize, stream: &Tensor) -> Result<Option<Tensor>> {
        if layer != self.layer {
            return Ok(None);
        }
        let place = stream.narrow(0, self.row, 1)?.narrow(1, self.column, 1)?;
        let vector = self.vector.reshape(place.shape())?.to_dtype(stream.dtype())?;
        let vector = if self.add { (place + vector)? } else { vector };
        let at = [self.row..self.row + 1, self.column..self.column + 1, 0..stream.dim(2)?];
        Ok(Some(stream.slice_assign(&at, &vector)?))
    }
}
