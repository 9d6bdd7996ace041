//! Where adapters enter the forward pass: own weights, updates of linear maps, virtual tokens.
//!
//! Rows are handled in runs of one adapter; a batch of one adapter takes no extra copy.

use candle_core::Tensor;

use crate::adapter::Adapter;
use crate::adapter::update::Update;
use crate::backbone::block::Block;
use crate::backbone::names::Module;
use crate::backbone::rows::{Rows, Tokens, by_group};
use crate::error::Result;
use crate::seed::Seed;

/// A block as each row's adapter has it.
pub(super) struct Adapted<'a> {
    pub(super) layer: usize,
    pub(super) shared: &'a Block,
    /// Runs of rows with the same own block.
    pub(super) groups: Vec<(Option<&'a Block>, usize)>,
    pub(super) rows: &'a [Rows<'a>],
    pub(super) dropout: Option<Seed>,
}

impl<'a> Adapted<'a> {
    /// A linear map of the block, under each row's adapter.
    pub(super) fn project(&self, x: &Tensor, module: Module) -> Result<Tensor> {
        let update = |row: &Rows<'a>| -> Option<&'a Update> {
            row.adapter.and_then(|adapter| adapter.update(self.layer, module))
        };
        if self.rows.iter().all(|row| update(row).is_none()) {
            return by_group(x, &self.groups, |x, own| {
                own.unwrap_or(self.shared).map(module)?.forward(x)
            });
        }
        let mut start = 0;
        let mut parts = Vec::with_capacity(self.rows.len());
        for row in self.rows {
            let part =
                if self.rows.len() == 1 { x.clone() } else { x.narrow(0, start, row.count)? };
            let own = row.adapter.and_then(|adapter| adapter.block(self.layer));
            let map = own.unwrap_or(self.shared).map(module)?;
            parts.push(match update(row) {
                Some(update) => update.forward(map, &part, self.mask_seed(module))?,
                None => map.forward(&part)?,
            });
            start += row.count;
        }
        match parts.as_slice() {
            [only] => Ok(only.clone()),
            parts => Ok(Tensor::cat(parts, 0)?),
        }
    }

    /// Each map of each layer has its own dropout mask.
    fn mask_seed(&self, module: Module) -> Option<Seed> {
        let seed = self.dropout.as_ref()?;
        Some(seed.child("dropout").index(self.layer as u64).index(module as u64))
    }
}

/// Puts each row's prompt into its virtual columns of the embeddings `[rows, columns, hidden]`.
pub(super) fn prompt(x: Tensor, tokens: &Tokens, rows: &[Rows<'_>]) -> Result<Tensor> {
    let own = |row: &Rows<'_>| row.adapter.and_then(Adapter::prompt).cloned();
    if tokens.lead() == 0 || rows.iter().all(|row| own(row).is_none()) {
        return Ok(x);
    }
    let mut start = 0;
    let mut parts = Vec::with_capacity(rows.len());
    for row in rows {
        let part = x.narrow(0, start, row.count)?;
        start += row.count;
        parts.push(match own(row) {
            Some(prompt) => {
                let (count, hidden) = prompt.dims2()?;
                let prompt = prompt.unsqueeze(0)?.expand((row.count, count, hidden))?;
                replace(&part, &prompt.contiguous()?, tokens.lead(), 1)?
            }
            None => part,
        });
    }
    Ok(Tensor::cat(&parts, 0)?)
}

/// Puts each row's prefix into its virtual columns of keys and values `[rows, key heads, columns, width]`.
pub(super) fn prefixed(
    keys: Tensor,
    values: Tensor,
    layer: usize,
    tokens: &Tokens,
    rows: &[Rows<'_>],
) -> Result<(Tensor, Tensor)> {
    let own = |row: &Rows<'_>| row.adapter.and_then(|adapter| adapter.prefix(layer).cloned());
    if tokens.lead() == 0 || rows.iter().all(|row| own(row).is_none()) {
        return Ok((keys, values));
    }
    let mut start = 0;
    let (mut all_keys, mut all_values) = (Vec::new(), Vec::new());
    for row in rows {
        let k = keys.narrow(0, start, row.count)?;
        let v = values.narrow(0, start, row.count)?;
        start += row.count;
        let (k, v) = match own(row) {
            Some([key, value]) => {
                let (heads, count, width) = key.dims3()?;
                let shape = (row.count, heads, count, width);
                let spread = |t: Tensor| t.unsqueeze(0)?.expand(shape)?.contiguous();
                let lead = tokens.lead();
                (replace(&k, &spread(key)?, lead, 2)?, replace(&v, &spread(value)?, lead, 2)?)
            }
            None => (k, v),
        };
        all_keys.push(k);
        all_values.push(v);
    }
    Ok((Tensor::cat(&all_keys, 0)?, Tensor::cat(&all_values, 0)?))
}

/// Replaces the last of the `lead` first columns (axis `axis`) by `own`.
fn replace(x: &Tensor, own: &Tensor, lead: usize, axis: usize) -> Result<Tensor> {
    let before = lead - own.dim(axis)?;
    let rest = x.narrow(axis, lead, x.dim(axis)? - lead)?;
    let own = own.to_dtype(x.dtype())?;
    if before == 0 {
        return Ok(Tensor::cat(&[&own, &rest], axis)?);
    }
    Ok(Tensor::cat(&[&x.narrow(axis, 0, before)?, &own, &rest], axis)?)
}
