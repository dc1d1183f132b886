//! Deadlines in a heap with lazy entries: traffic never touches it.
//!
//! An entry says when to look, not that something is due. What is due is decided by the thing itself when its
//! entry comes up; one that moved on in the meantime is put back.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use super::{CallId, DeviceKey, LinkId};
use crate::time::{Instant, Timer};

/// What to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Link(LinkId),
    Call(CallId),
    Mailbox(DeviceKey),
}

impl Target {
    const fn timer(self) -> Timer {
        match self {
            Self::Link(_) => Timer::KeepAlive,
            Self::Call(_) => Timer::MethodCall,
            Self::Mailbox(_) => Timer::MessageExpiry,
        }
    }
}

#[derive(Debug)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Target)>>,
}

impl Timers {
    pub(super) const fn new() -> Self {
        Self { heap: BinaryHeap::new() }
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
}
