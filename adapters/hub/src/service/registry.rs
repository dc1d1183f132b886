//! `/devices`: the identity registry.

use std::collections::HashMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::hub::{Authentication, DeviceIdentity, DeviceKey, DeviceRecord};
use devicebound::iothub::sas::SymmetricKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{ApiError, Code, Service, Shared, client_id, find, header, json_body, json_with_etag};
use crate::backlog::Change;
use crate::clock::unix_time;
use crate::policies;
use crate::worker::Core;

/// What Azure writes for a moment that has not come yet.
pub(super) const NEVER: &str = "0001-01-01T00:00:00Z";
/// How many devices one answer lists at most, as in Azure.
const LIST_MAX: usize = 1000;
/// Lengths of a key that somebody brings (Azure's registry).
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 16..=64;

pub(super) async fn list(State(service): Shared, Query(query): Query<HashMap<String, String>>) -> Response {
    let top = query.get("top").and_then(|top| top.parse().ok());
    let top = top.unwrap_or(LIST_MAX).clamp(1, LIST_MAX);
    let listed = service.engine.everywhere(move |core, _| {
        let devices =
            core.hub.devices().filter(|(_, record)| record.identity.identity().module_id().is_none());
        let listed = |(key, record): (DeviceKey, &DeviceRecord)| {
            (record.identity.client_id().to_owned(), to_json(core, key, record))
        };
        devices.take(top).map(listed).collect::<Vec<_>>()
    });
    let mut devices: Vec<(String, Value)> = listed.await.into_iter().flatten().collect();
    devices.sort_by(|(one, _), (other, _)| one.cmp(other));
    let devices: Vec<Value> = devices.into_iter().take(top).map(|(_, device)| device).collect();
    Json(devices).into_response()
}

pub(super) async fn modules(
    State(service): Shared,
    Path(device_id): Path<String>,
) -> Result<Response, ApiError> {
    let client_id = client_id(&device_id, None)?;
    let id = client_id.clone();
    let listed = service.engine.at(&client_id, move |core, _| {
        find(core, &id)?;
        let of_device = |(_, record): &(DeviceKey, &DeviceRecord)| {
            let identity = record.identity.identity();
            identity.device_id() == device_id && identity.module_id().is_some()
        };
        let modules = core.hub.devices().filter(of_device);
        Ok::<Vec<Value>, ApiError>(modules.map(|(key, record)| to_json(core, key, record)).collect())
    });
    Ok(Json(listed.await?).into_response())
}

pub(super) async fn show(
    State(service): Shared,
    Path(device_id): Path<String>,
) -> Result<Response, ApiError> {
    service.identity(client_id(&device_id, None)?).await
}

pub(super) async fn show_module(
    State(service): Shared,
    Path((device_id, module_id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    service.identity(client_id(&device_id, Some(&module_id))?).await
}

pub(super) async fn put(
    State(service): Shared,
    Path(device_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    service.put_identity(&device_id, None, &headers, &body).await
}

pub(super) async fn put_module(
    State(service): Shared,
    Path((device_id, module_id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    service.put_identity(&device_id, Some(&module_id), &headers, &body).await
}

pub(super) async fn remove(
    State(service): Shared,
    Path(device_id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    service.remove_identity(&client_id(&device_id, None)?, header(&headers, "if-match")).await
}

pub(super) async fn remove_module(
    State(service): Shared,
    Path((device_id, module_id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    service.remove_identity(&client_id(&device_id, Some(&module_id))?, header(&headers, "if-match")).await
}

impl Service {
    async fn identity(&self, client_id: String) -> Result<Response, ApiError> {
        let id = client_id.clone();
        let shown = self.engine.at(&client_id, move |core, _| {
            let key = find(core, &id)?;
            let record = core.hub.record(key).ok_or_else(ApiError::store_failed)?;
            Ok(json_with_etag(to_json(core, key, record)))
        });
        shown.await
    }

    /// Registers without If-Match, changes with it.
    async fn put_identity(
        &self,
        device_id: &str,
        module_id: Option<&str>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Response, ApiError> {
        let client_id = client_id(device_id, module_id)?;
        let wish = Wish::read(&json_body(body)?, device_id, module_id)?;
        let if_match = header(headers, "if-match").map(str::to_owned);
        let (id, device_id) = (client_id.clone(), device_id.to_owned());
        let put =
            self.engine.at(&client_id, move |core, now| match (core.hub.find(&id), if_match.as_deref()) {
                (None, None) => register(core, &id, &device_id, wish),
                (None, Some(_)) => find(core, &id),
                (Some(_), None) => {
                    let code =
                        if id == device_id { Code::DeviceAlreadyExists } else { Code::ModuleAlreadyExists };
                    Err(ApiError::new(code, format!("`{id}` is registered; send If-Match to change it")))
                }
                (Some(key), Some(etag)) => {
                    check_etag(core, key, etag)?;
                    // The change is made durable below, with or without the machine's own commit.
                    let _ = core.hub.update_identity(now, key, |identity| wish.apply(identity));
                    Ok(key)
                }
            });
        let key = put.await?;
        if !self.engine.durable(&client_id, Change::Record(key)).await {
            return Err(ApiError::store_failed());
        }
        self.identity(client_id).await
    }

    async fn remove_identity(&self, client_id: &str, if_match: Option<&str>) -> Result<StatusCode, ApiError> {
        let (id, etag) = (client_id.to_owned(), if_match.unwrap_or("*").to_owned());
        let removal = self.engine.at(client_id, move |core, _| {
            let key = find(core, &id)?;
            check_etag(core, key, &etag)?;
            let modules_begin = format!("{id}/");
            let is_module = |(key, record): (DeviceKey, &DeviceRecord)| {
                record.identity.client_id().starts_with(&modules_begin).then_some(key)
            };
            let modules: Vec<DeviceKey> = core.hub.devices().filter_map(is_module).collect();
            let gone = modules.into_iter().chain([key]).filter_map(|key| core.hub.remove(key));
            Ok::<Vec<String>, ApiError>(gone.map(|record| record.identity.client_id().to_owned()).collect())
        });
        for gone in removal.await? {
            if !self.engine.durable(client_id, Change::Removal(gone)).await {
                return Err(ApiError::store_failed());
            }
        }
        Ok(StatusCode::NO_CONTENT)
    }
}

/// A new, enabled identity with keys of its own.
///
/// # Errors
/// When the id is none.
pub fn new_identity(client_id: &str) -> Result<DeviceIdentity, ApiError> {
    let authentication = Authentication::Sas { primary: new_key()?, secondary: new_key()? };
    let generation_id = unix_time().as_millis().to_string();
    DeviceIdentity::new(client_id, generation_id, authentication)
        .map_err(|error| ApiError::new(Code::ArgumentInvalid, error.to_string()))
}

fn new_key() -> Result<SymmetricKey, ApiError> {
    policies::new_key().map_err(|failure| ApiError::new(Code::ServiceUnavailable, failure.cause()))
}

fn register(core: &mut Core, client_id: &str, device_id: &str, wish: Wish) -> Result<DeviceKey, ApiError> {
    if client_id != device_id {
        find(core, device_id)?;
    }
    let mut identity = new_identity(client_id)?;
    wish.apply(&mut identity);
    core.hub
        .insert(DeviceRecord::new(identity))
        .map_err(|_| ApiError::new(Code::DeviceAlreadyExists, format!("`{client_id}` is registered")))
}

/// What a PUT asks for; `None` leaves as it is.
struct Wish {
    enabled: Option<bool>,
    status_reason: Option<Option<String>>,
    authentication: Option<Authentication>,
}

impl Wish {
    fn read(body: &Value, device_id: &str, module_id: Option<&str>) -> Result<Self, ApiError> {
        let invalid = |message: &str| ApiError::new(Code::ArgumentInvalid, message);
        let text = |name| body.get(name).and_then(Value::as_str);
        if text("deviceId").is_some_and(|id| id != device_id)
            || text("moduleId").is_some_and(|id| Some(id) != module_id)
        {
            return Err(invalid("the ids in the body are not the ids in the path"));
        }
        if body.pointer("/capabilities/iotEdge") == Some(&Value::Bool(true)) {
            return Err(invalid("this hub has no IoT Edge devices: set capabilities.iotEdge to false"));
        }
        let enabled = match text("status") {
            None => None,
            Some("enabled") => Some(true),
            Some("disabled") => Some(false),
            Some(_) => return Err(invalid("status is enabled or disabled")),
        };
        Ok(Self {
            enabled,
            status_reason: body.get("statusReason").map(|reason| reason.as_str().map(str::to_owned)),
            authentication: body.get("authentication").map_or(Ok(None), authentication)?,
        })
    }

    fn apply(self, identity: &mut DeviceIdentity) {
        identity.enabled = self.enabled.unwrap_or(identity.enabled);
        if let Some(reason) = self.status_reason {
            identity.status_reason = reason;
        }
        if let Some(authentication) = self.authentication {
            identity.authentication = authentication;
        }
    }
}

/// Keys that are missing or empty are made; neither keys nor thumbprints mean that nothing is asked for.
fn authentication(value: &Value) -> Result<Option<Authentication>, ApiError> {
    let text = |pointer| value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let thumbprints =
        (text("/x509Thumbprint/primaryThumbprint"), text("/x509Thumbprint/secondaryThumbprint"));
    let keys = (text("/symmetricKey/primaryKey"), text("/symmetricKey/secondaryKey"));
    match (value.get("type").and_then(Value::as_str), thumbprints, keys) {
        (Some("selfSigned"), (None, None), _) => {
            Err(ApiError::new(Code::ArgumentInvalid, "selfSigned needs x509Thumbprint.primaryThumbprint"))
        }
        (Some("selfSigned") | None, (primary, secondary), (None, None))
            if primary.or(secondary).is_some() =>
        {
            let primary = thumbprint(primary.or(secondary).unwrap_or_default())?;
            Ok(Some(Authentication::SelfSigned {
                primary,
                secondary: secondary.map(thumbprint).transpose()?,
            }))
        }
        (Some("sas") | None, _, (None, None)) => Ok(None),
        (Some("sas") | None, _, (primary, secondary)) => {
            let key = |text: Option<&str>| text.map_or_else(new_key, parse_key);
            Ok(Some(Authentication::Sas { primary: key(primary)?, secondary: key(secondary)? }))
        }
        (Some("selfSigned"), ..) => {
            Err(ApiError::new(Code::ArgumentInvalid, "selfSigned has thumbprints and no symmetricKey"))
        }
        (Some(other), ..) => {
            let message = format!("this hub has the authentication types sas and selfSigned, not `{other}`");
            Err(ApiError::new(Code::ArgumentInvalid, message))
        }
    }
}

fn parse_key(text: &str) -> Result<SymmetricKey, ApiError> {
    let length = STANDARD.decode(text).map(|bytes| bytes.len()).unwrap_or_default();
    if !KEY_LENGTHS.contains(&length) {
        return Err(ApiError::new(Code::ArgumentInvalid, "a key is base64 of 16 to 64 bytes"));
    }
    SymmetricKey::from_base64(text).map_err(|error| ApiError::new(Code::ArgumentInvalid, error.to_string()))
}

/// SHA-1 or SHA-256 in hex; colons and spaces, as tools print them, are left out.
fn thumbprint(text: &str) -> Result<String, ApiError> {
    let hex: String =
        text.chars().filter(|c| !matches!(c, ':' | ' ')).map(|c| c.to_ascii_uppercase()).collect();
    if !matches!(hex.len(), 40 | 64) || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ApiError::new(
            Code::ArgumentInvalid,
            "a thumbprint is 40 (SHA-1) or 64 (SHA-256) hex digits",
        ));
    }
    Ok(hex)
}

fn check_etag(core: &Core, key: DeviceKey, if_match: &str) -> Result<(), ApiError> {
    let current = core.hub.record(key).map(|record| etag(&record.identity));
    let if_match = if_match.trim_matches('"');
    // The Python service SDK quotes the star, too.
    if if_match == "*" || current.as_deref() == Some(if_match) {
        return Ok(());
    }
    Err(ApiError::new(
        Code::PreconditionFailed,
        "the identity has another ETag; read it again, or send If-Match: *",
    ))
}

/// Changes with the registry entry and with nothing else.
pub(super) fn etag(identity: &DeviceIdentity) -> String {
    let mut digest = Sha256::new();
    digest.update(&identity.generation_id);
    digest.update([u8::from(identity.enabled)]);
    digest.update(identity.status_reason.as_deref().unwrap_or_default());
    digest.update(authentication_to_json(&identity.authentication).to_string());
    STANDARD.encode(digest.finalize().get(..8).unwrap_or_default())
}

fn authentication_to_json(authentication: &Authentication) -> Value {
    let none = Value::Null;
    match authentication {
        Authentication::Sas { primary, secondary } => json!({
            "type": "sas",
            "symmetricKey": {"primaryKey": primary.to_base64(), "secondaryKey": secondary.to_base64()},
            "x509Thumbprint": {"primaryThumbprint": none, "secondaryThumbprint": none},
        }),
        Authentication::SelfSigned { primary, secondary } => json!({
            "type": "selfSigned",
            "symmetricKey": {"primaryKey": none, "secondaryKey": none},
            "x509Thumbprint": {"primaryThumbprint": primary, "secondaryThumbprint": secondary},
        }),
        Authentication::CertificateAuthority => json!({
            "type": "certificateAuthority",
            "symmetricKey": {"primaryKey": none, "secondaryKey": none},
            "x509Thumbprint": {"primaryThumbprint": none, "secondaryThumbprint": none},
        }),
    }
}

pub(super) fn connection_state(core: &Core, key: DeviceKey) -> &'static str {
    if core.hub.is_connected(key) { "Connected" } else { "Disconnected" }
}

pub(super) const fn status(identity: &DeviceIdentity) -> &'static str {
    if identity.enabled { "enabled" } else { "disabled" }
}

fn to_json(core: &Core, key: DeviceKey, record: &DeviceRecord) -> Value {
    let identity = &record.identity;
    let mut value = json!({
        "deviceId": identity.identity().device_id(),
        "generationId": identity.generation_id,
        "etag": etag(identity),
        "connectionState": connection_state(core, key),
        "connectionStateUpdatedTime": NEVER,
        "lastActivityTime": NEVER,
        "cloudToDeviceMessageCount": record.waiting().len(),
        "authentication": authentication_to_json(&identity.authentication),
    });
    let Some(members) = value.as_object_mut() else { return value };
    match identity.identity().module_id() {
        Some(module_id) => {
            members.insert("moduleId".to_owned(), module_id.into());
            members.insert("managedBy".to_owned(), "".into());
        }
        None => {
            members.insert("status".to_owned(), status(identity).into());
            members.insert("statusReason".to_owned(), identity.status_reason.clone().into());
            members.insert("statusUpdatedTime".to_owned(), NEVER.into());
            members.insert("capabilities".to_owned(), json!({"iotEdge": false}));
        }
    }
    value
}
