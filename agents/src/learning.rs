//! How agents learn: a job takes an adapter, examples or prompts, and an objective, and makes the next
//! generation step by step.
//!
//! Nothing here knows when to learn (triggers do) or on which thread (the engine does).

pub mod accumulation;
pub mod dropout;
pub mod gradient_audit;
pub mod guard;
pub mod job;
pub mod objective;
pub mod optimizer;
pub mod recomputation;
pub mod schedule;
pub mod together;
