//! The settings of trainings in scenarios act: another optimiser, schedule and LoRA+ learn differently,
//! recomputation learns the same.

use polylogue_tests::{Ran, events, run};
use sim::event::EventKind;

/// Two trainings of the writer: before play, and by the trigger while it plays.
const SHORT: [&str; 7] = [
    "episodes=4",
    "task.support.holdout_limit=1",
    "agents.understand.warm_up.steps=0",
    "agents.evaluate.warm_up.steps=0",
    "agents.reply.warm_up.examples_per_intent=1",
    "agents.reply.warm_up.batch=8",
    "channel.text.max_tokens=8",
];

/// A run whose writer learns with these settings; steps as `(objective, step, loss)`, and the digests of what
/// was published.
fn learned(settings: &str) -> (Vec<(String, usize, f64)>, Vec<String>) {
    let warm_up = format!("agents.reply.warm_up.settings={{ {settings} }}");
    let trigger = format!(
        "triggers=[{{ agent = \"reply\", when = {{ periodic = {{ every = 4 }} }}, train = {{ \
         supervised = {{ steps = 2, batch = 8, learning_rate = 1e-3, buffer = 8, \
         settings = {{ {settings} }} }} }} }}]"
    );
    let Ran { log, .. } = run(&[&SHORT[..], &[&warm_up, &trigger]].concat());
    let (mut objectives, mut steps, mut digests) = (Vec::new(), Vec::new(), Vec::new());
    for event in events(&log) {
        match event.kind {
            EventKind::TrainingStarted { job, agent, objective, .. }
                if agent.as_str() == "reply" =>
            {
                objectives.push((job, objective));
            }
            EventKind::TrainingStepped { job, agent, step, loss, .. }
                if agent.as_str() == "reply" =>
            {
                assert!(loss.is_finite());
                let (_, objective) = objectives.iter().find(|(known, _)| *known == job).unwrap();
                steps.push((objective.clone(), step, loss));
            }
            EventKind::GenerationPublished { agent, digest, .. } if agent.as_str() == "reply" => {
                digests.push(digest);
            }
            EventKind::TrainingRolledBack { reason, .. } => panic!("{reason}"),
            _ => {}
        }
    }
    for objective in ["warm_up", "supervised"] {
        assert!(steps.iter().any(|(found, ..)| found == objective), "{objective}: {steps:?}");
    }
    (steps, digests)
}

#[test]
fn other_settings_learn_differently_and_recomputation_the_same() {
    let (usual, published) = learned("");
    let (other, _) =
        learned("optimizer = \"lion\", schedule = \"linear\", recompute = true, lora_plus = 4");
    // The first loss is that of the same weights; then the ways part.
    assert!((usual[0].2 - other[0].2).abs() < 1e-4, "{usual:?} {other:?}");
    let last = |steps: &[(String, usize, f64)]| steps.iter().rfind(|s| s.0 == "warm_up").unwrap().2;
    assert!((last(&usual) - last(&other)).abs() > 1e-2, "{usual:?} {other:?}");

    let (again, same) = learned("recompute = true");
    assert_eq!(usual.len(), again.len());
    for (one, two) in usual.iter().zip(&again).filter(|(one, _)| one.0 == "warm_up") {
        assert!((one.2 - two.2).abs() < 1e-3, "{one:?} {two:?}");
    }
    assert_eq!(published.len(), same.len());
}
