//! What is kept is what prompts have in common now, and the least useful goes first.

use super::*;
use crate::adapter::{AdapterSpec, Method};
use crate::backbone::builtin;
use crate::device::DeviceKind;
use crate::seed::Seed;
use crate::session::Session;

/// Prompts that are read as soon as they come.
struct World {
    session: Session,
    adapter: Arc<Adapter>,
    beginnings: Beginnings,
    closed: Vec<Slot>,
}

impl World {
    fn new() -> Self {
        let backbone = builtin::polylogue_tiny(&DeviceKind::Cpu.open().unwrap()).unwrap();
        let spec = AdapterSpec { method: Method::Frozen, head: None };
        let adapter = Arc::new(Adapter::initial(spec, &backbone, Seed::new(1)).unwrap());
        let session = Session::new(Arc::new(backbone)).unwrap();
        Self { session, adapter, beginnings: Beginnings::default(), closed: Vec::new() }
    }

    /// `like` is said `times` times, then comes a token that no other prompt has there. Says how much of it was
    /// read before.
    fn ask(&mut self, agent: &str, like: &[(u32, usize)], last: u32) -> usize {
        let mut prompt: Vec<u32> =
            like.iter().flat_map(|&(token, times)| std::iter::repeat_n(token, times)).collect();
        prompt.extend([last, 0]);
        let (agent, closed) = (AgentName::new(agent).unwrap(), &mut self.closed);
        let close = |slot| closed.push(slot);
        let found = self.beginnings.find(&agent, &self.adapter, &prompt, usize::MAX, close);
        if let Some(length) = found.keep {
            let copy = || Some(self.session.open(None));
            let read = &prompt[..length];
            closed.extend(self.beginnings.keep(&agent, &self.adapter, read, copy));
        }
        found.read.map_or(0, |(_, length)| length)
    }

    fn kept(&self, agent: &str) -> Option<Slot> {
        let owner = (AgentName::new(agent).unwrap(), self.adapter.generation());
        self.beginnings.all[&owner].kept.as_ref().map(|kept| kept.slot)
    }
}

#[test]
fn a_beginning_grows_with_what_prompts_have_in_common() {
    let mut world = World::new();
    let read = [(3, 100), (4, 101), (4, 102), (4, 103), (4, 104), (4, 105)]
        .map(|(then, last)| world.ask("a", &[(1, 9), (then, 40)], last));
    // The first two have nine tokens in common, all later ones forty-nine.
    assert_eq!(read, [0, 0, 9, 9, 49, 49]);
    assert_eq!((world.closed.len(), world.beginnings.kept.len()), (1, 1));
    assert!(!world.closed.contains(&world.kept("a").unwrap()));
    assert_eq!(world.beginnings.tokens(), 64, "two blocks of 32");
}

#[test]
fn a_beginning_that_nobody_has_any_more_gives_way_and_one_that_some_have_does_not() {
    let mut world = World::new();
    let first = [100, 101, 102].map(|last| world.ask("a", &[(1, 60)], last));
    assert_eq!(first, [0, 0, 60]);
    // The same question twice is no reason.
    assert_eq!([103, 103].map(|last| world.ask("a", &[(1, 60), (2, 30)], last)), [60, 60]);
    assert_eq!([104, 105].map(|last| world.ask("a", &[(5, 20)], last)), [0, 0]);
    assert_eq!(world.ask("a", &[(1, 60)], 106), 60);
    assert!(world.closed.is_empty());
    let read = [107, 108, 109, 110].map(|last| world.ask("a", &[(5, 20)], last));
    assert_eq!(read, [0, 0, 0, 20]);
    assert_eq!((world.closed.len(), world.beginnings.tokens()), (1, 32));
}

#[test]
fn what_was_of_no_use_for_longest_goes_first() {
    let mut world = World::new();
    for agent in ["a", "b"] {
        assert_eq!([100, 101].map(|last| world.ask(agent, &[(1, 20)], last)), [0, 0]);
    }
    assert_eq!(world.ask("b", &[(1, 20)], 102), 20);
    // Its owner asks for other things.
    assert_eq!([103, 104].map(|other| world.ask("a", &[(other, 30)], 105)), [0, 0]);
    let [a, b] = ["a", "b"].map(|agent| world.kept(agent));
    assert!(a.is_some() && b.is_some());
    assert_eq!([(); 3].map(|()| world.beginnings.forget_one()), [a, b, None]);
    assert!(world.beginnings.tokens() == 0 && world.beginnings.all.is_empty());
}

/// One that is waited for counts until its sequence has ended, whatever became of the one before.
#[test]
fn what_is_waited_for_is_counted_once() {
    let mut world = World::new();
    let (name, adapter) = (AgentName::new("a").unwrap(), Arc::clone(&world.adapter));
    assert_eq!([100, 101].map(|last| world.ask("a", &[(1, 9)], last)), [0, 0]);
    assert_eq!(world.ask("a", &[(1, 50)], 102), 9);
    assert_eq!(world.ask("a", &[(1, 50)], 103), 9);
    let mut prompt = vec![1; 50];
    prompt.extend([104, 0]);
    let find = |world: &mut World, spare| {
        world.beginnings.find(&name, &adapter, &prompt, spare, |_| panic!("nothing is closed"))
    };
    let found = find(&mut world, 64);
    assert_eq!((found.read.map(|read| read.1), found.keep), (Some(9), Some(50)));
    assert_eq!(world.beginnings.tokens(), 32 + 64);
    assert_eq!(find(&mut world, 64).keep, None, "one sequence reads it already");
    world.beginnings.forget_one().unwrap();
    assert_eq!((world.beginnings.tokens(), find(&mut world, 64)), (64, Found::default()));
    world.beginnings.give_up(&name, &adapter);
    assert_eq!(world.beginnings.tokens(), 0);
    assert_eq!(find(&mut world, 63), Found::default(), "two blocks do not fit");
    assert_eq!(find(&mut world, 64).keep, Some(51));
    assert_eq!(world.beginnings.tokens(), 64);
}
