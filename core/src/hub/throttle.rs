//! Token buckets, one for each operation, and the count of the day's messages.
//!
//! A bucket holds what its rate gives in its time, full at the start: so much may come at once. It is kept as one
//! number, the time at which it would be full again.

use core::time::Duration;

use super::tier::{Operation, Rate, Scale, TierError};
use crate::time::{Instant, UnixTime};

const OPERATIONS: usize = 9;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
    /// In nanoseconds on the scale of [`Instant`]; fractions of a microsecond add up.
    full_at: u128,
}

impl Bucket {
    const fn new(rate: Rate) -> Self {
        Self { rate, full_at: 0 }
    }

    /// How long one would have to wait for `amount`, were it taken now; and when the bucket were full then.
    fn after(&self, now: Instant, amount: u64) -> (Duration, u128) {
        let now = u128::from(now.as_micros()).saturating_mul(1000);
        let per = self.rate.per.as_nanos();
        let cost =
            per.saturating_mul(u128::from(amount)).checked_div(u128::from(self.rate.count)).unwrap_or(per);
        let full_at = self.full_at.max(now).saturating_add(cost);
        let wait = full_at.saturating_sub(now).saturating_sub(per);
        // An amount beyond the whole bucket is let through when that is full, or it never would be.
        let wait = wait.min(full_at.saturating_sub(now).saturating_sub(cost));
        (Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)), full_at)
    }
}

/// What was used of a day's quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The day, in days since 1970 (UTC).
    pub day: u64,
    /// Messages, as the tier counts them: a large one counts for each block of it.
    pub messages: u64,
}

/// The rates and the daily quota of a hub.
#[derive(Debug)]
pub(super) struct Throttles {
    scale: Scale,
    buckets: [Bucket; OPERATIONS],
    pub(super) used: Usage,
}

impl Throttles {
    pub(super) fn new(scale: Scale) -> Self {
        use Operation::{
            CloudMessage, Connect, Method, Query, Receive, Registry, Telemetry, TwinRead, TwinUpdate,
        };
        // In the order of the variants, by whose number they are found.
        let operations =
            [Connect, Telemetry, TwinRead, TwinUpdate, CloudMessage, Receive, Method, Registry, Query];
        Self {
            scale,
            buckets: operations.map(|operation| Bucket::new(scale.rate(operation))),
            used: Usage::default(),
        }
    }

    /// Does something if it may be done now; `amount` is 1 where it is not counted in bytes.
    pub(super) fn take(&mut self, now: Instant, operation: Operation, amount: u64) -> Result<(), TierError> {
        if !self.scale.allows(operation) {
            return Err(TierError::NotInTier);
        }
        self.delay(now, operation, amount, Duration::ZERO).map(drop)
    }

    /// Does something, now or after a delay, which it gives, of `patience` at most.
    pub(super) fn delay(
        &mut self,
        now: Instant,
        operation: Operation,
        amount: u64,
        patience: Duration,
    ) -> Result<Duration, TierError> {
        let bucket = self.buckets.get_mut(operation as usize).ok_or(TierError::Throttled)?;
        let (wait, full_at) = bucket.after(now, amount);
        if wait > patience {
            return Err(TierError::Throttled);
        }
        bucket.full_at = full_at;
        Ok(wait)
    }

    /// Whether the day has messages left.
    pub(super) fn check_quota(&mut self, now: UnixTime) -> Result<(), TierError> {
        let day = now.as_secs() / 86_400;
        if day != self.used.day {
            self.used = Usage { day, messages: 0 };
        }
        if self.used.messages >= self.scale.daily_quota() { Err(TierError::QuotaExceeded) } else { Ok(()) }
    }

    /// Counts a message of so many bytes; an empty one counts as well.
    pub(super) fn count(&mut self, now: UnixTime, bytes: usize) -> Result<(), TierError> {
        self.check_quota(now)?;
        let blocks = bytes.div_ceil(self.scale.block()).max(1);
        self.used.messages = self.used.messages.saturating_add(u64::try_from(blocks).unwrap_or(u64::MAX));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tier::Tier;
    use super::*;

    const S1: Scale = Scale { tier: Tier::S1, units: 1 };
    const NOW: Instant = Instant::from_secs(10);

    #[test]
    fn as_much_as_the_rate_gives_may_come_at_once_and_then_as_fast_as_it_gives() {
        let mut throttles = Throttles::new(S1);
        for _ in 0..100 {
            assert_eq!(throttles.take(NOW, Operation::TwinRead, 1), Ok(()));
        }
        assert_eq!(throttles.take(NOW, Operation::TwinRead, 1), Err(TierError::Throttled));
        let soon = NOW.after(Duration::from_millis(9));
        assert_eq!(throttles.take(soon, Operation::TwinRead, 1), Err(TierError::Throttled));
        let then = NOW.after(Duration::from_millis(10));
        assert_eq!(throttles.take(then, Operation::TwinRead, 1), Ok(()));
        assert_eq!(throttles.take(then, Operation::TwinRead, 1), Err(TierError::Throttled));
        assert_eq!(throttles.take(then, Operation::TwinUpdate, 1), Ok(()), "each has its own");
    }

    #[test]
    fn each_that_is_delayed_is_delayed_longer_until_patience_ends() {
        let mut throttles = Throttles::new(S1);
        let patience = Duration::from_millis(20);
        let mut delay = || throttles.delay(NOW, Operation::Telemetry, 1, patience);
        for _ in 0..100 {
            assert_eq!(delay(), Ok(Duration::ZERO));
        }
        assert_eq!([delay(), delay()], [10, 20].map(|millis| Ok(Duration::from_millis(millis))));
        assert_eq!([delay(), delay()], [Err(TierError::Throttled); 2]);
    }

    #[test]
    fn an_amount_beyond_the_bucket_goes_when_the_bucket_is_full() {
        let mut throttles = Throttles::new(S1);
        assert_eq!(throttles.take(NOW, Operation::Method, 10_000_000), Ok(()));
        assert_eq!(
            throttles.take(NOW.after(Duration::from_secs(50)), Operation::Method, 1),
            Err(TierError::Throttled)
        );
        assert_eq!(throttles.take(NOW.after(Duration::from_secs(62)), Operation::Method, 1), Ok(()));
    }

    #[test]
    fn a_message_counts_in_blocks_until_the_day_is_over() {
        let mut throttles = Throttles::new(Scale { tier: Tier::F1, units: 1 });
        let noon = UnixTime::from_secs(86_400 * 100 + 43_200);
        for _ in 0..3999 {
            assert_eq!(throttles.count(noon, 513), Ok(()));
        }
        assert_eq!(throttles.count(noon, 0), Ok(()));
        assert_eq!(throttles.count(noon, 512), Ok(()));
        assert_eq!(throttles.count(noon, 1), Err(TierError::QuotaExceeded));
        let midnight = UnixTime::from_secs(86_400 * 101);
        assert_eq!(
            throttles.check_quota(midnight.before(Duration::from_millis(1))),
            Err(TierError::QuotaExceeded)
        );
        assert_eq!(throttles.count(midnight, 1), Ok(()));
    }

    #[test]
    fn a_basic_tier_has_telemetry_and_no_way_back() {
        let mut throttles = Throttles::new(Scale { tier: Tier::B1, units: 1 });
        for operation in [Operation::TwinRead, Operation::CloudMessage, Operation::Method] {
            assert_eq!(throttles.take(NOW, operation, 1), Err(TierError::NotInTier));
        }
        assert_eq!(throttles.take(NOW, Operation::Telemetry, 1), Ok(()));
    }

    #[test]
    fn the_buckets_are_found_by_the_number_of_their_operation() {
        let throttles = Throttles::new(Scale { tier: Tier::S2, units: 3 });
        for operation in [Operation::Connect, Operation::Method, Operation::Query] {
            assert_eq!(throttles.buckets[operation as usize].rate, throttles.scale.rate(operation));
        }
    }
}
