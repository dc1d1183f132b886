//! A record as JSON text, for a store: in parts, so that little is written when little changed; read back with care.
//!
//! The *head* is small and holds all but the messages that wait; it changes with every revision. Each message is an
//! *entry* of its own that never changes: written when the message is enqueued, dropped when the head does not list it
//! any more. What changes of a message while it waits stands in the head's list.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::cloud_to_device_queue::{CloudToDeviceQueue, Lock, SequenceNumber, Waiting};
use super::identity::{Authentication, DeviceIdentity};
use super::metadata::Metadata;
use super::outcome::{FeedbackRequest, Outcome, Report, Reports};
use super::record::{Activity, DeviceRecord, Session};
use super::revision::Revision;
use super::twin::Twin;
use crate::iothub::sas::SymmetricKey;
use crate::iothub::{Subscription, Subscriptions};
use crate::packet::{QoS, TopicName};
use crate::time::UnixTime;

/// The layout that this version writes and reads. 1 was the whole record in one text.
const LAYOUT: u64 = 2;

/// Why a stored record cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It is not JSON.
    #[error(
        "the record is not JSON; restore the store from a backup, or remove the record and register the device again"
    )]
    Json,
    /// It was written by another version.
    #[error("the record has another layout than this version reads; use the version that wrote it")]
    Layout,
    /// A member is missing, or is not what it should be.
    #[error(
        "the record's member {0:?} is missing or wrong; restore the store from a backup, or remove the record and register the device again"
    )]
    Member(&'static str),
    /// The entries are not those that the head lists, in its order.
    #[error(
        "the record's messages are not those that it lists; restore the store from a backup, or remove the record and register the device again"
    )]
    Messages,
}

impl DeviceRecord {
    /// All but the messages that wait, as JSON text.
    #[must_use]
    pub fn to_head(&self) -> String {
        let identity = &self.identity;
        json!({
            "layout": LAYOUT,
            "revision": self.revision.0,
            "clientId": identity.client_id(),
            "generationId": identity.generation_id,
            "enabled": identity.enabled,
            "statusReason": identity.status_reason,
            "statusUpdated": identity.status_updated.map(UnixTime::as_millis),
            "identityVersion": identity.version,
            "connectionStateUpdated": self.activity.connection_state_updated.map(UnixTime::as_millis),
            "lastActivity": self.activity.last.map(UnixTime::as_millis),
            "authentication": authentication_to_json(&identity.authentication),
            "isEdge": identity.is_edge,
            "deviceScope": identity.device_scope,
            "parentScopes": identity.parent_scopes,
            "modelId": self.model_id,
            "session": self.session.map(|session| subscriptions_to_json(session.subscriptions)),
            // The name in stores that earlier versions wrote.
            "mailbox": {
                "last": self.queue.last,
                "feedback": self.queue.feedback.iter().map(report_to_json).collect::<Vec<_>>(),
                "waiting": self.queue.messages.iter().map(progress_to_json).collect::<Vec<_>>(),
            },
            "twin": {
                "version": self.twin.version,
                "etag": self.twin.etag,
                "desired": self.twin.desired,
                "desiredVersion": self.twin.desired_version,
                "desiredStamp": self.twin.desired_stamp.as_ref().map(|stamp| stamp.to_json()),
                "reported": self.twin.reported,
                "reportedVersion": self.twin.reported_version,
                "reportedStamp": self.twin.reported_stamp.as_ref().map(|stamp| stamp.to_json()),
                "tags": self.twin.tags,
            },
        })
        .to_string()
    }

    /// A message that waits, as JSON text: the same for as long as it waits. `None` if it does not wait.
    #[must_use]
    pub fn to_entry(&self, sequence: SequenceNumber) -> Option<String> {
        let message = self.queue.messages.iter().find(|message| message.sequence == sequence)?;
        Some(entry_to_json(message).to_string())
    }

    /// Reads what [`to_head`](Self::to_head) and, for each of [`waiting`](Self::waiting) in order,
    /// [`to_entry`](Self::to_entry) wrote.
    ///
    /// # Errors
    /// See [`SnapshotError`]: a damaged record is named, never taken in part.
    pub fn from_parts<'e>(
        head: &[u8],
        entries: impl IntoIterator<Item = &'e [u8]>,
    ) -> Result<Self, SnapshotError> {
        let value: Value = serde_json::from_slice(head).map_err(|_| SnapshotError::Json)?;
        if value.get("layout").and_then(Value::as_u64) != Some(LAYOUT) {
            return Err(SnapshotError::Layout);
        }
        let authentication = authentication_from_json(member(&value, "authentication")?)?;
        let generation_id = text_of(&value, "generationId")?.to_string();
        let mut identity = DeviceIdentity::new(text_of(&value, "clientId")?, generation_id, authentication)
            .map_err(|_| SnapshotError::Member("clientId"))?;
        identity.enabled = member(&value, "enabled")?.as_bool().ok_or(SnapshotError::Member("enabled"))?;
        identity.status_reason = optional_text(&value, "statusReason")?;
        identity.status_updated = optional_time(&value, "statusUpdated")?;
        identity.version = number(&value, "identityVersion")?;
        edge_from_json(&value, &mut identity)?;
        let session = match member(&value, "session")? {
            Value::Null => None,
            subscriptions => Some(Session { subscriptions: subscriptions_from_json(subscriptions)? }),
        };
        Ok(Self {
            identity,
            session,
            queue: queue_from_json(member(&value, "mailbox")?, entries)?,
            twin: twin_from_json(member(&value, "twin")?)?,
            model_id: optional_text(&value, "modelId")?,
            activity: Activity {
                connection_state_updated: optional_time(&value, "connectionStateUpdated")?,
                last: optional_time(&value, "lastActivity")?,
            },
            revision: Revision(number(&value, "revision")?),
        })
    }
}

/// What earlier versions did not write.
fn edge_from_json(value: &Value, identity: &mut DeviceIdentity) -> Result<(), SnapshotError> {
    let wrong = SnapshotError::Member;
    if let Some(is_edge) = value.get("isEdge") {
        identity.is_edge = is_edge.as_bool().ok_or(wrong("isEdge"))?;
    }
    if value.get("deviceScope").is_some() {
        identity.device_scope = optional_text(value, "deviceScope")?;
    }
    if let Some(scopes) = value.get("parentScopes") {
        let scopes = scopes.as_array().ok_or(wrong("parentScopes"))?.iter();
        let scope = |scope: &Value| scope.as_str().map(str::to_string).ok_or(wrong("parentScopes"));
        identity.parent_scopes = scopes.map(scope).collect::<Result<_, _>>()?;
    }
    Ok(())
}

fn authentication_to_json(authentication: &Authentication) -> Value {
    match authentication {
        Authentication::Sas { primary, secondary } => {
            json!({"type": "sas", "primary": primary.to_base64(), "secondary": secondary.to_base64()})
        }
        Authentication::SelfSigned { primary, secondary } => {
            json!({"type": "selfSigned", "primary": primary, "secondary": secondary})
        }
        Authentication::CertificateAuthority => json!({"type": "certificateAuthority"}),
    }
}

fn authentication_from_json(value: &Value) -> Result<Authentication, SnapshotError> {
    let key =
        |name| SymmetricKey::from_base64(text_of(value, name)?).map_err(|_| SnapshotError::Member(name));
    match text_of(value, "type")? {
        "sas" => Ok(Authentication::Sas { primary: key("primary")?, secondary: key("secondary")? }),
        "selfSigned" => Ok(Authentication::SelfSigned {
            primary: text_of(value, "primary")?.to_string(),
            secondary: optional_text(value, "secondary")?,
        }),
        "certificateAuthority" => Ok(Authentication::CertificateAuthority),
        _ => Err(SnapshotError::Member("type")),
    }
}

fn subscriptions_to_json(subscriptions: Subscriptions) -> Value {
    let entries = subscriptions
        .iter()
        .map(|(subscription, qos)| (subscription.name().to_string(), Value::from(qos as u8)));
    Value::Object(entries.collect())
}

fn subscriptions_from_json(value: &Value) -> Result<Subscriptions, SnapshotError> {
    let wrong = SnapshotError::Member("session");
    let mut subscriptions = Subscriptions::default();
    for (name, qos) in value.as_object().ok_or(wrong)? {
        let subscription = Subscription::from_name(name).ok_or(wrong)?;
        let qos = match qos.as_u64() {
            Some(0) => QoS::AtMostOnce,
            Some(1) => QoS::AtLeastOnce,
            _ => return Err(wrong),
        };
        subscriptions.insert(subscription, qos);
    }
    Ok(subscriptions)
}

/// What may change of a message while it waits.
fn progress_to_json(message: &Waiting) -> Value {
    json!({
        "sequence": message.sequence.0,
        "attempted": message.attempted,
        "deliveries": message.delivery_count,
        "lock": message.lock.map(|lock| json!({"by": lock.by.0, "until": lock.until.as_millis()})),
    })
}

/// What never changes of a message.
fn entry_to_json(message: &Waiting) -> Value {
    json!({
        "sequence": message.sequence.0,
        "topic": message.topic,
        "payload": BASE64.encode(&message.payload),
        "enqueued": message.enqueued.as_millis(),
        "expiry": message.expiry.as_millis(),
        "ack": message.ack.as_str(),
        "messageId": message.message_id,
    })
}

fn queue_from_json<'e>(
    value: &Value,
    entries: impl IntoIterator<Item = &'e [u8]>,
) -> Result<CloudToDeviceQueue, SnapshotError> {
    let last = number(value, "last")?;
    let waiting = member(value, "waiting")?.as_array().ok_or(SnapshotError::Member("waiting"))?;
    let mut entries = entries.into_iter();
    let mut messages = VecDeque::with_capacity(waiting.len());
    let mut previous = 0;
    for progress in waiting {
        let message = waiting_from_json(progress, entries.next().ok_or(SnapshotError::Messages)?)?;
        // In order and up to the last that was given, or a later message would get its number again.
        if message.sequence.0 <= previous || message.sequence.0 > last {
            return Err(SnapshotError::Member("sequence"));
        }
        previous = message.sequence.0;
        messages.push_back(message);
    }
    if entries.next().is_some() {
        return Err(SnapshotError::Messages);
    }
    Ok(CloudToDeviceQueue::restored(messages, last, feedback_from_json(member(value, "feedback")?)?))
}

fn waiting_from_json(progress: &Value, entry: &[u8]) -> Result<Waiting, SnapshotError> {
    let value: Value = serde_json::from_slice(entry).map_err(|_| SnapshotError::Json)?;
    let sequence = number(progress, "sequence")?;
    if number(&value, "sequence")? != sequence {
        return Err(SnapshotError::Messages);
    }
    let topic = text_of(&value, "topic")?;
    TopicName::new(topic).map_err(|_| SnapshotError::Member("topic"))?;
    Ok(Waiting {
        sequence: SequenceNumber(sequence),
        topic: topic.to_string(),
        payload: BASE64.decode(text_of(&value, "payload")?).map_err(|_| SnapshotError::Member("payload"))?,
        enqueued: UnixTime::from_millis(number(&value, "enqueued")?),
        expiry: UnixTime::from_millis(number(&value, "expiry")?),
        ack: FeedbackRequest::parse(text_of(&value, "ack")?).ok_or(SnapshotError::Member("ack"))?,
        message_id: optional_text(&value, "messageId")?,
        attempted: member(progress, "attempted")?.as_bool().ok_or(SnapshotError::Member("attempted"))?,
        delivery_count: u32::try_from(number(progress, "deliveries")?)
            .map_err(|_| SnapshotError::Member("deliveries"))?,
        under_way: false,
        lock: lock_from_json(member(progress, "lock")?)?,
        dup: false,
        since: Revision(0),
    })
}

fn lock_from_json(value: &Value) -> Result<Option<Lock>, SnapshotError> {
    if value.is_null() {
        return Ok(None);
    }
    let until = UnixTime::from_millis(number(value, "until")?);
    Ok(Some(Lock { by: Revision(number(value, "by")?), until }))
}

fn report_to_json(report: &Report) -> Value {
    json!({
        "messageId": report.message_id,
        "at": report.at.as_millis(),
        "outcome": report.outcome.as_str(),
    })
}

fn feedback_from_json(value: &Value) -> Result<Reports, SnapshotError> {
    let report = |value| {
        Ok(Report {
            message_id: optional_text(value, "messageId")?,
            at: UnixTime::from_millis(number(value, "at")?),
            outcome: Outcome::parse(text_of(value, "outcome")?).ok_or(SnapshotError::Member("outcome"))?,
            since: Revision(0),
        })
    };
    value.as_array().ok_or(SnapshotError::Member("feedback"))?.iter().map(report).collect()
}

fn twin_from_json(value: &Value) -> Result<Twin, SnapshotError> {
    Ok(Twin {
        version: number(value, "version")?,
        etag: number(value, "etag")?,
        desired: object(value, "desired")?,
        desired_version: number(value, "desiredVersion")?,
        desired_stamp: stamp(value, "desiredStamp")?,
        reported: object(value, "reported")?,
        reported_version: number(value, "reportedVersion")?,
        reported_stamp: stamp(value, "reportedStamp")?,
        tags: object(value, "tags")?,
    })
}

fn stamp(value: &Value, name: &'static str) -> Result<Option<Box<Metadata>>, SnapshotError> {
    match member(value, name)? {
        Value::Null => Ok(None),
        stamp => {
            Metadata::from_json(stamp).map(|stamp| Some(Box::new(stamp))).ok_or(SnapshotError::Member(name))
        }
    }
}

fn member<'v>(value: &'v Value, name: &'static str) -> Result<&'v Value, SnapshotError> {
    value.get(name).ok_or(SnapshotError::Member(name))
}

fn text_of<'v>(value: &'v Value, name: &'static str) -> Result<&'v str, SnapshotError> {
    member(value, name)?.as_str().ok_or(SnapshotError::Member(name))
}

fn optional_text(value: &Value, name: &'static str) -> Result<Option<String>, SnapshotError> {
    match member(value, name)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(SnapshotError::Member(name)),
    }
}

fn optional_time(value: &Value, name: &'static str) -> Result<Option<UnixTime>, SnapshotError> {
    match member(value, name)? {
        Value::Null => Ok(None),
        time => {
            time.as_u64().map(|time| Some(UnixTime::from_millis(time))).ok_or(SnapshotError::Member(name))
        }
    }
}

fn number(value: &Value, name: &'static str) -> Result<u64, SnapshotError> {
    member(value, name)?.as_u64().ok_or(SnapshotError::Member(name))
}

fn object(value: &Value, name: &'static str) -> Result<Map<String, Value>, SnapshotError> {
    member(value, name)?.as_object().cloned().ok_or(SnapshotError::Member(name))
}
