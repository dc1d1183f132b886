//! The words of the hub's interface: what happens to a link, and what is to be done about it.

use super::keys::{DeviceKey, LinkId};
use super::telemetry::{Telemetry, Will};
use super::{CallFailure, CallId, DeadLetter, MethodAnswer, Revision, SequenceNumber};
use crate::iothub::ApiVersion;
use crate::packet::{Connect, PacketType};
use crate::rule::Rule;

/// A CONNECT that is well-formed; whether it is welcome is the caller's to say, by
/// [`accept`](super::Hub::accept) or [`refuse`](super::Hub::refuse).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectRequest<'i> {
    /// The packet.
    pub connect: Connect<'i>,
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
    /// What made this revision, for logs and counts. It does not tell all that is new since an earlier revision, and not even
    /// since the last: a new message may also mark older ones as attempted. A store writes the head of the record with every
    /// revision, and the entries that [`DeviceRecord::waiting`](super::DeviceRecord::waiting) lists and it does not have.
    pub change: Change,
}

/// What made a revision.
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
    /// A device asks for a certificate: answer with [`Hub::answer_certificate`](super::Hub::answer_certificate).
    IssueCertificate(IssueRequest<'i>),
    /// A twin request was answered with an error: the device knows, and whoever keeps a log may want to.
    TwinRefused(TwinRefusal),
    /// A packet was dealt with, and nothing is to be done about it.
    Done(PacketType),
    /// Nothing more before this.
    Wait(Wait),
}

/// A request for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssueRequest<'i> {
    /// Who asks.
    pub device: DeviceKey,
    /// Ties the answers to it; as it stands.
    pub rid: &'i str,
    /// JSON, as it came.
    pub body: &'i [u8],
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

/// What is left of a link that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The record that it was for; `None` where it never got that far.
    pub device: Option<DeviceKey>,
    /// Whether this was the identity's live connection until now: false after a takeover.
    pub was_current: bool,
    pub(super) api_version: Option<ApiVersion>,
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
        Some(Telemetry::of_will(device, self.api_version, &will.properties, &will.payload, will.retain))
    }
}
