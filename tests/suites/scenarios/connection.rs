//! A device and a hub joined by a byte pipe: connecting, staying connected, and what the end of a connection does.

use std::time::Duration;

use devicebound::Rule;
use devicebound::device::{ConnectionState, Message};
use devicebound::iothub::Subscription;
use devicebound::packet::{Connect, ConnectReturnCode, Credentials, QoS, Text};
use devicebound::session::CloseReason;
use devicebound_world::fixtures::{HOST, KEYS, config, connected, connected_with, hub, send};
use devicebound_world::hub_host::{START, StoreMode};
use devicebound_world::station::{Heard, Station, advance};

/// A CONNECT that the device machine would not send.
fn connect(client_id: &str, username: &str, password: Option<&str>) -> Vec<u8> {
    let username = Text::new(username).expect("it is text");
    let credentials = Credentials { username, password: password.map(str::as_bytes) };
    let connect = Connect {
        clean_session: true,
        keep_alive: 60,
        client_id: Text::new(client_id).expect("it is text"),
        will: None,
        credentials: Some(credentials),
    };
    let mut bytes = Vec::new();
    connect.encode(&mut bytes).expect("the fields are short");
    bytes
}

fn token(resource: &str) -> String {
    let key = devicebound::iothub::sas::SymmetricKey::from_base64(KEYS[0]).expect("the key is base64");
    devicebound::iothub::sas::sign(resource, &key, START.after(Duration::from_secs(3600)), None)
}

// --- connect ---

#[test]
fn a_device_with_its_own_key_connects() {
    let (hub, station) = connected();
    assert_eq!(station.heard, [Heard::Connected { session_present: false }]);
    assert!(hub.hub.is_connected(hub.device("dev")));
}

#[test]
fn every_form_of_user_name_in_the_wild_connects() {
    for username in [
        format!("{HOST}/dev"),
        format!("{HOST}/dev/api-version=2016-11-14"),
        format!("{HOST}/dev/DeviceClientType=azure-iot-device%2F1.0.14"),
        format!("{HOST}/dev/DeviceClientType=x&api-version=2016-11-14"),
        format!("{HOST}/dev/api-version=2017-06-30/DeviceClientType=Microsoft.Azure.Devices.Client/1.5.1"),
        format!("{HOST}/dev/?api-version=2021-04-12&DeviceClientType=py%2F1&model-id=dtmi%3Aa%3B1"),
        format!("{}/dev/?api-version=2021-04-12", HOST.to_uppercase()),
    ] {
        let mut hub = hub(&["dev"]);
        let link = hub.open();
        hub.receive(link, &connect("dev", &username, Some(&token(&format!("{HOST}/devices/dev")))));
        assert_eq!(hub.take_output(link), [0x20, 2, 0, 0], "{username}");
    }
}

#[test]
fn an_identity_that_is_not_shown_is_refused_with_5_and_the_log_names_the_rule() {
    let good_name = format!("{HOST}/dev/?api-version=2021-04-12");
    let good_token = token(&format!("{HOST}/devices/dev"));
    let long = "x".repeat(129);
    let cases = [
        ("dev", good_name.as_str(), None, Rule::NoCredentials),
        ("dev", &good_name, Some(""), Rule::NoCredentials),
        ("dev", &good_name, Some("swordfish"), Rule::SasMalformed),
        ("dev", &good_name, Some(&*token(&format!("{HOST}/devices/other"))), Rule::SasScope),
        ("dev", &good_name, Some(&*good_token.replace("sig=", "sig=AAAA")), Rule::SasSignature),
        ("dev", &good_name, Some(&*good_token.replace("sig=", "sig=%%%")), Rule::SasMalformed),
        ("ghost", &format!("{HOST}/ghost/?api-version=2021-04-12"), Some(&good_token), Rule::UnknownDevice),
        ("other", &good_name, Some(&good_token), Rule::ClientId),
        ("d ev", &format!("{HOST}/d ev/?api-version=2021-04-12"), Some(&good_token), Rule::ClientId),
        (&long, &format!("{HOST}/{long}/?api-version=2021-04-12"), Some(&good_token), Rule::ClientId),
        ("dev", "dev", Some(&good_token), Rule::Username),
        ("dev", &format!("{HOST}/dev?api-version=2021-04-12"), Some(&good_token), Rule::Username),
        (
            "dev",
            "0ne1/registrations/dev/api-version=2019-03-31",
            Some(&good_token),
            Rule::ProvisioningUsername,
        ),
        ("dev", "another.hub.test/dev", Some(&good_token), Rule::HostName),
    ];
    for (client_id, username, password, rule) in cases {
        let mut hub = hub(&["dev", "other"]);
        let link = hub.open();
        hub.receive(link, &connect(client_id, username, password));
        assert_eq!(hub.take_output(link), [0x20, 2, 0, 5], "{rule}");
        let close = hub.closed(link).expect("a refused connection is closed");
        assert_eq!(close.reason(), CloseReason::Refused(ConnectReturnCode::NotAuthorized, rule));
    }
}

#[test]
fn an_expired_token_is_refused_with_5() {
    let mut hub = hub(&["dev"]);
    let token = token(&format!("{HOST}/devices/dev"));
    hub.step_wall(Duration::from_secs(3600));
    let link = hub.open();
    hub.receive(link, &connect("dev", &format!("{HOST}/dev"), Some(&token)));
    assert_eq!(hub.take_output(link), [0x20, 2, 0, 5]);
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::SasExpired));
}

#[test]
fn another_protocol_level_is_answered_with_1_and_closed() {
    let mut bytes = connect("dev", &format!("{HOST}/dev"), None);
    let level = bytes.windows(4).position(|window| window == b"MQTT").expect("it is a CONNECT") + 4;
    for other in [3, 5, 0x84] {
        bytes[level] = other;
        let mut hub = hub(&["dev"]);
        let link = hub.open();
        hub.receive(link, &bytes);
        assert_eq!(hub.take_output(link), [0x20, 2, 0, 1]);
        assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::ProtocolLevel));
    }
}

#[test]
fn a_first_packet_that_is_not_connect_closes_on_its_first_byte() {
    for first in [0x30, 0x82, 0xC0, 0xE0] {
        let mut hub = hub(&["dev"]);
        let link = hub.open();
        hub.receive(link, &[first]);
        assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::ConnectFirst), "{first:#x}");
        assert!(hub.take_output(link).is_empty());
    }
}

#[test]
fn a_second_connect_closes() {
    let (mut hub, station) = connected();
    let link = station.link.expect("it is connected");
    hub.receive(link, &connect("dev", &format!("{HOST}/dev"), None));
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::ConnectTwice));
}

#[test]
fn a_connection_without_connect_is_closed_after_30_seconds_and_not_before() {
    let mut hub = hub(&["dev"]);
    let link = hub.open();
    hub.receive(link, &[0x10]);
    hub.advance(Duration::from_millis(29_999));
    assert_eq!(hub.closed(link), None);
    hub.advance(Duration::from_millis(1));
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::ConnectTime));
}

// --- keep alive ---

#[test]
fn a_device_that_has_nothing_to_say_pings_and_stays_connected_for_a_day() {
    let (mut hub, mut station) =
        connected_with(config("dev").with_keep_alive(60).with_timing(devicebound::device::Timing {
            token_lifetime: Duration::from_secs(7 * 24 * 3600),
            ..devicebound::device::Timing::default()
        }));
    let link = station.link;
    advance(&mut hub, &mut [&mut station], Duration::from_secs(24 * 3600));
    assert_eq!(station.link, link);
    assert_eq!(hub.closes, []);
}

#[test]
fn silence_of_one_and_a_half_keep_alives_ends_the_connection() {
    let (mut hub, station) = connected_with(config("dev").with_keep_alive(20));
    let link = station.link.expect("it is connected");
    hub.advance(Duration::from_millis(29_999));
    assert_eq!(hub.closed(link), None);
    hub.advance(Duration::from_millis(1));
    assert_eq!(hub.closed(link).map(|close| close.reason()), Some(CloseReason::TimedOut(Rule::KeepAlive)));
}

#[test]
fn a_keep_alive_of_18_hours_is_cut_at_1767_seconds() {
    for keep_alive in [0, u16::MAX] {
        let mut hub = hub(&["dev"]);
        let link = hub.open();
        let mut bytes = connect("dev", &format!("{HOST}/dev"), Some(&token(&format!("{HOST}/devices/dev"))));
        bytes[11..13].copy_from_slice(&u16::to_be_bytes(keep_alive));
        // The fixed header of this CONNECT is three bytes long; the keep alive stands behind name, level and flags.
        assert_eq!(&bytes[5..9], b"MQTT");
        hub.receive(link, &bytes);
        assert_eq!(hub.take_output(link), [0x20, 2, 0, 0]);
        hub.advance(Duration::from_secs(1766));
        assert_eq!(hub.closed(link), None);
        hub.advance(Duration::from_secs(1));
        assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::KeepAlive));
    }
}

#[test]
fn keep_alive_does_not_run_while_the_hub_itself_waits_for_its_store() {
    let (mut hub, mut station) = connected_with(config("dev").with_keep_alive(10));
    hub.store = StoreMode::Held;
    for _ in 0..16 {
        station.telemetry(&mut hub, Message::new(b"x"));
    }
    let link = station.link.expect("it is connected");
    hub.advance(Duration::from_secs(600));
    assert_eq!(hub.closed(link), None);
    hub.release_store();
    assert_eq!(hub.closed(link), None);
}

// --- will ---

#[test]
fn the_will_arrives_as_telemetry_when_the_connection_is_lost() {
    let will = Message { properties: &[("k", Some("v"))], ..Message::new(b"gone") };
    let config = config("dev").with_will(&will, QoS::AtLeastOnce).expect("the will is good");
    let (mut hub, mut station) = connected_with(config);
    station.cut(&mut hub);
    assert_eq!(hub.telemetry.len(), 1);
    let arrived = &hub.telemetry[0];
    assert_eq!((arrived.client_id.as_str(), arrived.payload.as_slice()), ("dev", b"gone".as_slice()));
    let property = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
    assert_eq!(arrived.properties, [property("k", "v"), property("iothub-MessageType", "Will")]);
}

#[test]
fn a_device_that_says_disconnect_leaves_no_will() {
    let config = config("dev").with_will(&Message::new(b"gone"), QoS::AtLeastOnce).expect("the will is good");
    let (mut hub, mut station) = connected_with(config);
    let now = hub.now;
    station.command(&mut hub, |device, tx| device.disconnect(now, tx));
    assert_eq!(hub.closes.last().map(|close| close.reason()), Some(CloseReason::Disconnected));
    assert_eq!(hub.telemetry, []);
}

#[test]
fn a_will_to_another_topic_is_refused_with_5() {
    for topic in ["devices/other/messages/events/", "$iothub/twin/GET/?$rid=1", "devices/dev/messages"] {
        let topic = devicebound::packet::TopicName::new(topic).expect("it is a topic");
        let will = devicebound::packet::Will { topic, message: b"gone", qos: QoS::AtMostOnce, retain: false };
        let username = format!("{HOST}/dev");
        let username = Text::new(&username).expect("it is text");
        let token = token(&format!("{HOST}/devices/dev"));
        let credentials = Some(Credentials { username, password: Some(token.as_bytes()) });
        let client_id = Text::new("dev").expect("it is text");
        let connect =
            Connect { clean_session: true, keep_alive: 60, client_id, will: Some(will), credentials };
        let mut bytes = Vec::new();
        connect.encode(&mut bytes).expect("the fields are short");
        let mut hub = hub(&["dev", "other"]);
        let link = hub.open();
        hub.receive(link, &bytes);
        assert_eq!(hub.take_output(link), [0x20, 2, 0, 5]);
        assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::WillTopic));
    }
}

// --- CleanSession ---

#[test]
fn a_kept_session_delivers_right_behind_connack_without_a_new_subscription() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    station.subscribe(&mut hub, Subscription::Methods);
    station.cut(&mut hub);
    send(&mut hub, "while-away");
    station.take_heard();
    station.connect(&mut hub);
    let heard = station.take_heard();
    assert_eq!(heard[0], Heard::Connected { session_present: true });
    assert!(matches!(&heard[1], Heard::Delivered { payload, .. } if payload == b"while-away"), "{heard:?}");
    let kept = hub.record("dev").subscriptions().expect("the session is kept");
    assert!(kept.get(Subscription::Methods).is_some() && kept.get(Subscription::CloudMessages).is_some());
}

#[test]
fn a_kept_session_survives_a_restart_of_the_hub() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    hub.restart();
    station.cut(&mut hub);
    send(&mut hub, "after-restart");
    station.take_heard();
    station.connect(&mut hub);
    let heard = station.take_heard();
    assert_eq!(heard[0], Heard::Connected { session_present: true });
    assert!(
        matches!(&heard[1], Heard::Delivered { payload, .. } if payload == b"after-restart"),
        "{heard:?}"
    );
}

#[test]
fn a_clean_session_gets_nothing_before_it_subscribes_and_leaves_no_session() {
    let (mut hub, mut station) = connected_with(config("dev").with_clean_session(true));
    send(&mut hub, "waits");
    station.talk(&mut hub);
    assert_eq!(station.take_heard(), [Heard::Connected { session_present: false }]);
    assert_eq!(hub.record("dev").subscriptions(), None);
    station.subscribe(&mut hub, Subscription::CloudMessages);
    let heard = station.take_heard();
    assert!(heard.iter().any(|heard| matches!(heard, Heard::Delivered { .. })), "{heard:?}");
    station.cut(&mut hub);
    station.take_heard();
    station.connect(&mut hub);
    assert_eq!(station.take_heard()[0], Heard::Connected { session_present: false });
}

// --- takeover ---

#[test]
fn a_second_connection_of_the_identity_wins_and_the_first_is_closed_with_its_will() {
    let config_with_will =
        config("dev").with_will(&Message::new(b"gone"), QoS::AtLeastOnce).expect("the will is good");
    let (mut hub, mut first) = connected_with(config_with_will);
    let first_link = first.link.expect("it is connected");
    let mut second = Station::new(config("dev"));
    second.connect(&mut hub);
    assert_eq!(hub.closed(first_link).map(|close| close.rule()), Some(Rule::Takeover));
    assert_eq!(hub.telemetry.len(), 1);
    first.talk(&mut hub);
    assert_eq!(first.device.status().connection, ConnectionState::Offline);
    assert_eq!(second.device.status().connection, ConnectionState::Online);
    second.telemetry(&mut hub, Message::new(b"alive"));
    assert!(matches!(second.heard.last(), Some(Heard::Acknowledged(_))));
}

#[test]
fn nothing_overtakes_the_connack_when_a_takeover_waits_for_the_store() {
    let (mut hub, mut first) = connected();
    first.subscribe(&mut hub, Subscription::CloudMessages);
    hub.store = StoreMode::Held;
    let mut second = Station::new(config("dev"));
    send(&mut hub, "m");
    second.connect(&mut hub);
    assert_eq!(second.heard, []);
    hub.release_store();
    second.talk(&mut hub);
    assert_eq!(second.heard[0], Heard::Connected { session_present: true });
    assert!(matches!(
        &second.heard[1],
        Heard::Delivered { dup: true, .. } | Heard::Delivered { dup: false, .. }
    ));
}

// --- operations ---

#[test]
fn every_close_names_the_rule_the_offending_bytes_and_the_fix() {
    let (mut hub, station) = connected();
    let link = station.link.expect("it is connected");
    let topic = b"devices/other/messages/events/";
    let mut bytes = vec![0x30, u8::try_from(topic.len() + 2).expect("it is short"), 0, topic.len() as u8];
    bytes.extend_from_slice(topic);
    hub.receive(link, &bytes);
    let close = hub.closed(link).expect("a foreign topic closes");
    assert_eq!(close.rule(), Rule::ForeignIdentity);
    assert_eq!(&bytes[close.offending()], topic);
    let text = close.to_string();
    for part in ["HUB-TOPIC-IDENTITY", close.rule().says(), close.rule().fix()] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn every_rule_has_an_id_of_its_own_and_words_for_the_person_who_has_to_fix_it() {
    let mut ids = std::collections::BTreeSet::new();
    for rule in Rule::ALL {
        assert!(ids.insert(rule.id()), "{} stands twice", rule.id());
        assert!(!rule.says().is_empty() && !rule.fix().is_empty() && !rule.source().is_empty());
    }
}
