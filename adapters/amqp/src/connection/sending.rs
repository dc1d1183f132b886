//! Messages to a client (AMQP 1.0 §2.6.7, §2.6.12, §2.6.14).
//!
//! A message is written once, into the caller's buffer, behind the head of its transfer. One that is larger than a frame of
//! the client, or than the session's window, is cut afterwards: events are small, and pay nothing for it.

use alloc::vec::Vec;

use super::session::{LinkState, Sent, Session, Side, Unsent};
use super::{Connection, LinkId};
use crate::limits::UNSETTLED_OUT_MAX;
use crate::performative::write;

/// How the client names a delivery when it settles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Nobody waits for the outcome. The tag is the delivery-id.
    Untracked,
    /// The outcome comes as [`Action::Outcome`](super::Action::Outcome) with this tag; 16 bytes, because .NET reads a lock
    /// token from it.
    Tracked([u8; 16]),
}

impl Connection {
    /// So many messages may be sent on this link now, as far as credit goes; 0 while a message waits for the window.
    #[must_use]
    pub fn credit(&self, id: LinkId) -> u32 {
        let Some(session) = self.sessions.iter().find(|session| session.channel == id.channel) else {
            return 0;
        };
        if session.is_discarding || session.unsent.is_some() || session.remote_window == 0 {
            return 0;
        }
        let link = session.links.iter().find(|link| link.handle == id.handle && link.serial == id.serial);
        match link.map(|link| (link.state, &link.side)) {
            Some((LinkState::Attached, Side::ToClient { credit, .. })) => *credit,
            _ => 0,
        }
    }

    /// Sends a message, whose sections `write` appends; false, and nothing is written, when there is no credit or window.
    pub fn send(&mut self, id: LinkId, tag: Tag, tx: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let frame_max = self.peer_frame_max;
        let Some(session) = self.sessions.iter_mut().find(|session| session.channel == id.channel) else {
            return false;
        };
        let is_full = session.remote_window == 0
            || session.unsent.is_some()
            || tag != Tag::Untracked && session.unsettled_out.len() >= UNSETTLED_OUT_MAX;
        let Some(link) = session.links.iter_mut().find(|link| link.serial == id.serial) else { return false };
        // In settle mode settled no disposition comes (§2.8.2).
        let settled = link.snd_settle_mode == 1;
        let Side::ToClient { delivery_count, credit, .. } = &mut link.side else { return false };
        if is_full || *credit == 0 || link.state != LinkState::Attached {
            return false;
        }
        *credit = credit.wrapping_sub(1);
        *delivery_count = delivery_count.wrapping_add(1);
        let delivery_id = session.next_delivery_id;
        session.next_delivery_id = delivery_id.wrapping_add(1);
        let count = delivery_id.to_be_bytes();
        let tag_bytes: &[u8] = match &tag {
            Tag::Untracked => &count,
            Tag::Tracked(tag) => tag,
        };
        let begun = write::begin_transfer(tx, id.channel, id.handle, delivery_id, tag_bytes, settled);
        let payload = tx.len();
        write(tx);
        if write::end_transfer(tx, &begun, false) > frame_max {
            session.unsent = Some(Unsent {
                handle: id.handle,
                delivery_id,
                tag: tag_bytes.into(),
                settled,
                payload: tx.split_off(payload),
                sent: 0,
            });
            tx.truncate(begun.start());
            write_unsent(session, frame_max, tx);
        } else {
            session.next_outgoing_id = session.next_outgoing_id.wrapping_add(1);
            session.remote_window = session.remote_window.wrapping_sub(1);
        }
        match tag {
            Tag::Tracked(tag) if !settled => {
                session.unsettled_out.push_back(Sent { id: delivery_id, link: id, tag })
            }
            Tag::Tracked(_) | Tag::Untracked => {}
        }
        true
    }

    /// Whether the client wants what credit is left back (§2.6.7): send what there is, then call [`drained`](Self::drained).
    #[must_use]
    pub fn wants_drain(&mut self, id: LinkId) -> bool {
        let Some((session, LinkState::Attached)) = self.link(id) else { return false };
        matches!(session.link(id).map(|link| &link.side), Some(Side::ToClient { drain: true, .. }))
    }

    /// There is nothing more to send on this link now: gives back the credit of a client that drains, else nothing.
    pub fn drained(&mut self, id: LinkId, tx: &mut Vec<u8>) {
        let Some((session, LinkState::Attached)) = self.link(id) else { return };
        if session.unsent.is_some() {
            return;
        }
        let Some(link) = session.link(id) else { return };
        let Side::ToClient { delivery_count, credit, drain: drain @ true } = &mut link.side else { return };
        *delivery_count = delivery_count.wrapping_add(*credit);
        *credit = 0;
        *drain = false;
        let flow = write::LinkFlow { drain: true, ..link.flow() };
        session.write_flow(Some(flow), tx);
    }
}

/// Sends as much of a message that was cut as the window has room for.
pub(super) fn write_unsent(session: &mut Session, frame_max: u32, tx: &mut Vec<u8>) {
    let Some(mut unsent) = session.unsent.take() else { return };
    let frame_max = usize::try_from(frame_max).unwrap_or(usize::MAX);
    while session.remote_window > 0 {
        let begun = write::begin_transfer(
            tx,
            session.channel,
            unsent.handle,
            unsent.delivery_id,
            &unsent.tag,
            unsent.settled,
        );
        let head = tx.len().saturating_sub(begun.start());
        // Every frame has room for its head: it has 75 bytes at most, and the smallest frame 512.
        let end = unsent.sent.saturating_add(frame_max.saturating_sub(head)).min(unsent.payload.len());
        tx.extend_from_slice(unsent.payload.get(unsent.sent..end).unwrap_or_default());
        let more = end < unsent.payload.len();
        write::end_transfer(tx, &begun, more);
        unsent.sent = end;
        session.next_outgoing_id = session.next_outgoing_id.wrapping_add(1);
        session.remote_window = session.remote_window.wrapping_sub(1);
        if !more {
            return;
        }
    }
    session.unsent = Some(unsent);
}
