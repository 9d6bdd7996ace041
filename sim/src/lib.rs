//! Letting agents meet: scenarios, societies, protocols, channels, triggers, recordings.
//!
//! Names neither candle nor ratatui. Data goes one way: scenario, society, events, watchers.
//!
//! # Layout
//! - [`scenario`]: what the user typed, checked, as plain types
//! - [`event`]: everything anyone can observe
//! - [`clock`]: wall time, shown and never decided by
//! - [`corpus`]: the texts of pretraining
//! - [`pretraining`]: how `polylogue-tiny` is made
pub mod clock;
pub mod corpus;
pub mod event;
pub mod pretraining;
pub mod scenario;
