//! Cloud messages: each has a number of its own device, from 1.
//!
//! That a message was completed cannot be seen on the wire: nothing answers a PUBACK. But the hub answers a twin request
//! only after all that came before it on the same connection is safe, because the answer rests on the same record. So a
//! message is *known to be completed* once its PUBACK was followed, on the same connection, by a report that was answered.
//! A message whose PUBACK was sent without that may come again, once, and is then completed again.

use std::collections::BTreeMap;

use super::{Violation, violation};

/// What was sent to a device. A message is forgotten here when it is known to be completed.
#[derive(Debug, Default)]
pub struct Cloud {
    last: u64,
    sent: BTreeMap<u64, Sent>,
    newest_delivered: u64,
}

#[derive(Debug, Default)]
struct Sent {
    /// The hub has said that it keeps it, or has delivered it.
    accepted: bool,
    /// The device has received it.
    delivered: bool,
    /// The device has completed it, which the hub may not know.
    completed: bool,
}

impl Cloud {
    /// Another message is given to the hub; gives its number. It is in doubt until the hub answers.
    pub fn send(&mut self) -> u64 {
        self.last += 1;
        self.sent.insert(self.last, Sent::default());
        self.last
    }

    /// The hub has answered 2xx.
    pub fn accepted(&mut self, number: u64) {
        // It may have been delivered and completed before the answer was read.
        if let Some(sent) = self.sent.get_mut(&number) {
            sent.accepted = true;
        }
    }

    /// The hub has answered that it does not keep it.
    pub fn refused(&mut self, number: u64) {
        self.sent.remove(&number);
    }

    /// The device has received a message.
    ///
    /// # Errors
    /// When nobody sent it, the hub had refused it, it is known to be completed, or others came before it that were sent
    /// behind it.
    pub fn delivered(&mut self, number: u64) -> Result<(), Violation> {
        let Some(sent) = self.sent.get_mut(&number) else {
            return violation(if number > self.last {
                format!("cloud message {number} was delivered and never sent")
            } else {
                format!("cloud message {number} came back, although it was completed or refused")
            });
        };
        // A message that comes again may come at any place.
        if !sent.delivered && number < self.newest_delivered {
            return violation(format!("cloud message {number} came behind {}", self.newest_delivered));
        }
        (sent.accepted, sent.delivered) = (true, true);
        self.newest_delivered = self.newest_delivered.max(number);
        Ok(())
    }

    /// The device sends PUBACK, now or when the hub sends the message again.
    pub fn completed(&mut self, number: u64) {
        if let Some(sent) = self.sent.get_mut(&number) {
            sent.completed = true;
        }
    }

    /// These are known to be completed.
    pub fn known_completed(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.sent.remove(number);
        }
    }

    /// Messages that the hub has accepted and the device has not completed.
    pub fn open(&self) -> impl Iterator<Item = u64> + '_ {
        self.sent.iter().filter(|(_, sent)| sent.accepted && !sent.completed).map(|(number, _)| *number)
    }

    /// How many messages were given to the hub.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.last
    }

    /// How many messages may wait.
    #[must_use]
    pub fn waiting_max(&self) -> usize {
        self.sent.len()
    }

    /// The hub was started again, and so many messages wait.
    ///
    /// # Errors
    /// When fewer wait than are open, or more than can be.
    pub fn check(&mut self, waiting: u64) -> Result<(), Violation> {
        let (open, most) = (self.open().count() as u64, self.sent.len() as u64);
        if waiting < open {
            let numbers: Vec<u64> = self.open().collect();
            return violation(format!("{waiting} cloud messages wait, but {open} are open: {numbers:?}"));
        }
        if waiting > most {
            return violation(format!("{waiting} cloud messages wait, but at most {most} can"));
        }
        if waiting == open {
            // None of those in doubt is there.
            self.sent.retain(|_, sent| sent.accepted && !sent.completed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(count: u64) -> Cloud {
        let mut cloud = Cloud::default();
        for _ in 0..count {
            let number = cloud.send();
            cloud.accepted(number);
        }
        cloud
    }

    #[test]
    fn what_was_accepted_waits_until_it_is_completed() {
        let mut cloud = accepted(2);
        assert!(cloud.check(1).is_err());
        cloud.check(2).unwrap();
        cloud.delivered(1).unwrap();
        cloud.completed(1);
        cloud.check(2).unwrap();
        cloud.check(1).unwrap();
        assert!(cloud.check(2).is_err(), "the hub had shown that the first was gone");
    }

    #[test]
    fn what_is_in_doubt_may_be_there_or_not() {
        for waiting in [0, 1] {
            let mut cloud = accepted(0);
            cloud.send();
            cloud.check(waiting).unwrap();
        }
        let mut cloud = accepted(0);
        cloud.send();
        assert!(cloud.check(2).is_err());
        cloud.check(0).unwrap();
        assert!(cloud.delivered(1).is_err(), "the hub had shown that it was not there");
    }

    #[test]
    fn what_was_delivered_was_accepted() {
        let mut cloud = accepted(0);
        cloud.send();
        cloud.delivered(1).unwrap();
        assert!(cloud.check(0).is_err());
    }

    #[test]
    fn messages_come_in_their_order_the_first_time() {
        let mut cloud = accepted(3);
        cloud.delivered(1).unwrap();
        cloud.delivered(3).unwrap();
        cloud.delivered(1).unwrap();
        assert!(cloud.delivered(2).unwrap_err().0.contains("behind"));
    }

    #[test]
    fn what_is_known_to_be_completed_or_was_refused_does_not_come_back() {
        let mut cloud = accepted(1);
        cloud.delivered(1).unwrap();
        cloud.completed(1);
        cloud.delivered(1).unwrap();
        cloud.known_completed(&[1]);
        assert!(cloud.delivered(1).unwrap_err().0.contains("came back"));
        let refused = cloud.send();
        cloud.refused(refused);
        assert!(cloud.delivered(refused).is_err());
        assert!(cloud.delivered(refused + 1).unwrap_err().0.contains("never sent"));
    }
}
