//! Restart decisions, against examples worked out by hand and a plain count.

use proptest::prelude::*;

use super::{Backoff, History, Intensity, Seed, Strategy};

#[test]
fn strategies_restart_whom_they_say() {
    let all = ["engine", "trainer", "a", "b", "c"];
    assert_eq!(Strategy::OneForOne.affected(&all, &"a"), ["a"]);
    assert_eq!(Strategy::RestForOne.affected(&all, &"b"), ["b", "c"]);
    assert_eq!(Strategy::RestForOne.affected(&all, &"engine"), all);
    assert_eq!(Strategy::OneForAll.affected(&all, &"c"), all);
    assert!(Strategy::OneForAll.affected(&all, &"stranger").is_empty());
}

#[test]
fn one_restart_too_many_is_refused_and_old_ones_are_forgotten() {
    let intensity = Intensity { restarts: 2, period: 10 };
    let mut history = History::default();
    let at = |history: &mut History, tick| history.note(tick, intensity);
    assert_eq!(at(&mut history, 5), Some(0));
    assert_eq!(at(&mut history, 5), Some(1));
    assert_eq!(at(&mut history, 14), None, "both lie within the ten ticks from 5 to 14");
    assert_eq!(at(&mut history, 15), Some(0), "tick 5 is forgotten");
    history.forget();
    assert_eq!(at(&mut history, 15), Some(0));
    assert_eq!(History::default().note(0, Intensity { restarts: 0, period: 1 }), None);
}

#[test]
fn the_wait_doubles_up_to_its_limit_and_chance_only_shortens_it() {
    let seed = Seed::new(7);
    let calm = Backoff { first: 100, factor: 2.0, most: 700, jitter: 0.0 };
    let waits: Vec<u64> = (0..5).map(|earlier| calm.wait(earlier, seed)).collect();
    assert_eq!(waits, [100, 200, 400, 700, 700]);
    assert_eq!(calm.wait(usize::MAX, seed), 700);
    let jittered = Backoff { jitter: 0.5, ..calm };
    let waits: Vec<u64> = (0..200).map(|n| jittered.wait(1, seed.index(n))).collect();
    assert!(waits.iter().all(|wait| (100..=200).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait < 120) && waits.iter().any(|wait| *wait > 180));
    assert_eq!(jittered.wait(1, seed.index(3)), waits[3], "the same seed, the same wait");
}

proptest! {
    /// Never more restarts in any window than are allowed, and refused only where the window is full.
    #[test]
    fn windows_hold_what_they_may(
        steps in prop::collection::vec(0_u64..6, 1..80), restarts in 0_u32..5, period in 1_u64..12,
    ) {
        let mut history = History::default();
        let mut granted: Vec<u64> = Vec::new();
        let mut tick = 0;
        for step in steps {
            tick += step;
            let before = granted.iter().filter(|at| **at + period > tick).count();
            let found = history.note(tick, Intensity { restarts, period });
            prop_assert_eq!(found, (before < restarts as usize).then_some(before));
            if found.is_some() {
                granted.push(tick);
            }
        }
    }
}
