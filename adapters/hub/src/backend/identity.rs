//! Identities as JSON: what a request asks for, and what an answer shows.

use devicebound::Rule;
use devicebound::hub::{Authentication, Comparison, DeviceIdentity, DeviceKey, Warning};
use devicebound::iothub::sas::SymmetricKey;
use devicebound::time::UnixTime;
use serde_json::{Value, json};

use super::{ClientId, Code, Error};
use crate::clock::unix_time;
use crate::engine::core::Core;
use crate::engine::record_scan::Seen;
use crate::state::policies;

/// What Azure writes for a moment that has not come yet.
pub(super) const NEVER: &str = "0001-01-01T00:00:00Z";
/// Longest statusReason, in characters (IoT Hub identity registry).
const STATUS_REASON_MAX: usize = 128;

/// A new, enabled identity with keys of its own.
///
/// # Errors
/// When the id is none.
pub fn new_identity(client_id: &str) -> Result<DeviceIdentity, Error> {
    let authentication = Authentication::Sas { primary: new_key()?, secondary: new_key()? };
    let generation_id = unix_time().as_millis().to_string();
    DeviceIdentity::new(client_id, generation_id, authentication)
        .map_err(|error| Error::invalid(error.to_string()))
}

pub(super) fn new_key() -> Result<SymmetricKey, Error> {
    policies::new_key().map_err(|failure| Error::new(Code::ServiceUnavailable, failure.cause().to_owned()))
}

/// What a request asks an identity to be; `None` leaves as it is.
#[derive(Clone, Debug)]
pub struct Wish {
    enabled: Option<bool>,
    status_reason: Option<Option<String>>,
    authentication: Option<WishedAuthentication>,
    is_edge: Option<bool>,
    device_scope: Option<Option<String>>,
    parent_scopes: Option<Vec<String>>,
    /// Paths of members that mean nothing.
    unknown: Vec<String>,
}

/// How an identity is to prove itself. Keys that are not named are kept, or made where there are none.
#[derive(Clone, Debug)]
enum WishedAuthentication {
    Sas { primary: Option<SymmetricKey>, secondary: Option<SymmetricKey> },
    SelfSigned { primary: String, secondary: Option<String> },
    CertificateAuthority,
}

impl Wish {
    /// The scopes of other devices that it names.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &str> {
        // An Edge device names itself.
        let own = self.device_scope.iter().flatten().filter(|_| self.is_edge != Some(true));
        own.chain(self.parent_scopes.iter().flatten()).map(String::as_str)
    }

    /// Reads the body of a PUT, or an entry of a bulk request.
    ///
    /// # Errors
    /// 400004 with what cannot be meant.
    pub fn read(body: &Value) -> Result<Self, Error> {
        let is_edge = match body.pointer("/capabilities/iotEdge") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(is_edge)) => Some(*is_edge),
            Some(_) => return Err(Error::invalid("capabilities.iotEdge is true or false")),
        };
        let enabled = match text(body, "status")? {
            None => None,
            Some("enabled") => Some(true),
            Some("disabled") => Some(false),
            Some(_) => return Err(Error::invalid("status is enabled or disabled")),
        };
        let reason = text(body, "statusReason")?;
        if reason.is_some_and(|reason| reason.chars().count() > STATUS_REASON_MAX) {
            return Err(Error::invalid(format!("statusReason has at most {STATUS_REASON_MAX} characters")));
        }
        Ok(Self {
            enabled,
            status_reason: body.get("statusReason").map(|_| reason.map(str::to_owned)),
            authentication: object(body, "authentication")?.map_or(Ok(None), authentication)?,
            is_edge,
            device_scope: body
                .get("deviceScope")
                .map(|_| text(body, "deviceScope"))
                .transpose()?
                .map(|scope| scope.map(str::to_owned)),
            parent_scopes: parent_scopes(body)?,
            unknown: unknown_members(body),
        })
    }

    /// What is to be said of members that mean nothing to the registry, such as those that are not in camelCase.
    pub(super) fn warning(&self) -> Option<Warning> {
        let received = || format!("unknown members {}", self.unknown.join(", "));
        let expected = "the documented members, such as authentication.symmetricKey.primaryKey";
        let comparison = || Comparison { received: received(), expected: expected.to_owned() };
        (!self.unknown.is_empty()).then(|| Warning {
            rule: Rule::RegistrationMember,
            comparison: Some(comparison()),
            refused_if_strict: true,
        })
    }

    /// Makes a new identity what is wished.
    ///
    /// # Errors
    /// When there is no id in `client_id`, or no randomness for keys.
    pub(super) fn make(self, id: &ClientId) -> Result<DeviceIdentity, Error> {
        let mut identity = new_identity(id.as_str())?;
        self.prepare(&identity)?.apply(&mut identity);
        Ok(identity)
    }

    /// Completes the wish with what `identity` has, so that nothing can fail any more.
    ///
    /// # Errors
    /// When there is no randomness for keys.
    pub(super) fn prepare(self, identity: &DeviceIdentity) -> Result<PreparedWish, Error> {
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
        let is_edge = self.is_edge.unwrap_or(identity.is_edge);
        // That of an Edge device stays its own: its parents are in parentScopes.
        let stays = identity.is_edge && is_edge && identity.device_scope.is_some();
        let device_scope =
            self.device_scope.filter(|_| !stays).unwrap_or_else(|| identity.device_scope.clone());
        // An Edge device has a scope of its own, which its children name.
        let own_scope = || {
            let ids = identity.identity();
            format!("ms-azure-iot-edge://{}-{}", ids.device_id(), identity.generation_id)
        };
        Ok(PreparedWish {
            is_edge,
            device_scope: device_scope.or_else(|| is_edge.then(own_scope)),
            parent_scopes: self.parent_scopes.unwrap_or_else(|| identity.parent_scopes.clone()),
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
    is_edge: bool,
    device_scope: Option<String>,
    parent_scopes: Vec<String>,
}

impl PreparedWish {
    pub(super) fn apply(self, identity: &mut DeviceIdentity) {
        identity.enabled = self.enabled;
        identity.status_reason = self.status_reason;
        identity.authentication = self.authentication;
        identity.is_edge = self.is_edge;
        identity.device_scope = self.device_scope;
        identity.parent_scopes = self.parent_scopes;
    }
}

/// The members of a registration, those of an answer that is sent back and of bulk entries included.
const MEMBERS: &[&str] = &[
    "deviceId",
    "moduleId",
    "id",
    "generationId",
    "etag",
    "eTag",
    "importMode",
    "connectionState",
    "connectionStateUpdatedTime",
    "status",
    "statusReason",
    "statusUpdatedTime",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authentication",
    "authentication.type",
    "authentication.symmetricKey",
    "authentication.symmetricKey.primaryKey",
    "authentication.symmetricKey.secondaryKey",
    "authentication.x509Thumbprint",
    "authentication.x509Thumbprint.primaryThumbprint",
    "authentication.x509Thumbprint.secondaryThumbprint",
    "capabilities",
    "capabilities.iotEdge",
    "deviceScope",
    "parentScopes",
    "managedBy",
    "tags",
    "properties",
    "twinETag",
];
/// So many unknown members are named.
const UNKNOWN_MAX: usize = 16;

fn unknown_members(body: &Value) -> Vec<String> {
    fn look(value: &Value, path: &str, unknown: &mut Vec<String>) {
        for (name, member) in value.as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if !MEMBERS.contains(&path.as_str()) {
                if unknown.len() < UNKNOWN_MAX {
                    unknown.push(path.chars().take(STATUS_REASON_MAX).collect());
                }
            } else if !matches!(path.as_str(), "tags" | "properties") {
                look(member, &path, unknown);
            }
        }
    }
    let mut unknown = Vec::new();
    look(body, "", &mut unknown);
    // The order of members is the parser's, which a feature of another crate may change.
    unknown.sort_unstable();
    unknown
}

fn parent_scopes(body: &Value) -> Result<Option<Vec<String>>, Error> {
    let wrong = || Error::invalid("parentScopes is an array of texts");
    match body.get("parentScopes") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(scopes)) => {
            let scope = |scope: &Value| scope.as_str().map(str::to_owned).ok_or_else(wrong);
            scopes.iter().map(scope).collect::<Result<_, _>>().map(Some)
        }
        Some(_) => Err(wrong()),
    }
}

/// Adds what an identity is to IoT Edge: capabilities and scopes, as the registry and a twin show them.
pub(super) fn add_edge(identity: &DeviceIdentity, value: &mut Value) {
    let Some(members) = value.as_object_mut() else { return };
    members.insert("capabilities".to_owned(), json!({"iotEdge": identity.is_edge}));
    let Some(scope) = &identity.device_scope else { return };
    members.insert("deviceScope".to_owned(), scope.as_str().into());
    // The one parent of a leaf device is the Edge device whose scope it has.
    let parents = match identity.parent_scopes.as_slice() {
        [] if !identity.is_edge => std::slice::from_ref(scope),
        parents => parents,
    };
    members.insert("parentScopes".to_owned(), parents.into());
}

/// Without a type, thumbprints mean selfSigned and keys mean sas; with neither, nothing is asked for.
fn authentication(value: &Value) -> Result<Option<WishedAuthentication>, Error> {
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
            return Err(Error::invalid(format!("{kind} has no symmetricKey")));
        }
        "certificateAuthority" => WishedAuthentication::CertificateAuthority,
        "selfSigned" => {
            let primary = thumbprints[0].or(thumbprints[1]);
            let primary =
                primary.ok_or_else(|| Error::invalid("selfSigned needs x509Thumbprint.primaryThumbprint"))?;
            WishedAuthentication::SelfSigned {
                primary: thumbprint(primary)?,
                secondary: thumbprints[1].map(thumbprint).transpose()?,
            }
        }
        other => {
            let message = format!(
                "the authentication types are sas, selfSigned and certificateAuthority, not `{other}`"
            );
            return Err(Error::invalid(message));
        }
    };
    Ok(Some(wished))
}

/// The text of a member that may be missing or null.
pub(crate) fn text<'v>(value: &'v Value, name: &str) -> Result<Option<&'v str>, Error> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::invalid(format!("{name} is a text"))),
    }
}

fn object<'v>(value: &'v Value, name: &str) -> Result<Option<&'v Value>, Error> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(object) if object.is_object() => Ok(Some(object)),
        Some(_) => Err(Error::invalid(format!("{name} is an object"))),
    }
}

/// Two texts of an object that may be missing, as each of them may; an empty one counts as missing.
fn pair<'v>(value: &'v Value, group: &str, names: [&str; 2]) -> Result<[Option<&'v str>; 2], Error> {
    let Some(group) = object(value, group)? else { return Ok([None, None]) };
    let present = |name| text(group, name).map(|text| text.filter(|text| !text.is_empty()));
    let [first, second] = names;
    Ok([present(first)?, present(second)?])
}

fn parse_key(text: &str) -> Result<SymmetricKey, Error> {
    policies::parse_key(text).ok_or_else(|| Error::invalid("a key is base64 of 16 to 64 bytes"))
}

/// SHA-1 or SHA-256 in hex; colons and spaces, as tools print them, are left out.
fn thumbprint(text: &str) -> Result<String, Error> {
    let hex: String =
        text.chars().filter(|c| !matches!(c, ':' | ' ')).map(|c| c.to_ascii_uppercase()).collect();
    if !matches!(hex.len(), 40 | 64) || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::invalid("a thumbprint is 40 (SHA-1) or 64 (SHA-256) hex digits"));
    }
    Ok(hex)
}

pub(super) fn check_etag(core: &Core, key: DeviceKey, if_match: &str) -> Result<(), Error> {
    let current = core.hub.record(key).map(|record| record.identity.etag());
    let if_match = if_match.trim_matches('"');
    // The Python service SDK quotes the star, too.
    if if_match == "*" || current.as_deref() == Some(if_match) {
        return Ok(());
    }
    Err(Error::new(
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
            last_activity: last_activity(seen),
        }
    }
}

/// When the device was last heard of.
pub(super) fn last_activity(seen: Seen<'_>) -> String {
    let last = seen.hub.connection(seen.now, seen.key).and_then(|connection| connection.last_activity);
    last.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
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
            add_edge(identity, &mut value);
        }
    }
    value
}
