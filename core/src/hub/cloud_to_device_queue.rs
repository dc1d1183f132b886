//! Cloud-to-device messages that wait for one device.
//!
//! A message is *enqueued*, then *attempted* (it may have been sent), then *completed* by the device's PUBACK, or
//! *dead-lettered* when its time to live ends first. That a message may have been sent is recorded before it is sent,
//! with the change that makes sending possible; so DUP is right after a crash, too `[MQTT-3.3.1-1]`. The packet id
//! follows from the sequence number and is the same on every attempt `[MQTT-4.4.0-1]`.
//!
//! What was sent over a connection is locked for as long as that lives. A receiver without MQTT (HTTP) *locks* a message
//! for a minute, and completes, rejects or *abandons* it; after so many deliveries in vain it is dead-lettered. What the
//! back end wants to hear of that is kept with the queue until it was taken (see [`Feedback`](super::Feedback)).
//!
//! Where every delivery counts ([`Limits::every_delivery_counts`]), one over a connection is counted when the message is
//! attempted, so before it can begin, and counted off while it is *under way*: whatever ends the connection, a crash of
//! the hub too, leaves the right count behind. What the connection ended before is counted back; only after a crash can
//! nobody say what that is, and all that was attempted counts.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::outcome::Reports;
use super::{FeedbackRequest, Limits, Outcome, Revision, TierError};
use crate::iothub::topic::cloud_message_topic;
use crate::iothub::{PropertyBag, SystemProperty};
use crate::limits::{CLOUD_MESSAGE_LOCK, CLOUD_MESSAGE_MAX, CLOUD_MESSAGE_TTL_MAX};
use crate::packet::PacketId;
use crate::rule::Rule;
use crate::time::UnixTime;

/// The place of a message in its device's queue, from 1, never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber(pub u64);

impl SequenceNumber {
    /// The packet id that every attempt to deliver the message carries. Unique among any 65 535 numbers in a row; a
    /// queue passes over the numbers that would give a waiting message's id again `[MQTT-2.3.1-2]`.
    #[must_use]
    pub fn packet_id(self) -> PacketId {
        let id = u16::try_from(self.0.saturating_sub(1) % 65_535).unwrap_or(0).saturating_add(1);
        PacketId::new(id).unwrap_or(PacketId::MIN)
    }
}

/// A message as the back end sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudMessage {
    /// `$.mid`.
    pub message_id: Option<String>,
    /// `$.to`, as the back end wrote it; by default `/devices/{id}/messages/devicebound`.
    pub to: Option<String>,
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
    /// Application properties, in order. A name without a value reaches the device with an empty one.
    pub properties: Vec<(String, Option<String>)>,
    /// The body, at most 64 KB with the properties.
    pub payload: Vec<u8>,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// 403004: as many messages wait as a device may have, or as much feedback was not taken yet.
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
    /// The hub's tier does not allow it, or not now.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// 404001: no such device. Modules have no cloud-to-device messages either.
    #[error("no such device (404001 DeviceNotFound); register it first")]
    UnknownDevice,
}

/// A message that waits, as somebody who looks into the queue sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingMessage<'r> {
    /// Its place in the queue.
    pub sequence: SequenceNumber,
    /// `$.mid`.
    pub message_id: Option<&'r str>,
    /// All properties, those of the system too, as they stand in the topic.
    pub properties: PropertyBag<'r>,
    /// The body.
    pub payload: &'r [u8],
    /// When the hub took it.
    pub enqueued: UnixTime,
    /// When it is of no use any more.
    pub expiry: UnixTime,
    /// Which feedback is wanted.
    pub ack: FeedbackRequest,
    /// How often it was delivered in vain, as far as that [counts](Limits::every_delivery_counts).
    pub delivery_count: u32,
    /// A receiver without MQTT holds it.
    pub is_locked: bool,
}

/// A message that nobody gets any more, though nobody was done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place in the queue.
    pub sequence: SequenceNumber,
    /// `$.mid`.
    pub message_id: Option<String>,
    /// Why: [`Expired`](Outcome::Expired) or [`DeliveryCountExceeded`](Outcome::DeliveryCountExceeded).
    pub outcome: Outcome,
    /// When the hub took it.
    pub enqueued: UnixTime,
    /// When it was, or would have been, of no use any more.
    pub expiry: UnixTime,
    /// Which feedback is wanted.
    pub ack: FeedbackRequest,
    /// How often it was delivered in vain, as far as that [counts](Limits::every_delivery_counts).
    pub delivery_count: u32,
    /// Length of its body, in bytes.
    pub size: usize,
}

/// What a receiver without MQTT holds a message by. One of an earlier lock is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockToken {
    sequence: SequenceNumber,
    /// The revision of the record that locked it.
    lock: Revision,
}

impl LockToken {
    /// The message that is locked.
    #[must_use]
    pub const fn sequence(self) -> SequenceNumber {
        self.sequence
    }

    /// Reads what [`Display`](fmt::Display) writes; `None` for what is no token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (sequence, lock) = text.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Self { sequence: SequenceNumber(number(sequence)?), lock: Revision(number(lock)?) })
    }
}

/// Two numbers in hex, joined by `-`: fit for a path and for an ETag.
impl fmt::Display for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.sequence.0, self.lock.0)
    }
}

/// 412002: the message is not locked by this token: it was completed, or the lock has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lock of the message has ended (412002 MessageLockLost); receive it again")]
pub struct LockLost;

/// A lock of a receiver without MQTT. It is visible to nobody else until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) by: Revision,
    pub(super) until: UnixTime,
}

/// One waiting message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) sequence: SequenceNumber,
    /// The whole topic name, property bag included.
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) enqueued: UnixTime,
    pub(super) expiry: UnixTime,
    pub(super) ack: FeedbackRequest,
    pub(super) message_id: Option<String>,
    /// An attempt to deliver it may have been made: part of what is stored.
    pub(super) attempted: bool,
    /// How often it was delivered in vain, and once more while it is under way.
    pub(super) delivery_count: u32,
    /// Its delivery over the present connection is counted already.
    pub(super) under_way: bool,
    pub(super) lock: Option<Lock>,
    /// It was attempted before the present connection, so DUP is to be set.
    pub(super) dup: bool,
    /// The revision that must be safe before it may be sent.
    pub(super) since: Revision,
}

impl Waiting {
    pub(super) fn view(&self) -> WaitingMessage<'_> {
        // The fourth slash ends `devices/{id}/messages/devicebound/`.
        let bag = self.topic.splitn(5, '/').nth(4).unwrap_or_default();
        WaitingMessage {
            sequence: self.sequence,
            message_id: self.message_id.as_deref(),
            properties: PropertyBag::parse(bag).unwrap_or(PropertyBag::EMPTY),
            payload: &self.payload,
            enqueued: self.enqueued,
            expiry: self.expiry,
            ack: self.ack,
            delivery_count: self.in_vain(),
            is_locked: self.lock.is_some(),
        }
    }

    pub(super) fn dead_letter(&self, outcome: Outcome) -> DeadLetter {
        DeadLetter {
            sequence: self.sequence,
            message_id: self.message_id.clone(),
            outcome,
            enqueued: self.enqueued,
            expiry: self.expiry,
            ack: self.ack,
            delivery_count: self.in_vain(),
            size: self.payload.len(),
        }
    }

    fn in_vain(&self) -> u32 {
        self.delivery_count.saturating_sub(u32::from(self.under_way))
    }

    /// It was delivered in vain so often that it is not delivered again.
    fn is_spent(&self, limits: &Limits) -> bool {
        self.in_vain() >= limits.delivery_count.max(1)
    }
}

/// The queue of one device, and what the back end has yet to hear of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CloudToDeviceQueue {
    pub(super) messages: VecDeque<Waiting>,
    pub(super) last: u64,
    pub(super) feedback: Reports,
    /// The first message that the present connection was not sent: all before it are that connection's. Without a
    /// connection, all are unsent.
    unsent: SequenceNumber,
}

impl CloudToDeviceQueue {
    /// The queue as it was written down.
    pub(super) const fn restored(messages: VecDeque<Waiting>, last: u64, feedback: Reports) -> Self {
        Self { messages, last, feedback, unsent: SequenceNumber(0) }
    }

    pub(super) fn enqueue(
        &mut self,
        device_id: &str,
        message: CloudMessage,
        now: UnixTime,
        limits: &Limits,
        since: Revision,
    ) -> Result<SequenceNumber, EnqueueError> {
        let ack = message.ack.unwrap_or_default();
        if self.messages.len() >= limits.queue || (ack != FeedbackRequest::None && !self.can_report(limits)) {
            return Err(EnqueueError::QueueFull);
        }
        if message.expiry.is_some_and(|expiry| expiry <= now) {
            return Err(EnqueueError::Expired);
        }
        if size(&message) > CLOUD_MESSAGE_MAX {
            return Err(EnqueueError::TooLarge);
        }
        let topic = topic(device_id, &message)?;
        self.last = self.next_number();
        let expiry = message.expiry.unwrap_or(now.after(limits.cloud_message_ttl));
        self.messages.push_back(Waiting {
            sequence: SequenceNumber(self.last),
            topic,
            payload: message.payload,
            enqueued: now,
            expiry: expiry.min(now.after(CLOUD_MESSAGE_TTL_MAX)),
            ack,
            message_id: message.message_id,
            attempted: false,
            delivery_count: 0,
            under_way: false,
            lock: None,
            dup: false,
            since,
        });
        Ok(SequenceNumber(self.last))
    }

    /// Whether the feedback of one more message has room, should all that waits come to an end now.
    fn can_report(&self, limits: &Limits) -> bool {
        let wanted = self.messages.iter().filter(|message| message.ack != FeedbackRequest::None).count();
        self.feedback.len().saturating_add(wanted) < limits.feedback
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

    pub(super) fn get(&self, sequence: SequenceNumber) -> Option<&Waiting> {
        self.messages.iter().find(|message| message.sequence == sequence)
    }

    // --- over MQTT ---

    /// Marks all messages as attempted, because from `since` on they may be sent. True if that changed anything.
    pub(super) fn attempt(&mut self, since: Revision, limits: &Limits) -> bool {
        let mut changed = false;
        for message in &mut self.messages {
            let counts = limits.every_delivery_counts && !message.under_way;
            if counts {
                message.under_way = true;
                message.delivery_count = message.delivery_count.saturating_add(1);
            }
            if counts || !message.attempted {
                message.attempted = true;
                message.since = since;
                changed = true;
            }
        }
        changed
    }

    /// The connection is over: what is left of that which it was sent was delivered in vain, and the rest was not
    /// delivered. This makes no revision; a record that was stored before has the greater count.
    pub(super) fn disconnect(&mut self) {
        let unsent = core::mem::take(&mut self.unsent);
        for message in self.messages.iter_mut().filter(|message| message.under_way) {
            message.under_way = false;
            if message.sequence >= unsent {
                message.delivery_count = message.delivery_count.saturating_sub(1);
            }
        }
    }

    /// The queue is as it was written down, perhaps while a connection lived: nobody can say what that was sent.
    pub(super) fn recover(&mut self) {
        self.unsent = SequenceNumber::default();
        for message in &mut self.messages {
            message.under_way = false;
        }
    }

    /// A new connection: what was attempted before is a redelivery now.
    pub(super) fn reconnect(&mut self) {
        for message in &mut self.messages {
            message.dup = message.attempted;
        }
    }

    /// The next message for the connection, unless another receiver holds it, or it is about to be dead-lettered: what
    /// comes after it waits, too.
    pub(super) fn next_unsent(&self, limits: &Limits) -> Option<&Waiting> {
        let next = self.messages.iter().find(|message| message.sequence >= self.unsent)?;
        (next.lock.is_none() && !next.is_spent(limits)).then_some(next)
    }

    /// The connection was sent this message, and all before it.
    pub(super) const fn sent(&mut self, sequence: SequenceNumber) {
        self.unsent = SequenceNumber(sequence.0.saturating_add(1));
    }

    /// Takes out the message that the PUBACK names, if it was sent on this connection.
    pub(super) fn complete(&mut self, packet_id: PacketId) -> Option<Waiting> {
        let sent =
            |message: &Waiting| message.sequence < self.unsent && message.sequence.packet_id() == packet_id;
        let index = self.messages.iter().position(sent)?;
        self.messages.remove(index)
    }

    pub(super) fn remove(&mut self, sequence: SequenceNumber) -> Option<Waiting> {
        let index = self.messages.iter().position(|message| message.sequence == sequence)?;
        self.messages.remove(index)
    }

    // --- for other receivers ---

    /// Locks the first message that nobody holds, nor the connection.
    pub(super) fn lock(&mut self, now: UnixTime, by: Revision, limits: &Limits) -> Option<LockToken> {
        while self.unlock(now, limits).is_some() {}
        let unsent = self.unsent;
        let is_free = |message: &&mut Waiting| {
            message.sequence >= unsent
                && message.expiry > now
                && message.lock.is_none()
                && !message.is_spent(limits)
        };
        let message = self.messages.iter_mut().find(is_free)?;
        message.lock = Some(Lock { by, until: now.after(CLOUD_MESSAGE_LOCK) });
        Some(LockToken { sequence: message.sequence, lock: by })
    }

    fn locked(&self, token: LockToken, now: UnixTime) -> Result<usize, LockLost> {
        let is_meant = |message: &Waiting| {
            message.sequence == token.sequence
                && message.lock.is_some_and(|lock| lock.by == token.lock && lock.until > now)
        };
        self.messages.iter().position(is_meant).ok_or(LockLost)
    }

    /// Takes out a message that a receiver holds.
    pub(super) fn take(&mut self, token: LockToken, now: UnixTime) -> Result<Waiting, LockLost> {
        let index = self.locked(token, now)?;
        self.messages.remove(index).ok_or(LockLost)
    }

    /// Gives a message back that a receiver holds.
    pub(super) fn abandon(&mut self, token: LockToken, now: UnixTime) -> Result<(), LockLost> {
        let index = self.locked(token, now)?;
        let message = self.messages.get_mut(index).ok_or(LockLost)?;
        message.lock = None;
        message.delivery_count = message.delivery_count.saturating_add(1);
        Ok(())
    }

    /// The wall clock was set: locks last as long as they would have.
    pub(super) fn shift_locks(&mut self, before: UnixTime, after: UnixTime) {
        for lock in self.messages.iter_mut().filter_map(|message| message.lock.as_mut()) {
            lock.until = after.after(lock.until.since(before));
        }
    }

    // --- time ---

    /// Ends a lock whose time is over, if there is one.
    pub(super) fn unlock(&mut self, now: UnixTime, limits: &Limits) -> Option<SequenceNumber> {
        let over = |message: &&mut Waiting| message.lock.is_some_and(|lock| lock.until <= now);
        let message = self.messages.iter_mut().find(over)?;
        message.lock = None;
        message.delivery_count = message.delivery_count.saturating_add(limits.every_delivery_counts.into());
        Some(message.sequence)
    }

    /// Takes out a message that has expired, or was delivered in vain too often, and that nobody holds, nor the connection.
    pub(super) fn take_dead(&mut self, now: UnixTime, limits: &Limits) -> Option<(Waiting, Outcome)> {
        let outcome = |message: &Waiting| {
            if message.sequence < self.unsent || message.lock.is_some() {
                None
            } else if message.is_spent(limits) {
                Some(Outcome::DeliveryCountExceeded)
            } else {
                (message.expiry <= now).then_some(Outcome::Expired)
            }
        };
        let over = |(index, message)| Some((index, outcome(message)?));
        let (index, outcome) = self.messages.iter().enumerate().find_map(over)?;
        Some((self.messages.remove(index)?, outcome))
    }

    /// When the first message that is not the connection's is to be dead-lettered, or comes free.
    pub(super) fn next_change(&self, limits: &Limits) -> Option<UnixTime> {
        let of_interest = self.messages.iter().filter(|message| message.sequence >= self.unsent);
        let changes = of_interest.map(|message| match message.lock {
            Some(lock) => lock.until,
            None if message.is_spent(limits) => UnixTime::from_secs(0), // at once
            None => message.expiry,
        });
        changes.min()
    }
}

/// What counts of a message: the body, the values of system properties, names and values of the application's own (IoT Hub
/// messages: size).
fn size(message: &CloudMessage) -> usize {
    let CloudMessage { message_id, correlation_id, user_id, content_type, content_encoding, .. } = message;
    let system = [message_id, correlation_id, user_id, content_type, content_encoding].into_iter().flatten();
    let application =
        message.properties.iter().flat_map(|(name, value)| [Some(name), value.as_ref()]).flatten();
    system.chain(application).map(String::len).fold(message.payload.len(), usize::saturating_add)
}

/// `devices/{id}/messages/devicebound/` and the bag, in the order of the real hub: `$.mid`, `$.exp`, `$.to`, `$.cid`,
/// `$.uid`, `$.ct`, `$.ce`, `iothub-ack`, then the application's own.
fn topic(device_id: &str, message: &CloudMessage) -> Result<String, EnqueueError> {
    use alloc::string::ToString;
    let expiry = message.expiry.map(|expiry| expiry.to_string());
    let usual = || alloc::format!("/devices/{device_id}/messages/devicebound");
    let to = message.to.clone().unwrap_or_else(usual);
    let system = [
        (SystemProperty::MessageId, message.message_id.as_deref()),
        (SystemProperty::Expiry, expiry.as_deref()),
        (SystemProperty::To, Some(to.as_str())),
        (SystemProperty::CorrelationId, message.correlation_id.as_deref()),
        (SystemProperty::UserId, message.user_id.as_deref()),
        (SystemProperty::ContentType, message.content_type.as_deref()),
        (SystemProperty::ContentEncoding, message.content_encoding.as_deref()),
    ];
    let system = system.into_iter().map(|(property, value)| (property.wire(), value));
    let ack = message.ack.map(|ack| (FeedbackRequest::PROPERTY, Some(ack.as_str())));
    let system = system.filter(|(_, value)| value.is_some()).chain(ack);
    // Azure's SDKs for devices cannot read a name without its `=`.
    let application = message
        .properties
        .iter()
        .map(|(name, value)| (name.as_str(), Some(value.as_deref().unwrap_or_default())));
    let mut topic = String::new();
    cloud_message_topic(device_id, system.chain(application), &mut topic);
    crate::packet::TopicName::new(&topic).map_err(EnqueueError::Properties)?;
    Ok(topic)
}
