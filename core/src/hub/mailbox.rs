//! Cloud-to-device messages that wait for one device.
//!
//! A message is *enqueued*, then *attempted* (it may have been sent), then *completed* by the device's PUBACK, or
//! *dead-lettered* when its time to live ends first. That a message may have been sent is recorded before it is sent,
//! with the change that makes sending possible; so DUP is right after a crash, too `[MQTT-3.3.1-1]`. The packet id
//! follows from the sequence number and is the same on every attempt `[MQTT-4.4.0-1]`.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use super::Revision;
use crate::iothub::topic::cloud_message_topic;
use crate::limits::{CLOUD_MESSAGE_MAX, CLOUD_MESSAGE_TTL, CLOUD_MESSAGE_TTL_MAX};
use crate::packet::PacketId;
use crate::rule::Rule;
use crate::time::UnixTime;

/// The place of a message in its device's queue, from 1, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber(pub u64);

impl SequenceNumber {
    /// The packet id that every attempt to deliver the message carries. Unique among any 65 535 numbers in a row; a
    /// mailbox passes over the numbers that would give a waiting message's id again `[MQTT-2.3.1-2]`.
    #[must_use]
    pub fn packet_id(self) -> PacketId {
        let id = u16::try_from(self.0.saturating_sub(1) % 65_535).unwrap_or(0).saturating_add(1);
        PacketId::new(id).unwrap_or(PacketId::MIN)
    }
}

/// What the back end asks to hear about a message (`iothub-ack`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeedbackRequest {
    /// Nothing.
    #[default]
    None,
    /// That it was completed.
    Positive,
    /// That it expired or was rejected.
    Negative,
    /// Either.
    Full,
}

impl FeedbackRequest {
    /// The value of the property `iothub-ack`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Positive => "positive",
            Self::Negative => "negative",
            Self::Full => "full",
        }
    }

    /// Reads the value of `iothub-ack`, in any case of letters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Positive, Self::Negative, Self::Full]
            .into_iter()
            .find(|request| request.as_str().eq_ignore_ascii_case(text))
    }
}

/// A message as the back end sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudMessage {
    /// `$.mid`.
    pub message_id: Option<String>,
    /// `$.cid`.
    pub correlation_id: Option<String>,
    /// `$.uid`.
    pub user_id: Option<String>,
    /// `$.ct`.
    pub content_type: Option<String>,
    /// `$.ce`.
    pub content_encoding: Option<String>,
    /// When the message is of no use any more; by default one hour from now, at most two days.
    pub expiry: Option<UnixTime>,
    /// Whether and when feedback is wanted.
    pub ack: Option<FeedbackRequest>,
    /// Application properties, in order. `None` is a name without a value.
    pub properties: Vec<(String, Option<String>)>,
    /// The body, at most 64 KB with the properties.
    pub payload: Vec<u8>,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// 403004: as many messages wait as a device may have.
    #[error(
        "the device's queue is full (403004 DeviceMaximumQueueDepthExceeded); wait until it completes messages, or purge them"
    )]
    QueueFull,
    /// 413001: the message is larger than 64 KB.
    #[error(
        "the message is larger than 65536 bytes (413001 MessageTooLarge); send a link to the data instead"
    )]
    TooLarge,
    /// The properties do not fit into a topic name of 65535 bytes.
    #[error("the properties do not fit into a topic name: {}", .0.says())]
    Properties(Rule),
    /// 403009: the expiry lies in the past.
    #[error(
        "the message has expired already (403009 InvalidMessageExpiryTime); check the clock of the sender"
    )]
    Expired,
    /// 404001: no such device. Modules have no cloud-to-device messages either.
    #[error("no such device (404001 DeviceNotFound); register it first")]
    UnknownDevice,
}

/// One waiting message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) sequence: SequenceNumber,
    /// The whole topic name, property bag included.
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) expiry: UnixTime,
    pub(super) ack: FeedbackRequest,
    pub(super) message_id: Option<String>,
    /// An attempt to deliver it may have been made: part of what is stored.
    pub(super) attempted: bool,
    /// It was attempted before the present connection, so DUP is to be set.
    pub(super) dup: bool,
    /// The revision that must be safe before it may be sent.
    pub(super) since: Revision,
}

/// The queue of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mailbox {
    pub(super) messages: VecDeque<Waiting>,
    pub(super) last: u64,
}

impl Mailbox {
    pub(super) fn enqueue(
        &mut self,
        device_id: &str,
        message: CloudMessage,
        now: UnixTime,
        most: usize,
        since: Revision,
    ) -> Result<SequenceNumber, EnqueueError> {
        if self.messages.len() >= most {
            return Err(EnqueueError::QueueFull);
        }
        if message.expiry.is_some_and(|expiry| expiry <= now) {
            return Err(EnqueueError::Expired);
        }
        let texts = message
            .properties
            .iter()
            .flat_map(|(name, value)| [name.len(), value.as_ref().map_or(0, String::len)]);
        if texts.fold(message.payload.len(), usize::saturating_add) > CLOUD_MESSAGE_MAX {
            return Err(EnqueueError::TooLarge);
        }
        let topic = topic(device_id, &message)?;
        self.last = self.next_number();
        let expiry =
            message.expiry.unwrap_or(now.after(CLOUD_MESSAGE_TTL)).min(now.after(CLOUD_MESSAGE_TTL_MAX));
        self.messages.push_back(Waiting {
            sequence: SequenceNumber(self.last),
            topic,
            payload: message.payload,
            expiry,
            ack: message.ack.unwrap_or_default(),
            message_id: message.message_id,
            attempted: false,
            dup: false,
            since,
        });
        Ok(SequenceNumber(self.last))
    }

    /// The next number whose packet id no waiting message has.
    fn next_number(&self) -> u64 {
        let is_free = |number: &u64| {
            let id = SequenceNumber(*number).packet_id();
            self.messages.iter().all(|message| message.sequence.packet_id() != id)
        };
        let next = self.last.saturating_add(1);
        (next..=u64::MAX).find(is_free).unwrap_or(next)
    }

    /// Marks all messages as attempted, because from `since` on they may be sent. True if that changed anything.
    pub(super) fn attempt(&mut self, since: Revision) -> bool {
        let mut changed = false;
        for message in self.messages.iter_mut().filter(|message| !message.attempted) {
            message.attempted = true;
            message.since = since;
            changed = true;
        }
        changed
    }

    /// A new connection: what was attempted before is a redelivery now.
    pub(super) fn reconnect(&mut self) {
        for message in &mut self.messages {
            message.dup = message.attempted;
        }
    }

    /// The first message from `sequence` on.
    pub(super) fn next_from(&self, sequence: SequenceNumber) -> Option<&Waiting> {
        self.messages.iter().find(|message| message.sequence >= sequence)
    }

    /// Takes out the message that the PUBACK names, if it was sent on this connection, that is before `unsent`.
    pub(super) fn complete(&mut self, packet_id: PacketId, unsent: SequenceNumber) -> Option<SequenceNumber> {
        let sent = |message: &Waiting| message.sequence < unsent && message.sequence.packet_id() == packet_id;
        let index = self.messages.iter().position(sent)?;
        self.messages.remove(index).map(|message| message.sequence)
    }

    pub(super) fn remove(&mut self, sequence: SequenceNumber) {
        self.messages.retain(|message| message.sequence != sequence);
    }

    /// Takes out what expired and was not sent on the present connection. True if there was any.
    pub(super) fn expire(&mut self, now: UnixTime, unsent: SequenceNumber) -> bool {
        let before = self.messages.len();
        self.messages.retain(|message| message.expiry > now || message.sequence < unsent);
        self.messages.len() != before
    }

    /// When the first of the messages from `unsent` on expires.
    pub(super) fn next_expiry(&self, unsent: SequenceNumber) -> Option<UnixTime> {
        self.messages.iter().filter(|message| message.sequence >= unsent).map(|message| message.expiry).min()
    }
}

/// `devices/{id}/messages/devicebound/` and the bag, in the order of the real hub: `$.mid`, `$.exp`, `$.to`, `$.cid`,
/// `$.uid`, `$.ct`, `$.ce`, `iothub-ack`, then the application's own.
fn topic(device_id: &str, message: &CloudMessage) -> Result<String, EnqueueError> {
    use alloc::string::ToString;
    let expiry = message.expiry.map(|expiry| expiry.to_string());
    let to = alloc::format!("/devices/{device_id}/messages/devicebound");
    let system = [
        ("$.mid", message.message_id.as_deref()),
        ("$.exp", expiry.as_deref()),
        ("$.to", Some(to.as_str())),
        ("$.cid", message.correlation_id.as_deref()),
        ("$.uid", message.user_id.as_deref()),
        ("$.ct", message.content_type.as_deref()),
        ("$.ce", message.content_encoding.as_deref()),
        ("iothub-ack", message.ack.map(FeedbackRequest::as_str)),
    ];
    let system = system.into_iter().filter(|(_, value)| value.is_some());
    let application = message.properties.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
    let mut topic = String::new();
    cloud_message_topic(device_id, system.chain(application), &mut topic);
    crate::packet::TopicName::new(&topic).map_err(EnqueueError::Properties)?;
    Ok(topic)
}
