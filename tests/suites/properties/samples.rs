//! Packets of all fourteen kinds, with nothing borrowed, and bytes that are nearly packets.

use devicebound::packet::{
    ConnAck, Connect, ConnectReturnCode, Credentials, Packet, PacketId, PacketType, Publish, PublishQoS, QoS,
    SubAck, SubAckCode, Subscribe, Text, TopicFilter, TopicName, Unsubscribe, Will, disconnect, pingreq,
    pingresp, puback, pubcomp, pubrec, pubrel, unsuback,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::text::{text, topic_filter, topic_name};

/// A packet as the public types take it, with nothing borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sample {
    Connect {
        clean_session: bool,
        keep_alive: u16,
        client_id: String,
        will: Option<(String, Vec<u8>, QoS, bool)>,
        credentials: Option<(String, Option<Vec<u8>>)>,
    },
    ConnAck(ConnAck),
    Publish {
        qos: PublishQoS,
        retain: bool,
        topic: String,
        payload: Vec<u8>,
    },
    Numbered(PacketType, PacketId),
    Subscribe(PacketId, Vec<(String, QoS)>),
    SubAck(PacketId, Vec<SubAckCode>),
    Unsubscribe(PacketId, Vec<String>),
    Bare(PacketType),
}

impl Sample {
    /// The same packet as it was decoded.
    pub(crate) fn of(packet: &Packet<'_>) -> Self {
        match packet {
            Packet::Connect(connect) => Self::Connect {
                clean_session: connect.clean_session,
                keep_alive: connect.keep_alive,
                client_id: connect.client_id.as_str().to_owned(),
                will: connect.will.map(|will| {
                    (will.topic.as_str().to_owned(), will.message.to_vec(), will.qos, will.retain)
                }),
                credentials: connect.credentials.map(|credentials| {
                    (credentials.username.as_str().to_owned(), credentials.password.map(<[u8]>::to_vec))
                }),
            },
            Packet::ConnAck(connack) => Self::ConnAck(*connack),
            Packet::Publish(publish) => Self::Publish {
                qos: publish.qos,
                retain: publish.retain,
                topic: publish.topic.as_str().to_owned(),
                payload: publish.payload.to_vec(),
            },
            Packet::PubAck(id)
            | Packet::PubRec(id)
            | Packet::PubRel(id)
            | Packet::PubComp(id)
            | Packet::UnsubAck(id) => Self::Numbered(packet.packet_type(), *id),
            Packet::Subscribe(subscribe) => Self::Subscribe(
                subscribe.packet_id(),
                subscribe.filters().map(|(filter, qos)| (filter.as_str().to_owned(), qos)).collect(),
            ),
            Packet::SubAck(suback) => Self::SubAck(suback.packet_id(), suback.return_codes().collect()),
            Packet::Unsubscribe(unsubscribe) => Self::Unsubscribe(
                unsubscribe.packet_id(),
                unsubscribe.filters().map(|filter| filter.as_str().to_owned()).collect(),
            ),
            Packet::PingReq | Packet::PingResp | Packet::Disconnect => Self::Bare(packet.packet_type()),
        }
    }

    /// The packet's bytes, from the encoder of its kind.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Connect { clean_session, keep_alive, client_id, will, credentials } => Connect {
                clean_session: *clean_session,
                keep_alive: *keep_alive,
                client_id: Text::new(client_id).expect("it is text"),
                will: will.as_ref().map(|(topic, message, qos, retain)| Will {
                    topic: name(topic),
                    message,
                    qos: *qos,
                    retain: *retain,
                }),
                credentials: credentials.as_ref().map(|(username, password)| Credentials {
                    username: Text::new(username).expect("it is text"),
                    password: password.as_deref(),
                }),
            }
            .encode(&mut out),
            Self::ConnAck(connack) => {
                connack.encode(&mut out);
                Ok(())
            }
            Self::Publish { qos, retain, topic, payload } => {
                Publish { qos: *qos, retain: *retain, topic: name(topic), payload }.encode(&mut out)
            }
            Self::Numbered(packet_type, id) => {
                numbered(*packet_type)(*id, &mut out);
                Ok(())
            }
            Self::Subscribe(id, filters) => {
                let filters: Vec<_> = filters.iter().map(|(text, qos)| (filter(text), *qos)).collect();
                Subscribe::encode(*id, &filters, &mut out)
            }
            Self::SubAck(id, codes) => SubAck::encode(*id, codes.iter().copied(), &mut out),
            Self::Unsubscribe(id, filters) => {
                let filters: Vec<_> = filters.iter().map(|text| filter(text)).collect();
                Unsubscribe::encode(*id, &filters, &mut out)
            }
            Self::Bare(PacketType::PingReq) => {
                pingreq(&mut out);
                Ok(())
            }
            Self::Bare(PacketType::PingResp) => {
                pingresp(&mut out);
                Ok(())
            }
            Self::Bare(_) => {
                disconnect(&mut out);
                Ok(())
            }
        }
        .expect("a sample keeps the rules");
        out
    }
}

fn name(text: &str) -> TopicName<'_> {
    TopicName::new(text).expect("a sample's topics are names")
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).expect("a sample's filters are filters")
}

fn numbered(packet_type: PacketType) -> fn(PacketId, &mut Vec<u8>) {
    match packet_type {
        PacketType::PubAck => puback,
        PacketType::PubRec => pubrec,
        PacketType::PubRel => pubrel,
        PacketType::PubComp => pubcomp,
        _ => unsuback,
    }
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("it is not 0"))
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

/// Bytes, now and then of a length at which the remaining length takes a byte more.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        80 => vec(any::<u8>(), 0..48),
        10 => (any::<u8>(), 100..130_usize).prop_map(|(byte, length)| vec![byte; length]),
        5 => (any::<u8>(), 16_300..16_400_usize).prop_map(|(byte, length)| vec![byte; length]),
        1 => (any::<u8>(), 2_097_050..2_097_160_usize).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

/// Bytes that a field with a length of two bytes can hold.
fn field() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => vec(any::<u8>(), 0..48),
        1 => (any::<u8>(), 65_500..=65_535_usize).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

fn connect() -> impl Strategy<Value = Sample> {
    let will = (topic_name(), field(), qos(), any::<bool>());
    let credentials = (text(), of(field()));
    (any::<bool>(), any::<u16>(), text(), of(will), of(credentials)).prop_map(
        |(clean, keep_alive, client_id, will, credentials)| Sample::Connect {
            clean_session: clean || client_id.is_empty(),
            keep_alive,
            client_id,
            will,
            credentials,
        },
    )
}

fn connack() -> impl Strategy<Value = Sample> {
    use ConnectReturnCode::*;
    let refusals = [
        UnacceptableProtocolVersion,
        IdentifierRejected,
        ServerUnavailable,
        BadUserNameOrPassword,
        NotAuthorized,
    ];
    let accepted = any::<bool>().prop_map(|session_present| ConnAck::Accepted { session_present });
    prop_oneof![accepted, select(refusals.to_vec()).prop_map(ConnAck::Refused)].prop_map(Sample::ConnAck)
}

fn publish() -> impl Strategy<Value = Sample> {
    let qos = prop_oneof![
        Just(PublishQoS::AtMostOnce),
        (packet_id(), any::<bool>()).prop_map(|(packet_id, dup)| PublishQoS::AtLeastOnce { packet_id, dup }),
        (packet_id(), any::<bool>()).prop_map(|(packet_id, dup)| PublishQoS::ExactlyOnce { packet_id, dup }),
    ];
    (qos, any::<bool>(), topic_name(), payload()).prop_map(|(qos, retain, topic, payload)| Sample::Publish {
        qos,
        retain,
        topic,
        payload,
    })
}

/// A packet of any kind.
pub(crate) fn sample() -> impl Strategy<Value = Sample> {
    use PacketType::*;
    let code = prop_oneof![qos().prop_map(SubAckCode::Granted), Just(SubAckCode::Failure)];
    prop_oneof![
        3 => connect(),
        1 => connack(),
        4 => publish(),
        2 => (select(&[PubAck, PubRec, PubRel, PubComp, UnsubAck][..]), packet_id())
            .prop_map(|(packet_type, id)| Sample::Numbered(packet_type, id)),
        2 => (packet_id(), vec((topic_filter(), qos()), 1..8))
            .prop_map(|(id, filters)| Sample::Subscribe(id, filters)),
        1 => (packet_id(), vec(code, 1..40)).prop_map(|(id, codes)| Sample::SubAck(id, codes)),
        2 => (packet_id(), vec(topic_filter(), 1..8)).prop_map(|(id, filters)| Sample::Unsubscribe(id, filters)),
        1 => select(&[PingReq, PingResp, Disconnect][..]).prop_map(Sample::Bare),
    ]
}

/// A packet of at most a few hundred bytes.
pub(crate) fn short_sample() -> impl Strategy<Value = Sample> {
    sample().prop_filter("a short one", |sample| sample.encode().len() <= 512)
}

/// Any bytes: noise, noise behind a first byte and a length that fit it, and packets with a few bytes changed, taken out
/// or put in.
pub(crate) fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let framed = (select(&FIRST[..]), vec(any::<u8>(), 0..64), 0..3_usize, vec(any::<u8>(), 0..8)).prop_map(
        |(first, body, padding, behind)| {
            [&[first][..], &length(body.len(), padding), &body, &behind].concat()
        },
    );
    let change = (any::<Index>(), 0..4_u8, prop_oneof![any::<u8>(), select(&SUSPECT[..])]);
    let changed = (vec(short_sample(), 1..3), vec(change, 0..4)).prop_map(|(samples, changes)| {
        let mut bytes: Vec<u8> = samples.iter().flat_map(Sample::encode).collect();
        for (at, kind, byte) in changes {
            let at = at.index(bytes.len() + 1);
            match kind {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 if at < bytes.len() => bytes[at] = byte,
                _ => bytes.truncate(at),
            }
        }
        bytes
    });
    prop_oneof![1 => vec(any::<u8>(), 0..64), 3 => framed, 6 => changed]
}

/// First bytes that start a packet.
const FIRST: [u8; 20] = [
    0x10, 0x20, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3A, 0x3C, 0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xA2,
    0xB0, 0xC0, 0xE0,
];
/// Bytes that are often wrong where they stand.
const SUSPECT: [u8; 10] = [0x00, 0x01, 0x02, 0x03, b'#', b'+', 0x7F, 0x80, 0xED, 0xFF];

/// A remaining length below 128 in `padding` more bytes than it needs.
pub(crate) fn length(length: usize, padding: usize) -> Vec<u8> {
    let low = u8::try_from(length).expect("the length takes one byte");
    let mut bytes = vec![0x80; padding + 1];
    bytes[padding] = 0;
    bytes[0] |= low;
    bytes
}
