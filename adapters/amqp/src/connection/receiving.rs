//! Messages from a client (AMQP 1.0 §2.6.12, §2.6.14).

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::session::{LinkState, Partial, Received, Session, Side};
use super::{Action, Connection, Fault, Incoming, LinkId};
use crate::Failure;
use crate::Rule;
use crate::limits::{DELIVERY_TAG_MAX, PARTIAL_MAX};
use crate::performative::{Outcome, Role, Transfer, write};

impl Connection {
    pub(super) fn transfer<'i>(
        &mut self,
        channel: u16,
        transfer: &Transfer<'i>,
        payload: &'i [u8],
        tx: &mut Vec<u8>,
    ) -> Result<Option<Action<'i>>, Fault> {
        let partial_bytes = self.sessions.iter().map(Session::partial_bytes).fold(0, usize::saturating_add);
        let Some(session) = self.session(channel) else { return Err(Rule::NoSession.into()) };
        if !session.take_transfer(tx) {
            return Err(Fault::Session(channel, Rule::Window));
        }
        let link = session.link_at(transfer.handle).ok_or(Fault::Session(channel, Rule::NoLink))?;
        let (id, state) = (link.id(channel), link.state);
        if state == LinkState::Detaching {
            return Ok(None);
        }
        let Side::FromClient { partial, .. } = &mut link.side else {
            return Err(Fault::Session(channel, Rule::Role));
        };
        match partial {
            Some(partial) if !partial.is_same(transfer) => return Err(Fault::Link(id, Rule::Delivery)),
            Some(_) => {}
            None => session.begin_delivery(id, transfer)?,
        }
        session.continue_delivery(id, transfer, payload, partial_bytes, tx)
    }

    /// Says what became of a message; a failure rejects it. Does nothing when the client does not wait for it any more.
    pub fn settle(
        &mut self,
        link: LinkId,
        delivery_id: u32,
        outcome: Result<Outcome, &Failure<'_>>,
        tx: &mut Vec<u8>,
    ) {
        let Some((session, LinkState::Attached)) = self.link(link) else { return };
        let is_it = |received: &Received| received.id == delivery_id && received.serial == link.serial;
        if !session.unsettled_in.iter().any(is_it) || session.settle(delivery_id).is_none() {
            return;
        }
        write::disposition(tx, link.channel, Role::Receiver, (delivery_id, delivery_id), outcome);
        session.top_up(link.serial, tx);
    }
}

impl Partial {
    /// Whether a transfer goes on with this delivery (§2.7.5).
    fn is_same(&self, transfer: &Transfer<'_>) -> bool {
        transfer.delivery_id.is_none_or(|id| id == self.delivery_id)
            && transfer.delivery_tag.is_none_or(|tag| *tag == *self.tag)
    }
}

impl Session {
    /// The first transfer of a delivery.
    fn begin_delivery(&mut self, id: LinkId, transfer: &Transfer<'_>) -> Result<(), Fault> {
        let breach = |rule| Fault::Link(id, rule);
        let delivery_id = transfer.delivery_id.ok_or(breach(Rule::Delivery))?;
        let tag = transfer
            .delivery_tag
            .filter(|tag| tag.len() <= DELIVERY_TAG_MAX)
            .ok_or(breach(Rule::Delivery))?;
        if transfer.resume {
            return Err(breach(Rule::NotImplemented));
        }
        let is_begun = |link: &super::Link| match &link.side {
            Side::FromClient { partial: Some(partial), .. } => partial.delivery_id == delivery_id,
            _ => false,
        };
        if self.unsettled_in.iter().any(|received| received.id == delivery_id)
            || self.links.iter().any(is_begun)
        {
            return Err(breach(Rule::Delivery));
        }
        let Some(link) = self.link(id) else { return Ok(()) };
        let Side::FromClient { credit, delivery_count, partial, .. } = &mut link.side else { return Ok(()) };
        *credit = credit.checked_sub(1).ok_or(breach(Rule::Credit))?;
        *delivery_count = delivery_count.wrapping_add(1);
        *partial = Some(Partial {
            delivery_id,
            tag: tag.into(),
            format: transfer.message_format.unwrap_or(0),
            settled: false,
            payload: Vec::new(),
            is_too_large: false,
        });
        Ok(())
    }

    /// Any transfer of a delivery that has begun.
    fn continue_delivery<'i>(
        &mut self,
        id: LinkId,
        transfer: &Transfer<'i>,
        payload: &'i [u8],
        partial_bytes: usize,
        tx: &mut Vec<u8>,
    ) -> Result<Option<Action<'i>>, Fault> {
        let Some(link) = self.link(id) else { return Ok(None) };
        let Side::FromClient { partial, unsettled, max_message_size, .. } = &mut link.side else {
            return Ok(None);
        };
        let Some(mut begun) = partial.take() else { return Ok(None) };
        if transfer.aborted {
            // Implicitly settled, and never seen (§2.6.14).
            self.top_up(id.serial, tx);
            return Ok(None);
        }
        // Settled once is settled (§2.7.5).
        begun.settled |= transfer.settled.unwrap_or(false);
        let size = begun.payload.len().saturating_add(payload.len());
        // Zero stands for no limit (§2.7.3), and is given to no sender.
        if begun.is_too_large || u64::try_from(size).unwrap_or(u64::MAX) > *max_message_size {
            (begun.is_too_large, begun.payload) = (true, Vec::new());
        } else if transfer.more {
            if partial_bytes.saturating_add(payload.len()) > PARTIAL_MAX {
                return Err(Fault::Link(id, Rule::PartialMax));
            }
            begun.payload.extend_from_slice(payload);
        }
        if transfer.more {
            *partial = Some(begun);
            return Ok(None);
        }
        if begun.settled {
            self.top_up(id.serial, tx);
        } else if !begun.is_too_large {
            *unsettled = unsettled.saturating_add(1);
            self.unsettled_in.push(Received { id: begun.delivery_id, serial: id.serial });
        }
        if begun.is_too_large {
            return Ok(Some(self.reject_too_large(id, &begun, tx)));
        }
        let payload = if begun.payload.is_empty() {
            Cow::Borrowed(payload)
        } else {
            begun.payload.extend_from_slice(payload);
            Cow::Owned(begun.payload)
        };
        let Partial { delivery_id, settled, format, .. } = begun;
        Ok(Some(Action::Message(Incoming { link: id, delivery_id, settled, format, payload })))
    }

    /// Rejected, and the link goes on: Node shows that as MessageTooLargeError.
    fn reject_too_large<'i>(&mut self, link: LinkId, begun: &Partial, tx: &mut Vec<u8>) -> Action<'i> {
        let rule = Rule::MessageSize;
        if !begun.settled {
            let range = (begun.delivery_id, begun.delivery_id);
            write::disposition(tx, self.channel, Role::Receiver, range, Err(&Failure::of(rule)));
            self.top_up(link.serial, tx);
        }
        Action::Refused { link, rule }
    }
}
