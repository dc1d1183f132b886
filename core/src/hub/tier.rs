//! What a hub's tier and units allow (IoT Hub quotas and throttling).

use core::time::Duration;

use crate::limits::{METER, METER_FREE};

/// What kind of hub is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Free: one unit, with a small daily quota in small blocks.
    F1,
    /// Basic, no cloud-to-device messages, methods and twins.
    B1,
    /// Standard.
    S1,
    /// Basic.
    B2,
    /// Standard.
    S2,
    /// Basic.
    B3,
    /// Standard.
    S3,
}

/// A tier, and how many units of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// The tier.
    pub tier: Tier,
    /// Units, at least 1; of the free tier there is one.
    pub units: u16,
}

/// Something that has a rate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A device connects.
    Connect,
    /// A device sends telemetry.
    Telemetry,
    /// A device or the back end reads a twin.
    TwinRead,
    /// A device or the back end changes a twin.
    TwinUpdate,
    /// The back end sends a cloud-to-device message.
    CloudMessage,
    /// A receiver without MQTT asks for a cloud-to-device message.
    Receive,
    /// The back end calls a direct method; counted in bytes.
    Method,
    /// The back end reads or changes the identity registry.
    Registry,
    /// The back end runs a query.
    Query,
}

/// So many in such a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) count: u64,
    pub(super) per: Duration,
}

/// Why the back end does not get what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TierError {
    /// 429001: more than the tier and its units allow in a time.
    #[error(
        "more than the hub's tier and units allow (429001 ThrottlingException); ask again later, with growing delays"
    )]
    Throttled,
    /// 403002: the messages of the day are used up.
    #[error(
        "the messages that the hub's tier and units allow in a day are used up (403002 IotHubQuotaExceeded); wait for 00:00 UTC"
    )]
    QuotaExceeded,
    /// 403010: a basic tier does not have it.
    #[error(
        "a basic tier has no cloud-to-device messages, methods and twins (403010 OperationNotAllowedInCurrentTier); use a standard tier"
    )]
    NotInTier,
}

impl Tier {
    /// Every tier.
    pub const ALL: [Self; 7] = [Self::F1, Self::B1, Self::S1, Self::B2, Self::S2, Self::B3, Self::S3];

    /// Its name, as Azure writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F1 => "F1",
            Self::B1 => "B1",
            Self::S1 => "S1",
            Self::B2 => "B2",
            Self::S2 => "S2",
            Self::B3 => "B3",
            Self::S3 => "S3",
        }
    }

    /// The tier with this [`name`](Self::name), in any case of letters.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name().eq_ignore_ascii_case(name))
    }

    const fn is_basic(self) -> bool {
        matches!(self, Self::B1 | Self::B2 | Self::B3)
    }

    /// One of three columns of the tables; the units are those of the tier.
    const fn of_sizes<T: Copy>(self, one: T, two: T, three: T) -> T {
        match self {
            Self::F1 | Self::B1 | Self::S1 => one,
            Self::B2 | Self::S2 => two,
            Self::B3 | Self::S3 => three,
        }
    }
}

impl Scale {
    fn units(self) -> u64 {
        if self.tier == Tier::F1 { 1 } else { u64::from(self.units.max(1)) }
    }

    /// Whether the tier has it at all.
    pub(super) const fn allows(self, operation: Operation) -> bool {
        !(self.tier.is_basic()
            && matches!(
                operation,
                Operation::TwinRead
                    | Operation::TwinUpdate
                    | Operation::CloudMessage
                    | Operation::Receive
                    | Operation::Method
            ))
    }

    /// How often that may be done by all together.
    pub(super) fn rate(self, operation: Operation) -> Rate {
        const SECOND: Duration = Duration::from_secs(1);
        const MINUTE: Duration = Duration::from_secs(60);
        let tier = self.tier;
        // At least so many, and so many for each unit.
        let rate =
            |least: u64, each: u64, per| Rate { count: each.saturating_mul(self.units()).max(least), per };
        match operation {
            Operation::Connect | Operation::Telemetry => {
                let (least, each) = tier.of_sizes((100, 12), (0, 120), (0, 6000));
                rate(least, each, SECOND)
            }
            Operation::TwinRead => {
                let (least, each) = tier.of_sizes((100, 0), (100, 10), (0, 500));
                rate(least, each, SECOND)
            }
            Operation::TwinUpdate => {
                let (least, each) = tier.of_sizes((50, 0), (50, 5), (0, 250));
                rate(least, each, SECOND)
            }
            Operation::Method => rate(0, tier.of_sizes(163_840, 491_520, 25_165_824), SECOND),
            Operation::CloudMessage | Operation::Registry => rate(0, tier.of_sizes(100, 100, 5000), MINUTE),
            Operation::Receive => rate(0, tier.of_sizes(1000, 1000, 50_000), MINUTE),
            Operation::Query => rate(0, tier.of_sizes(20, 20, 1000), MINUTE),
        }
    }

    /// How many blocks of [`block`](Self::block) bytes a day has.
    pub(super) fn daily_quota(self) -> u64 {
        let each: u64 = match self.tier {
            Tier::F1 => 8000,
            tier => tier.of_sizes(400_000, 6_000_000, 300_000_000),
        };
        each.saturating_mul(self.units())
    }

    /// Bytes of a message that count as one.
    pub(super) const fn block(self) -> usize {
        match self.tier {
            Tier::F1 => METER_FREE,
            _ => METER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(tier: Tier, units: u16, operation: Operation) -> u64 {
        Scale { tier, units }.rate(operation).count
    }

    #[test]
    fn the_rates_are_those_of_the_documents() {
        use Operation::{
            CloudMessage, Connect, Method, Query, Receive, Registry, Telemetry, TwinRead, TwinUpdate,
        };
        for (operation, [one, ten, two, ten_of_two, three]) in [
            (Telemetry, [100, 120, 120, 1200, 6000]),
            (Connect, [100, 120, 120, 1200, 6000]),
            (TwinRead, [100, 100, 100, 100, 500]),
            (TwinUpdate, [50, 50, 50, 50, 250]),
            (Method, [163_840, 1_638_400, 491_520, 4_915_200, 25_165_824]),
            (CloudMessage, [100, 1000, 100, 1000, 5000]),
            (Registry, [100, 1000, 100, 1000, 5000]),
            (Receive, [1000, 10_000, 1000, 10_000, 50_000]),
            (Query, [20, 200, 20, 200, 1000]),
        ] {
            let counts = [
                count(Tier::S1, 1, operation),
                count(Tier::S1, 10, operation),
                count(Tier::S2, 1, operation),
                count(Tier::S2, 10, operation),
                count(Tier::S3, 1, operation),
            ];
            assert_eq!(counts, [one, ten, two, ten_of_two, three], "{operation:?}");
        }
        assert_eq!(count(Tier::S2, 20, TwinRead), 200);
        assert_eq!(count(Tier::F1, 10, CloudMessage), 100, "of the free tier there is one unit");
    }

    #[test]
    fn the_day_has_the_messages_that_the_documents_say() {
        let quota = |tier, units| Scale { tier, units }.daily_quota();
        assert_eq!(quota(Tier::F1, 7), 8000);
        assert_eq!(quota(Tier::B1, 2), 800_000);
        assert_eq!((quota(Tier::S2, 1), quota(Tier::B3, 1)), (6_000_000, 300_000_000));
        assert_eq!(quota(Tier::S1, 0), 400_000, "no units are one");
    }

    #[test]
    fn a_tier_is_found_by_its_name() {
        for tier in Tier::ALL {
            assert_eq!(Tier::from_name(&tier.name().to_ascii_lowercase()), Some(tier));
        }
        assert_eq!(Tier::from_name("S4"), None);
    }
}
