//! Us, the peers and the limits behind one interface: bytes in and whole packets out, and back.
//!
//! Each is used as its documentation says, at its fastest. A packet is looked at where its decoder puts it, and
//! dropped at once.

mod borrowing;
mod bytes_based;
mod limits;
mod ntex;

/// What a decoder made of the bytes that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Whole packets.
    pub(crate) packets: usize,
    /// What comes next is refused.
    pub(crate) refused: bool,
}

/// What stands at the front of the bytes.
enum Step {
    Packet,
    Incomplete,
    Refused,
}

impl Progress {
    /// Takes packets until there is no whole one.
    #[inline]
    fn of(mut step: impl FnMut() -> Step) -> Self {
        let mut packets = 0;
        loop {
            match step() {
                Step::Packet => packets += 1,
                Step::Incomplete => return Self { packets, refused: false },
                Step::Refused => return Self { packets, refused: true },
            }
        }
    }
}

/// A decoder, with the buffer that it receives into.
pub(crate) trait Decoder {
    /// Bytes have come.
    fn append(&mut self, bytes: &[u8]);

    /// Takes all whole packets.
    fn decode(&mut self) -> Progress;

    /// Takes `bytes` in chunks of `size`, and what is whole after each; gives the number of packets.
    fn stream(&mut self, bytes: &[u8], size: usize) -> usize {
        let mut packets = 0;
        for chunk in bytes.chunks(size) {
            self.append(chunk);
            packets += self.decode().packets;
        }
        packets
    }
}

/// An encoder, with the packets that it writes and the buffer that it writes them to.
pub(crate) trait Encoder {
    /// Empties the buffer, and gets what [`encode`](Self::encode) uses up.
    fn prepare(&mut self);

    /// Writes all packets.
    fn encode(&mut self);

    /// What was written.
    fn written(&self) -> Vec<u8>;
}

/// Whose time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Us,
    Peer,
    Limit,
    /// Another way of ours, which is not compared.
    Other,
}

pub(crate) type NewDecoder = fn() -> Box<dyn Decoder>;
/// An encoder of the packets that these bytes are.
pub(crate) type NewEncoder = fn(&'static [u8]) -> Box<dyn Encoder>;

fn new<D: Decoder + Default + 'static>() -> Box<dyn Decoder> {
    Box::new(D::default())
}

/// Us first, then the peers, then the limits.
pub(crate) const DECODERS: [(&str, Kind, NewDecoder); 12] = [
    ("devicebound", Kind::Us, new::<borrowing::Us>),
    ("mqttbytes", Kind::Peer, new::<bytes_based::Mqttbytes>),
    ("rumqttc", Kind::Peer, new::<bytes_based::Rumqttc>),
    ("rumqttd", Kind::Peer, new::<bytes_based::Rumqttd>),
    ("rmqtt-codec", Kind::Peer, new::<bytes_based::Rmqtt>),
    ("ntex-mqtt", Kind::Peer, new::<ntex::Ntex>),
    ("mqttrs", Kind::Peer, new::<borrowing::Mqttrs>),
    ("embedded-mqtt", Kind::Peer, new::<borrowing::EmbeddedMqtt>),
    ("mqtt-proto", Kind::Peer, new::<borrowing::MqttProto>),
    ("mqtt-protocol-core", Kind::Peer, new::<borrowing::ProtocolCore>),
    ("header scan", Kind::Limit, new::<limits::Scan>),
    ("memcpy", Kind::Limit, new::<limits::Copy>),
];

/// In the same order.
pub(crate) const ENCODERS: [(&str, Kind, NewEncoder); 13] = [
    ("devicebound", Kind::Us, borrowing::encode_ours),
    ("devicebound, payload by reference", Kind::Other, borrowing::encode_our_heads),
    ("mqttbytes", Kind::Peer, bytes_based::encode_mqttbytes),
    ("rumqttc", Kind::Peer, bytes_based::encode_rumqttc),
    ("rumqttd", Kind::Peer, bytes_based::encode_rumqttd),
    ("rmqtt-codec", Kind::Peer, bytes_based::encode_rmqtt),
    ("ntex-mqtt", Kind::Peer, ntex::encode),
    ("mqttrs", Kind::Peer, borrowing::encode_mqttrs),
    ("embedded-mqtt", Kind::Peer, borrowing::encode_embedded_mqtt),
    ("mqtt-proto", Kind::Peer, borrowing::encode_mqtt_proto),
    ("mqtt-protocol-core", Kind::Peer, borrowing::encode_protocol_core),
    ("frame copy", Kind::Limit, limits::copy_frames),
    ("memcpy", Kind::Limit, limits::copy_all),
];

/// First byte, size of the fixed header and remaining length of the packet at the front, for decoders that want them
/// found out by someone else; `None` where there is no whole packet.
#[inline]
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let mut length = 0;
    for (index, &byte) in bytes.get(1..)?.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            let header = index + 2;
            return (bytes.len() - header >= length).then_some((bytes[0], header, length));
        }
    }
    None
}

/// An encoder made of packets, a buffer, and what writes the one to the other.
struct Encoding<P, B, F> {
    packets: Vec<P>,
    buffer: B,
    encode: F,
}
