//! The peers that decode from and encode to a `BytesMut`.

use std::hint::black_box;

use bytes::BytesMut;
use devicebound::limits::REMAINING_LENGTH_MAX;
use rumqttd::protocol::Protocol;
use tokio_util::codec::{Decoder as _, Encoder as _};

use super::{Decoder, Encoder, Encoding, Progress, Step};

/// All packets of a decoder that takes them off a `BytesMut`.
fn packets<P>(bytes: &[u8], mut decode: impl FnMut(&mut BytesMut) -> P) -> Vec<P> {
    let mut buffer = BytesMut::from(bytes);
    let mut packets = Vec::new();
    while !buffer.is_empty() {
        packets.push(decode(&mut buffer));
    }
    packets
}

impl<P, F: Fn(&P, &mut BytesMut)> Encoder for Encoding<P, BytesMut, F> {
    fn prepare(&mut self) {
        self.buffer.clear();
    }

    fn encode(&mut self) {
        for packet in &self.packets {
            (self.encode)(packet, &mut self.buffer);
            black_box(&self.buffer);
        }
    }

    fn written(&self) -> Vec<u8> {
        self.buffer.to_vec()
    }
}

/// For encoders that take packets by value.
struct Consuming<P, F> {
    packets: Vec<P>,
    given: Vec<P>,
    buffer: BytesMut,
    encode: F,
}

impl<P: Clone, F: FnMut(P, &mut BytesMut)> Encoder for Consuming<P, F> {
    fn prepare(&mut self) {
        self.buffer.clear();
        self.given.extend(self.packets.iter().cloned());
    }

    fn encode(&mut self) {
        for packet in self.given.drain(..) {
            (self.encode)(packet, &mut self.buffer);
            black_box(&self.buffer);
        }
    }

    fn written(&self) -> Vec<u8> {
        self.buffer.to_vec()
    }
}

#[derive(Default)]
pub(crate) struct Mqttbytes(BytesMut);

impl Decoder for Mqttbytes {
    fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn decode(&mut self) -> Progress {
        Progress::of(|| match black_box(&mqttbytes::v4::read(&mut self.0, REMAINING_LENGTH_MAX)) {
            Ok(_) => Step::Packet,
            Err(mqttbytes::Error::InsufficientBytes(_)) => Step::Incomplete,
            Err(_) => Step::Refused,
        })
    }
}

pub(crate) fn encode_mqttbytes(bytes: &'static [u8]) -> Box<dyn Encoder> {
    use mqttbytes::v4::{Packet, PingReq, PingResp};
    let packets =
        packets(bytes, |buffer| mqttbytes::v4::read(buffer, REMAINING_LENGTH_MAX).expect("it is good"));
    let encode = |packet: &Packet, out: &mut BytesMut| {
        let written = match packet {
            Packet::Connect(packet) => packet.write(out),
            Packet::Publish(packet) => packet.write(out),
            Packet::PubAck(packet) => packet.write(out),
            Packet::Subscribe(packet) => packet.write(out),
            Packet::SubAck(packet) => packet.write(out),
            Packet::PingReq => PingReq.write(out),
            Packet::PingResp => PingResp.write(out),
            other => unreachable!("no workload has {other:?}"),
        };
        written.expect("it was decoded");
    };
    Box::new(Encoding { packets, buffer: BytesMut::new(), encode })
}

#[derive(Default)]
pub(crate) struct Rumqttc(BytesMut);

impl Decoder for Rumqttc {
    fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn decode(&mut self) -> Progress {
        Progress::of(|| match black_box(&rumqttc::Packet::read(&mut self.0, REMAINING_LENGTH_MAX)) {
            Ok(_) => Step::Packet,
            Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => Step::Incomplete,
            Err(_) => Step::Refused,
        })
    }
}

pub(crate) fn encode_rumqttc(bytes: &'static [u8]) -> Box<dyn Encoder> {
    let packets =
        packets(bytes, |buffer| rumqttc::Packet::read(buffer, REMAINING_LENGTH_MAX).expect("it is good"));
    let encode = |packet: &rumqttc::Packet, out: &mut BytesMut| {
        packet.write(out, REMAINING_LENGTH_MAX).expect("it was decoded");
    };
    Box::new(Encoding { packets, buffer: BytesMut::new(), encode })
}

#[derive(Default)]
pub(crate) struct Rumqttd(BytesMut);

impl Decoder for Rumqttd {
    fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn decode(&mut self) -> Progress {
        let mut v4 = rumqttd::protocol::v4::V4;
        Progress::of(|| match black_box(&v4.read_mut(&mut self.0, REMAINING_LENGTH_MAX)) {
            Ok(_) => Step::Packet,
            Err(rumqttd::protocol::Error::InsufficientBytes(_)) => Step::Incomplete,
            Err(_) => Step::Refused,
        })
    }
}

pub(crate) fn encode_rumqttd(bytes: &'static [u8]) -> Box<dyn Encoder> {
    let packets = packets(bytes, |buffer| {
        rumqttd::protocol::v4::V4.read_mut(buffer, REMAINING_LENGTH_MAX).expect("it is good")
    });
    let encode = |packet, out: &mut BytesMut| {
        rumqttd::protocol::v4::V4.write(packet, out).expect("it was decoded");
    };
    Box::new(Consuming { packets, given: Vec::new(), buffer: BytesMut::new(), encode })
}

#[derive(Default)]
pub(crate) struct Rmqtt {
    buffer: BytesMut,
    codec: rmqtt_codec::v3::Codec,
}

impl Decoder for Rmqtt {
    fn append(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn decode(&mut self) -> Progress {
        Progress::of(|| match black_box(&self.codec.decode(&mut self.buffer)) {
            Ok(Some(_)) => Step::Packet,
            Ok(None) => Step::Incomplete,
            Err(_) => Step::Refused,
        })
    }
}

pub(crate) fn encode_rmqtt(bytes: &'static [u8]) -> Box<dyn Encoder> {
    let mut codec = rmqtt_codec::v3::Codec::default();
    let packets = packets(bytes, |buffer| codec.decode(buffer).ok().flatten().expect("it is good").0);
    let encode = move |packet, out: &mut BytesMut| codec.encode(packet, out).expect("it was decoded");
    Box::new(Consuming { packets, given: Vec::new(), buffer: BytesMut::new(), encode })
}
