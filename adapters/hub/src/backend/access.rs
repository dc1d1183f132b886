//! Who may ask for what: SAS tokens of policies and of devices, and the certificates of devices.

use std::time::Duration;

use devicebound::Rule;
use devicebound::hub::{Authentication, ClientCertificate};
use devicebound::iothub::sas::{Demand, Policy, Rights, SasToken, SymmetricKey};
use devicebound::time::UnixTime;

use super::{Backend, ClientId, Code, Error, find, not_found};
use crate::clock::unix_time;

/// Who may ask.
#[derive(Debug)]
pub struct Access {
    policies: Vec<Policy>,
    host_names: Vec<String>,
}

/// Who asks, as far as it was proved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The policy whose token it showed; `None` for a device's own key or certificate, and where no token was needed.
    pub policy: Option<String>,
    /// From when on the token is not good any more; `None` where no token was needed.
    pub expiry: Option<UnixTime>,
}

/// A caller that may not ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// The policy whose key signed the token, though it does not open what was asked for.
    pub policy: Option<String>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, policy: None }
    }
}

/// Whose request it is, for the words of a refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Service,
    Device,
}

impl Access {
    pub(super) const fn new(policies: Vec<Policy>, host_names: Vec<String>) -> Self {
        Self { policies, host_names }
    }

    /// The policy of this name.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.name == name)
    }

    /// What the hub is called: the first label of its name.
    #[must_use]
    pub fn hub_name(&self) -> &str {
        let name = self.host_names.first().and_then(|name| name.split('.').next());
        name.unwrap_or("devicebound")
    }

    /// Whether a token may be made for this host name.
    #[must_use]
    pub fn knows_host(&self, name: &str) -> bool {
        self.host_names.is_empty() || self.host_names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// Checks the token of a policy for a path of this hub (`/twins/demo`, decoded).
    ///
    /// # Errors
    /// 401002.
    pub fn check(&self, token: Option<&str>, path: &str, right: Rights) -> Result<Caller, Refused> {
        self.verify(token, path, right, &[], Side::Service)
    }

    fn verify(
        &self,
        token: Option<&str>,
        path: &str,
        right: Rights,
        keys: &[&SymmetricKey],
        side: Side,
    ) -> Result<Caller, Refused> {
        let missing = || {
            Error::new(Code::Unauthorized, "the Authorization header is missing")
                .with_fix("send a token made from the service connection string (devicebound sas --service)")
        };
        // The rules tell a device what to do; whoever shows a token of a policy is none.
        let broken = |rule: Rule| {
            let error = Error::broken(Code::Unauthorized, rule);
            match (side, rule) {
                (
                    Side::Service,
                    Rule::SasMalformed | Rule::SasScope | Rule::SasSignature | Rule::SasExpired,
                ) => error.with_fix("make a token for the service API: devicebound sas --service"),
                _ => error,
            }
        };
        let token = SasToken::parse(token.ok_or_else(missing)?).map_err(|error| broken(error.rule()))?;
        let resource = token.resource();
        let host = resource.split('/').next().unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if !self.knows_host(name) {
            return Err(broken(Rule::HostName).into());
        }
        let demand =
            Demand { target: &format!("{host}{path}"), keys, right, now: unix_time(), skew: Duration::ZERO };
        match token.verify(&demand, |name| self.policy(name)) {
            Ok(verified) => {
                let policy = verified.policy.map(|policy| policy.name.clone());
                Ok(Caller { policy, expiry: Some(verified.expiry) })
            }
            Err(error) => Err(Refused { error: broken(error.rule()), policy: self.signer(&token) }),
        }
    }

    /// The policy that a token is really signed by, whatever it is good for.
    fn signer(&self, token: &SasToken<'_>) -> Option<String> {
        let policy = self.policy(&token.key_name()?)?;
        policy.keys.iter().any(|key| token.is_signed_with(key)).then(|| policy.name.clone())
    }
}

/// What the registry knows a device by; of a device that it does not know, nothing.
#[derive(Default)]
struct Known {
    authentication: Option<Authentication>,
    enabled: bool,
}

impl Known {
    fn keys(&self) -> Vec<&SymmetricKey> {
        match &self.authentication {
            Some(Authentication::Sas { primary, secondary }) => vec![primary, secondary],
            Some(Authentication::SelfSigned { .. } | Authentication::CertificateAuthority) | None => {
                Vec::new()
            }
        }
    }

    fn is_proved_by(&self, device_id: &str, shown: &ClientCertificate) -> bool {
        let is_shown = |print: &str| {
            print.eq_ignore_ascii_case(&shown.sha1) || print.eq_ignore_ascii_case(&shown.sha256)
        };
        match &self.authentication {
            Some(Authentication::SelfSigned { primary, secondary }) => {
                is_shown(primary) || secondary.as_deref().is_some_and(is_shown)
            }
            Some(Authentication::CertificateAuthority) => {
                shown.is_trusted && shown.common_name.as_deref() == Some(device_id)
            }
            Some(Authentication::Sas { .. }) | None => false,
        }
    }
}

impl Backend {
    /// Whether who asks is this device, or may speak for devices. Of a device that is not there, or that proves itself in
    /// another way, nobody hears who may not speak for it.
    ///
    /// # Errors
    /// 401002; for who proved itself 403012 and 404001.
    pub async fn check_device(
        &self,
        device: &ClientId,
        token: Option<&str>,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Caller, Refused> {
        let known = self.at(device, |core, _, id| {
            let key = find(core, id).ok()?;
            let identity = &core.hub.record(key)?.identity;
            Some(Known { authentication: Some(identity.authentication.clone()), enabled: identity.enabled })
        });
        let known = known.await;
        let is_there = known.is_some();
        let known = known.unwrap_or_default();
        let caller = match (token, certificate) {
            (None, Some(shown)) if known.is_proved_by(device.device_id(), shown) => Caller::default(),
            _ => {
                let path = format!("/devices/{}", device.device_id());
                self.access.verify(token, &path, Rights::DEVICE_CONNECT, &known.keys(), Side::Device)?
            }
        };
        let refuse = |error| Refused { error, policy: caller.policy.clone() };
        if !is_there {
            return Err(refuse(not_found(device.as_str())));
        }
        if !known.enabled {
            return Err(refuse(
                Error::new(Code::DeviceDisabled, "the device is disabled")
                    .with_fix("devicebound device enable lets it in"),
            ));
        }
        Ok(caller)
    }
}
