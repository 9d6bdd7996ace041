//! What stands in for kernels in a program that was built without them: nothing that can be made.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use super::{Arrival, Ask, Shore};
use crate::adapter::Adapter;
use crate::backbone::names::Module;

/// There are none.
#[derive(Debug)]
pub(crate) enum Changes {}

impl Changes {
    pub(crate) fn new(
        _owners: &[Option<Arc<Adapter>>],
        _number: DType,
        _device: &Device,
    ) -> Result<Option<Self>> {
        Ok(None)
    }

    pub(crate) fn is_of(&self, _owners: &[Option<Arc<Adapter>>]) -> bool {
        match *self {}
    }

    pub(crate) fn apply(
        &self,
        _place: (usize, Module),
        _x: &Tensor,
        _y: Tensor,
        _bias: Option<&Tensor>,
    ) -> Result<Tensor> {
        match *self {}
    }
}

pub(crate) fn draw(_logits: &Tensor, _asks: &[Ask], _shore: &Shore) -> Result<Arrival> {
    candle_core::bail!("this program was built without the feature cuda")
}
