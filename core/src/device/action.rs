//! What happens to a device, and what it wants done.

use alloc::borrow::Cow;
use core::fmt;
use core::time::Duration;

use super::{CallId, Delivery, DropReason, RequestFailure, RequestId, Ticket};
use crate::iothub::{PropertyBag, Subscription, SystemProperty};
use crate::time::{Instant, UnixTime};

/// What happened to the machine.
#[derive(Debug)]
pub enum Event<'r, 'i> {
    /// A transport to [`DeviceConfig::network_host`](super::DeviceConfig::network_host) is open: TLS, or WebSocket
    /// over TLS. What is left in `tx` of an earlier one is dropped.
    Opened {
        /// Any random number, a new one for each connection. It spreads the reconnections of a fleet.
        jitter: u32,
        /// The wall clock; SAS tokens are made from it.
        unix_time: UnixTime,
    },
    /// These bytes were received and not taken yet. At most one packet is taken off the front. The input may be empty:
    /// then the caller just asks what is to be done next.
    Received(&'r mut &'i [u8]),
    /// The transport is gone, or could not be opened. Reported after what had arrived was pulled.
    Closed,
    /// The deadline of [`Device::poll_timeout`](super::Device::poll_timeout) has come. Reported after what had arrived
    /// was pulled.
    TimedOut,
}

/// What the machine wants done.
///
/// An action borrows from the received bytes and from nothing else, so the machine may be called while it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<'i> {
    /// There is nothing to tell: do I/O, then come again.
    Wait(Wait),
    /// A packet was taken that the application has no part in. Pull on.
    Handled,
    /// CONNECT was accepted: the device is online.
    Connected {
        /// Whether the hub had kept the session, with its subscriptions and what it did not see acknowledged.
        session_present: bool,
    },
    /// The hub took a subscription that the application asked for.
    Subscribed(Subscription),
    /// The hub refused a subscription. It is not asked for again until the application does.
    SubscriptionRefused(Subscription),
    /// The hub gave up a subscription that the application did not want any more.
    Unsubscribed(Subscription),
    /// A cloud-to-device message, or a message to a module's input. The hub keeps it until
    /// [`Device::complete`](super::Device::complete) says that the application is done.
    Deliver(CloudMessage<'i>, Delivery),
    /// The twin, since the application observes its desired properties: at the start, after each connection, and
    /// whenever a change was missed. It takes the place of all that was known before. With
    /// `Device::follow_desired` it comes once, and what was missed as a change.
    Twin(Twin<'i>),
    /// The next change of the desired properties, after [`Twin`](Self::Twin) or the change before.
    Desired {
        /// The version that the desired properties have by this change, one more than before.
        version: u64,
        /// JSON: the changed properties, `null` for a removed one, and `$version`.
        patch: Cow<'i, [u8]>,
    },
    /// Somebody calls a direct method; the answer is due by [`Device::respond`](super::Device::respond).
    Invoke(MethodCall<'i>),
    /// The answer to a request.
    Answered(Answer<'i>),
    /// A request will not be answered.
    Failed(RequestId, RequestFailure),
    /// The hub has this telemetry message; the device keeps it no longer.
    Acknowledged(Ticket),
    /// It is time to renew the device's certificate, as planned with `Device::plan_certificate_renewal`.
    #[cfg(feature = "provisioning")]
    CertificateDue,
    /// The hub has issued the certificate that was asked for; the one that the device has stays good, too.
    #[cfg(feature = "provisioning")]
    CertificateIssued(alloc::boxed::Box<crate::iothub::CertificateChain>),
    /// There is no newer certificate.
    #[cfg(feature = "provisioning")]
    CertificateFailed(CertificateFailure),
    /// The SAS token that the application gave ends after this time: give another by
    /// [`Device::replace_credential`](super::Device::replace_credential). Told once for each connection,
    /// [`Timing::token_warning`](super::Timing::token_warning) before; the tokens that the machine makes are renewed by it.
    TokenExpires {
        /// Time that is left; zero where there is none.
        after: Duration,
    },
    /// This telemetry message was given up. The hub may have it, where it was sent on an earlier connection.
    Dropped(Ticket, DropReason),
}

/// In words, for logs: sizes of payloads, not what is in them.
/// Why there is no newer certificate. The one that the device has stays good.
#[cfg(feature = "provisioning")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFailure {
    /// The hub refused: the request, or that there is one already, or it was busy.
    #[error("the hub refused the certificate with {status}, error {}: {}", .error.code, .error.message)]
    Refused {
        /// As in HTTP; 429 and 503 may do better later.
        status: u16,
        /// What the body said.
        error: crate::iothub::provisioning::ErrorBody,
    },
    /// The last answer did not come in time.
    #[error("the hub did not issue the certificate in time; ask again")]
    TimedOut,
    /// What was issued is no certificate.
    #[error("the hub's answer holds no certificates")]
    Malformed,
}

impl fmt::Display for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait(wait) => wait.fmt(f),
            Self::Handled => f.write_str("took a packet"),
            Self::Connected { session_present: true } => f.write_str("connected, session present"),
            Self::Connected { session_present: false } => f.write_str("connected, new session"),
            Self::Subscribed(subscription) => write!(f, "subscribed to {}", subscription.name()),
            Self::SubscriptionRefused(subscription) => {
                write!(f, "the hub refused the subscription to {}", subscription.name())
            }
            Self::Unsubscribed(subscription) => write!(f, "unsubscribed from {}", subscription.name()),
            Self::Deliver(CloudMessage { input: None, payload, .. }, _) => {
                write!(f, "cloud-to-device message of {} bytes", payload.len())
            }
            Self::Deliver(CloudMessage { input: Some(input), payload, .. }, _) => {
                write!(f, "message to input {input} of {} bytes", payload.len())
            }
            Self::Twin(twin) => {
                write!(
                    f,
                    "twin of {} bytes, desired properties at version {}",
                    twin.document.len(),
                    twin.version
                )
            }
            Self::Desired { version, patch } => {
                write!(f, "desired properties changed to version {version} by {} bytes", patch.len())
            }
            Self::Invoke(call) => {
                write!(f, "direct method {} called with {} bytes", call.name, call.payload.len())
            }
            Self::Answered(Answer { request, status, version: Some(version), .. }) => {
                write!(
                    f,
                    "request {request} answered with {status}, reported properties at version {version}"
                )
            }
            Self::Answered(Answer { request, status, body, .. }) => {
                write!(f, "request {request} answered with {status} and {} bytes", body.len())
            }
            Self::Failed(request, failure) => write!(f, "request {request} failed: {failure}"),
            #[cfg(feature = "provisioning")]
            Self::CertificateDue => f.write_str("the certificate is to be renewed"),
            #[cfg(feature = "provisioning")]
            Self::CertificateIssued(chain) => {
                write!(f, "certificate issued, good until {}", chain.not_after())
            }
            #[cfg(feature = "provisioning")]
            Self::CertificateFailed(failure) => write!(f, "no newer certificate: {failure}"),
            Self::Acknowledged(ticket) => write!(f, "telemetry message {ticket} acknowledged"),
            Self::TokenExpires { after } => {
                write!(f, "the SAS token expires in {} s; replace it", after.as_secs())
            }
            Self::Dropped(ticket, reason) => write!(f, "telemetry message {ticket} dropped: {reason}"),
        }
    }
}

/// What the machine waits for. Whatever it is, the caller also waits for the deadline of
/// [`Device::poll_timeout`](super::Device::poll_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Write what is in `tx`, and read.
    Read {
        /// How many bytes have to come before it is worth pulling again.
        at_least: usize,
    },
    /// More is to be sent than `tx` shall hold at a time. Write it, reading meanwhile, and pull again when it is empty
    /// or something has come.
    Flush,
    /// Open a transport after this time, and report `Opened`, or `Closed` where that fails.
    Connect {
        /// How long to wait; zero means now.
        after: Duration,
    },
    /// [`Device::disconnect`](super::Device::disconnect) was called. Nothing happens until
    /// [`Device::connect`](super::Device::connect) is, or the caller opens a transport of its own accord.
    Nothing,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { at_least } => write!(f, "waits for {at_least} bytes or more"),
            Self::Flush => f.write_str("waits for what is to be written"),
            Self::Connect { after } => {
                write!(f, "waits for a transport, to be opened in {} ms", after.as_millis())
            }
            Self::Nothing => f.write_str("disconnected by the application"),
        }
    }
}

/// A cloud-to-device message, or a message to a module's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudMessage<'i> {
    /// The input that the message came by; `None` for a cloud-to-device message.
    pub input: Option<Cow<'i, str>>,
    /// System and application properties, in order.
    pub properties: PropertyBag<'i>,
    /// The body.
    pub payload: &'i [u8],
    /// Whether the hub may have sent it before `[MQTT-3.3.1-1]`.
    pub dup: bool,
}

impl<'i> CloudMessage<'i> {
    /// A system property, decoded.
    #[must_use]
    pub fn system(&self, property: SystemProperty) -> Option<Cow<'i, str>> {
        let mut properties = self.properties.iter();
        properties.find(|(name, _)| name == property.wire()).and_then(|(_, value)| value)
    }

    /// The application properties, decoded, in order. A name without `=` has no value.
    pub fn application(&self) -> impl Iterator<Item = (Cow<'i, str>, Option<Cow<'i, str>>)> + use<'i> {
        self.properties.iter().filter(|(name, _)| SystemProperty::from_wire(name).is_none())
    }
}

/// The twin as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twin<'i> {
    /// The version of the desired properties.
    pub version: u64,
    /// JSON: `{"desired":{…,"$version":…},"reported":{…,"$version":…}}`, within `{"properties":…}` where the hub
    /// speaks api-version 2016-11-14.
    pub document: &'i [u8],
}

/// A call of a direct method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodCall<'i> {
    /// What to answer with.
    pub id: CallId,
    /// The name of the method, decoded.
    pub name: Cow<'i, str>,
    /// JSON, or nothing.
    pub payload: &'i [u8],
    /// When nobody waits for the answer any more: after 300 s, the longest that a caller can ask for. Most ask for 30 s;
    /// how long this one waits, the hub does not tell (IoT Hub direct method guide).
    pub due: Instant,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'i> {
    /// The request.
    pub request: RequestId,
    /// 200: here is the twin. 204: the patch was merged (200 in api-version 2016-11-14). 300 and more: it was not, see the
    /// body; 412: the reported properties have another version, 429: throttled, ask later.
    pub status: u16,
    /// The version of the reported properties after a patch.
    pub version: Option<u64>,
    /// JSON: the twin, or what was wrong, or nothing.
    pub body: &'i [u8],
}

impl Answer<'_> {
    /// Whether the hub did what it was asked for.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }
}
