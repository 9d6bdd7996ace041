//! Where queries come from and how replies are scored: the customer-support task.
//!
//! An item is a query, its intent, and groups of alternatives that a resolving reply contains. Scoring is
//! a pure function of the reply's text. Nothing here knows who writes replies.

use std::sync::Arc;

use agents::seed::Seed;
use agents::transfer::Demonstration;
use rand::Rng;
use rand::seq::SliceRandom;

use super::{TaskError, data};
use crate::scenario::SupportPlan;

/// A query and what resolves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The query, untrusted.
    pub query: String,
    /// Index of its intent among the labels.
    pub intent: usize,
    /// A resolving reply contains at least one alternative of every group.
    pub must: Vec<Vec<String>>,
    /// A reply that does.
    pub reply: String,
}

/// Queries to play and queries to measure with.
#[derive(Clone, Debug)]
pub struct Support {
    /// The intents, sorted.
    pub labels: Vec<String>,
    /// Queries that are played.
    pub train: Arc<Vec<Item>>,
    /// Queries that nothing is learned from.
    pub holdout: Arc<Vec<Item>>,
}

impl Support {
    /// Reads the task's files.
    ///
    /// # Errors
    /// When a file is missing, empty, malformed or lacks a column, or the holdout has an unknown intent.
    pub fn load(plan: &SupportPlan) -> Result<Self, TaskError> {
        let train = data::read(&plan.train, &plan.columns)?;
        let holdout = data::read(&plan.holdout, &plan.columns)?;
        let mut labels: Vec<String> = train.iter().map(|row| row.intent.clone()).collect();
        labels.sort();
        labels.dedup();
        if labels.len() < 2 {
            return Err(TaskError::OneIntent { path: plan.train.clone() });
        }
        let train = data::items(train, &labels, &plan.train)?;
        let mut holdout = data::items(holdout, &labels, &plan.holdout)?;
        if holdout.len() > plan.holdout_limit {
            // The same queries for every run of this task: a seed of the data, not of the run.
            holdout.shuffle(&mut Seed::new(0).child("holdout").stream());
            holdout.truncate(plan.holdout_limit);
        }
        Ok(Self { labels, train: Arc::new(train), holdout: Arc::new(holdout) })
    }

    /// The training items in the order of this run: first the demonstrations, `per_intent` of each intent
    /// where there are that many, then the others.
    #[must_use]
    pub fn order(&self, per_intent: usize, seed: Seed) -> (Vec<usize>, Vec<usize>) {
        let mut order: Vec<usize> = (0..self.train.len()).collect();
        order.shuffle(&mut seed.child("order").stream());
        self.split(order, per_intent)
    }

    /// Parts training items into the first `per_intent` of each intent and the others, order kept.
    #[must_use]
    pub fn split(&self, items: Vec<usize>, per_intent: usize) -> (Vec<usize>, Vec<usize>) {
        let mut taken = vec![0_usize; self.labels.len()];
        items.into_iter().partition(|&index| {
            let count = &mut taken[self.train[index].intent];
            *count += 1;
            *count <= per_intent
        })
    }

    /// Training items as demonstrations, each with a wrong reply from another intent.
    #[must_use]
    pub fn demonstrations(&self, items: &[usize], seed: Seed) -> Vec<Demonstration> {
        let mut stream = seed.child("wrong").stream();
        items
            .iter()
            .map(|&index| {
                let item = &self.train[index];
                let wrong = other_reply(&self.train, item, &mut stream);
                Demonstration {
                    query: item.query.clone(),
                    intent: item.intent,
                    topic: self.labels[item.intent].clone(),
                    reply: item.reply.clone(),
                    wrong,
                }
            })
            .collect()
    }

    /// For each holdout item a right and a wrong reply: what an evaluator is measured with.
    #[must_use]
    pub fn probes(&self) -> Vec<(usize, String, bool)> {
        let mut stream = Seed::new(0).child("probes").stream();
        let mut probes = Vec::with_capacity(2 * self.holdout.len());
        for (index, item) in self.holdout.iter().enumerate() {
            probes.push((index, item.reply.clone(), true));
            probes.push((index, other_reply(&self.holdout, item, &mut stream), false));
        }
        probes
    }
}

/// The reply of an item that does not resolve `item`.
fn other_reply(items: &[Item], item: &Item, stream: &mut agents::seed::Stream) -> String {
    for _ in 0..64 {
        let other = &items[stream.random_range(0..items.len())];
        if reward(item, &other.reply) < 1.0 {
            return other.reply.clone();
        }
    }
    String::new()
}

/// Share of the required groups that a reply contains, from 0 to 1; letter case does not matter.
#[must_use]
pub fn reward(item: &Item, reply: &str) -> f64 {
    if item.must.is_empty() {
        return 0.0;
    }
    let reply = reply.to_lowercase();
    let has = |group: &&Vec<String>| group.iter().any(|one| reply.contains(&one.to_lowercase()));
    item.must.iter().filter(has).count() as f64 / item.must.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(must: &[&[&str]]) -> Item {
        let must = must.iter().map(|g| g.iter().map(|&s| s.to_owned()).collect()).collect();
        Item { query: String::new(), intent: 0, must, reply: String::new() }
    }

    #[test]
    fn reward_counts_groups() {
        let item = item(&[&["refund"], &["10 days", "ten days"]]);
        assert!((reward(&item, "Your REFUND comes in ten days.") - 1.0).abs() < 1e-9);
        assert!((reward(&item, "A refund, soon.") - 0.5).abs() < 1e-9);
        assert!(reward(&item, "Hello.").abs() < 1e-9);
    }
}
