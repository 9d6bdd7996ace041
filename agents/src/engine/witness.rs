//! Who hears what an engine is asked, so that the same can be asked of another engine.
//!
//! For measuring: what a society costs is told by its requests without a society. It changes nothing and sees no
//! answers.

use std::fmt;
use std::sync::Arc;

use super::queue::Request;
use crate::adapter::Adapter;
use crate::backbone::Backbone;
use crate::learning::job::JobSpec;

/// Hears what a handle sends, before it is sent, on the sender's thread.
pub trait Witness: fmt::Debug + Send + Sync {
    /// A class or a text is asked for.
    fn asked(&self, request: &Request);

    /// A job begins, not from a snapshot.
    fn began(&self, job: u64, backbone: &Arc<Backbone>, adapter: &Arc<Adapter>, spec: &JobSpec);

    /// Jobs take up to `steps` steps together.
    fn advanced(&self, jobs: &[u64], steps: usize);
}
