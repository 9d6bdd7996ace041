//! Events written by hand, for tests of screens: a small society that books journeys.
//!
//! Events are written in the form of a recording, so that a recording is what drives these tests.

use serde_json::{Value, json};
use sim::event::Event;

/// Writes events one after the other.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) events: Vec<Event>,
    tick: u64,
}

const QUERIES: [(&str, &str, &str); 6] = [
    (
        "can you change my flight to lisbon on friday",
        "change_flight",
        "your flight to lisbon is now on friday",
    ),
    ("i lost my blue suitcase in oslo", "lost_luggage", "we look for the blue suitcase in oslo"),
    ("a room for two in kyoto please", "book_room", "a room for two in kyoto is booked"),
    (
        "what is the weather like in cairo tomorrow and do i need a coat",
        "weather",
        "tomorrow in cairo it is warm",
    ),
    ("cancel the train at nine", "cancel_train", "the train at nine is cancelled"),
    (
        "où est le musée à \u{202E}siraP\u{202C}?",
        "directions",
        "the museum\u{200B} is at the river\u{1b}[31m",
    ),
];

impl Script {
    /// Writes an event.
    pub(crate) fn write(&mut self, kind: Value) -> &mut Self {
        let event = json!({ "seq": self.events.len(), "tick": self.tick, "event": kind });
        self.events.push(serde_json::from_value(event).expect("an event as it is recorded"));
        self
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self) -> &mut Self {
        self.tick += 1;
        self
    }

    pub(crate) fn begin(&mut self) -> &mut Self {
        let card = |name: &str, transfer: &str, trainable: usize| json!({ "name": name, "transfer": transfer, "backbone": "base", "trainable": trainable });
        self.write(json!({ "run_started": {
            "scenario": "travel-support", "seed": 7, "episodes": 400, "protocol": "pipeline",
            "agents": [card("understand", "feature", 1_548), card("reply", "lora", 24_576), card("evaluate", "head", 131_330)],
        }}))
    }

    pub(crate) fn phase(&mut self, phase: &str, length: u64) -> &mut Self {
        self.tick().write(json!({ "phase_started": { "phase": phase, "length": length } }))
    }

    pub(crate) fn transfers(&mut self) -> &mut Self {
        self.warm_up().tick();
        for (agent, job, steps, before, after) in [
            ("evaluate", 2, 40, 0.69, 0.22),
            ("understand", 0, 60, 2.48, 0.31),
            ("reply", 1, 120, 3.02, 0.87),
        ] {
            self.tick().write(json!({ "transfer_finished": {
                "agent": agent, "examples": 240, "steps": steps, "loss_before": before, "loss_after": after } }));
            self.publish(agent, job, 1);
        }
        self
    }

    /// All agents begin to be transferred, side by side.
    pub(crate) fn warm_up(&mut self) -> &mut Self {
        for (agent, job, steps) in [("understand", 0, 60), ("reply", 1, 120), ("evaluate", 2, 40)] {
            self.learn(agent, job, "warm_up", steps, 0);
        }
        for step in 1..=24 {
            self.step("understand", 0, step).step("reply", 1, step).step("evaluate", 2, step);
        }
        self
    }

    pub(crate) fn open(&mut self, episode: u64) -> &mut Self {
        let (query, ..) = QUERIES[(episode % 6) as usize];
        self.write(
            json!({ "episode_started": { "episode": episode, "item": episode, "query": query } }),
        )
    }

    fn say(&mut self, episode: u64, turn: u32, from: &str, to: Value, said: &Value) -> &mut Self {
        let cut = if episode % 6 == 3 && turn == 1 { 4 } else { 0 };
        self.write(json!({ "message_delivered": {
            "episode": episode, "turn": turn, "from": from, "to": to, "generation": 1 + u64::from(turn == 1 && episode >= 64),
            "said": said, "tokens": 9, "cut": cut } }))
    }

    pub(crate) fn understand(&mut self, episode: u64) -> &mut Self {
        let (_, intent, _) = QUERIES[(episode % 6) as usize];
        let label = if episode % 6 == 4 { "change_flight" } else { intent };
        let said = json!({ "label": { "label": label, "confidence": 0.97 - (episode % 7) as f64 * 0.06 } });
        self.say(episode, 0, "understand", json!("reply"), &said)
    }

    pub(crate) fn reply(&mut self, episode: u64) -> &mut Self {
        let (.., reply) = QUERIES[(episode % 6) as usize];
        self.say(episode, 1, "reply", json!("evaluate"), &json!({ "text": { "text": reply } }))
    }

    pub(crate) fn evaluate(&mut self, episode: u64) -> &mut Self {
        let resolved = if episode % 6 == 3 { 0.71 } else { 0.93 - (episode % 3) as f64 * 0.1 };
        self.say(
            episode,
            2,
            "evaluate",
            Value::Null,
            &json!({ "verdict": { "resolved": resolved } }),
        )
    }

    pub(crate) fn close(&mut self, episode: u64, reward: f64) -> &mut Self {
        let (_, intent, _) = QUERIES[(episode % 6) as usize];
        self.write(json!({ "episode_finished": {
            "episode": episode, "intent": intent, "intent_correct": episode % 6 != 4,
            "reward": reward, "resolved": reward >= 1.0, "verdict": if episode % 6 == 3 { 0.71 } else { 0.83 } } }))
    }

    /// A whole episode at once.
    pub(crate) fn episode(&mut self, episode: u64) -> &mut Self {
        let reward = match episode % 6 {
            3 => 0.5,
            4 if episode < 60 => 0.25,
            1 if episode < 90 => 0.5,
            _ => 1.0,
        };
        self.tick()
            .open(episode)
            .understand(episode)
            .reply(episode)
            .evaluate(episode)
            .close(episode, reward)
    }

    pub(crate) fn fire(&mut self, agent: &str, job: Option<u64>) -> &mut Self {
        self.write(json!({ "trigger_fired": { "trigger": 0, "rule": "threshold", "agent": agent, "value": 0.64, "job": job } }))
    }

    pub(crate) fn learn(
        &mut self,
        agent: &str,
        job: u64,
        objective: &str,
        steps: u32,
        from: u32,
    ) -> &mut Self {
        self.write(json!({ "training_started": {
            "job": job, "agent": agent, "objective": objective, "examples": 32, "steps": steps, "from": from } }))
    }

    pub(crate) fn step(&mut self, agent: &str, job: u64, step: u32) -> &mut Self {
        let loss = 1.9 * (0.86_f64).powi(step as i32) + f64::from(step % 3) * 0.06;
        self.write(json!({ "training_stepped": {
            "job": job, "agent": agent, "step": step, "loss": loss, "norm": 0.7, "reward": null } }))
    }

    pub(crate) fn publish(&mut self, agent: &str, job: u64, generation: u32) -> &mut Self {
        self.write(json!({ "generation_published": {
            "agent": agent, "generation": generation, "job": job, "digest": "5e884898" } }))
    }

    pub(crate) fn roll_back(&mut self, agent: &str, job: u64) -> &mut Self {
        self.write(json!({ "training_rolled_back": { "agent": agent, "job": job, "reason": "loss is not finite" } }))
    }

    pub(crate) fn fail(&mut self, agent: &str) -> &mut Self {
        self.write(json!({ "agent_failed": { "agent": agent, "reason": "panicked at \u{1b}[2Jtick 41, as the scenario ordered" } }))
    }

    pub(crate) fn restart(&mut self, agent: &str) -> &mut Self {
        self.write(json!({ "agent_restarted": { "agent": agent, "restarts": 1, "generation": 2 } }))
    }

    pub(crate) fn score(
        &mut self,
        phase: &str,
        accuracy: f64,
        resolved: f64,
        auc: f64,
    ) -> &mut Self {
        self.write(json!({ "holdout_scored": { "phase": phase, "scores": {
            "items": 200, "intent_accuracy": accuracy, "resolved_rate": resolved, "evaluator_auc": auc } } }))
    }

    pub(crate) fn finish(&mut self, stopped: bool) -> &mut Self {
        self.write(json!({ "run_finished": {
            "episodes": 140, "stopped": stopped, "generations": { "understand": 1, "reply": 3, "evaluate": 1 } } }))
    }
}

/// Up to the transfer, with one agent done.
pub(crate) fn start() -> Script {
    let mut script = Script::default();
    script.begin().phase("transfer", 120).tick().warm_up().tick().write(json!({ "transfer_finished": {
        "agent": "evaluate", "examples": 240, "steps": 40, "loss_before": 0.69, "loss_after": 0.22 } }));
    script.publish("evaluate", 2, 1);
    script
}

/// Up to the middle of play: a first job is over, a second trigger has just fired, three episodes are
/// under way.
pub(crate) fn play() -> Script {
    let mut script = Script::default();
    script.begin().phase("transfer", 120).transfers().phase("before", 200);
    script.score("before", 0.9, 0.62, 0.8125).phase("play", 400);
    for episode in 0..48 {
        script.episode(episode);
    }
    script.fire("reply", Some(3)).learn("reply", 3, "grpo", 16, 1);
    for step in 1..=16 {
        script.step("reply", 3, step).episode(47 + u64::from(step));
    }
    script.publish("reply", 3, 2);
    for episode in 64..126 {
        script.episode(episode);
    }
    script.tick().fire("reply", None).open(126).open(127).open(128);
    script.understand(126).understand(127).reply(126);
    script
}

/// After play: the second job is under way, a third waits.
pub(crate) fn learning() -> Script {
    let mut script = play();
    script.tick().fire("reply", Some(4)).learn("reply", 4, "grpo", 16, 2);
    for step in 1..=6 {
        script.step("reply", 4, step);
    }
    script.fire("evaluate", Some(5)).learn("evaluate", 5, "supervised", 8, 1);
    script.step("evaluate", 5, 1).step("evaluate", 5, 2).step("evaluate", 5, 3);
    script
}

/// A run from beginning to end, with a failure and a rollback.
pub(crate) fn whole_run() -> Vec<Event> {
    let mut script = learning();
    script.fail("reply").tick().restart("reply").publish("reply", 4, 3).roll_back("evaluate", 5);
    script.reply(127).understand(128).tick().evaluate(126).evaluate(127).reply(128).evaluate(128);
    script.close(126, 1.0).close(127, 0.5).close(128, 1.0);
    for episode in 129..140 {
        script.episode(episode);
    }
    script.phase("after", 200).score("after", 0.9, 0.81, 0.84).tick().finish(false);
    script.events
}
