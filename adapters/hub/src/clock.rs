//! The two clocks of this machine, as the values that the hub machine takes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use devicebound::time::{Instant, UnixTime};

/// Monotonic time since it was made, and wall-clock time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    // Tokio's, because timers sleep by it; and a test may hold it.
    start: tokio::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    /// Monotonic time.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::default().after(self.start.elapsed())
    }

    /// How long until `instant`; zero if it has passed.
    #[must_use]
    pub fn until(&self, instant: Instant) -> Duration {
        instant.since(self.now())
    }
}

/// Wall-clock time.
#[must_use]
pub fn unix_time() -> UnixTime {
    UnixTime::default().after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
