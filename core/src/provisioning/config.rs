//! What a registration is made from.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::device::Timing;
use crate::device::config::KEEP_ALIVE_LONGEST;
use crate::iothub::provisioning::{
    API_VERSION, API_VERSION_WITH_CSR, GLOBAL_HOST, RegistrationId, RegistrationIdError, Username,
    register_body, sign,
};
use crate::iothub::sas::SymmetricKey;
use crate::iothub::{CertificateRequest, is_json};
use crate::limits::DPS_MESSAGE_MAX;
use crate::packet::{Connect, Credentials, EncodeError, Text};
use crate::rule::Rule;
use crate::time::UnixTime;

/// How long a registration may take, all in all: 10 min (own choice: Azure's C SDK gives up after 1 min, the others
/// never; a fleet that is told to come later needs some).
const PATIENCE: Duration = Duration::from_secs(600);
/// From a register or poll to its answer: 30 s (Azure's Python and Node SDKs).
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// How a device shows who it is before it has a hub.
#[derive(Clone)]
pub enum Credential {
    /// Its own key: of an individual enrollment, or [derived](crate::iothub::provisioning::derive_key) from a group's.
    Key(SymmetricKey),
    /// The client certificate of the TLS connection.
    Certificate,
}

/// Without the key, which would let a reader of logs in.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(…)",
            Self::Certificate => "Certificate",
        })
    }
}

/// Which device registers, where, and with what.
#[derive(Clone, Debug)]
pub struct ProvisioningConfig {
    host: String,
    id_scope: String,
    registration_id: String,
    pub(super) credential: Credential,
    payload: Option<String>,
    request: Option<CertificateRequest>,
    api_version: Option<String>,
    client_version: String,
    keep_alive: u16,
    pub(super) timing: Timing,
    pub(super) patience: Duration,
}

/// Why no registration can be made from this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProvisioningConfigError {
    /// The registration id is none.
    #[error(transparent)]
    RegistrationId(#[from] RegistrationIdError),
    /// The id scope is empty or contains a slash.
    #[error("an id scope is what the service shows, such as 0ne00000A0A")]
    IdScope,
    /// The payload is not JSON.
    #[error("the payload is JSON")]
    Payload,
    /// Payload and certificate request together are longer than [`DPS_MESSAGE_MAX`].
    #[error("payload and certificate request are at most {DPS_MESSAGE_MAX} bytes")]
    TooLarge,
    /// The common name in the certificate request is not the registration id.
    #[error("{}", Rule::CsrName.says())]
    CommonName,
    /// The keep alive is 0 or more than 1177 s, a time is 0, or a minimum is larger than its maximum.
    #[error(
        "times are not 0, no minimum is larger than its maximum, and keep alive is at most {KEEP_ALIVE_LONGEST} s"
    )]
    Bounds,
    /// A field of CONNECT is longer than 65535 bytes or contains U+0000.
    #[error("CONNECT cannot be written: {}", .0.says())]
    Connect(Rule),
}

impl ProvisioningConfigError {
    /// The rule that stands in the way.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::RegistrationId(error) => error.rule(),
            Self::IdScope => Rule::DpsIdScope,
            Self::Payload => Rule::DpsBody,
            Self::TooLarge => Rule::DpsBodySize,
            Self::CommonName => Rule::CsrName,
            Self::Bounds => Rule::DeviceBounds,
            Self::Connect(rule) => rule,
        }
    }
}

impl ProvisioningConfig {
    /// The device `registration_id` of the instance `id_scope`, by the global host.
    #[must_use]
    pub fn new(id_scope: &str, registration_id: &str, credential: Credential) -> Self {
        Self {
            host: GLOBAL_HOST.to_string(),
            id_scope: id_scope.to_string(),
            registration_id: registration_id.to_string(),
            credential,
            payload: None,
            request: None,
            api_version: None,
            client_version: concat!("devicebound/", env!("CARGO_PKG_VERSION")).to_string(),
            keep_alive: 60,
            timing: Timing { request: ANSWER_TIME, ..Timing::default() },
            patience: PATIENCE,
        }
    }

    /// Connects to another host: a local service, or a private endpoint.
    #[must_use]
    pub fn with_host(mut self, host: &str) -> Self {
        self.host = host.to_string();
        self
    }

    /// Sends JSON along, which custom allocation sees.
    #[must_use]
    pub fn with_payload(mut self, json: &str) -> Self {
        self.payload = Some(json.to_string());
        self
    }

    /// Asks for a certificate. Its subject is CN={registration id}; the key stays with the caller.
    #[must_use]
    pub fn with_certificate_request(mut self, request: CertificateRequest) -> Self {
        self.request = Some(request);
        self
    }

    /// Sets the api-version; by default the oldest that has all that is asked for.
    #[must_use]
    pub fn with_api_version(mut self, version: &str) -> Self {
        self.api_version = Some(version.to_string());
        self
    }

    /// Sets what the device calls itself in the service's logs; by default name and version of this crate.
    #[must_use]
    pub fn with_client_version(mut self, agent: &str) -> Self {
        self.client_version = agent.to_string();
        self
    }

    /// Sets the keep alive, 1 to 1177 seconds; by default 60.
    #[must_use]
    pub const fn with_keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// Sets how long single things take: CONNACK, answers, the life of the token, the delays before a reconnection.
    #[must_use]
    pub const fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Sets how long the registration may take, all in all; by default 10 minutes.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The host to open a transport to, and the name to expect in its certificate.
    #[must_use]
    pub fn network_host(&self) -> &str {
        &self.host
    }

    /// The id scope.
    #[must_use]
    pub fn id_scope(&self) -> &str {
        &self.id_scope
    }

    /// The registration id.
    ///
    /// # Errors
    /// [`RegistrationIdError`] where it is none.
    pub fn registration_id(&self) -> Result<RegistrationId<'_>, RegistrationIdError> {
        RegistrationId::new(&self.registration_id)
    }

    pub(super) fn keep_alive(&self) -> Duration {
        Duration::from_secs(self.keep_alive.into())
    }

    /// Checks what later cannot go wrong any more.
    pub(super) fn check(&self) -> Result<(), ProvisioningConfigError> {
        self.registration_id()?;
        if self.id_scope.is_empty() || self.id_scope.contains('/') {
            return Err(ProvisioningConfigError::IdScope);
        }
        if self.payload.as_deref().is_some_and(|payload| !is_json(payload)) {
            return Err(ProvisioningConfigError::Payload);
        }
        let other = |request: &CertificateRequest| request.common_name() != self.registration_id;
        if self.request.as_ref().is_some_and(other) {
            return Err(ProvisioningConfigError::CommonName);
        }
        if self.register_body().len() > DPS_MESSAGE_MAX {
            return Err(ProvisioningConfigError::TooLarge);
        }
        let keeps_alive = (1..=KEEP_ALIVE_LONGEST).contains(&self.keep_alive);
        if !keeps_alive || !self.timing.is_sound() || self.patience.is_zero() {
            return Err(ProvisioningConfigError::Bounds);
        }
        // The longest expiry that can be written, so that no later token is longer.
        let latest = UnixTime::from_millis(u64::MAX);
        self.connect(latest, &mut Vec::new()).map_err(ProvisioningConfigError::Connect)
    }

    /// Appends CONNECT.
    pub(super) fn connect(&self, unix_time: UnixTime, tx: &mut Vec<u8>) -> Result<(), Rule> {
        let id = self.registration_id().map_err(RegistrationIdError::rule)?;
        let version = match (&self.api_version, &self.request) {
            (Some(version), _) => version,
            (None, Some(_)) => API_VERSION_WITH_CSR,
            (None, None) => API_VERSION,
        };
        let username = Username::build(&self.id_scope, id, version, &self.client_version);
        let token = match &self.credential {
            Credential::Key(key) => {
                Some(sign(&self.id_scope, id, key, unix_time.after(self.timing.token_lifetime)))
            }
            Credential::Certificate => None,
        };
        let connect = Connect {
            clean_session: true,
            keep_alive: self.keep_alive,
            client_id: Text::new(id.as_str())?,
            will: None,
            credentials: Some(Credentials {
                username: Text::new(&username)?,
                password: token.as_deref().map(str::as_bytes),
            }),
        };
        connect.encode(tx).map_err(EncodeError::rule)
    }

    /// The body of the register.
    pub(super) fn register_body(&self) -> String {
        let csr = self.request.as_ref().map(CertificateRequest::as_base64);
        match self.registration_id() {
            Ok(id) => register_body(id, self.payload.as_deref(), csr),
            Err(_) => String::new(), // check has refused it
        }
    }
}
