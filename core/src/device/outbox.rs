//! Telemetry that is not acknowledged yet: encoded once, sent again from the same bytes.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

use super::{Limits, SendError};
use crate::packet::{PacketId, Publish, PublishQoS, TopicName};
use crate::session::PacketIds;

/// Names a message that the device has taken over, until its fate is told by `Action::Acknowledged`.
///
/// Tickets count up from 1 and are not used twice by one device machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Bit 3 of the first byte of a PUBLISH (MQTT 3.1.1 §3.3.1.1).
const DUP: u8 = 0x08;
/// Fixed header, length of the topic and packet id at most (MQTT 3.1.1 §3.3).
const OVERHEAD: usize = 5 + 2 + 2;

/// A queue of PUBLISH packets in one buffer, oldest first.
///
/// The first `sent` of them went out on the present connection; each has its packet id since it was first sent, and
/// DUP is set in its bytes right after, so that sending again is copying again.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// What was freed, the packets, nothing else.
    bytes: Vec<u8>,
    /// Where in the stream of all packets ever queued `bytes` starts.
    origin: usize,
    entries: VecDeque<Entry>,
    sent: usize,
    last_ticket: u64,
}

#[derive(Debug)]
struct Entry {
    ticket: Ticket,
    /// In the stream of all packets ever queued. Wraps; only differences count.
    at: usize,
    length: usize,
    /// In the packet.
    id_at: usize,
    id: Option<PacketId>,
    /// By a PUBACK out of turn; the entry leaves when all before it have left.
    acknowledged: bool,
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the queued packets.
    pub(super) fn size(&self) -> usize {
        self.bytes.len().saturating_sub(self.freed())
    }

    /// Packets that were sent on the present connection and not acknowledged.
    pub(super) fn in_flight(&self) -> usize {
        self.entries.iter().take(self.sent).filter(|entry| !entry.acknowledged).count()
    }

    /// Whether `transmit` would send something if `tx` had room.
    pub(super) fn has_sendable(&self, window: usize) -> bool {
        self.sent < self.entries.len().min(window)
    }

    /// Whether a packet that is not acknowledged carries `id`.
    pub(super) fn holds(&self, id: PacketId) -> bool {
        // Ids are given in turn, so none stands behind the first entry without one.
        self.entries.iter().map_while(|entry| entry.id).any(|held| held == id)
    }

    /// Queues a message.
    pub(super) fn push(
        &mut self,
        topic: TopicName<'_>,
        payload: &[u8],
        limits: &Limits,
    ) -> Result<Ticket, SendError> {
        let most = OVERHEAD.saturating_add(topic.as_bytes().len()).saturating_add(payload.len());
        let size = self.size().saturating_add(most);
        if self.entries.len() >= limits.outbox_messages || size > limits.outbox_bytes {
            return Err(SendError::OutboxFull);
        }
        self.make_room(most, limits.outbox_bytes);
        let start = self.bytes.len();
        let qos = PublishQoS::AtLeastOnce { packet_id: PacketId::MIN, dup: false };
        let publish = Publish { qos, retain: false, topic, payload };
        publish.encode(&mut self.bytes).map_err(|_| SendError::TooLarge)?;
        let length = self.bytes.len().saturating_sub(start);
        self.last_ticket = self.last_ticket.saturating_add(1);
        let ticket = Ticket(self.last_ticket);
        self.entries.push_back(Entry {
            ticket,
            at: self.origin.wrapping_add(start),
            length,
            id_at: length.saturating_sub(payload.len()).saturating_sub(2),
            id: None,
            acknowledged: false,
        });
        Ok(ticket)
    }

    /// Appends what may be sent now: at most `window` packets without PUBACK, and none once `tx` holds `high_water`
    /// bytes. Those that were sent on an earlier connection come first, in order, with their packet id and DUP
    /// `[MQTT-4.4.0-1]`.
    pub(super) fn transmit(
        &mut self,
        limits: &Limits,
        ids: &mut PacketIds,
        in_use_elsewhere: impl Fn(PacketId) -> bool,
        tx: &mut Vec<u8>,
    ) {
        while self.has_sendable(limits.window) && tx.len() < limits.tx_high_water {
            let known = self.entries.get(self.sent).and_then(|entry| entry.id);
            let id = known.or_else(|| ids.allocate(|id| self.holds(id) || in_use_elsewhere(id)));
            let (Some(entry), Some(id)) = (self.entries.get_mut(self.sent), id) else { return };
            entry.id = Some(id);
            self.sent = self.sent.saturating_add(1);
            if entry.acknowledged {
                continue;
            }
            let start = entry.at.wrapping_sub(self.origin);
            let packet = self.bytes.get_mut(start..start.saturating_add(entry.length)).unwrap_or_default();
            if let Some(field) = packet.get_mut(entry.id_at..entry.id_at.saturating_add(2)) {
                field.copy_from_slice(&id.get().to_be_bytes());
            }
            tx.extend_from_slice(packet);
            if let Some(first) = packet.first_mut() {
                *first |= DUP;
            }
        }
    }

    /// Takes a PUBACK; `None` where no packet of this connection waits for it.
    #[inline]
    pub(super) fn acknowledge(&mut self, id: PacketId) -> Option<Ticket> {
        let first = self.entries.front()?;
        if self.sent == 0 || first.id != Some(id) {
            return self.acknowledge_out_of_turn(id);
        }
        let ticket = first.ticket;
        self.leave();
        // Those that were waiting for this one.
        while self.entries.front().is_some_and(|next| next.acknowledged) {
            self.leave();
        }
        if self.entries.is_empty() {
            self.origin = self.origin.wrapping_add(self.bytes.len());
            self.bytes.clear();
        }
        Some(ticket)
    }

    #[cold]
    fn acknowledge_out_of_turn(&mut self, id: PacketId) -> Option<Ticket> {
        let mut sent = self.entries.iter_mut().take(self.sent);
        let entry = sent.find(|entry| entry.id == Some(id) && !entry.acknowledged)?;
        entry.acknowledged = true;
        Some(entry.ticket)
    }

    /// The packet at the front leaves.
    #[inline]
    fn leave(&mut self) {
        self.entries.pop_front();
        self.sent = self.sent.saturating_sub(1);
    }

    /// The connection is gone: all that was not acknowledged is to be sent again.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Bytes at the front of the buffer that belong to no packet any more.
    fn freed(&self) -> usize {
        match self.entries.front() {
            Some(first) => first.at.wrapping_sub(self.origin),
            None => self.bytes.len(),
        }
    }

    /// Makes room for `length` bytes: by moving the packets to the front where that frees at least as much as it
    /// moves, else by growing. So a byte is moved once on average, and the buffer is at most twice the limit.
    fn make_room(&mut self, length: usize, limit: usize) {
        if self.bytes.capacity().saturating_sub(self.bytes.len()) >= length {
            return;
        }
        let freed = self.freed();
        if freed >= self.size() {
            self.bytes.drain(..freed);
            self.origin = self.origin.wrapping_add(freed);
        }
        let needed = self.bytes.len().saturating_add(length);
        let wanted = needed.max(needed.saturating_mul(2).min(limit.saturating_mul(2)));
        self.bytes.reserve_exact(wanted.saturating_sub(self.bytes.len()));
    }
}
