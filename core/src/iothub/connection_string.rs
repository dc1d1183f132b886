//! Connection strings: `Name=Value` pairs joined by `;`, the form in which Azure hands out credentials.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use core::fmt;

use super::identity::{IdError, Identity};
use super::sas::{KeyError, SasToken, SymmetricKey};
use crate::rule::Rule;

/// Where to connect, as whom and with what.
///
/// Names are read in any letter case; a value is all that follows the first `=`. `Debug` hides what is secret;
/// `Display` writes the connection string, secret and all.
#[derive(Clone)]
pub struct ConnectionString {
    host_name: String,
    gateway_host_name: Option<String>,
    device_id: Option<String>,
    module_id: Option<String>,
    key_name: Option<String>,
    credential: Credential,
}

/// What a connection string proves the right to connect with.
#[derive(Clone)]
pub enum Credential {
    /// A key to make tokens with: `SharedAccessKey`.
    Key(SymmetricKey),
    /// A token: `SharedAccessSignature`.
    Signature(String),
    /// A certificate that stands elsewhere: `x509=true`.
    X509,
}

/// Whose connection string it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A device's.
    Device,
    /// A module's.
    Module,
    /// A service's, by a policy.
    Service,
}

/// Why a text is not a connection string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// It is empty.
    #[error("the connection string is empty")]
    Empty,
    /// A part of it, counted from 1, has no `=`.
    #[error("part {0} of the connection string has no =; write Name=Value pairs joined by ;")]
    NoValue(usize),
    /// A part of it, counted from 1, is empty.
    #[error("part {0} of the connection string is empty; remove the ; that is too many")]
    EmptyPart(usize),
    /// Space, tab or line break in a part of it, counted from 1.
    #[error(
        "part {0} of the connection string has white space in or around it; remove it, and quotes as well"
    )]
    WhiteSpace(usize),
    /// A value does not fit its name.
    #[error("the value of {name} does not fit it: {}", fits(name))]
    BadValue {
        /// Whose value.
        name: &'static str,
    },
    /// A value is missing without which nobody can connect.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A name that connection strings do not have.
    #[error("there is no {0} in connection strings; check its spelling")]
    UnknownKey(Excerpt),
    /// A name that stands there twice.
    #[error("{0} stands there twice")]
    DuplicateKey(&'static str),
    /// More than one of a key, a token and a certificate.
    #[error("only one of SharedAccessKey, SharedAccessSignature and x509 is given")]
    MixedAuth,
    /// The `SharedAccessKey` is no key.
    #[error("SharedAccessKey: {0}")]
    BadKey(KeyError),
    /// An id is none.
    #[error("DeviceId or ModuleId: {0}")]
    BadId(IdError),
}

impl ConnectionStringError {
    /// The rule that was broken.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::BadKey(error) => error.rule(),
            Self::BadId(error) => error.rule(),
            _ => Rule::ConnectionString,
        }
    }
}

const HOST_NAME: &str = "HostName";
const GATEWAY_HOST_NAME: &str = "GatewayHostName";
const DEVICE_ID: &str = "DeviceId";
const MODULE_ID: &str = "ModuleId";
const KEY: &str = "SharedAccessKey";
const KEY_NAME: &str = "SharedAccessKeyName";
const SIGNATURE: &str = "SharedAccessSignature";
const X509: &str = "x509";

/// The values as they stand, before they are judged together.
#[derive(Default)]
struct Values<'a> {
    host_name: Option<&'a str>,
    gateway_host_name: Option<&'a str>,
    device_id: Option<&'a str>,
    module_id: Option<&'a str>,
    key: Option<&'a str>,
    key_name: Option<&'a str>,
    signature: Option<&'a str>,
    x509: Option<&'a str>,
}

impl<'a> Values<'a> {
    fn read(text: &'a str) -> Result<Self, ConnectionStringError> {
        let mut values = Self::default();
        for (pair, part) in text.split(';').zip(1..) {
            if pair.is_empty() {
                return Err(ConnectionStringError::EmptyPart(part));
            }
            if has_white_space(pair) {
                return Err(ConnectionStringError::WhiteSpace(part));
            }
            let (name, value) = pair.split_once('=').ok_or(ConnectionStringError::NoValue(part))?;
            let (name, slot) =
                values.slot(name).ok_or(ConnectionStringError::UnknownKey(Excerpt::of(name)))?;
            if value.is_empty() {
                return Err(ConnectionStringError::Missing(name));
            }
            if slot.replace(value).is_some() {
                return Err(ConnectionStringError::DuplicateKey(name));
            }
        }
        Ok(values)
    }

    fn slot(&mut self, name: &str) -> Option<(&'static str, &mut Option<&'a str>)> {
        let slots = [
            (HOST_NAME, &mut self.host_name),
            (GATEWAY_HOST_NAME, &mut self.gateway_host_name),
            (DEVICE_ID, &mut self.device_id),
            (MODULE_ID, &mut self.module_id),
            (KEY, &mut self.key),
            (KEY_NAME, &mut self.key_name),
            (SIGNATURE, &mut self.signature),
            (X509, &mut self.x509),
        ];
        // .NET's name for the same thing
        let name = if name.eq_ignore_ascii_case("X509Cert") { X509 } else { name };
        slots.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known))
    }

    fn credential(&self) -> Result<Credential, ConnectionStringError> {
        let x509 = match self.x509 {
            None => false,
            Some(value) if value.eq_ignore_ascii_case("false") => false,
            Some(value) if value.eq_ignore_ascii_case("true") => true,
            Some(_) => return Err(ConnectionStringError::BadValue { name: X509 }),
        };
        match (self.key, self.signature, x509) {
            (Some(key), None, false) => {
                SymmetricKey::from_base64(key).map(Credential::Key).map_err(ConnectionStringError::BadKey)
            }
            (None, Some(token), false) => {
                SasToken::parse(token).map_err(|_| ConnectionStringError::BadValue { name: SIGNATURE })?;
                Ok(Credential::Signature(token.to_owned()))
            }
            (None, None, true) if self.key_name.is_none() => Ok(Credential::X509),
            (None, None, false) => Err(ConnectionStringError::Missing(KEY)),
            _ => Err(ConnectionStringError::MixedAuth),
        }
    }
}

impl ConnectionString {
    /// Reads a connection string.
    ///
    /// # Errors
    /// [`ConnectionStringError`].
    pub fn parse(text: &str) -> Result<Self, ConnectionStringError> {
        if text.is_empty() {
            return Err(ConnectionStringError::Empty);
        }
        let values = Values::read(text)?;
        let host_name = values.host_name.ok_or(ConnectionStringError::Missing(HOST_NAME))?;
        let credential = values.credential()?;
        match values.device_id {
            Some(device_id) => {
                Identity::new(device_id, values.module_id).map_err(ConnectionStringError::BadId)?;
            }
            None if values.key_name.is_none() || values.module_id.is_some() => {
                return Err(ConnectionStringError::Missing(DEVICE_ID));
            }
            None => {}
        }
        let hosts = [(HOST_NAME, Some(host_name)), (GATEWAY_HOST_NAME, values.gateway_host_name)];
        for (name, host) in hosts {
            if !host.is_none_or(is_host) {
                return Err(ConnectionStringError::BadValue { name });
            }
        }
        if !values.key_name.is_none_or(is_key_name) {
            return Err(ConnectionStringError::BadValue { name: KEY_NAME });
        }
        let owned = |value: Option<&str>| value.map(str::to_owned);
        Ok(Self {
            host_name: host_name.to_owned(),
            gateway_host_name: owned(values.gateway_host_name),
            device_id: owned(values.device_id),
            module_id: owned(values.module_id),
            key_name: owned(values.key_name),
            credential,
        })
    }

    /// Whose connection string it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match (&self.device_id, &self.module_id) {
            (None, _) => Kind::Service,
            (Some(_), None) => Kind::Device,
            (Some(_), Some(_)) => Kind::Module,
        }
    }

    /// The name of the hub, which user name and token contain; with a port where one was given.
    #[must_use]
    pub fn host_name(&self) -> &str {
        &self.host_name
    }

    /// The gateway to dial instead of the hub.
    #[must_use]
    pub fn gateway_host_name(&self) -> Option<&str> {
        self.gateway_host_name.as_deref()
    }

    /// The device or module; `None` for a service.
    #[must_use]
    pub fn identity(&self) -> Option<Identity<'_>> {
        let device_id = self.device_id.as_deref()?;
        Some(Identity::new(device_id, self.module_id.as_deref()).expect("parse has checked the ids"))
    }

    /// The policy that the key or token is of; `None` for the identity's own.
    #[must_use]
    pub fn key_name(&self) -> Option<&str> {
        self.key_name.as_deref()
    }

    /// What proves the right to connect.
    #[must_use]
    pub const fn credential(&self) -> &Credential {
        &self.credential
    }
}

/// What the value of a name looks like.
fn fits(name: &str) -> &'static str {
    match name {
        X509 => "write true or false",
        SIGNATURE => "write a SAS token, SharedAccessSignature sr=…&sig=…&se=…",
        KEY_NAME => "a policy's name is made of letters, digits, - _ . and @",
        _ => "write a host name or an address without https:// and path",
    }
}

/// White space, but for the one blank in a SAS token.
fn has_white_space(pair: &str) -> bool {
    let pair = pair
        .split_once('=')
        .filter(|(name, _)| name.eq_ignore_ascii_case(SIGNATURE))
        .map_or_else(|| pair, |(_, token)| token.strip_prefix("SharedAccessSignature ").unwrap_or(token));
    pair.contains(char::is_whitespace)
}

/// The first characters of a name, for an error that owns nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Excerpt {
    bytes: [u8; Self::LENGTH],
    length: usize,
    is_whole: bool,
}

impl Excerpt {
    /// All names that there are have fewer characters.
    const LENGTH: usize = 24;

    fn of(name: &str) -> Self {
        let mut bytes = [0; Self::LENGTH];
        let length = name.floor_char_boundary(Self::LENGTH);
        for (to, from) in bytes.iter_mut().zip(name.bytes().take(length)) {
            *to = from;
        }
        Self { bytes, length, is_whole: length == name.len() }
    }

    /// The characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.length).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

/// With escapes for what a terminal would not show, as the name may be a stranger's.
impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.as_str(), if self.is_whole { "" } else { "…" })
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A DNS name or an address, with or without a port.
fn is_host(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte))
}

fn is_key_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte))
}

/// The connection string, with what is secret in it.
impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HOST_NAME}={}", self.host_name)?;
        let parts = [
            (GATEWAY_HOST_NAME, &self.gateway_host_name),
            (DEVICE_ID, &self.device_id),
            (MODULE_ID, &self.module_id),
            (KEY_NAME, &self.key_name),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                write!(f, ";{name}={value}")?;
            }
        }
        match &self.credential {
            Credential::Key(key) => write!(f, ";{KEY}={}", key.to_base64()),
            Credential::Signature(token) => write!(f, ";{SIGNATURE}={token}"),
            Credential::X509 => write!(f, ";{X509}=true"),
        }
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionString")
            .field("host_name", &self.host_name)
            .field("gateway_host_name", &self.gateway_host_name)
            .field("device_id", &self.device_id)
            .field("module_id", &self.module_id)
            .field("key_name", &self.key_name)
            .field("credential", &self.credential)
            .finish()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(hidden)",
            Self::Signature(_) => "Signature(hidden)",
            Self::X509 => "X509",
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn what_is_written_is_what_was_read() {
        for text in [
            "HostName=h:8883;GatewayHostName=g;DeviceId=d=1,@;SharedAccessKey=Zm9vYg==",
            "HostName=h;DeviceId=d;ModuleId=m;x509=true",
            "HostName=h;DeviceId=d;SharedAccessKeyName=device;SharedAccessKey=Zm9v",
            "HostName=h;SharedAccessKeyName=p;SharedAccessSignature=SharedAccessSignature sr=h&sig=YQ==&se=1&skn=p",
        ] {
            assert_eq!(ConnectionString::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_certificate_that_is_not_there_is_no_credential() {
        let parse = |text: &str| ConnectionString::parse(text).map(|parsed| parsed.kind());
        assert_eq!(parse("HostName=h;DeviceId=d;X509Cert=True"), Ok(Kind::Device));
        assert_eq!(parse("HostName=h;DeviceId=d;x509=false;SharedAccessKey=Zm9v"), Ok(Kind::Device));
        assert_eq!(parse("HostName=h;DeviceId=d;x509=false"), Err(ConnectionStringError::Missing(KEY)));
        assert_eq!(
            parse("HostName=h;DeviceId=d;x509=yes"),
            Err(ConnectionStringError::BadValue { name: X509 })
        );
    }

    #[test]
    fn what_is_no_connection_string_is_refused() {
        use ConnectionStringError as E;
        for (text, error) in [
            ("", E::Empty),
            ("HostName", E::NoValue(1)),
            ("HostName=h;DeviceId=d;SharedAccessKey=Zm9v;", E::EmptyPart(4)),
            ("HostName=h; DeviceId=d;SharedAccessKey=Zm9v", E::WhiteSpace(2)),
            ("HostName=h;DeviceId=d;SharedAccessKey=Zm9v\n", E::WhiteSpace(3)),
            ("HostName=h;DeviceId;SharedAccessKey=Zm9v", E::NoValue(2)),
            ("HostName=h;DeviceId=d;SharedAccessKey=Zm9", E::BadKey(KeyError)),
            ("HostName=h;DeviceId=d;SharedAccessKey=Zm9v=Zm9v", E::BadKey(KeyError)),
            ("HostName=h;DeviceId=d/x;SharedAccessKey=Zm9v", E::BadId(IdError::Character)),
            ("HostName=h;ModuleId=m;SharedAccessKeyName=p;SharedAccessKey=Zm9v", E::Missing(DEVICE_ID)),
            ("HostName=h;SharedAccessKeyName=p", E::Missing(KEY)),
            ("HostName=h/;DeviceId=d;SharedAccessKey=Zm9v", E::BadValue { name: HOST_NAME }),
            ("HostName=h;DeviceId=d;SharedAccessKeyName=p;x509=true", E::MixedAuth),
            ("HostName=h;DeviceId=d;SharedAccessSignature=sr=h", E::BadValue { name: SIGNATURE }),
            ("HostName=h;hostname=h;DeviceId=d;SharedAccessKey=Zm9v", E::DuplicateKey(HOST_NAME)),
            ("HostName=h;DeviceId=d;SharedAccessKey=Zm9v;Port=1", E::UnknownKey(Excerpt::of("Port"))),
        ] {
            assert_eq!(ConnectionString::parse(text).map(|_| ()), Err(error), "{text}");
        }
    }

    #[test]
    fn an_error_names_the_part_that_is_wrong() {
        for (text, words) in [
            (
                "HostName=h;DeviceID2=d;SharedAccessKey=Zm9v",
                "there is no \"DeviceID2\" in connection strings",
            ),
            ("HostName=h;\u{1b}[31m=d;SharedAccessKey=Zm9v", "there is no \"\\u{1b}[31m\" in"),
            (
                "HostName=h;DeviceId=d ;SharedAccessKey=Zm9v",
                "part 2 of the connection string has white space",
            ),
            ("HostName=https://h;DeviceId=d;SharedAccessKey=Zm9v", "the value of HostName does not fit it"),
            ("HostName=h;DeviceId=d;x509=yes", "write true or false"),
            ("HostName=h;DeviceId=d;SharedAccessKey=Zm9v;;", "part 4 of the connection string is empty"),
        ] {
            let told = ConnectionString::parse(text).unwrap_err().to_string();
            assert!(told.contains(words), "{told}");
        }
        let long = format!("{}=x", "é".repeat(40));
        let told = ConnectionString::parse(&long).unwrap_err().to_string();
        assert!(told.contains(&format!("{}\"…", "é".repeat(12))), "{told}");
    }

    #[test]
    fn secrets_do_not_show() {
        let text = "HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0";
        assert!(!format!("{:?}", ConnectionString::parse(text).unwrap()).contains("c2VjcmV0"));
    }
}
