//! The fourteen packets of MQTT 3.1.1: bytes in, packets that borrow them out, and back.
//!
//! [`decode`] takes one packet off the front of a buffer; [`Packet::encode`] and the encoders of the single packets
//! append one to a buffer. Decoding what was encoded gives the same packet, and encoding what was decoded gives the
//! same bytes, a padded remaining length excepted. Nothing here allocates but the buffer that is appended to.
//!
//! Each packet can only be built right, and [`decode`] checks every rule that can be judged by the bytes alone. Which
//! side may send which packet, and when, is the business of the machines.

mod ack;
mod connack;
mod connect;
mod decode;
mod encode;
mod filters;
mod publish;
mod reader;
mod suback;
mod subscribe;
mod text;
mod unsubscribe;

use core::fmt;
use core::num::NonZeroU16;

use alloc::vec::Vec;

pub use ack::{puback, pubcomp, pubrec, pubrel, unsuback};
pub use connack::{ConnAck, ConnectReturnCode};
pub use connect::{Connect, Credentials, Will};
pub use decode::{Decoded, decode, packet_type};
pub use encode::{EncodeError, disconnect, pingreq, pingresp};
pub use publish::{Publish, PublishQoS};
pub use reader::DecodeError;
pub use suback::{SubAck, SubAckCode};
pub use subscribe::Subscribe;
pub use text::{Text, TopicFilter, TopicName};
pub use unsubscribe::Unsubscribe;

/// The number by which a packet and its acknowledgement find each other: 1 to 65 535 `[MQTT-2.3.1-1]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The smallest packet id, 1.
    pub const MIN: Self = Self(NonZeroU16::MIN);
    /// The largest packet id, 65 535.
    pub const MAX: Self = Self(NonZeroU16::MAX);

    /// The packet id `id`; `None` for 0, which is none.
    #[must_use]
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Quality of service: how often a message arrives (MQTT 3.1.1 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// QoS 0: once or not at all.
    AtMostOnce = 0,
    /// QoS 1: once or more often.
    AtLeastOnce = 1,
    /// QoS 2: once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS with the number `bits`; `None` above 2.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// The kinds of packet, with their numbers on the wire (MQTT 3.1.1 §2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are those of MQTT 3.1.1, and Packet explains them")]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
}

/// One packet, borrowing from the bytes that it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A client asks for a session.
    Connect(Connect<'a>),
    /// The server's answer to CONNECT.
    ConnAck(ConnAck),
    /// A message, in either direction.
    Publish(Publish<'a>),
    /// The receiver has taken over a QoS 1 message.
    PubAck(PacketId),
    /// QoS 2, second packet: the receiver has the message.
    PubRec(PacketId),
    /// QoS 2, third packet: the sender has dropped the message.
    PubRel(PacketId),
    /// QoS 2, fourth and last packet: the packet id is free.
    PubComp(PacketId),
    /// A client asks for messages.
    Subscribe(Subscribe<'a>),
    /// The server's answer to SUBSCRIBE.
    SubAck(SubAck<'a>),
    /// A client asks for messages no longer.
    Unsubscribe(Unsubscribe<'a>),
    /// The server's answer to UNSUBSCRIBE.
    UnsubAck(PacketId),
    /// A client shows that it is alive.
    PingReq,
    /// The server's answer to PINGREQ.
    PingResp,
    /// A client is about to close the connection in good order.
    Disconnect,
}

impl Packet<'_> {
    /// The kind of this packet.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect => PacketType::Disconnect,
        }
    }

    /// Appends the packet to `out`, its remaining length in as few bytes as will do.
    ///
    /// # Errors
    /// [`EncodeError`], and `out` as it was. A decoded packet always encodes.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Connect(connect) => return connect.encode(out),
            Self::ConnAck(connack) => connack.encode(out),
            Self::Publish(publish) => return publish.encode(out),
            Self::PubAck(id) => puback(*id, out),
            Self::PubRec(id) => pubrec(*id, out),
            Self::PubRel(id) => pubrel(*id, out),
            Self::PubComp(id) => pubcomp(*id, out),
            Self::Subscribe(subscribe) => return subscribe.encode_again(out),
            Self::SubAck(suback) => return suback.encode_again(out),
            Self::Unsubscribe(unsubscribe) => return unsubscribe.encode_again(out),
            Self::UnsubAck(id) => unsuback(*id, out),
            Self::PingReq => pingreq(out),
            Self::PingResp => pingresp(out),
            Self::Disconnect => disconnect(out),
        }
        Ok(())
    }
}
