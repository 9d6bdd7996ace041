//! What episodes are about, and how they are scored. Nothing here knows who speaks.

pub mod data;
pub mod support;
pub mod talk;

pub use self::data::TaskError;
pub use self::support::{Item, Support};
pub use self::talk::Talk;
use crate::scenario::TaskPlan;

/// The task of a run.
#[derive(Clone, Debug)]
pub enum Task {
    /// Queries of customers.
    Support(Support),
    /// Free talk.
    Talk(Talk),
}

impl Task {
    /// Reads the task's files.
    ///
    /// # Errors
    /// When a file is missing, empty, malformed or lacks a column, or the holdout has an unknown intent.
    pub fn load(plan: &TaskPlan) -> Result<Self, TaskError> {
        Ok(match plan {
            TaskPlan::Support(plan) => Self::Support(Support::load(plan)?),
            TaskPlan::Talk(plan) => Self::Talk(Talk::new(plan)),
        })
    }

    /// Customer support, where it is that.
    #[must_use]
    pub fn support(&self) -> Option<&Support> {
        match self {
            Self::Support(support) => Some(support),
            Self::Talk(_) => None,
        }
    }

    /// Queries that nothing is learned from.
    #[must_use]
    pub fn holdout(&self) -> usize {
        self.support().map_or(0, |support| support.holdout.len())
    }
}
