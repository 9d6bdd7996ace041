//! Threads that do one piece of work together, phase by phase.
//!
//! A phase is a number of items; each member takes the next one until none is left, then waits for the
//! others. Which member does an item never changes what comes out.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Turns of waiting before a member lets others use its core.
const PATIENCE: u32 = 2_000;

/// Where the members of a team meet.
struct Meeting {
    members: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    /// Items taken in even and in odd phases.
    taken: [AtomicUsize; 2],
    failed: AtomicBool,
}

/// One thread of a team.
pub(crate) struct Member<'a> {
    meeting: &'a Meeting,
    phase: usize,
}

impl Member<'_> {
    /// Does the items `0..count` together with the others, and waits until all are done.
    ///
    /// Every member must come to the same phases with the same counts.
    pub(crate) fn share(&mut self, count: usize, mut item: impl FnMut(usize)) {
        if self.meeting.members == 1 {
            (0..count).for_each(item);
            return;
        }
        let taken = &self.meeting.taken[self.phase % 2];
        loop {
            let next = taken.fetch_add(1, Ordering::Relaxed);
            if next >= count {
                break;
            }
            item(next);
        }
        self.wait();
        self.phase += 1;
    }

    /// Waits until every member has come here. What any of them wrote before is seen by all after.
    fn wait(&self) {
        let meeting = self.meeting;
        let round = meeting.round.load(Ordering::Acquire);
        if meeting.arrived.fetch_add(1, Ordering::AcqRel) + 1 == meeting.members {
            // Nobody is in the phase before or after this one: the counter of the next phase can be reset.
            meeting.taken[(self.phase + 1) % 2].store(0, Ordering::Relaxed);
            meeting.arrived.store(0, Ordering::Relaxed);
            meeting.round.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut turns = 0;
        while meeting.round.load(Ordering::Acquire) == round {
            assert!(!meeting.failed.load(Ordering::Relaxed), "another thread of the team failed");
            turns += 1;
            if turns < PATIENCE {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.meeting.failed.store(true, Ordering::Relaxed);
        }
    }
}

/// How many threads a team can use here.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `work` on a team of `members` threads, this one included.
pub(crate) fn run(members: usize, work: impl Fn(Member<'_>) + Sync) {
    let meeting = Meeting {
        members: members.max(1),
        arrived: AtomicUsize::new(0),
        round: AtomicUsize::new(0),
        taken: [AtomicUsize::new(0), AtomicUsize::new(0)],
        failed: AtomicBool::new(false),
    };
    let member = || Member { meeting: &meeting, phase: 0 };
    std::thread::scope(|scope| {
        for _ in 1..members {
            scope.spawn(|| work(member()));
        }
        work(member());
    });
}
