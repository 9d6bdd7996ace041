//! The learning side of the stage: first lessons, triggers that become jobs, jobs that become generations.

use std::sync::Arc;

use agents::learning::job::JobSpec;
use agents::name::AgentName;

use super::{Order, Stage};
use crate::conductor::learner::{Member, Running, warm_up};
use crate::conductor::oversight::Awaited;
use crate::event::{EventKind, Phase};
use crate::protocol;
use crate::scenario::{FaultKind, ModelPlan, TriggerPlan};
use crate::task::Support;
use crate::training::examples::LessonContext;
use crate::training::trainer::{JobReport, NewJob};

/// Steps of each job per tick while nothing else happens.
const TRANSFER_STEPS: usize = 10;

impl Stage {
    /// Begins the run: every agent gets its first own weights.
    pub fn begin(&mut self) -> Vec<Order> {
        let agents = self.cards();
        let started = EventKind::RunStarted {
            scenario: self.scenario.name.clone(),
            seed: self.scenario.seed,
            episodes: self.scenario.episodes,
            protocol: protocol::name(&self.scenario.protocol).to_owned(),
            agents,
        };
        self.emit(started);
        let names: Vec<AgentName> = self.members.keys().cloned().collect();
        let mut length = 0;
        let mut specs = Vec::new();
        for name in names {
            let member = &self.members[&name];
            let (Some(plan), Some(model), Some(support)) =
                (member.plan.model(), member.model(), self.task.support())
            else {
                continue;
            };
            let seed = self.seed.child("warm-up").child(name.as_str());
            let shown = self.shown_to(support, plan);
            let demonstrations = support.demonstrations(&shown, seed);
            match warm_up(&plan.warm_up, model, &demonstrations, seed) {
                Ok(Some(spec)) => {
                    length = length.max(spec.steps as u64);
                    specs.push((name, spec));
                }
                Ok(None) => {}
                Err(error) => return vec![Order::Fail(error.to_string())],
            }
        }
        if self.task.support().is_none() {
            return self.enter(Phase::Play);
        }
        self.emit(EventKind::PhaseStarted { phase: Phase::Transfer, length });
        for (name, spec) in specs {
            self.add_job(&name, spec, "warm_up");
        }
        if self.begin.is_empty() { self.enter(Phase::Before) } else { self.train() }
    }

    /// Lets the jobs take the steps of this tick; an ordered fault may strike the trainer.
    pub(super) fn train(&mut self) -> Vec<Order> {
        let struck = self.strike(FaultKind::LostTrainer);
        let lost = struck.then_some(Order::LoseTrainer);
        lost.into_iter().chain([self.steps()]).collect()
    }

    /// The order for the steps of this tick.
    pub(super) fn steps(&mut self) -> Order {
        self.oversight.awaited = Awaited::Steps;
        let steps = match self.phase {
            Phase::Transfer => TRANSFER_STEPS,
            _ => self.scenario.training_steps_per_tick,
        };
        Order::Train { begin: std::mem::take(&mut self.begin), steps }
    }

    /// The demonstrations an agent sees: the first so many of each intent.
    fn shown_to(&self, support: &Support, plan: &ModelPlan) -> Vec<usize> {
        let per_intent = plan.warm_up.examples_per_intent;
        support.split(self.demonstrations.clone(), per_intent).0
    }

    pub(super) fn fire(&mut self, index: usize, value: f64) {
        let scenario = Arc::clone(&self.scenario);
        let plan = &scenario.triggers[index];
        let busy = self.jobs.values().any(|job| job.agent == plan.agent)
            || self.oversight.quarantined.contains(&plan.agent);
        let lesson = if busy { None } else { self.lesson(plan) };
        self.emit(EventKind::TriggerFired {
            trigger: index,
            rule: self.triggers[index].name().to_owned(),
            agent: plan.agent.clone(),
            value,
            job: lesson.as_ref().map(|_| self.next_job),
        });
        if let Some(spec) = lesson {
            let objective = spec.lesson.name();
            self.add_job(&plan.agent, spec, objective);
        }
    }

    /// What there is to learn for a trigger.
    fn lesson(&self, trigger: &TriggerPlan) -> Option<JobSpec> {
        let (member, support) = (self.members.get(&trigger.agent)?, self.task.support()?);
        let (plan, model) = (member.plan.model()?, member.model()?);
        let rehearsed = self.shown_to(support, plan);
        let context = LessonContext {
            task: support,
            tokenizer: &model.backbone.tokenizer,
            max_tokens: self.scenario.channel.max_tokens,
            temperature: plan.temperature,
            seed: self.seed.child("job").index(self.next_job),
            rehearsed: &rehearsed,
        };
        // A text that cannot be tokenized would have failed the episode that brought it.
        self.experiences.lesson(&trigger.train, &plan.transfer, &context).ok().flatten()
    }

    fn add_job(&mut self, agent: &AgentName, spec: JobSpec, objective: &str) {
        let job = self.next_job;
        self.next_job += 1;
        let Some(model) = self.members.get(agent).and_then(Member::model) else { return };
        let (backbone, adapter) = (Arc::clone(&model.backbone), Arc::clone(&model.adapter));
        let (examples, steps) = (spec.lesson.len(), spec.steps);
        let (device, from, snapshot) = (model.device, Arc::clone(&adapter), None);
        let begun = NewJob { job, device, backbone, adapter: from, spec, snapshot };
        self.begin.push(begun.clone());
        let running = Running {
            agent: agent.clone(),
            examples,
            steps,
            first_loss: None,
            last_loss: 0.0,
            begun,
        };
        self.emit(EventKind::TrainingStarted {
            job,
            agent: agent.clone(),
            objective: objective.to_owned(),
            examples,
            steps,
            from: adapter.generation(),
        });
        self.jobs.insert(job, running);
    }

    /// Takes in what the jobs did in this tick, and publishes new weights at its boundary.
    pub fn trained(&mut self, reports: Vec<JobReport>) -> Vec<Order> {
        if self.oversight.awaited != Awaited::Steps {
            return Vec::new();
        }
        let mut orders = Vec::new();
        for report in reports {
            orders.extend(self.job_report(report));
        }
        if self.phase == Phase::Transfer && self.jobs.is_empty() {
            self.tick += 1;
            orders.extend(self.enter(Phase::Before));
        } else {
            orders.extend(self.end_tick());
        }
        orders
    }

    fn job_report(&mut self, report: JobReport) -> Option<Order> {
        let JobReport { job, advance } = report;
        let mut running = self.jobs.get(&job)?.clone();
        let agent = running.agent.clone();
        let advance = match advance {
            Ok(advance) => advance,
            Err(reason) => {
                self.jobs.remove(&job);
                self.emit(EventKind::TrainingRolledBack { job, agent, reason });
                return None;
            }
        };
        running.begun.snapshot = advance.snapshot;
        for step in &advance.steps {
            running.first_loss.get_or_insert(step.loss);
            running.last_loss = step.loss;
            self.emit(EventKind::TrainingStepped {
                job,
                agent: agent.clone(),
                step: step.step,
                loss: step.loss,
                norm: step.norm,
                reward: step.reward,
            });
        }
        self.jobs.insert(job, running.clone());
        let adapter = advance.finished?;
        self.jobs.remove(&job);
        if self.phase == Phase::Transfer {
            self.emit(EventKind::TransferFinished {
                agent: agent.clone(),
                examples: running.examples,
                steps: running.steps,
                loss_before: running.first_loss.unwrap_or_default(),
                loss_after: running.last_loss,
            });
        }
        let generation = adapter.generation();
        let digest = adapter.digest().unwrap_or_default();
        self.emit(EventKind::GenerationPublished { agent: agent.clone(), generation, job, digest });
        self.members.get_mut(&agent)?.mind.swap(Arc::clone(&adapter));
        Some(Order::Publish { agent, adapter })
    }
}
