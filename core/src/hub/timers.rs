//! Deadlines in a heap with lazy entries: traffic never touches it.
//!
//! An entry says when to look, not that something is due. What is due is decided by the thing itself when its
//! entry comes up; one that moved on in the meantime is put back. The entry of a connection that has ended stays until
//! there are as many of them as of all others; so the heap is bounded by what lives, however often devices come and go.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use super::{CallId, DeviceKey, LinkId};
use crate::time::{Instant, Timer};

/// Fewer stale entries than this are not worth a sweep.
const SWEEP_MIN: usize = 64;

/// What to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Link(LinkId),
    Call(CallId),
    CloudToDeviceQueue(DeviceKey),
    /// The end of a time in which nothing goes over a connection.
    Hold(LinkId),
}

impl Target {
    const fn timer(self) -> Timer {
        match self {
            Self::Link(_) => Timer::KeepAlive,
            Self::Call(_) => Timer::MethodCall,
            Self::CloudToDeviceQueue(_) => Timer::MessageExpiry,
            Self::Hold(_) => Timer::Throttle,
        }
    }
}

#[derive(Debug)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Target)>>,
    /// Entries of connections that have ended, at most.
    stale: usize,
}

impl Timers {
    pub(super) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), stale: 0 }
    }

    pub(super) fn schedule(&mut self, at: Instant, target: Target) {
        self.heap.push(Reverse((at, target)));
    }

    pub(super) fn next(&self) -> Option<(Instant, Timer)> {
        self.heap.peek().map(|Reverse((at, target))| (*at, target.timer()))
    }

    /// Takes the next entry whose time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Instant, Target)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// A connection has ended that has an entry, and perhaps another for the end of a hold. `lives` tells the entries that are
    /// still good.
    pub(super) fn forget_link(&mut self, lives: impl Fn(Target, Instant) -> bool) {
        self.stale = self.stale.saturating_add(2);
        if self.stale > (self.heap.len() / 2).max(SWEEP_MIN) {
            self.heap.retain(|Reverse((at, target))| lives(*target, *at));
            self.stale = 0;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::Slab;
    use super::*;

    #[test]
    fn connections_that_end_while_they_are_held_leave_no_entries_behind() {
        let mut timers = Timers::new();
        let link = LinkId(Slab::new().insert(()).expect("there is room"));
        for second in 0..10_000 {
            timers.schedule(Instant::from_secs(second), Target::Link(link));
            timers.schedule(Instant::from_secs(86_400 + second), Target::Hold(link));
            timers.forget_link(|_, _| false);
        }
        assert!(timers.len() < 2 * SWEEP_MIN, "{}", timers.len());
    }
}
