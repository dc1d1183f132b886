//! Who may use which node: tokens that were put to `$cbs`, or shown in SASL PLAIN.
//!
//! Service SDKs sign with the decoded key of a policy, Event Hubs clients with its text: a token is good either way.

use devicebound::Rule;
use devicebound::iothub::sas::{Rights, SasToken, SymmetricKey};
use devicebound::time::UnixTime;
use percent_encoding::percent_decode_str;

use super::Amqp;

/// Tokens of one connection (own limit: C multiplexes devices, Node puts one for each partition).
const GRANTS_MAX: usize = 1024;
/// Longest token (own limit: those of Entra have two kilobytes).
const TOKEN_MAX: usize = 4096;

/// What the tokens of a connection open.
#[derive(Debug, Default)]
pub(super) struct Grants(Vec<Grant>);

/// One token that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// What it opens, without the host, in lower case; empty: all.
    path: String,
    pub(super) policy: String,
    rights: Rights,
    pub(super) expiry: UnixTime,
}

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) Rule);

impl Grants {
    /// Adds a token; one for the same path gives way.
    pub(super) fn add(&mut self, grant: Grant) -> bool {
        self.0.retain(|old| old.path != grant.path);
        let has_room = self.0.len() < GRANTS_MAX;
        if has_room {
            self.0.push(grant);
        }
        has_room
    }

    /// Whether a node may be used: its path in lower case.
    pub(super) fn allow(&self, path: &str, right: Rights, now: UnixTime) -> bool {
        self.0.iter().any(|grant| now < grant.expiry && grant.rights.contains(right) && grant.covers(path))
    }

    /// When the next token runs out.
    pub(super) fn next_expiry(&self) -> Option<UnixTime> {
        self.0.iter().map(|grant| grant.expiry).min()
    }

    /// Drops what has run out.
    pub(super) fn expire(&mut self, now: UnixTime) {
        self.0.retain(|grant| now < grant.expiry);
    }
}

impl Grant {
    fn covers(&self, path: &str) -> bool {
        // Node puts a token for `{hub}/$management`, and then attaches `$management`.
        let is_own_management = path == "$management";
        is_own_management
            || self.path.is_empty()
            || path.strip_prefix(&*self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Amqp {
    /// Checks a token for `audience`: the name of put-token, or empty for what the token itself says.
    pub(super) fn check_token(&self, token: &str, audience: &str, now: UnixTime) -> Result<Grant, Refused> {
        if token.len() > TOKEN_MAX {
            return Err(Refused(Rule::SasMalformed));
        }
        let token = SasToken::parse(token).map_err(|error| Refused(error.rule()))?;
        let resource = token.resource();
        let scope = split(&resource);
        let wanted = if audience.is_empty() { split(&resource) } else { split(audience) };
        if !self.backend.access.knows_host(&scope.0) {
            return Err(Refused(Rule::HostName));
        }
        let name = token.key_name().ok_or(Refused(Rule::SasPolicy))?;
        let policy = self.backend.access.policy(&name).ok_or(Refused(Rule::SasPolicy))?;
        // Every key both ways, so that time does not tell which one it was.
        let as_text = |key: &SymmetricKey| SymmetricKey::from_bytes(key.to_base64().as_bytes());
        let is_signed = policy.keys.iter().fold(false, |found, key| {
            found | token.is_signed_with(key) | token.is_signed_with(&as_text(key))
        });
        if !is_signed {
            return Err(Refused(Rule::SasSignature));
        }
        let grant = Grant {
            path: wanted.1,
            policy: policy.name.clone(),
            rights: policy.rights,
            expiry: token.expiry(),
        };
        let is_covered = Grant { path: scope.1, ..grant.clone() }.covers(&grant.path);
        if !scope.0.eq_ignore_ascii_case(&wanted.0) || !is_covered {
            return Err(Refused(Rule::SasScope));
        }
        if now >= grant.expiry {
            return Err(Refused(Rule::SasExpired));
        }
        Ok(grant)
    }
}

/// Host and path of an audience, both in lower case: any scheme, a port, percent-encoding once or twice.
fn split(audience: &str) -> (String, String) {
    let once = percent_decode_str(audience).decode_utf8_lossy().into_owned();
    let decoded = percent_decode_str(&once).decode_utf8_lossy().to_lowercase();
    let rest = decoded.split_once("://").map_or(&*decoded, |(_, rest)| rest);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) => host,
        _ => authority,
    };
    (host.to_owned(), path.trim_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audiences_of_every_client_come_to_the_same_host_and_path() {
        for (audience, path) in [
            ("localhost", ""),
            ("https://localhost", ""),
            ("sb://LOCALHOST:5671/devicebound/", "devicebound"),
            ("sb%3a%2f%2flocalhost%2fdevicebound", "devicebound"),
            ("localhost%2Fdevices%2Fdemo", "devices/demo"),
            (
                "amqps://localhost/devicebound/ConsumerGroups/$Default/Partitions/0",
                "devicebound/consumergroups/$default/partitions/0",
            ),
        ] {
            assert_eq!(split(audience), ("localhost".to_owned(), path.to_owned()), "{audience}");
        }
    }

    #[test]
    fn a_token_opens_what_is_below_it_until_it_expires() {
        let mut grants = Grants::default();
        let service = Rights::SERVICE_CONNECT;
        let grant = |path: &str, expiry| Grant {
            path: path.to_owned(),
            policy: "p".to_owned(),
            rights: service,
            expiry: UnixTime::from_secs(expiry),
        };
        assert!(grants.add(grant("devicebound", 100)));
        let now = UnixTime::from_secs(50);
        assert!(grants.allow("devicebound/consumergroups/a/partitions/0", service, now));
        assert!(grants.allow("$management", service, now));
        assert!(!grants.allow("deviceboundx", service, now));
        assert!(!grants.allow("messages/devicebound", service, now));
        assert!(!grants.allow("devicebound", Rights::REGISTRY_READ, now));
        assert!(!grants.allow("devicebound", service, UnixTime::from_secs(100)));
        assert!(grants.add(grant("devicebound", 200)));
        assert_eq!(grants.next_expiry(), Some(UnixTime::from_secs(200)), "the renewed one counts alone");
    }
}
