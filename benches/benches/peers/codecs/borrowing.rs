//! Us, and the peers that decode from a slice.

use std::hint::black_box;

use devicebound::limits::REMAINING_LENGTH_MAX;
use devicebound::packet::{self, Decoded, Packet, PacketType, SubAck};
use embedded_mqtt::codec::{Decodable, Encodable};
use embedded_mqtt::status::Status;
use mqtt_proto::{Encodable as _, PollHeader, v3};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Packet as CorePacket, v3_1_1};

use super::{Decoder, Encoder, Encoding, Progress, Step, frame};

/// A receive buffer, and how much of it was taken.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    taken: usize,
}

impl Input {
    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes packets off the front with `step`.
    #[inline]
    fn decode(&mut self, mut step: impl FnMut(&mut &[u8]) -> Step) -> Progress {
        let mut rest = &self.bytes[self.taken..];
        let progress = Progress::of(|| step(&mut rest));
        self.taken = self.bytes.len() - rest.len();
        progress
    }
}

impl<P, F: Fn(&P, &mut Vec<u8>)> Encoder for Encoding<P, Vec<u8>, F> {
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
        self.buffer.clone()
    }
}

/// Encoders that write to a slice get one that is long enough.
struct Slices<P, F> {
    packets: Vec<P>,
    buffer: Vec<u8>,
    length: usize,
    encode: F,
}

impl<P, F: Fn(&P, &mut [u8]) -> usize> Encoder for Slices<P, F> {
    fn prepare(&mut self) {
        self.length = 0;
    }

    fn encode(&mut self) {
        for packet in &self.packets {
            self.length += (self.encode)(packet, &mut self.buffer[self.length..]);
            black_box(&self.buffer);
        }
    }

    fn written(&self) -> Vec<u8> {
        self.buffer[..self.length].to_vec()
    }
}

/// Each packet at the front, as `decode` makes it of all that is left, and how long it is.
fn packets<'a, P: 'a>(
    bytes: &'a [u8],
    decode: impl Fn(&'a [u8], (u8, usize, usize)) -> P + 'a,
) -> impl Iterator<Item = P> + 'a {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let framed @ (_, header, length) = frame(rest)?;
        let packet = decode(rest, framed);
        rest = &rest[header + length..];
        Some(packet)
    })
}

/// Carries how many bytes are missing, as the machines and their drivers do.
#[derive(Default)]
pub(crate) struct Us {
    input: Input,
    missing: usize,
}

impl Decoder for Us {
    fn append(&mut self, bytes: &[u8]) {
        self.input.append(bytes);
        self.missing = self.missing.saturating_sub(bytes.len());
    }

    fn decode(&mut self) -> Progress {
        if self.missing > 0 {
            return Progress::default();
        }
        let mut missing = 0;
        let progress =
            self.input.decode(|rest| match *black_box(&packet::decode(rest, REMAINING_LENGTH_MAX)) {
                Ok(Decoded::Packet(_)) => Step::Packet,
                Ok(Decoded::Incomplete { at_least }) => {
                    missing = at_least;
                    Step::Incomplete
                }
                Err(_) => Step::Refused,
            });
        self.missing = missing;
        progress
    }
}

/// The packets of one kind, without what says so.
macro_rules! of_kind {
    ($packets:expr, $kind:ident) => {
        $packets
            .into_iter()
            .filter_map(|packet| match packet {
                Packet::$kind(inner) => Some(inner),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
}

fn ours(bytes: &'static [u8]) -> Vec<packet::Packet<'static>> {
    let decode = |mut rest, _| match packet::decode(&mut rest, REMAINING_LENGTH_MAX) {
        Ok(Decoded::Packet(packet)) => packet,
        other => unreachable!("{other:?}"),
    };
    packets(bytes, decode).collect()
}

/// Who has packets of one kind only has no need to ask each which it is, and gives them to the encoder of that kind.
pub(crate) fn encode_ours(bytes: &'static [u8]) -> Box<dyn Encoder> {
    let kind = |packet: &Packet<'_>| packet.packet_type();
    let all = ours(bytes);
    let first = all.first().map(kind);
    if all.iter().any(|packet| Some(kind(packet)) != first) {
        return encoding(all, |packet, out| packet.encode(out).expect("it was decoded"));
    }
    match first {
        Some(PacketType::PubAck) => encoding(of_kind!(all, PubAck), |id, out| packet::puback(*id, out)),
        Some(PacketType::Publish) => {
            encoding(of_kind!(all, Publish), |publish, out| publish.encode(out).expect("it was decoded"))
        }
        Some(PacketType::Connect) => {
            encoding(of_kind!(all, Connect), |connect, out| connect.encode(out).expect("it was decoded"))
        }
        Some(PacketType::SubAck) => {
            let subacks = of_kind!(all, SubAck);
            let owned =
                subacks.iter().map(|suback| (suback.packet_id(), suback.return_codes().collect::<Vec<_>>()));
            encoding(owned.collect(), |(id, codes), out| {
                SubAck::encode(*id, codes.iter().copied(), out).expect("there are codes");
            })
        }
        _ => encoding(all, |packet, out| packet.encode(out).expect("it was decoded")),
    }
}

fn encoding<P: 'static>(packets: Vec<P>, encode: impl Fn(&P, &mut Vec<u8>) + 'static) -> Box<dyn Encoder> {
    Box::new(Encoding { packets, buffer: Vec::new(), encode })
}

/// All but the payloads, for a socket that takes those by reference.
pub(crate) fn encode_our_heads(bytes: &'static [u8]) -> Box<dyn Encoder> {
    let encode = |packet: &packet::Packet<'_>, out: &mut Vec<u8>| {
        let encoded = match packet {
            packet::Packet::Publish(publish) => publish.encode_head(out),
            packet => packet.encode(out),
        };
        encoded.expect("it was decoded");
    };
    Box::new(Encoding { packets: ours(bytes), buffer: Vec::new(), encode })
}

#[derive(Default)]
pub(crate) struct Mqttrs(Input);

impl Decoder for Mqttrs {
    fn append(&mut self, bytes: &[u8]) {
        self.0.append(bytes);
    }

    fn decode(&mut self) -> Progress {
        self.0.decode(|rest| match black_box(&mqttrs::decode_slice(rest)) {
            Ok(Some(_)) => {
                // It does not say how long the packet was.
                if let Some((_, header, length)) = frame(rest) {
                    *rest = &rest[header + length..];
                }
                Step::Packet
            }
            Ok(None) => Step::Incomplete,
            Err(_) => Step::Refused,
        })
    }
}

pub(crate) fn encode_mqttrs(bytes: &'static [u8]) -> Box<dyn Encoder> {
    let packets = packets(bytes, |rest, _| mqttrs::decode_slice(rest).ok().flatten().expect("it is good"));
    let encode = |packet: &mqttrs::Packet<'_>, out: &mut [u8]| {
        mqttrs::encode_slice(packet, out).expect("there is room")
    };
    Box::new(Slices { packets: packets.collect(), buffer: vec![0; bytes.len() + 16], length: 0, encode })
}

#[derive(Default)]
pub(crate) struct EmbeddedMqtt(Input);

impl Decoder for EmbeddedMqtt {
    fn append(&mut self, bytes: &[u8]) {
        self.0.append(bytes);
    }

    fn decode(&mut self) -> Progress {
        self.0.decode(|rest| match black_box(&embedded_mqtt::packet::Packet::decode(rest)) {
            Ok(Status::Complete((length, _))) => {
                *rest = &rest[*length..];
                Step::Packet
            }
            Ok(Status::Partial(_)) => Step::Incomplete,
            Err(_) => Step::Refused,
        })
    }
}

pub(crate) fn encode_embedded_mqtt(bytes: &'static [u8]) -> Box<dyn Encoder> {
    let packets = packets(bytes, |rest, _| match embedded_mqtt::packet::Packet::decode(rest) {
        Ok(Status::Complete((_, packet))) => packet,
        other => unreachable!("{other:?}"),
    });
    let encode = |packet: &embedded_mqtt::packet::Packet<'_>, out: &mut [u8]| {
        packet.encode(out).expect("there is room")
    };
    Box::new(Slices { packets: packets.collect(), buffer: vec![0; bytes.len() + 16], length: 0, encode })
}

/// Without its executor, which costs 40 ns a packet.
#[derive(Default)]
pub(crate) struct MqttProto(Input);

impl Decoder for MqttProto {
    fn append(&mut self, bytes: &[u8]) {
        self.0.append(bytes);
    }

    fn decode(&mut self) -> Progress {
        self.0.decode(|rest| match frame(rest) {
            Some(framed @ (_, header, length)) => match black_box(&decode_mqtt_proto(rest, framed)) {
                Ok(_) => {
                    *rest = &rest[header + length..];
                    Step::Packet
                }
                Err(_) => Step::Refused,
            },
            None => incomplete(rest),
        })
    }
}

/// [`frame`] finds no end in a remaining length of five bytes; a decoder that relies on it refuses those.
fn incomplete(rest: &[u8]) -> Step {
    let endless = rest.len() >= 5 && rest[1..5].iter().all(|&byte| byte >= 0x80);
    if endless { Step::Refused } else { Step::Incomplete }
}

fn decode_mqtt_proto(
    bytes: &[u8],
    (first, header, length): (u8, usize, usize),
) -> Result<v3::Packet, mqtt_proto::Error> {
    let fixed = v3::Header::new_with(first, length as u32, (header + length) as u32)?;
    match fixed.build_empty_packet() {
        Some(packet) => Ok(packet),
        None => fixed.decode_buffer(&bytes[header..header + length], &mut 0),
    }
}

pub(crate) fn encode_mqtt_proto(bytes: &'static [u8]) -> Box<dyn Encoder> {
    let packets = packets(bytes, |rest, framed| decode_mqtt_proto(rest, framed).expect("it is good"));
    Box::new(Encoding { packets: packets.collect(), buffer: Vec::new(), encode: write_mqtt_proto })
}

/// Into the buffer, where its own `Packet::encode` would make a new one for every packet.
fn write_mqtt_proto(packet: &v3::Packet, out: &mut Vec<u8>) {
    let first = match packet {
        v3::Packet::Publish(publish) => {
            0x30 | u8::from(publish.dup) << 3 | (publish.qos_pid.qos() as u8) << 1 | u8::from(publish.retain)
        }
        v3::Packet::Connect(_) => 0x10,
        v3::Packet::Subscribe(_) => 0x82,
        v3::Packet::Suback(_) => 0x90,
        v3::Packet::Unsubscribe(_) => 0xA2,
        small => return out.extend_from_slice(small.encode().expect("it is small").as_ref()),
    };
    let mut write = |length: usize, body: &dyn Fn(&mut Vec<u8>)| {
        out.push(first);
        let mut rest = length;
        while rest > 0x7F {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
        body(out);
    };
    match packet {
        v3::Packet::Publish(body) => write(body.encode_len(), &|out| body.encode(out).expect("a Vec grows")),
        v3::Packet::Connect(body) => write(body.encode_len(), &|out| body.encode(out).expect("a Vec grows")),
        v3::Packet::Subscribe(body) => {
            write(body.encode_len(), &|out| body.encode(out).expect("a Vec grows"))
        }
        v3::Packet::Suback(body) => write(body.encode_len(), &|out| body.encode(out).expect("a Vec grows")),
        v3::Packet::Unsubscribe(body) => {
            write(body.encode_len(), &|out| body.encode(out).expect("a Vec grows"))
        }
        _ => {}
    }
}

/// The codec of mqtt-protocol-core, behind fixed headers that we split off: its own builder copies byte by byte.
#[derive(Default)]
pub(crate) struct ProtocolCore(Input);

impl Decoder for ProtocolCore {
    fn append(&mut self, bytes: &[u8]) {
        self.0.append(bytes);
    }

    fn decode(&mut self) -> Progress {
        self.0.decode(|rest| match frame(rest) {
            Some(framed @ (_, header, length)) => match black_box(&decode_protocol_core(rest, framed)) {
                Some(_) => {
                    *rest = &rest[header + length..];
                    Step::Packet
                }
                None => Step::Refused,
            },
            None => incomplete(rest),
        })
    }
}

fn decode_protocol_core(bytes: &[u8], (first, header, length): (u8, usize, usize)) -> Option<CorePacket> {
    let body = &bytes[header..header + length];
    let (packet, taken) = match first >> 4 {
        1 => v3_1_1::Connect::parse(body).map(|(packet, taken)| (CorePacket::from(packet), taken)),
        2 => v3_1_1::Connack::parse(body).map(|(packet, taken)| (packet.into(), taken)),
        3 => v3_1_1::Publish::parse(first & 0x0F, body.into()).map(|(packet, taken)| (packet.into(), taken)),
        4 => v3_1_1::Puback::parse(body).map(|(packet, taken)| (packet.into(), taken)),
        5 => v3_1_1::Pubrec::parse(body).map(|(packet, taken)| (packet.into(), taken)),
        6 => v3_1_1::Pubrel::parse(body).map(|(packet, taken)| (packet.into(), taken)),
        7 => v3_1_1::Pubcomp::parse(body).map(|(packet, taken)| (packet.into(), taken)),
        8 => v3_1_1::Subscribe::parse(body).map(|(packet, taken)| (packet.into(), taken)),
        9 => v3_1_1::Suback::parse(body).map(|(packet, taken)| (packet.into(), taken)),
        10 => v3_1_1::Unsubscribe::parse(body).map(|(packet, taken)| (packet.into(), taken)),
        11 => v3_1_1::Unsuback::parse(body).map(|(packet, taken)| (packet.into(), taken)),
        12 => v3_1_1::Pingreq::parse(body).map(|(packet, taken)| (packet.into(), taken)),
        13 => v3_1_1::Pingresp::parse(body).map(|(packet, taken)| (packet.into(), taken)),
        14 => v3_1_1::Disconnect::parse(body).map(|(packet, taken)| (packet.into(), taken)),
        _ => return None,
    }
    .ok()?;
    (taken == length).then_some(packet)
}

pub(crate) fn encode_protocol_core(bytes: &'static [u8]) -> Box<dyn Encoder> {
    let packets = packets(bytes, |rest, framed| decode_protocol_core(rest, framed).expect("it is good"));
    let encode = |packet: &CorePacket, out: &mut Vec<u8>| {
        for slice in packet.to_buffers() {
            out.extend_from_slice(&slice);
        }
    };
    Box::new(Encoding { packets: packets.collect(), buffer: Vec::new(), encode })
}
