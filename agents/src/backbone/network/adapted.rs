//! Where adapters enter the forward pass: own weights, updates of linear maps, virtual tokens.
//!
//! A linear map is applied once to all rows that share it, whoever they belong to; what each adapter adds
//! is computed for its own rows only. A batch of one adapter takes no extra copy.

use candle_core::Tensor;

use crate::adapter::Adapter;
use crate::adapter::update::Update;
use crate::backbone::block::Block;
use crate::backbone::names::Module;
use crate::backbone::rows::{Rows, Tokens, by_group};
use crate::backbone::{Run, low_rank_runs};
use crate::error::Result;
use crate::gpu::Changes;
use crate::seed::Seed;

/// A block as each row's adapter has it.
pub(super) struct Adapted<'a> {
    pub(super) layer: usize,
    pub(super) shared: &'a Block,
    /// Runs of rows with the same own block.
    pub(super) groups: Vec<(Option<&'a Block>, usize)>,
    pub(super) rows: &'a [Rows<'a>],
    pub(super) dropout: Option<Seed>,
    /// What a kernel of its own changes, each row by itself.
    pub(super) changes: Option<&'a Changes>,
}

impl<'a> Adapted<'a> {
    /// A linear map of the block, under each row's adapter.
    pub(super) fn project(&self, x: &Tensor, module: Module) -> Result<Tensor> {
        let update = |row: &Rows<'a>| -> Option<&'a Update> {
            row.adapter.and_then(|adapter| adapter.update(self.layer, module))
        };
        if let Some(changes) = self.changes {
            return self.changed(x, module, changes);
        }
        if self.rows.iter().all(|row| update(row).is_none()) {
            return by_group(x, &self.groups, |x, own| {
                own.unwrap_or(self.shared).map(module)?.forward(x)
            });
        }
        if let [row] = self.rows {
            let own = row.adapter.and_then(|adapter| adapter.block(self.layer));
            let map = own.unwrap_or(self.shared).map(module)?;
            return match update(row) {
                Some(update) => update.forward(map, x, self.mask_seed(module)),
                None => map.forward(x),
            };
        }
        let updates: Vec<Option<&Update>> = self.rows.iter().map(update).collect();
        self.mixed(x, module, &updates)
    }

    /// The map once for all rows, then what adapters change, in one go.
    fn changed(&self, x: &Tensor, module: Module, changes: &Changes) -> Result<Tensor> {
        let updates = self.rows.iter().map(|row| row.adapter?.update(self.layer, module));
        let scaled = self.inputs(x, &updates.collect::<Vec<_>>())?;
        let x = scaled.as_ref().unwrap_or(x);
        let y =
            by_group(x, &self.groups, |x, own| own.unwrap_or(self.shared).map(module)?.forward(x))?;
        let shape = y.shape().clone();
        let (x, y) = (x.flatten_to(1)?, y.flatten_to(1)?);
        // Who has weights of its own has no updates: the shared bias is that of all who have.
        let bias = self.shared.map(module)?.bias.as_ref();
        Ok(changes.apply((self.layer, module), &x, y, bias)?.reshape(shape)?)
    }

    /// The map once for all rows, then each adapter's update for its own.
    fn mixed(&self, x: &Tensor, module: Module, updates: &[Option<&Update>]) -> Result<Tensor> {
        let scaled = self.inputs(x, updates)?;
        let x = scaled.as_ref().unwrap_or(x);
        let seed = self.mask_seed(module);
        let [(own, _)] = self.groups.as_slice() else {
            let y = by_group(x, &self.groups, |x, own| {
                own.unwrap_or(self.shared).map(module)?.forward(x)
            })?;
            return self.outputs(x, y, module, updates);
        };
        let map = own.unwrap_or(self.shared).map(module)?;
        let width = x.dim(1)?;
        let (mut masks, mut start) = (Vec::with_capacity(updates.len()), 0);
        for (row, update) in self.rows.iter().zip(updates) {
            masks.push(match update {
                Some(Update::Lora(lora)) => lora.mask(&x.narrow(0, start, row.count)?, seed)?,
                _ => None,
            });
            start += row.count;
        }
        let mut runs = Vec::with_capacity(updates.len());
        for ((row, update), mask) in self.rows.iter().zip(updates).zip(&masks) {
            let update = match update {
                Some(Update::Lora(lora)) => Some(lora.low_rank(mask.as_ref())),
                _ => None,
            };
            runs.push(Run { count: row.count * width, update });
        }
        let y = low_rank_runs(x, &map.weight, map.bias.as_ref(), &runs)?;
        let done = |update: &Option<&Update>| {
            matches!(update, None | Some(Update::Lora(_) | Update::Input(_)))
        };
        if updates.iter().all(done) {
            return Ok(y);
        }
        let rest: Vec<Option<&Update>> =
            updates.iter().map(|update| if done(update) { None } else { *update }).collect();
        self.outputs(x, y, module, &rest)
    }

    /// What the map reads, where some adapter scales it.
    fn inputs(&self, x: &Tensor, updates: &[Option<&Update>]) -> Result<Option<Tensor>> {
        if !updates.iter().any(|update| matches!(update, Some(Update::Input(_)))) {
            return Ok(None);
        }
        let (mut parts, mut start) = (Vec::with_capacity(updates.len()), 0);
        for (row, update) in self.rows.iter().zip(updates) {
            let own = x.narrow(0, start, row.count)?;
            start += row.count;
            let scaled = update.map(|update| update.input(&own)).transpose()?.flatten();
            parts.push(scaled.unwrap_or(own));
        }
        Ok(Some(Tensor::cat(&parts, 0)?))
    }

    /// What each adapter makes of the map's output `y`.
    fn outputs(
        &self,
        x: &Tensor,
        y: Tensor,
        module: Module,
        updates: &[Option<&Update>],
    ) -> Result<Tensor> {
        if updates.iter().all(Option::is_none) {
            return Ok(y);
        }
        let seed = self.mask_seed(module);
        let (mut parts, mut start) = (Vec::with_capacity(updates.len()), 0);
        for (row, update) in self.rows.iter().zip(updates) {
            let own = y.narrow(0, start, row.count)?;
            parts.push(match update {
                Some(update) => {
                    let block = row.adapter.and_then(|adapter| adapter.block(self.layer));
                    let map = block.unwrap_or(self.shared).map(module)?;
                    update.output(map, &x.narrow(0, start, row.count)?, own, seed)?
                }
                None => own,
            });
            start += row.count;
        }
        Ok(Tensor::cat(&parts, 0)?)
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
