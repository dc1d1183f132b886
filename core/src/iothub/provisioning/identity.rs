//! Who registers, and with which instance of the service.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use super::super::escape::{Encoded, Escaped};
use crate::limits::ID_MAX;
use crate::rule::Rule;

/// The name by which the service knows a device: 1 to 128 ASCII letters, digits and `- . _ :`, the last one a letter, a
/// digit or `-`. Compared without regard to letter case; a key that is derived from it is not (IoT Hub DPS: terminology).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrationId<'a>(&'a str);

/// A text that is no registration id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", Rule::DpsRegistrationId.says())]
pub struct RegistrationIdError;

impl RegistrationIdError {
    /// The rule that was broken.
    #[must_use]
    pub const fn rule(self) -> Rule {
        Rule::DpsRegistrationId
    }
}

impl<'a> RegistrationId<'a> {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`RegistrationIdError`] where it is empty, too long, or has a character that registration ids do not have.
    pub fn new(text: &'a str) -> Result<Self, RegistrationIdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        let ends = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let sound = (1..=ID_MAX).contains(&text.len())
            && text.bytes().all(allowed)
            && text.as_bytes().last().is_some_and(ends);
        if sound { Ok(Self(text)) } else { Err(RegistrationIdError) }
    }

    /// The id as the device writes it.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The form under which the service keeps it: in lower case.
    #[must_use]
    pub fn key(self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// The user name of a device that connects to the service (IoT Hub DPS: MQTT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Username<'a> {
    id_scope: &'a str,
    registration_id: RegistrationId<'a>,
    query: Encoded<'a>,
}

/// Why a user name is not one of a device that registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsernameError {
    /// It has another form: the connection is for a hub.
    #[error("the user name is not one for the Device Provisioning Service")]
    NotProvisioning,
    /// It belongs to the service, and lacks something.
    #[error("{}", Rule::DpsUsername.says())]
    Malformed,
    /// It names another registration id than the client id does.
    #[error("{}", Rule::DpsClientId.says())]
    IdentityMismatch,
    /// Both agree on a registration id that is none.
    #[error(transparent)]
    Id(#[from] RegistrationIdError),
}

impl UsernameError {
    /// The rule that was broken.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::NotProvisioning | Self::Malformed => Rule::DpsUsername,
            Self::IdentityMismatch => Rule::DpsClientId,
            Self::Id(error) => error.rule(),
        }
    }
}

const REGISTRATIONS: &str = "registrations";

impl<'a> Username<'a> {
    /// Reads the user name `text` of a client that calls itself `client_id`.
    ///
    /// # Errors
    /// [`UsernameError`].
    pub fn parse(text: &'a str, client_id: &'a str) -> Result<Self, UsernameError> {
        let (id_scope, rest) = text.split_once('/').ok_or(UsernameError::NotProvisioning)?;
        let rest = rest.strip_prefix(REGISTRATIONS).and_then(|rest| rest.strip_prefix('/'));
        // A hub may have a device of that name, and the device modules: then the client id says so.
        let of_a_hub = client_id == REGISTRATIONS || client_id.contains('/');
        let rest = rest.filter(|_| !of_a_hub).ok_or(UsernameError::NotProvisioning)?;
        let (registration_id, query) = rest.split_once('/').unwrap_or((rest, ""));
        if id_scope.is_empty() || registration_id.is_empty() {
            return Err(UsernameError::Malformed);
        }
        if !registration_id.eq_ignore_ascii_case(client_id) {
            return Err(UsernameError::IdentityMismatch);
        }
        let registration_id = RegistrationId::new(client_id)?;
        let query = Encoded::new(query.strip_prefix('?').unwrap_or(query).as_bytes());
        let username = Self { id_scope, registration_id, query: query.ok_or(UsernameError::Malformed)? };
        match username.value("api-version") {
            Some(version) if !version.is_empty() => Ok(username),
            _ => Err(UsernameError::Malformed),
        }
    }

    /// Writes the user name of `registration_id`. The agent is percent-encoded.
    #[must_use]
    pub fn build(
        id_scope: &str,
        registration_id: RegistrationId<'_>,
        api_version: &str,
        client_version: &str,
    ) -> String {
        let (id, agent) = (registration_id.as_str(), Escaped(client_version));
        format!("{id_scope}/{REGISTRATIONS}/{id}/api-version={api_version}&ClientVersion={agent}")
    }

    /// The id scope: which instance of the service.
    #[must_use]
    pub const fn id_scope(self) -> &'a str {
        self.id_scope
    }

    /// The registration id, as the client id has it.
    #[must_use]
    pub const fn registration_id(self) -> RegistrationId<'a> {
        self.registration_id
    }

    /// The api-version, decoded.
    #[must_use]
    pub fn api_version(self) -> Cow<'a, str> {
        self.value("api-version").unwrap_or_default()
    }

    /// What the client calls itself, decoded.
    #[must_use]
    pub fn client_version(self) -> Option<Cow<'a, str>> {
        self.value("ClientVersion")
    }

    /// The first value of the name `wanted`.
    fn value(self, wanted: &str) -> Option<Cow<'a, str>> {
        self.query.split(b'&').find_map(|pair| {
            let (name, value) = pair.pair();
            if name.decoded() == wanted { value.map(Encoded::decoded) } else { None }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_id_has_the_documented_characters_and_length() {
        let longest = "x".repeat(ID_MAX);
        for id in ["a", "A-b.c_d:e", "a-", &longest] {
            assert!(RegistrationId::new(id).is_ok(), "{id}");
        }
        let longer = "x".repeat(ID_MAX + 1);
        for id in ["", "a.", "a_", "a:", "a b", "a/b", "ä", "a#", &longer] {
            assert_eq!(RegistrationId::new(id), Err(RegistrationIdError), "{id}");
        }
    }

    #[test]
    fn a_hub_keeps_its_devices_whose_names_look_like_the_services() {
        for (text, client_id) in [
            ("h/registrations/?api-version=2021-04-12", "registrations"),
            ("h/registrations/m/?api-version=2021-04-12", "registrations/m"),
            ("h/registrations", "registrations"),
            ("h/d/?api-version=2021-04-12", "d"),
            ("", ""),
        ] {
            assert_eq!(Username::parse(text, client_id), Err(UsernameError::NotProvisioning), "{text}");
        }
    }

    #[test]
    fn what_belongs_to_the_service_and_is_wrong_is_named() {
        use UsernameError::{Id, IdentityMismatch, Malformed};
        for (text, client_id, error) in [
            ("s/registrations/d/api-version=", "d", Malformed),
            ("s/registrations/d/", "d", Malformed),
            ("/registrations/d/api-version=1", "d", Malformed),
            ("s/registrations//api-version=1", "", Malformed),
            ("s/registrations/d/api-version=1&ClientVersion=%ff", "d", Malformed),
            ("s/registrations/d/api-version=1", "", IdentityMismatch),
            ("s/registrations/d./api-version=1", "d.", Id(RegistrationIdError)),
        ] {
            assert_eq!(Username::parse(text, client_id), Err(error), "{text}");
        }
    }

    #[test]
    fn what_is_built_is_read() {
        let id = RegistrationId::new("Dev-1").unwrap();
        let text = Username::build("0ne00000A0A", id, "2021-06-01", "a/1 (b;c)");
        let read = Username::parse(&text, "dev-1").unwrap();
        assert_eq!((read.id_scope(), read.registration_id().as_str()), ("0ne00000A0A", "dev-1"));
        assert_eq!(read.api_version(), "2021-06-01");
        assert_eq!(read.client_version().unwrap(), "a/1 (b;c)");
    }
}
