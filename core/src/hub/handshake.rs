//! Before the first CONNACK: whose connection is this, and may it be?

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::action::Will;
use super::{
    Action, Authentication, ClientCertificate, Credential, DeviceIdentity, DeviceKey, Hub, Place, Wait,
};
use crate::iothub::sas::{Demand, Rights, SasError, SasToken, SymmetricKey};
use crate::iothub::topic::FromDevice;
use crate::iothub::{Edition, Identity, Username};
use crate::limits::CONNECT_MAX;
use crate::packet::{ConnAck, Connect, ConnectReturnCode, Decoded, Packet, decode};
use crate::rule::Rule;
use crate::session::legality::{self, Phase, Role};
use crate::session::{Close, CloseReason};
use crate::time::{Instant, UnixTime};

/// A connection of which nothing is known yet.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) deadline: Instant,
    /// The CONNECT that waits for its verdict.
    pub(super) request: Option<Request>,
}

/// Which device the first packet of a connection names, so that its bytes can be brought to where that device's record
/// is. `None` while the packet is not whole, and for what names no device: any [`Hub`] can judge that.
#[must_use]
pub fn device_of(mut received: &[u8]) -> Option<&str> {
    match decode(&mut received, CONNECT_MAX) {
        Ok(Decoded::Packet(Packet::Connect(connect))) => {
            Identity::from_client_id(connect.client_id.as_str()).ok().map(Identity::device_id)
        }
        Ok(_) | Err(_) => None,
    }
}

/// What is kept of a CONNECT while its verdict is out.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) clean_session: bool,
    pub(super) keep_alive: u16,
    pub(super) will: Option<Will>,
    pub(super) model_id: Option<String>,
}

/// A CONNECT that is well-formed; whether it is welcome is the caller's to say, by
/// [`accept`](Hub::accept) or [`refuse`](Hub::refuse).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectRequest<'i> {
    /// The packet.
    pub connect: Connect<'i>,
}

/// A verdict in favour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The record that the connection is for.
    pub device: DeviceKey,
    /// When the connection must end, because its token does.
    pub expires: Option<UnixTime>,
    /// The edition that the user name's api-version asks for; `None` where it names none.
    pub edition: Option<Edition>,
    /// What the connection proved itself with: it ends when the registry takes that away.
    pub credential: Credential,
}

/// A verdict against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CONNECT refused with {}, {rule}: {}; {}", *.return_code as u8, .rule.says(), .rule.mend())]
pub struct Refusal {
    return_code: ConnectReturnCode,
    rule: Rule,
}

impl Refusal {
    /// Not authorized, 5: the answer to every identity that cannot be shown, whatever is wrong with it.
    #[must_use]
    pub const fn not_authorized(rule: Rule) -> Self {
        Self { return_code: ConnectReturnCode::NotAuthorized, rule }
    }

    /// Server unavailable, 3: not now. Clients come again.
    #[must_use]
    pub const fn unavailable(rule: Rule) -> Self {
        Self { return_code: ConnectReturnCode::ServerUnavailable, rule }
    }

    /// What CONNACK says.
    #[must_use]
    pub const fn return_code(self) -> ConnectReturnCode {
        self.return_code
    }

    /// The rule that was broken, for the log: the device is not told.
    #[must_use]
    pub const fn rule(self) -> Rule {
        self.rule
    }
}

impl Hub {
    /// The usual verdict: user name and client id agree, the identity is registered and enabled, and the token or the
    /// certificate is its own; and there is no more than the hub's rates and quota allow.
    ///
    /// # Errors
    /// The first rule that is broken, with return code 5; with 3 where the same device may well come later.
    pub fn authenticate(
        &mut self,
        now: Instant,
        request: &ConnectRequest<'_>,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Grant, Refusal> {
        let grant = self.judge(now, &request.connect, certificate).map_err(Refusal::not_authorized)?;
        let unix_time = self.unix_time(now);
        self.gate.connect(now, unix_time, grant.device)?;
        Ok(grant)
    }

    fn judge(
        &self,
        now: Instant,
        connect: &Connect<'_>,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Grant, Rule> {
        let client_id = connect.client_id.as_str();
        let credentials = connect.credentials.ok_or(Rule::Username)?;
        let username =
            Username::parse(credentials.username.as_str(), client_id).map_err(|error| error.rule())?;
        if !self.config.host_names.is_empty()
            && !self.config.host_names.iter().any(|name| name.eq_ignore_ascii_case(username.host()))
        {
            return Err(Rule::HostName);
        }
        let password = credentials.password.filter(|password| !password.is_empty());
        let Some(device) = self.find(client_id) else {
            self.judge_for_nobody(now, password, username.host(), client_id);
            return Err(Rule::UnknownDevice);
        };
        let identity = &self.record(device).ok_or(Rule::UnknownDevice)?.identity;
        let (expires, credential) = match (password, certificate) {
            (Some(token), _) => {
                let (expires, credential) = self.judge_token(now, token, username.host(), identity)?;
                (Some(expires), credential)
            }
            (None, Some(shown)) => (None, judge_certificate(shown, identity)?),
            (None, None) => return Err(Rule::NoCredentials),
        };
        let owner = self.device_of(identity.identity());
        if !identity.enabled || owner.is_some_and(|owner| !owner.enabled) {
            return Err(Rule::DeviceDisabled);
        }
        Ok(Grant { device, expires, edition: Edition::of(username.api_version().as_deref()), credential })
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
    ) -> Result<(UnixTime, Credential), Rule> {
        let token = core::str::from_utf8(token).map_err(|_| Rule::SasMalformed)?;
        let token = SasToken::parse(token).map_err(SasError::rule)?;
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
    ) -> Result<(UnixTime, Credential), Rule> {
        let keys: Vec<&SymmetricKey> = identity.authentication.keys().map(|(_, key)| key).collect();
        let demand = Demand {
            target: &resource(host, identity.identity()),
            keys: &keys,
            right: Rights::DEVICE_CONNECT,
            now: self.unix_time(now),
            skew: self.config.clock_skew,
        };
        let policy = |name: &str| self.config.policies.iter().find(|policy| policy.name == name);
        let verified = token.verify(&demand, policy).map_err(SasError::rule)?;
        if verified.policy.is_some() {
            return Ok((verified.expiry, Credential::Other));
        }
        let signed = |(_, key): &(Place, &SymmetricKey)| token.is_signed_with(key);
        let place = identity.authentication.keys().find(signed).map_or(Place::Primary, |(place, _)| place);
        Ok((verified.expiry, Credential::Key(place)))
    }
}

fn judge_certificate(shown: &ClientCertificate, identity: &DeviceIdentity) -> Result<Credential, Rule> {
    if identity.authentication != Authentication::CertificateAuthority {
        return identity.authentication.place_of(shown).map(Credential::Thumbprint).ok_or(Rule::Certificate);
    }
    if !shown.is_trusted {
        return Err(Rule::CertificateChain);
    }
    if shown.common_name.as_deref() != Some(identity.client_id()) {
        return Err(Rule::CertificateName);
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

impl Handshake {
    pub(super) fn new(now: Instant, time: Duration) -> Self {
        Self { deadline: now.after(time), request: None }
    }

    pub(super) fn received<'i>(
        &mut self,
        input: &mut &'i [u8],
        tx: &mut Vec<u8>,
    ) -> Result<Action<'i>, Close> {
        if self.request.is_some() {
            return Ok(Action::Wait(Wait::Verdict));
        }
        legality::check_front(Role::Hub, Phase::Opening, input)?;
        let connect = match decode(input, CONNECT_MAX) {
            Ok(Decoded::Packet(Packet::Connect(connect))) => connect,
            Ok(Decoded::Packet(_)) => return Err(Close::new(CloseReason::Violation(Rule::ConnectFirst))),
            Ok(Decoded::Incomplete { at_least }) => return Ok(Action::Wait(Wait::Read { at_least })),
            Err(error) => return Err(answer_bad_connect(error.rule(), error.at(), tx)),
        };
        self.keep(&connect).map_err(|refusal| refuse(refusal, tx))?;
        Ok(Action::Authenticate(ConnectRequest { connect }))
    }

    /// Keeps what outlives the input. A will on any topic but the identity's own telemetry topic is refused with 5.
    fn keep(&mut self, connect: &Connect<'_>) -> Result<(), Refusal> {
        let will = connect.will.map(|will| {
            let identity = Identity::from_client_id(connect.client_id.as_str())
                .map_err(|_| Refusal::not_authorized(Rule::ClientId))?;
            match FromDevice::parse(will.topic, identity) {
                Ok(FromDevice::Telemetry(bag)) => Ok(Will {
                    properties: bag.as_str().to_string(),
                    payload: Vec::from(will.message),
                    retain: will.retain,
                }),
                Ok(_) | Err(_) => Err(Refusal::not_authorized(Rule::WillTopic)),
            }
        });
        let model_id = connect
            .credentials
            .and_then(|credentials| {
                Username::parse(credentials.username.as_str(), connect.client_id.as_str()).ok()
            })
            .and_then(|username| username.model_id().map(|model| model.to_string()));
        self.request = Some(Request {
            clean_session: connect.clean_session,
            keep_alive: connect.keep_alive,
            will: will.transpose()?,
            model_id,
        });
        Ok(())
    }
}

/// The one place that says which CONNECT that cannot be read gets an answer.
fn answer_bad_connect(rule: Rule, at: Range<usize>, tx: &mut Vec<u8>) -> Close {
    let code = match rule {
        Rule::ProtocolLevel => ConnectReturnCode::UnacceptableProtocolVersion, // [MQTT-3.1.2-2]
        Rule::EmptyClientId => ConnectReturnCode::IdentifierRejected,          // [MQTT-3.1.3-8]
        _ => return Close::at(CloseReason::Malformed(rule), at),               // [MQTT-3.1.4-1]
    };
    ConnAck::Refused(code).encode(tx);
    Close::at(CloseReason::Refused(code, rule), at)
}

/// Appends the CONNACK of a refusal `[MQTT-3.2.2-5]`.
pub(super) fn refuse(refusal: Refusal, tx: &mut Vec<u8>) -> Close {
    ConnAck::Refused(refusal.return_code()).encode(tx);
    Close::new(CloseReason::Refused(refusal.return_code(), refusal.rule()))
}
