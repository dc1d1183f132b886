//! Which packet may arrive when, as data: receiver × phase → set of packet types.
//!
//! Both machines ask [`check`] before they look into a packet, so no rule of order stands anywhere else. Of the packets
//! that come all the time they ask when they are compiled.
#![doc = include_str!("legality.md")]

#[cfg(feature = "hub")]
use super::{Close, CloseReason};
use crate::Rule;
use crate::packet::PacketType;
use crate::packet::PacketType::{
    ConnAck, Connect, Disconnect, PingReq, PingResp, PubAck, PubComp, PubRec, PubRel, Publish, SubAck,
    Subscribe, UnsubAck, Unsubscribe,
};
#[cfg(feature = "hub")]
use crate::packet::packet_type;

/// Who receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The client of MQTT.
    Device,
    /// The server of MQTT.
    Hub,
}

/// How far the connection has come, as the receiver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was received yet: the hub waits for CONNECT, the device for CONNACK.
    Opening,
    /// CONNECT was accepted.
    Open,
}

/// A set of packet types, one bit for each type code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketSet(u16);

impl PacketSet {
    const fn of(types: &[PacketType]) -> Self {
        let (mut bits, mut rest) = (0, types);
        while let [first, others @ ..] = rest {
            bits |= 1 << (*first as u8);
            rest = others;
        }
        Self(bits)
    }

    /// Whether the type is in the set.
    #[must_use]
    #[inline]
    pub const fn contains(self, packet: PacketType) -> bool {
        self.0 & (1 << (packet as u8)) != 0
    }
}

/// The packets that `receiver` takes in `phase`: the whole table.
#[must_use]
#[inline]
pub const fn legal(receiver: Role, phase: Phase) -> PacketSet {
    const HUB_OPENING: PacketSet = PacketSet::of(&[Connect]);
    const HUB_OPEN: PacketSet =
        PacketSet::of(&[Publish, PubAck, Subscribe, Unsubscribe, PingReq, Disconnect]);
    const DEVICE_OPENING: PacketSet = PacketSet::of(&[ConnAck]);
    const DEVICE_OPEN: PacketSet = PacketSet::of(&[Publish, PubAck, SubAck, UnsubAck, PingResp]);
    match (receiver, phase) {
        (Role::Hub, Phase::Opening) => HUB_OPENING,
        (Role::Hub, Phase::Open) => HUB_OPEN,
        (Role::Device, Phase::Opening) => DEVICE_OPENING,
        (Role::Device, Phase::Open) => DEVICE_OPEN,
    }
}

/// Whether `packet` may arrive.
///
/// # Errors
/// The rule that it breaks; the breach ends the connection `[MQTT-4.8.0-1]`.
#[inline]
pub const fn check(receiver: Role, phase: Phase, packet: PacketType) -> Result<(), Rule> {
    if legal(receiver, phase).contains(packet) { Ok(()) } else { Err(breach(receiver, phase, packet)) }
}

#[cold]
const fn breach(receiver: Role, phase: Phase, packet: PacketType) -> Rule {
    match (receiver, phase, packet) {
        (Role::Hub, Phase::Opening, _) => Rule::ConnectFirst,
        (Role::Device, Phase::Opening, _) => Rule::ConnAckFirst,
        (Role::Hub, Phase::Open, Connect) => Rule::ConnectTwice,
        (_, Phase::Open, PubRec | PubRel | PubComp) => Rule::Qos2Flow,
        (_, Phase::Open, _) => Rule::Direction,
    }
}

/// Judges the packet that starts at the front of `input` by its first byte alone, so that one which may not come is
/// never waited for. A first byte that starts no packet is left to the decoder.
#[cfg(feature = "hub")]
#[inline]
pub(crate) fn check_front(receiver: Role, phase: Phase, input: &[u8]) -> Result<(), Close> {
    match input.first().map(|first| packet_type(*first)) {
        Some(Ok(packet)) => {
            check(receiver, phase, packet).map_err(|rule| Close::at(CloseReason::Violation(rule), 0..1))
        }
        Some(Err(_)) | None => Ok(()),
    }
}
