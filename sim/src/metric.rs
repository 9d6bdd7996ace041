//! Numbers computed from what happened. Pure; no file, no clock, no model.

pub mod auc;
pub mod classes;
pub mod interval;
pub mod rolling;
