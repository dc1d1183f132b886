//! The two clocks of this machine, as the values that the hub machine takes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use devicebound::time::{Instant, UnixTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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

/// Time that ages are measured in: wall-clock time when it was made, and from then on the time that has really passed, however
/// the wall clock is set meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct AgeClock {
    base: UnixTime,
    start: std::time::Instant,
}

impl AgeClock {
    /// A clock that goes on after `newest`, the latest of its times that was written down: also where that was written
    /// while the wall clock was ahead.
    #[must_use]
    pub fn after(newest: UnixTime) -> Self {
        Self { base: newest.max(unix_time()), start: std::time::Instant::now() }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.base.after(self.start.elapsed())
    }
}

/// Wall-clock time.
#[must_use]
pub fn unix_time() -> UnixTime {
    UnixTime::default().after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The time that a text such as `2030-01-31T12:00:00Z` names (RFC 3339); one before 1970 becomes 1970. `None` where it names
/// none.
#[must_use]
pub fn time_of(text: &str) -> Option<UnixTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(UnixTime::from_millis(u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()))
}
