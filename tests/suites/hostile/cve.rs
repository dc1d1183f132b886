//! The shapes that have broken other MQTT programs, each under the name of its advisory, against the codec and the
//! machines. What an advisory says of MQTT 5 is tried in its MQTT 3.1.1 form.

use std::time::Duration;

use devicebound::device::{Action, Event, Limits, Message};
use devicebound::iothub::Subscription;
use devicebound::iothub::sas::{SymmetricKey, sign};
use devicebound::limits::{CONNECT_TIME, REMAINING_LENGTH_MAX};
use devicebound::packet::{
    Connect, Credentials, Decoded, PacketId, QoS, Subscribe, Text, TopicFilter, TopicName, Unsubscribe,
    decode,
};
use devicebound::time::Instant;
use devicebound::{Close, CloseReason, Hub, Rule, hub};
use devicebound_testkit::live::{CLOUD_MESSAGE_TOPIC, DEVICE_ID, LiveDevice, opening_device, publish};
use devicebound_world::allocations::{allocations, growth};
use devicebound_world::fixtures::{self, HOST, KEYS, config, connected, record};
use devicebound_world::hub_host::{HubHost, START};
use devicebound_world::station::Station;
use devicebound_world::vectors;

const NOW: Instant = Instant::from_secs(1000);
/// The largest remaining length that can be announced.
const HUGE: [u8; 4] = [0xFF, 0xFF, 0xFF, 0x7F];
/// More than it takes to look at a fixed header, and far less than is announced in it.
const LITTLE: usize = 16 * 1024;
/// The topic that goes deepest.
const SLASHES: usize = 65_535;

// --- what the tests share ---

/// The rule that the front of `bytes` breaks.
fn broken(bytes: &[u8]) -> Option<Rule> {
    decode(&mut &bytes[..], REMAINING_LENGTH_MAX).err().map(|error| error.rule())
}

/// A packet with a body of less than 128 bytes.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).ok().filter(|length| *length < 0x80);
    [&[first, length.expect("a short body")][..], body].concat()
}

fn text(text: &str) -> Text<'_> {
    Text::new(text).expect("it is text")
}

/// A CONNECT with nothing wrong in its form.
fn connect(client_id: &str, credentials: Option<Credentials<'_>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Connect { clean_session: true, keep_alive: 60, client_id: text(client_id), will: None, credentials }
        .encode(&mut bytes)
        .expect("the fields are short");
    bytes
}

fn subscribe(filter: &str) -> Vec<u8> {
    let filter = TopicFilter::new(filter).expect("it is a filter");
    let mut bytes = Vec::new();
    Subscribe::encode(PacketId::MIN, &[(filter, QoS::AtLeastOnce)], &mut bytes).expect("it fits");
    bytes
}

fn unsubscribe(filter: &str) -> Vec<u8> {
    let filter = TopicFilter::new(filter).expect("it is a filter");
    let mut bytes = Vec::new();
    Unsubscribe::encode(PacketId::MIN, &[filter], &mut bytes).expect("it fits");
    bytes
}

/// Sends `bytes` on a new connection: the hub's answer, and the rule for which it closes.
fn from_stranger(bytes: &[u8]) -> (Vec<u8>, Option<Rule>) {
    let mut hub = fixtures::hub(&["dev"]);
    let link = hub.open();
    hub.receive(link, bytes);
    (hub.take_output(link), hub.closed(link).as_ref().map(Close::rule))
}

/// Sends `bytes` on the connection of a device that is online: the rule for which the hub closes it. Whatever it does,
/// it goes on serving others.
fn from_device(bytes: &[u8]) -> Option<Rule> {
    let (mut hub, station) = connected();
    hub.register(record("neighbour"));
    let link = station.link.expect("it is connected");
    hub.receive(link, bytes);
    is_served(&mut hub);
    hub.closed(link).as_ref().map(Close::rule)
}

/// A neighbour connects, is heard, and is told so.
fn is_served(hub: &mut HubHost) {
    let mut neighbour = Station::new(config("neighbour"));
    neighbour.connect(hub);
    let before = hub.telemetry.len();
    neighbour.telemetry(hub, Message::new(b"42"));
    assert_eq!(neighbour.device.status().queued, 0, "{:?}", neighbour.heard);
    assert_eq!(hub.telemetry.len(), before + 1);
    neighbour.cut(hub);
}

/// Sends `bytes` to a device that is online and waits for a SUBACK: the rule for which it ends the connection.
fn from_hub(bytes: &[u8]) -> Option<Rule> {
    let (mut device, mut tx) = opening_device();
    let connected = device.handle(NOW, Event::Received(&mut &[0x20, 2, 0, 0][..]), &mut tx);
    assert_eq!(connected, Ok(Action::Connected { session_present: false }));
    device.subscribe(NOW, Subscription::Methods, &mut tx).expect("it is the first one");
    let mut rest = bytes;
    loop {
        match device.handle(NOW, Event::Received(&mut rest), &mut tx) {
            Ok(Action::Wait(_)) => return None,
            Ok(_) => {}
            Err(close) => return Some(close.rule()),
        }
    }
}

/// Runs `work` on a stack that has no room for a frame per level of a topic or per packet.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(work);
    thread.expect("a thread can be made").join().expect("the stack is large enough");
}

// --- memory and time before a device is known ---

#[test]
fn cve_2017_7651_connect_with_huge_remaining_length_reserves_nothing() {
    let header = [&[0x10][..], &HUGE].concat();
    let asked_for = allocations(|| {
        assert_eq!(
            decode(&mut &header[..], REMAINING_LENGTH_MAX),
            Ok(Decoded::Incomplete { at_least: REMAINING_LENGTH_MAX })
        );
    });
    assert_eq!(asked_for.blocks, 0);
    let mut hub = fixtures::hub(&["dev"]);
    let link = hub.open();
    let asked_for = allocations(|| hub.receive(link, &header));
    assert!(asked_for.bytes < LITTLE, "{asked_for:?}");
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::PacketSize));
}

#[test]
fn cve_2023_0809_the_type_of_the_first_packet_is_judged_before_its_length() {
    for first in [0x30, 0x82, 0xA2] {
        let mut hub = fixtures::hub(&["dev"]);
        let link = hub.open();
        let asked_for = allocations(|| hub.receive(link, &[&[first][..], &HUGE].concat()));
        assert!(asked_for.bytes < LITTLE, "{asked_for:?}");
        assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::ConnectFirst));
    }
}

#[test]
fn cve_2026_58210_of_a_partial_connect_only_what_came_is_held_and_not_for_long() {
    let whole = connect("dev", None);
    let mut hub = fixtures::hub(&["dev"]);
    let link = hub.open();
    for byte in &whole[..whole.len() - 1] {
        hub.receive(link, &[*byte]);
    }
    assert_eq!(hub.buffered(link), (whole.len() - 1, 0));
    hub.advance(Duration::from_secs(31));
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::ConnectTime));
}

#[test]
fn cve_2026_44248_the_limit_is_applied_before_the_body_and_to_each_packet_alone() {
    let small = publish("t", 1, b"x");
    let together = small.repeat(1000);
    let mut rest = &together[..];
    for _ in 0..1000 {
        assert!(matches!(decode(&mut rest, small.len()), Ok(Decoded::Packet(_))));
    }
    assert!(rest.is_empty());
    let error = decode(&mut &[0x30, 0x80, 0x01][..], 127).expect_err("it announces 128 bytes");
    assert_eq!(error.rule(), Rule::PacketSize);
}

#[test]
fn cve_2019_0222_no_length_inside_a_corrupt_frame_is_believed() {
    let whole = connect("dev", Some(Credentials { username: text("u"), password: Some(b"p") }));
    for at in 2..whole.len() - 1 {
        let mut corrupt = whole.clone();
        corrupt[at..at + 2].copy_from_slice(&[0xFF, 0xFF]);
        let asked_for = allocations(|| {
            let _ = decode(&mut &corrupt[..], REMAINING_LENGTH_MAX);
        });
        assert_eq!(asked_for.blocks, 0, "at {at}");
        from_stranger(&corrupt);
    }
}

#[test]
fn cve_2017_7654_and_cve_2024_42649_malformed_connects_leave_no_memory_behind() {
    let mut hub = Hub::new(hub::HubConfig::default(), NOW, START);
    let cases = vectors::load("packets_invalid");
    let from_client = cases.iter().filter(|case| vectors::word(&case["from"]) == "client");
    let malformed: Vec<_> = from_client.map(vectors::bytes).collect();
    let (mut now, mut tx) = (NOW, Vec::with_capacity(64));
    let mut attack = || {
        for bytes in &malformed {
            let link = hub.open(now).expect("there is room for one link");
            let event = hub::Event::Received(&mut &bytes[..]);
            let why = hub.handle(now, link, event, &mut tx).err();
            drop(hub.close(now, link, why.map_or(CloseReason::Lost, |close| close.reason())));
            assert_eq!(hub.poll_ready(), None);
            tx.clear();
        }
        // What the hub wanted to look at once their time to connect was over goes by then.
        now = now.after(CONNECT_TIME);
        assert_eq!(hub.expire(now), None);
    };
    attack(); // the hub's own tables grow to their size
    assert_eq!(growth(|| (0..20).for_each(|_| attack())), 0);
}

// --- malformed packets ---

#[test]
fn cve_2021_28166_and_rumqttd_812_what_only_a_server_sends_closes_the_connection() {
    let connack = packet(0x20, &[0, 0]);
    let suback = packet(0x90, &[0, 1, 0]);
    let unsuback = packet(0xB0, &[0, 1]);
    let pingresp = packet(0xD0, &[]);
    for bytes in [connack, suback, unsuback, pingresp] {
        assert_eq!(from_stranger(&bytes), (vec![], Some(Rule::ConnectFirst)));
        assert_eq!(from_device(&bytes), Some(Rule::Direction));
    }
}

#[test]
fn cve_2021_34432_publish_with_an_empty_topic_is_refused() {
    for bytes in [packet(0x30, &[0, 0]), packet(0x32, &[0, 0, 0, 1, b'x'])] {
        assert_eq!(broken(&bytes), Some(Rule::EmptyTopic));
        assert_eq!(from_device(&bytes), Some(Rule::EmptyTopic));
    }
}

#[test]
fn cve_2019_11779_a_filter_of_65535_slashes_takes_no_stack() {
    on_a_small_stack(|| {
        let slashes = "/".repeat(SLASHES);
        let bytes = subscribe(&slashes);
        assert_eq!(from_device(&bytes), Some(Rule::UnknownFilter));
        let filter = TopicFilter::new(&slashes).expect("it is a filter");
        assert!(filter.matches(TopicName::new(&slashes).expect("it is a name")));
    });
}

#[test]
fn cve_2026_95844_a_topic_of_65535_slashes_takes_no_stack() {
    on_a_small_stack(|| {
        let bytes = publish(&"/".repeat(SLASHES), 1, b"");
        assert_eq!(from_device(&bytes), Some(Rule::UnknownTopic));
        assert_eq!(from_hub(&bytes), None, "it is acknowledged and counted");
    });
}

#[test]
fn cve_2026_95842_and_95843_one_bad_client_ends_its_own_connection_only() {
    let (mut hub, mut good) = connected();
    hub.register(record("bad"));
    let cases = vectors::load("packets_invalid");
    let from_client = cases.iter().filter(|case| vectors::word(&case["from"]) != "server");
    let shared = subscribe("$share/group/devices/bad/messages/devicebound/#");
    for bytes in from_client.map(vectors::bytes).chain([shared]) {
        let mut bad = Station::new(config("bad"));
        bad.connect(&mut hub);
        let link = bad.link.expect("it is connected");
        hub.receive(link, &bytes);
        bad.cut(&mut hub);
        assert!(hub.closed(link).is_some());
        good.telemetry(&mut hub, Message::new(b"1"));
        assert_eq!(good.device.status().queued, 0);
    }
    assert!(good.link.is_some_and(|link| hub.closed(link).is_none()));
}

#[test]
fn cve_2018_12543_publish_to_a_dollar_topic_closes_the_connection() {
    for topic in ["$SYS/broker/version", "$iothub/other", "$", "$$", "$share/g/t"] {
        assert_eq!(from_device(&publish(topic, 1, b"")), Some(Rule::UnknownTopic), "{topic}");
    }
}

#[test]
fn cve_2019_5432_and_cve_2016_10523_a_subscribe_cut_anywhere_is_refused() {
    let whole = [subscribe("a/b"), unsubscribe("a/b")];
    for (bytes, end) in whole.iter().flat_map(|whole| (2..whole.len()).map(move |end| (whole, end))) {
        let cut = packet(bytes[0], &bytes[2..end]);
        assert!(broken(&cut).is_some(), "{cut:?}");
        assert!(from_device(&cut).is_some(), "{cut:?}");
    }
}

#[test]
fn cve_2017_10910_a_series_of_publishes_in_one_piece_takes_no_stack() {
    on_a_small_stack(|| {
        let mut device = LiveDevice::new();
        device.receive(&publish(CLOUD_MESSAGE_TOPIC, 1, b"x").repeat(20_000));
        assert_eq!(device.delivered(), 20_000);
    });
}

#[test]
fn cve_2020_13410_an_invalid_packet_while_answers_cannot_be_written_closes_the_connection() {
    let (mut hub, station) = connected();
    hub.register(record("neighbour"));
    let link = station.link.expect("it is connected");
    hub.stall(link, true);
    hub.receive(link, &[&[0xC0, 0].repeat(100)[..], &packet(0x82, &[0, 1])].concat());
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::NoFilters));
    is_served(&mut hub);
}

#[test]
fn cve_2024_36856_two_connects_in_one_piece_end_one_connection() {
    let (_, connect) = opening_device();
    let mut hub = fixtures::hub(&[DEVICE_ID, "neighbour"]);
    let link = hub.open();
    hub.receive(link, &connect.repeat(2));
    assert_eq!(hub.take_output(link), [0x20, 2, 0, 0]);
    assert_eq!(hub.closed(link).map(|close| close.rule()), Some(Rule::ConnectTwice));
    is_served(&mut hub);
}

#[test]
fn cve_2024_8376_packets_in_any_order_end_one_connection_at_most() {
    let filter = "devices/sensor-42/messages/devicebound/#";
    let packets = [
        opening_device().1,
        subscribe(filter),
        unsubscribe(filter),
        publish("devices/sensor-42/messages/events/", 1, b"x"),
        packet(0xE0, &[]),
    ];
    let mut hub = fixtures::hub(&[DEVICE_ID, "neighbour"]);
    for number in 0..5_usize.pow(5) {
        let order = (0..5).map(|place| number / 5_usize.pow(place) % 5);
        let link = hub.open();
        hub.receive(link, &order.flat_map(|kind| packets[kind].clone()).collect::<Vec<_>>());
        hub.hang_up(link);
        assert!(hub.closed(link).is_some());
    }
    is_served(&mut hub);
}

// --- a hostile hub ---

#[test]
fn cve_2024_10525_suback_without_return_codes_is_refused() {
    let suback = packet(0x90, &[0, 1]);
    assert_eq!(broken(&suback), Some(Rule::SubAckCode));
    assert_eq!(from_hub(&suback), Some(Rule::SubAckCode));
}

#[test]
fn cve_2021_41036_and_cve_2018_17614_a_publish_longer_than_the_device_takes_is_refused_from_its_header() {
    let header = [&[0x30][..], &HUGE].concat();
    assert_eq!(from_hub(&header), Some(Rule::PacketSize));
    let limit = Limits::default().packet;
    let last = |length: usize| {
        [(length & 0x7F) as u8 | 0x80, (length >> 7 & 0x7F) as u8 | 0x80, (length >> 14) as u8]
    };
    assert_eq!(from_hub(&[&[0x30][..], &last(limit)].concat()), None, "so long it may be");
    assert_eq!(from_hub(&[&[0x30][..], &last(limit + 1)].concat()), Some(Rule::PacketSize));
}

#[test]
fn cve_2021_45932_to_45939_a_publish_or_suback_cut_anywhere_reads_nothing_beyond() {
    for whole in [publish("a/b", 1, b""), packet(0x90, &[0, 1, 0])] {
        for end in 2..whole.len() {
            let cut = packet(whole[0], &whole[2..end]);
            // What stands behind would make it whole.
            let stream = [&cut[..], &whole[end..]].concat();
            assert!(broken(&stream).is_some(), "{stream:?}");
            assert!(from_hub(&stream).is_some(), "{stream:?}");
        }
    }
}

#[test]
fn cve_2019_13120_a_topic_longer_than_its_packet_discloses_nothing() {
    let overrun = [&packet(0x30, &[0, 8, b't'])[..], b"secrets"].concat();
    assert_eq!(broken(&overrun), Some(Rule::TopicMissing));
    assert_eq!(from_hub(&overrun), Some(Rule::TopicMissing));
}

#[test]
fn cve_2019_12951_and_cve_2017_2892_lengths_at_their_ends_do_not_wrap() {
    let longest = [&[0x30][..], &HUGE].concat();
    let waiting = Ok(Decoded::Incomplete { at_least: REMAINING_LENGTH_MAX });
    assert_eq!(decode(&mut &longest[..], REMAINING_LENGTH_MAX), waiting);
    assert_eq!(decode(&mut &longest[..], usize::MAX), waiting);
    for body in [&[0xFF, 0xFF][..], &[0xFF, 0xFF, b't'], &[0xFF, 0xFE, 0, 1]] {
        assert_eq!(broken(&packet(0x32, body)), Some(Rule::TopicMissing), "{body:?}");
        assert_eq!(broken(&packet(0x82, &[&[0, 1], body].concat())), Some(Rule::BodyLength), "{body:?}");
    }
}

#[test]
fn cve_2019_19307_a_subscribe_whose_filters_do_not_advance_ends() {
    assert_eq!(broken(&packet(0x82, &[0, 1, 0, 0])), Some(Rule::EmptyTopic));
    assert_eq!(broken(&packet(0x82, &[0, 1, 0, 1, b't', 0, 0, 0, 0])), Some(Rule::EmptyTopic));
    assert_eq!(broken(&packet(0xA2, &[0, 1, 0, 1, b't', 0, 0])), Some(Rule::EmptyTopic));
}

// --- who may do what ---

#[test]
fn cve_2016_9877_a_user_name_without_a_password_opens_nothing() {
    let username = format!("{HOST}/dev/?api-version=2021-04-12");
    for password in [None, Some(&b""[..])] {
        let credentials = Credentials { username: text(&username), password };
        let refused = from_stranger(&connect("dev", Some(credentials)));
        assert_eq!(refused, (vec![0x20, 2, 0, 5], Some(Rule::NoCredentials)));
    }
}

#[test]
fn cve_2017_7650_and_cve_2026_44838_a_wildcard_as_identity_is_no_pattern() {
    let key = SymmetricKey::from_base64(KEYS[0]).expect("the key is base64");
    let token = sign(&format!("{HOST}/devices/dev"), &key, START.after(Duration::from_secs(3600)), None);
    for id in ["+", "#", "de?", "de.", ".*", "%64ev"] {
        let username = format!("{HOST}/{id}/?api-version=2021-04-12");
        let credentials = Credentials { username: text(&username), password: Some(token.as_bytes()) };
        let refused = from_stranger(&connect(id, Some(credentials)));
        assert_eq!(refused, (vec![0x20, 2, 0, 5], Some(Rule::UnknownDevice)), "{id}");
    }
}

#[test]
fn cve_2024_42655_and_cve_2026_58214_a_wildcard_in_a_filter_reaches_nobody_elses_messages() {
    for filter in
        ["devices/#", "devices/+/#", "+/+/messages/devicebound/#", "$iothub/#", "$iothub/+/POST/#", "+"]
    {
        let close = from_device(&subscribe(filter));
        assert!(matches!(close, Some(Rule::UnknownFilter | Rule::ForeignIdentity)), "{filter}: {close:?}");
    }
}

// --- state that grows ---

#[test]
fn cve_2023_28366_the_first_publish_at_qos_2_ends_the_connection() {
    let mut qos2 = publish("devices/dev/messages/events/", 1, b"x");
    qos2[0] = 0x34;
    let flood = qos2.repeat(100);
    assert_eq!(from_device(&flood[..qos2.len()]), Some(Rule::PublishQos2));
    assert_eq!(from_device(&flood), Some(Rule::PublishQos2));
}

#[test]
fn cve_2017_7653_text_that_is_not_utf_8_goes_no_further_than_its_sender() {
    let topic = b"devices/dev/messages/events/\xFF";
    let body = [&[0, topic.len() as u8][..], topic, &[0, 1]].concat();
    assert_eq!(from_device(&packet(0x32, &body)), Some(Rule::Utf8IllFormed));
    let escaped = publish("devices/dev/messages/events/%FF", 1, b"");
    assert_eq!(from_device(&escaped), Some(Rule::PropertyBag));
}
