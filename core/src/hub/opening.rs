//! Between CONNECT and CONNACK.

use alloc::vec::Vec;

use super::handshake::Request;
use super::link::Link;
use super::methods::Calls;
use super::{DeviceRecord, DeviceSlot, Grant, Limits, Revision};
use crate::iothub::Subscription;
use crate::packet::ConnAck;
use crate::time::Instant;

/// A connection between its CONNECT and its CONNACK. Nothing else can be sent, and nothing is read.
#[derive(Debug)]
pub(super) struct Opening {
    /// The connection as it will be.
    pub(super) link: Link,
    session_present: bool,
    since: Revision,
}

impl Opening {
    /// Resumes or begins the session; says whether the record changed by that.
    pub(super) fn new(
        now: Instant,
        grant: Grant,
        request: Request,
        record: &mut DeviceRecord,
        limits: &Limits,
    ) -> (Self, bool) {
        let before = record.session;
        let session_present = !request.clean_session && before.is_some(); // [MQTT-3.2.2-1] to [MQTT-3.2.2-3]
        record.session = if request.clean_session { None } else { Some(before.unwrap_or_default()) }; // [MQTT-3.1.2-6]
        let subscriptions = record.session.unwrap_or_default().subscriptions;
        let model = request.model_id.is_some() && record.model_id != request.model_id;
        if model {
            record.model_id.clone_from(&request.model_id);
        }
        record.queue.reconnect();
        let next = record.next_revision();
        let sends =
            subscriptions.get(Subscription::CloudMessages).is_some() && record.queue.attempt(next, limits);
        let changed = record.session != before || model || sends;
        if changed {
            record.change();
        }
        let link = Link::new(now, grant, request, subscriptions, limits);
        (Self { link, session_present, since: record.revision }, changed)
    }

    /// Whether what the CONNACK rests on is safe.
    pub(super) fn is_safe(&self, committed: Revision) -> bool {
        self.since <= committed
    }

    /// Appends the CONNACK; the connection is live from then on.
    pub(super) fn open(
        mut self,
        now: Instant,
        device: &DeviceSlot,
        calls: &mut Calls,
        tx: &mut Vec<u8>,
    ) -> Link {
        ConnAck::Accepted { session_present: self.session_present }.encode(tx);
        self.link.go_live(now, device, calls);
        self.link
    }
}
