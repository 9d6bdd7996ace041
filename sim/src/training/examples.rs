//! What agents learn from: the most recent episodes, turned into lessons.
//!
//! Labels are those the task revealed after the episode. A writer learns from its own replies that the
//! task accepted (supervised; Dong et al. 2023, RAFT) or from the reward itself (GRPO).

use std::collections::VecDeque;
use std::sync::Arc;

use agents::error::Result;
use agents::learning::job::{JobSpec, Lesson};
use agents::learning::objective::TextExample;
use agents::learning::objective::grpo::{Grpo, Prompt, Reward};
use agents::learning::objective::supervised::{ClassExample, Examples};
use agents::prompt;
use agents::prompt::provenance::{Quote, Words};
use agents::seed::Seed;
use agents::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::scenario::{Labels, TrainPlan, TransferPlan};
use crate::task::Support;
use crate::task::support::reward;

/// Episodes that are remembered at most.
const LONGEST: usize = 16_384;

/// What is remembered of an episode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Experience {
    /// Index of the training item.
    pub item: usize,
    /// The topic the writer was told, if any.
    pub topic: Option<Quote>,
    /// What it replied, if anything.
    pub reply: Option<Quote>,
    /// Share of required contents in it.
    pub reward: f64,
}

/// The most recent episodes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Experiences(VecDeque<Experience>);

/// What a lesson depends on besides the experiences.
#[derive(Debug)]
pub struct LessonContext<'a> {
    /// The task.
    pub task: &'a Support,
    /// The learner's vocabulary.
    pub tokenizer: &'a Tokenizer,
    /// Longest reply in tokens.
    pub max_tokens: usize,
    /// The learner's sampling temperature.
    pub temperature: f64,
    /// Where the job's randomness comes from.
    pub seed: Seed,
    /// Items whose demonstrations were seen before play: rehearsed, so that they are not forgotten.
    pub rehearsed: &'a [usize],
}

impl Experiences {
    /// Remembers an episode, and forgets the oldest where there are too many.
    pub fn push(&mut self, experience: Experience) {
        if self.0.len() == LONGEST {
            self.0.pop_front();
        }
        self.0.push_back(experience);
    }

    /// The training items of all that is remembered.
    pub fn items(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|experience| experience.item)
    }

    /// The job that `plan` asks for; none where there is nothing to learn from yet.
    ///
    /// # Errors
    /// When a text cannot be tokenized.
    pub fn lesson(
        &self,
        plan: &TrainPlan,
        transfer: &TransferPlan,
        context: &LessonContext<'_>,
    ) -> Result<Option<JobSpec>> {
        let buffer = match plan {
            TrainPlan::Supervised { buffer, .. } | TrainPlan::Grpo { buffer, .. } => *buffer,
        };
        let recent: Vec<&Experience> =
            self.0.iter().skip(self.0.len().saturating_sub(buffer)).collect();
        let lesson = match (plan, transfer.labels()) {
            (TrainPlan::Grpo { group, .. }, _) => grpo(&recent, *group, context)?,
            (_, None) => accepted(&recent, context)?,
            (_, Some(Labels::Intent)) => intents(&recent, context)?,
            (_, Some(Labels::Resolved)) => verdicts(&recent, context)?,
        };
        let (steps, batch, learning_rate, settings) = match *plan {
            TrainPlan::Supervised { steps, batch, learning_rate, settings, .. } => {
                (steps, batch, learning_rate, settings)
            }
            TrainPlan::Grpo { steps, prompts, learning_rate, settings, .. } => {
                (steps, prompts, learning_rate, settings)
            }
        };
        let seed = context.seed;
        let spec = JobSpec { lesson, steps, batch, learning_rate, settings, seed };
        Ok((!spec.lesson.is_empty()).then_some(spec))
    }
}

/// The labels the task revealed, of the recent queries and of the demonstrations.
fn intents(recent: &[&Experience], context: &LessonContext<'_>) -> Result<Lesson> {
    let items = recent.iter().map(|e| e.item).chain(context.rehearsed.iter().copied());
    let examples = items
        .map(|index| {
            let item = &context.task.train[index];
            let prompt = prompt::understand(context.tokenizer, Words::of_task(&item.query))?;
            Ok(ClassExample { tokens: prompt.into_tokens(), label: item.intent })
        })
        .collect::<Result<_>>()?;
    Ok(Lesson::Supervised(Examples::Classes(examples)))
}

/// Replies of the society with the task's verdict on them, and the demonstrations right and wrong.
fn verdicts(recent: &[&Experience], context: &LessonContext<'_>) -> Result<Lesson> {
    let mut examples = agents::transfer::verdict_examples(
        context.tokenizer,
        &context.task.demonstrations(context.rehearsed, context.seed),
    )?;
    for experience in recent {
        let item = &context.task.train[experience.item];
        let query = Words::of_task(&item.query);
        let [topic, reply] = [&experience.topic, &experience.reply].map(words);
        let tokens = prompt::evaluate(context.tokenizer, query, topic, reply)?.into_tokens();
        examples.push(ClassExample { tokens, label: usize::from(experience.reward >= 1.0) });
    }
    Ok(Lesson::Supervised(Examples::Classes(examples)))
}

/// The writer's own replies that the task accepted, and the demonstrations.
fn accepted(recent: &[&Experience], context: &LessonContext<'_>) -> Result<Lesson> {
    let mut examples = agents::transfer::reply_examples(
        context.tokenizer,
        &context.task.demonstrations(context.rehearsed, context.seed),
    )?;
    for experience in recent.iter().filter(|experience| experience.reward >= 1.0) {
        let Some(reply) = &experience.reply else { continue };
        examples.push(TextExample {
            prompt: asked(experience, context)?,
            reply: prompt::answer(context.tokenizer, &reply.text)?,
        });
    }
    Ok(Lesson::Supervised(Examples::Texts(examples)))
}

/// What the writer was asked then.
fn asked(experience: &Experience, context: &LessonContext<'_>) -> Result<Vec<u32>> {
    let query = Words::of_task(&context.task.train[experience.item].query);
    Ok(prompt::reply(context.tokenizer, query, words(&experience.topic))?.into_tokens())
}

fn words(quote: &Option<Quote>) -> Option<Words<'_>> {
    quote.as_ref().map(Words::from)
}

/// Recent prompts, as they were put, with the task's reward as the judge.
fn grpo(recent: &[&Experience], group: usize, context: &LessonContext<'_>) -> Result<Lesson> {
    let prompts = recent
        .iter()
        .map(|experience| {
            let tokens = asked(experience, context)?;
            Ok(Prompt { key: experience.item, tokens })
        })
        .collect::<Result<_>>()?;
    Ok(Lesson::Grpo(Grpo {
        prompts,
        group,
        // Groups sampled without variety carry no signal.
        temperature: context.temperature.max(0.7),
        max_tokens: context.max_tokens,
        stop: prompt::stops(context.tokenizer)?,
        reward: judge(context.task),
    }))
}

/// The task's reward as the judge of sampled replies: what a prompt is known by is its item.
#[must_use]
pub fn judge(task: &Support) -> Reward {
    let items = Arc::clone(&task.train);
    Arc::new(move |key, reply| items.get(key).map_or(0.0, |item| reward(item, reply)))
}
