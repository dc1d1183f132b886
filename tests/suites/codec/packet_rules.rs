//! Which rule each kind of wrong packet breaks, and where: the accept and reject matrix of the codec.

use std::ops::Range;

use devicebound::Rule;
use devicebound::limits::REMAINING_LENGTH_MAX;
use devicebound::packet::{Decoded, PacketType, decode};

#[test]
fn right_packets_are_taken_whole() {
    use PacketType::{ConnAck, Connect, PingReq, PubAck, Publish, SubAck, Subscribe, Unsubscribe};
    let taken: [(&str, &[u8], PacketType); 17] = [
        ("PUBLISH at QoS 1", b"\x32\x06\0\x01t\0\x01x", Publish),
        ("PUBLISH at QoS 1, DUP", b"\x3A\x06\0\x01t\0\x01x", Publish),
        ("PUBLISH without payload", b"\x30\x03\0\x01t", Publish),
        ("topic with é, 日 and U+1F600", b"\x30\x0B\0\x09\xC3\xA9\xE6\x97\xA5\xF0\x9F\x98\x80", Publish),
        ("topic with U+FEFF", b"\x30\x06\0\x04\xEF\xBB\xBFt", Publish),
        ("topic with U+0001", b"\x30\x04\0\x02\x01t", Publish),
        ("topic with U+FFFF", b"\x30\x05\0\x03\xEF\xBF\xBF", Publish),
        ("padded remaining length", b"\x40\x82\x80\x80\0\0\x01", PubAck),
        ("padded PINGREQ", b"\xC0\x80\x80\x80\0", PingReq),
        (
            "CONNECT with all fields",
            b"\x10\x1A\0\x04MQTT\x04\xE6\0<\0\x01d\0\x01t\0\x01m\0\x01u\0\x02pw",
            Connect,
        ),
        ("CONNECT with empty fields", b"\x10\x15\0\x04MQTT\x04\xC6\0<\0\0\0\x01t\0\0\0\0\0\0", Connect),
        ("keep alive 0", b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01d", Connect),
        ("CONNACK with session present", b"\x20\x02\x01\0", ConnAck),
        ("CONNACK 5", b"\x20\x02\0\x05", ConnAck),
        ("SUBSCRIBE with all wildcards", b"\x82\x0D\0\x01\0\x04+/+/\x02\0\x01#\x01", Subscribe),
        ("UNSUBSCRIBE", b"\xA2\x08\0\x01\0\x04/+/#", Unsubscribe),
        ("SUBACK with all codes", b"\x90\x06\0\x01\0\x01\x02\x80", SubAck),
    ];
    for (what, bytes, packet_type) in taken {
        let mut input = bytes;
        match decode(&mut input, REMAINING_LENGTH_MAX) {
            Ok(Decoded::Packet(packet)) => assert_eq!(packet.packet_type(), packet_type, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert!(input.is_empty(), "{what}");
    }
}

#[test]
fn wrong_packets_are_refused_by_rule_and_place() {
    use Rule::*;
    let refused: [(&str, &[u8], Rule, Range<usize>); 77] = [
        // The fixed header
        ("type 0", b"\0", PacketType, 0..1),
        ("type 15", b"\xF0", PacketType, 0..1),
        ("CONNECT with flags", b"\x11", FixedHeaderFlags, 0..1),
        ("CONNACK with flags", b"\x21", FixedHeaderFlags, 0..1),
        ("PUBACK with flags", b"\x42", FixedHeaderFlags, 0..1),
        ("PUBREL without its flags", b"\x60", FixedHeaderFlags, 0..1),
        ("SUBSCRIBE without its flags", b"\x80", FixedHeaderFlags, 0..1),
        ("UNSUBSCRIBE without its flags", b"\xA0", FixedHeaderFlags, 0..1),
        ("PINGREQ with flags", b"\xC1", FixedHeaderFlags, 0..1),
        ("DISCONNECT with flags", b"\xE8", FixedHeaderFlags, 0..1),
        ("PUBLISH at QoS 3", b"\x36", Qos3, 0..1),
        ("PUBLISH at QoS 3, DUP", b"\x3F", Qos3, 0..1),
        ("PUBLISH at QoS 0, DUP", b"\x38", DupAtQos0, 0..1),
        ("remaining length of five bytes", b"\x30\x80\x80\x80\x80", RemainingLength, 1..5),
        ("CONNACK, one byte too long", b"\x20\x03", BodyLength, 1..2),
        ("PUBACK, one byte too short", b"\x40\x01", BodyLength, 1..2),
        ("PUBACK, one byte too long", b"\x40\x83\0", BodyLength, 1..3),
        ("PUBREC without its packet id", b"\x50\0", BodyLength, 1..2),
        ("UNSUBACK with return codes", b"\xB0\x03", BodyLength, 1..2),
        ("PINGREQ with a body", b"\xC0\x01", BodyLength, 1..2),
        ("DISCONNECT of MQTT 5", b"\xE0\x02", BodyLength, 1..2),
        // CONNECT
        ("CONNECT without a body", b"\x10\0", BodyLength, 2..2),
        ("protocol name too long for the packet", b"\x10\x04\0\x04MQ", BodyLength, 2..6),
        ("protocol name MXTT", b"\x10\x0D\0\x04MXTT\x04\x02\0<\0\x01d", ProtocolName, 4..8),
        ("no protocol name", b"\x10\x03\0\0\x04", ProtocolName, 4..4),
        ("MQTT 3.1", b"\x10\x0F\0\x06MQIsdp\x03\x02\0<\0\x01d", ProtocolLevel, 4..10),
        ("MQTT 5", b"\x10\x0D\0\x04MQTT\x05\x01\0<\0\x01d", ProtocolLevel, 8..9),
        ("protocol level missing", b"\x10\x06\0\x04MQTT", BodyLength, 8..8),
        ("connect flags missing", b"\x10\x07\0\x04MQTT\x04", BodyLength, 9..9),
        ("half a keep alive", b"\x10\x09\0\x04MQTT\x04\x02\0", BodyLength, 10..11),
        ("client id missing", b"\x10\x0A\0\x04MQTT\x04\x02\0<", BodyLength, 12..12),
        ("reserved connect flag", b"\x10\x0D\0\x04MQTT\x04\x03\0<\0\x01d", ConnectReserved, 9..10),
        ("will QoS without a will", b"\x10\x0D\0\x04MQTT\x04\x0A\0<\0\x01d", WillFlags, 9..10),
        ("will retain without a will", b"\x10\x0D\0\x04MQTT\x04\x22\0<\0\x01d", WillFlags, 9..10),
        ("will QoS 3", b"\x10\x13\0\x04MQTT\x04\x1E\0<\0\x01d\0\x01t\0\x01m", WillQos, 9..10),
        (
            "password without user name",
            b"\x10\x10\0\x04MQTT\x04\x42\0<\0\x01d\0\x01p",
            PasswordWithoutUsername,
            9..10,
        ),
        ("U+0000 in the client id", b"\x10\x0E\0\x04MQTT\x04\x02\0<\0\x02d\0", Utf8Nul, 15..16),
        ("client id not UTF-8", b"\x10\x0E\0\x04MQTT\x04\x02\0<\0\x02d\xFF", Utf8IllFormed, 15..16),
        ("U+0000 in the user name", b"\x10\x10\0\x04MQTT\x04\x82\0<\0\x01d\0\x01\0", Utf8Nul, 17..18),
        ("empty client id, session kept", b"\x10\x0C\0\x04MQTT\x04\0\0<\0\0", EmptyClientId, 12..14),
        ("empty client id, and a byte too many", b"\x10\x0D\0\x04MQTT\x04\0\0<\0\0\0", BodyLength, 14..15),
        ("bytes behind the client id", b"\x10\x0F\0\x04MQTT\x04\x02\0<\0\x01d\0\0", BodyLength, 15..17),
        ("will without message", b"\x10\x10\0\x04MQTT\x04\x06\0<\0\x01d\0\x01t", BodyLength, 18..18),
        ("user name missing", b"\x10\x0D\0\x04MQTT\x04\x82\0<\0\x01d", BodyLength, 15..15),
        ("password missing", b"\x10\x10\0\x04MQTT\x04\xC2\0<\0\x01d\0\x01u", BodyLength, 18..18),
        ("user name without its flag", b"\x10\x10\0\x04MQTT\x04\x02\0<\0\x01d\0\x01u", BodyLength, 15..18),
        ("will topic with #", b"\x10\x13\0\x04MQTT\x04\x06\0<\0\x01d\0\x01#\0\x01m", WildcardInTopic, 17..18),
        ("empty will topic", b"\x10\x12\0\x04MQTT\x04\x06\0<\0\x01d\0\0\0\x01m", EmptyTopic, 15..17),
        // CONNACK
        ("reserved CONNACK flag", b"\x20\x02\x02\0", ConnAckFlags, 2..3),
        ("CONNACK 6", b"\x20\x02\0\x06", ConnAckCode, 3..4),
        ("refused with session present", b"\x20\x02\x01\x05", SessionPresentRefused, 2..4),
        // PUBLISH
        ("no topic", b"\x30\0", TopicMissing, 2..2),
        ("half a topic length", b"\x30\x01\0", TopicMissing, 2..3),
        ("topic runs into the next packet", b"\x30\x03\0\x03t\xC0\0", TopicMissing, 2..5),
        ("empty topic", b"\x30\x03\0\0x", EmptyTopic, 2..4),
        ("topic not UTF-8", b"\x30\x05\0\x03t\xFFt", Utf8IllFormed, 5..6),
        ("overlong U+0000", b"\x30\x04\0\x02\xC0\x80", Utf8IllFormed, 4..5),
        ("surrogate", b"\x30\x05\0\x03\xED\xA0\x80", Utf8IllFormed, 4..5),
        ("U+0000 in the topic", b"\x30\x04\0\x02t\0", Utf8Nul, 5..6),
        ("+ in the topic", b"\x30\x05\0\x03a/+", WildcardInTopic, 6..7),
        ("packet id 0", b"\x32\x05\0\x01t\0\0", PacketIdZero, 5..7),
        ("half a packet id", b"\x34\x04\0\x01t\0", BodyLength, 5..6),
        ("acknowledged packet id 0", b"\x40\x02\0\0", PacketIdZero, 2..4),
        // SUBSCRIBE, SUBACK, UNSUBSCRIBE
        ("SUBSCRIBE with packet id 0", b"\x82\x06\0\0\0\x01t\0", PacketIdZero, 2..4),
        ("SUBSCRIBE without filters", b"\x82\x02\0\x01", NoFilters, 4..4),
        ("filter without QoS", b"\x82\x05\0\x01\0\x01t", BodyLength, 7..7),
        ("filter too long for the packet", b"\x82\x06\0\x01\0\x03t\0", BodyLength, 4..8),
        ("QoS 3 asked for", b"\x82\x06\0\x01\0\x01t\x03", RequestedQos, 7..8),
        ("reserved bits of the QoS", b"\x82\x06\0\x01\0\x01t\x04", RequestedQos, 7..8),
        ("# before the end", b"\x82\x08\0\x01\0\x03#/t\0", MultiLevelWildcard, 6..7),
        ("+ beside other text", b"\x82\x08\0\x01\0\x03a+/\0", SingleLevelWildcard, 7..8),
        ("empty second filter", b"\x82\x09\0\x01\0\x01t\0\0\0\0", EmptyTopic, 8..10),
        ("UNSUBSCRIBE without filters", b"\xA2\x02\0\x01", NoFilters, 4..4),
        ("UNSUBSCRIBE filter not UTF-8", b"\xA2\x05\0\x01\0\x01\xFF", Utf8IllFormed, 6..7),
        ("byte behind the last filter", b"\xA2\x06\0\x01\0\x01t\0", BodyLength, 7..8),
        ("SUBACK without return codes", b"\x90\x02\0\x01", SubAckCode, 4..4),
        ("SUBACK code 3", b"\x90\x04\0\x01\0\x03", SubAckCode, 5..6),
    ];
    for (what, bytes, rule, at) in refused {
        let error = decode(&mut &bytes[..], REMAINING_LENGTH_MAX).expect_err(what);
        assert_eq!((error.rule(), error.at()), (rule, at), "{what}");
    }
}

#[test]
fn a_packet_over_the_limit_is_refused_from_its_fixed_header() {
    for (bytes, end) in [(&b"\x10\x0B"[..], 2), (b"\x30\x8B\0", 3), (b"\x82\xFF\xFF\xFF\x7F", 5)] {
        let error = decode(&mut &bytes[..], 10).expect_err("over the limit");
        assert_eq!((error.rule(), error.at()), (Rule::PacketSize, 1..end));
        for cut in 1..end {
            assert!(matches!(decode(&mut &bytes[..cut], 10), Ok(Decoded::Incomplete { at_least: 1 })));
        }
    }
    assert_eq!(decode(&mut &b"\x30\x0A"[..], 10), Ok(Decoded::Incomplete { at_least: 10 }));
}

#[test]
fn a_refusal_reads_as_rule_place_and_meaning() {
    let error = decode(&mut &b"\x40\x02\0\0"[..], 10).expect_err("packet id 0");
    assert_eq!(error.to_string(), "MQTT-2.3.1-1 at bytes 2..4: a packet id is not 0");
}
