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

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use devicebound::hub::{
    Authentication, ClientCertificate, Commit, DeviceKey, Hub, LockLost, LockToken, Operation, Telemetry,
    WaitingMessage,
};
use devicebound::iothub::sas::{Rights, SymmetricKey};
use devicebound::iothub::{PropertyBag, SystemProperty, encode_property};
use devicebound::limits::MESSAGE_MAX;
use devicebound::time::Instant;

use super::messages::PROPERTY;
use super::{ApiError, Code, Service, Shared, client_id, find, header};
use crate::backlog::Change;
use crate::clock::unix_time;
use crate::message::Sender;

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

pub(super) async fn send(
    State(service): Shared,
    Path(device_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let client_id = client_id(&device_id, None)?;
    let bag = bag(&headers)?;
    let id = client_id.clone();
    let sent = service.engine.at(&client_id, move |core, now| {
        let device = find(core, &id)?;
        let bag =
            PropertyBag::parse(&bag).map_err(|rule| ApiError::new(Code::ArgumentInvalid, rule.says()))?;
        let size = body.len().saturating_add(bag.message_size());
        if size > MESSAGE_MAX {
            let message = format!("a message has at most {MESSAGE_MAX} bytes, its properties included");
            return Err(ApiError::new(Code::MessageTooLarge, message));
        }
        core.hub.admit(now, Operation::Telemetry, size)?;
        let sender = core.hub.record(device).map(Sender::of).ok_or_else(ApiError::store_failed)?;
        let telemetry = Telemetry {
            device,
            bag,
            payload: &body,
            receipt: None,
            retain_property: None,
            is_dup: false,
            is_will: false,
        };
        Ok::<_, ApiError>(core.telemetry_durably(&telemetry, &sender, unix_time()))
    });
    if sent.await?.await.unwrap_or(false) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::store_failed())
    }
}

pub(super) async fn receive(
    State(service): Shared,
    Path(device_id): Path<String>,
) -> Result<Response, ApiError> {
    let client_id = client_id(&device_id, None)?;
    let id = client_id.clone();
    let locked = service.engine.at(&client_id, move |core, now| {
        let key = find(core, &id)?;
        let Some((token, commit)) = core.hub.lock_message(now, key)? else { return Ok(None) };
        let message = core.hub.record(key).and_then(|record| record.message(token.sequence()));
        Ok::<_, ApiError>(message.map(|message| (commit.device, to_response(token, &message))))
    });
    let Some((key, response)) = locked.await? else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    if service.engine.durable(&client_id, Change::Record(key)).await {
        Ok(response)
    } else {
        Err(ApiError::store_failed())
    }
}

pub(super) async fn complete(
    State(service): Shared,
    Path((device_id, lock)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, ApiError> {
    let rejects = |pair: &str| pair == "reject" || pair.starts_with("reject=");
    let end = if query.unwrap_or_default().split('&').any(rejects) { Hub::reject } else { Hub::complete };
    service.settle(&device_id, &lock, end).await
}

pub(super) async fn abandon(
    State(service): Shared,
    Path((device_id, lock)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    service.settle(&device_id, &lock, Hub::abandon).await
}

/// What becomes of a locked message.
type Settle = fn(&mut Hub, Instant, DeviceKey, LockToken) -> Result<Commit, LockLost>;

/// What the registry knows a device by.
struct Known {
    authentication: Authentication,
    enabled: bool,
}

impl Known {
    fn keys(&self) -> Vec<&SymmetricKey> {
        match &self.authentication {
            Authentication::Sas { primary, secondary } => vec![primary, secondary],
            Authentication::SelfSigned { .. } | Authentication::CertificateAuthority => Vec::new(),
        }
    }

    fn is_proved_by(&self, device_id: &str, shown: &ClientCertificate) -> bool {
        let is_shown = |print: &str| {
            print.eq_ignore_ascii_case(&shown.sha1) || print.eq_ignore_ascii_case(&shown.sha256)
        };
        match &self.authentication {
            Authentication::Sas { .. } => false,
            Authentication::SelfSigned { primary, secondary } => {
                is_shown(primary) || secondary.as_deref().is_some_and(is_shown)
            }
            Authentication::CertificateAuthority => {
                shown.is_trusted && shown.common_name.as_deref() == Some(device_id)
            }
        }
    }
}

impl Service {
    /// Whether who asks is this device.
    pub(super) async fn check_device(
        &self,
        device_id: &str,
        token: Option<&str>,
        certificate: Option<&ClientCertificate>,
    ) -> Result<(), ApiError> {
        let client_id = client_id(device_id, None)?;
        let id = client_id.clone();
        let known = self.engine.at(&client_id, move |core, _| {
            let key = find(core, &id)?;
            let identity = &core.hub.record(key).ok_or_else(ApiError::store_failed)?.identity;
            Ok::<_, ApiError>(Known {
                authentication: identity.authentication.clone(),
                enabled: identity.enabled,
            })
        });
        let known = known.await?;
        match (token, certificate) {
            (None, Some(shown)) if known.is_proved_by(device_id, shown) => {}
            _ => self.check_token(
                token,
                &format!("/devices/{device_id}"),
                Rights::DEVICE_CONNECT,
                &known.keys(),
            )?,
        }
        if known.enabled {
            return Ok(());
        }
        Err(ApiError::new(
            Code::DeviceDisabled,
            "the device is disabled: devicebound device enable lets it in",
        ))
    }

    async fn settle(&self, device_id: &str, lock: &str, settle: Settle) -> Result<StatusCode, ApiError> {
        let client_id = client_id(device_id, None)?;
        let lost = |error: LockLost| ApiError::new(Code::MessageLockLost, error.to_string());
        let token = LockToken::parse(lock.trim_matches('"')).ok_or_else(|| lost(LockLost))?;
        let id = client_id.clone();
        let settled = self.engine.at(&client_id, move |core, now| {
            let key = find(core, &id)?;
            settle(&mut core.hub, now, key, token).map_err(lost)
        });
        let commit = settled.await?;
        if self.engine.durable(&client_id, Change::Record(commit.device)).await {
            Ok(StatusCode::NO_CONTENT)
        } else {
            Err(ApiError::store_failed())
        }
    }
}

/// The property bag that the same message would have over MQTT.
fn bag(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut bag = String::new();
    for (name, property) in SENT {
        if let Some(value) = header(headers, name) {
            encode_property(property.wire(), Some(value), &mut bag);
        }
    }
    for (name, value) in headers {
        if let Some(name) = name.as_str().strip_prefix(PROPERTY) {
            let value = std::str::from_utf8(value.as_bytes())
                .map_err(|_| ApiError::new(Code::ArgumentInvalid, "a property is not UTF-8"))?;
            encode_property(name, Some(value), &mut bag);
        }
    }
    Ok(bag)
}

fn to_response(token: LockToken, message: &WaitingMessage<'_>) -> Response {
    let mut response = message.payload.to_vec().into_response();
    let headers = response.headers_mut();
    let mut insert = |name: &str, value: &str| {
        // What HTTP cannot carry in a header is left out; the body is there in any case.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.insert(name, value);
        }
    };
    insert("etag", &format!("\"{token}\""));
    insert("iothub-sequencenumber", &message.sequence.0.to_string());
    insert("iothub-enqueuedtime", &message.enqueued.to_string());
    insert("iothub-expiry", &message.expiry.to_string());
    insert("iothub-ack", message.ack.as_str());
    insert("iothub-deliverycount", &message.delivery_count.to_string());
    for (name, value) in message.properties.iter() {
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
