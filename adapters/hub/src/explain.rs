//! A packet in words.

use devicebound::packet::{Decoded, Packet, Publish, decode};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a device.
    ToHub,
    /// To a device.
    ToDevice,
}

/// A packet in words.
#[derive(Debug)]
pub struct Explained {
    /// The packet's name in the standard.
    pub name: String,
    /// The rest.
    pub text: String,
}

/// Puts one whole packet into words.
#[must_use]
pub fn packet(_direction: Direction, bytes: &[u8]) -> Explained {
    let mut input = bytes;
    match decode(&mut input, usize::MAX) {
        Ok(Decoded::Packet(packet)) => Explained {
            name: format!("{:?}", packet.packet_type()).to_uppercase(),
            text: match packet {
                Packet::Publish(publish) => published(&publish),
                _ => String::new(),
            },
        },
        _ => Explained { name: "?".to_owned(), text: format!("{} bytes", bytes.len()) },
    }
}

fn published(publish: &Publish<'_>) -> String {
    format!("QoS {} {} ({} bytes)", publish.qos.qos() as u8, publish.topic, publish.payload.len())
}
