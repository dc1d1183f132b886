//! A device and a hub joined by a byte pipe: telemetry and cloud-to-device messages.
#![allow(clippy::panic, reason = "a test that has lost its thread must stop")]

use std::time::Duration;

use devicebound::device::{Message, SendError};
use devicebound::hub::{CloudMessage, EnqueueError, FeedbackRequest};
use devicebound::iothub::Subscription;
use devicebound::packet::{
    Decoded, Packet, Publish, PublishQoS, QoS, Subscribe, TopicFilter, TopicName, decode,
};
use devicebound::{Close, Rule};
use devicebound_world::fixtures::{connected, hub, send};
use devicebound_world::hub_host::{HubHost, StoreMode};
use devicebound_world::station::{Heard, Station};

/// What becomes of a connected device that publishes this.
fn publish(qos: PublishQoS, topic: &str, retain: bool, payload: &[u8]) -> (HubHost, Option<Close>) {
    let (mut hub, station) = connected();
    let link = station.link.expect("it is connected");
    let topic = TopicName::new(topic).expect("it is a topic name");
    let mut bytes = Vec::new();
    Publish { qos, retain, topic, payload }.encode(&mut bytes).expect("it is short enough");
    hub.receive(link, &bytes);
    let close = hub.closed(link);
    (hub, close)
}

fn qos1(id: u16) -> PublishQoS {
    let packet_id = devicebound::packet::PacketId::new(id).expect("the tests use good ids");
    PublishQoS::AtLeastOnce { packet_id, dup: false }
}

fn delivered(heard: &[Heard]) -> Vec<(&str, bool)> {
    let message = |heard| match heard {
        &Heard::Delivered { ref message_id, dup, .. } => Some((message_id.as_deref().unwrap_or("none"), dup)),
        _ => None,
    };
    heard.iter().filter_map(message).collect()
}

// --- telemetry ---

#[test]
fn telemetry_arrives_with_its_properties_and_is_acknowledged() {
    let (mut hub, mut station) = connected();
    let message = Message {
        message_id: Some("id-1 %/"),
        content_type: Some("application/json"),
        properties: &[("a b", Some("c/d=&+é")), ("empty", Some("")), ("none", None)],
        ..Message::new(br#"{"t":21}"#)
    };
    let ticket = station.telemetry(&mut hub, message);
    assert_eq!(station.heard.last(), Some(&Heard::Acknowledged(ticket)));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        hub.telemetry[0].properties,
        [
            ("$.mid".to_owned(), text("id-1 %/")),
            ("$.ct".to_owned(), text("application/json")),
            ("a b".to_owned(), text("c/d=&+é")),
            ("empty".to_owned(), text("")),
            ("none".to_owned(), None),
        ]
    );
    assert_eq!(hub.telemetry[0].payload, br#"{"t":21}"#);
}

#[test]
fn telemetry_at_qos_0_arrives_and_is_not_acknowledged() {
    let (mut hub, mut station) = connected();
    station
        .command(&mut hub, |device, tx| device.telemetry_at_most_once(Message::new(b"x"), tx))
        .expect("it is connected");
    assert_eq!(hub.telemetry.len(), 1);
    assert_eq!(station.heard, [Heard::Connected { session_present: false }]);
}

#[test]
fn nothing_is_acknowledged_before_it_is_stored_and_the_hub_reads_no_more_than_16() {
    let (mut hub, mut station) = connected();
    hub.store = StoreMode::Held;
    let tickets: Vec<_> = (0..20).map(|_| station.telemetry(&mut hub, Message::new(b"x"))).collect();
    assert_eq!(hub.telemetry.len(), 16);
    assert_eq!(station.heard.len(), 1, "nothing but Connected was heard");
    hub.release_store();
    station.talk(&mut hub);
    hub.release_store();
    station.talk(&mut hub);
    let acknowledged: Vec<_> = station.heard[1..]
        .iter()
        .map(|heard| matches!(heard, Heard::Acknowledged(_)).then_some(heard.clone()))
        .collect();
    let expected: Vec<_> = tickets.into_iter().map(|ticket| Some(Heard::Acknowledged(ticket))).collect();
    assert_eq!(acknowledged, expected, "in the order of sending");
}

#[test]
fn pubacks_leave_in_order_even_if_the_store_is_done_out_of_order() {
    use devicebound::hub::{Action, Event, Hub, HubConfig};
    use devicebound::time::Instant;
    let now = Instant::from_secs(1);
    let mut hub = Hub::new(HubConfig::default(), now, devicebound_world::hub_host::START);
    let device = hub.insert(devicebound_world::fixtures::record("dev")).expect("it is the first");
    let link = hub.open(now).expect("it is the first");
    let mut tx = Vec::new();
    let mut connect = Vec::new();
    devicebound::packet::Connect {
        clean_session: true,
        keep_alive: 60,
        client_id: devicebound::packet::Text::new("dev").expect("it is text"),
        will: None,
        credentials: None,
    }
    .encode(&mut connect)
    .expect("it is short");
    let Ok(Action::Authenticate(_)) =
        hub.handle(now, link, Event::Received(&mut connect.as_slice()), &mut tx)
    else {
        panic!("a CONNECT is to be judged");
    };
    let grant = devicebound::hub::Grant {
        device,
        expires: None,
        api_version: None,
        credential: devicebound::hub::Credential::Other,
    };
    assert!(hub.accept(now, link, grant).is_none(), "a clean session of a new device changes nothing");
    let mut bytes = Vec::new();
    for id in [7, 8, 9] {
        let topic = TopicName::new("devices/dev/messages/events/").expect("it is a topic name");
        Publish { qos: qos1(id), retain: false, topic, payload: b"" }
            .encode(&mut bytes)
            .expect("it is short");
    }
    let mut rest = bytes.as_slice();
    let mut receipts = Vec::new();
    while let Ok(Action::Telemetry(message)) = hub.handle(now, link, Event::Received(&mut rest), &mut tx) {
        receipts.push(message.receipt.expect("QoS 1 has a receipt"));
    }
    assert_eq!(tx, [0x20, 2, 0, 0]);
    tx.clear();
    hub.stored(receipts[2]);
    hub.stored(receipts[1]);
    let _ = hub.poll_transmit(now, link, &mut tx).expect("the link is live");
    assert!(tx.is_empty(), "the first one is not safe");
    hub.stored(receipts[0]);
    let _ = hub.poll_transmit(now, link, &mut tx).expect("the link is live");
    assert_eq!(tx, [0x40, 2, 0, 7, 0x40, 2, 0, 8, 0x40, 2, 0, 9]);
}

#[test]
fn what_a_device_may_not_publish_closes_and_is_not_stored() {
    let packet_id = devicebound::packet::PacketId::MIN;
    let own = "devices/dev/messages/events/";
    let big = vec![b'x'; 262_145];
    let cases: [(PublishQoS, &str, &[u8], Rule); 7] = [
        (PublishQoS::ExactlyOnce { packet_id, dup: false }, own, b"", Rule::PublishQos2),
        (qos1(1), "devices/other/messages/events/", b"", Rule::ForeignIdentity),
        (qos1(1), "devices/DEV/messages/events/", b"", Rule::ForeignIdentity),
        (qos1(1), "some/topic", b"", Rule::UnknownTopic),
        (qos1(1), "$iothub/other", b"", Rule::UnknownTopic),
        (qos1(1), own, &big, Rule::MessageSize),
        (qos1(1), "devices/dev/messages/events/key=YWJj==", b"", Rule::PropertyBag),
    ];
    for (qos, topic, payload, rule) in cases {
        let (hub, close) = publish(qos, topic, false, payload);
        assert_eq!(close.map(|close| close.rule()), Some(rule), "{topic}");
        assert_eq!(hub.telemetry, []);
    }
}

#[test]
fn property_values_count_for_the_largest_message() {
    let body = vec![b'x'; 262_140];
    let (hub, close) = publish(qos1(1), "devices/dev/messages/events/abc=d", false, &body);
    assert_eq!((close, hub.telemetry.len()), (None, 1));
    let (_, close) = publish(qos1(1), "devices/dev/messages/events/abc=de", false, &body);
    assert_eq!(close.map(|close| close.rule()), Some(Rule::MessageSize));
}

#[test]
fn of_a_system_property_the_value_alone_counts_for_the_largest_message() {
    let body = vec![b'x'; 262_140];
    let (hub, close) = publish(qos1(1), "devices/dev/messages/events/%24.mid=abcd", false, &body);
    assert_eq!((close, hub.telemetry.len()), (None, 1));
    let (_, close) = publish(qos1(1), "devices/dev/messages/events/%24.mid=abcde", false, &body);
    assert_eq!(close.map(|close| close.rule()), Some(Rule::MessageSize));
}

#[test]
fn a_packet_that_announces_more_than_the_largest_message_closes_on_its_header() {
    let (mut hub, station) = connected();
    let link = station.link.expect("it is connected");
    hub.receive(link, &[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::PacketSize));
}

#[test]
fn retain_becomes_a_property_and_nothing_is_retained() {
    let (hub, close) = publish(qos1(1), "devices/dev/messages/events/a=1", true, b"");
    assert_eq!(close, None);
    let property = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
    assert_eq!(hub.telemetry[0].properties, [property("a", "1"), property("mqtt-retain", "true")]);
}

#[test]
fn telemetry_that_was_not_acknowledged_is_sent_again_with_its_packet_id_and_dup() {
    let (mut hub, mut station) = connected();
    hub.store = StoreMode::Held;
    let ticket = station.telemetry(&mut hub, Message::new(b"once or twice"));
    hub.store = StoreMode::Immediate;
    station.cut(&mut hub);
    station.connect(&mut hub);
    assert_eq!(hub.telemetry.len(), 2, "at least once");
    let marked = [("mqtt-dup".to_owned(), Some("true".to_owned()))];
    assert_eq!(
        (hub.telemetry[0].properties.as_slice(), hub.telemetry[1].properties.as_slice()),
        (&[][..], &marked[..])
    );
    assert_eq!(station.heard.last(), Some(&Heard::Acknowledged(ticket)));
    assert_eq!(station.heard.iter().filter(|heard| matches!(heard, Heard::Acknowledged(_))).count(), 1);
}

#[test]
fn telemetry_given_while_offline_is_sent_on_connecting() {
    let mut hub = hub(&["dev"]);
    let mut station = Station::new(devicebound_world::fixtures::config("dev"));
    let ticket = station.telemetry(&mut hub, Message::new(b"early"));
    station.connect(&mut hub);
    assert_eq!(hub.telemetry.len(), 1);
    assert_eq!(station.heard.last(), Some(&Heard::Acknowledged(ticket)));
}

#[test]
fn a_full_outbox_refuses_and_forgets_nothing() {
    let limits = devicebound::device::Limits { outbox_messages: 3, ..devicebound::device::Limits::default() };
    let mut hub = hub(&["dev"]);
    let mut station = Station::new(devicebound_world::fixtures::config("dev").with_limits(limits));
    for _ in 0..3 {
        station.telemetry(&mut hub, Message::new(b"x"));
    }
    let now = hub.now;
    let refused = station.command(&mut hub, |device, tx| device.telemetry(now, Message::new(b"y"), tx));
    assert_eq!(refused, Err(SendError::OutboxFull));
    station.connect(&mut hub);
    assert_eq!(hub.telemetry.len(), 3);
}

// --- cloud to device ---

#[test]
fn a_cloud_message_is_completed_by_the_devices_puback_and_not_before() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    send(&mut hub, "m1");
    station.talk(&mut hub);
    let Some(Heard::Delivered { delivery, properties, .. }) = station.heard.last().cloned() else {
        panic!("the message is delivered: {:?}", station.heard);
    };
    assert_eq!(properties, [], "system properties are no application properties");
    assert_eq!(hub.record("dev").waiting().len(), 1);
    station.command(&mut hub, |device, tx| device.complete(delivery, tx)).expect("it is open");
    assert_eq!(hub.record("dev").waiting().len(), 0);
}

#[test]
fn the_topic_of_a_cloud_message_is_percent_encoded_as_the_real_hub_does() {
    let (mut hub, station) = connected();
    let link = station.link.expect("it is connected");
    let mut bytes = Vec::new();
    let filter = TopicFilter::new("devices/dev/messages/devicebound/#").expect("it is a filter");
    Subscribe::encode(devicebound::packet::PacketId::MIN, &[(filter, QoS::ExactlyOnce)], &mut bytes)
        .expect("it is short");
    hub.receive(link, &bytes);
    assert_eq!(hub.take_output(link), [0x90, 3, 0, 1, 1], "QoS 2 asked, 1 granted");
    send(&mut hub, "a b");
    let output = hub.take_output(link);
    let Ok(Decoded::Packet(Packet::Publish(publish))) = decode(&mut output.as_slice(), usize::MAX) else {
        panic!("a PUBLISH is sent");
    };
    assert_eq!(publish.qos.qos(), QoS::AtLeastOnce);
    assert_eq!(
        publish.topic.as_str(),
        "devices/dev/messages/devicebound/%24.mid=a%20b&%24.to=%2Fdevices%2Fdev%2Fmessages%2Fdevicebound"
    );
}

fn enqueue(hub: &mut HubHost, message: CloudMessage) -> Result<(), EnqueueError> {
    let device = hub.device("dev");
    let (_, commit) = hub.hub.enqueue(hub.now, device, message)?;
    hub.commit(commit);
    Ok(())
}

#[test]
fn the_bag_of_a_cloud_message_has_the_order_of_the_real_hub_and_each_pair_its_equals_sign() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    let link = station.link.expect("it is connected");
    let text = |text: &str| Some(text.to_owned());
    let message = CloudMessage {
        message_id: text("m"),
        to: None,
        correlation_id: text("c"),
        user_id: text("u"),
        content_type: text("t/p"),
        content_encoding: text("utf-8"),
        expiry: Some(hub.unix_time().after(Duration::from_secs(60))),
        ack: Some(FeedbackRequest::None),
        properties: vec![("z".to_owned(), text("1")), ("a".to_owned(), None), ("b".to_owned(), text(""))],
        payload: Vec::new(),
    };
    enqueue(&mut hub, message).expect("there is room");
    let output = hub.take_output(link);
    let Ok(Decoded::Packet(Packet::Publish(publish))) = decode(&mut output.as_slice(), usize::MAX) else {
        panic!("a PUBLISH is sent");
    };
    let bag = "%24.mid=m&%24.exp=2023-11-14T22%3A14%3A20.000Z&%24.to=%2Fdevices%2Fdev%2Fmessages%2Fdevicebound\
               &%24.cid=c&%24.uid=u&%24.ct=t%2Fp&%24.ce=utf-8&iothub-ack=none&z=1&a=&b=";
    assert_eq!(publish.topic.as_str(), format!("devices/dev/messages/devicebound/{bag}"));
}

#[test]
fn a_cloud_message_has_at_most_64_kb_with_its_properties() {
    let mut hub = hub(&["dev"]);
    let message = |length| CloudMessage {
        message_id: Some("1234".to_owned()),
        properties: vec![("abc".to_owned(), Some("d".to_owned()))],
        payload: vec![b'x'; length],
        ..CloudMessage::default()
    };
    assert_eq!(enqueue(&mut hub, message(65_536 - 8)), Ok(()));
    assert_eq!(enqueue(&mut hub, message(65_536 - 7)), Err(EnqueueError::TooLarge));
}

#[test]
fn a_cloud_message_lives_two_days_at_most_and_one_that_has_expired_is_not_taken() {
    let mut hub = hub(&["dev"]);
    let now = hub.unix_time();
    let until = |expiry| CloudMessage { expiry: Some(expiry), ..CloudMessage::default() };
    assert_eq!(enqueue(&mut hub, until(now)), Err(EnqueueError::Expired));
    let day = Duration::from_secs(24 * 3600);
    enqueue(&mut hub, until(now.after(30 * day))).expect("it is good for less");
    hub.advance(2 * day - Duration::from_millis(1));
    assert_eq!(hub.record("dev").waiting().len(), 1);
    hub.advance(Duration::from_millis(1));
    assert_eq!(hub.record("dev").waiting().len(), 0);
}

#[test]
fn a_module_has_no_cloud_messages() {
    let mut hub = hub(&["dev", "dev/mod"]);
    let module = hub.device("dev/mod");
    let refused = hub.hub.enqueue(hub.now, module, CloudMessage::default());
    assert_eq!(refused.err(), Some(EnqueueError::UnknownDevice));
}

#[test]
fn what_was_unsubscribed_waits_for_the_next_subscription() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    let now = hub.now;
    station
        .command(&mut hub, |device, tx| device.unsubscribe(now, Subscription::CloudMessages, tx))
        .expect("it is connected");
    send(&mut hub, "m1");
    station.talk(&mut hub);
    assert_eq!(delivered(&station.heard), []);
    station.cut(&mut hub);
    station.connect(&mut hub);
    assert_eq!(delivered(&station.take_heard()), [], "the session has forgotten the subscription, too");
    station.subscribe(&mut hub, Subscription::CloudMessages);
    assert_eq!(delivered(&station.heard), [("m1", false)]);
}

#[test]
fn the_51st_waiting_message_is_refused() {
    let mut hub = hub(&["dev"]);
    for number in 0..50 {
        send(&mut hub, &number.to_string());
    }
    let device = hub.device("dev");
    let refused = hub.hub.enqueue(hub.now, device, devicebound::hub::CloudMessage::default());
    assert_eq!(refused.err(), Some(EnqueueError::QueueFull));
}

#[test]
fn what_was_not_completed_comes_again_with_dup_and_what_was_completed_does_not() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    for id in ["m1", "m2", "m3"] {
        send(&mut hub, id);
    }
    station.talk(&mut hub);
    let heard = station.take_heard();
    assert_eq!(delivered(&heard), [("m1", false), ("m2", false), ("m3", false)]);
    let Some(Heard::Delivered { delivery, .. }) =
        heard.into_iter().find(|heard| matches!(heard, Heard::Delivered { .. }))
    else {
        panic!("m1 was delivered");
    };
    station.command(&mut hub, |device, tx| device.complete(delivery, tx)).expect("it is open");
    station.cut(&mut hub);
    // A device that lost its memory: the messages are new to it.
    let mut station = Station::new(devicebound_world::fixtures::config("dev"));
    station.connect(&mut hub);
    assert_eq!(delivered(&station.heard), [("m2", true), ("m3", true)]);
}

#[test]
fn a_message_that_the_application_has_is_not_delivered_to_it_again() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    send(&mut hub, "m1");
    station.talk(&mut hub);
    let Some(Heard::Delivered { delivery, .. }) = station.take_heard().pop() else {
        panic!("m1 is delivered")
    };
    station.cut(&mut hub);
    station.connect(&mut hub);
    assert_eq!(delivered(&station.take_heard()), []);
    station.command(&mut hub, |device, tx| device.complete(delivery, tx)).expect("it is still open");
    assert_eq!(hub.record("dev").waiting().len(), 0);
}

#[test]
fn a_cloud_message_is_not_sent_before_it_is_safe() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    station.take_heard();
    hub.store = StoreMode::Held;
    send(&mut hub, "m1");
    station.talk(&mut hub);
    assert_eq!(station.heard, []);
    hub.release_store();
    station.talk(&mut hub);
    assert_eq!(delivered(&station.heard), [("m1", false)]);
}

#[test]
fn a_message_that_nobody_fetched_in_its_hour_is_gone() {
    let mut hub = hub(&["dev"]);
    send(&mut hub, "m1");
    hub.advance(Duration::from_millis(3_599_999));
    assert_eq!(hub.record("dev").waiting().len(), 1);
    hub.advance(Duration::from_millis(1));
    assert_eq!(hub.record("dev").waiting().len(), 0);
}

#[test]
fn a_device_that_does_not_read_is_sent_no_more_than_the_high_water_mark() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    let link = station.link.expect("it is connected");
    hub.stall(link, true);
    let device = hub.device("dev");
    for _ in 0..50 {
        let message = devicebound::hub::CloudMessage { payload: vec![b'x'; 60_000], ..Default::default() };
        let (_, commit) = hub.hub.enqueue(hub.now, device, message).expect("there is room");
        hub.commit(commit);
    }
    let (_, buffered) = hub.buffered(link);
    let high_water = devicebound::hub::Limits::default().tx_high_water;
    assert!((high_water..high_water + 61_000).contains(&buffered), "{buffered}");
    hub.stall(link, false);
    station.talk(&mut hub);
    assert_eq!(delivered(&station.heard).len(), 50);
}
