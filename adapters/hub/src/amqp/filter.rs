//! Where a reader begins: `amqp.annotation.{name} {> or >=} {value}`, as the Event Hubs SDKs write it.

use devicebound::time::UnixTime;
use devicebound_amqp::types::Map;

/// The key of the filter in the filter set. Its descriptor is different with every client, and says nothing.
const SELECTOR: &str = "apache.org:selector-filter:string";
const PREFIX: &str = "amqp.annotation.";

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the oldest event that is kept.
    Oldest,
    /// With what comes next.
    Latest,
    /// With the event of this offset, or the one behind it.
    Offset { cursor: u64, inclusive: bool },
    /// With the event of this sequence number, or the one behind it.
    Sequence { number: u64, inclusive: bool },
    /// With the first event that was taken then, or later.
    Time { at: UnixTime, inclusive: bool },
}

impl Start {
    /// What a filter set asks for; the expression where it cannot be understood.
    pub(super) fn of(filter: Option<Map<'_>>) -> Result<Self, String> {
        let Some(expression) = filter.and_then(|filter| filter.get(SELECTOR)) else {
            return Ok(Self::Oldest);
        };
        let expression = expression.undescribed().text().unwrap_or_default();
        Self::parse(expression).ok_or_else(|| expression.to_owned())
    }

    fn parse(expression: &str) -> Option<Self> {
        let rest = expression.trim().strip_prefix(PREFIX)?;
        let (name, value) = rest.split_once('>')?;
        let (inclusive, value) = match value.strip_prefix('=') {
            Some(value) => (true, value.trim()),
            None => (false, value.trim()),
        };
        let value = match value.strip_prefix('\'') {
            Some(value) => value.strip_suffix('\'')?,
            None => value,
        };
        // Before the first one is the first one.
        let number = || match value.parse::<i64>() {
            Ok(number) => Some(u64::try_from(number).ok()),
            Err(_) => None,
        };
        match (name.trim(), value) {
            ("x-opt-offset", "@latest") => Some(Self::Latest),
            ("x-opt-offset", _) => {
                Some(number()?.map_or(Self::Oldest, |cursor| Self::Offset { cursor, inclusive }))
            }
            ("x-opt-sequence-number", _) => {
                Some(number()?.map_or(Self::Oldest, |number| Self::Sequence { number, inclusive }))
            }
            ("x-opt-enqueued-time" | "x-opt-enqueuedtimeutc", _) => {
                let at = |millis| Self::Time { at: UnixTime::from_millis(millis), inclusive };
                Some(number()?.map_or(Self::Oldest, at))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_expression_that_a_client_was_seen_to_write_is_understood() {
        let time = |millis, inclusive| Start::Time { at: UnixTime::from_millis(millis), inclusive };
        for (expression, start) in [
            ("amqp.annotation.x-opt-offset > '-1'", Start::Oldest),
            ("amqp.annotation.x-opt-offset > '@latest'", Start::Latest),
            ("amqp.annotation.x-opt-offset >= '@latest'", Start::Latest),
            ("amqp.annotation.x-opt-offset >'12345'", Start::Offset { cursor: 12345, inclusive: false }),
            ("amqp.annotation.x-opt-offset >= 7", Start::Offset { cursor: 7, inclusive: true }),
            (
                "amqp.annotation.x-opt-sequence-number > '123'",
                Start::Sequence { number: 123, inclusive: false },
            ),
            ("amqp.annotation.x-opt-sequence-number >= '-1'", Start::Oldest),
            ("amqp.annotation.x-opt-enqueued-time > '1790000000000'", time(1_790_000_000_000, false)),
            ("amqp.annotation.x-opt-enqueuedtimeutc > 1790000000000", time(1_790_000_000_000, false)),
        ] {
            assert_eq!(Start::parse(expression), Some(start), "{expression}");
        }
        for wrong in [
            "",
            "amqp.annotation.x-opt-offset",
            "amqp.annotation.x > '1'",
            "x-opt-offset > '1'",
            "amqp.annotation.x-opt-offset > '1",
            "amqp.annotation.x-opt-offset > 'a'",
        ] {
            assert_eq!(Start::parse(wrong), None, "{wrong}");
        }
    }
}
