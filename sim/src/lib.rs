//! Letting agents meet: scenarios, societies, protocols, channels, triggers, recordings.
//!
//! Names neither candle nor ratatui. Data goes one way: scenario, society, events, watchers.
//!
//! # Layout
//! - [`run`]: all wiring of a run, nothing else
//! - `traffic`: how much is said, predicted
//! - [`preflight`]: what a run will need, predicted
//! - [`backbone`]: pretrained networks, fetched, loaded and recorded
//! - [`scenario`]: what the user typed, checked, as plain types
//! - [`task`]: what episodes are about, and how they are scored
//! - [`topology`]: who hears whom
//! - [`protocol`]: who speaks when
//! - [`channel`]: the one place where a message crosses
//! - [`mailbox`]: what waits for an agent to read it
//! - [`flood`]: silences who says too much
//! - [`supervisor`]: the parent of all actors
//! - [`restart`]: who is started anew after a failure, how soon, how often
//! - [`conductor`]: closes ticks, decides, writes events
//! - [`placement`]: on which device each agent lives
//! - [`engines`]: one for each device
//! - [`agent`]: hears, asks the engine, speaks
//! - [`script`]: agents without a model
//! - [`training`]: triggers, lessons, the trainer
//! - [`event`]: everything anyone can observe
//! - [`recorder`]: the run directory and its log
//! - [`recording`]: a run directory read back
//! - [`divergence`]: where two logs part
//! - [`verify`]: a recorded run played again and compared
//! - [`diff`]: two recordings side by side
//! - [`checkpoint`]: a run between two ticks, on disk
//! - [`durable`]: files that survive a crash
//! - [`work`]: what the engines did, tick by tick
//! - [`feed`]: events on their way to screens
//! - [`summary`]: what a run came to
//! - [`report`]: several runs side by side
//! - [`metric`]: numbers from events
//! - [`control`]: pause and stop
//! - [`clock`]: wall time, shown and never decided by
//! - [`corpus`]: the texts of pretraining
//! - [`pretraining`]: how `polylogue-tiny` is made
//! - [`tuning`]: a pretrained model tuned as a classifier, without a society
//! - [`bench`]: what the machine does with a model
//! - [`adapters`]: finished adapters shown, combined, merged
pub mod adapters;
pub mod agent;
pub mod backbone;
pub mod bench;
pub mod channel;
pub mod checkpoint;
pub mod clock;
pub mod conductor;
pub mod control;
pub mod corpus;
pub mod diff;
pub mod divergence;
pub mod durable;
pub mod engines;
pub mod event;
pub mod feed;
pub mod flood;
pub mod mailbox;
pub mod metric;
pub mod placement;
pub mod preflight;
pub mod pretraining;
pub mod protocol;
pub mod recorder;
pub mod recording;
pub mod report;
pub mod restart;
pub mod run;
pub mod scenario;
pub mod script;
pub mod summary;
pub mod supervisor;
pub mod task;
pub mod topology;
mod traffic;
pub mod training;
pub mod tuning;
pub mod verify;
pub mod work;
