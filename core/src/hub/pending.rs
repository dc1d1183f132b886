//! What one connection is owed, in order.
//!
//! Replies leave in the order in which their requests came `[MQTT-4.6.0-2]`, each when what it rests on is safe. A
//! reply at the front that still waits holds back all behind it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use super::Revision;
use crate::packet::{PacketId, Publish, PublishQoS, SubAck, SubAckCode, TopicName, puback, unsuback};

/// What a reply waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    Nothing,
    /// `stored` of the telemetry that it acknowledges.
    Stored,
    /// `committed` of this revision of the device's record.
    Committed(Revision),
}

#[derive(Debug)]
pub(super) enum Reply {
    PubAck(PacketId),
    SubAck(PacketId, Box<[SubAckCode]>),
    UnsubAck(PacketId),
    /// A QoS 0 PUBLISH: the answer to a twin request.
    Message {
        topic: String,
        body: String,
    },
}

#[derive(Debug)]
struct Entry {
    until: Until,
    reply: Reply,
}

#[derive(Debug)]
pub(super) struct Pending {
    entries: VecDeque<Entry>,
    /// The number of the entry at the front. Numbers go on for the whole connection.
    front: u64,
    publishes: usize,
    body_bytes: usize,
}

impl Pending {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::with_capacity(capacity), front: 0, publishes: 0, body_bytes: 0 }
    }

    /// Puts a reply behind all others; gives its number.
    #[inline]
    pub(super) fn push(&mut self, until: Until, reply: Reply) -> u64 {
        match &reply {
            Reply::PubAck(_) => self.publishes = self.publishes.saturating_add(1),
            Reply::Message { topic, body } => {
                self.body_bytes = self.body_bytes.saturating_add(topic.len()).saturating_add(body.len());
            }
            Reply::SubAck(..) | Reply::UnsubAck(_) => {}
        }
        let number = self.front.saturating_add(self.entries.len() as u64);
        self.entries.push_back(Entry { until, reply });
        number
    }

    /// The telemetry behind this reply is safe.
    #[inline]
    pub(super) fn stored(&mut self, number: u64) {
        let index = number.checked_sub(self.front).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index))
            && entry.until == Until::Stored
        {
            entry.until = Until::Nothing;
        }
    }

    /// Whether no more requests should be read: `publishes` PUBACKs, or twice as many replies of any kind, or
    /// `body_bytes` of answers are owed.
    #[inline]
    pub(super) fn is_full(&self, publishes: usize, body_bytes: usize) -> bool {
        self.publishes >= publishes
            || self.entries.len() >= publishes.saturating_mul(2)
            || self.body_bytes >= body_bytes
    }

    /// Whether the reply at the front could go.
    #[inline]
    pub(super) fn is_ready(&self, committed: Revision) -> bool {
        self.entries.front().is_some_and(|entry| entry.until.is_over(committed))
    }

    /// Whether the reply at the front has a body, so that it waits for room in the output.
    pub(super) fn front_has_body(&self) -> bool {
        matches!(self.entries.front(), Some(Entry { reply: Reply::Message { .. }, .. }))
    }

    /// Appends what is ready to `tx`, as long as it is a mere acknowledgement.
    #[inline]
    pub(super) fn release_acks(&mut self, committed: Revision, tx: &mut Vec<u8>) {
        while self.is_ready(committed) && !self.front_has_body() {
            self.release_front(tx);
        }
    }

    /// Appends what is ready to `tx` until that holds `high_water` bytes.
    pub(super) fn release(&mut self, committed: Revision, high_water: usize, tx: &mut Vec<u8>) {
        while self.is_ready(committed) && tx.len() < high_water {
            self.release_front(tx);
        }
    }

    fn release_front(&mut self, tx: &mut Vec<u8>) {
        let Some(Entry { reply, .. }) = self.entries.pop_front() else { return };
        self.front = self.front.saturating_add(1);
        match reply {
            Reply::PubAck(packet_id) => {
                self.publishes = self.publishes.saturating_sub(1);
                puback(packet_id, tx);
            }
            Reply::SubAck(packet_id, codes) => SubAck::encode(packet_id, codes.iter().copied(), tx)
                .expect("a SUBSCRIBE has at least one filter, and the hub bounds how many"),
            Reply::UnsubAck(packet_id) => unsuback(packet_id, tx),
            Reply::Message { topic, body } => {
                self.body_bytes = self.body_bytes.saturating_sub(topic.len().saturating_add(body.len()));
                publish(PublishQoS::AtMostOnce, &topic, body.as_bytes(), tx);
            }
        }
    }
}

impl Until {
    #[inline]
    fn is_over(self, committed: Revision) -> bool {
        match self {
            Self::Nothing => true,
            Self::Stored => false,
            Self::Committed(revision) => revision <= committed,
        }
    }
}

/// Appends a PUBLISH of the hub's own making. RETAIN is always 0 `[MQTT-3.3.1-9]`.
pub(super) fn publish(qos: PublishQoS, topic: &str, payload: &[u8], tx: &mut Vec<u8>) {
    let topic = TopicName::new(topic)
        .expect("the hub builds topics of escaped text and checks those with properties");
    let publish = Publish { qos, retain: false, topic, payload };
    publish.encode(tx).expect("bodies of the hub are bounded far below 256 MB");
}
