//! Links come and go (AMQP 1.0 §2.6.3 to §2.6.6).

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::session::{Link, LinkState, Side, Termini};
use super::{Action, AttachRequest, Connection, Fault, LinkId};
use crate::Failure;
use crate::Rule;
use crate::limits::{ADDRESS_MAX, FILTER_MAX, HANDLE_MAX, LINK_NAME_MAX, LINKS_MAX};
use crate::performative::{Attach, Detach, Flow, Role, Terminus, write};

/// On what terms a link is attached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grant<'a> {
    /// The address of our side, where it is not the one that was asked for.
    pub address: Option<&'a str>,
    /// The largest message that the client may send, or will be sent.
    pub max_message_size: u64,
}

impl Connection {
    /// The client attaches a link.
    pub(super) fn attach<'i>(
        &mut self,
        channel: u16,
        attach: &Attach<'i>,
        tx: &mut Vec<u8>,
    ) -> Result<Option<Action<'i>>, Fault> {
        let breach = |rule| Fault::Session(channel, rule);
        if self.sessions.iter().map(|session| session.links.len()).fold(0, usize::saturating_add) >= LINKS_MAX
        {
            return Err(breach(Rule::LinksMax));
        }
        let serial = self.next_serial;
        let Some(session) = self.session(channel) else { return Err(Rule::NoSession.into()) };
        if attach.handle > HANDLE_MAX.min(session.handle_max) {
            return Err(Rule::HandleMax.into());
        }
        if session.link_at(attach.handle).is_some() {
            return Err(breach(Rule::HandleInUse));
        }
        if attach.name.len() > LINK_NAME_MAX {
            return Err(breach(Rule::LinkName));
        }
        let is_twin = |link: &Link| *link.name == *attach.name && link.role() == attach.role;
        let has_twin = session.links.iter().any(is_twin);
        let refusal = if has_twin { Some(Rule::LinkName) } else { refusal(attach) };
        let link = Link::new(attach, serial, refusal.is_some());
        let id = link.id(channel);
        session.links.push(link);
        self.next_serial = self.next_serial.wrapping_add(1);
        if let Some(rule) = refusal {
            self.refuse(id, &Failure::of(rule), tx);
            return Ok(None);
        }
        Ok(Some(Action::Attach(AttachRequest {
            link: id,
            name: attach.name,
            role: attach.role,
            source: attach.source,
            target: attach.target,
            desired_capabilities: attach.desired_capabilities,
            properties: attach.properties,
        })))
    }

    /// Attaches a link that a client asked for. One that sends is given credit at once: no client sends before.
    pub fn accept(&mut self, link: LinkId, grant: &Grant<'_>, tx: &mut Vec<u8>) {
        if !self.write_attach(link, grant, tx) {
            return;
        }
        let Some((session, _)) = self.link(link) else { return };
        let Some(found) = session.link(link) else { return };
        found.state = LinkState::Attached;
        if let Side::FromClient { max_message_size, .. } = &mut found.side {
            *max_message_size = grant.max_message_size;
        }
        session.top_up(link.serial, tx);
    }

    /// Refuses a link that a client asked for: attach with both termini, then detach. Clients take this one of the ways in
    /// which it can be done.
    pub fn refuse(&mut self, link: LinkId, failure: &Failure<'_>, tx: &mut Vec<u8>) {
        if self.write_attach(link, &Grant::default(), tx) {
            self.detach(link, failure, tx);
        }
    }

    /// Our answer to an attach that waits for it; false if there is none, or it cannot be sent.
    fn write_attach(&mut self, id: LinkId, grant: &Grant<'_>, tx: &mut Vec<u8>) -> bool {
        let frame_max = self.peer_frame_max;
        let Some((session, LinkState::Attaching)) = self.link(id) else { return false };
        let (start, channel) = (tx.len(), session.channel);
        let Some(link) = session.link(id) else { return false };
        if link.write_attach(channel, grant.address, grant.max_message_size, tx) > frame_max {
            tx.truncate(start);
            self.break_session(channel, Rule::FrameMaxSmall, tx);
            self.broken.push_back((channel, Rule::FrameMaxSmall));
            return false;
        }
        link.state = LinkState::Attached;
        true
    }

    /// Ends a link for this reason. What was unsettled on it is gone.
    pub fn detach(&mut self, id: LinkId, failure: &Failure<'_>, tx: &mut Vec<u8>) {
        let Some((session, state)) = self.link(id) else { return };
        match state {
            LinkState::Attaching => return self.refuse(id, failure, tx),
            LinkState::Detaching => return,
            LinkState::Attached => {}
        }
        session.forget_deliveries(id.serial);
        let Some(link) = session.link(id) else { return };
        link.state = LinkState::Detaching;
        // Nothing is asked of them any more.
        *link.termini = Termini::default();
        write::detach(tx, id.channel, id.handle, true, Some(failure));
    }

    /// The client detaches, or answers our detach.
    pub(super) fn detached<'i>(
        &mut self,
        channel: u16,
        detach: &Detach<'i>,
        tx: &mut Vec<u8>,
    ) -> Result<Option<Action<'i>>, Fault> {
        let none = Fault::Session(channel, Rule::NoLink);
        let Some(session) = self.session(channel) else { return Err(none) };
        let link = session.link_at(detach.handle).ok_or(none)?;
        let (id, state) = (link.id(channel), link.state);
        if state == LinkState::Attaching && !self.write_attach(id, &Grant::default(), tx) {
            return Ok(None);
        }
        let Some(session) = self.session(channel) else { return Err(none) };
        session.forget_deliveries(id.serial);
        session.links.retain(|link| link.serial != id.serial);
        if state == LinkState::Detaching {
            return Ok(None);
        }
        write::detach(tx, channel, id.handle, detach.closed, None);
        Ok(Some(Action::Detached { link: id, rule: None, error: detach.error }))
    }
}

impl Link {
    fn new(attach: &Attach<'_>, serial: u32, is_refused: bool) -> Self {
        let address = |terminus: Option<Terminus<'_>>| {
            terminus
                .and_then(|terminus| terminus.address)
                .filter(|address| address.len() <= ADDRESS_MAX)
                .map(Box::from)
        };
        let filter = attach.source.and_then(|source| source.filter).filter(|_| !is_refused);
        Self {
            handle: attach.handle,
            serial,
            state: LinkState::Attaching,
            // Mixed means unsettled to us: each delivery may be settled by the client (§2.8.2).
            snd_settle_mode: attach.snd_settle_mode.unwrap_or(2),
            name: attach.name.into(),
            termini: Box::new(Termini {
                source: address(attach.source),
                filter: filter.map(|filter| write::filter_set(filter).into()),
                target: address(attach.target),
            }),
            side: match attach.role {
                Role::Receiver => Side::ToClient { delivery_count: 0, credit: 0, drain: false },
                Role::Sender => Side::FromClient {
                    delivery_count: attach.initial_delivery_count.unwrap_or(0),
                    credit: 0,
                    unsettled: 0,
                    max_message_size: 0,
                    partial: None,
                },
            },
        }
    }

    /// What a client's flow says of this link (§2.6.7).
    pub(super) fn take_flow(&mut self, flow: &Flow) {
        if self.state == LinkState::Detaching {
            return;
        }
        let (Side::ToClient { delivery_count, credit, drain }, Some(given)) =
            (&mut self.side, flow.link_credit)
        else {
            // Credit is the receiver's to give: Python gives some as a sender, and means nothing by it.
            return;
        };
        // Before it has seen our attach, it counts from our initial-delivery-count, which is 0.
        let end = flow.delivery_count.unwrap_or(0).wrapping_add(given);
        let left = end.wrapping_sub(*delivery_count);
        // Messages that it had not seen when it said so may have used up more than it gave.
        let used_up = delivery_count.wrapping_sub(flow.delivery_count.unwrap_or(0));
        *credit = if used_up > u32::MAX / 2 || used_up > given { 0 } else { left };
        *drain = flow.drain;
    }

    /// What our flow says of this link.
    pub(super) const fn flow(&self) -> write::LinkFlow {
        let (delivery_count, credit, drain) = match self.side {
            Side::ToClient { delivery_count, credit, drain } => (delivery_count, credit, drain),
            Side::FromClient { delivery_count, credit, .. } => (delivery_count, credit, false),
        };
        write::LinkFlow { handle: self.handle, delivery_count, credit, drain }
    }
}

/// Why the machine itself refuses a link.
fn refusal(attach: &Attach<'_>) -> Option<Rule> {
    let termini = [attach.source, attach.target];
    let termini = || termini.iter().flatten();
    if termini().any(|terminus| terminus.is_coordinator || terminus.is_dynamic) {
        return Some(Rule::NotImplemented);
    }
    let is_long = |terminus: &Terminus<'_>| {
        terminus.address.is_some_and(|address| address.len() > ADDRESS_MAX)
            || terminus.filter.is_some_and(|filter| write::filter_set(filter).len() > FILTER_MAX)
    };
    termini().any(is_long).then_some(Rule::Terminus)
}
