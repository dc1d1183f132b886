//! The user name of a CONNECT: which hub, which identity, which api-version.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt::Write as _;

use super::escape::{Encoded, Escaped};
use super::identity::{IdError, Identity};
use crate::rule::Rule;

/// `{host}/{device id}[/{module id}]/?{query}` (IoT Hub MQTT: Username).
///
/// The older forms are read as well: without the `?`, the query starting with `api-version=`, and without a query. Host
/// and ids stand raw; names and values of the query are percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Username<'a> {
    host: &'a str,
    identity: Identity<'a>,
    query: Encoded<'a>,
}

/// Why a user name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsernameError {
    /// It has none of the forms that user names have.
    #[error("a user name is {{host}}/{{device id}}[/{{module id}}]/?api-version={{version}}")]
    Malformed,
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
            return Err(mismatch(path));
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
        self.query.split(b'&').map(|pair| {
            let (name, value) = pair.pair();
            (name.decoded(), value.map_or(Cow::Borrowed(""), Encoded::decoded))
        })
    }

    /// The first value of the name `wanted`.
    fn value(self, wanted: &str) -> Option<Cow<'a, str>> {
        self.pairs().find(|(name, _)| name == wanted).map(|(_, value)| value)
    }
}

/// What is left of a user name behind its ids, as a query.
fn query(rest: &str) -> Option<&str> {
    if rest.is_empty() {
        return Some("");
    }
    let rest = rest.strip_prefix('/')?;
    match rest.strip_prefix('?') {
        Some(query) => Some(query),
        None => (rest.is_empty() || rest.starts_with("api-version=")).then_some(rest),
    }
}

/// What is wrong with a user name whose `path` does not start with the client id: it names another identity, or none.
fn mismatch(path: &str) -> UsernameError {
    let end = path.find("/?").or_else(|| path.find("/api-version=")).unwrap_or(path.len());
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
    fn another_identity_is_told_from_no_identity() {
        use UsernameError::{ClientIdMismatch, Malformed};
        for (text, client_id, error) in [
            ("h/d/m/?api-version=1", "d", ClientIdMismatch),
            ("h/d", "D", ClientIdMismatch),
            ("h/d1/?api-version=1", "d", ClientIdMismatch),
            ("h/d/?api-version=1", "", ClientIdMismatch),
            ("h//?api-version=1", "d", Malformed),
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
