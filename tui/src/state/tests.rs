//! What events add up to.

use super::agent::Activity;
use super::exchange::Entry;
use super::*;
use crate::app::screenplay::{self, Script};

fn state(events: &[Event]) -> State {
    let mut state = State::default();
    for event in events {
        state.apply(event);
    }
    state
}

#[test]
fn a_run_adds_up() {
    let state = state(&screenplay::whole_run());
    assert_eq!((state.run.ending, state.run.missed), (Ending::Done, 0));
    assert_eq!(state.curves.reward.steps(), 140);
    let reply = &state.agents[1];
    assert_eq!((reply.jobs, reply.published, reply.rolled_back, reply.restarts), (2, 2, 0, 1));
    assert_eq!((reply.generation, reply.turns, reply.losses.steps()), (3, 140, 22));
    let evaluate = &state.agents[2];
    assert_eq!((evaluate.jobs, evaluate.published, evaluate.rolled_back), (1, 0, 1));
    assert!(state.agents.iter().all(|agent| agent.job.is_none() && !agent.failed));
    let marks: Vec<Mark> = state.curves.marks.iter().map(|(_, mark)| *mark).collect();
    use Mark::{Rollback, Swap, Trigger};
    assert_eq!(marks, [Trigger, Swap, Trigger, Trigger, Trigger, Swap, Rollback]);
    assert!(
        state
            .after
            .zip(state.before)
            .is_some_and(|(after, before)| after.resolved_rate > before.resolved_rate)
    );
}

#[test]
fn agents_do_what_events_say() {
    let mut script = screenplay::play();
    let mut state = state(&script.events);
    let doing = |state: &State| [0, 1, 2].map(|agent| state.activity_of(agent));
    assert_eq!(doing(&state), [Activity::Speaking; 3], "128, 127 and 126 wait for one each");
    assert_eq!([0, 1, 2].map(|agent| state.waiting_for(agent)), [1, 1, 1]);
    let seen = script.events.len();
    script.learn("reply", 4, "grpo", 16, 2).fail("evaluate");
    script.events[seen..].iter().for_each(|event| state.apply(event));
    assert_eq!(doing(&state), [Activity::Speaking, Activity::Learning, Activity::Restarting]);
    state.close_feed();
    assert_eq!((doing(&state), state.run.ending), ([Activity::Waiting; 3], Ending::Lost));
}

#[test]
fn exchanges_fill_up_and_enter_the_stream_when_they_end() {
    let mut script = screenplay::play();
    let mut state = state(&script.events);
    let under_way = |state: &State| -> Vec<(u64, usize)> {
        state
            .stream
            .under_way()
            .map(|exchange| (exchange.episode, exchange.messages.len()))
            .collect()
    };
    let last = |state: &State| match state.stream.get(state.stream.end() - 1) {
        Some(Entry::Exchange(exchange)) => Some((exchange.episode, exchange.outcome.is_some())),
        _ => None,
    };
    assert_eq!(under_way(&state), [(126, 2), (127, 1), (128, 0)]);
    assert_eq!(last(&state), Some((125, true)));
    let seen = script.events.len();
    script.reply(127).evaluate(127).close(127, 1.0);
    script.events[seen..].iter().for_each(|event| state.apply(event));
    assert_eq!((under_way(&state), last(&state)), (vec![(126, 2), (128, 0)], Some((127, true))));
    state.close_feed();
    assert_eq!((under_way(&state), last(&state)), (vec![], Some((128, false))));
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let mut state = State::default();
    let mut script = Script::default();
    script.begin().phase("play", 400);
    for event in &script.events {
        state.apply(event);
    }
    for episode in 0..3_000 {
        let mut script = Script::default();
        script.open(episode).fire("reply", None).understand(episode);
        if episode % 2 == 0 {
            script.close(episode, 1.0);
        }
        script.events.iter().for_each(|event| state.apply(event));
    }
    assert_eq!(state.stream.end() - state.stream.first(), 500);
    assert_eq!(state.curves.marks.len(), 512);
    assert_eq!((state.waiting_for(1), state.stream.under_way().len()), (1_024, 1_024));
    assert_eq!(state.log.newest(10_000).count(), 200);
}

#[test]
fn a_long_curve_is_thinned_and_keeps_its_shape() {
    let mut curve = curve::Curve::default();
    for step in 0..100_000 {
        curve.push(if step == 5 { f64::NAN } else { f64::from(step) });
    }
    assert!(curve.points().len() < 2_048 && curve.points().len() > 500);
    assert!(curve.points().iter().all(|(step, value)| *value == (*step - 1) as f64));
    assert_eq!((curve.first(), curve.last(), curve.steps()), (Some(0.0), Some(99_999.0), 100_000));
}

#[test]
fn long_texts_are_shortened_between_characters() {
    let long = "é".repeat(5_000);
    let kept = exchange::shortened(&long);
    assert!(kept.len() <= 4_100 && kept.ends_with('…'));
    assert_eq!(exchange::shortened("short"), "short");
}
