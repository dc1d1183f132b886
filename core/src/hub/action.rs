//! The words of the hub's interface: what happens to a link, and what is to be done about it.

use alloc::string::String;
use alloc::vec::Vec;

use super::slab::Slot;
use super::{
    CallFailure, CallId, ConnectRequest, DeadLetter, MethodAnswer, Revision, SequenceNumber, Telemetry,
};
use crate::iothub::Edition;
use crate::packet::PacketType;
use crate::rule::Rule;

/// A connection of a hub, told apart from all others before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(super) Slot);

/// A record of a hub, told apart from all others before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey(pub(super) Slot);

/// Names telemetry that is to be stored, for [`Hub::stored`](super::Hub::stored).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the device's PUBACK waits until `Hub::stored` is told of it"]
pub struct Receipt {
    pub(super) link: LinkId,
    pub(super) number: u64,
}

/// A record that changed and is to be made durable, for [`Hub::committed`](super::Hub::committed).
///
/// One of a later revision contains all earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "replies wait until `Hub::committed` is told of the revision"]
pub struct Commit {
    /// Whose record.
    pub device: DeviceKey,
    /// Its revision.
    pub revision: Revision,
    /// What is new in it, so that a store need not write all of it.
    pub change: Change,
}

/// What a [`Commit`] changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The registry entry.
    Identity,
    /// The persistent session, or which messages may have been sent.
    Session,
    /// One more message waits.
    Enqueued(SequenceNumber),
    /// A message was completed.
    Completed(SequenceNumber),
    /// A message was locked, or given back.
    Locked(SequenceNumber),
    /// Messages expired, were delivered in vain too often, rejected or purged.
    DeadLettered,
    /// Feedback was taken.
    Feedback,
    /// Reported properties.
    Reported,
    /// Desired properties or tags.
    Desired,
}

/// What happened to a link.
#[derive(Debug)]
pub enum Event<'r, 'i> {
    /// Bytes are there. At most one packet is taken off the front.
    Received(&'r mut &'i [u8]),
    /// The transport has ended, and all that it brought was pulled.
    Closed,
    /// A deadline came, and all that had arrived by then was pulled.
    TimedOut,
}

/// What a link wants done. After any event, pull with [`Event::Received`] until [`Action::Wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action<'i> {
    /// Judge this CONNECT: [`Hub::accept`](super::Hub::accept) or [`Hub::refuse`](super::Hub::refuse).
    Authenticate(ConnectRequest<'i>),
    /// Store this, then say [`Hub::stored`](super::Hub::stored).
    Telemetry(Telemetry<'i>),
    /// Make the record durable, then say [`Hub::committed`](super::Hub::committed).
    Commit(Commit),
    /// A device answered a call.
    Answered(MethodAnswer<'i>),
    /// The twin was read: the device is answered, and whoever keeps a log may want to know. A change of it is a
    /// [`Commit`].
    TwinRead,
    /// A twin request was answered with an error: the device knows, and whoever keeps a log may want to.
    TwinRefused(TwinRefusal),
    /// A packet was dealt with, and nothing is to be done about it.
    Done(PacketType),
    /// Nothing more before this.
    Wait(Wait),
}

/// A twin request that was answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwinRefusal {
    /// Who asked.
    pub device: DeviceKey,
    /// Whether it was a PATCH of the reported properties; else it was a GET.
    pub is_patch: bool,
    /// The status of the answer.
    pub status: u16,
    /// The rule that the request breaks.
    pub rule: Rule,
}

/// What a link waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// At least so many further bytes.
    Read {
        /// Further bytes.
        at_least: usize,
    },
    /// Room: the output was not taken. Do not read before it was.
    Flush,
    /// `stored` or `committed`, or the end of a throttle's delay. Do not read before; the link becomes ready.
    Store,
    /// `accept` or `refuse`.
    Verdict,
}

/// How far [`Hub::poll_transmit`](super::Hub::poll_transmit) got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// All is written that can be.
    Idle,
    /// The output holds as much as it should; write it, then call again.
    More,
    /// A message was sent at QoS 0 and is completed by that; make it durable and call again.
    Commit(Commit),
}

/// What came due.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Expired {
    /// A link: pull what has arrived on it, then hand it [`Event::TimedOut`].
    Link(LinkId),
    /// A call came to nothing.
    Call(CallId, CallFailure),
    /// The lock of a message ended, and it waits again.
    Unlocked(Commit),
    /// A message reached the end of its time to live, or was delivered in vain too often.
    DeadLettered(Commit, DeadLetter),
}

/// A will that is to be stored as telemetry `[MQTT-3.1.2-8]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Will {
    pub(super) properties: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
}

/// What is left of a link that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The record that it was for; `None` where it never got that far.
    pub device: Option<DeviceKey>,
    /// Whether this was the identity's live connection until now: false after a takeover.
    pub was_current: bool,
    pub(super) edition: Option<Edition>,
    pub(super) will: Option<Will>,
}

/// The hub has as many connections as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hub has as many connections as Limits::links allows; close this one")]
pub struct Full;

impl Ended {
    /// The will, which is to be stored as telemetry.
    #[must_use]
    pub fn will(&self) -> Option<Telemetry<'_>> {
        let (will, device) = (self.will.as_ref()?, self.device?);
        Some(Telemetry::of_will(device, self.edition, &will.properties, &will.payload, will.retain))
    }
}
