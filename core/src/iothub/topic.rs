//! The topics of a device's conversation with the hub, read and written (IoT Hub MQTT).
//!
//! Topics are compared byte by byte from their start; device and module ids are never decoded. Reading allocates nothing,
//! and writing appends to a buffer of the caller's.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt::{self, Write as _};
use core::str::{FromStr, from_utf8};

use super::escape::{Encoded, append_method, split_once};
use super::identity::Identity;
use super::properties::{PropertyBag, encode_property};
use crate::limits::REQUEST_ID_MAX;
use crate::packet::TopicName;
use crate::rule::Rule;

const TWIN_GET: &str = "$iothub/twin/GET/";
const TWIN_REPORTED: &str = "$iothub/twin/PATCH/properties/reported/";
const TWIN_DESIRED: &str = "$iothub/twin/PATCH/properties/desired/";
const TWIN_RESPONSE: &str = "$iothub/twin/res/";
const ISSUE_CERTIFICATE: &str = "$iothub/credentials/POST/issueCertificate/";
const CREDENTIAL_RESPONSE: &str = "$iothub/credentials/res/";
const METHOD_REQUEST: &str = "$iothub/methods/POST/";
const METHOD_RESPONSE: &str = "$iothub/methods/res/";
const DEVICES: &str = "devices/";
const EVENTS: &str = "messages/events";
const DEVICEBOUND: &str = "messages/devicebound";

/// Why a topic or a filter is not one that this device may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// It is another device's or module's.
    #[error("{}", Rule::ForeignIdentity.says())]
    ForeignIdentity,
    /// It is none of the documented topics for this direction.
    #[error("{}", Rule::UnknownTopic.says())]
    UnknownTopic,
    /// It is none of the documented filters.
    #[error("{}", Rule::UnknownFilter.says())]
    UnknownFilter,
    /// It starts like a documented topic, and then breaks a rule.
    #[error("{}", .0.says())]
    Malformed(Rule),
}

impl TopicError {
    /// The rule that was broken.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::ForeignIdentity => Rule::ForeignIdentity,
            Self::UnknownTopic => Rule::UnknownTopic,
            Self::UnknownFilter => Rule::UnknownFilter,
            Self::Malformed(rule) => rule,
        }
    }
}

/// The `$rid` that ties an answer to its request, as it stands in the topic. It is echoed, not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId<'a>(Encoded<'a>);

impl<'a> RequestId<'a> {
    /// The id as it stands.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0.as_bytes()
    }

    /// The id as it stands.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0.as_str()
    }

    /// The id, percent-decoded.
    #[must_use]
    pub fn decoded(self) -> Cow<'a, str> {
        self.0.decoded()
    }
}

/// The id as it stands.
impl fmt::Display for RequestId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a device says by publishing to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromDevice<'a> {
    /// A telemetry message with these properties.
    Telemetry(PropertyBag<'a>),
    /// A request for the twin.
    TwinGet {
        /// Ties the answer to it.
        rid: RequestId<'a>,
    },
    /// A patch of the twin's reported properties.
    TwinPatch {
        /// Ties the answer to it.
        rid: RequestId<'a>,
        /// Patch only where the reported properties have this version.
        if_version: Option<u64>,
    },
    /// The answer to a direct method.
    MethodResponse {
        /// What the device says about the outcome; the hub passes it on.
        status: i32,
        /// The `$rid` of the request.
        rid: RequestId<'a>,
    },
    /// A request for a new certificate of the device.
    IssueCertificate {
        /// Ties the answers to it.
        rid: RequestId<'a>,
    },
}

impl<'a> FromDevice<'a> {
    /// Reads the topic that the device or module `identity` has published to.
    ///
    /// # Errors
    /// [`TopicError`], all but [`TopicError::UnknownFilter`].
    #[inline(always)] // what comes of it is taken apart at once
    pub fn parse(topic: TopicName<'a>, identity: Identity<'_>) -> Result<Self, TopicError> {
        let topic = topic.as_bytes();
        if let Some(path) = strip(topic, DEVICES) {
            return telemetry(path, identity).map(Self::Telemetry);
        }
        Self::request_or_answer(topic)
    }

    #[inline(never)]
    fn request_or_answer(topic: &'a [u8]) -> Result<Self, TopicError> {
        if let Some(end) = strip(topic, TWIN_GET) {
            return Ok(Self::TwinGet { rid: Params::parse(end)?.rid()? });
        }
        if let Some(end) = strip(topic, TWIN_REPORTED) {
            let params = Params::parse(end)?;
            return Ok(Self::TwinPatch { rid: params.rid()?, if_version: params.version()? });
        }
        if let Some(end) = strip(topic, METHOD_RESPONSE) {
            let (status, params) = status_and_params(end, true)?;
            return Ok(Self::MethodResponse { status, rid: params.rid()? });
        }
        if let Some(end) = strip(topic, ISSUE_CERTIFICATE) {
            return Ok(Self::IssueCertificate { rid: Params::parse(end)?.rid()? });
        }
        Err(TopicError::UnknownTopic)
    }
}

/// `{device id}[/modules/{module id}]/messages/events[/[bag[/]]]`
#[inline(always)]
fn telemetry<'a>(path: &'a [u8], identity: Identity<'_>) -> Result<PropertyBag<'a>, TopicError> {
    match own(path, identity).and_then(|rest| strip(rest, EVENTS)).and_then(level) {
        Some(end) => PropertyBag::of_telemetry(end).map_err(TopicError::Malformed),
        None => Err(no_telemetry(path)),
    }
}

/// What stands behind the device or module `identity`, and the slash behind that.
#[inline]
fn own<'a>(path: &'a [u8], identity: Identity<'_>) -> Option<&'a [u8]> {
    let rest = strip(path, identity.device_id())?;
    let rest = match identity.module_id() {
        None => rest,
        Some(module_id) => strip(strip(rest, "/modules/")?, module_id)?,
    };
    strip(rest, "/")
}

/// Whether someone else's telemetry would go there, or nobody's.
#[cold]
fn no_telemetry(path: &[u8]) -> TopicError {
    let end = Place::parse(path).and_then(|place| strip(place.rest, EVENTS)).and_then(level);
    if end.is_some() { TopicError::ForeignIdentity } else { TopicError::UnknownTopic }
}

/// What the hub says by publishing to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromHub<'a> {
    /// A cloud-to-device message with these properties.
    CloudMessage(PropertyBag<'a>),
    /// A message to an input of an Edge module.
    ModuleInput {
        /// The input, decoded.
        input: Cow<'a, str>,
        /// The message's properties.
        properties: PropertyBag<'a>,
    },
    /// The answer to a twin request.
    TwinResponse {
        /// As in HTTP: 200 or 204 for success.
        status: u16,
        /// The `$rid` of the request.
        rid: RequestId<'a>,
        /// The version that the patched reported properties have now.
        version: Option<u64>,
    },
    /// The desired properties were patched.
    DesiredPatch {
        /// The version that they have now.
        version: u64,
    },
    /// A direct method is called.
    MethodRequest {
        /// The method, decoded.
        method: Cow<'a, str>,
        /// Ties the answer to it.
        rid: RequestId<'a>,
    },
    /// An answer to a request for a certificate; 202 is not the last one.
    CredentialResponse {
        /// As in HTTP.
        status: u16,
        /// The `$rid` of the request.
        rid: RequestId<'a>,
    },
}

impl<'a> FromHub<'a> {
    /// Reads the topic that the hub has published to for the device or module `identity`.
    ///
    /// # Errors
    /// [`TopicError`], all but [`TopicError::UnknownFilter`]. A device ignores such a message, and acknowledges it.
    pub fn parse(topic: TopicName<'a>, identity: Identity<'_>) -> Result<Self, TopicError> {
        Self::read(topic.as_bytes(), identity)
    }

    /// As [`FromHub::parse`], of a topic that does not come out of a packet and may contain `+` and `#`.
    ///
    /// # Errors
    /// As for [`FromHub::parse`].
    pub fn parse_text(topic: &'a str, identity: Identity<'_>) -> Result<Self, TopicError> {
        Self::read(topic.as_bytes(), identity)
    }

    fn read(topic: &'a [u8], identity: Identity<'_>) -> Result<Self, TopicError> {
        if let Some(path) = strip(topic, DEVICES) {
            return Self::message(path, identity);
        }
        if let Some(end) = strip(topic, TWIN_RESPONSE) {
            let (status, params) = status_and_params(end, false)?;
            return Ok(Self::TwinResponse { status, rid: params.rid()?, version: params.version()? });
        }
        if let Some(end) = strip(topic, TWIN_DESIRED) {
            let version = Params::parse(end)?.version()?;
            return Ok(Self::DesiredPatch { version: version.ok_or(MALFORMED)? });
        }
        if let Some(end) = strip(topic, METHOD_REQUEST) {
            let (method, params) = split_once(end, b'/').ok_or(TopicError::Malformed(Rule::RequestId))?;
            let method =
                Encoded::new(method).filter(|method| !method.as_bytes().is_empty()).ok_or(MALFORMED)?;
            return Ok(Self::MethodRequest { method: method.decoded(), rid: Params::parse(params)?.rid()? });
        }
        if let Some(end) = strip(topic, CREDENTIAL_RESPONSE) {
            let (status, params) = status_and_params(end, false)?;
            return Ok(Self::CredentialResponse { status, rid: params.rid()? });
        }
        Err(TopicError::UnknownTopic)
    }

    /// `{device id}/messages/devicebound[/[bag[/]]]` or `{device id}/modules/{module id}/inputs/{input}[/[bag[/]]]`
    fn message(path: &'a [u8], identity: Identity<'_>) -> Result<Self, TopicError> {
        let place = Place::parse(path).ok_or(TopicError::UnknownTopic)?;
        if !place.is_of(identity) {
            return Err(TopicError::ForeignIdentity);
        }
        let bag = |end| PropertyBag::from_topic(end).map_err(TopicError::Malformed);
        if place.module_id.is_none() {
            let end = strip(place.rest, DEVICEBOUND).and_then(level).ok_or(TopicError::UnknownTopic)?;
            return bag(end).map(Self::CloudMessage);
        }
        let input = strip(place.rest, "inputs/").ok_or(TopicError::UnknownTopic)?;
        let (input, end) = split_once(input, b'/').unwrap_or((input, b""));
        let input = Encoded::new(input).filter(|input| !input.as_bytes().is_empty()).ok_or(MALFORMED)?;
        Ok(Self::ModuleInput { input: input.decoded(), properties: bag(end)? })
    }
}

const MALFORMED: TopicError = TopicError::Malformed(Rule::TopicParameter);

/// `{device id}/…` or `{device id}/modules/{module id}/…`, which stands behind `devices/`.
pub(super) struct Place<'a> {
    pub(super) device_id: &'a [u8],
    pub(super) module_id: Option<&'a [u8]>,
    pub(super) rest: &'a [u8],
}

impl<'a> Place<'a> {
    pub(super) fn parse(path: &'a [u8]) -> Option<Self> {
        let (device_id, rest) = split_once(path, b'/')?;
        match strip(rest, "modules/") {
            None => Some(Self { device_id, module_id: None, rest }),
            Some(rest) => {
                let (module_id, rest) = split_once(rest, b'/')?;
                Some(Self { device_id, module_id: Some(module_id), rest })
            }
        }
    }

    pub(super) fn is_of(&self, identity: Identity<'_>) -> bool {
        self.device_id == identity.device_id().as_bytes()
            && self.module_id == identity.module_id().map(str::as_bytes)
    }
}

/// `?name=value&…`, which stands at the end of a request or an answer. Unknown names are passed over.
#[derive(Clone, Copy)]
pub(super) struct Params<'a>(&'a [u8]);

impl<'a> Params<'a> {
    pub(super) fn parse(end: &'a [u8]) -> Result<Self, TopicError> {
        strip(end, "?").map(Self).ok_or(TopicError::Malformed(Rule::RequestId))
    }

    pub(super) fn get(self, wanted: &str) -> Option<&'a [u8]> {
        let pairs = self.0.split(|&byte| byte == b'&').filter_map(|pair| split_once(pair, b'='));
        pairs.into_iter().find(|(name, _)| *name == wanted.as_bytes()).map(|(_, value)| value)
    }

    pub(super) fn rid(self) -> Result<RequestId<'a>, TopicError> {
        let is_id = |rid: &&[u8]| (1..=REQUEST_ID_MAX).contains(&rid.len());
        let rid = self.get("$rid").filter(is_id).and_then(Encoded::new);
        rid.map(RequestId).ok_or(TopicError::Malformed(Rule::RequestId))
    }

    /// A number in decimal digits; `None` where there is none, or something else.
    #[cfg(feature = "provisioning")]
    pub(super) fn number<T: FromStr>(self, name: &str) -> Option<T> {
        number(self.get(name)?, false)
    }

    /// Versions have 63 bits, as .NET's `long` has.
    fn version(self) -> Result<Option<u64>, TopicError> {
        let Some(digits) = self.get("$version") else {
            return Ok(None);
        };
        let version: i64 = number(digits, false).ok_or(MALFORMED)?;
        Ok(version.try_into().ok())
    }
}

/// `{status}/?{params}`
pub(super) fn status_and_params<T: FromStr>(end: &[u8], signed: bool) -> Result<(T, Params<'_>), TopicError> {
    let (status, params) = split_once(end, b'/').ok_or(MALFORMED)?;
    Ok((number(status, signed).ok_or(MALFORMED)?, Params::parse(params)?))
}

/// Decimal digits, behind a minus where numbers are `signed`.
fn number<T: FromStr>(text: &[u8], signed: bool) -> Option<T> {
    let digits = if signed { text.strip_prefix(b"-").unwrap_or(text) } else { text };
    let decimal = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if decimal { from_utf8(text).ok()?.parse().ok() } else { None }
}

#[inline]
pub(super) fn strip<'a>(topic: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    topic.strip_prefix(prefix.as_bytes())
}

/// What stands on the next level; nothing at the end of the topic. `None` in the middle of a level.
#[inline]
fn level(rest: &[u8]) -> Option<&[u8]> {
    if rest.is_empty() { Some(rest) } else { strip(rest, "/") }
}

/// Appends to `out`, which takes everything: a `String` does not fail.
pub(super) fn append(out: &mut String, text: fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

fn append_place(identity: Identity<'_>, out: &mut String) {
    // The topic of each message begins so: formatting would cost more than all the rest.
    out.push_str(DEVICES);
    out.push_str(identity.device_id());
    if let Some(module_id) = identity.module_id() {
        out.push_str("/modules/");
        out.push_str(module_id);
    }
    out.push('/');
}

fn append_bag<'p>(properties: impl IntoIterator<Item = (&'p str, Option<&'p str>)>, out: &mut String) {
    for (name, value) in properties {
        encode_property(name, value, out);
    }
}

/// Appends the topic of a telemetry message of `identity` with `properties`.
pub fn telemetry_topic<'p>(
    identity: Identity<'_>,
    properties: impl IntoIterator<Item = (&'p str, Option<&'p str>)>,
    out: &mut String,
) {
    append_place(identity, out);
    out.push_str(EVENTS);
    out.push('/');
    append_bag(properties, out);
}

/// Appends the topic of a cloud-to-device message to the device `device_id` with `properties`.
pub fn cloud_message_topic<'p>(
    device_id: &str,
    properties: impl IntoIterator<Item = (&'p str, Option<&'p str>)>,
    out: &mut String,
) {
    append(out, format_args!("{DEVICES}{device_id}/{DEVICEBOUND}/"));
    append_bag(properties, out);
}

/// Appends the topic of a request for the twin. `rid` is displayed as it shall stand: a number, a [`RequestId`] or
/// text that is [percent-encoded](super::Escaped).
pub fn twin_get_topic(rid: impl fmt::Display, out: &mut String) {
    append(out, format_args!("{TWIN_GET}?$rid={rid}"));
}

/// Appends the topic of a patch of the reported properties, on the condition that they have the version `if_version`.
/// `rid` as for [`twin_get_topic`].
pub fn twin_patch_topic(rid: impl fmt::Display, if_version: Option<u64>, out: &mut String) {
    append(out, format_args!("{TWIN_REPORTED}?$rid={rid}"));
    append_version(if_version, out);
}

/// Appends the topic of the answer to a twin request. `rid` as for [`twin_get_topic`].
pub fn twin_response_topic(status: u16, rid: impl fmt::Display, version: Option<u64>, out: &mut String) {
    append(out, format_args!("{TWIN_RESPONSE}{status}/?$rid={rid}"));
    append_version(version, out);
}

fn append_version(version: Option<u64>, out: &mut String) {
    if let Some(version) = version {
        append(out, format_args!("&$version={version}"));
    }
}

/// Appends the topic of a notification that the desired properties have the version `version` now.
pub fn desired_patch_topic(version: u64, out: &mut String) {
    append(out, format_args!("{TWIN_DESIRED}?$version={version}"));
}

/// Appends the topic of a request for a certificate. `rid` as for [`twin_get_topic`].
pub fn issue_certificate_topic(rid: impl fmt::Display, out: &mut String) {
    append(out, format_args!("{ISSUE_CERTIFICATE}?$rid={rid}"));
}

/// Appends the topic of an answer to a request for a certificate. `rid` as for [`twin_get_topic`].
pub fn credential_response_topic(status: u16, rid: impl fmt::Display, out: &mut String) {
    append(out, format_args!("{CREDENTIAL_RESPONSE}{status}/?$rid={rid}"));
}

/// Appends the topic of a call of the direct method `method`. `rid` as for [`twin_get_topic`].
///
/// Azure's SDKs for C and embedded C, and plug and play names such as `thermostat1*reboot`, take the name as it stands. So
/// no more is encoded than would break the topic, and the `%` of the encoding itself.
pub fn method_request_topic(method: &str, rid: impl fmt::Display, out: &mut String) {
    out.push_str(METHOD_REQUEST);
    append_method(method, out);
    append(out, format_args!("/?$rid={rid}"));
}

/// Appends the topic of the answer to a direct method. `rid` as for [`twin_get_topic`].
pub fn method_response_topic(status: i32, rid: impl fmt::Display, out: &mut String) {
    append(out, format_args!("{METHOD_RESPONSE}{status}/?$rid={rid}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_device(topic: &str, client_id: &str) -> Result<(), TopicError> {
        let identity = Identity::from_client_id(client_id).unwrap();
        FromDevice::parse(TopicName::new(topic).unwrap(), identity).map(|_| ())
    }

    #[test]
    fn telemetry_goes_to_the_own_topic_only() {
        for (topic, client_id, outcome) in [
            ("devices/d/messages/events", "d", Ok(())),
            ("devices/d/modules/m/messages/events/a=1", "d/m", Ok(())),
            ("devices/modules/messages/events/", "modules", Ok(())),
            ("devices/d%20/messages/events/", "d%20", Ok(())),
            ("devices/d/messages/events/a=b%3D&c&=d/", "d", Ok(())),
            ("devices/d/messages/events/a=b=", "d", Err(TopicError::Malformed(Rule::PropertyBag))),
            ("devices/d/messages/events/a=1&b=c=d", "d", Err(TopicError::Malformed(Rule::PropertyBag))),
            ("devices/d%20/messages/events/", "d%2520", Err(TopicError::ForeignIdentity)),
            ("devices/d/messages/events/", "d/m", Err(TopicError::ForeignIdentity)),
            ("devices/d/modules/m/messages/events/", "d", Err(TopicError::ForeignIdentity)),
            ("devices/d/modules/m2/messages/events/", "d/m", Err(TopicError::ForeignIdentity)),
            ("devices/dd/messages/events/", "d", Err(TopicError::ForeignIdentity)),
            ("devices/d/messages/eventsx", "d", Err(TopicError::UnknownTopic)),
            ("devices/d/messages/devicebound/", "d", Err(TopicError::UnknownTopic)),
            ("Devices/d/messages/events/", "d", Err(TopicError::UnknownTopic)),
            ("/devices/d/messages/events/", "d", Err(TopicError::UnknownTopic)),
            ("devices/d/modules/m", "d", Err(TopicError::UnknownTopic)),
            ("devices/", "d", Err(TopicError::UnknownTopic)),
        ] {
            assert_eq!(from_device(topic, client_id), outcome, "{topic} {client_id}");
        }
    }

    #[test]
    fn requests_name_what_they_lack() {
        let rid = Err(TopicError::Malformed(Rule::RequestId));
        for (topic, outcome) in [
            ("$iothub/twin/GET/?$rid=1&x", Ok(())),
            ("$iothub/twin/GET/?x=1&$rid=1", Ok(())),
            ("$iothub/twin/GET/foo/?$rid=1", rid),
            ("$iothub/twin/GET/?$RID=1", rid),
            ("$iothub/twin/GET/$rid=1", rid),
            ("$iothub/twin/GET/?$rid=%ff", rid),
            ("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=", Err(MALFORMED)),
            ("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=-1", Err(MALFORMED)),
            ("$iothub/methods/res/-2147483648/?$rid=1", Ok(())),
            ("$iothub/methods/res/2147483648/?$rid=1", Err(MALFORMED)),
            ("$iothub/methods/res/--1/?$rid=1", Err(MALFORMED)),
            ("$iothub/methods/res/ 1/?$rid=1", Err(MALFORMED)),
            ("$iothub/methods/res/200", Err(MALFORMED)),
            ("$iothub/methods/res/200/", rid),
            ("$iothub/twin/GET", Err(TopicError::UnknownTopic)),
        ] {
            assert_eq!(from_device(topic, "d"), outcome, "{topic}");
        }
    }

    #[test]
    fn the_name_of_a_method_is_encoded_no_more_than_the_topic_needs() {
        let raw = "thermostat1*getMaxMinReport!&'-.^_`|~";
        for (method, sent) in [
            (raw, raw),
            ("a#b+c", "a%23b%2Bc"),
            ("100%", "100%25"),
            ("a%41", "a%2541"),
            ("a/b?c d", "a%2Fb%3Fc%20d"),
        ] {
            let mut topic = String::new();
            method_request_topic(method, 1, &mut topic);
            assert_eq!(topic, alloc::format!("$iothub/methods/POST/{sent}/?$rid=1"));
            let read = FromHub::parse_text(&topic, Identity::new("d", None).unwrap());
            assert!(
                matches!(read, Ok(FromHub::MethodRequest { method: read, .. }) if read == method),
                "{method}"
            );
        }
    }

    #[test]
    fn a_module_gets_inputs_and_no_cloud_messages() {
        let module = Identity::new("d", Some("m")).unwrap();
        let parse = |topic| FromHub::parse_text(topic, module);
        let input = FromHub::ModuleInput { input: "in/1".into(), properties: PropertyBag::EMPTY };
        assert_eq!(parse("devices/d/modules/m/inputs/in%2F1"), Ok(input));
        assert_eq!(parse("devices/d/modules/m/inputs//a=1"), Err(MALFORMED));
        assert_eq!(parse("devices/d/modules/m/messages/devicebound/"), Err(TopicError::UnknownTopic));
        assert_eq!(parse("devices/d/messages/devicebound/"), Err(TopicError::ForeignIdentity));
    }

    #[test]
    fn what_the_hub_writes_the_device_reads() {
        let device = Identity::new("d", None).unwrap();
        let mut out = String::new();
        method_request_topic("a/b ü", 7, &mut out);
        let Ok(FromHub::MethodRequest { method, rid }) = FromHub::parse_text(&out, device) else {
            panic!("{out} is a method request");
        };
        assert_eq!((method.as_ref(), rid.as_str()), ("a/b ü", "7"));

        let mut answer = String::new();
        twin_response_topic(412, rid, Some(u64::MAX >> 1), &mut answer);
        let read = FromHub::parse_text(&answer, device);
        assert_eq!(read, Ok(FromHub::TwinResponse { status: 412, rid, version: Some(u64::MAX >> 1) }));
    }
}
