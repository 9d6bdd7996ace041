//! Threads that do one piece of work together, phase by phase.
//!
//! A phase is a number of items. Each member has a share of them, neighbours in memory, and helps another
//! when its own is done; then it waits for all. Which member does an item never changes what comes out.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Turns of waiting before a member lets others use its core.
const PATIENCE: u32 = 2_000;

/// Where the members of a team meet.
struct Meeting {
    members: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    /// Items taken of each member's share in even and in odd phases.
    taken: [Box<[Taken]>; 2],
    failed: AtomicBool,
}

/// A number that has a cache line, and the one fetched with it, to itself.
#[derive(Default)]
#[repr(align(128))]
struct Taken(AtomicUsize);

/// One thread of a team.
pub(crate) struct Member<'a> {
    meeting: &'a Meeting,
    index: usize,
    phase: usize,
}

impl Member<'_> {
    /// Does the items `0..count` together with the others, and waits until all are done.
    ///
    /// Every member must come to the same phases with the same counts.
    pub(crate) fn share(&mut self, count: usize, item: impl FnMut(usize)) {
        self.share_and(count, item, |_| ());
    }

    /// The same; `next` is told this member's part of the team, `[member, members]`, before it waits.
    pub(crate) fn share_and(
        &mut self,
        count: usize,
        mut item: impl FnMut(usize),
        next: impl FnOnce([usize; 2]),
    ) {
        let members = self.meeting.members;
        if members == 1 {
            (0..count).for_each(item);
            return;
        }
        for turn in 0..members {
            let whose = (self.index + turn) % members;
            let [start, end] = [whose, whose + 1].map(|member| member * count / members);
            let taken = &self.meeting.taken[self.phase % 2][whose].0;
            loop {
                let at = start + taken.fetch_add(1, Ordering::Relaxed);
                if at >= end {
                    break;
                }
                item(at);
            }
        }
        next([self.index, members]);
        self.wait();
        self.phase += 1;
    }

    /// Waits until every member has come here. What any of them wrote before is seen by all after.
    fn wait(&self) {
        let meeting = self.meeting;
        let round = meeting.round.load(Ordering::Acquire);
        if meeting.arrived.fetch_add(1, Ordering::AcqRel) + 1 == meeting.members {
            // Nobody is in the phase before or after this one: the counters of the next can be reset.
            for taken in &meeting.taken[(self.phase + 1) % 2] {
                taken.0.store(0, Ordering::Relaxed);
            }
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
    let members = members.max(1);
    let taken = || (0..members).map(|_| Taken::default()).collect();
    let meeting = Meeting {
        members,
        arrived: AtomicUsize::new(0),
        round: AtomicUsize::new(0),
        taken: [taken(), taken()],
        failed: AtomicBool::new(false),
    };
    let member = |index| Member { meeting: &meeting, index, phase: 0 };
    std::thread::scope(|scope| {
        for index in 1..members {
            let (work, member) = (&work, &member);
            scope.spawn(move || work(member(index)));
        }
        work(member(0));
    });
}
