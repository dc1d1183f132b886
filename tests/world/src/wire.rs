//! Both directions of one connection, read as packets beside the machines: what each side writes keeps the rules.

use std::collections::{BTreeSet, VecDeque};

use devicebound::limits::PACKET_MAX;
use devicebound::packet::{ConnAck, Decoded, Packet, PublishQoS, decode};

use super::{Breach, breach};

/// Bytes of one direction, cut into packets.
#[derive(Debug, Default)]
pub(super) struct Tap {
    unread: Vec<u8>,
}

impl Tap {
    /// Whether a packet has begun and not ended.
    pub(super) const fn is_inside_a_packet(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Reads the packets that `bytes` finish, each with its end, counted from the first of `bytes`.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&Packet<'_>, usize) -> Result<(), Breach>,
    ) -> Result<(), Breach> {
        let before = self.unread.len();
        self.unread.extend_from_slice(bytes);
        let whole = std::mem::take(&mut self.unread);
        let mut rest = whole.as_slice();
        loop {
            match decode(&mut rest, PACKET_MAX) {
                Ok(Decoded::Packet(packet)) => each(&packet, whole.len() - rest.len() - before)?,
                Ok(Decoded::Incomplete { .. }) => break,
                Err(error) => return breach(format!("what was written is not MQTT: {error}")),
            }
        }
        self.unread = rest.to_vec();
        Ok(())
    }
}

/// What a packet means to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// The hub accepted the connection.
    Accepted { session_present: bool },
    /// The hub sent a message, by its payload.
    Cloud { dup: bool },
    /// The device sent telemetry again.
    Repeated,
    /// The device has as many publishes in flight as it may.
    WindowFull,
    /// The device said DISCONNECT.
    Disconnect,
}

/// What is under way on one connection.
#[derive(Debug, Default)]
pub(super) struct Wire {
    connect: bool,
    pub(super) accepted: bool,
    /// Requests of the device that are owed an acknowledgement, in order `[MQTT-4.6.0-2]`.
    owed: VecDeque<u16>,
    /// Cloud messages without PUBACK, in order.
    delivering: VecDeque<u16>,
}

impl Wire {
    pub(super) fn device_sent(&mut self, packet: &Packet<'_>) -> Result<Option<Fact>, Breach> {
        if self.connect == matches!(packet, Packet::Connect(_)) {
            return breach(format!("CONNECT comes first and once; this is {packet:?}"));
        }
        self.connect = true;
        match packet {
            Packet::Publish(publish) => match publish.qos {
                PublishQoS::AtLeastOnce { packet_id, dup } => {
                    self.owe(packet_id.get())?;
                    if dup {
                        return Ok(Some(Fact::Repeated));
                    }
                    return Ok((self.owed.len() == 16).then_some(Fact::WindowFull));
                }
                PublishQoS::AtMostOnce => {}
                PublishQoS::ExactlyOnce { .. } => return breach("the device sends QoS 2"),
            },
            Packet::Subscribe(subscribe) => self.owe(subscribe.packet_id().get())?,
            Packet::Unsubscribe(unsubscribe) => self.owe(unsubscribe.packet_id().get())?,
            Packet::PubAck(id) => {
                let first = self.delivering.pop_front();
                if first != Some(id.get()) {
                    return breach(format!("the device acknowledges {id}, the first message is {first:?}"));
                }
            }
            Packet::Disconnect => return Ok(Some(Fact::Disconnect)),
            _ => {}
        }
        Ok(None)
    }

    /// A packet id that is unique in flight `[MQTT-2.3.1-2]`.
    fn owe(&mut self, id: u16) -> Result<(), Breach> {
        if self.owed.contains(&id) {
            return breach(format!("the device uses packet id {id}, which is in flight"));
        }
        self.owed.push_back(id);
        Ok(())
    }

    pub(super) fn hub_sent(&mut self, packet: &Packet<'_>) -> Result<Option<Fact>, Breach> {
        if let Packet::ConnAck(connack) = packet {
            let first = !std::mem::replace(&mut self.accepted, true);
            return match connack {
                _ if !first => breach("a second CONNACK"),
                ConnAck::Accepted { session_present } => {
                    Ok(Some(Fact::Accepted { session_present: *session_present }))
                }
                ConnAck::Refused(_) => {
                    self.accepted = false;
                    Ok(None)
                }
            };
        }
        if !self.accepted {
            return breach(format!("{packet:?} overtakes the CONNACK"));
        }
        match packet {
            Packet::PubAck(id) => self.acknowledged(id.get())?,
            Packet::SubAck(suback) => self.acknowledged(suback.packet_id().get())?,
            Packet::UnsubAck(id) => self.acknowledged(id.get())?,
            Packet::Publish(publish) => {
                if let PublishQoS::AtLeastOnce { packet_id, dup } = publish.qos {
                    if self.delivering.contains(&packet_id.get()) {
                        return breach(format!("the hub uses packet id {packet_id}, which is in flight"));
                    }
                    self.delivering.push_back(packet_id.get());
                    return Ok(Some(Fact::Cloud { dup }));
                }
            }
            _ => {}
        }
        Ok(None)
    }

    fn acknowledged(&mut self, id: u16) -> Result<(), Breach> {
        let first = self.owed.pop_front();
        if first != Some(id) {
            return breach(format!("the hub acknowledges {id}, the first request is {first:?}"));
        }
        Ok(())
    }
}

/// Numbers that were seen, most of them in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// All numbers below were.
    below: u64,
    above: BTreeSet<u64>,
}

impl Seen {
    pub(super) fn insert(&mut self, number: u64) {
        if number >= self.below {
            self.above.insert(number);
        }
        while self.above.remove(&self.below) {
            self.below += 1;
        }
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        number < self.below || self.above.contains(&number)
    }
}
