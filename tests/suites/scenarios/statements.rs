//! Statements of MQTT 3.1.1 that no scenario needs, shown on the bytes that a hub answers with.

use std::time::Duration;

use devicebound::hub::{HubConfig, Limits, LinkId};
use devicebound::iothub::sas::{SymmetricKey, sign};
use devicebound::packet::{
    Connect, Credentials, PacketId, Publish, PublishQoS, QoS, Subscribe, Text, TopicFilter, TopicName,
    Unsubscribe, Will,
};
use devicebound::time::Instant;
use devicebound::{Hub, Rule};
use devicebound_world::fixtures::{HOST, KEYS, hub, send};
use devicebound_world::hub_host::{HubHost, START, Stored};

const EVENTS: &str = "devices/dev/messages/events/";
const CLOUD_MESSAGES: &str = "devices/dev/messages/devicebound/#";
const METHODS: &str = "$iothub/methods/POST/#";
const TWIN_ANSWERS: &str = "$iothub/twin/res/#";
const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];

/// The CONNECT of `dev`, whatever it calls itself and with whatever key.
fn connect(client_id: &str, key: &str, will: Option<Will<'_>>) -> Vec<u8> {
    let key = SymmetricKey::from_base64(key).expect("the key is base64");
    let token = sign(&format!("{HOST}/devices/dev"), &key, START.after(Duration::from_secs(3600)), None);
    let username = format!("{HOST}/dev/?api-version=2021-04-12");
    let credentials = Some(Credentials {
        username: Text::new(&username).expect("it is text"),
        password: Some(token.as_bytes()),
    });
    let client_id = Text::new(client_id).expect("it is text");
    let mut bytes = Vec::new();
    Connect { clean_session: true, keep_alive: 60, client_id, will, credentials }
        .encode(&mut bytes)
        .expect("the fields are short");
    bytes
}

/// A hub, and `dev` online.
fn online(will: Option<Will<'_>>) -> (HubHost, LinkId) {
    let mut hub = hub(&["dev"]);
    let link = hub.open();
    assert_eq!(exchange(&mut hub, link, &connect("dev", KEYS[0], will)), ACCEPTED);
    (hub, link)
}

fn exchange(hub: &mut HubHost, link: LinkId, bytes: &[u8]) -> Vec<u8> {
    hub.receive(link, bytes);
    hub.take_output(link)
}

fn subscribe(filters: &[(&str, QoS)]) -> Vec<u8> {
    let filters: Vec<_> = filters.iter().map(|(text, qos)| (filter(text), *qos)).collect();
    let mut bytes = Vec::new();
    Subscribe::encode(PacketId::MIN, &filters, &mut bytes).expect("it fits");
    bytes
}

fn unsubscribe(filters: &[&str]) -> Vec<u8> {
    let filters: Vec<_> = filters.iter().map(|text| filter(text)).collect();
    let mut bytes = Vec::new();
    Unsubscribe::encode(PacketId::MAX, &filters, &mut bytes).expect("it fits");
    bytes
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).expect("it is a filter")
}

fn publish(retain: bool, payload: &[u8]) -> Vec<u8> {
    let topic = TopicName::new(EVENTS).expect("it is a topic name");
    let mut bytes = Vec::new();
    Publish { qos: PublishQoS::AtMostOnce, retain, topic, payload }.encode(&mut bytes).expect("it fits");
    bytes
}

/// Whether the hub marked a message as one that was to be retained.
fn is_marked(stored: &Stored) -> bool {
    stored.properties.iter().any(|(name, _)| name == "mqtt-retain")
}

#[test]
fn what_stands_behind_a_refused_connect_is_not_processed() {
    let mut hub = hub(&["dev"]);
    let link = hub.open();
    let bytes =
        [connect("dev", "d3Jvbmc=", None), subscribe(&[(METHODS, QoS::AtMostOnce)]), publish(false, b"x")];
    assert_eq!(exchange(&mut hub, link, &bytes.concat()), [0x20, 2, 0, 5]);
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::SasSignature));
    assert_eq!(hub.telemetry, []);
}

/// The connect flags in a CONNECT: they stand behind the protocol name and its level.
fn flags(connect: &mut [u8]) -> &mut u8 {
    let level = connect.windows(4).position(|name| name == b"MQTT").expect("the name is there") + 4;
    &mut connect[level + 1]
}

#[test]
fn a_connect_with_the_reserved_flag_is_closed_without_an_answer() {
    let mut hub = hub(&["dev"]);
    let link = hub.open();
    let mut bytes = connect("dev", KEYS[0], None);
    *flags(&mut bytes) |= 0x01;
    assert!(exchange(&mut hub, link, &bytes).is_empty());
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::ConnectReserved));
}

#[test]
fn an_empty_client_id_is_refused_with_2_whatever_the_clean_session() {
    let clean = connect("", KEYS[0], None);
    let mut kept = clean.clone();
    let flags =
        kept.iter_mut().skip_while(|byte| **byte != b'T').nth(3).expect("flags stand behind MQTT and level");
    *flags &= !0x02;
    for bytes in [clean, kept] {
        let mut hub = hub(&["dev"]);
        let link = hub.open();
        assert_eq!(exchange(&mut hub, link, &bytes), [0x20, 2, 0, 2]);
        assert!(hub.closed(link).is_some());
    }
}

#[test]
fn a_connection_without_a_will_is_lost_without_a_word() {
    let (mut hub, link) = online(None);
    hub.hang_up(link);
    assert_eq!(hub.telemetry, []);
}

#[test]
fn a_will_is_sent_once_and_marked_if_and_only_if_it_was_to_be_retained() {
    let topic = TopicName::new(EVENTS).expect("it is a topic name");
    for (retain, qos) in [(false, QoS::AtMostOnce), (true, QoS::AtLeastOnce), (false, QoS::ExactlyOnce)] {
        let (mut hub, link) = online(Some(Will { topic, message: b"gone", qos, retain }));
        hub.hang_up(link);
        hub.advance(Duration::from_secs(3600));
        assert_eq!(hub.telemetry.len(), 1);
        assert_eq!(is_marked(&hub.telemetry[0]), retain);
    }
}

#[test]
fn a_retained_message_without_payload_is_telemetry_like_any_other() {
    let (mut hub, link) = online(None);
    hub.receive(link, &publish(true, b""));
    hub.receive(link, &publish(false, b""));
    assert_eq!(hub.telemetry.iter().map(is_marked).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn return_codes_come_in_the_order_of_the_filters_and_a_filter_asked_for_again_is_replaced() {
    let (mut hub, link) = online(None);
    let first =
        [(METHODS, QoS::AtMostOnce), (TWIN_ANSWERS, QoS::AtLeastOnce), (CLOUD_MESSAGES, QoS::ExactlyOnce)];
    assert_eq!(exchange(&mut hub, link, &subscribe(&first)), [0x90, 5, 0, 1, 0, 1, 1]);
    let again = [(CLOUD_MESSAGES, QoS::AtMostOnce)];
    assert_eq!(exchange(&mut hub, link, &subscribe(&again)), [0x90, 3, 0, 1, 0]);
    send(&mut hub, "m1");
    let delivered = hub.take_output(link);
    assert_eq!(delivered.first(), Some(&0x30), "QoS 0 now, and neither DUP nor RETAIN");
}

#[test]
fn one_unsuback_answers_all_filters_of_an_unsubscribe_and_only_exact_ones_are_deleted() {
    let (mut hub, link) = online(None);
    let both = [(METHODS, QoS::AtMostOnce), (CLOUD_MESSAGES, QoS::AtLeastOnce)];
    exchange(&mut hub, link, &subscribe(&both));
    let unsuback = [0xB0, 2, 0xFF, 0xFF];
    let others = ["$iothub/METHODS/POST/#", "devices/dev/messages/deviceBound/#", "never/asked/for"];
    assert_eq!(exchange(&mut hub, link, &unsubscribe(&others)), unsuback);
    send(&mut hub, "m1");
    assert_eq!(hub.take_output(link).first(), Some(&0x32), "still subscribed");
    assert_eq!(exchange(&mut hub, link, &unsubscribe(&[METHODS, CLOUD_MESSAGES])), unsuback);
    send(&mut hub, "m2");
    assert!(hub.take_output(link).is_empty(), "no new message is begun");
}

#[test]
fn a_hub_without_room_takes_no_connection_and_says_nothing() {
    let limits = Limits { links: 1, ..Limits::default() };
    let mut hub = Hub::new(HubConfig { limits, ..HubConfig::default() }, Instant::from_secs(1000), START);
    let now = Instant::from_secs(1000);
    let first = hub.open(now).expect("there is room for one");
    assert!(hub.open(now).is_err());
    drop(hub.close(now, first, devicebound::CloseReason::Lost));
    assert!(hub.open(now).is_ok());
}
