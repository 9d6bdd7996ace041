//! What an agent is: a shared pretrained backbone, an adapter of its own, and the ways they learn.
//!
//! The only crate that names candle or tokenizers. It knows nothing of actors, scenarios or screens:
//! `sim` sends it plain requests, and it answers with plain values.
//!
//! # Layout
//! - [`seed`]: every random stream, derived from one run seed
//! - [`device`]: where tensors live
//! - [`error`]: what can go wrong, with what was expected and what was found
//! - [`tokenizer`]: text to tokens and back
//! - [`chat_template`]: how a conversation is written for a model that brings its own template
//! - [`prompt`]: how a conversation is written for a model
//! - [`backbone`]: the pretrained decoder: configuration, weights, forward pass, backward pass
//! - [`hub`]: models from the Hugging Face hub, fetched into the standard cache
//! - [`adapter`]: what makes a model an agent's own: LoRA, unfrozen layers, heads; generations
//! - [`transfer`]: how an agent starts from the backbone: feature-based, parameter-based, frozen layers
//! - [`learning`]: jobs, objectives, optimiser, gradient audit, rollback
//! - [`sampler`]: from logits to tokens
//! - [`kernel`]: arithmetic of reading and writing on a CPU, in one order whatever is beside it
//! - [`gpu`]: the same on a GPU: attention over pages, adapters of many agents, drawing
//! - [`session`]: sequences in progress, each with its own keys and values, stepped together
//! - [`writing`]: texts, one token after another, each under its own weights
//! - [`classifying`]: probabilities of an agent's labels
//! - [`engine`]: the one thread that owns a device and batches all its work
//! - [`bench`]: what a machine does with a model, beside what would be possible
//! - [`probe`]: loss and gradients on given tokens, for audits and comparisons
//! - [`pretrain`]: how `polylogue-tiny` came to be
//! - [`name`]: names of agents
pub mod adapter;
pub mod backbone;
pub mod bench;
pub mod chat_template;
pub mod classifying;
pub mod device;
pub mod engine;
pub mod error;
mod gpu;
pub mod hub;
mod jinja;
mod kernel;
pub mod learning;
pub mod name;
pub mod pretrain;
pub mod probe;
pub mod prompt;
pub mod sampler;
pub mod seed;
pub mod session;
pub mod tokenizer;
pub mod transfer;
pub mod writing;
