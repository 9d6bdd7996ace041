//! Rotary tables for as many positions as were needed so far.

use candle_core::Device;

use crate::backbone::Architecture;
use crate::error::Result;

/// Cosines and sines of every rotary embedding of a network.
#[derive(Debug, Default)]
pub(super) struct Turns {
    positions: usize,
    half: usize,
    tables: Vec<[Vec<f32>; 2]>,
}

impl Turns {
    /// Extends the tables to `positions`.
    pub(super) fn reach(&mut self, positions: usize, architecture: &Architecture) -> Result<()> {
        if positions <= self.positions {
            return Ok(());
        }
        let wanted = positions.next_power_of_two().min(architecture.positions.max(positions));
        let new: Vec<u32> = (self.positions..wanted).map(|at| at as u32).collect();
        self.half = architecture.head_width / 2;
        self.tables.resize_with(architecture.ropes.len(), Default::default);
        for (tables, rope) in self.tables.iter_mut().zip(&architecture.ropes) {
            let more = rope.tables(architecture.head_width, &new, &Device::Cpu)?;
            for (table, more) in tables.iter_mut().zip(more) {
                table.extend(more.flatten_all()?.to_vec1::<f32>()?);
            }
        }
        self.positions = wanted;
        Ok(())
    }

    /// Cosines and sines of rotary embedding `rope` at a position, half a head wide.
    pub(super) fn at(&self, rope: usize, position: usize) -> [&[f32]; 2] {
        let span = position * self.half..(position + 1) * self.half;
        let [cos, sin] = &self.tables[rope];
        [&cos[span.clone()], &sin[span]]
    }
}
