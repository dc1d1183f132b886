//! What a guest says: bytes that no device machine sends, each kind named after its row in the list of faults.

use std::sync::LazyLock;
use std::time::Duration;

use devicebound::iothub::sas::{SymmetricKey, sign};
use devicebound::limits::REQUEST_ID_MAX;
use devicebound::packet::{
    Connect, Credentials, Packet, PacketId, Publish, PublishQoS, QoS, Subscribe, Text, TopicFilter,
    TopicName, pingreq,
};
use devicebound::time::UnixTime;

use super::Entropy;
use crate::fixtures::{HOST, KEYS};
use crate::vectors;

/// How long a guest's token is good: longer than wall clocks step.
const TOKEN: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A guest guesses at so many request ids of method calls.
const GUESSES: u16 = 40;

/// How it has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The hub closes when it has read that, or at the end of the time for a CONNECT.
    Closes,
    /// The hub does all that it is asked for, and answers the PINGREQ behind it.
    Serves,
    /// One of the two.
    Either,
}

/// What a guest says, and what has to come of it.
#[derive(Debug)]
pub(super) struct Visit {
    /// The mark that it leaves.
    pub(super) mark: &'static str,
    pub(super) bytes: Vec<u8>,
    /// A byte every five seconds.
    pub(super) dribbles: bool,
    /// It connects as the guest.
    pub(super) logs_in: bool,
    pub(super) end: End,
    /// Every answer to its twin requests is a refusal.
    pub(super) is_refused: bool,
}

impl Visit {
    pub(super) fn draw(entropy: &mut dyn Entropy, client_id: &str, now: UnixTime) -> Self {
        let connect = connect(client_id, now);
        let visit =
            |mark, end, bytes| Self { mark, bytes, dribbles: false, logs_in: true, end, is_refused: false };
        let anonymous = |mark, bytes| Self { logs_in: false, ..visit(mark, End::Closes, bytes) };
        let behind_connect = |mark, end, bytes: Vec<u8>| visit(mark, end, [connect.clone(), bytes].concat());
        match entropy.below(11) {
            0 => Self { dribbles: true, ..anonymous("guest: CONNECT a byte at a time", connect) },
            1 => anonymous("guest: 256 MiB announced", oversize(entropy)),
            2 => anonymous("guest: first packet is not CONNECT", no_connect(entropy)),
            3 => behind_connect("guest: a second CONNECT", End::Closes, connect.clone()),
            4 => {
                let (end, bytes) = subscriptions(entropy);
                behind_connect("guest: flood of SUBSCRIBEs", end, bytes)
            }
            5 => behind_connect("guest: packet ids again and strange", End::Serves, packet_ids(client_id)),
            6 => behind_connect("guest: topic bomb", End::Either, topic_bomb(entropy, client_id)),
            7 => Self {
                is_refused: true,
                ..behind_connect("guest: twin bomb", End::Serves, twin_bomb(entropy))
            },
            8 => behind_connect("guest: answers to foreign calls", End::Serves, foreign_answers()),
            9 => {
                let (end, bytes) = request_id_bomb(entropy);
                behind_connect("guest: request id bomb", end, bytes)
            }
            _ if entropy.one_in(2) => behind_connect("guest: invalid packet", End::Closes, invalid(entropy)),
            _ => {
                let session = spoilt(entropy, [vec![connect.clone()], session(client_id)].concat());
                visit("guest: recorded session, spoilt", End::Either, session)
            }
        }
    }
}

fn connect(client_id: &str, now: UnixTime) -> Vec<u8> {
    let key = SymmetricKey::from_base64(KEYS[0]).expect("the key is base64");
    let token = sign(&format!("{HOST}/devices/{client_id}"), &key, now.after(TOKEN), None);
    let username = format!("{HOST}/{client_id}/?api-version=2021-04-12");
    let text = |text| Text::new(text).expect("it is text");
    let credentials = Some(Credentials { username: text(&username), password: Some(token.as_bytes()) });
    let mut bytes = Vec::new();
    Connect { clean_session: false, keep_alive: 1177, client_id: text(client_id), will: None, credentials }
        .encode(&mut bytes)
        .expect("the fields are short");
    bytes
}

/// A3: the fixed header of a CONNECT, PUBLISH or SUBSCRIBE of 256 MiB.
fn oversize(entropy: &mut dyn Entropy) -> Vec<u8> {
    let first = [0x10, 0x30, 0x82][entropy.below(3) as usize];
    vec![first, 0xFF, 0xFF, 0xFF, 0x7F]
}

/// A6: a packet of another type, another protocol, noise.
fn no_connect(entropy: &mut dyn Entropy) -> Vec<u8> {
    let text: &[u8] = match entropy.below(16) {
        1 => b"GET / HTTP/1.1\r\nHost: hub.example.test\r\n\r\n",
        0 | 15 => &[21, 3, 1, 0, 2, 2, 40], // a TLS alert
        kind => return vec![u8::try_from(kind << 4).unwrap_or(0) | 2, 2, 0, 1],
    };
    text.to_vec()
}

/// B2: a hundred SUBSCRIBEs of thirty filters that the hub knows; or one of a hundred, or one that it does not know.
fn subscriptions(entropy: &mut dyn Entropy) -> (End, Vec<u8>) {
    const KNOWN: [&str; 3] =
        ["$iothub/twin/res/#", "$iothub/methods/POST/#", "$iothub/twin/PATCH/properties/desired/#"];
    let subscribe = |id: u16, filters: Vec<&'static str>| {
        let filters: Vec<_> = filters.into_iter().map(|text| (filter(text), QoS::AtLeastOnce)).collect();
        let mut bytes = Vec::new();
        Subscribe::encode(packet_id(id), &filters, &mut bytes).expect("it fits");
        bytes
    };
    match entropy.below(3) {
        0 => {
            let filters: Vec<_> = KNOWN.into_iter().cycle().take(30).collect();
            (End::Serves, and_ping((1..=100).flat_map(|id| subscribe(id, filters.clone())).collect()))
        }
        1 => (End::Closes, subscribe(1, KNOWN.into_iter().cycle().take(100).collect())),
        _ => (End::Closes, subscribe(1, vec!["devices/dev0/messages/devicebound/#"])),
    }
}

/// B5: one packet id many times, with and without DUP, and PUBACKs that nobody waits for, twice.
fn packet_ids(client_id: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for round in 0..40 {
        let qos = PublishQoS::AtLeastOnce { packet_id: packet_id(7), dup: round % 2 == 1 };
        publish(qos, &format!("devices/{client_id}/messages/events/"), b"again", &mut bytes);
        for _ in 0..2 {
            Packet::PubAck(packet_id(1000 + round)).encode(&mut bytes).expect("it fits");
        }
    }
    and_ping(bytes)
}

/// B6: topics as long as they can be, of slashes, of names, of pairs, of percent signs.
fn topic_bomb(entropy: &mut dyn Entropy, client_id: &str) -> Vec<u8> {
    let events = format!("devices/{client_id}/messages/events/");
    let tail = match entropy.below(5) {
        0 => "/".repeat(65_000),
        1 => "a=b&".repeat(16_000),
        2 => format!("{}=1", "k".repeat(60_000)),
        3 => "%41".repeat(20_000),
        _ => "%".repeat(60_000),
    };
    let mut bytes = Vec::new();
    let qos = PublishQoS::AtLeastOnce { packet_id: packet_id(1), dup: false };
    publish(qos, &format!("{events}{tail}"), b"bomb", &mut bytes);
    and_ping(bytes)
}

/// B6: a twin request whose answer repeats a request id as long as it can be, or one that is longer.
fn request_id_bomb(entropy: &mut dyn Entropy) -> (End, Vec<u8>) {
    let (end, length) = match entropy.below(3) {
        0 => (End::Serves, REQUEST_ID_MAX),
        1 => (End::Closes, REQUEST_ID_MAX + 1),
        _ => (End::Closes, 65_000),
    };
    let mut bytes = Vec::new();
    let filters = [(filter("$iothub/twin/res/#"), QoS::AtMostOnce)];
    Subscribe::encode(packet_id(1), &filters, &mut bytes).expect("it fits");
    let topic = format!("$iothub/twin/GET/?$rid={}", "r".repeat(length));
    publish(PublishQoS::AtMostOnce, &topic, b"", &mut bytes);
    (end, and_ping(bytes))
}

/// B7: reported properties that no twin takes: too deep, too long, too many, no text.
fn twin_bomb(entropy: &mut dyn Entropy) -> Vec<u8> {
    let bomb = match entropy.below(6) {
        0 => "{\"a\":\"\\ud800\"}".to_owned(),
        1 => format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)),
        2 => format!("{}1{}", "{\"a\":".repeat(40_000), "}".repeat(40_000)),
        3 => format!("{{\"a\":{}}}", "9".repeat(200_000)),
        4 => format!("{{\"a\":\"{}\"}}", "x".repeat(32_769)),
        _ => format!("{{{}}}", (0..20_000).map(|key| format!("\"k{key}\":1")).collect::<Vec<_>>().join(",")),
    };
    let mut bytes = Vec::new();
    let filters = [(filter("$iothub/twin/res/#"), QoS::AtMostOnce)];
    Subscribe::encode(packet_id(1), &filters, &mut bytes).expect("it fits");
    let topic = "$iothub/twin/PATCH/properties/reported/?$rid=1";
    publish(PublishQoS::AtMostOnce, topic, bomb.as_bytes(), &mut bytes);
    and_ping(bytes)
}

/// B10: answers to calls of other devices and to none, twice each.
fn foreign_answers() -> Vec<u8> {
    let mut bytes = Vec::new();
    for rid in (0..GUESSES).chain(0..GUESSES) {
        let topic = format!("$iothub/methods/res/200/?$rid={rid}");
        publish(PublishQoS::AtMostOnce, &topic, b"{\"guest\":true}", &mut bytes);
    }
    and_ping(bytes)
}

/// C4: a packet from the vectors that no device may send.
fn invalid(entropy: &mut dyn Entropy) -> Vec<u8> {
    static INVALID: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let mut cases = vectors::load("packets_invalid");
        cases.retain(|case| case["from"] != "server" && case["expect"] != "incomplete");
        cases.iter().map(vectors::bytes).collect()
    });
    INVALID[entropy.below(u32::try_from(INVALID.len()).unwrap_or(1)) as usize].clone()
}

/// C5: what a device says, packet by packet.
fn session(client_id: &str) -> Vec<Vec<u8>> {
    let mut packets = vec![Vec::new(); 4];
    let filters =
        ["$iothub/twin/res/#", "$iothub/methods/POST/#"].map(|text| (filter(text), QoS::AtLeastOnce));
    Subscribe::encode(packet_id(1), &filters, &mut packets[0]).expect("it fits");
    let events = format!("devices/{client_id}/messages/events/a=b");
    let qos = PublishQoS::AtLeastOnce { packet_id: packet_id(2), dup: false };
    publish(qos, &events, b"spoilt", &mut packets[1]);
    publish(PublishQoS::AtMostOnce, "$iothub/twin/GET/?$rid=1", b"", &mut packets[2]);
    pingreq(&mut packets[3]);
    packets
}

/// A recorded session with a bit turned, its end missing, a packet twice, or two packets in the wrong order.
fn spoilt(entropy: &mut dyn Entropy, mut packets: Vec<Vec<u8>>) -> Vec<u8> {
    let count = u32::try_from(packets.len()).unwrap_or(1);
    match entropy.below(4) {
        0 => {
            let mut bytes = packets.concat();
            let bit = entropy.below(u32::try_from(bytes.len() * 8).unwrap_or(8));
            bytes[bit as usize / 8] ^= 1 << (bit % 8);
            bytes
        }
        1 => {
            let mut bytes = packets.concat();
            bytes.truncate(entropy.below(u32::try_from(bytes.len()).unwrap_or(1)) as usize);
            bytes
        }
        2 => {
            let twice = entropy.below(count) as usize;
            packets.insert(twice, packets[twice].clone());
            packets.concat()
        }
        _ => {
            packets.swap(entropy.below(count) as usize, entropy.below(count) as usize);
            packets.concat()
        }
    }
}

fn and_ping(mut bytes: Vec<u8>) -> Vec<u8> {
    pingreq(&mut bytes);
    bytes
}

fn publish(qos: PublishQoS, topic: &str, payload: &[u8], out: &mut Vec<u8>) {
    let topic = TopicName::new(topic).expect("it is a topic name");
    Publish { qos, retain: false, topic, payload }.encode(out).expect("it fits");
}

fn packet_id(number: u16) -> PacketId {
    PacketId::new(number).expect("a guest does not ask for 0")
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).expect("it is a filter")
}
