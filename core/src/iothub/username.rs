//! The user name of a CONNECT: which hub, which identity, which api-version.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt::Write as _;

use super::escape::{Encoded, Escaped};
use super::identity::{IdError, Identity};
use crate::rule::Rule;

/// `{host}/{device id}[/{module id}]/?{query}` (IoT Hub MQTT: Username).
///
/// The older forms are read as well: without the `?`, its parameters in any order, a slash between them as one client of
/// 2017 wrote it; and without a query. Host and ids stand raw; names and values of the query are percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Username<'a> {
    host: &'a str,
    identity: Identity<'a>,
    query: Encoded<'a>,
}

/// The parameters by which a query without its `?` is told from a module id.
const PARAMETERS: [&str; 6] =
    ["api-version", "DeviceClientType", "model-id", "auth-chain", "ClientVersion", "digital-twin-model-id"];

/// Why a user name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsernameError {
    /// It has none of the forms that user names have.
    #[error("a user name is {{host}}/{{device id}}[/{{module id}}]/?api-version={{version}}")]
    Malformed,
    /// It is one for the Device Provisioning Service: `{id scope}/registrations/{registration id}/api-version=…`.
    #[error("the user name is one for the Device Provisioning Service, not for a hub")]
    Provisioning,
    /// It names another identity than the client id does.
    #[error("the user name and the client id name the same device or module")]
    ClientIdMismatch,
    /// Both agree on an identity that cannot be.
    #[error(transparent)]
    Id(#[from] IdError),
}

impl UsernameError {
    /// The rule that was broken.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Malformed => Rule::Username,
            Self::Provisioning => Rule::ProvisioningUsername,
            Self::ClientIdMismatch => Rule::ClientId,
            Self::Id(error) => error.rule(),
        }
    }
}

impl<'a> Username<'a> {
    /// Reads the user name `text` of a client that calls itself `client_id`.
    ///
    /// # Errors
    /// [`UsernameError`] where it is none, or names another identity than the client id.
    pub fn parse(text: &'a str, client_id: &'a str) -> Result<Self, UsernameError> {
        let (host, path) = text.split_once('/').ok_or(UsernameError::Malformed)?;
        if host.is_empty() {
            return Err(UsernameError::Malformed);
        }
        // The client id says where the ids end: a `?` may stand in them, too.
        let Some(query) = path.strip_prefix(client_id).and_then(query) else {
            return Err(mismatch(path, client_id));
        };
        let identity = Identity::from_client_id(client_id)?;
        let query = Encoded::new(query.as_bytes()).ok_or(UsernameError::Malformed)?;
        Ok(Self { host, identity, query })
    }

    /// The host name of the hub, as it stands.
    #[must_use]
    pub const fn host(self) -> &'a str {
        self.host
    }

    /// The device or module.
    #[must_use]
    pub const fn identity(self) -> Identity<'a> {
        self.identity
    }

    /// The api-version as it stands; `None` in the oldest form.
    #[must_use]
    pub fn api_version(self) -> Option<Cow<'a, str>> {
        self.value("api-version")
    }

    /// What the client calls itself: `DeviceClientType`.
    #[must_use]
    pub fn client_type(self) -> Option<Cow<'a, str>> {
        self.value("DeviceClientType")
    }

    /// The Plug and Play model of the device: `model-id`, a DTMI.
    #[must_use]
    pub fn model_id(self) -> Option<Cow<'a, str>> {
        self.value("model-id")
    }

    /// All of the query but the api-version: names and values, decoded, in order. A name without `=` has an empty value.
    pub fn params(self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + Clone {
        self.pairs().filter(|(name, _)| name != "api-version")
    }

    /// Writes a user name. Without an api-version there are no twins.
    pub fn build<'p>(
        host: &str,
        identity: Identity<'_>,
        api_version: Option<&'p str>,
        params: impl IntoIterator<Item = (&'p str, &'p str)>,
    ) -> String {
        let mut out = String::new();
        let _ = write!(out, "{host}/{identity}"); // a String takes everything
        let mut separator = "/?";
        for (name, value) in api_version.map(|version| ("api-version", version)).into_iter().chain(params) {
            let _ = write!(out, "{separator}{}={}", Escaped(name), Escaped(value));
            separator = "&";
        }
        out
    }

    fn pairs(self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + Clone {
        self.query.split(b'&').flat_map(at_slash).map(|pair| {
            let (name, value) = pair.pair();
            (name.decoded(), value.map_or(Cow::Borrowed(""), Encoded::decoded))
        })
    }

    /// The first value of the name `wanted`.
    fn value(self, wanted: &str) -> Option<Cow<'a, str>> {
        self.pairs().find(|(name, _)| name == wanted).map(|(_, value)| value)
    }
}

/// What is left of a user name after its ids, as a query.
fn query(rest: &str) -> Option<&str> {
    if rest.is_empty() {
        return Some("");
    }
    let rest = rest.strip_prefix('/')?;
    match rest.strip_prefix('?') {
        Some(query) => Some(query),
        None => (rest.is_empty() || starts_with_parameter(rest)).then_some(rest),
    }
}

fn starts_with_parameter(text: &str) -> bool {
    PARAMETERS.into_iter().any(|name| text.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
}

/// A pair, or two where a slash stands between them instead of `&` (Azure's SDK for .NET, 1.5.1-preview).
fn at_slash(pair: Encoded<'_>) -> impl Iterator<Item = Encoded<'_>> + Clone {
    let text = pair.as_str();
    let cut = text
        .match_indices('/')
        .find(|(at, _)| text.get(at.saturating_add(1)..).is_some_and(starts_with_parameter));
    let (first, second) = match cut {
        Some((at, _)) => (text.get(..at).unwrap_or(text), text.get(at.saturating_add(1)..)),
        None => (text, None),
    };
    // Cut at an ASCII character, so each decodes as the whole did.
    [Some(first), second].into_iter().flatten().filter_map(|part| Encoded::new(part.as_bytes()))
}

/// What is wrong with a user name whose `path` does not go on after the client id as it should: it names another identity,
/// or it is none.
fn mismatch(path: &str, client_id: &str) -> UsernameError {
    if path.strip_prefix("registrations/").is_some_and(|rest| rest.contains("/api-version=")) {
        return UsernameError::Provisioning;
    }
    // The right id, and no slash before the query.
    let runs_on = |rest: &str| rest.starts_with(['?', '&']) || starts_with_parameter(rest);
    if !client_id.is_empty() && path.strip_prefix(client_id).is_some_and(runs_on) {
        return UsernameError::Malformed;
    }
    let no_mark = path
        .match_indices('/')
        .map(|(at, _)| at)
        .find(|at| path.get(at.saturating_add(1)..).is_some_and(starts_with_parameter));
    let end = path.find("/?").or(no_mark).unwrap_or(path.len());
    let ids = path.get(..end).unwrap_or(path);
    match Identity::from_client_id(ids.strip_suffix('/').unwrap_or(ids)) {
        Ok(_) => UsernameError::ClientIdMismatch,
        Err(_) => UsernameError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn the_forms_of_all_years_are_read() {
        for (text, version) in [
            ("h/d", None),
            ("h/d/", None),
            ("h/d/?", None),
            ("h/d/?DeviceClientType=x", None),
            ("h/d/api-version=2016-11-14", Some("2016-11-14")),
            ("h/d/?api-version=2021-04-12", Some("2021-04-12")),
            ("h/d/?DeviceClientType=a/b&api-version=2021-04-12&api-version=2", Some("2021-04-12")),
            ("h/d/DeviceClientType=azure-iot-device%2F1.0.14", None),
            ("h/d/DeviceClientType=x&api-version=2016-11-14", Some("2016-11-14")),
            ("h/d/model-id=dtmi%3Aa%3B1&DeviceClientType=x&api-version=2016-11-14", Some("2016-11-14")),
            (
                "h/d/api-version=2017-06-30/DeviceClientType=Microsoft.Azure.Devices.Client/1.5.1",
                Some("2017-06-30"),
            ),
            (
                "h/d/?api-version=2017-06-30/DeviceClientType=Microsoft.Azure.Devices.Client/1.5.1",
                Some("2017-06-30"),
            ),
            ("h/d/DeviceClientType=a/b/api-version=2017-06-30", Some("2017-06-30")),
        ] {
            let username = Username::parse(text, "d").unwrap();
            assert_eq!((username.host(), username.api_version().as_deref()), ("h", version), "{text}");
        }
    }

    #[test]
    fn the_client_id_says_where_the_ids_end() {
        let username = Username::parse("h/?d/?m/?api-version=1", "?d/?m").unwrap();
        assert_eq!(username.identity(), Identity::new("?d", Some("?m")).unwrap());
        assert_eq!(username.api_version().unwrap(), "1");
    }

    #[test]
    fn what_a_client_calls_itself_is_read_in_every_form() {
        for (text, client_type) in [
            ("h/d/DeviceClientType=azure-iot-device%2F1.0.14", "azure-iot-device/1.0.14"),
            ("h/d/?api-version=1&DeviceClientType=a/b", "a/b"),
            ("h/d/api-version=2017-06-30/DeviceClientType=Microsoft.Azure/1.5.1", "Microsoft.Azure/1.5.1"),
        ] {
            assert_eq!(Username::parse(text, "d").unwrap().client_type().unwrap(), client_type, "{text}");
        }
    }

    #[test]
    fn another_identity_is_told_from_no_identity() {
        use UsernameError::{ClientIdMismatch, Malformed, Provisioning};
        for (text, client_id, error) in [
            ("h/d/m/?api-version=1", "d", ClientIdMismatch),
            ("h/d", "D", ClientIdMismatch),
            ("h/d1/?api-version=1", "d", ClientIdMismatch),
            ("h/d/?api-version=1", "", ClientIdMismatch),
            ("h//?api-version=1", "d", Malformed),
            ("h/d?api-version=1", "d", Malformed),
            ("h/dapi-version=1", "d", Malformed),
            ("h/d&api-version=1", "d", Malformed),
            ("h/d/m?api-version=1", "d/m", Malformed),
            ("h/d/x=y", "d", ClientIdMismatch),
            ("h/e/DeviceClientType=x", "d", ClientIdMismatch),
            ("0ne00000A0A/registrations/d/api-version=2019-03-31&ClientVersion=x", "d", Provisioning),
            ("0ne00000A0A/registrations/d/api-version=2019-03-31", "registrations", Provisioning),
            ("h/d/m/x", "d/m", Malformed),
            ("h", "d", Malformed),
            ("", "", Malformed),
            ("h/d/?model-id=%ff", "d", Malformed),
            ("h/ä/?api-version=1", "ä", UsernameError::Id(IdError::Character)),
        ] {
            assert_eq!(Username::parse(text, client_id), Err(error), "{text} {client_id}");
        }
    }

    #[test]
    fn params_are_decoded_in_order() {
        let text = "h/d/?model-id=dtmi%3Aa%3B1&api-version=1&x&DeviceClientType=a%2Fb+c";
        let username = Username::parse(text, "d").unwrap();
        let params: Vec<_> = username.params().collect();
        let expected = [("model-id", "dtmi:a;1"), ("x", ""), ("DeviceClientType", "a/b+c")];
        assert_eq!(params, expected.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(
            (username.model_id().unwrap(), username.client_type().unwrap()),
            ("dtmi:a;1".into(), "a/b+c".into())
        );
    }
}
