//! Time and chance, which the machines take from outside.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH};

use devicebound::time::{Instant, UnixTime};

const FAR_OFF: Duration = Duration::from_secs(24 * 3600);

/// Monotonic time for a machine, counted from the latest time that it was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: StdInstant,
    start: Instant,
    read: fn() -> StdInstant,
}

impl Clock {
    /// A clock that shows `start` now. `read` is the runtime's way to read the time.
    pub(crate) fn new(start: Instant, read: fn() -> StdInstant) -> Self {
        Self { base: read(), start, read }
    }

    pub(crate) fn now(&self) -> Instant {
        self.start.after((self.read)().saturating_duration_since(self.base))
    }

    /// The same moment for a runtime; a moment too far off for it is one that is far off.
    pub(crate) fn to_std(self, at: Instant) -> StdInstant {
        let after = at.since(self.start);
        self.base.checked_add(after).unwrap_or_else(|| (self.read)() + FAR_OFF)
    }
}

/// The wall clock. A clock before 1970 reads as 1970, so that the hub and not this process says what is wrong.
pub(crate) fn unix_time() -> UnixTime {
    UnixTime::default().after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A random number to spread reconnections with. It guards no secret, so the seed that std draws from the system for
/// its hash maps is enough, and no dependency is needed.
pub(crate) fn jitter() -> u32 {
    RandomState::new().hash_one(()) as u32
}
