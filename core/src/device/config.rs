//! What a device is made from.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::message::TelemetryTopic;
use super::{Message, RequestPolicy, SendError};
use crate::iothub::sas::{self, SasToken, SymmetricKey};
use crate::iothub::{self, API_VERSION, ConnectionString, ConnectionStringError, Identity, Username};
use crate::limits::{IN_FLIGHT_MAX, KEEP_ALIVE_MAX, MAILBOX_MAX, METHOD_PAYLOAD_MAX, TEXT_MAX};
use crate::packet::{Connect, Credentials, EncodeError, QoS, Text, TopicName, Will};
use crate::rule::Rule;
use crate::time::UnixTime;

/// Who the device is, where its hub is, and how it behaves.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    host_name: String,
    gateway_host_name: Option<String>,
    device_id: String,
    module_id: Option<String>,
    credential: Credential,
    /// The policy that the key is of; `None` for the identity's own.
    key_name: Option<String>,
    keep_alive: u16,
    clean_session: bool,
    will: Option<OwnWill>,
    model_id: Option<String>,
    client_type: String,
    api_version: String,
    pub(super) outbox: OutboxPolicy,
    pub(super) requests: RequestPolicy,
    pub(super) limits: Limits,
    pub(super) timing: Timing,
}

/// How the device shows who it is.
#[derive(Clone)]
pub enum Credential {
    /// A key of the device; SAS tokens are made from it, and renewed in time.
    Key(SymmetricKey),
    /// A SAS token that somebody else made, for example a TPM with
    /// [`UnsignedToken`](crate::iothub::sas::UnsignedToken). It is not renewed:
    /// [`Action::TokenExpires`](super::Action::TokenExpires) says when another is needed, and when it has expired the hub cuts
    /// the connection, unless [`Device::replace_credential`](super::Device::replace_credential) has brought that.
    Token(String),
    /// The client certificate of the TLS connection; no password is sent.
    Certificate,
}

/// How long things take. Every field can be changed; the defaults are those of [`Timing::default`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From `Opened` to CONNACK: 30 s (C SDK).
    pub connack: Duration,
    /// From PINGREQ to any sign of life: 30 s (.NET SDK).
    pub ping_response: Duration,
    /// From a twin request, SUBSCRIBE or UNSUBSCRIBE to its answer: 60 s (.NET and C SDK). The time in which a request waits
    /// for a connection counts.
    pub request: Duration,
    /// From a telemetry message at QoS 1 to its PUBACK, on one connection: 60 s (C SDK). Then the connection is replaced, and
    /// the message sent again.
    pub puback: Duration,
    /// Life of a SAS token that the device makes: 60 min (all SDKs).
    pub token_lifetime: Duration,
    /// How long before the end of a token that the application gave it is told so: 10 min (own choice).
    pub token_warning: Duration,
    /// How long a renewal of the token waits for what is in flight: 30 s (own choice; the hub leaves ten minutes after
    /// expiry, and the renewal starts nine minutes before it).
    pub renewal_patience: Duration,
    /// Shortest time from the end of a connection to the next: 1 s (embedded C SDK).
    pub reconnect_min: Duration,
    /// Longest such time, and how long a connection has to last to count as good: 60 s (Node SDK when throttled).
    pub reconnect_max: Duration,
    /// Shortest such time after the hub refused the credentials or the identity: 2 min (own choice: a person has to
    /// fix that, and a locked-out fleet must not burden the hub).
    pub refused_min: Duration,
    /// Longest such time after a refusal: 10 min (own choice).
    pub refused_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connack: Duration::from_secs(30),
            ping_response: Duration::from_secs(30),
            request: Duration::from_secs(60),
            puback: Duration::from_secs(60),
            token_lifetime: Duration::from_secs(3600),
            token_warning: Duration::from_secs(600),
            renewal_patience: Duration::from_secs(30),
            reconnect_min: Duration::from_secs(1),
            reconnect_max: Duration::from_secs(60),
            refused_min: Duration::from_secs(120),
            refused_max: Duration::from_secs(600),
        }
    }
}

/// What happens to telemetry when the outbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboxPolicy {
    /// The new message is not taken: [`SendError::OutboxFull`].
    #[default]
    Reject,
    /// The oldest messages that are not in flight make room, as many as are needed; their fate is told by
    /// [`Action::Dropped`](super::Action::Dropped). Where not even that makes enough room, the new message is not taken.
    DropOldest,
}

/// How much the device holds. Every field can be changed; the defaults are those of [`Limits::default`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Telemetry messages that wait or are not acknowledged: 1024.
    pub outbox_messages: usize,
    /// Their bytes: 1 MiB. The memory behind them is at most twice as much.
    pub outbox_bytes: usize,
    /// Telemetry messages that are sent before the first of them is acknowledged: 16, where the hub stops reading.
    pub window: usize,
    /// Cloud messages that the application has not completed: 50, the hub's own bound. One more ends the connection.
    pub deliveries: usize,
    /// Twin requests, and SUBSCRIBEs or UNSUBSCRIBEs, without answer: 16 of each. While there is no connection, and with
    /// [`RequestPolicy::Resend`] always, a request of at most 256 KB is kept for each.
    pub requests: usize,
    /// Direct methods without answer: 16. One more is answered with 429.
    pub calls: usize,
    /// Largest remaining length of a packet from the hub: a direct method of 128 KB with its topic.
    pub packet: usize,
    /// Bytes in `tx` from which on telemetry waits in the outbox: 64 KiB.
    pub tx_high_water: usize,
    /// Bytes in `tx` at which the connection is given up: 16 MiB. A hub that sends and never reads could otherwise
    /// make the acknowledgements grow without end. Requests and answers to methods at their limits need 6 MiB.
    pub tx_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            outbox_messages: 1024,
            outbox_bytes: 1 << 20,
            window: IN_FLIGHT_MAX,
            deliveries: MAILBOX_MAX,
            requests: 16,
            calls: 16,
            packet: METHOD_PAYLOAD_MAX.saturating_add(TEXT_MAX).saturating_add(4),
            tx_high_water: 64 << 10,
            tx_max: 16 << 20,
        }
    }
}

/// Why no device can be made from this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The connection string is wrong.
    #[error(transparent)]
    ConnectionString(#[from] ConnectionStringError),
    /// The connection string is one of a service: it has no device id.
    #[error("the connection string has no DeviceId; take the device's own from the registry")]
    NotADevice,
    /// The device id or the module id contains `#` or `+`, which no topic name can.
    #[error(
        "the id contains # or +, so that it cannot be used over MQTT; register the device with another id"
    )]
    Wildcard,
    /// The SAS token is no SAS token.
    #[error("the SAS token is malformed; make one with: devicebound sas")]
    Token,
    /// The keep alive is 0, or more than 1177 s.
    #[error(
        "keep alive is between 1 and 1177 seconds: the hub cuts after one and a half times as long, 1767 s at most"
    )]
    KeepAlive,
    /// The will is not a message that the hub would take.
    #[error("the will cannot be sent: {0}")]
    Will(SendError),
    /// The will asks for QoS 2, which the hub does not speak.
    #[error("the will asks for QoS 2; use QoS 1")]
    WillQos,
    /// A field of CONNECT is longer than 65535 bytes or contains U+0000.
    #[error("CONNECT cannot be written: {}", .0.says())]
    Connect(Rule),
    /// A limit is 0, or the limits or times contradict each other.
    #[error("limits and times are not 0, and no minimum is larger than its maximum")]
    Bounds,
}

impl ConfigError {
    /// The rule that stands in the way.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::ConnectionString(error) => error.rule(),
            Self::NotADevice => Rule::ConnectionString,
            Self::Wildcard => Rule::WildcardInTopic,
            Self::Token => Rule::SasMalformed,
            Self::KeepAlive => Rule::KeepAlive,
            Self::Will(error) => error.rule(),
            Self::WillQos => Rule::PublishQos2,
            Self::Connect(rule) => rule,
            Self::Bounds => Rule::DeviceBounds,
        }
    }
}

/// How long the token of a connection is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenLife {
    /// There is no token.
    None,
    /// The device made it, and makes another after this time.
    Own { renew_after: Duration },
    /// The application gave it, and so much of its life is left.
    Given { left: Duration },
}

#[derive(Clone, Debug)]
struct OwnWill {
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
}

/// Share of a token's life after which it is renewed, in percent (.NET and Java SDK).
const RENEWAL_PERCENT: u32 = 85;
/// Largest keep alive that the hub's cap of 1767 s leaves room for, in seconds (IoT Hub MQTT).
pub(crate) const KEEP_ALIVE_LONGEST: u16 = 1177;
const _: () = assert!(KEEP_ALIVE_LONGEST as u64 * 3 / 2 <= KEEP_ALIVE_MAX.as_secs());

impl DeviceConfig {
    /// A device of the hub `host_name`, with keep alive 60 s (Python SDK) and a session that outlives the connection.
    #[must_use]
    pub fn new(host_name: &str, identity: Identity<'_>, credential: Credential) -> Self {
        Self {
            host_name: host_name.to_string(),
            gateway_host_name: None,
            device_id: identity.device_id().to_string(),
            module_id: identity.module_id().map(ToString::to_string),
            credential,
            key_name: None,
            keep_alive: 60,
            clean_session: false,
            will: None,
            model_id: None,
            client_type: concat!("devicebound/", env!("CARGO_PKG_VERSION")).to_string(),
            api_version: API_VERSION.to_string(),
            outbox: OutboxPolicy::default(),
            requests: RequestPolicy::default(),
            limits: Limits::default(),
            timing: Timing::default(),
        }
    }

    /// The device that a connection string names.
    ///
    /// # Errors
    /// [`ConfigError::ConnectionString`] or [`ConfigError::NotADevice`].
    pub fn from_connection_string(text: &str) -> Result<Self, ConfigError> {
        let parsed = ConnectionString::parse(text)?;
        let identity = parsed.identity().ok_or(ConfigError::NotADevice)?;
        let credential = match parsed.credential() {
            iothub::Credential::Key(key) => Credential::Key(key.clone()),
            iothub::Credential::Signature(token) => Credential::Token(token.clone()),
            iothub::Credential::X509 => Credential::Certificate,
        };
        let mut config = Self::new(parsed.host_name(), identity, credential);
        config.gateway_host_name = parsed.gateway_host_name().map(ToString::to_string);
        config.key_name = parsed.key_name().map(ToString::to_string);
        Ok(config)
    }

    /// Connects to an Edge gateway in place of the hub. User name and token still name the hub.
    #[must_use]
    pub fn with_gateway(mut self, host_name: &str) -> Self {
        self.gateway_host_name = Some(host_name.to_string());
        self
    }

    /// Sets the keep alive, 1 to 1177 seconds. A dead link is found within this and [`Timing::ping_response`].
    #[must_use]
    pub const fn with_keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// Sets whether the session starts empty with every connection: subscriptions are made anew, and the hub sends
    /// no cloud message again that it sent on an earlier connection until its lock has ended.
    #[must_use]
    pub const fn with_clean_session(mut self, clean: bool) -> Self {
        self.clean_session = clean;
        self
    }

    /// Sets the telemetry message that the hub publishes for the device when the connection is lost, at QoS 0 or 1.
    ///
    /// # Errors
    /// [`ConfigError::Will`], [`ConfigError::WillQos`] or [`ConfigError::Wildcard`].
    pub fn with_will(mut self, message: &Message<'_>, qos: QoS) -> Result<Self, ConfigError> {
        if qos == QoS::ExactlyOnce {
            return Err(ConfigError::WillQos);
        }
        let mut topic = self.telemetry_topic()?;
        let topic = message.topic(&mut topic).map_err(ConfigError::Will)?.to_string();
        self.will = Some(OwnWill { topic, payload: message.payload.to_vec(), qos });
        Ok(self)
    }

    /// Sets the model that the device implements, a DTMI (IoT Plug and Play).
    #[must_use]
    pub fn with_model_id(mut self, dtmi: &str) -> Self {
        self.model_id = Some(dtmi.to_string());
        self
    }

    /// Sets the `DeviceClientType`, which the hub's logs show; by default name and version of this crate.
    #[must_use]
    pub fn with_client_type(mut self, client_type: &str) -> Self {
        self.client_type = client_type.to_string();
        self
    }

    /// Sets the api-version, and with it the [`ApiVersion`](crate::iothub::ApiVersion) that the hub speaks; by default
    /// [`API_VERSION`].
    #[must_use]
    pub fn with_api_version(mut self, version: &str) -> Self {
        self.api_version = version.to_string();
        self
    }

    /// Sets what happens to telemetry when the outbox is full; by default it is not taken.
    #[must_use]
    pub const fn with_outbox(mut self, policy: OutboxPolicy) -> Self {
        self.outbox = policy;
        self
    }

    /// Sets what becomes of open requests when the connection ends; by default they fail.
    #[must_use]
    pub const fn with_requests(mut self, policy: RequestPolicy) -> Self {
        self.requests = policy;
        self
    }

    /// Sets how much the device holds.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how long things take.
    #[must_use]
    pub const fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// The host to open a transport to, and the name to expect in its certificate: the gateway, else the hub.
    #[must_use]
    pub fn network_host(&self) -> &str {
        self.gateway_host_name.as_deref().unwrap_or(&self.host_name)
    }

    /// The hub.
    #[must_use]
    pub fn host_name(&self) -> &str {
        &self.host_name
    }

    /// How the device shows who it is.
    #[must_use]
    pub const fn credential(&self) -> &Credential {
        &self.credential
    }

    /// The same with another credential.
    pub(super) fn with_credential(mut self, credential: Credential) -> Self {
        self.credential = credential;
        self
    }

    /// Keep alive.
    pub(super) fn keep_alive(&self) -> Duration {
        Duration::from_secs(self.keep_alive.into())
    }

    /// The device, or the module.
    #[must_use]
    pub fn identity(&self) -> Identity<'_> {
        Identity::of_checked_ids(&self.device_id, self.module_id.as_deref()) // they come out of an Identity
    }

    /// What its telemetry is published to.
    pub(super) fn telemetry_topic(&self) -> Result<TelemetryTopic, ConfigError> {
        TelemetryTopic::of(self.identity()).map_err(|_| ConfigError::Wildcard)
    }

    /// Checks what later cannot go wrong any more.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.telemetry_topic()?;
        if !(1..=KEEP_ALIVE_LONGEST).contains(&self.keep_alive) {
            return Err(ConfigError::KeepAlive);
        }
        if let Credential::Token(token) = &self.credential {
            SasToken::parse(token).map_err(|_| ConfigError::Token)?;
        }
        if !self.limits.are_sound() || !self.timing.is_sound() {
            return Err(ConfigError::Bounds);
        }
        // The longest expiry that can be written, so that no later token is longer.
        let latest = UnixTime::from_millis(u64::MAX);
        self.connect(latest, &mut Vec::new()).map(drop).map_err(ConfigError::Connect)
    }

    /// Appends CONNECT, and says how long its token is good for.
    pub(super) fn connect(&self, unix_time: UnixTime, tx: &mut Vec<u8>) -> Result<TokenLife, Rule> {
        let identity = self.identity();
        let client_id = identity.to_string();
        let mut params = Vec::with_capacity(2);
        params.push(("DeviceClientType", self.client_type.as_str()));
        params.extend(self.model_id.as_deref().map(|dtmi| ("model-id", dtmi)));
        let username = Username::build(&self.host_name, identity, Some(&self.api_version), params);
        let own_token;
        let (password, token) = match &self.credential {
            Credential::Key(key) => {
                let life = self.timing.token_lifetime;
                own_token = sas::sign(&self.resource(), key, unix_time.after(life), self.key_name.as_deref());
                let renew_after = life.saturating_mul(RENEWAL_PERCENT).checked_div(100).unwrap_or(life);
                (Some(&own_token), TokenLife::Own { renew_after })
            }
            Credential::Token(token) => {
                let expiry = SasToken::parse(token).map_or(unix_time, |parsed| parsed.expiry());
                (Some(token), TokenLife::Given { left: expiry.since(unix_time) })
            }
            Credential::Certificate => (None, TokenLife::None),
        };
        let connect = Connect {
            clean_session: self.clean_session,
            keep_alive: self.keep_alive,
            client_id: Text::new(&client_id)?,
            will: self.will.as_ref().and_then(OwnWill::borrow),
            credentials: Some(Credentials {
                username: Text::new(&username)?,
                password: password.map(|text| text.as_bytes()),
            }),
        };
        connect.encode(tx).map_err(EncodeError::rule)?;
        Ok(token)
    }

    /// What a token of the device is good for (IoT Hub SAS tokens): to be given to
    /// [`UnsignedToken`](crate::iothub::sas::UnsignedToken).
    #[must_use]
    pub fn resource(&self) -> String {
        let mut resource = alloc::format!("{}/devices/{}", self.host_name, self.device_id);
        if let Some(module_id) = &self.module_id {
            resource.push_str("/modules/");
            resource.push_str(module_id);
        }
        resource
    }
}

impl OwnWill {
    fn borrow(&self) -> Option<Will<'_>> {
        let topic = TopicName::new(&self.topic).ok()?;
        Some(Will { topic, message: &self.payload, qos: self.qos, retain: false })
    }
}

impl Limits {
    fn are_sound(&self) -> bool {
        let Self { outbox_messages, outbox_bytes, window, deliveries, requests, calls, packet, .. } = *self;
        let least =
            [outbox_messages, outbox_bytes, window, deliveries, requests, calls, packet].into_iter().min();
        // Packet ids must not run out: 65535 of them for the window and for SUBSCRIBEs.
        least > Some(0)
            && (1..self.tx_max).contains(&self.tx_high_water)
            && window <= 32_768
            && requests <= 16_384
    }
}

impl Timing {
    pub(crate) fn is_sound(&self) -> bool {
        let Self { connack, ping_response, request, puback, token_lifetime, reconnect_min, .. } = *self;
        let least =
            [connack, ping_response, request, puback, token_lifetime, reconnect_min].into_iter().min();
        least > Some(Duration::ZERO)
            && self.reconnect_min <= self.reconnect_max
            && self.refused_min <= self.refused_max
    }
}

/// Without key and token, which would let a reader of logs in.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(…)",
            Self::Token(_) => "Token(…)",
            Self::Certificate => "Certificate",
        })
    }
}
