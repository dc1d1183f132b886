//! Identities as JSON: what a request asks for, and what an answer shows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devicebound::hub::{Authentication, DeviceIdentity, DeviceKey};
use devicebound::iothub::sas::SymmetricKey;
use devicebound::time::UnixTime;
use serde_json::{Value, json};

use super::{ApiError, Code};
use crate::clock::unix_time;
use crate::policies;
use crate::scan::Seen;
use crate::worker::Core;

/// What Azure writes for a moment that has not come yet.
pub(super) const NEVER: &str = "0001-01-01T00:00:00Z";
/// Longest statusReason, in characters (IoT Hub identity registry).
const STATUS_REASON_MAX: usize = 128;
/// Lengths of a key that somebody brings (Azure's registry).
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 16..=64;

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

pub(super) fn new_key() -> Result<SymmetricKey, ApiError> {
    policies::new_key().map_err(|failure| ApiError::new(Code::ServiceUnavailable, failure.cause()))
}

/// What a request asks an identity to be; `None` leaves as it is.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    enabled: Option<bool>,
    status_reason: Option<Option<String>>,
    authentication: Option<WishedAuthentication>,
}

/// How an identity is to prove itself. Keys that are not named are kept, or made where there are none.
#[derive(Clone, Debug)]
enum WishedAuthentication {
    Sas { primary: Option<SymmetricKey>, secondary: Option<SymmetricKey> },
    SelfSigned { primary: String, secondary: Option<String> },
    CertificateAuthority,
}

impl Wish {
    /// Reads the body of a PUT, or an entry of a bulk request.
    ///
    /// # Errors
    /// 400004 with what cannot be meant.
    pub(super) fn read(body: &Value) -> Result<Self, ApiError> {
        if body.pointer("/capabilities/iotEdge") == Some(&Value::Bool(true)) {
            return Err(invalid("this hub has no IoT Edge devices: set capabilities.iotEdge to false"));
        }
        let enabled = match text(body, "status")? {
            None => None,
            Some("enabled") => Some(true),
            Some("disabled") => Some(false),
            Some(_) => return Err(invalid("status is enabled or disabled")),
        };
        let reason = text(body, "statusReason")?;
        if reason.is_some_and(|reason| reason.chars().count() > STATUS_REASON_MAX) {
            return Err(invalid(&format!("statusReason has at most {STATUS_REASON_MAX} characters")));
        }
        Ok(Self {
            enabled,
            status_reason: body.get("statusReason").map(|_| reason.map(str::to_owned)),
            authentication: object(body, "authentication")?.map_or(Ok(None), authentication)?,
        })
    }

    /// Makes a new identity what is wished.
    ///
    /// # Errors
    /// When there is no id in `client_id`, or no randomness for keys.
    pub(super) fn make(self, client_id: &str) -> Result<DeviceIdentity, ApiError> {
        let mut identity = new_identity(client_id)?;
        self.prepare(&identity)?.apply(&mut identity);
        Ok(identity)
    }

    /// Completes the wish with what `identity` has, so that nothing can fail any more.
    ///
    /// # Errors
    /// When there is no randomness for keys.
    pub(super) fn prepare(self, identity: &DeviceIdentity) -> Result<PreparedWish, ApiError> {
        let authentication = match self.authentication {
            None => identity.authentication.clone(),
            Some(WishedAuthentication::SelfSigned { primary, secondary }) => {
                Authentication::SelfSigned { primary, secondary }
            }
            Some(WishedAuthentication::CertificateAuthority) => Authentication::CertificateAuthority,
            Some(WishedAuthentication::Sas { primary, secondary }) => {
                let (old_primary, old_secondary) = match &identity.authentication {
                    Authentication::Sas { primary, secondary } => {
                        (Some(primary.clone()), Some(secondary.clone()))
                    }
                    _ => (None, None),
                };
                let key = |wished: Option<SymmetricKey>, old: Option<SymmetricKey>| {
                    wished.or(old).map_or_else(new_key, Ok)
                };
                Authentication::Sas {
                    primary: key(primary, old_primary)?,
                    secondary: key(secondary, old_secondary)?,
                }
            }
        };
        Ok(PreparedWish {
            enabled: self.enabled.unwrap_or(identity.enabled),
            status_reason: self.status_reason.unwrap_or_else(|| identity.status_reason.clone()),
            authentication,
        })
    }
}

/// What an identity becomes.
#[derive(Clone, Debug)]
pub(super) struct PreparedWish {
    enabled: bool,
    status_reason: Option<String>,
    authentication: Authentication,
}

impl PreparedWish {
    pub(super) fn apply(self, identity: &mut DeviceIdentity) {
        identity.enabled = self.enabled;
        identity.status_reason = self.status_reason;
        identity.authentication = self.authentication;
    }
}

/// Without a type, thumbprints mean selfSigned and keys mean sas; with neither, nothing is asked for.
fn authentication(value: &Value) -> Result<Option<WishedAuthentication>, ApiError> {
    let thumbprints = pair(value, "x509Thumbprint", ["primaryThumbprint", "secondaryThumbprint"])?;
    let keys = pair(value, "symmetricKey", ["primaryKey", "secondaryKey"])?;
    let has_thumbprints = thumbprints[0].or(thumbprints[1]).is_some();
    let has_keys = keys[0].or(keys[1]).is_some();
    let kind = match text(value, "type")? {
        None if has_keys => "sas",
        None if has_thumbprints => "selfSigned",
        None => return Ok(None),
        Some(kind) => kind,
    };
    let wished = match kind {
        "sas" => WishedAuthentication::Sas {
            primary: keys[0].map(parse_key).transpose()?,
            secondary: keys[1].map(parse_key).transpose()?,
        },
        "selfSigned" | "certificateAuthority" if has_keys => {
            return Err(invalid(&format!("{kind} has no symmetricKey")));
        }
        "certificateAuthority" => WishedAuthentication::CertificateAuthority,
        "selfSigned" => {
            let primary = thumbprints[0].or(thumbprints[1]);
            let primary =
                primary.ok_or_else(|| invalid("selfSigned needs x509Thumbprint.primaryThumbprint"))?;
            WishedAuthentication::SelfSigned {
                primary: thumbprint(primary)?,
                secondary: thumbprints[1].map(thumbprint).transpose()?,
            }
        }
        other => {
            let message = format!(
                "the authentication types are sas, selfSigned and certificateAuthority, not `{other}`"
            );
            return Err(invalid(&message));
        }
    };
    Ok(Some(wished))
}

/// The text of a member that may be missing or null.
pub(super) fn text<'v>(value: &'v Value, name: &str) -> Result<Option<&'v str>, ApiError> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(&format!("{name} is a text"))),
    }
}

fn object<'v>(value: &'v Value, name: &str) -> Result<Option<&'v Value>, ApiError> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(object) if object.is_object() => Ok(Some(object)),
        Some(_) => Err(invalid(&format!("{name} is an object"))),
    }
}

/// Two texts of an object that may be missing, as each of them may; an empty one counts as missing.
fn pair<'v>(value: &'v Value, group: &str, names: [&str; 2]) -> Result<[Option<&'v str>; 2], ApiError> {
    let Some(group) = object(value, group)? else { return Ok([None, None]) };
    let present = |name| text(group, name).map(|text| text.filter(|text| !text.is_empty()));
    let [first, second] = names;
    Ok([present(first)?, present(second)?])
}

fn invalid(message: &str) -> ApiError {
    ApiError::new(Code::ArgumentInvalid, message)
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

pub(super) fn check_etag(core: &Core, key: DeviceKey, if_match: &str) -> Result<(), ApiError> {
    let current = core.hub.record(key).map(|record| record.identity.etag());
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

fn authentication_to_json(authentication: &Authentication) -> Value {
    let (keys, thumbprints) = match authentication {
        Authentication::Sas { primary, secondary } => {
            ((Some(primary.to_base64()), Some(secondary.to_base64())), (None, None))
        }
        Authentication::SelfSigned { primary, secondary } => {
            ((None, None), (Some(primary), secondary.as_ref()))
        }
        Authentication::CertificateAuthority => ((None, None), (None, None)),
    };
    json!({
        "type": kind_of(authentication),
        "symmetricKey": {"primaryKey": keys.0, "secondaryKey": keys.1},
        "x509Thumbprint": {"primaryThumbprint": thumbprints.0, "secondaryThumbprint": thumbprints.1},
    })
}

/// Azure's name of a way to prove oneself.
pub(super) const fn kind_of(authentication: &Authentication) -> &'static str {
    match authentication {
        Authentication::Sas { .. } => "sas",
        Authentication::SelfSigned { .. } => "selfSigned",
        Authentication::CertificateAuthority => "certificateAuthority",
    }
}

/// Azure's name of an identity's status.
pub(super) const fn status(identity: &DeviceIdentity) -> &'static str {
    if identity.enabled { "enabled" } else { "disabled" }
}

/// Whether the device is connected.
pub(super) fn connection_state(seen: Seen<'_>) -> &'static str {
    if seen.hub.is_connected(seen.key) { "Connected" } else { "Disconnected" }
}

/// When something about an identity changed, as text.
#[derive(Clone, Debug)]
pub(super) struct Moments {
    pub(super) connection_state: &'static str,
    pub(super) connection_state_updated: String,
    pub(super) status_updated: String,
    pub(super) last_activity: String,
}

impl Moments {
    pub(super) fn of(seen: Seen<'_>) -> Self {
        let text = |time: Option<UnixTime>| time.map_or_else(|| NEVER.to_owned(), |time| time.to_string());
        let connection = seen.hub.connection(seen.now, seen.key);
        Self {
            connection_state: connection_state(seen),
            connection_state_updated: text(connection.and_then(|connection| connection.state_updated)),
            status_updated: text(seen.record.identity.status_updated()),
            last_activity: text(connection.and_then(|connection| connection.last_activity)),
        }
    }
}

/// The identity as the registry shows it.
pub(super) fn to_json(seen: Seen<'_>) -> Value {
    let record = seen.record;
    let identity = &record.identity;
    let moments = Moments::of(seen);
    let mut value = json!({
        "deviceId": identity.identity().device_id(),
        "generationId": identity.generation_id,
        "etag": identity.etag(),
        "connectionState": moments.connection_state,
        "connectionStateUpdatedTime": moments.connection_state_updated,
        "lastActivityTime": moments.last_activity,
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
            members.insert("statusUpdatedTime".to_owned(), moments.status_updated.into());
            members.insert("capabilities".to_owned(), json!({"iotEdge": false}));
        }
    }
    value
}
