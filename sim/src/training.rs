//! Learning while the society runs: when (triggers), from what (examples), and the actor that sees jobs
//! through (trainer).

pub mod examples;
pub mod trainer;
pub mod trigger;
