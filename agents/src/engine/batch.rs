//! Gathering a batch: requests wait until all that were announced have come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::decode::{self, Row};
use super::queue::{Key, Request};
use crate::error::ModelError;

/// Rows of one forward pass; more go into further passes.
const MOST_ROWS: usize = 128;

/// Requests that wait, and those that are still to come.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    here: BTreeMap<Key, Request>,
    announced: BTreeSet<Key>,
    /// The number of the last announcement.
    round: u64,
}

impl Waiting {
    /// A request of an earlier announcement is dropped, and so answered with an error: nobody waits for it.
    pub(crate) fn add(&mut self, request: Request) {
        if request.key.0 >= self.round {
            self.here.insert(request.key.clone(), request);
        }
    }

    pub(crate) fn expect(&mut self, keys: Vec<Key>) {
        self.round = keys.first().map_or(self.round, |key| key.0);
        self.here.retain(|key, _| key.0 >= self.round);
        self.announced = keys.into_iter().collect();
    }

    /// The announced requests, in the order of their keys, once all of them are here.
    pub(crate) fn take_complete(&mut self) -> Option<Vec<Request>> {
        let complete =
            !self.announced.is_empty() && self.announced.iter().all(|k| self.here.contains_key(k));
        complete.then(|| {
            let keys = std::mem::take(&mut self.announced);
            keys.iter().filter_map(|key| self.here.remove(key)).collect()
        })
    }
}

/// Runs a batch and answers every request of it.
pub(crate) fn run(requests: Vec<Request>) {
    let mut by_backbone: Vec<Vec<Request>> = Vec::new();
    for request in requests {
        let same = |group: &&mut Vec<Request>| {
            group.first().is_some_and(|first| Arc::ptr_eq(&first.backbone, &request.backbone))
        };
        match by_backbone.iter_mut().find(same) {
            Some(group) => group.push(request),
            None => by_backbone.push(vec![request]),
        }
    }
    for mut group in by_backbone {
        while !group.is_empty() {
            let rest = group.split_off(group.len().min(MOST_ROWS));
            run_rows(group);
            group = rest;
        }
    }
}

fn run_rows(requests: Vec<Request>) {
    let Some(backbone) = requests.first().map(|request| Arc::clone(&request.backbone)) else {
        return;
    };
    let mut answers = Vec::with_capacity(requests.len());
    let mut adapters = Vec::with_capacity(requests.len());
    let mut prompts = Vec::with_capacity(requests.len());
    for request in requests {
        answers.push(request.answer);
        adapters.push(request.adapter);
        prompts.push((request.tokens, request.want));
    }
    let mut rows: Vec<Row<'_>> = prompts
        .into_iter()
        .zip(&adapters)
        .map(|((tokens, want), adapter)| Row { adapter: Some(adapter), tokens, want })
        .collect();
    match decode::run(&backbone, &mut rows) {
        Ok(all) => answers.into_iter().zip(all).for_each(|(answer, got)| answer.send(Ok(got))),
        Err(error) => {
            let reason = error.to_string();
            for answer in answers {
                answer.send(Err(ModelError::Examples(reason.clone())));
            }
        }
    }
}
