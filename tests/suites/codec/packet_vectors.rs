//! The codec against `tests/vectors/packets_valid.json` and `packets_invalid.json`.

use devicebound::limits::REMAINING_LENGTH_MAX;
use devicebound::packet::ConnectReturnCode::{
    BadUserNameOrPassword, IdentifierRejected, NotAuthorized, ServerUnavailable, UnacceptableProtocolVersion,
};
use devicebound::packet::{
    ConnAck, Connect, ConnectReturnCode, Credentials, DecodeError, Decoded, Packet, PacketId, Publish,
    PublishQoS, QoS, SubAck, SubAckCode, Subscribe, Text, TopicFilter, TopicName, Unsubscribe, Will, decode,
};
use devicebound_world::vectors::{bytes, hex, load, name, text};
use serde_json::{Value, json};

/// Cases that are wrong only for who sends them: the machines refuse them, the codec does not know the sender.
const DIRECTION: [&str; 3] =
    ["direction-connack-to-hub", "direction-suback-to-hub", "direction-unsuback-to-hub"];

/// The return codes 1 to 5.
const REFUSALS: [ConnectReturnCode; 5] = [
    UnacceptableProtocolVersion,
    IdentifierRejected,
    ServerUnavailable,
    BadUserNameOrPassword,
    NotAuthorized,
];

#[test]
fn every_valid_case_decodes_to_its_fields() {
    for case in load("packets_valid") {
        let bytes = bytes(&case);
        let (packets, rest) = whole(&bytes);
        let packets: Vec<Value> = packets.iter().map(fields).collect();
        assert_eq!(packets, expected(&case), "{}", name(&case));
        assert_eq!(rest, hex(&rest_hex(&case)), "{}", name(&case));
    }
}

#[test]
fn decoded_packets_encode_to_the_bytes_that_they_came_from() {
    for case in load("packets_valid") {
        let bytes = bytes(&case);
        let (packets, rest) = whole(&bytes);
        let mut out = Vec::new();
        for packet in &packets {
            packet.encode(&mut out).expect("what was decoded can be encoded");
        }
        out.extend_from_slice(rest);
        if case["canonical"] == false {
            assert_ne!(out, bytes, "{}: the padding is gone", name(&case));
            assert_eq!(whole(&out).0, packets, "{}", name(&case));
        } else {
            assert_eq!(out, bytes, "{}", name(&case));
        }
    }
}

#[test]
fn the_fields_of_a_case_encode_to_its_bytes() {
    for case in load("packets_valid").iter().filter(|case| case["canonical"] != false) {
        let mut out = Vec::new();
        expected(case).iter().for_each(|fields| encode(fields, &mut out));
        out.extend(hex(&rest_hex(case)));
        assert_eq!(out, bytes(case), "{}", name(case));
    }
}

#[test]
fn valid_bytes_decode_to_the_same_packets_however_they_are_cut() {
    for case in load("packets_valid") {
        let bytes = bytes(&case);
        let whole = whole(&bytes).0;
        for at in cuts(&bytes) {
            let mut packets = Vec::new();
            let mut taken = 0;
            for end in [at, bytes.len()] {
                let mut input = &bytes[taken..end];
                packets.extend(drain(&mut input).expect("valid bytes"));
                taken = end - input.len();
            }
            assert_eq!(packets, whole, "{} cut at {at}", name(&case));
        }
    }
}

#[test]
fn valid_bytes_decode_to_the_same_packets_when_they_come_one_at_a_time() {
    for case in load("packets_valid") {
        let bytes = bytes(&case);
        let whole = whole(&bytes).0;
        let mut packets = Vec::new();
        let mut taken = 0;
        for end in 0..=bytes.len() {
            let mut input = &bytes[taken..end];
            packets.extend(drain(&mut input).expect("valid bytes"));
            taken = end - input.len();
        }
        assert_eq!(packets, whole, "{}", name(&case));
    }
}

#[test]
fn reading_as_many_bytes_as_are_asked_for_never_reads_past_the_packet() {
    for case in load("packets_valid").iter().filter(|case| case["decoded"].is_object()) {
        let bytes = bytes(case);
        let mut read = 0;
        let asked = loop {
            let mut input = &bytes[..read];
            match decode(&mut input, REMAINING_LENGTH_MAX).expect("valid bytes") {
                Decoded::Packet(_) => break read,
                Decoded::Incomplete { at_least } => {
                    assert_ne!(at_least, 0, "{}", name(case));
                    read += at_least;
                }
            }
        };
        assert_eq!(asked, bytes.len(), "{}", name(case));
    }
}

#[test]
fn every_invalid_case_is_refused_and_nothing_is_taken() {
    for case in refused() {
        let bytes = bytes(&case);
        let mut input = &bytes[..];
        let error = decode(&mut input, REMAINING_LENGTH_MAX).expect_err(name(&case));
        assert_eq!(input, bytes, "{}: nothing is taken", name(&case));
        assert!(
            error.at().start <= error.at().end && error.at().end <= bytes.len(),
            "{}: {error}",
            name(&case)
        );
    }
}

#[test]
fn a_refusal_names_the_statement_that_the_case_names() {
    for case in refused() {
        let bytes = bytes(&case);
        let rule = decode(&mut &bytes[..], REMAINING_LENGTH_MAX).expect_err(name(&case)).rule();
        let statement = case["statement"].as_str().expect("every refusal has its statement");
        if statement.starts_with("MQTT") && rule.id() != statement {
            let other_words = in_other_words(statement);
            assert!(other_words.contains(&rule.id()), "{}: {rule} for {statement}", name(&case));
        }
    }
}

/// Rules of ours that say what a statement says.
fn in_other_words(statement: &str) -> &'static [&'static str] {
    match statement {
        // Of one kind of packet, what is true of all.
        "MQTT-3.6.1-1" | "MQTT-3.8.1-1" | "MQTT-3.10.1-1" | "MQTT-3.14.1-1" => &["MQTT-2.2.2-2"],
        "MQTT-3.10.3-2" => &["MQTT-3.8.3-3", "MQTT-2.2.3-BODY"],
        // Of one field, what is true of all text.
        "MQTT-3.1.3-4" | "MQTT-3.1.3-10" | "MQTT-3.1.3-11" | "MQTT-3.3.2-1" | "MQTT-3.8.3-1"
        | "MQTT-3.10.3-1" => &["MQTT-1.5.3-1", "MQTT-1.5.3-2"],
        "MQTT-4.7.3-2" => &["MQTT-1.5.3-2"],
        "MQTT-4.7.1-1" => &["MQTT-3.3.2-2"],
        // Of one flag, what is true of three.
        "MQTT-3.1.2-13" | "MQTT-3.1.2-15" => &["MQTT-3.1.2-11"],
        // Which fields there are: with fewer or more, they do not fill the packet.
        "MQTT-2.3.1-1" | "MQTT-3.1.2-9" | "MQTT-3.1.2-11" | "MQTT-3.1.2-18" | "MQTT-3.1.2-19"
        | "MQTT-3.1.2-20" | "MQTT-3.1.2-21" | "MQTT-3.1.3-3" | "MQTT-3.1.4-1" | "MQTT-3.8.3-3" => {
            &["MQTT-2.2.3-BODY"]
        }
        "MQTT-3.8.4-5" => &["MQTT-3.9.3-2", "MQTT-2.2.3-BODY"],
        _ => &[],
    }
}

#[test]
fn a_refusal_does_not_depend_on_what_stands_behind_the_packet_nor_on_the_steps_in_which_it_came() {
    for case in refused() {
        let mut bytes = bytes(&case);
        let error = decode(&mut &bytes[..], REMAINING_LENGTH_MAX).expect_err(name(&case));
        let stepwise =
            (0..=bytes.len()).find_map(|end| match decode(&mut &bytes[..end], REMAINING_LENGTH_MAX) {
                Ok(Decoded::Incomplete { at_least }) => {
                    assert_ne!(at_least, 0);
                    None
                }
                other => Some(other),
            });
        assert_eq!(stepwise, Some(Err(error)), "{}", name(&case));
        for behind in [&[0x00; 64][..], &[0xFF; 64], b"\x30\x04\0\x01tx\xC0\0"] {
            let length = bytes.len();
            bytes.extend_from_slice(behind);
            assert_eq!(decode(&mut &bytes[..], REMAINING_LENGTH_MAX), Err(error), "{}", name(&case));
            bytes.truncate(length);
        }
    }
}

#[test]
fn every_incomplete_case_waits_at_every_byte() {
    for case in load("packets_invalid").iter().filter(|case| case["expect"] == "incomplete") {
        let bytes = bytes(case);
        for end in 0..=bytes.len() {
            match decode(&mut &bytes[..end], REMAINING_LENGTH_MAX) {
                Ok(Decoded::Incomplete { at_least }) => assert_ne!(at_least, 0, "{}", name(case)),
                other => panic!("{} after {end} bytes: {other:?}", name(case)),
            }
        }
    }
}

#[test]
fn packets_with_one_byte_changed_get_one_verdict_however_they_come_and_survive_a_round_trip() {
    let values = [0x00, 0x01, 0x02, 0x03, 0x05, 0x0F, b'#', b'+', b'/', 0x7F, 0x80, 0xC0, 0xED, 0xFF];
    for case in load("packets_valid").iter().chain(&load("packets_invalid")) {
        let original = bytes(case);
        for at in 0..original.len().min(64) {
            for value in values {
                let mut bytes = original.clone();
                bytes[at] = value;
                one_verdict(&bytes, &format!("{} with {value:#04x} at {at}", name(case)));
            }
        }
    }
}

fn one_verdict(bytes: &[u8], what: &str) {
    let mut behind = bytes;
    let verdict = decode(&mut behind, REMAINING_LENGTH_MAX);
    let mut stepwise = (0..bytes.len().min(512)).map(|end| decode(&mut &bytes[..end], REMAINING_LENGTH_MAX));
    let early = stepwise.find(|step| !matches!(step, Ok(Decoded::Incomplete { .. })));
    assert!(early.is_none_or(|early| early == verdict), "{what}: {verdict:?}");
    let Ok(Decoded::Packet(packet)) = verdict else {
        assert_eq!(behind, bytes, "{what}: nothing is taken");
        return;
    };
    let mut again = Vec::new();
    packet.encode(&mut again).expect("what was decoded can be encoded");
    assert!(again.len() <= bytes.len() - behind.len(), "{what}: only padding is lost");
    assert_eq!(whole(&again), (vec![packet], &[][..]), "{what}");
}

#[test]
fn what_is_wrong_only_for_its_sender_decodes() {
    for case in load("packets_invalid").iter().filter(|case| is_of_direction(case)) {
        let bytes = bytes(case);
        assert_eq!(whole(&bytes).0.len(), 1, "{}", name(case));
    }
}

fn is_of_direction(case: &Value) -> bool {
    DIRECTION.contains(&name(case))
}

fn refused() -> Vec<Value> {
    let mut cases = load("packets_invalid");
    cases.retain(|case| case["expect"] != "incomplete" && !is_of_direction(case));
    assert!(!cases.is_empty());
    cases
}

/// Takes whole packets off `input` until it holds none.
fn drain<'a>(input: &mut &'a [u8]) -> Result<Vec<Packet<'a>>, DecodeError> {
    let mut packets = Vec::new();
    while let Decoded::Packet(packet) = decode(input, REMAINING_LENGTH_MAX)? {
        packets.push(packet);
    }
    Ok(packets)
}

fn whole(bytes: &[u8]) -> (Vec<Packet<'_>>, &[u8]) {
    let mut rest = bytes;
    (drain(&mut rest).expect("valid bytes"), rest)
}

/// Every place to cut short bytes at; both ends and some places between of long ones.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let length = bytes.len();
    (0..=length).filter(move |at| length < 1024 || *at < 16 || length - at < 16 || at % 4099 == 0)
}

fn rest_hex(case: &Value) -> Value {
    if case["rest_hex"].is_null() { json!("") } else { case["rest_hex"].clone() }
}

/// The packets of a case, repeated text written out.
fn expected(case: &Value) -> Vec<Value> {
    let mut packets = match &case["decoded"] {
        Value::Null => case["decoded_stream"].as_array().expect("one of the two").clone(),
        packet => vec![packet.clone()],
    };
    packets.iter_mut().for_each(write_out);
    packets
}

fn write_out(value: &mut Value) {
    match value {
        Value::Object(members) if members.contains_key("repeat") => *value = text(value).into(),
        Value::Object(members) => members.values_mut().for_each(write_out),
        Value::Array(items) => items.iter_mut().for_each(write_out),
        _ => {}
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A packet as the vectors write it.
fn fields(packet: &Packet<'_>) -> Value {
    let numbered = |kind: &str, id: &PacketId| json!({"type": kind, "packet_id": id.get()});
    match packet {
        Packet::Connect(connect) => json!({
            "type": "connect", "protocol_name": "MQTT", "protocol_level": 4,
            "clean_session": connect.clean_session, "keep_alive": connect.keep_alive, "client_id": connect.client_id.as_str(),
            "will": connect.will.map(|will| json!({
                "topic": will.topic.as_str(), "payload_hex": digits(will.message),
                "qos": will.qos as u8, "retain": will.retain,
            })),
            "username": connect.credentials.map(|credentials| credentials.username.as_str()),
            "password_hex": connect.credentials.and_then(|credentials| credentials.password).map(digits),
        }),
        Packet::ConnAck(connack) => json!({
            "type": "connack", "session_present": connack.session_present(), "return_code": connack.return_code(),
        }),
        Packet::Publish(publish) => json!({
            "type": "publish", "dup": publish.qos.dup(), "qos": publish.qos.qos() as u8, "retain": publish.retain,
            "topic": publish.topic.as_str(), "packet_id": publish.qos.packet_id().map(PacketId::get),
            "payload_hex": digits(publish.payload),
        }),
        Packet::PubAck(id) => numbered("puback", id),
        Packet::PubRec(id) => numbered("pubrec", id),
        Packet::PubRel(id) => numbered("pubrel", id),
        Packet::PubComp(id) => numbered("pubcomp", id),
        Packet::UnsubAck(id) => numbered("unsuback", id),
        Packet::Subscribe(subscribe) => json!({
            "type": "subscribe", "packet_id": subscribe.packet_id().get(),
            "filters": subscribe.filters()
                .map(|(filter, qos)| json!({"filter": filter.as_str(), "qos": qos as u8})).collect::<Value>(),
        }),
        Packet::SubAck(suback) => json!({
            "type": "suback", "packet_id": suback.packet_id().get(),
            "return_codes": suback.return_codes().map(|code| match code {
                SubAckCode::Granted(qos) => qos as u8,
                SubAckCode::Failure => 0x80,
            }).collect::<Value>(),
        }),
        Packet::Unsubscribe(unsubscribe) => json!({
            "type": "unsubscribe", "packet_id": unsubscribe.packet_id().get(),
            "filters": unsubscribe.filters().map(|filter| filter.as_str()).collect::<Value>(),
        }),
        Packet::PingReq => json!({"type": "pingreq"}),
        Packet::PingResp => json!({"type": "pingresp"}),
        Packet::Disconnect => json!({"type": "disconnect"}),
    }
}

/// Encodes a packet as the vectors write it, from its fields alone.
fn encode(fields: &Value, out: &mut Vec<u8>) {
    let flag = |name: &str| fields[name].as_bool().expect("a flag");
    let qos = |value: &Value| QoS::from_bits(number(value) as u8).expect("a QoS");
    let id = || PacketId::new(number(&fields["packet_id"])).expect("a packet id");
    let filters = || fields["filters"].as_array().expect("a list");
    let packet = match fields["type"].as_str().expect("a type") {
        "connect" => {
            assert_eq!((&fields["protocol_name"], &fields["protocol_level"]), (&json!("MQTT"), &json!(4)));
            let will = &fields["will"];
            let message = if will.is_object() { hex(&will["payload_hex"]) } else { Vec::new() };
            let password = fields["password_hex"].is_string().then(|| hex(&fields["password_hex"]));
            let connect = Connect {
                clean_session: flag("clean_session"),
                keep_alive: number(&fields["keep_alive"]),
                client_id: Text::new(string(&fields["client_id"])).expect("text"),
                will: will.is_object().then(|| Will {
                    topic: TopicName::new(string(&will["topic"])).expect("a topic name"),
                    message: &message,
                    qos: qos(&will["qos"]),
                    retain: will["retain"] == true,
                }),
                credentials: fields["username"].as_str().map(|username| Credentials {
                    username: Text::new(username).expect("text"),
                    password: password.as_deref(),
                }),
            };
            return connect.encode(out).expect("a CONNECT");
        }
        "connack" => {
            let accepted = ConnAck::Accepted { session_present: flag("session_present") };
            Packet::ConnAck(match number(&fields["return_code"]) {
                0 => accepted,
                code => ConnAck::Refused(REFUSALS[usize::from(code) - 1]),
            })
        }
        "publish" => {
            let (dup, payload) = (flag("dup"), hex(&fields["payload_hex"]));
            let publish = Publish {
                qos: match number(&fields["qos"]) {
                    0 => PublishQoS::AtMostOnce,
                    1 => PublishQoS::AtLeastOnce { packet_id: id(), dup },
                    _ => PublishQoS::ExactlyOnce { packet_id: id(), dup },
                },
                retain: flag("retain"),
                topic: TopicName::new(string(&fields["topic"])).expect("a topic name"),
                payload: &payload,
            };
            return publish.encode(out).expect("a PUBLISH");
        }
        "subscribe" => {
            let filters: Vec<_> =
                filters().iter().map(|each| (filter(&each["filter"]), qos(&each["qos"]))).collect();
            return Subscribe::encode(id(), &filters, out).expect("a SUBSCRIBE");
        }
        "unsubscribe" => {
            let filters: Vec<_> = filters().iter().map(filter).collect();
            return Unsubscribe::encode(id(), &filters, out).expect("an UNSUBSCRIBE");
        }
        "suback" => {
            let codes = fields["return_codes"].as_array().expect("a list").iter();
            let codes = codes
                .map(|code| if *code == 0x80 { SubAckCode::Failure } else { SubAckCode::Granted(qos(code)) });
            return SubAck::encode(id(), codes, out).expect("a SUBACK");
        }
        "puback" => Packet::PubAck(id()),
        "pubrec" => Packet::PubRec(id()),
        "pubrel" => Packet::PubRel(id()),
        "pubcomp" => Packet::PubComp(id()),
        "unsuback" => Packet::UnsubAck(id()),
        "pingreq" => Packet::PingReq,
        "pingresp" => Packet::PingResp,
        "disconnect" => Packet::Disconnect,
        other => unreachable!("no packet is called {other}"),
    };
    packet.encode(out).expect("a packet without fields of any length");
}

fn filter(value: &Value) -> TopicFilter<'_> {
    TopicFilter::new(string(value)).expect("a topic filter")
}

fn string(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn number(value: &Value) -> u16 {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).expect("a number of 16 bits")
}
