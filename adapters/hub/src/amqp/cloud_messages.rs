//! `messages/devicebound`: cloud-to-device messages.

use std::sync::Arc;

use devicebound::hub::{CloudMessage, FeedbackRequest};
use devicebound::iothub::Identity;
use devicebound::time::UnixTime;
use devicebound_amqp::Condition;
use devicebound_amqp::message::{Body, Message};
use devicebound_amqp::types::Value;

use crate::backend::access::Caller;
use crate::backend::audit::{Outcome, Protocol, Subject};
use crate::backend::{Backend, ClientId, Code, Error};

/// Why a message is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) condition: Condition,
    pub(super) text: String,
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        let condition = match error.code() {
            Code::DeviceNotFound | Code::ModuleNotFound => Condition::NotFound,
            Code::QueueFull => Condition::ResourceLimitExceeded,
            Code::MessageTooLarge => Condition::MessageSizeExceeded,
            Code::ArgumentInvalid | Code::InvalidMessageExpiryTime => Condition::ArgumentError,
            Code::NotInTier => Condition::NotAllowed,
            Code::QuotaExceeded => Condition::QuotaExceeded,
            Code::Throttled => Condition::Throttled,
            Code::Unauthorized => Condition::UnauthorizedAccess,
            _ => Condition::InternalError,
        };
        let mut text = format!("{} {}: {}", error.code().number(), error.code().name(), error.what());
        if let Some(fix) = error.fix() {
            text.push_str("; fix: ");
            text.push_str(fix);
        }
        Self { condition, text }
    }
}

fn wrong(text: impl Into<String>) -> Rejection {
    Rejection { condition: Condition::ArgumentError, text: text.into() }
}

/// Reads a message, and for which device it is.
pub(super) fn read(bytes: &[u8]) -> Result<(ClientId, CloudMessage), Rejection> {
    let message = Message::decode(bytes)
        .map_err(|rule| wrong(format!("{}: {}; fix: {}", rule.id(), rule.says(), rule.fix())))?;
    let properties = &message.properties;
    let to = properties
        .to
        .ok_or_else(|| wrong("`to` is missing; fix: set it to /devices/{id}/messages/devicebound"))?;
    let device_id = device_of(to)?;
    let text = |value: Value<'_>| match value {
        Value::Null => None,
        value => Some(in_words(value)),
    };
    let mut sent = CloudMessage {
        message_id: text(properties.message_id),
        correlation_id: text(properties.correlation_id),
        user_id: properties.user_id.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        content_type: properties.content_type.map(str::to_owned),
        content_encoding: properties.content_encoding.map(str::to_owned),
        // A time before 1970 has passed, as 1970 has.
        expiry: properties
            .absolute_expiry_time
            .map(|millis| UnixTime::from_millis(millis.try_into().unwrap_or(0))),
        ..CloudMessage::default()
    };
    for (name, value) in message.application_properties.iter().flat_map(|map| map.iter()) {
        let name = name.text().ok_or_else(|| wrong("the name of an application property is a string"))?;
        if name.eq_ignore_ascii_case("iothub-ack") {
            let ack = value.text().and_then(FeedbackRequest::parse);
            sent.ack = Some(ack.ok_or_else(|| wrong("iothub-ack is none, positive, negative or full"))?);
        } else {
            sent.properties.push((name.to_owned(), text(value)));
        }
    }
    sent.payload = match &message.body {
        Body::None => Vec::new(),
        Body::Data(bytes) => bytes.to_vec(),
        Body::Value(Value::String(text)) => text.as_bytes().to_vec(),
        Body::Value(Value::Binary(bytes)) => bytes.to_vec(),
        Body::Value(_) | Body::Sequence => return Err(wrong("the body is bytes: one data section")),
    };
    Ok((device_id, sent))
}

/// Sends a message for `caller`, which is told as over HTTPS.
pub(super) async fn send(
    backend: &Arc<Backend>,
    caller: Caller,
    device_id: ClientId,
    message: CloudMessage,
) -> Result<(), Error> {
    let subject = Subject {
        protocol: Protocol::Amqp,
        kind: Some(("C2DCommands", "ingress")),
        device_id: device_id.as_str().to_owned(),
        size: u64::try_from(message.payload.len()).ok(),
        ..Subject::default()
    };
    let own = Arc::clone(backend);
    let sent = backend.audited(subject, |_| async move {
        let sent = own.send_cloud_message(&device_id, message).await;
        Outcome::of(caller, sent.map(|_| (204, ())))
    });
    sent.await
}

/// The device id in `/devices/{id}/messages/devicebound`.
fn device_of(to: &str) -> Result<ClientId, Rejection> {
    let path = super::address::path(to);
    let segments: Vec<&str> = path.split('/').collect();
    let is = |segment: &str, name: &str| segment.eq_ignore_ascii_case(name);
    match segments.as_slice() {
        [devices, id, messages, bound]
            if is(devices, "devices")
                && is(messages, "messages")
                && is(bound, "devicebound")
                && Identity::new(id, None).is_ok() =>
        {
            Ok(ClientId::new(id, None)?)
        }
        [devices, _, modules, ..] if is(devices, "devices") && is(modules, "modules") => Err(Rejection {
            condition: Condition::NotImplemented,
            text: "modules have no cloud-to-device messages; fix: call a method, or set desired properties"
                .to_owned(),
        }),
        _ => Err(wrong(format!("`to` is `{to}`; fix: set it to /devices/{{id}}/messages/devicebound"))),
    }
}

/// A simple value as text: MQTT's property bag has nothing else.
fn in_words(value: Value<'_>) -> String {
    match value {
        Value::String(text) | Value::Symbol(text) => text.to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        Value::Char(value) => value.to_string(),
        Value::Ulong(value) => value.to_string(),
        Value::Timestamp(millis) => UnixTime::from_millis(millis.try_into().unwrap_or(0)).to_string(),
        Value::Uuid(bytes) => uuid(&bytes),
        Value::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        value => value.integer().map_or_else(String::new, |number| number.to_string()),
    }
}

fn uuid(bytes: &[u8; 16]) -> String {
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_for_the_device_in_its_to_and_case_counts_in_the_id_alone() {
        assert_eq!(device_of("/devices/Demo/messages/deviceBound").unwrap().as_str(), "Demo");
        assert_eq!(device_of("/devices/a%24b/messages/devicebound").unwrap().as_str(), "a$b");
        assert_eq!(
            device_of("/devices/a/modules/b/messages/deviceBound").unwrap_err().condition,
            Condition::NotImplemented
        );
        for wrong in ["", "demo", "/devices//messages/devicebound", "/devices/a/messages/events"] {
            assert_eq!(device_of(wrong).unwrap_err().condition, Condition::ArgumentError, "{wrong}");
        }
    }

    #[test]
    fn values_of_any_simple_type_become_text() {
        assert_eq!(in_words(Value::Int(-5)), "-5");
        assert_eq!(in_words(Value::Ulong(u64::MAX)), "18446744073709551615");
        assert_eq!(in_words(Value::Boolean(true)), "true");
        assert_eq!(in_words(Value::Timestamp(1_700_000_000_000)), "2023-11-14T22:13:20.000Z");
        assert_eq!(in_words(Value::Uuid([0xab; 16])), "abababab-abab-abab-abab-abababababab");
    }
}
