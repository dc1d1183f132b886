//! A record as JSON text, for a store: written whole, read back with care.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::identity::{Authentication, DeviceIdentity};
use super::mailbox::{FeedbackRequest, Mailbox, SequenceNumber, Waiting};
use super::record::{Activity, DeviceRecord, Revision, Session};
use super::twin::Twin;
use crate::iothub::sas::SymmetricKey;
use crate::iothub::{Subscription, Subscriptions};
use crate::packet::{QoS, TopicName};
use crate::time::UnixTime;

/// The layout that this version writes and reads.
const LAYOUT: u64 = 2;

/// Why a stored record cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It is not JSON.
    #[error(
        "the record is not JSON; restore it from a backup, or remove the file and register the device again"
    )]
    Json,
    /// It was written by another version.
    #[error("the record has another layout than this version reads; use the version that wrote it")]
    Layout,
    /// A member is missing, or is not what it should be.
    #[error(
        "the record's member {0:?} is missing or wrong; restore it from a backup, or remove the file and register the device again"
    )]
    Member(&'static str),
}

impl DeviceRecord {
    /// The record as JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
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
            "modelId": self.model_id,
            "session": self.session.map(|session| subscriptions_to_json(session.subscriptions)),
            "mailbox": {
                "last": self.mailbox.last,
                "messages": self.mailbox.messages.iter().map(waiting_to_json).collect::<Vec<_>>(),
            },
            "twin": {
                "version": self.twin.version,
                "desired": self.twin.desired,
                "desiredVersion": self.twin.desired_version,
                "reported": self.twin.reported,
                "reportedVersion": self.twin.reported_version,
                "tags": self.twin.tags,
            },
        })
        .to_string()
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// See [`SnapshotError`]: a damaged record is named, never taken in part.
    pub fn from_json(text: &[u8]) -> Result<Self, SnapshotError> {
        let value: Value = serde_json::from_slice(text).map_err(|_| SnapshotError::Json)?;
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
        let session = match member(&value, "session")? {
            Value::Null => None,
            subscriptions => Some(Session { subscriptions: subscriptions_from_json(subscriptions)? }),
        };
        Ok(Self {
            identity,
            session,
            mailbox: mailbox_from_json(member(&value, "mailbox")?)?,
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

fn waiting_to_json(message: &Waiting) -> Value {
    json!({
        "sequence": message.sequence.0,
        "topic": message.topic,
        "payload": BASE64.encode(&message.payload),
        "expiry": message.expiry.as_millis(),
        "ack": message.ack.as_str(),
        "messageId": message.message_id,
        "attempted": message.attempted,
    })
}

fn mailbox_from_json(value: &Value) -> Result<Mailbox, SnapshotError> {
    let wrong = SnapshotError::Member("messages");
    let messages = member(value, "messages")?.as_array().ok_or(wrong)?;
    Ok(Mailbox {
        last: number(value, "last")?,
        messages: messages.iter().map(waiting_from_json).collect::<Result<_, _>>()?,
    })
}

fn waiting_from_json(value: &Value) -> Result<Waiting, SnapshotError> {
    let topic = text_of(value, "topic")?;
    TopicName::new(topic).map_err(|_| SnapshotError::Member("topic"))?;
    Ok(Waiting {
        sequence: SequenceNumber(number(value, "sequence")?),
        topic: topic.to_string(),
        payload: BASE64.decode(text_of(value, "payload")?).map_err(|_| SnapshotError::Member("payload"))?,
        expiry: UnixTime::from_millis(number(value, "expiry")?),
        ack: FeedbackRequest::parse(text_of(value, "ack")?).ok_or(SnapshotError::Member("ack"))?,
        message_id: optional_text(value, "messageId")?,
        attempted: member(value, "attempted")?.as_bool().ok_or(SnapshotError::Member("attempted"))?,
        dup: false,
        since: Revision(0),
    })
}

fn twin_from_json(value: &Value) -> Result<Twin, SnapshotError> {
    Ok(Twin {
        version: number(value, "version")?,
        desired: object(value, "desired")?,
        desired_version: number(value, "desiredVersion")?,
        reported: object(value, "reported")?,
        reported_version: number(value, "reportedVersion")?,
        tags: object(value, "tags")?,
    })
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
