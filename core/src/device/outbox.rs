//! Telemetry that is not acknowledged yet: encoded once, sent again from the same bytes.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::time::Duration;

use super::{Limits, OutboxPolicy, SendError};
use crate::packet::{PacketId, Publish, PublishQoS, TopicName};
use crate::rule::Rule;
use crate::session::PacketIds;
use crate::time::Instant;

mod journal;
mod snapshot;

use journal::Journal;
pub use journal::Save;
pub use snapshot::RestoreError;

/// Names a message that the device has taken over, until its fate is told by `Action::Acknowledged` or
/// `Action::Dropped`.
///
/// Tickets count up from 1 and are not used twice by one device machine, nor by one that was restored from its snapshot.
/// So an application can store the [number](Self::number) of a ticket beside what the message was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// The ticket as a number, to be stored.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The ticket with this [number](Self::number).
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why a message was given up that the device had taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    /// The outbox was full, and a newer message took its place ([`OutboxPolicy::DropOldest`]).
    #[error(
        "the outbox was full, and a newer message took its place; raise Limits::outbox_messages or outbox_bytes"
    )]
    Displaced,
}

impl DropReason {
    /// The rule that stands behind it.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Displaced => Rule::OutboxFull,
        }
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
    /// The packets in order, and between them what those left that are gone.
    bytes: Vec<u8>,
    /// How many of these bytes are the packets.
    live: usize,
    entries: VecDeque<Entry>,
    sent: usize,
    last_ticket: u64,
    /// Messages that were given up, until the application is told.
    dropped: VecDeque<Ticket>,
    /// What the application has saved, where it saves changes.
    journal: Option<Journal>,
}

#[derive(Debug)]
struct Entry {
    ticket: Ticket,
    /// In `bytes`.
    at: usize,
    length: usize,
    /// In the packet.
    id_at: usize,
    id: Option<PacketId>,
    /// When its PUBACK is due, since it was sent on the present connection.
    due: Instant,
    /// By a PUBACK out of turn; the entry leaves when all before it have left.
    acknowledged: bool,
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the queued packets.
    pub(super) const fn size(&self) -> usize {
        self.live
    }

    /// Whether the message waits for its PUBACK, or to be sent.
    pub(super) fn waits(&self, ticket: Ticket) -> bool {
        let found = self.entries.binary_search_by_key(&ticket, |entry| entry.ticket);
        found.ok().and_then(|index| self.entries.get(index)).is_some_and(|entry| !entry.acknowledged)
    }

    /// The messages whose fate is open, oldest first.
    pub(super) fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.entries.iter().filter(|entry| !entry.acknowledged).map(|entry| entry.ticket)
    }

    /// When the first PUBACK of the present connection is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        // PUBACKs are due in the order of sending, and the front is never acknowledged.
        self.entries.front().filter(|_| self.sent > 0).map(|front| front.due)
    }

    /// Whether a PUBACK is overdue. `unwritten` is how many bytes of the output were not written yet: a packet among them
    /// gets its time anew, because a slow link is not a lost PUBACK. A link on which nothing moves is found by the ping.
    pub(super) fn is_overdue(&mut self, now: Instant, patience: Duration, unwritten: usize) -> bool {
        if self.deadline().is_none_or(|due| due > now) {
            return false;
        }
        let sent = self.entries.iter().take(self.sent);
        let after_front = sent.skip(1).map(|entry| entry.length).fold(0, usize::saturating_add);
        let is_written = unwritten <= after_front;
        if !is_written {
            self.entries.iter_mut().take(self.sent).for_each(|entry| entry.due = now.after(patience));
        }
        is_written
    }

    /// Whether the application is to be told of a message that was given up.
    #[inline]
    pub(super) fn has_dropped(&self) -> bool {
        !self.dropped.is_empty()
    }

    /// The next message that was given up.
    pub(super) fn poll_dropped(&mut self) -> Option<Ticket> {
        self.dropped.pop_front()
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

    /// As [`holds`](Self::holds), for an id that comes behind `last`, the last that was given. Ids are given in turn, so
    /// one that was not given since the packet at the front needs no closer look.
    #[inline]
    fn holds_next(&self, id: PacketId, last: u16) -> bool {
        let Some(first) = self.entries.front().and_then(|entry| entry.id) else { return false };
        let since_first = |id: u16| id.wrapping_sub(first.get());
        since_first(id.get()) <= since_first(last) && self.holds(id)
    }

    /// Queues a message.
    pub(super) fn push(
        &mut self,
        topic: TopicName<'_>,
        payload: &[u8],
        policy: OutboxPolicy,
        limits: &Limits,
    ) -> Result<Ticket, SendError> {
        let most = OVERHEAD.saturating_add(topic.as_bytes().len()).saturating_add(payload.len());
        if !self.has_room(most, limits) {
            if policy == OutboxPolicy::Reject || !self.could_have_room(most, limits) {
                return Err(SendError::OutboxFull);
            }
            while !self.has_room(most, limits) && self.drop_oldest() {}
        }
        self.make_room(most, limits.outbox_bytes);
        let start = self.bytes.len();
        let qos = PublishQoS::AtLeastOnce { packet_id: PacketId::MIN, dup: false };
        let publish = Publish { qos, retain: false, topic, payload };
        publish.encode(&mut self.bytes).map_err(|_| SendError::TooLarge)?;
        let length = self.bytes.len().saturating_sub(start);
        self.live = self.live.saturating_add(length);
        self.last_ticket = self.last_ticket.saturating_add(1);
        let ticket = Ticket(self.last_ticket);
        self.entries.push_back(Entry {
            ticket,
            at: start,
            length,
            id_at: length.saturating_sub(payload.len()).saturating_sub(2),
            id: None,
            due: Instant::default(),
            acknowledged: false,
        });
        Ok(ticket)
    }

    /// Appends what may be sent now: at most `window` packets without PUBACK, and none once `tx` holds `high_water`
    /// bytes. Those that were sent on an earlier connection come first, in order, with their packet id and DUP
    /// `[MQTT-4.4.0-1]`. Their PUBACKs are due at `due`.
    pub(super) fn transmit(
        &mut self,
        due: Instant,
        limits: &Limits,
        ids: &mut PacketIds,
        in_use_elsewhere: impl Fn(PacketId) -> bool,
        tx: &mut Vec<u8>,
    ) {
        while self.has_sendable(limits.window) && tx.len() < limits.tx_high_water {
            let known = self.entries.get(self.sent).and_then(|entry| entry.id);
            let last = ids.last();
            let in_use = |id| self.holds_next(id, last) || in_use_elsewhere(id);
            let id = known.or_else(|| ids.allocate(in_use));
            let (Some(entry), Some(id)) = (self.entries.get_mut(self.sent), id) else { return };
            entry.id = Some(id);
            entry.due = due;
            self.sent = self.sent.saturating_add(1);
            if entry.acknowledged {
                continue;
            }
            let packet = self.bytes.get_mut(entry.range()).unwrap_or_default();
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
        self.note_gone(ticket);
        self.leave();
        self.leave_acknowledged();
        if self.entries.is_empty() {
            self.bytes.clear();
        }
        Some(ticket)
    }

    #[cold]
    fn acknowledge_out_of_turn(&mut self, id: PacketId) -> Option<Ticket> {
        let mut sent = self.entries.iter_mut().take(self.sent);
        let entry = sent.find(|entry| entry.id == Some(id) && !entry.acknowledged)?;
        entry.acknowledged = true;
        let ticket = entry.ticket;
        self.note_gone(ticket);
        Some(ticket)
    }

    /// Those leave that were acknowledged and waited for the one before them: the front is never acknowledged.
    #[inline]
    fn leave_acknowledged(&mut self) {
        while self.entries.front().is_some_and(|next| next.acknowledged) {
            self.leave();
        }
    }

    /// The packet at the front leaves.
    #[inline]
    fn leave(&mut self) {
        let length = self.entries.pop_front().map_or(0, |entry| entry.length);
        self.live = self.live.saturating_sub(length);
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

    fn has_room(&self, length: usize, limits: &Limits) -> bool {
        let size = self.live.saturating_add(length);
        self.entries.len() < limits.outbox_messages && size <= limits.outbox_bytes
    }

    /// Whether there would be room if all that is not in flight were dropped.
    fn could_have_room(&self, length: usize, limits: &Limits) -> bool {
        let in_flight = self.entries.iter().take(self.sent).map(|entry| entry.length);
        let size = in_flight.fold(length, usize::saturating_add);
        self.sent < limits.outbox_messages && size <= limits.outbox_bytes
    }

    /// Gives up the oldest message that is not in flight; false where there is none.
    fn drop_oldest(&mut self) -> bool {
        let Some(entry) = self.entries.remove(self.sent) else { return false };
        self.live = self.live.saturating_sub(entry.length);
        if !entry.acknowledged {
            self.note_gone(entry.ticket);
            self.dropped.push_back(entry.ticket);
        }
        if self.sent == 0 {
            self.leave_acknowledged();
        }
        true
    }

    /// Makes room for `length` bytes: by moving the packets to the front where that frees at least as much as it
    /// moves, else by growing. So a byte is moved once on average, and the buffer is at most twice the limit.
    fn make_room(&mut self, length: usize, limit: usize) {
        if self.bytes.capacity().saturating_sub(self.bytes.len()) >= length {
            return;
        }
        if self.bytes.len().saturating_sub(self.live) >= self.live {
            self.close_up();
        }
        let needed = self.bytes.len().saturating_add(length);
        let wanted = needed.max(needed.saturating_mul(2).min(limit.saturating_mul(2)));
        self.bytes.reserve_exact(wanted.saturating_sub(self.bytes.len()));
    }

    /// Moves the packets together, to the front.
    fn close_up(&mut self) {
        let mut end = 0_usize;
        for entry in &mut self.entries {
            self.bytes.copy_within(entry.range(), end); // which lies in front of it
            entry.at = end;
            end = end.saturating_add(entry.length);
        }
        self.bytes.truncate(end);
    }
}

impl Entry {
    /// Where in `Outbox::bytes` the packet stands.
    fn range(&self) -> Range<usize> {
        self.at..self.at.saturating_add(self.length)
    }
}
