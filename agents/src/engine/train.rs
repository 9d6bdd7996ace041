//! The jobs in progress on a device.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::adapter::Adapter;
use crate::backbone::Backbone;
use crate::error::{ModelError, Result};
use crate::learning::job::{Job, JobSpec, StepReport};

/// What came of some steps of a job.
#[derive(Debug)]
pub struct Advance {
    /// The steps taken.
    pub steps: Vec<StepReport>,
    /// The new generation, after the last step.
    pub finished: Option<Arc<Adapter>>,
}

#[derive(Debug, Default)]
pub(crate) struct Jobs(BTreeMap<u64, Job>);

impl Jobs {
    pub(crate) fn start(
        &mut self,
        job: u64,
        backbone: Arc<Backbone>,
        adapter: Arc<Adapter>,
        spec: JobSpec,
    ) -> Result<()> {
        self.0.insert(job, Job::new(backbone, adapter, spec)?);
        Ok(())
    }

    /// A job that fails is dropped; the generation it started from is untouched.
    pub(crate) fn advance(&mut self, id: u64, steps: usize) -> Result<Advance> {
        let Some(mut job) = self.0.remove(&id) else {
            return Err(ModelError::Examples(format!("there is no job {id}")));
        };
        let mut reports = Vec::new();
        for _ in 0..steps {
            if job.is_done() {
                break;
            }
            reports.push(job.step()?);
        }
        if job.is_done() {
            let finished = Some(Arc::new(job.finish()?));
            return Ok(Advance { steps: reports, finished });
        }
        self.0.insert(id, job);
        Ok(Advance { steps: reports, finished: None })
    }
}
