//! Cloud messages that the application has not completed, and the PUBACKs that are owed for them.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::packet::{self, PacketId};
use crate::rule::Rule;

/// Names a cloud message that the application is to complete with `Device::complete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delivery(Key);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A QoS 0 message: there is nothing to acknowledge.
    Unacknowledged,
    Owed(u64),
}

/// Why a cloud message cannot be completed. Nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompleteError {
    /// The message was completed before, or the hub has dropped the session that it came in. In the second case the
    /// hub delivers it once more, as another delivery.
    #[error(
        "nobody waits for this delivery: it was completed, or the hub will deliver the message once more"
    )]
    Gone,
}

impl CompleteError {
    /// The rule that stands in the way.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Gone => Rule::AnswerOnce,
        }
    }
}

impl Delivery {
    /// The delivery of a QoS 0 message.
    pub(super) const UNACKNOWLEDGED: Self = Self(Key::Unacknowledged);
}

/// What an arriving QoS 1 message is to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    /// Not known yet: to be delivered.
    New(Delivery),
    /// The application has it, or had it: not to be delivered again.
    Known,
    /// One more than the device may hold.
    TooMany,
}

/// The PUBACKs that the device owes, in order of receipt `[MQTT-4.6.0-2]`.
///
/// The first `parked` entries came on an earlier connection and wait to be sent again by the hub, which is bound to
/// do that `[MQTT-4.4.0-1]`; they are told by packet id and DUP. So what the application completes while the
/// connection is down is acknowledged when the hub asks again, and the application does not see it twice.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    owed: VecDeque<Owed>,
    parked: usize,
    last_key: u64,
}

#[derive(Clone, Copy, Debug)]
struct Owed {
    key: u64,
    id: PacketId,
    completed: bool,
}

impl Deliveries {
    /// Messages that the application has and has not completed.
    pub(super) fn len(&self) -> usize {
        self.owed.iter().filter(|owed| !owed.completed).count()
    }

    /// Takes the packet id of a message for the application; at most `limit` entries are held.
    pub(super) fn receive(&mut self, id: PacketId, dup: bool, limit: usize) -> Receipt {
        if let Some(known) = self.owed.iter().position(|owed| owed.id == id).filter(|_| dup) {
            if known < self.parked {
                self.revive(known);
            }
            return Receipt::Known;
        }
        match self.push(id, false, limit) {
            Some(key) => Receipt::New(Delivery(Key::Owed(key))),
            None => Receipt::TooMany,
        }
    }

    /// Takes the packet id of a message that the application has no part in; whether it fits into `limit`.
    pub(super) fn receive_completed(&mut self, id: PacketId, limit: usize) -> bool {
        self.push(id, true, limit).is_some()
    }

    /// The application is done with a message.
    pub(super) fn complete(&mut self, delivery: Delivery) -> Result<(), CompleteError> {
        let Key::Owed(key) = delivery.0 else { return Ok(()) };
        let mut open = self.owed.iter_mut().filter(|owed| !owed.completed);
        open.find(|owed| owed.key == key).ok_or(CompleteError::Gone)?.completed = true;
        Ok(())
    }

    /// Appends the PUBACKs whose turn it is.
    pub(super) fn release(&mut self, tx: &mut Vec<u8>) {
        while self.owed.get(self.parked).is_some_and(|owed| owed.completed) {
            if let Some(owed) = self.owed.remove(self.parked) {
                packet::puback(owed.id, tx);
            }
        }
    }

    /// The connection is gone.
    pub(super) fn park(&mut self) {
        self.parked = self.owed.len();
    }

    /// The session is gone, and with it the meaning of packet ids: the hub delivers anew what was not acknowledged.
    pub(super) fn forget_parked(&mut self) {
        self.owed.drain(..self.parked);
        self.parked = 0;
    }

    fn push(&mut self, id: PacketId, completed: bool, limit: usize) -> Option<u64> {
        // Another message came under the id, so the earlier one will not come again.
        if let Some(replaced) = self.owed.iter().take(self.parked).position(|owed| owed.id == id) {
            self.forget(replaced);
        }
        if self.owed.len() >= limit {
            if self.parked == 0 {
                return None;
            }
            // The oldest had the most chances to come again.
            self.forget(0);
        }
        self.last_key = self.last_key.saturating_add(1);
        self.owed.push_back(Owed { key: self.last_key, id, completed });
        Some(self.last_key)
    }

    fn forget(&mut self, parked: usize) {
        self.owed.remove(parked);
        self.parked = self.parked.saturating_sub(1);
    }

    fn revive(&mut self, parked: usize) {
        if let Some(owed) = self.owed.remove(parked) {
            self.parked = self.parked.saturating_sub(1);
            self.owed.push_back(owed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> PacketId {
        PacketId::new(id).unwrap()
    }

    fn new(receipt: Receipt) -> Delivery {
        match receipt {
            Receipt::New(delivery) => delivery,
            other => panic!("{other:?}"),
        }
    }

    fn released(deliveries: &mut Deliveries) -> Vec<u8> {
        let mut tx = Vec::new();
        deliveries.release(&mut tx);
        tx.chunks(4).map(|puback| puback[3]).collect()
    }

    #[test]
    fn pubacks_leave_in_order_of_receipt() {
        let mut deliveries = Deliveries::default();
        let first = new(deliveries.receive(id(1), false, 50));
        let second = new(deliveries.receive(id(2), false, 50));
        assert!(deliveries.receive_completed(id(3), 50));
        deliveries.complete(second).unwrap();
        assert!(released(&mut deliveries).is_empty());
        deliveries.complete(first).unwrap();
        assert_eq!(released(&mut deliveries), [1, 2, 3]);
    }

    #[test]
    fn a_message_is_completed_once() {
        let mut deliveries = Deliveries::default();
        let first = new(deliveries.receive(id(1), false, 50));
        let second = new(deliveries.receive(id(2), false, 50));
        deliveries.complete(second).unwrap();
        assert_eq!(deliveries.complete(second), Err(CompleteError::Gone));
        deliveries.complete(first).unwrap();
        assert_eq!(released(&mut deliveries), [1, 2]);
        assert_eq!(deliveries.complete(first), Err(CompleteError::Gone));
    }

    #[test]
    fn a_message_that_comes_again_takes_its_new_place_in_the_order() {
        let mut deliveries = Deliveries::default();
        let first = new(deliveries.receive(id(1), false, 50));
        let second = new(deliveries.receive(id(2), false, 50));
        deliveries.park();
        deliveries.complete(first).unwrap();
        assert!(released(&mut deliveries).is_empty(), "not before the hub asks again");
        assert_eq!(deliveries.receive(id(2), true, 50), Receipt::Known);
        assert_eq!(deliveries.receive(id(1), true, 50), Receipt::Known);
        assert!(released(&mut deliveries).is_empty());
        deliveries.complete(second).unwrap();
        assert_eq!(released(&mut deliveries), [2, 1]);
    }

    #[test]
    fn a_new_message_under_the_id_of_a_parked_one_is_delivered() {
        let mut deliveries = Deliveries::default();
        let old = new(deliveries.receive(id(1), false, 50));
        deliveries.park();
        let fresh = new(deliveries.receive(id(1), false, 50));
        assert_eq!(deliveries.complete(old), Err(CompleteError::Gone));
        deliveries.complete(fresh).unwrap();
        assert_eq!(released(&mut deliveries), [1]);
    }

    #[test]
    fn without_a_session_a_message_with_dup_is_a_new_one() {
        let mut deliveries = Deliveries::default();
        let old = new(deliveries.receive(id(1), false, 50));
        deliveries.park();
        deliveries.forget_parked();
        new(deliveries.receive(id(1), true, 50));
        assert_eq!(deliveries.complete(old), Err(CompleteError::Gone));
    }

    #[test]
    fn the_number_of_open_messages_is_bounded_and_parked_ones_give_way() {
        let mut deliveries = Deliveries::default();
        let old = new(deliveries.receive(id(1), false, 2));
        deliveries.park();
        new(deliveries.receive(id(2), false, 2));
        new(deliveries.receive(id(3), false, 2));
        assert_eq!(deliveries.complete(old), Err(CompleteError::Gone));
        assert_eq!(deliveries.receive(id(4), false, 2), Receipt::TooMany);
        assert!(!deliveries.receive_completed(id(5), 2));
        assert_eq!(deliveries.len(), 2);
    }
}
