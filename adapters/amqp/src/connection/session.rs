//! A session and its links.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::LinkId;
use crate::limits::{CREDIT, CREDIT_MIN, INCOMING_WINDOW, UNSETTLED_IN_MAX};
use crate::performative::{Begin, Flow, Outcome, Role, write};

/// One session; both directions use the same channel number.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) channel: u16,
    /// We have sent `end`: everything but the client's `end` is passed over (AMQP 1.0 §2.5.5: DISCARDING).
    pub(super) is_discarding: bool,
    /// Largest handle that the client takes.
    pub(super) handle_max: u32,
    pub(super) links: Vec<Link>,
    next_incoming_id: u32,
    /// Transfers that the client may still send.
    incoming_window: u32,
    pub(super) next_outgoing_id: u32,
    /// Transfers that the client still takes.
    pub(super) remote_window: u32,
    pub(super) next_delivery_id: u32,
    /// Deliveries of the client that have no outcome yet.
    pub(super) unsettled_in: Vec<Received>,
    /// Deliveries to the client whose outcome somebody waits for, by id.
    pub(super) unsettled_out: VecDeque<Sent>,
    /// The rest of a message that the client's window had no room for.
    pub(super) unsent: Option<Unsent>,
}

/// A delivery of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) id: u32,
    pub(super) serial: u32,
}

/// A delivery to the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) id: u32,
    pub(super) link: LinkId,
    pub(super) tag: [u8; 16],
}

/// Part of a message, on its way.
#[derive(Debug)]
pub(super) struct Unsent {
    pub(super) handle: u32,
    pub(super) delivery_id: u32,
    pub(super) tag: Box<[u8]>,
    pub(super) settled: bool,
    pub(super) payload: Vec<u8>,
    /// So many bytes of it are gone.
    pub(super) sent: usize,
}

/// One link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) handle: u32,
    pub(super) serial: u32,
    pub(super) state: LinkState,
    pub(super) snd_settle_mode: u8,
    pub(super) name: Box<str>,
    /// What the answer repeats.
    pub(super) termini: Box<Termini>,
    pub(super) side: Side,
}

/// What the client said of source and target.
#[derive(Debug, Default)]
pub(super) struct Termini {
    pub(super) source: Option<Box<str>>,
    pub(super) filter: Option<Box<[u8]>>,
    pub(super) target: Option<Box<str>>,
}

/// How far a link is (AMQP 1.0 §2.6.3 to §2.6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// The client has sent attach, we have not.
    Attaching,
    /// Both have.
    Attached,
    /// We have sent detach, and pass over all but the client's.
    Detaching,
}

/// Which way messages go.
#[derive(Debug)]
pub(super) enum Side {
    /// The client receives.
    ToClient {
        delivery_count: u32,
        credit: u32,
        /// The client wants its credit used up or given back (§2.6.7).
        drain: bool,
    },
    /// The client sends.
    FromClient {
        delivery_count: u32,
        credit: u32,
        unsettled: u32,
        max_message_size: u64,
        partial: Option<Partial>,
    },
}

/// A message of which not all transfers have come.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) delivery_id: u32,
    pub(super) tag: Box<[u8]>,
    pub(super) format: u32,
    pub(super) settled: bool,
    pub(super) payload: Vec<u8>,
    /// It is too large: the rest is not kept, and it is rejected at its end.
    pub(super) is_too_large: bool,
}

impl Session {
    pub(super) const fn new(channel: u16, begin: &Begin) -> Self {
        Self {
            channel,
            is_discarding: false,
            handle_max: match begin.handle_max {
                Some(max) => max,
                None => u32::MAX,
            },
            links: Vec::new(),
            next_incoming_id: begin.next_outgoing_id,
            incoming_window: INCOMING_WINDOW,
            next_outgoing_id: 0,
            remote_window: begin.incoming_window,
            next_delivery_id: 0,
            unsettled_in: Vec::new(),
            unsettled_out: VecDeque::new(),
            unsent: None,
        }
    }

    pub(super) fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.serial == id.serial && link.handle == id.handle)
    }

    pub(super) fn link_at(&mut self, handle: u32) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.handle == handle)
    }

    /// A transfer came (§2.5.6); false if there was no room in the window.
    pub(super) fn take_transfer(&mut self, tx: &mut Vec<u8>) -> bool {
        let Some(left) = self.incoming_window.checked_sub(1) else { return false };
        self.incoming_window = left;
        self.next_incoming_id = self.next_incoming_id.wrapping_add(1);
        if left <= INCOMING_WINDOW / 2 {
            self.incoming_window = INCOMING_WINDOW;
            self.write_flow(None, tx);
        }
        true
    }

    /// The client says what it has seen and how much it takes (§2.5.6: remote-incoming-window).
    pub(super) fn update_window(&mut self, flow: &Flow) {
        // Before it has seen our begin, it counts from our first id, which is 0.
        let seen = flow.next_incoming_id.unwrap_or(0);
        let on_the_way = self.next_outgoing_id.wrapping_sub(seen);
        // An id that we have not given yet: half of all numbers are ahead of us (RFC 1982).
        let on_the_way = if on_the_way > u32::MAX / 2 { 0 } else { on_the_way };
        self.remote_window = flow.incoming_window.saturating_sub(on_the_way);
    }

    pub(super) fn write_flow(&self, link: Option<write::LinkFlow>, tx: &mut Vec<u8>) {
        let flow = write::Flow {
            next_incoming_id: self.next_incoming_id,
            incoming_window: self.incoming_window,
            next_outgoing_id: self.next_outgoing_id,
            link,
        };
        write::flow(tx, self.channel, &flow);
    }

    /// Gives a sending client credit anew when half of it is used up.
    pub(super) fn top_up(&mut self, serial: u32, tx: &mut Vec<u8>) {
        let reserved = self.links.iter().map(Link::reserved).fold(0, u32::saturating_add);
        let Some(link) = self.links.iter_mut().find(|link| link.serial == serial) else { return };
        let own = link.reserved();
        let Side::FromClient { delivery_count, credit, unsettled, .. } = &mut link.side else { return };
        let free = UNSETTLED_IN_MAX.saturating_sub(reserved.saturating_sub(own));
        let allowed = free.clamp(CREDIT_MIN, CREDIT).saturating_sub(*unsettled);
        if link.state != LinkState::Attached || *credit > CREDIT / 2 || allowed <= *credit {
            return;
        }
        *credit = allowed;
        let flow = write::LinkFlow {
            handle: link.handle,
            delivery_count: *delivery_count,
            credit: allowed,
            drain: false,
        };
        self.write_flow(Some(flow), tx);
    }

    /// A delivery of the client has its outcome. Gives the serial of its link.
    pub(super) fn settle(&mut self, id: u32) -> Option<u32> {
        let at = self.unsettled_in.iter().position(|received| received.id == id)?;
        let serial = self.unsettled_in.swap_remove(at).serial;
        let link = self.links.iter_mut().find(|link| link.serial == serial)?;
        if let Side::FromClient { unsettled, .. } = &mut link.side {
            *unsettled = unsettled.saturating_sub(1);
        }
        Some(serial)
    }

    /// The next delivery to the client with an id in this range.
    pub(super) fn take_sent(&mut self, first: u32, last: u32) -> Option<Sent> {
        let span = last.wrapping_sub(first);
        let at = self.unsettled_out.iter().position(|sent| sent.id.wrapping_sub(first) <= span)?;
        self.unsettled_out.remove(at)
    }

    /// Forgets all about a link but the link itself. Gives the bytes of the message that it had begun.
    pub(super) fn forget_deliveries(&mut self, serial: u32) -> usize {
        self.unsettled_in.retain(|received| received.serial != serial);
        self.unsettled_out.retain(|sent| sent.link.serial != serial);
        let Some(link) = self.links.iter_mut().find(|link| link.serial == serial) else { return 0 };
        if self.unsent.as_ref().is_some_and(|unsent| unsent.handle == link.handle) {
            self.unsent = None;
        }
        match &mut link.side {
            Side::FromClient { partial, unsettled, credit, .. } => {
                (*unsettled, *credit) = (0, 0);
                partial.take().map_or(0, |partial| partial.payload.len())
            }
            Side::ToClient { credit, .. } => {
                *credit = 0;
                0
            }
        }
    }

    pub(super) fn partial_bytes(&self) -> usize {
        self.links.iter().map(Link::partial_bytes).fold(0, usize::saturating_add)
    }
}

impl Link {
    pub(super) const fn id(&self, channel: u16) -> LinkId {
        LinkId { channel, handle: self.handle, serial: self.serial }
    }

    /// Of the client.
    pub(super) const fn role(&self) -> Role {
        match self.side {
            Side::ToClient { .. } => Role::Receiver,
            Side::FromClient { .. } => Role::Sender,
        }
    }

    /// Deliveries that the client has sent unsettled or may send.
    const fn reserved(&self) -> u32 {
        match self.side {
            Side::ToClient { .. } => 0,
            Side::FromClient { credit, unsettled, .. } => credit.saturating_add(unsettled),
        }
    }

    pub(super) fn partial_bytes(&self) -> usize {
        match &self.side {
            Side::FromClient { partial: Some(partial), .. } => partial.payload.len(),
            _ => 0,
        }
    }

    /// Our attach.
    pub(super) fn write_attach(
        &self,
        channel: u16,
        address: Option<&str>,
        max_size: u64,
        tx: &mut Vec<u8>,
    ) -> u32 {
        let (role, source, target) = match self.role() {
            Role::Receiver => {
                (Role::Sender, address.or(self.termini.source.as_deref()), self.termini.target.as_deref())
            }
            Role::Sender => {
                (Role::Receiver, self.termini.source.as_deref(), address.or(self.termini.target.as_deref()))
            }
        };
        let attach = write::Attach {
            name: &self.name,
            handle: self.handle,
            role,
            snd_settle_mode: self.snd_settle_mode,
            source,
            filter: self.termini.filter.as_deref(),
            target,
            max_message_size: max_size,
        };
        write::attach(tx, channel, &attach)
    }
}

/// Deliveries that a client settles, one action each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settling {
    pub(super) channel: u16,
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) outcome: Outcome,
}
