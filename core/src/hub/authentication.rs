//! Judges a CONNECT: user name, token or certificate against the registry and the policies.
//!
//! A refusal tells the device its return code and nothing else. For the log it has the rule, what came and what that was
//! compared with; never a key, a signature or a whole token.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::handshake::Refusal;
use super::warnings::{Comparison, Told, quoted};
use super::{
    Authentication, ClientCertificate, ConnectRequest, Credential, DeviceIdentity, DeviceKey, Hub, KeySlot,
    LinkId,
};
use crate::iothub::sas::{Demand, Rights, SasError, SasToken, SymmetricKey};
use crate::iothub::{API_VERSION, ApiVersion, Identity, Username, UsernameError, is_published};
use crate::limits::KEEP_ALIVE_MAX;
use crate::packet::Connect;
use crate::rule::Rule;
use crate::time::{Instant, UnixTime};

/// The last second of the year 9999, beyond which Azure's clocks do not go.
const LAST_SECOND: UnixTime = UnixTime::from_secs(253_402_300_799);

/// A verdict in favour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The record that the connection is for.
    pub device: DeviceKey,
    /// When the connection must end, because its token or certificate does.
    pub expires: Option<UnixTime>,
    /// The behaviour that the api-version in the user name asks for; `None` where there is none.
    pub api_version: Option<ApiVersion>,
    /// What the connection proved itself with: it ends when the registry takes that away.
    pub credential: Credential,
}

/// What the TLS transport knows of a client. The default is for a transport that knows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsClient<'t> {
    /// The certificate that it showed.
    pub certificate: Option<&'t ClientCertificate>,
    /// The server that it asked for.
    pub server_name: ServerName<'t>,
}

/// The server name indication (SNI) of a TLS handshake (RFC 6066 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerName<'t> {
    /// The transport does not tell.
    #[default]
    Unknown,
    /// The client sent none.
    Absent,
    /// The client asked for this host.
    Name(&'t str),
}

/// A rule that a CONNECT breaks, and how.
struct Breach {
    rule: Rule,
    comparison: Option<Comparison>,
}

impl From<Rule> for Breach {
    fn from(rule: Rule) -> Self {
        Self { rule, comparison: None }
    }
}

fn breach(rule: Rule, received: impl Into<String>, expected: impl Into<String>) -> Breach {
    Breach { rule, comparison: Some(Comparison::new(received, expected)) }
}

impl From<Breach> for Refusal {
    fn from(Breach { rule, comparison }: Breach) -> Self {
        let refusal = Self::not_authorized(rule);
        comparison.into_iter().fold(refusal, Self::with)
    }
}

impl Hub {
    /// The usual verdict: user name and client id agree, the identity is registered and enabled, and the token or the
    /// certificate is its own; and there is no more than the hub's rates and quota allow. What is taken all the same comes
    /// from [`poll_warning`](Self::poll_warning).
    ///
    /// # Errors
    /// The first rule that is broken, with return code 5; with 3 where the same device may well come later.
    pub fn authenticate(
        &mut self,
        now: Instant,
        link: LinkId,
        request: &ConnectRequest<'_>,
        client: TlsClient<'_>,
    ) -> Result<Grant, Refusal> {
        let grant = self.judge(now, &request.connect, client.certificate)?;
        self.scrutinize(link, &request.connect, client.server_name)?;
        let unix_time = self.unix_time(now);
        self.admission.connect(now, unix_time, grant.device)?;
        Ok(grant)
    }

    fn judge(
        &self,
        now: Instant,
        connect: &Connect<'_>,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Grant, Breach> {
        let client_id = connect.client_id.as_str();
        let expected = || format!("{}/{}/?api-version={API_VERSION}", self.any_host(), quoted(client_id));
        let credentials =
            connect.credentials.ok_or_else(|| breach(Rule::Username, "no user name", expected()))?;
        let text = credentials.username.as_str();
        let username = Username::parse(text, client_id)
            .map_err(|error| bad_username(error, text, client_id, expected))?;
        self.judge_host(username.host())?;
        let password = credentials.password.filter(|password| !password.is_empty());
        let Some(device) = self.find(client_id) else {
            self.judge_for_nobody(now, password, username.host(), client_id);
            return Err(breach(
                Rule::UnknownDevice,
                client_id,
                "an id that the registry has, letter for letter",
            ));
        };
        let identity = &self.record(device).ok_or(Rule::UnknownDevice)?.identity;
        let (expires, credential) = match (password, certificate) {
            (Some(token), _) => {
                let (expires, credential) = self.judge_token(now, token, username.host(), identity)?;
                (Some(expires), credential)
            }
            (None, Some(shown)) => {
                let credential = judge_certificate(self.unix_time(now), shown, identity)?;
                (shown.validity.map(|(_, not_after)| not_after), credential)
            }
            (None, None) => return Err(no_credentials(identity)),
        };
        let owner = self.device_of(identity.identity());
        if let Some(disabled) = [Some(identity), owner].into_iter().flatten().find(|entry| !entry.enabled) {
            let reason = disabled.status_reason.as_deref().unwrap_or("no reason given");
            let received = format!("{} is disabled: {}", disabled.client_id(), quoted(reason));
            return Err(breach(Rule::DeviceDisabled, received, "status enabled"));
        }
        let api_version = ApiVersion::of(username.api_version().as_deref());
        Ok(Grant { device, expires, api_version, credential })
    }

    /// A name of this hub, to show what a user name looks like.
    fn any_host(&self) -> &str {
        self.config.host_names.first().map_or("{host}", String::as_str)
    }

    fn judge_host(&self, host: &str) -> Result<(), Breach> {
        let names = &self.config.host_names;
        if names.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        Err(breach(Rule::HostName, quoted(host), names.join(" or ")))
    }

    /// The device that a module belongs to; `None` for a device itself.
    fn device_of(&self, identity: Identity<'_>) -> Option<&DeviceIdentity> {
        identity.module_id()?;
        self.record(self.find(identity.device_id())?).map(|record| &record.identity)
    }

    /// Judges a token as if there were such a device, so that time does not tell whether there is.
    fn judge_for_nobody(&self, now: Instant, token: Option<&[u8]>, host: &str, client_id: &str) {
        // As long as a key of Azure's.
        let key = || SymmetricKey::from_bytes(&[0; 32]);
        let authentication = Authentication::Sas { primary: key(), secondary: key() };
        let nobody = DeviceIdentity::new(client_id, String::new(), authentication);
        if let (Ok(nobody), Some(token)) = (nobody, token) {
            let _ = core::hint::black_box(self.judge_token(now, token, host, &nobody));
        }
    }

    /// A token is signed with a key of the identity or of a policy; or it is that of the device, shown by its module
    /// (IoT Edge hub: device scope token).
    fn judge_token(
        &self,
        now: Instant,
        token: &[u8],
        host: &str,
        identity: &DeviceIdentity,
    ) -> Result<(UnixTime, Credential), Breach> {
        let token = parse_token(token)?;
        let own = self.verify(now, &token, host, identity);
        match self.device_of(identity.identity()) {
            Some(owner) if own.is_err() => match self.verify(now, &token, host, owner) {
                Ok((expiry, Credential::Key(place))) => Ok((expiry, Credential::DeviceKey(place))),
                _ => own, // what is wrong with it is told of the identity itself
            },
            _ => own,
        }
    }

    fn verify(
        &self,
        now: Instant,
        token: &SasToken<'_>,
        host: &str,
        identity: &DeviceIdentity,
    ) -> Result<(UnixTime, Credential), Breach> {
        let keys: Vec<&SymmetricKey> = identity.authentication.keys().map(|(_, key)| key).collect();
        let demand = Demand {
            target: &resource(host, identity.identity()),
            keys: &keys,
            right: Rights::DEVICE_CONNECT,
            now: self.unix_time(now),
            skew: self.config.clock_skew,
        };
        let policy = |name: &str| self.config.policies.iter().find(|policy| policy.name == name);
        let verified =
            token.verify(&demand, policy).map_err(|error| self.bad_token(error, token, &demand))?;
        if verified.policy.is_some() {
            return Ok((verified.expiry, Credential::Other));
        }
        let signed = |(_, key): &(KeySlot, &SymmetricKey)| token.is_signed_with(key);
        let place = identity.authentication.keys().find(signed).map_or(KeySlot::Primary, |(place, _)| place);
        Ok((verified.expiry, Credential::Key(place)))
    }

    #[cold]
    fn bad_token(&self, error: SasError, token: &SasToken<'_>, demand: &Demand<'_>) -> Breach {
        let (received, expected) = match error {
            SasError::Malformed(flaw) => (flaw.to_string(), TOKEN_FORM.to_string()),
            SasError::WrongScope if token.key_name().is_none() => {
                (format!("sr={}", quoted(&token.resource())), format!("sr={}", demand.target))
            }
            SasError::WrongScope => {
                let received = format!("sr={}", quoted(&token.resource()));
                (received, format!("sr={}, or what is above it", demand.target))
            }
            SasError::BadSignature => {
                let mistake = token.mistake(demand.keys, &self.config.policies);
                let other = || match demand.keys {
                    [] => "a signature, though the identity has no keys".to_string(),
                    _ => format!(
                        "a signature of another key, or of other text than sr={} and se",
                        quoted(token.sr())
                    ),
                };
                (mistake.unwrap_or_else(other), "the HMAC-SHA256 of sr, newline, se".to_string())
            }
            SasError::Forbidden => {
                let name = token.key_name().unwrap_or_default();
                let able = self.config.policies.iter().filter(|policy| policy.rights.contains(demand.right));
                let able: Vec<_> = able.map(|policy| policy.name.as_str()).collect();
                let expected = match able.as_slice() {
                    [] => "no skn: this hub has no policy with DeviceConnect".to_string(),
                    names => format!("no skn, or one of {}", names.join(", ")),
                };
                (format!("skn={}", quoted(&name)), expected)
            }
            SasError::Expired => {
                let (expiry, now) = (token.expiry(), demand.now);
                let ago = now.since(expiry).as_secs();
                let received = format!("se={} ({expiry}), {ago} s ago", expiry.as_secs());
                (received, format!("se above {} ({now}), by the clock of the hub", now.as_secs()))
            }
        };
        breach(error.rule(), received, expected)
    }

    fn odd_host(&self, connect: &Connect<'_>) -> Option<Breach> {
        let (host, names) = (username(connect)?.host(), &self.config.known_names);
        let is_known = names.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(host));
        (!is_known).then(|| breach(Rule::HostName, quoted(host), names.join(" or ")))
    }

    /// What is not refused, and might be by the real hub.
    fn scrutinize(
        &mut self,
        link: LinkId,
        connect: &Connect<'_>,
        server_name: ServerName<'_>,
    ) -> Result<(), Breach> {
        let found = [
            odd_api_version(connect),
            odd_keep_alive(connect),
            self.odd_host(connect),
            odd_server_name(connect, server_name),
            odd_encoding(connect),
            odd_expiry(connect),
        ];
        let mut told = Told::default();
        for Breach { rule, comparison } in found.into_iter().flatten() {
            let warned = self.warnings.warn(link, &mut told, rule, || comparison.clone());
            warned.map_err(|rule| Breach { rule, comparison: comparison.clone() })?;
        }
        Ok(())
    }
}

const TOKEN_FORM: &str =
    "SharedAccessSignature sr={host}%2Fdevices%2F{device id}&sig={signature}&se={seconds}";

fn bad_username(
    error: UsernameError,
    text: &str,
    client_id: &str,
    expected: impl FnOnce() -> String,
) -> Breach {
    let username = format!("user name {}", quoted(text));
    let (received, expected) = match error {
        UsernameError::Malformed | UsernameError::Provisioning => (username, expected()),
        UsernameError::ClientIdMismatch => {
            (format!("client id {}, {username}", quoted(client_id)), expected())
        }
        UsernameError::Id(error) => (format!("client id {}", quoted(client_id)), error.to_string()),
    };
    breach(error.rule(), received, expected)
}

fn no_credentials(identity: &DeviceIdentity) -> Breach {
    let expected = match &identity.authentication {
        Authentication::Sas { .. } => "a SAS token as password: the identity has keys",
        Authentication::SelfSigned { .. } => {
            "a client certificate in the TLS handshake: the identity has its thumbprint"
        }
        Authentication::CertificateAuthority => {
            "a client certificate of a trusted authority in the TLS handshake"
        }
    };
    breach(Rule::NoCredentials, "no password and no client certificate", expected)
}

/// Reads a password, of which nothing is ever quoted.
fn parse_token(password: &[u8]) -> Result<SasToken<'_>, Breach> {
    let malformed = |received: &str| breach(Rule::SasMalformed, received, TOKEN_FORM);
    let text = core::str::from_utf8(password).map_err(|_| malformed("a password that is not UTF-8"))?;
    SasToken::parse(text).map_err(|error| {
        if text.starts_with("HostName=") {
            return malformed("a connection string, from which a token is yet to be made");
        }
        if SymmetricKey::from_base64(text).is_ok() {
            return malformed(
                "base64, perhaps the key itself: a token is signed with it, and does not contain it",
            );
        }
        match error {
            SasError::Malformed(flaw) => malformed(&format!("a password that is no token: {flaw}")),
            _ => malformed("a password that is no token"),
        }
    })
}

fn judge_certificate(
    now: UnixTime,
    shown: &ClientCertificate,
    identity: &DeviceIdentity,
) -> Result<Credential, Breach> {
    let is_of_authority = identity.authentication == Authentication::CertificateAuthority;
    let place = identity.authentication.place_of(shown);
    if !is_of_authority && place.is_none() {
        let known = match &identity.authentication {
            Authentication::SelfSigned { primary, secondary } => match secondary {
                Some(secondary) => format!("thumbprint {primary} or {secondary}"),
                None => format!("thumbprint {primary}"),
            },
            _ => "a SAS token as password: the identity has keys, and no thumbprint".to_string(),
        };
        let received = format!("SHA-256 {}, SHA-1 {}", shown.sha256, shown.sha1);
        return Err(breach(Rule::Certificate, received, known));
    }
    if let Some((not_before, not_after)) = shown.validity
        && !(not_before <= now && now <= not_after)
    {
        let received = format!("a certificate that is valid from {not_before} to {not_after}");
        return Err(breach(
            Rule::CertificateTime,
            received,
            format!("valid at {now}, by the clock of the hub"),
        ));
    }
    if let Some(place) = place {
        return Ok(Credential::Thumbprint(place));
    }
    let name = shown
        .common_name
        .as_deref()
        .map_or_else(|| "no common name".to_string(), |name| format!("CN={}", quoted(name)));
    if !shown.is_trusted {
        let why = shown.distrust.as_deref().map(quoted).unwrap_or_default();
        let received = if why.is_empty() { name } else { format!("{name}: {why}") };
        return Err(breach(Rule::CertificateChain, received, "a chain to an authority that the hub trusts"));
    }
    if shown.common_name.as_deref() != Some(identity.client_id()) {
        return Err(breach(Rule::CertificateName, name, format!("CN={}", identity.client_id())));
    }
    Ok(Credential::CertificateAuthority)
}

/// What a device's SAS token must cover: `{host}/devices/{id}`, and `/modules/{id}` for a module.
fn resource(host: &str, identity: Identity<'_>) -> String {
    let mut resource = host.to_string();
    resource.push_str("/devices/");
    resource.push_str(identity.device_id());
    if let Some(module_id) = identity.module_id() {
        resource.push_str("/modules/");
        resource.push_str(module_id);
    }
    resource
}

// What a CONNECT that was judged already has of what the real hub may not take.

fn username<'i>(connect: &Connect<'i>) -> Option<Username<'i>> {
    Username::parse(connect.credentials?.username.as_str(), connect.client_id.as_str()).ok()
}

fn token<'i>(connect: &Connect<'i>) -> Option<SasToken<'i>> {
    SasToken::parse(core::str::from_utf8(connect.credentials?.password?).ok()?).ok()
}

fn odd_api_version(connect: &Connect<'_>) -> Option<Breach> {
    let received = match username(connect)?.api_version() {
        Some(version) if is_published(&version) => return None,
        Some(version) if !version.is_empty() => format!("api-version={}", quoted(&version)),
        _ => "no api-version: twin requests are answered 400".to_string(),
    };
    Some(breach(Rule::ApiVersionUnknown, received, format!("api-version={API_VERSION}")))
}

fn odd_keep_alive(connect: &Connect<'_>) -> Option<Breach> {
    let is_odd = connect.keep_alive == 0 || u64::from(connect.keep_alive) > KEEP_ALIVE_MAX.as_secs();
    let received = || format!("keep alive {} s", connect.keep_alive);
    is_odd.then(|| breach(Rule::KeepAliveRange, received(), "1 to 1177 s"))
}

fn odd_server_name(connect: &Connect<'_>, asked: ServerName<'_>) -> Option<Breach> {
    let host = username(connect)?.host();
    // SNI has no addresses (RFC 6066 §3), which only a hub on one's own machine is reached by.
    if host.parse::<core::net::IpAddr>().is_ok() {
        return None;
    }
    let received = match asked {
        ServerName::Unknown => return None,
        ServerName::Name(name) if name.eq_ignore_ascii_case(host) => return None,
        ServerName::Name(name) => format!("SNI {}", quoted(name)),
        ServerName::Absent => "no SNI".to_string(),
    };
    Some(breach(Rule::ServerName, received, format!("SNI {}, as in the user name", quoted(host))))
}

fn odd_encoding(connect: &Connect<'_>) -> Option<Breach> {
    let token = token(connect)?;
    let (received, expected) = match token.unencoded_member()? {
        "sr" => (format!("sr={}", quoted(token.sr())), "%2F in place of each slash"),
        _ => ("a sig with raw +, / or =".to_string(), "%2B, %2F and %3D in their place"),
    };
    Some(breach(Rule::SasEncoding, received, expected))
}

fn odd_expiry(connect: &Connect<'_>) -> Option<Breach> {
    let expiry = token(connect)?.expiry();
    let received = || format!("se={}", expiry.as_secs());
    let expected = || format!("se={}, if those are milliseconds", expiry.as_secs() / 1000);
    (expiry > LAST_SECOND).then(|| breach(Rule::SasExpiryRange, received(), expected()))
}
