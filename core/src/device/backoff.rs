//! How long to wait before the next try, so that a fleet does not come back all at once.

use core::time::Duration;

use super::Timing;
use crate::packet::ConnectReturnCode;
use crate::rule::Rule;
use crate::session::CloseReason;

/// Counts failures in a row and draws delays.
///
/// The numbers come from SplitMix64 (Steele, Lea, Flood 2014), seeded by the identity, so that no two devices are
/// in step before the first connection, and stirred with the jitter of every `Event::Opened`.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    failures: u32,
    state: u64,
}

impl Backoff {
    pub(crate) fn new(seed: &str) -> Self {
        // FNV-1a: any hash does that tells ids apart.
        let state = seed.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        Self { failures: 0, state }
    }

    /// Takes in the random number that the caller gives with each connection.
    pub(crate) fn stir(&mut self, jitter: u32) {
        self.state = self.state.rotate_left(32) ^ u64::from(jitter);
    }

    /// Connections in a row that failed, or did not last.
    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }

    /// The delay before the next connection, `lived` after the last one was established, if it was.
    pub(crate) fn after_close(
        &mut self,
        reason: CloseReason,
        lived: Option<Duration>,
        timing: &Timing,
    ) -> Duration {
        // A connection that was cut soon is a failure, too: a device that is cut for what it sends, or that shares
        // its id with another, must not come back every second for ever.
        if lived.is_some_and(|lived| lived >= timing.reconnect_max) {
            self.failures = 0;
        }
        match reason {
            CloseReason::Ended(Rule::TokenRenewal) => Duration::ZERO,
            CloseReason::Refused(code, _) if code != ConnectReturnCode::ServerUnavailable => {
                self.failures = self.failures.saturating_add(1);
                self.between(timing.refused_min, timing.refused_max)
            }
            _ => self.after_failure(timing),
        }
    }

    /// The delay after one more failure.
    pub(crate) fn after_failure(&mut self, timing: &Timing) -> Duration {
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        self.delay(failures, timing)
    }

    /// A delay between `reconnect_min` and a ceiling that starts at twice as much, doubles with each of `failures`
    /// and stops at `reconnect_max`.
    pub(crate) fn delay(&mut self, failures: u32, timing: &Timing) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_add(1));
        let ceiling = timing.reconnect_min.saturating_mul(factor).min(timing.reconnect_max);
        self.between(timing.reconnect_min, ceiling)
    }

    /// Evenly spread.
    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_micros();
        let share = span.saturating_mul(u128::from(self.draw())) >> 32;
        least.saturating_add(Duration::from_micros(u64::try_from(share).unwrap_or(u64::MAX)))
    }

    fn draw(&mut self) -> u32 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> CloseReason {
        CloseReason::Lost
    }

    #[test]
    fn delays_grow_up_to_the_longest_and_never_fall_below_the_shortest() {
        let timing = Timing::default();
        let mut backoff = Backoff::new("dev1");
        for attempt in 0..100_u32 {
            let delay = backoff.after_close(lost(), None, &timing);
            let ceiling = timing.reconnect_min * 2_u32.saturating_pow(attempt.min(20) + 1);
            assert!(delay >= timing.reconnect_min, "{attempt}: {delay:?}");
            assert!(delay <= ceiling.min(timing.reconnect_max), "{attempt}: {delay:?}");
        }
    }

    #[test]
    fn a_fleet_is_spread_over_the_whole_span() {
        let timing = Timing::default();
        let span = timing.reconnect_max - timing.reconnect_min;
        let mut tenths = [0_u32; 10];
        for device in 0..10_000 {
            let mut backoff = Backoff::new(&alloc::format!("device-{device}"));
            backoff.failures = 20;
            let delay = backoff.after_close(lost(), None, &timing) - timing.reconnect_min;
            tenths[(delay.as_micros() * 10 / (span.as_micros() + 1)) as usize] += 1;
        }
        assert!(tenths.iter().all(|&count| (800..1200).contains(&count)), "{tenths:?}");
    }

    #[test]
    fn a_connection_that_lasted_is_replaced_quickly_and_one_that_did_not_is_a_failure() {
        let timing = Timing::default();
        let mut backoff = Backoff::new("dev1");
        for _ in 0..20 {
            backoff.after_close(lost(), Some(Duration::from_secs(1)), &timing);
        }
        assert_eq!(backoff.failures(), 20);
        assert!(backoff.after_close(lost(), Some(timing.reconnect_max), &timing) <= timing.reconnect_min * 2);
    }

    #[test]
    fn refused_credentials_wait_minutes_and_a_busy_hub_does_not() {
        let timing = Timing::default();
        let mut backoff = Backoff::new("dev1");
        let refused = |code| CloseReason::Refused(code, Rule::ConnectRefused);
        let delay = backoff.after_close(refused(ConnectReturnCode::NotAuthorized), None, &timing);
        assert!((timing.refused_min..=timing.refused_max).contains(&delay));
        let mut backoff = Backoff::new("dev1");
        let delay = backoff.after_close(refused(ConnectReturnCode::ServerUnavailable), None, &timing);
        assert!(delay <= timing.reconnect_min * 2);
    }

    #[test]
    fn a_renewed_token_is_used_at_once() {
        let reason = CloseReason::Ended(Rule::TokenRenewal);
        let delay = Backoff::new("dev1").after_close(reason, None, &Timing::default());
        assert_eq!(delay, Duration::ZERO);
    }
}
