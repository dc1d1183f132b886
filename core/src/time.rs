//! Time as values. Nothing in this crate reads a clock: the caller hands time in.

use core::fmt;
use core::time::Duration;

/// A point of monotonic time, in microseconds since any epoch that the caller likes.
///
/// All timers of the machines run on it. It never goes back; a machine clamps a value that does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The instant `micros` microseconds after the caller's epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The instant `secs` seconds after the caller's epoch, at most [`u64::MAX`] microseconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the caller's epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This instant moved on by `duration`; the far end of time where it does not fit.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// How long ago `earlier` was; zero where it was not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A point of wall-clock time, in milliseconds since 1970-01-01T00:00:00Z.
///
/// It enters only where Azure needs it: expiry of SAS tokens and of cloud messages, and time stamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The time `secs` seconds after the Unix epoch.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// The time `millis` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This time moved on by `duration`; the far end of time where it does not fit.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// This time moved back by `duration`; the Unix epoch where that is later.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// How long ago `earlier` was; zero where it was not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// ISO 8601 in UTC with milliseconds, as Azure writes it: `2023-11-14T22:13:20.000Z`.
impl fmt::Display for UnixTime {
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "all operands are bounded: u64 milliseconds are fewer than 2^38 days"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, millis) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (secs, millis) = (millis / 1000, millis % 1000);
        // Days to civil date in the proleptic Gregorian calendar: an era is 400 years of 146 097 days,
        // years start in March so that the leap day is the last one.
        let z = days + 719_468;
        let (era, day_of_era) = (z / 146_097, z % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// When a machine wants to hear `Event::TimedOut`, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The instant from which the event means something.
    pub at: Instant,
    /// What is waited for, for logs and for debugging.
    pub why: Timer,
}

/// The things that a machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timer {
    /// Hub: a complete CONNECT.
    Handshake,
    /// Hub: the next packet of the device, within one and a half times its keep alive `[MQTT-3.1.2-24]`.
    KeepAlive,
    /// Hub: the SAS token that the connection stands on ends.
    TokenExpiry,
    /// Hub: the answer to a direct method, or the device that it is for.
    MethodCall,
    /// Hub: a cloud-to-device message expires.
    MessageExpiry,
    /// Hub: the end of a delay, as the connection's rate was above its limit or a fault was asked for.
    Throttle,
    /// Hub: a fault that was asked for begins or ends.
    Fault,
    /// Device: the CONNACK.
    ConnAck,
    /// Device: time to send PINGREQ `[MQTT-3.1.2-23]`.
    Ping,
    /// Device: the PINGRESP.
    PingResp,
    /// Device: the answer to a request (twin, subscription).
    Request,
    /// Device: time to connect again.
    Reconnect,
    /// Device: time to renew its certificate, or the answer to a request for one.
    CertificateRenewal,
    /// Device: the PUBACK of telemetry.
    PubAck,
    /// Device: time to say that the application's SAS token expires.
    TokenWarning,
    /// Device: time to renew the SAS token.
    TokenRenewal,
}
