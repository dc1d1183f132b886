//! What a device does over HTTP: it sends telemetry, and receives cloud-to-device messages under a lock.
//!
//! | request | |
//! |---|---|
//! | `POST /devices/{id}/messages/events` | 204 once the message is stored |
//! | `GET /devices/{id}/messages/deviceBound` | 200 with a message and its lock as ETag, or 204 |
//! | `DELETE …/{lock}`, `DELETE …/{lock}?reject` | the device is done with the message, or does not want it |
//! | `POST …/{lock}/abandon` | the message is delivered again |
//!
//! The device shows a token of its own, or of a policy with DeviceConnect, or the certificate that it is known by.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use devicebound::iothub::{SystemProperty, encode_property};

use super::call::header;
use super::messages::PROPERTY;
use super::{ApiError, Call, Shared};
use crate::backend::Error;
use crate::backend::device_messages::{LockedMessage, Settlement};

/// System properties that a device sends in headers of their own.
const SENT: [(&str, SystemProperty); 5] = [
    ("iothub-messageid", SystemProperty::MessageId),
    ("iothub-correlationid", SystemProperty::CorrelationId),
    ("iothub-userid", SystemProperty::UserId),
    ("iothub-contenttype", SystemProperty::ContentType),
    ("iothub-contentencoding", SystemProperty::ContentEncoding),
];
/// System properties that a device receives in headers of their own.
const RECEIVED: [(&str, SystemProperty); 6] =
    [SENT[0], SENT[1], SENT[2], SENT[3], SENT[4], ("iothub-to", SystemProperty::To)];

pub(super) async fn send(backend: Shared, mut call: Call) -> Result<Response, ApiError> {
    let id = call.client_id()?;
    let bag = bag(&call.parts.headers)?;
    let body = call.body().await?;
    backend.send_telemetry(&id, bag, body.into()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn receive(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let message = backend.receive_message(&call.client_id()?).await?;
    Ok(message.map_or_else(|| StatusCode::NO_CONTENT.into_response(), to_response))
}

pub(super) async fn complete(backend: Shared, call: Call) -> Result<Response, ApiError> {
    let rejects = call.query("reject").is_some();
    settle(backend, call, if rejects { Settlement::Reject } else { Settlement::Complete }).await
}

pub(super) async fn abandon(backend: Shared, call: Call) -> Result<Response, ApiError> {
    settle(backend, call, Settlement::Abandon).await
}

async fn settle(backend: Shared, call: Call, how: Settlement) -> Result<Response, ApiError> {
    backend.settle_message(&call.client_id()?, call.parameter("lock"), how).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The property bag that the same message would have over MQTT.
fn bag(headers: &HeaderMap) -> Result<String, Error> {
    let mut bag = String::new();
    for (name, property) in SENT {
        if let Some(value) = header(headers, name) {
            encode_property(property.wire(), Some(value), &mut bag);
        }
    }
    for (name, value) in headers {
        if let Some(name) = name.as_str().strip_prefix(PROPERTY) {
            let value = std::str::from_utf8(value.as_bytes())
                .map_err(|_| Error::invalid("a property is not UTF-8"))?;
            encode_property(name, Some(value), &mut bag);
        }
    }
    Ok(bag)
}

fn to_response(message: LockedMessage) -> Response {
    let mut response = message.payload.into_response();
    let headers = response.headers_mut();
    let mut insert = |name: &str, value: &str| {
        // What HTTP cannot carry in a header is left out; the body is there in any case.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.insert(name, value);
        }
    };
    insert("etag", &format!("\"{}\"", message.lock));
    insert("iothub-sequencenumber", &message.sequence.0.to_string());
    insert("iothub-enqueuedtime", &message.enqueued.to_string());
    insert("iothub-expiry", &message.expiry.to_string());
    insert("iothub-ack", message.ack.as_str());
    insert("iothub-deliverycount", &message.delivery_count.to_string());
    for (name, value) in message.properties {
        let value = value.unwrap_or_default();
        match SystemProperty::from_wire(&name) {
            Some(property) => {
                if let Some((name, _)) = RECEIVED.iter().find(|(_, known)| *known == property) {
                    insert(name, &value);
                }
            }
            // Said above.
            None if name == "iothub-ack" => {}
            None => insert(&format!("{PROPERTY}{name}"), &value),
        }
    }
    response
}
