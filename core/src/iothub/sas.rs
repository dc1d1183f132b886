//! SAS tokens: what a device shows as its password, and what a service shows as its authorization (IoT Hub: control
//! access with shared access signatures).
//!
//! ```text
//! SharedAccessSignature sr={percent-encoded resource}&sig={percent-encoded signature}&se={expiry}[&skn={policy}]
//! signature = base64(HMAC-SHA256(key, sr as it stands, newline, se as it stands))
//! ```

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::BitOr;
use core::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

#[cfg(feature = "hub")]
mod mistakes;

use super::escape::{Encoded, Escaped};
use crate::rule::Rule;
use crate::time::UnixTime;

/// Base64 as Azure reads it: padded; unused bits at the end may have any value.
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// The word before a token, with the blank behind it.
const SCHEME: &str = "SharedAccessSignature ";

/// A key that tokens are signed with. Its bytes are not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SymmetricKey(Box<[u8]>);

/// A text that is not the base64 of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is base64 with its padding")]
pub struct KeyError;

impl KeyError {
    /// The rule that was broken.
    #[must_use]
    pub const fn rule(self) -> Rule {
        Rule::SymmetricKey
    }
}

impl SymmetricKey {
    /// Reads a key in base64, the form in which Azure shows keys.
    ///
    /// # Errors
    /// [`KeyError`] where `text` is not padded base64 of the standard alphabet.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        BASE64.decode(text).map(|bytes| Self(bytes.into_boxed_slice())).map_err(|_| KeyError)
    }

    /// The key made of `bytes`, of any number; Azure makes keys of 32 and takes 16 to 64.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The key in base64.
    #[must_use]
    pub fn to_base64(&self) -> String {
        BASE64.encode(&self.0)
    }

    /// The HMAC-SHA256 of `message` under this key, in base64.
    #[must_use]
    pub fn signature(&self, message: &[u8]) -> String {
        BASE64.encode(self.hmac_sha256(message))
    }

    /// The HMAC-SHA256 of `message` under this key.
    #[must_use]
    pub fn hmac_sha256(&self, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        self.hmac().chain_update(message).finalize().into_bytes().into()
    }

    /// The key that is the HMAC-SHA256 of `message` under this key.
    #[cfg(feature = "provisioning")]
    pub(super) fn derive(&self, message: &[u8]) -> Self {
        Self::from_bytes(&self.hmac().chain_update(message).finalize().into_bytes())
    }

    fn hmac(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(&self.0).expect("HMAC takes keys of every length")
    }
}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey(hidden)")
    }
}

/// Makes a token for `resource_uri` (`{host}/devices/{device id}`, not encoded, no scheme) that is good until `expiry`,
/// in whole seconds. `key_name` names the policy that `key` is of; a device's own key has none.
#[must_use]
pub fn sign(resource_uri: &str, key: &SymmetricKey, expiry: UnixTime, key_name: Option<&str>) -> String {
    let unsigned = UnsignedToken::new(resource_uri, expiry, key_name);
    let signature = key.signature(unsigned.text().as_bytes());
    unsigned.with_base64(&signature)
}

/// A token before it is signed, where the key cannot leave its place: a TPM, a secure element, another machine.
///
/// ```
/// use devicebound::iothub::sas::{SymmetricKey, UnsignedToken, sign};
/// use devicebound::time::UnixTime;
///
/// let (resource, expiry) = ("hub.example.test/devices/dev1", UnixTime::from_secs(1_700_003_600));
/// let unsigned = UnsignedToken::new(resource, expiry, None);
/// let key = SymmetricKey::from_bytes(b"in the secure element");
/// let hmac_sha256 = key.hmac_sha256(unsigned.text().as_bytes()); // stands for what the secure element does
/// assert_eq!(unsigned.signed(&hmac_sha256), sign(resource, &key, expiry, None));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsignedToken {
    /// `sr` as it stands in the token, a newline, and `se`.
    text: String,
    key_name: Option<String>,
}

impl UnsignedToken {
    /// See [`sign`] for the arguments.
    #[must_use]
    pub fn new(resource_uri: &str, expiry: UnixTime, key_name: Option<&str>) -> Self {
        let text = format!("{}\n{}", Escaped(resource_uri), expiry.as_secs());
        Self { text, key_name: key_name.map(String::from) }
    }

    /// What the HMAC-SHA256 is to be made of.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The token with its HMAC-SHA256.
    #[must_use]
    pub fn signed(&self, hmac_sha256: &[u8; 32]) -> String {
        self.with_base64(&BASE64.encode(hmac_sha256))
    }

    fn with_base64(&self, signature: &str) -> String {
        let (sr, se) = self.text.split_once('\n').unwrap_or_default(); // `new` has put a newline there
        let sig = Escaped(signature);
        match &self.key_name {
            None => format!("{SCHEME}sr={sr}&sig={sig}&se={se}"),
            Some(name) => format!("{SCHEME}sr={sr}&sig={sig}&se={se}&skn={}", Escaped(name)),
        }
    }
}

/// Length of an HMAC-SHA256.
const SIGNATURE_LENGTH: usize = 32;

/// A token as it was shown. Reading it proves nothing; see [`SasToken::verify`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SasToken<'a> {
    resource: Encoded<'a>,
    signature: Encoded<'a>,
    /// `None` where the signature has another length, so that no key can have made it.
    signature_bytes: Option<[u8; SIGNATURE_LENGTH]>,
    /// Decimal digits that fit in 64 bits.
    expiry: &'a str,
    key_name: Option<Encoded<'a>>,
}

/// What keeps a text from being a token. It quotes nothing of the text, which may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFlaw {
    /// The scheme is missing or misspelt.
    #[error("it does not start with SharedAccessSignature and one space")]
    Scheme,
    /// White space or a control character, often a line end that was copied along.
    #[error("there is white space or a control character in it")]
    Blank,
    /// A member without `=`.
    #[error("a member has no =")]
    NoValue,
    /// A member that tokens do not have.
    #[error("there is a member besides sr, sig, se and skn")]
    UnknownMember,
    /// A member that is there twice.
    #[error("{0} is there twice")]
    Twice(&'static str),
    /// A member that is missing or empty.
    #[error("{0} is missing or empty")]
    Missing(&'static str),
    /// A member whose escapes do not decode to UTF-8.
    #[error("{0} does not decode to UTF-8")]
    Encoding(&'static str),
    /// The signature is not base64.
    #[error("sig is not base64 that is percent-encoded once")]
    Signature,
    /// The expiry is no time.
    #[error("se is not a whole number of seconds since 1970")]
    Expiry,
}

/// Why a token does not open the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SasError {
    /// It is not a token.
    #[error("{}: {}", Rule::SasMalformed.says(), .0)]
    Malformed(TokenFlaw),
    /// It was made for something else.
    #[error("{}", Rule::SasScope.says())]
    WrongScope,
    /// It was not signed with a key of the identity or of the policy.
    #[error("{}", Rule::SasSignature.says())]
    BadSignature,
    /// Its policy does not exist or has not the right.
    #[error("{}", Rule::SasPolicy.says())]
    Forbidden,
    /// Its time is over.
    #[error("{}", Rule::SasExpired.says())]
    Expired,
}

impl SasError {
    /// The rule that was broken.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Malformed(_) => Rule::SasMalformed,
            Self::WrongScope => Rule::SasScope,
            Self::BadSignature => Rule::SasSignature,
            Self::Forbidden => Rule::SasPolicy,
            Self::Expired => Rule::SasExpired,
        }
    }
}

impl<'a> SasToken<'a> {
    /// Reads a token: `sr`, `sig` and `se` once each, `skn` at most once, in any order and letter case, nothing else and
    /// no blanks. The signature is base64. An empty `skn`, as some tools write it, is none.
    ///
    /// # Errors
    /// [`SasError::Malformed`].
    pub fn parse(text: &'a str) -> Result<Self, SasError> {
        Self::read(text).map_err(SasError::Malformed)
    }

    fn read(text: &'a str) -> Result<Self, TokenFlaw> {
        let members = text.strip_prefix(SCHEME).ok_or(TokenFlaw::Scheme)?;
        if members.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) {
            return Err(TokenFlaw::Blank);
        }
        let (mut sr, mut sig, mut se, mut skn) = (None, None, None, None);
        for member in members.split('&') {
            let (name, value) = member.split_once('=').ok_or(TokenFlaw::NoValue)?;
            let slots = [("sr", &mut sr), ("sig", &mut sig), ("se", &mut se), ("skn", &mut skn)];
            let slot = slots.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
            let (known, slot) = slot.ok_or(TokenFlaw::UnknownMember)?;
            if slot.replace(value).is_some() {
                return Err(TokenFlaw::Twice(known));
            }
        }
        let present = |value: Option<&'a str>| value.filter(|value| !value.is_empty());
        let required = |name, value| present(value).ok_or(TokenFlaw::Missing(name));
        let encoded = |name, value: &'a str| Encoded::new(value.as_bytes()).ok_or(TokenFlaw::Encoding(name));
        let expiry = required("se", se)?;
        if !expiry.bytes().all(|byte| byte.is_ascii_digit()) || expiry.parse::<u64>().is_err() {
            return Err(TokenFlaw::Expiry);
        }
        let signature = encoded("sig", required("sig", sig)?)?;
        let bytes = BASE64.decode(signature.decoded().as_bytes()).map_err(|_| TokenFlaw::Signature)?;
        Ok(Self {
            resource: encoded("sr", required("sr", sr)?)?,
            signature,
            signature_bytes: bytes.try_into().ok(),
            expiry,
            key_name: present(skn).map(|name| encoded("skn", name)).transpose()?,
        })
    }

    /// What the token is for, decoded.
    #[must_use]
    pub fn resource(&self) -> Cow<'a, str> {
        self.resource.decoded()
    }

    /// What the token is for, as it stands; this is what is signed.
    #[must_use]
    pub fn sr(&self) -> &'a str {
        self.resource.as_str()
    }

    /// The signature, decoded from percent-encoding to base64.
    #[must_use]
    pub fn signature(&self) -> Cow<'a, str> {
        self.signature.decoded()
    }

    /// The first of `sr` and `sig` that has characters which are to be percent-encoded. Such a token is good here; a reader
    /// that takes `+` for a space, or cuts at every `=`, finds another signature in it.
    #[must_use]
    pub fn unencoded_member(&self) -> Option<&'static str> {
        let is_raw = |member: Encoded<'_>| member.as_bytes().iter().any(|byte| b"/+=:".contains(byte));
        [("sr", self.resource), ("sig", self.signature)]
            .into_iter()
            .find_map(|(name, member)| is_raw(member).then_some(name))
    }

    /// The time from which the token is no longer good.
    #[must_use]
    pub fn expiry(&self) -> UnixTime {
        UnixTime::from_secs(self.expiry.parse().expect("parse took only what fits in 64 bits"))
    }

    /// The name of the policy that the token is signed by; `None` for an identity's own key.
    #[must_use]
    pub fn key_name(&self) -> Option<Cow<'a, str>> {
        self.key_name.map(Encoded::decoded)
    }

    /// Whether the token is signed with `key`. The time it takes does not depend on the signature.
    #[must_use]
    pub fn is_signed_with(&self, key: &SymmetricKey) -> bool {
        let mac = key.hmac().chain_update(self.sr()).chain_update("\n").chain_update(self.expiry);
        // Made in any case, so that its time does not tell the length.
        mac.verify_slice(&self.signature_bytes.unwrap_or_default()).is_ok() && self.signature_bytes.is_some()
    }

    /// Whether `target` (`{host}/devices/{device id}`, not encoded) is what the token is for, or lies below it.
    ///
    /// Whole segments are compared, the host without regard to letter case. An id may be percent-encoded within the
    /// resource, which is encoded again in `sr`, as Azure's SDK for .NET does it. A last segment `api-version=…` after a
    /// device or module, as old tools wrote it, is left out.
    #[must_use]
    pub fn covers(&self, target: &str) -> bool {
        self.levels_above(target).is_some()
    }

    /// Decides whether the token opens what `demand` describes. `policy` looks a policy up by its name; it is asked only
    /// when the token names one.
    ///
    /// An identity's own key speaks for that identity only: the token is for the very target. A policy's key speaks for
    /// everything at and below what the token is for.
    ///
    /// # Errors
    /// [`SasError`], all but [`SasError::Malformed`].
    pub fn verify<'p>(
        &self,
        demand: &Demand<'_>,
        policy: impl FnOnce(&str) -> Option<&'p Policy>,
    ) -> Result<Verified<'p>, SasError> {
        let key_name = self.key_name();
        let policy = key_name.as_deref().and_then(policy);
        // Before all else, so that time does not tell what was wrong.
        let is_signed = match policy {
            Some(policy) => self.is_signed_with_any(policy.keys.iter()),
            None => self.is_signed_with_any(demand.keys.iter().copied()),
        };
        let levels_above = self.levels_above(demand.target).ok_or(SasError::WrongScope)?;
        match (key_name, policy) {
            (Some(_), None) => return Err(SasError::Forbidden),
            (None, _) if levels_above > 0 => return Err(SasError::WrongScope),
            _ => {}
        }
        if !is_signed {
            return Err(SasError::BadSignature);
        }
        if policy.is_some_and(|policy| !policy.rights.contains(demand.right)) {
            return Err(SasError::Forbidden);
        }
        if demand.now >= self.expiry().after(demand.skew) {
            return Err(SasError::Expired);
        }
        Ok(Verified { expiry: self.expiry(), policy })
    }

    /// Tries every key, so that time does not tell which one it was.
    fn is_signed_with_any<'k>(&self, keys: impl Iterator<Item = &'k SymmetricKey>) -> bool {
        keys.fold(false, |found, key| found | self.is_signed_with(key))
    }

    /// How many levels below the token's resource `target` lies; `None` where it lies elsewhere.
    fn levels_above(&self, target: &str) -> Option<usize> {
        let resource = self.resource();
        let scope = scope(&resource);
        let (scope_host, scope_path) = scope.split_once('/').unwrap_or((scope, ""));
        let (target_host, target_path) = target.split_once('/').unwrap_or((target, ""));
        if !scope_host.eq_ignore_ascii_case(target_host) {
            return None;
        }
        let mut rest = segments(target_path);
        for segment in segments(scope_path) {
            if !is_segment(rest.next()?, segment) {
                return None;
            }
        }
        Some(rest.count())
    }
}

/// Whether `shown` is the segment `wanted`: as it stands, or decoded as often as it was encoded. No id contains the slash
/// that could make two segments of one.
fn is_segment(wanted: &str, shown: &str) -> bool {
    let mut shown = Cow::Borrowed(shown);
    for _ in 0..SEGMENT_ENCODINGS_MAX {
        if shown == wanted {
            return true;
        }
        match Encoded::new(shown.as_bytes()).map(Encoded::decoded) {
            Some(Cow::Owned(decoded)) if decoded != *shown => shown = Cow::Owned(decoded),
            _ => return false,
        }
    }
    shown == wanted
}

/// How often an id may be percent-encoded in a resource, besides the encoding of the whole. One encoding is real; the
/// bound keeps the work of a stranger's token small.
const SEGMENT_ENCODINGS_MAX: usize = 2;

fn segments(path: &str) -> impl Iterator<Item = &str> {
    let levels = if path.is_empty() { None } else { Some(path.split('/')) };
    levels.into_iter().flatten()
}

/// The resource that is compared: without a slash at its end, and without an api-version behind a device or module.
fn scope(resource: &str) -> &str {
    let resource = resource.strip_suffix('/').unwrap_or(resource);
    let levels = resource.matches('/').count();
    match resource.rsplit_once('/') {
        // {host}/devices/{id}/api-version=… or {host}/devices/{id}/modules/{id}/api-version=…
        Some((before, last)) if matches!(levels, 3 | 5) && last.starts_with("api-version=") => before,
        _ => resource,
    }
}

/// The signature is left out: for as long as the token is good, it is as good as a password.
impl fmt::Debug for SasToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SasToken")
            .field("resource", &self.resource)
            .field("expiry", &self.expiry)
            .field("key_name", &self.key_name)
            .finish_non_exhaustive()
    }
}

/// What a token shall open.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// `{host}/devices/{device id}[/modules/{module id}]`, or `{host}` for the service; not encoded.
    pub target: &'a str,
    /// The keys of the identity itself; none for the service.
    pub keys: &'a [&'a SymmetricKey],
    /// The right that a policy needs.
    pub right: Rights,
    /// The time.
    pub now: UnixTime,
    /// How long a token is good beyond its expiry, for clocks that differ.
    pub skew: Duration,
}

/// A token that is good.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'p> {
    /// The time from which it is no longer good.
    pub expiry: UnixTime,
    /// The policy that it is signed by; `None` for the identity's own key.
    pub policy: Option<&'p Policy>,
}

/// A shared access policy: a name, keys and what they are good for.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The name, which tokens say in `skn`.
    pub name: String,
    /// The keys, usually a primary and a secondary one.
    pub keys: Vec<SymmetricKey>,
    /// What it may do.
    pub rights: Rights,
}

/// What a policy may do, as a set (IoT Hub: access control and permissions).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// No rights.
    pub const NONE: Self = Self(0);
    /// Reading the identity registry.
    pub const REGISTRY_READ: Self = Self(1);
    /// Writing the identity registry. It is given together with reading.
    pub const REGISTRY_WRITE: Self = Self(2);
    /// The service's side: cloud messages, methods, twins, telemetry.
    pub const SERVICE_CONNECT: Self = Self(4);
    /// The device's side.
    pub const DEVICE_CONNECT: Self = Self(8);

    /// The five policies that every hub starts with.
    pub const DEFAULT_POLICIES: [(&'static str, Self); 5] = [
        ("iothubowner", Self(15)),
        ("service", Self::SERVICE_CONNECT),
        ("device", Self::DEVICE_CONNECT),
        ("registryRead", Self::REGISTRY_READ),
        ("registryReadWrite", Self(3)),
    ];

    /// The right that Azure calls `name`: `RegistryRead`, `RegistryWrite`, `ServiceConnect` or `DeviceConnect`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "RegistryRead" => Some(Self::REGISTRY_READ),
            "RegistryWrite" => Some(Self::REGISTRY_WRITE),
            "ServiceConnect" => Some(Self::SERVICE_CONNECT),
            "DeviceConnect" => Some(Self::DEVICE_CONNECT),
            _ => None,
        }
    }

    /// Whether all of `rights` are among these.
    #[must_use]
    pub const fn contains(self, rights: Self) -> bool {
        self.0 & rights.0 == rights.0
    }
}

impl BitOr for Rights {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests;
