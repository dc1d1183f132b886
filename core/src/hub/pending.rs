//! What one connection is owed, in order.
//!
//! Replies leave in the order in which their requests came `[MQTT-4.6.0-2]`, each when what it rests on is safe. A
//! reply at the front that still waits holds back all behind it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
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

/// Nearly all replies are PUBACKs: an entry is made for those, and owns nothing.
#[derive(Clone, Copy, Debug)]
struct Entry {
    until: Until,
    reply: Reply,
}

#[derive(Clone, Copy, Debug)]
enum Reply {
    PubAck(PacketId),
    UnsubAck(PacketId),
    /// The first of `packets`.
    SubAck,
    /// The first of `packets`: a QoS 0 PUBLISH, the answer to a twin request.
    Message,
}

#[derive(Debug)]
pub(super) struct Pending {
    entries: VecDeque<Entry>,
    /// The replies that are more than a packet id, encoded, in the order of their entries.
    packets: VecDeque<Box<[u8]>>,
    /// The number of the entry at the front. Numbers count on for the whole connection, which is too short for 2^64.
    front: u64,
    publishes: usize,
    message_bytes: usize,
}

impl Pending {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: VecDeque::with_capacity(capacity),
            packets: VecDeque::new(),
            front: 0,
            publishes: 0,
            message_bytes: 0,
        }
    }

    /// Puts a PUBACK behind all other replies; gives its number.
    #[inline]
    pub(super) fn puback(&mut self, until: Until, packet_id: PacketId) -> u64 {
        self.publishes = self.publishes.saturating_add(1);
        let number = self.front.wrapping_add(self.entries.len() as u64);
        self.entries.push_back(Entry { until, reply: Reply::PubAck(packet_id) });
        number
    }

    /// Puts an UNSUBACK behind all other replies.
    pub(super) fn unsuback(&mut self, until: Until, packet_id: PacketId) {
        self.entries.push_back(Entry { until, reply: Reply::UnsubAck(packet_id) });
    }

    /// Puts a SUBACK behind all other replies.
    pub(super) fn suback(&mut self, until: Until, packet_id: PacketId, codes: &[SubAckCode]) {
        let mut packet = Vec::new();
        SubAck::encode(packet_id, codes.iter().copied(), &mut packet)
            .expect("a SUBSCRIBE has at least one filter, and the hub bounds how many");
        self.packets.push_back(packet.into());
        self.entries.push_back(Entry { until, reply: Reply::SubAck });
    }

    /// Puts the answer to a twin request behind all other replies.
    pub(super) fn message(&mut self, until: Until, topic: &str, body: &str) {
        let mut packet = Vec::new();
        publish(PublishQoS::AtMostOnce, topic, body.as_bytes(), &mut packet);
        self.message_bytes = self.message_bytes.saturating_add(packet.len());
        self.packets.push_back(packet.into());
        self.entries.push_back(Entry { until, reply: Reply::Message });
    }

    /// The telemetry behind this reply is safe.
    #[inline]
    pub(super) fn stored(&mut self, number: u64) {
        let index = usize::try_from(number.wrapping_sub(self.front)).unwrap_or(usize::MAX);
        if let Some(entry) = self.entries.get_mut(index)
            && entry.until == Until::Stored
        {
            entry.until = Until::Nothing;
        }
    }

    /// Whether no more requests should be read: `publishes` PUBACKs, or twice as many replies of any kind, or
    /// `message_bytes` of answers are owed.
    #[inline]
    pub(super) fn is_full(&self, publishes: usize, message_bytes: usize) -> bool {
        self.publishes >= publishes
            || self.entries.len() >= publishes.saturating_mul(2)
            || self.message_bytes >= message_bytes
    }

    /// Whether nothing is owed.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the reply at the front could go.
    #[inline]
    pub(super) fn is_ready(&self, committed: Revision) -> bool {
        self.entries.front().is_some_and(|entry| entry.until.is_over(committed))
    }

    /// Appends what is ready to `tx`, as long as it is a mere acknowledgement: a message waits for room in the output.
    #[inline]
    pub(super) fn release_acks(&mut self, committed: Revision, tx: &mut Vec<u8>) {
        while let Some(&Entry { until, reply }) = self.entries.front()
            && until.is_over(committed)
        {
            match reply {
                Reply::PubAck(packet_id) => self.send_puback(packet_id, tx),
                Reply::UnsubAck(_) | Reply::SubAck => self.send_other(reply, tx),
                Reply::Message => return,
            }
        }
    }

    /// Appends what is ready to `tx` until that holds `high_water` bytes.
    pub(super) fn release(&mut self, committed: Revision, high_water: usize, tx: &mut Vec<u8>) {
        while let Some(&Entry { until, reply }) = self.entries.front()
            && until.is_over(committed)
            && tx.len() < high_water
        {
            match reply {
                Reply::PubAck(packet_id) => self.send_puback(packet_id, tx),
                Reply::UnsubAck(_) | Reply::SubAck | Reply::Message => self.send_other(reply, tx),
            }
        }
    }

    /// Appends the PUBACK that is at the front.
    #[inline]
    fn send_puback(&mut self, packet_id: PacketId, tx: &mut Vec<u8>) {
        self.entries.pop_front();
        self.front = self.front.wrapping_add(1);
        self.publishes = self.publishes.saturating_sub(1);
        puback(packet_id, tx);
    }

    /// Appends the reply that is at the front, and is none of PUBACK.
    #[inline(never)]
    fn send_other(&mut self, reply: Reply, tx: &mut Vec<u8>) {
        self.entries.pop_front();
        self.front = self.front.wrapping_add(1);
        match reply {
            Reply::PubAck(_) => {}
            Reply::UnsubAck(packet_id) => unsuback(packet_id, tx),
            Reply::SubAck => tx.extend_from_slice(&self.take_packet()),
            Reply::Message => {
                let packet = self.take_packet();
                self.message_bytes = self.message_bytes.saturating_sub(packet.len());
                tx.extend_from_slice(&packet);
            }
        }
    }

    #[cold]
    fn take_packet(&mut self) -> Box<[u8]> {
        self.packets.pop_front().expect("each entry that is more than a packet id has its packet")
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
    let topic = TopicName::new(topic).expect(
        "the hub builds topics of escaped text, bounds request ids and checks topics with properties",
    );
    let publish = Publish { qos, retain: false, topic, payload };
    publish.encode(tx).expect("bodies of the hub are bounded far below 256 MB");
}
