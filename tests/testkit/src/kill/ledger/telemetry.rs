//! Telemetry: each message has a number of its own device, from 1.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Violation, violation};

/// What a device has sent. A message is forgotten here when it was acknowledged and read back.
#[derive(Debug, Default)]
pub struct Telemetry {
    last: u64,
    sent: BTreeMap<u64, Sent>,
    /// The message that was stored last for the first time.
    newest_stored: u64,
}

#[derive(Debug)]
struct Sent {
    /// How many connections it may have gone out on.
    attempts: u32,
    /// When its PUBACK came, since the run began.
    acknowledged: Option<Duration>,
    /// How many times it was read back.
    stored: u32,
}

impl Telemetry {
    /// Another message is sent; gives its number.
    pub fn send(&mut self) -> u64 {
        self.last += 1;
        self.sent.insert(self.last, Sent { attempts: 1, acknowledged: None, stored: 0 });
        self.last
    }

    /// The hub has acknowledged a message.
    pub fn acknowledged(&mut self, number: u64, at: Duration) {
        if let Some(sent) = self.sent.get_mut(&number) {
            sent.acknowledged = Some(at);
        }
    }

    /// There is a new connection: what was not acknowledged is sent once more.
    pub fn resent(&mut self) {
        for sent in self.sent.values_mut().filter(|sent| sent.acknowledged.is_none()) {
            sent.attempts += 1;
        }
    }

    /// A message was read back; true if it was before.
    ///
    /// # Errors
    /// When it was never sent, more often than it was sent, or not in order.
    pub fn stored(&mut self, number: u64) -> Result<bool, Violation> {
        let Some(sent) = self.sent.get_mut(&number) else {
            return violation(if number > self.last {
                format!("telemetry {number} is stored and was never sent")
            } else {
                format!("telemetry {number} came again, although it was acknowledged and read back before")
            });
        };
        sent.stored += 1;
        if sent.stored > sent.attempts {
            let Sent { attempts, stored, .. } = sent;
            return violation(format!(
                "telemetry {number} was sent {attempts} times and is stored {stored} times"
            ));
        }
        let again = sent.stored > 1;
        if !again && number < self.newest_stored {
            return violation(format!("telemetry {number} is stored behind {}", self.newest_stored));
        }
        self.newest_stored = self.newest_stored.max(number);
        Ok(again)
    }

    /// All that the hub has stored was read back, and it has not run since it was killed.
    ///
    /// # Errors
    /// When a message is missing that was acknowledged.
    pub fn settle(&mut self) -> Result<(), Violation> {
        let missing: Vec<_> = self.sent.iter().filter(|(_, sent)| sent.stored == 0).collect();
        let mut missing =
            missing.into_iter().filter_map(|(number, sent)| Some((*number, sent.acknowledged?)));
        if let Some((number, at)) = missing.next() {
            let more = missing.count();
            let at = at.as_secs_f64();
            return violation(format!(
                "telemetry {number} was acknowledged at {at:.3} s and is not stored, and so with {more} more"
            ));
        }
        self.sent.retain(|_, sent| sent.acknowledged.is_none());
        Ok(())
    }

    /// How many messages were sent.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.last
    }

    /// How many messages wait for their acknowledgement.
    #[must_use]
    pub fn open(&self) -> usize {
        self.sent.values().filter(|sent| sent.acknowledged.is_none()).count()
    }

    /// Whether every message was acknowledged.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.open() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_secs(1);

    fn sent(count: u64) -> Telemetry {
        let mut telemetry = Telemetry::default();
        for number in 1..=count {
            assert_eq!(telemetry.send(), number);
        }
        telemetry
    }

    #[test]
    fn what_was_acknowledged_is_missed_and_what_was_not_is_not() {
        let mut telemetry = sent(2);
        telemetry.settle().unwrap();
        telemetry.acknowledged(1, AT);
        let missed = telemetry.settle().unwrap_err().0;
        assert!(missed.starts_with("telemetry 1 was acknowledged at 1.000 s"), "{missed}");
        telemetry.stored(1).unwrap();
        telemetry.settle().unwrap();
        assert_eq!(telemetry.open(), 1);
    }

    #[test]
    fn what_was_sent_once_is_stored_once() {
        let mut telemetry = sent(1);
        telemetry.stored(1).unwrap();
        assert!(telemetry.stored(1).is_err());
    }

    #[test]
    fn only_what_was_not_acknowledged_is_sent_again_and_may_be_stored_again() {
        let mut telemetry = sent(2);
        telemetry.acknowledged(1, AT);
        telemetry.resent();
        assert_eq!([1, 2, 2].map(|number| telemetry.stored(number)), [Ok(false), Ok(false), Ok(true)]);
        assert!(telemetry.stored(1).is_err());
        assert!(telemetry.stored(2).is_err());
    }

    #[test]
    fn what_was_read_back_before_never_comes_again() {
        let mut telemetry = sent(1);
        telemetry.acknowledged(1, AT);
        telemetry.stored(1).unwrap();
        telemetry.settle().unwrap();
        assert!(telemetry.stored(1).unwrap_err().0.contains("came again"));
        assert!(telemetry.stored(2).unwrap_err().0.contains("never sent"));
    }

    #[test]
    fn messages_are_stored_in_their_order() {
        let mut telemetry = sent(2);
        telemetry.stored(2).unwrap();
        assert!(telemetry.stored(1).unwrap_err().0.contains("behind"));
    }
}
