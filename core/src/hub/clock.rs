//! The hub's two clocks: one that never steps back, for deadlines, and the wall clock, for tokens and time stamps.

use crate::time::{Instant, UnixTime};

/// One moment on both clocks, from which all others follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    now: Instant,
    unix_time: UnixTime,
}

impl Clock {
    pub(super) const fn new(now: Instant, unix_time: UnixTime) -> Self {
        Self { now, unix_time }
    }

    /// The wall-clock time at `now`.
    pub(super) fn unix_time(&self, now: Instant) -> UnixTime {
        self.unix_time.after(now.since(self.now))
    }

    /// When the wall clock shows `time`; for a time that has passed, the moment of the clock itself.
    pub(super) fn instant(&self, time: UnixTime) -> Instant {
        self.now.after(time.since(self.unix_time))
    }
}
