//! What the hub keeps of a link and of a device besides its record.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{CallId, DeviceKey, DeviceRecord, Handshake, Link, LinkId, Opening, Revision, Will};
use crate::session::{Close, CloseReason};
use crate::time::Instant;

/// Where a link is on its way; see the diagram of the [hub](super).
#[derive(Debug)]
pub(super) enum State {
    Handshake(Handshake),
    Opening(Opening),
    Live(Link),
    Ended {
        close: Close,
        device: Option<DeviceKey>,
        api_version: Option<crate::iothub::ApiVersion>,
        will: Option<Will>,
        /// When its last packet came, if it ever was live.
        heard: Option<Instant>,
    },
}

/// A link of the hub.
#[derive(Debug)]
pub(super) struct LinkSlot {
    pub(super) state: State,
    /// It is in the queue of links that are ready.
    pub(super) ready: bool,
    /// Its one valid entry in the timers' heap.
    pub(super) timer: Option<Instant>,
}

/// A record of the hub, and what is under way for it.
#[derive(Debug)]
pub(super) struct DeviceSlot {
    pub(super) record: DeviceRecord,
    /// Safe up to this revision.
    pub(super) committed: Revision,
    pub(super) link: Option<LinkId>,
    pub(super) calls: Vec<CallId>,
    pub(super) queue_timer: Option<Instant>,
}

impl LinkSlot {
    /// Puts the link, which is `id`, into the queue of those that have something to send or to say.
    #[inline]
    pub(super) fn make_ready(&mut self, id: LinkId, queue: &mut VecDeque<LinkId>) {
        if !self.ready {
            self.ready = true;
            queue.push_back(id);
        }
    }
}

impl State {
    pub(super) const fn ended(close: Close) -> Self {
        Self::Ended { close, device: None, api_version: None, will: None, heard: None }
    }

    /// The connection, from its acceptance to its end.
    pub(super) const fn link(&self) -> Option<&Link> {
        match self {
            Self::Opening(opening) => Some(&opening.link),
            Self::Live(link) => Some(link),
            Self::Handshake(_) | Self::Ended { .. } => None,
        }
    }

    /// The first end counts, and so does one that only waits for what is owed. Gives the device that the link was bound
    /// to.
    pub(super) fn end(&mut self, close: Close) -> Option<DeviceKey> {
        let is_live = matches!(self, Self::Live(_));
        let (next, device) = match self {
            Self::Ended { .. } => return None,
            Self::Handshake(_) => (Self::ended(close), None),
            Self::Opening(Opening { link, .. }) | Self::Live(link) => {
                let close = link.parting().unwrap_or(close);
                let heard = is_live.then_some(link.last_heard);
                let will = if close.reason() == CloseReason::Disconnected { None } else { link.will.take() };
                let device = Some(link.device);
                (Self::Ended { close, device, api_version: link.api_version, will, heard }, device)
            }
        };
        *self = next;
        device
    }
}
