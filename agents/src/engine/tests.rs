//! The engine as those who ask it see it: announcements, and what its end means for them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::Engine;
use super::queue::{self, Answer, EngineHandle, Got, Request, Want};
use super::schedule::Limits;
use crate::adapter::{Adapter, AdapterSpec, Method};
use crate::backbone::{Backbone, builtin};
use crate::device::DeviceKind;
use crate::error::{ModelError, Result};
use crate::name::AgentName;
use crate::seed::Seed;
use crate::writing::Draw;

struct World {
    engine: Engine,
    backbone: Arc<Backbone>,
    adapter: Arc<Adapter>,
}

fn world() -> World {
    let backbone = builtin::polylogue_tiny(&DeviceKind::Cpu.open().unwrap()).unwrap();
    let spec = AdapterSpec { method: Method::Frozen, head: None };
    let adapter = Adapter::initial(spec, &backbone, Seed::new(1)).unwrap();
    World {
        engine: Engine::start().unwrap(),
        backbone: Arc::new(backbone),
        adapter: Arc::new(adapter),
    }
}

impl World {
    fn handle(&self) -> EngineHandle {
        self.engine.handle()
    }

    fn expect(&self, round: u64, episodes: &[u64]) {
        let name = AgentName::new("a").unwrap();
        let keys = episodes.iter().map(|episode| (round, name.clone(), *episode)).collect();
        self.handle().expect(keys).unwrap();
    }

    /// Asks for two words; the answer comes through the channel.
    fn ask(&self, round: u64, episode: u64) -> Receiver<Result<Got>> {
        let (sender, receiver) = channel();
        self.ask_with(round, episode, Answer::new(move |got| drop(sender.send(got))));
        receiver
    }

    fn ask_with(&self, round: u64, episode: u64, answer: Answer<Got>) {
        self.ask_about(round, episode, vec![5, 6, 7], answer);
    }

    fn ask_about(&self, round: u64, episode: u64, tokens: Vec<u32>, answer: Answer<Got>) {
        let want = Want::Text(Draw::likeliest(2, Vec::new()));
        let request = Request {
            key: (round, AgentName::new("a").unwrap(), episode),
            backbone: Arc::clone(&self.backbone),
            adapter: Arc::clone(&self.adapter),
            tokens,
            want,
            answer,
        };
        // Where the engine has ended, the answer says so.
        let _ = self.handle().infer(request);
    }
}

/// An answer that blocks the engine's thread: that it has come, and what lets the thread go on.
fn blocking() -> (Answer<Got>, Receiver<()>, Sender<()>) {
    let (taken, hangs) = channel();
    let (release, held) = channel::<()>();
    let answer = Answer::new(move |_| {
        taken.send(()).unwrap();
        let _ = held.recv();
    });
    (answer, hangs, release)
}

fn is_lost(answer: &Receiver<Result<Got>>) -> bool {
    matches!(answer.recv().unwrap(), Err(ModelError::EngineStopped))
}

fn is_cancelled(answer: &Receiver<Result<Got>>) -> bool {
    matches!(answer.recv().unwrap(), Err(ModelError::Cancelled))
}

#[test]
fn a_new_announcement_takes_the_place_of_the_one_before() {
    let world = world();
    world.expect(2, &[0, 1]);
    assert!(is_cancelled(&world.ask(1, 1)), "it belongs to an announcement that is over");
    let both = [world.ask(2, 0), world.ask(2, 1)];
    let got = both.map(|answer| answer.recv().unwrap().unwrap());
    assert_eq!(got[0], got[1], "the same question, the same answer");
}

#[test]
fn an_engine_that_is_lost_answers_with_an_error_and_its_successor_as_if_nothing_had_been() {
    let mut world = world();
    world.expect(1, &[0]);
    let calm = world.ask(1, 0).recv().unwrap().unwrap();
    world.expect(2, &[0, 1]);
    world.handle().lose().unwrap();
    assert!(is_lost(&world.ask(2, 0)));
    assert!(is_lost(&world.ask(2, 1)), "nobody is there any more");
    let old = world.handle();
    world.engine.restart().unwrap();
    world.expect(3, &[0]);
    assert_eq!(world.ask(3, 0).recv().unwrap().unwrap(), calm);
    assert!(old.expect(Vec::new()).is_ok(), "old handles lead to the new engine");
}

/// An answer that blocks holds the thread as a driver would that does not come back.
#[test]
fn an_engine_that_hangs_keeps_nobody_from_ending() {
    let world = world();
    let (answer, hangs, release) = blocking();
    world.expect(1, &[0]);
    world.ask_with(1, 0, answer);
    hangs.recv().unwrap();
    let (done, left) = channel();
    std::thread::spawn(move || {
        drop(world);
        done.send(()).unwrap();
    });
    let waited = left.recv_timeout(4 * super::PATIENCE);
    assert!(waited.is_ok(), "the engine is waited for without end");
    drop(release);
}

/// Between two steps: those that are too many are told so, and what else was said is heard at once.
#[test]
fn who_is_one_too_many_is_told_so_and_commands_do_not_wait_behind() {
    let limits = Limits { sequences: 1, ..Limits::default() };
    let world = World { engine: Engine::start_with(limits, || 0).unwrap(), ..world() };
    let (answer, hangs, release) = blocking();
    world.ask_with(1, 0, answer);
    hangs.recv().unwrap();
    // The queue is filled; its first request has no tokens, so it blocks before anything else begins.
    let (answer, hangs, release_first) = blocking();
    world.ask_about(1, 1, Vec::new(), answer);
    let bound = queue::BOUND as u64;
    let (sender, counted) = channel();
    for episode in 2..=bound {
        let sender = sender.clone();
        world.ask_with(1, episode, Answer::new(move |got| drop(sender.send((episode, got)))));
    }
    drop(release);
    hangs.recv().unwrap();
    // One more begins: then there is room for two.
    let late: Vec<_> = (1..=12).map(|more| world.ask(1, bound + more)).collect();
    world.handle().cancel((1, AgentName::new("a").unwrap(), 1000)).unwrap();
    world.handle().lose().unwrap();
    drop(release_first);
    let (episode, first) = counted.recv().unwrap();
    assert!(episode == 1000 && matches!(first, Err(ModelError::Cancelled)), "{episode}: {first:?}");
    for (index, answer) in late.iter().enumerate() {
        let got = answer.recv().unwrap();
        let expected = if index < 2 {
            matches!(got, Err(ModelError::EngineStopped))
        } else {
            matches!(got, Err(ModelError::EngineBusy { .. }))
        };
        assert!(expected, "{index}: {got:?}");
    }
    drop(sender);
    let lost = counted.iter().filter(|(_, got)| matches!(got, Err(ModelError::EngineStopped)));
    assert_eq!(lost.count() as u64, bound - 2);
}
