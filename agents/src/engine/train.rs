//! The jobs in progress on a device.
//!
//! Jobs that are advanced by one command take each of their steps together. Between two steps the engine
//! may do something else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::queue::Answer;
use crate::adapter::Adapter;
use crate::backbone::Backbone;
use crate::error::{ModelError, Result};
use crate::learning::job::{Job, JobSnapshot, JobSpec, Lesson, StepReport};
use crate::learning::together;

/// What came of some steps of a job.
#[derive(Debug)]
pub struct Advance {
    /// The steps taken.
    pub steps: Vec<StepReport>,
    /// The job as it stands, where it has steps to take: what a later engine goes on from.
    pub snapshot: Option<Arc<JobSnapshot>>,
    /// The new generation, after the last step.
    pub finished: Option<Arc<Adapter>>,
}

/// Jobs that take their steps together, by one command.
#[derive(Debug)]
struct Advancing {
    jobs: Vec<Member>,
    /// Steps still to take.
    steps: usize,
}

#[derive(Debug)]
struct Member {
    id: u64,
    reports: Vec<StepReport>,
    answer: Answer<Advance>,
}

#[derive(Debug, Default)]
pub(crate) struct Jobs {
    resting: BTreeMap<u64, Job>,
    advancing: VecDeque<Advancing>,
}

impl Jobs {
    /// Prepares a job, from a snapshot where there is one; it takes the place of one with its number.
    pub(crate) fn start(
        &mut self,
        job: u64,
        backbone: Arc<Backbone>,
        adapter: Arc<Adapter>,
        spec: JobSpec,
        snapshot: Option<&JobSnapshot>,
    ) -> Result<()> {
        let prepared = match snapshot {
            None => Job::new(backbone, adapter, spec)?,
            Some(snapshot) => {
                let judge = match spec.lesson {
                    Lesson::Grpo(grpo) => Some(grpo.reward),
                    Lesson::Supervised(_) => None,
                };
                Job::resume(backbone, adapter, snapshot.clone(), judge)?
            }
        };
        self.resting.insert(job, prepared);
        Ok(())
    }

    /// Puts up to `steps` steps of each job on the list; each answer comes with its job's last one.
    pub(crate) fn advance(&mut self, jobs: Vec<(u64, Answer<Advance>)>, steps: usize) {
        let member = |(id, answer)| Member { id, reports: Vec::new(), answer };
        let jobs = jobs.into_iter().map(member).collect();
        self.advancing.push_back(Advancing { jobs, steps });
    }

    /// Whether some step is still to be taken.
    pub(crate) fn has_work(&self) -> bool {
        !self.advancing.is_empty()
    }

    /// Takes one step of each job of the oldest command and answers those that are through; gives the
    /// number of jobs that took one.
    ///
    /// A job that fails is dropped; the generation it started from is untouched.
    pub(crate) fn step(&mut self) -> usize {
        let Some(Advancing { jobs: members, steps }) = self.advancing.pop_front() else { return 0 };
        let (mut jobs, mut running) = (Vec::new(), Vec::new());
        for member in members {
            match self.resting.remove(&member.id) {
                Some(job) if steps > 0 && !job.is_done() => {
                    jobs.push(job);
                    running.push(member);
                }
                Some(job) => self.rest(job, member),
                None => {
                    let reason = format!("there is no job {}", member.id);
                    member.answer.send(Err(ModelError::Examples(reason)));
                }
            }
        }
        let count = jobs.len();
        let reports = together::step(&mut jobs);
        let mut left = Vec::with_capacity(count);
        for ((job, mut member), report) in jobs.into_iter().zip(running).zip(reports) {
            match report {
                Err(error) => member.answer.send(Err(error)),
                Ok(report) => {
                    member.reports.push(report);
                    if steps > 1 && !job.is_done() {
                        self.resting.insert(member.id, job);
                        left.push(member);
                    } else {
                        self.rest(job, member);
                    }
                }
            }
        }
        if !left.is_empty() {
            self.advancing.push_front(Advancing { jobs: left, steps: steps - 1 });
        }
        count
    }

    /// Answers for a job that takes no further step now, and ends it where it has taken its last.
    fn rest(&mut self, job: Job, member: Member) {
        let Member { id, reports: steps, answer } = member;
        if !job.is_done() {
            let snapshot = job.snapshot().map(|snapshot| Some(Arc::new(snapshot)));
            self.resting.insert(id, job);
            answer.send(snapshot.map(|snapshot| Advance { steps, snapshot, finished: None }));
            return;
        }
        let finished = job.finish().map(|next| Some(Arc::new(next)));
        answer.send(finished.map(|finished| Advance { steps, snapshot: None, finished }));
    }
}
