//! One step of each of several jobs at once: jobs on the same backbone share forward and backward passes.
//!
//! The frozen weights are read once for all of them; each adapter gets the gradients of its own rows only.
//! What a job learns is the same as alone up to rounding, because sums are taken over other shapes. The
//! order of everything is fixed: the same jobs give the same bits.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::accumulation::{Gradients, in_waves, side_by_side};
use super::job::{Begun, Item, Job, Settings, StepReport};
use super::objective::{self, Portion};
use crate::error::{ModelError, Result};
use crate::writing::{Text, write};

/// An item of one of the jobs.
struct Entry {
    /// The job's place.
    job: usize,
    item: Item,
}

/// Takes one step of every job; the reports are in the order of the jobs.
///
/// A job that fails is of no use any more; the others go on.
pub fn step(jobs: &mut [Job]) -> Vec<Result<StepReport>> {
    if let [only] = jobs {
        return vec![only.step()];
    }
    let sampled = sample(jobs);
    let begun: Vec<Result<Begun>> = jobs
        .iter_mut()
        .zip(sampled)
        .map(|(job, sampled)| sampled.and_then(|sampled| job.begin(sampled)))
        .collect();
    let mut gradients = shared(jobs, &begun);
    let end = |(place, (job, begun)): (usize, (&mut Job, Result<Begun>))| {
        let begun = begun?;
        let own = match gradients.remove(&place) {
            Some(own) => own,
            None => job.gradients(&begun)?,
        };
        job.end(&begun, own)
    };
    jobs.iter_mut().zip(begun).enumerate().map(end).collect()
}

/// What the jobs want sampled, in one batch for each backbone.
fn sample(jobs: &[Job]) -> Vec<Result<Option<Vec<Text>>>> {
    let wanted: Vec<_> = jobs.iter().map(Job::sampling).collect();
    let mut all: Vec<Result<Option<Vec<Text>>>> = Vec::with_capacity(jobs.len());
    let mut waiting = Vec::new();
    for (place, wanted) in wanted.iter().enumerate() {
        if let Ok(Some(_)) = wanted {
            waiting.push(place);
        }
        all.push(Ok(None));
    }
    while let Some(&first) = waiting.first() {
        let backbone = jobs[first].backbone();
        let same = |place: &usize| Arc::ptr_eq(jobs[*place].backbone(), backbone);
        let (together, rest): (Vec<usize>, Vec<usize>) = waiting.into_iter().partition(same);
        waiting = rest;
        let (mut rows, mut counts) = (Vec::new(), Vec::new());
        for &place in &together {
            if let Ok(Some(sampling)) = &wanted[place] {
                let own = sampling.rows();
                counts.push(own.len());
                rows.extend(own);
            }
        }
        match write(backbone, rows) {
            Ok(texts) => {
                let mut texts = texts.into_iter();
                for (&place, count) in together.iter().zip(counts) {
                    all[place] = Ok(Some(texts.by_ref().take(count).collect()));
                }
            }
            // One prompt that is too long fails a whole batch: alone, it fails its own job only.
            Err(_of_some_job) => {
                for &place in &together {
                    if let Ok(Some(sampling)) = &wanted[place] {
                        all[place] = write(backbone, sampling.rows()).map(Some);
                    }
                }
            }
        }
    }
    for (slot, wanted) in all.iter_mut().zip(wanted) {
        if let Err(error) = wanted {
            *slot = Err(error);
        }
    }
    all
}

/// Gradients of the jobs that can share passes, by the job's place; none of a job that must go alone.
fn shared(jobs: &[Job], begun: &[Result<Begun>]) -> BTreeMap<usize, Gradients> {
    let mut waiting: Vec<usize> = (0..jobs.len())
        .filter(|&place| begun[place].is_ok() && jobs[place].shares_a_pass())
        .collect();
    let mut all = BTreeMap::new();
    while let Some(&first) = waiting.first() {
        let suits = |place: &usize| alike(&jobs[first], &jobs[*place]);
        let (together, rest): (Vec<usize>, Vec<usize>) = waiting.into_iter().partition(suits);
        waiting = rest;
        // Where a shared pass fails, each job goes alone and fails for its own reason.
        if together.len() > 1
            && let Ok(gradients) = of(jobs, begun, &together)
        {
            all.extend(gradients);
        }
    }
    all
}

fn alike(one: &Job, other: &Job) -> bool {
    let how = |job: &Job| {
        let Settings { micro_batch_tokens, recompute, .. } = *job.settings();
        (micro_batch_tokens, recompute)
    };
    Arc::ptr_eq(one.backbone(), other.backbone()) && how(one) == how(other)
}

fn of(
    jobs: &[Job],
    begun: &[Result<Begun>],
    together: &[usize],
) -> Result<BTreeMap<usize, Gradients>> {
    let mut entries: Vec<Entry> = Vec::new();
    for &job in together {
        if let Ok(begun) = &begun[job] {
            entries.extend(begun.items().iter().map(|&item| Entry { job, item }));
        }
    }
    entries.sort_by_key(|entry| entry.item.cost);
    let budget = jobs[together[0]].settings().micro_batch_tokens;
    let run = |part: &[Entry]| -> Result<Vec<(usize, Gradients)>> {
        let mut batches: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for entry in part {
            batches.entry(entry.job).or_default().push(entry.item.index);
        }
        let portion = |(&job, batch): (&usize, &Vec<usize>)| match &begun[job] {
            Ok(begun) => jobs[job].portion(begun, batch),
            Err(error) => Err(ModelError::Examples(error.to_string())),
        };
        let portions: Vec<Portion<'_>> = batches.iter().map(portion).collect::<Result<_>>()?;
        Ok(batches.into_keys().zip(objective::gradients(&portions)?).collect())
    };
    let mut sums: BTreeMap<usize, Gradients> = BTreeMap::new();
    let at_once = side_by_side(jobs[together[0]].backbone().network.device().is_cpu());
    let all = in_waves(&entries, |entry| entry.item.cost, budget, at_once, run)?;
    for (job, gradients) in all.concat() {
        sums.entry(job).or_default().add(gradients)?;
    }
    // A job without anything to learn in this step has no gradients, and needs no pass of its own.
    for &job in together {
        sums.entry(job).or_default();
    }
    Ok(sums)
}

#[cfg(test)]
mod tests;
