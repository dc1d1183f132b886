//! PUBLISH (MQTT 3.1.1 §3.3).

use alloc::vec::Vec;

use super::encode::{EncodeError, length, start};
use super::reader::{DecodeError, Reader};
use super::{PacketId, QoS, TopicName};
use crate::rule::Rule;

const RETAIN: u8 = 0x01;
const DUP: u8 = 0x08;

/// A message on its way from client to server or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// How often the message arrives, and what that takes.
    pub qos: PublishQoS,
    /// Whether the server shall keep the message for later subscribers; IoT Hub keeps none.
    pub retain: bool,
    /// What the message is published to.
    pub topic: TopicName<'a>,
    /// The message, any bytes, possibly none.
    pub payload: &'a [u8],
}

/// QoS of a PUBLISH, with the fields that exist only there: QoS 0 has neither packet id `[MQTT-2.3.1-5]` nor DUP
/// `[MQTT-3.3.1-2]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishQoS {
    /// QoS 0: not acknowledged.
    AtMostOnce,
    /// QoS 1: acknowledged by PUBACK.
    AtLeastOnce {
        /// What the PUBACK repeats.
        packet_id: PacketId,
        /// Whether the message may have been sent before `[MQTT-3.3.1-1]`.
        dup: bool,
    },
    /// QoS 2: acknowledged by PUBREC.
    ExactlyOnce {
        /// What the PUBREC repeats.
        packet_id: PacketId,
        /// Whether the message may have been sent before `[MQTT-3.3.1-1]`.
        dup: bool,
    },
}

impl PublishQoS {
    /// The QoS alone.
    #[must_use]
    #[inline]
    pub const fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce { .. } => QoS::AtLeastOnce,
            Self::ExactlyOnce { .. } => QoS::ExactlyOnce,
        }
    }

    /// The packet id; `None` at QoS 0.
    #[must_use]
    #[inline]
    pub const fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce { packet_id, .. } | Self::ExactlyOnce { packet_id, .. } => Some(packet_id),
        }
    }

    /// Whether the message may have been sent before; always false at QoS 0.
    #[must_use]
    #[inline]
    pub const fn dup(self) -> bool {
        match self {
            Self::AtMostOnce => false,
            Self::AtLeastOnce { dup, .. } | Self::ExactlyOnce { dup, .. } => dup,
        }
    }
}

impl<'a> Publish<'a> {
    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError::PacketTooLong`], and `out` as it was.
    #[inline(never)]
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode_head(out)?;
        out.extend_from_slice(self.payload);
        Ok(())
    }

    /// Appends all of the packet but its payload, which has to follow on the wire: for who writes both by reference, so
    /// that a large payload is not copied.
    ///
    /// # Errors
    /// [`EncodeError::PacketTooLong`], and `out` as it was.
    #[inline]
    pub fn encode_head(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let topic = self.topic.as_bytes();
        let (qos, beside) = match self.qos {
            PublishQoS::AtMostOnce => (0x00, 2),
            PublishQoS::AtLeastOnce { dup, .. } => (0x02 | if dup { DUP } else { 0 }, 4),
            PublishQoS::ExactlyOnce { dup, .. } => (0x04 | if dup { DUP } else { 0 }, 4),
        };
        let first = 0x30 | qos | u8::from(self.retain);
        let remaining = topic.len().saturating_add(beside).saturating_add(self.payload.len());
        start(first, remaining, length(topic), out)?;
        out.extend_from_slice(topic);
        if let Some(id) = self.qos.packet_id() {
            out.extend_from_slice(&id.get().to_be_bytes());
        }
        Ok(())
    }

    /// `first` is known to be one of PUBLISH.
    #[inline]
    pub(super) fn decode(first: u8, mut body: Reader<'a>) -> Result<Self, DecodeError> {
        // [MQTT-3.3.2-1]
        let topic = body.field(Rule::TopicMissing)?.topic_name()?;
        let dup = first & DUP != 0;
        let qos = match first & 0x06 {
            // [MQTT-2.3.1-5]
            0x00 => PublishQoS::AtMostOnce,
            0x02 => PublishQoS::AtLeastOnce { packet_id: body.packet_id()?, dup },
            _ => PublishQoS::ExactlyOnce { packet_id: body.packet_id()?, dup },
        };
        Ok(Self { qos, retain: first & RETAIN != 0, topic, payload: body.remaining() })
    }
}
