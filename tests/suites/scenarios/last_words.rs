//! What a hub owes when a connection ends in good order, or by a breach: it is sent before the end, and no longer than
//! that takes.

use std::time::Duration;

use devicebound::Rule;
use devicebound::hub::LinkId;
use devicebound::limits::LAST_WORDS_TIME;
use devicebound::packet::{Connect, Credentials, PacketId, Publish, PublishQoS, Text, TopicName, Will};
use devicebound::session::CloseReason;
use devicebound_world::fixtures::{HOST, KEYS, hub};
use devicebound_world::hub_host::{HubHost, START, StoreMode};

const PUBACK: [u8; 4] = [0x40, 2, 0, 1];
const SUBACK: [u8; 5] = [0x90, 3, 0, 2, 1];
const PINGREQ: [u8; 2] = [0xC0, 0];
const DISCONNECT: [u8; 2] = [0xE0, 0];

fn connect(with_will: bool) -> Vec<u8> {
    let key = devicebound::iothub::sas::SymmetricKey::from_base64(KEYS[0]).expect("the key is base64");
    let expiry = START.after(Duration::from_secs(3600));
    let token = devicebound::iothub::sas::sign(&format!("{HOST}/devices/dev"), &key, expiry, None);
    let username = format!("{HOST}/dev/?api-version=2021-04-12");
    let will = Will {
        topic: TopicName::new("devices/dev/messages/events/").expect("it is a topic"),
        message: b"gone",
        qos: devicebound::packet::QoS::AtLeastOnce,
        retain: false,
    };
    let connect = Connect {
        clean_session: true,
        keep_alive: 60,
        client_id: Text::new("dev").expect("it is text"),
        will: with_will.then_some(will),
        credentials: Some(Credentials {
            username: Text::new(&username).expect("it is text"),
            password: Some(token.as_bytes()),
        }),
    };
    let mut bytes = Vec::new();
    connect.encode(&mut bytes).expect("the fields are short");
    bytes
}

/// A hub whose store is held, and `dev` online on it.
fn online(with_will: bool) -> (HubHost, LinkId) {
    let mut hub = hub(&["dev"]);
    let link = hub.open();
    hub.receive(link, &connect(with_will));
    assert_eq!(hub.take_output(link), [0x20, 2, 0, 0]);
    hub.store = StoreMode::Held;
    (hub, link)
}

/// A telemetry message at QoS 1 with packet id 1.
fn telemetry() -> Vec<u8> {
    let publish = Publish {
        qos: PublishQoS::AtLeastOnce { packet_id: PacketId::MIN, dup: false },
        retain: false,
        topic: TopicName::new("devices/dev/messages/events/").expect("it is a topic"),
        payload: b"last",
    };
    let mut bytes = Vec::new();
    publish.encode(&mut bytes).expect("it is short");
    bytes
}

/// A SUBSCRIBE of one filter with packet id 2.
fn subscribe(filter: &str) -> Vec<u8> {
    let length = u8::try_from(filter.len()).expect("it is short");
    [&[0x82, length + 5, 0, 2, 0, length], filter.as_bytes(), &[1]].concat()
}

/// What follows the message in the same write, the rule that ends the connection, and whether the will is sent.
fn ends() -> [(Vec<u8>, Rule, bool); 5] {
    [
        (DISCONNECT.to_vec(), Rule::Disconnect, false),
        (b"\x32\x05\0\x01x\0\x02".to_vec(), Rule::UnknownTopic, true),
        (b"\xF0\0".to_vec(), Rule::PacketType, true),
        (b"\x82\0".to_vec(), Rule::BodyLength, true),
        (connect(false), Rule::ConnectTwice, true),
    ]
}

#[test]
fn what_came_before_a_goodbye_or_a_breach_in_one_write_is_acknowledged() {
    for (end, rule, sends_will) in ends() {
        let (mut hub, link) = online(true);
        hub.receive(link, &[&telemetry()[..], &end, &PINGREQ].concat());
        assert_eq!((hub.take_output(link), hub.closed(link)), (vec![], None), "{rule}: the store is asked");
        hub.release_store();
        assert_eq!(hub.take_output(link), PUBACK, "{rule}");
        assert_eq!(hub.closed(link).map(|close| close.rule()), Some(rule));
        let bodies: Vec<_> = hub.telemetry.iter().map(|message| message.payload.as_slice()).collect();
        let expected: &[&[u8]] = if sends_will { &[b"last", b"gone"] } else { &[b"last"] };
        assert_eq!(bodies, expected, "{rule}");
    }
}

#[test]
fn a_subscription_before_the_goodbye_is_acknowledged_and_nothing_new_is_sent() {
    let (mut hub, link) = online(false);
    hub.receive(link, &[&subscribe("$iothub/methods/POST/#")[..], &telemetry(), &DISCONNECT].concat());
    let request = devicebound::hub::MethodRequest {
        name: "reboot".to_owned(),
        payload: None,
        response_timeout: Duration::from_secs(30),
        connect_timeout: Duration::ZERO,
    };
    let device = hub.device("dev");
    assert!(hub.hub.invoke(hub.now, device, request).is_err(), "the device has said goodbye");
    hub.release_store();
    assert_eq!(hub.take_output(link), [&SUBACK[..], &PUBACK].concat());
    assert_eq!(hub.closed(link).map(|close| close.reason()), Some(CloseReason::Disconnected));
}

#[test]
fn a_goodbye_waits_for_a_slow_store_only_so_long() {
    let (mut hub, link) = online(true);
    hub.receive(link, &[&telemetry()[..], &DISCONNECT].concat());
    hub.advance(LAST_WORDS_TIME - Duration::from_millis(1));
    assert_eq!(hub.closed(link), None);
    hub.advance(Duration::from_millis(1));
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::Disconnect));
    assert!(hub.take_output(link).is_empty());
    assert_eq!(hub.telemetry.len(), 1, "no will: the device said DISCONNECT");
}

#[test]
fn whatever_ends_a_connection_after_its_goodbye_it_was_the_goodbye_and_there_is_no_will() {
    let (mut hub, link) = online(true);
    hub.receive(link, &[&telemetry()[..], &DISCONNECT].concat());
    hub.hang_up(link);
    hub.release_store();
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::Disconnect));

    let (mut hub, first) = online(true);
    hub.receive(first, &[&telemetry()[..], &DISCONNECT].concat());
    let second = hub.open();
    hub.receive(second, &connect(false));
    hub.release_store();
    assert_eq!(hub.closed(first).map(|close| close.rule()), Some(Rule::Disconnect), "no takeover");
    assert_eq!(hub.take_output(second), [0x20, 2, 0, 0]);
    assert_eq!(hub.telemetry.len(), 1);
}
