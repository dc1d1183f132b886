//! One packet in the words of the dialect, for logs, live views and the curious.

use core::fmt;

use crate::iothub::topic::{FromDevice, FromHub};
use crate::iothub::{Identity, PropertyBag, Subscription};
use crate::packet::{ConnAck, Connect, Packet, Publish, PublishQoS, SubAckCode, TopicFilter};

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The device.
    Device,
    /// The hub.
    Hub,
}

/// A packet that prints as what it means, on one line: `telemetry, QoS 1, id 7, 12 bytes, alert=true`.
///
/// Tokens and keys are never printed.
#[derive(Clone, Copy, Debug)]
pub struct Explained<'p> {
    packet: &'p Packet<'p>,
    sender: Sender,
    identity: Option<Identity<'p>>,
    answers_nothing: bool,
}

/// Says what `packet` means. Without an identity, which CONNECT brings, topics are printed as they stand.
#[must_use]
pub const fn explain<'p>(
    packet: &'p Packet<'p>,
    sender: Sender,
    identity: Option<Identity<'p>>,
) -> Explained<'p> {
    Explained { packet, sender, identity, answers_nothing: false }
}

/// The longest body that is printed, in bytes.
const PREVIEW: usize = 160;
/// The longest body of a refusal that is printed: the reason stands in it.
const REASON: usize = 1024;

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.packet {
            Packet::Connect(connect) => connection(f, connect),
            Packet::ConnAck(ConnAck::Accepted { session_present }) => {
                let session = if *session_present { "session resumed" } else { "new session" };
                write!(f, "CONNACK, accepted, {session}")
            }
            Packet::ConnAck(ConnAck::Refused(code)) => {
                write!(f, "CONNACK, refused with {} ({code:?})", *code as u8)
            }
            Packet::Publish(publish) => self.publish(f, publish),
            Packet::PubAck(id) => match self.sender {
                Sender::Device if self.answers_nothing => {
                    write!(f, "PUBACK, id {id}: for no message that was sent")
                }
                Sender::Device => write!(f, "PUBACK, id {id}: cloud message completed"),
                Sender::Hub => write!(f, "PUBACK, id {id}: stored"),
            },
            Packet::PubRec(id) => write!(f, "PUBREC, id {id}"),
            Packet::PubRel(id) => write!(f, "PUBREL, id {id}"),
            Packet::PubComp(id) => write!(f, "PUBCOMP, id {id}"),
            Packet::Subscribe(subscribe) => {
                write!(f, "SUBSCRIBE, id {}:", subscribe.packet_id())?;
                subscribe
                    .filters()
                    .try_for_each(|(filter, qos)| write!(f, " {} at QoS {}", self.filter(filter), qos as u8))
            }
            Packet::SubAck(suback) => {
                write!(f, "SUBACK, id {}: granted", suback.packet_id())?;
                suback.return_codes().try_for_each(|code| match code {
                    SubAckCode::Granted(qos) => write!(f, " QoS {}", qos as u8),
                    SubAckCode::Failure => f.write_str(" failure"),
                })
            }
            Packet::Unsubscribe(unsubscribe) => {
                write!(f, "UNSUBSCRIBE, id {}:", unsubscribe.packet_id())?;
                unsubscribe.filters().try_for_each(|filter| write!(f, " {}", self.filter(filter)))
            }
            Packet::UnsubAck(id) => write!(f, "UNSUBACK, id {id}"),
            Packet::PingReq => f.write_str("PINGREQ"),
            Packet::PingResp => f.write_str("PINGRESP"),
            Packet::Disconnect => f.write_str("DISCONNECT"),
        }
    }
}

fn connection(f: &mut fmt::Formatter<'_>, connect: &Connect<'_>) -> fmt::Result {
    write!(f, "CONNECT as {}, keep alive {} s", connect.client_id, connect.keep_alive)?;
    write!(f, ", clean session {}", u8::from(connect.clean_session))?;
    match connect.credentials {
        Some(credentials) => {
            write!(f, ", user name {}", credentials.username)?;
            f.write_str(if credentials.password.is_some() { ", with a token" } else { ", without a token" })?;
        }
        None => f.write_str(", without user name")?,
    }
    match connect.will {
        Some(will) => {
            write!(f, ", will to {} ({})", will.topic, Body { bytes: will.message, preview: PREVIEW })
        }
        None => Ok(()),
    }
}

impl Explained<'_> {
    /// The same of an acknowledgement that, as the hub knows, is for nothing that was sent.
    #[must_use]
    pub const fn answering_nothing(self) -> Self {
        Self { answers_nothing: true, ..self }
    }

    fn publish(&self, f: &mut fmt::Formatter<'_>, publish: &Publish<'_>) -> fmt::Result {
        let mut preview = PREVIEW;
        let known = match (self.sender, self.identity) {
            (_, None) => false,
            (Sender::Device, Some(identity)) => match FromDevice::parse(publish.topic, identity) {
                Ok(message) => from_device(f, message).map(|()| true)?,
                Err(_) => false,
            },
            (Sender::Hub, Some(identity)) => match FromHub::parse(publish.topic, identity) {
                Ok(message) => {
                    if matches!(message, FromHub::TwinResponse { status: 400.., .. }) {
                        preview = REASON;
                    }
                    from_hub(f, message, publish.topic.as_str()).map(|()| true)?
                }
                Err(_) => false,
            },
        };
        if !known {
            write!(f, "PUBLISH to {}", publish.topic)?;
        }
        write!(f, ", QoS {}", publish.qos.qos() as u8)?;
        if let PublishQoS::AtLeastOnce { packet_id, dup } | PublishQoS::ExactlyOnce { packet_id, dup } =
            publish.qos
        {
            write!(f, ", id {packet_id}{}", if dup { ", sent again" } else { "" })?;
        }
        if publish.retain {
            f.write_str(", retain")?;
        }
        write!(f, ", {}", Body { bytes: publish.payload, preview })
    }

    fn filter<'f>(&self, filter: TopicFilter<'f>) -> FilterName<'f> {
        let known = self.identity.and_then(|identity| Subscription::of(filter, identity).ok());
        known.map_or(FilterName::Unknown(filter), FilterName::Known)
    }
}

fn from_device(f: &mut fmt::Formatter<'_>, message: FromDevice<'_>) -> fmt::Result {
    match message {
        FromDevice::Telemetry(bag) => write!(f, "telemetry{}", Properties(bag)),
        FromDevice::TwinGet { rid } => write!(f, "twin GET, rid {rid}"),
        FromDevice::TwinPatch { rid, if_version: None } => write!(f, "twin PATCH of reported, rid {rid}"),
        FromDevice::TwinPatch { rid, if_version: Some(version) } => {
            write!(f, "twin PATCH of reported, rid {rid}, if at version {version}")
        }
        FromDevice::MethodResponse { status, rid } => write!(f, "method answer {status}, rid {rid}"),
        FromDevice::IssueCertificate { rid } => write!(f, "certificate request, rid {rid}"),
    }
}

/// The name of the method in the topic of a call, as it stands.
fn method_as_sent(topic: &str) -> Option<&str> {
    topic.strip_prefix("$iothub/methods/POST/")?.split('/').next()
}

fn from_hub(f: &mut fmt::Formatter<'_>, message: FromHub<'_>, topic: &str) -> fmt::Result {
    match message {
        FromHub::CloudMessage(bag) => write!(f, "cloud message{}", Properties(bag)),
        FromHub::ModuleInput { input, properties } => {
            write!(f, "module input {input}{}", Properties(properties))
        }
        FromHub::TwinResponse { status, rid, version: None } => write!(f, "twin answer {status}, rid {rid}"),
        FromHub::TwinResponse { status, rid, version: Some(version) } => {
            write!(f, "twin answer {status}, rid {rid}, version {version}")
        }
        FromHub::DesiredPatch { version } => write!(f, "desired properties, version {version}"),
        FromHub::MethodRequest { method, rid } => {
            // As it went out: what encodes more than its peer decodes would not be seen otherwise.
            write!(f, "method {}, rid {rid}", Visible(method_as_sent(topic).unwrap_or(&method)))
        }
        FromHub::CredentialResponse { status, rid } => write!(f, "certificate answer {status}, rid {rid}"),
    }
}

enum FilterName<'f> {
    Known(Subscription),
    Unknown(TopicFilter<'f>),
}

impl fmt::Display for FilterName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(subscription) => f.write_str(subscription.name()),
            Self::Unknown(filter) => write!(f, "{filter}"),
        }
    }
}

struct Properties<'a>(PropertyBag<'a>);

impl fmt::Display for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| match value {
            Some(value) => write!(f, ", {}={}", Visible(&name), Visible(&value)),
            None => write!(f, ", {}", Visible(&name)),
        })
    }
}

struct Body<'a> {
    bytes: &'a [u8],
    preview: usize,
}

impl fmt::Display for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, preview } = self;
        match core::str::from_utf8(bytes) {
            Ok("") => f.write_str("no body"),
            Ok(text) if text.len() <= *preview => write!(f, "{}", Visible(text)),
            _ => write!(f, "{} bytes", bytes.len()),
        }
    }
}

/// Text of a peer on a line of ours: whatever could move the cursor is escaped.
struct Visible<'a>(&'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| {
            if char.is_control() { write!(f, "{}", char.escape_debug()) } else { write!(f, "{char}") }
        })
    }
}
