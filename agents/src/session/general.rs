//! One sequence through the network that trains: whatever the device, the type and the adapter.

use candle_core::{DType, Tensor};

use crate::adapter::Adapter;
use crate::backbone::{KvCache, Network, Pass, Rows, Tokens};
use crate::error::Result;

/// What a sequence has read.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader {
    cache: KvCache,
}

impl Reader {
    /// Tokens read, virtual ones included.
    pub(super) fn length(&self) -> usize {
        self.cache.tokens()
    }

    /// Reads on and gives the hidden state after the last token, `[1, hidden]`.
    pub(super) fn read(
        &mut self,
        network: &Network,
        adapter: Option<&Adapter>,
        tokens: &[u32],
    ) -> Result<Tensor> {
        let rows = [Rows { adapter, count: 1 }];
        let device = network.device();
        let tokens = if self.length() == 0 {
            Tokens::pack(&[tokens.to_vec()], &rows, device)?
        } else {
            Tokens::further(tokens, adapter.map_or(0, Adapter::virtual_tokens), device)?
        };
        // A step that fails leaves nothing of itself.
        let mut cache = self.cache.clone();
        let hidden = network.hidden(&tokens, Pass::cached(&rows, &mut cache))?;
        self.cache = cache;
        Ok(hidden.narrow(1, tokens.width() - 1, 1)?.squeeze(1)?)
    }
}

/// The logits `[vocabulary]` of a hidden state `[1, hidden]`.
pub(super) fn logits(
    network: &Network,
    adapter: Option<&Adapter>,
    hidden: &Tensor,
) -> Result<Vec<f32>> {
    let rows = [Rows { adapter, count: 1 }];
    let logits = network.logits(hidden, &rows)?.to_dtype(DType::F32)?;
    Ok(logits.flatten_all()?.to_vec1()?)
}
