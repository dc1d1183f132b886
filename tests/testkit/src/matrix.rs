//! The accept/reject matrix: what MQTT 3.1.1 tells a receiver to take and to refuse, one packet per case.

use Expectation::{Accept, Either, Reject};

/// What the standard tells a receiver to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// To take the packet.
    Accept,
    /// To refuse it.
    Reject,
    /// Neither.
    Either,
}

/// One packet, and what is to become of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// Statement or section of MQTT 3.1.1.
    pub clause: &'static str,
    /// What is special about it.
    pub name: &'static str,
    /// What is to become of it.
    pub expectation: Expectation,
    /// The packet, and in one case a good one behind it.
    pub bytes: Vec<u8>,
}

/// Every case.
#[must_use]
pub fn cases() -> Vec<Case> {
    [accepted(), texts(), publishes(), fixed_headers(), connects(), filters(), acknowledgements()].concat()
}

fn case(clause: &'static str, name: &'static str, expectation: Expectation, bytes: Vec<u8>) -> Case {
    Case { clause, name, expectation, bytes }
}

fn packet(first: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    assert!(body.len() < 128, "one byte says how long it is");
    [&[first, body.len() as u8][..], &body].concat()
}

fn field(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn publish(topic: &[u8]) -> Vec<u8> {
    packet(0x32, &[&field(topic), &[0, 1], b"payload"])
}

fn subscribe(filter: &[u8]) -> Vec<u8> {
    packet(0x82, &[&[0, 1], &field(filter), &[1]])
}

/// Flags, and the fields that belong to them.
fn connect(flags: u8, fields: &[&[u8]]) -> Vec<u8> {
    let fields: Vec<u8> = fields.iter().flat_map(|bytes| field(bytes)).collect();
    packet(0x10, &[b"\0\x04MQTT\x04", &[flags, 0, 60], &fields])
}

fn accepted() -> Vec<Case> {
    vec![
        case("§3.3", "PUBLISH at QoS 1", Accept, publish(b"a/b")),
        case("§1.5.3", "topic of é, 日 and U+1F600", Accept, publish("é/日/\u{1F600}".as_bytes())),
        case("MQTT-1.5.3-3", "U+FEFF in a topic", Accept, publish("a\u{FEFF}b".as_bytes())),
        case("§1.5.3", "U+0001 in a topic", Either, publish(b"a\x01b")),
        case("§3.3.3", "no payload", Accept, packet(0x32, &[&field(b"a/b"), &[0, 1]])),
        case(
            "§3.1",
            "CONNECT with everything",
            Accept,
            connect(0xEE, &[b"dev", b"will/topic", b"gone", b"user", b"password"]),
        ),
        case("§3.8", "SUBSCRIBE to one filter", Accept, subscribe(b"a/+/#")),
    ]
}

fn texts() -> Vec<Case> {
    vec![
        case("MQTT-1.5.3-1", "byte FF in a topic", Reject, publish(b"a\xFFb")),
        case("MQTT-1.5.3-1", "overlong C0 80 in a topic", Reject, publish(b"a\xC0\x80b")),
        case("MQTT-1.5.3-1", "surrogate ED A0 80 in a topic", Reject, publish(b"a\xED\xA0\x80b")),
        case("MQTT-1.5.3-2", "U+0000 in a topic", Reject, publish(b"a\0b")),
        case("MQTT-1.5.3-2", "U+0000 in a filter", Reject, subscribe(b"a\0b")),
        case("MQTT-1.5.3-2", "U+0000 in a client id", Reject, connect(2, &[b"d\0v"])),
    ]
}

fn publishes() -> Vec<Case> {
    let good = publish(b"next");
    let into_next = [&[0x32, 7, 0, 20][..], b"a/b", &[0, 1], &good, &good].concat();
    vec![
        case("MQTT-3.3.2-2", "+ in a topic", Reject, publish(b"a/+")),
        case("MQTT-3.3.2-2", "# in a topic", Reject, publish(b"a/#")),
        case("MQTT-4.7.3-1", "empty topic", Reject, publish(b"")),
        case("MQTT-3.3.1-4", "PUBLISH at QoS 3", Reject, packet(0x36, &[&field(b"a/b"), &[0, 1]])),
        case("MQTT-3.3.1-2", "DUP at QoS 0", Reject, packet(0x38, &[&field(b"a/b"), b"payload"])),
        case("MQTT-2.3.1-1", "PUBLISH with packet id 0", Reject, packet(0x32, &[&field(b"a/b"), &[0, 0]])),
        case("§3.3.2", "PUBLISH too short for its packet id", Reject, packet(0x32, &[&field(b"a/b"), &[1]])),
        case("§1.5.3", "topic past the end of the packet", Reject, packet(0x32, &[&[0, 9], b"a/b", &[0, 1]])),
        case("§1.5.3", "topic into the next packet", Reject, into_next),
    ]
}

fn fixed_headers() -> Vec<Case> {
    vec![
        case("MQTT-2.2.2-2", "PUBACK with flags 1", Reject, packet(0x41, &[&[0, 1]])),
        case("MQTT-2.2.2-2", "PINGREQ with flags 1", Reject, packet(0xC1, &[])),
        case("MQTT-3.6.1-1", "PUBREL with flags 0", Reject, packet(0x60, &[&[0, 1]])),
        case("MQTT-3.8.1-1", "SUBSCRIBE with flags 0", Reject, packet(0x80, &[&[0, 1], &field(b"a"), &[1]])),
        case("MQTT-3.10.1-1", "UNSUBSCRIBE with flags 0", Reject, packet(0xA0, &[&[0, 1], &field(b"a")])),
        case("§2.2.1", "packet type 0", Reject, packet(0x00, &[])),
        case("§2.2.1", "packet type 15", Reject, packet(0xF0, &[])),
        case("MQTT-2.3.1-1", "PUBACK with packet id 0", Reject, packet(0x40, &[&[0, 0]])),
        case(
            "MQTT-2.3.1-1",
            "SUBSCRIBE with packet id 0",
            Reject,
            packet(0x82, &[&[0, 0], &field(b"a"), &[1]]),
        ),
        case("§2.2.3", "remaining length of five bytes", Reject, vec![0x40, 0x82, 0x80, 0x80, 0x80, 0, 0, 1]),
        case("§2.2.3", "padded remaining length 82 00", Either, vec![0x40, 0x82, 0, 0, 1]),
        case("§3.4", "PUBACK with a byte too many", Reject, packet(0x40, &[&[0, 1, 0]])),
        case("§3.4", "PUBACK of one byte", Reject, packet(0x40, &[&[1]])),
        case("§3.12", "PINGREQ with a body", Reject, packet(0xC0, &[&[0]])),
        case("§3.14", "DISCONNECT with a body", Reject, packet(0xE0, &[&[0]])),
    ]
}

fn connects() -> Vec<Case> {
    let named = |name: &[u8], level| packet(0x10, &[&field(name), &[level, 2, 0, 60], &field(b"dev")]);
    let trailing = packet(0x10, &[b"\0\x04MQTT\x04\x02\0\x3C", &field(b"dev"), b"x"]);
    vec![
        case("MQTT-3.1.2-1", "protocol name MXTT", Reject, named(b"MXTT", 4)),
        case("MQTT-3.1.2-2", "protocol level 9", Reject, named(b"MQTT", 9)),
        case("MQTT-3.1.2-3", "reserved connect flag", Reject, connect(0x03, &[b"dev"])),
        case("MQTT-3.1.2-13", "will QoS without a will", Reject, connect(0x0A, &[b"dev"])),
        case("MQTT-3.1.2-15", "will retain without a will", Reject, connect(0x22, &[b"dev"])),
        case("MQTT-3.1.2-14", "will at QoS 3", Reject, connect(0x1E, &[b"dev", b"will", b"gone"])),
        case("MQTT-3.1.2-22", "password without a user name", Reject, connect(0x42, &[b"dev", b"password"])),
        case("MQTT-3.1.3-8", "empty client id, session kept", Either, connect(0x00, &[b""])),
        case("§3.1", "CONNECT with a byte too many", Reject, trailing),
        case("MQTT-3.3.2-2", "# in the will's topic", Reject, connect(0x06, &[b"dev", b"will/#", b"gone"])),
    ]
}

fn filters() -> Vec<Case> {
    vec![
        case("MQTT-3.8.3-3", "SUBSCRIBE without a filter", Reject, packet(0x82, &[&[0, 1]])),
        case("MQTT-3.8.3-4", "QoS 3 asked for", Reject, packet(0x82, &[&[0, 1], &field(b"a"), &[3]])),
        case(
            "MQTT-3.8.3-4",
            "reserved bits of the QoS asked for",
            Reject,
            packet(0x82, &[&[0, 1], &field(b"a"), &[0x81]]),
        ),
        case("MQTT-4.7.1-2", "filter a/#/b", Reject, subscribe(b"a/#/b")),
        case("MQTT-4.7.1-3", "filter a+/b", Reject, subscribe(b"a+/b")),
        case("MQTT-4.7.3-1", "empty filter", Reject, subscribe(b"")),
        case("§3.8.3", "filter without its QoS", Reject, packet(0x82, &[&[0, 1], &field(b"a")])),
        case("MQTT-3.10.3-2", "UNSUBSCRIBE without a filter", Reject, packet(0xA2, &[&[0, 1]])),
    ]
}

fn acknowledgements() -> Vec<Case> {
    vec![
        case("MQTT-3.9.3-2", "SUBACK with return code 3", Reject, packet(0x90, &[&[0, 1, 3]])),
        case("§3.2.2", "CONNACK with reserved flags", Reject, packet(0x20, &[&[2, 0]])),
        case("MQTT-3.2.2-4", "CONNACK refuses, session present", Reject, packet(0x20, &[&[1, 5]])),
        case("§3.2.2", "CONNACK with return code 6", Reject, packet(0x20, &[&[0, 6]])),
        case("§3.2", "CONNACK with a byte too many", Reject, packet(0x20, &[&[0, 0, 0]])),
    ]
}
