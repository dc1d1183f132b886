//! Telemetry: nothing that was taken is lost, nothing overtakes.

use super::*;
use crate::limits::{MESSAGE_MAX, TEXT_MAX};
use alloc::vec;

fn payloads(sent: &[Sent]) -> Vec<&[u8]> {
    sent.iter().map(|packet| &packet.payload[..]).collect()
}

#[test]
fn a_message_is_sent_at_qos_1_with_system_properties_first() {
    let mut bench = Bench::online();
    let message = Message {
        message_id: Some("m 1"),
        content_type: Some("application/json"),
        content_encoding: Some("utf-8"),
        properties: &[("a/b", Some("1&2")), ("flag", None)],
        ..Message::new(b"{}")
    };
    let ticket = bench.device.telemetry(bench.now, message, &mut bench.tx).unwrap();
    let sent = bench.sent();
    assert_eq!(
        sent[0].topic,
        "devices/dev1/messages/events/%24.mid=m%201&%24.ct=application%2Fjson&%24.ce=utf-8&a%2Fb=1%262&flag"
    );
    assert_eq!((sent[0].qos, sent[0].dup, &sent[0].payload[..]), (Some(QoS::AtLeastOnce), false, &b"{}"[..]));
    assert_eq!(bench.hear(acknowledge(&sent[0])), Action::Acknowledged(ticket));
    assert_eq!(bench.device.status().queued, 0);
}

#[test]
fn prepared_properties_are_sent_as_those_of_the_message_they_were_made_from() {
    let mut bench = Bench::online();
    let message = Message {
        message_id: Some("m 1"),
        content_type: Some("application/json"),
        properties: &[("a/b", Some("é&2")), ("flag", None)],
        ..Message::new(b"{}")
    };
    let prepared = PreparedProperties::new(&message).unwrap();
    bench.device.telemetry(bench.now, message, &mut bench.tx).unwrap();
    let ticket = bench.device.telemetry_with(bench.now, &prepared, b"[]", &mut bench.tx).unwrap();
    bench.device.telemetry(bench.now, Message::new(b"plain"), &mut bench.tx).unwrap();
    let sent = bench.sent();
    assert_eq!(sent[0].topic, sent[1].topic);
    assert_eq!(sent[1].payload, b"[]");
    assert_eq!(sent[2].topic, "devices/dev1/messages/events/");
    bench.hear(acknowledge(&sent[0]));
    assert_eq!(bench.hear(acknowledge(&sent[1])), Action::Acknowledged(ticket));
}

#[test]
fn prepared_properties_are_held_to_the_limits_of_a_message() {
    let mut bench = Bench::online();
    let unnamed = Message { properties: &[("", Some("1"))], ..Message::default() };
    assert_eq!(PreparedProperties::new(&unnamed), Err(SendError::UnnamedProperty));
    let long = "x".repeat(MESSAGE_MAX + 1);
    let too_large = Message { user_id: Some(&long), ..Message::default() };
    assert_eq!(PreparedProperties::new(&too_large), Err(SendError::TooLarge));

    let prepared = PreparedProperties::new(&Message { user_id: Some("abc"), ..Message::default() }).unwrap();
    let mut send = |prepared: &PreparedProperties, payload: &[u8]| {
        bench.device.telemetry_with(bench.now, prepared, payload, &mut bench.tx).map(|_| ())
    };
    assert_eq!(send(&prepared, &vec![0; MESSAGE_MAX - 2]), Err(SendError::TooLarge));
    assert_eq!(send(&prepared, &vec![0; MESSAGE_MAX - 3]), Ok(()));
    let wide = "/".repeat(TEXT_MAX / 3);
    let wide = PreparedProperties::new(&Message { user_id: Some(&wide), ..Message::default() }).unwrap();
    assert_eq!(send(&wide, b""), Err(SendError::TopicTooLong));
}

#[test]
fn what_is_given_offline_is_sent_in_order_when_the_device_is_online() {
    let mut bench = Bench::opening(config());
    for payload in [b"1", b"2", b"3"] {
        bench.telemetry(payload);
    }
    assert!(bench.sent().is_empty());
    bench.accept(false);
    assert_eq!(payloads(&bench.sent()), [b"1", b"2", b"3"]);
}

#[test]
fn sixteen_messages_are_in_flight_and_each_acknowledgement_lets_one_more_go() {
    let mut bench = Bench::online();
    for number in 0..20_u8 {
        bench.telemetry(&[number]);
    }
    let sent = bench.sent();
    assert_eq!(sent.len(), 16);
    assert_eq!(bench.device.status().in_flight, 16);
    bench.hear(acknowledge(&sent[0]));
    assert_eq!(payloads(&bench.sent()), [[16]]);
    bench.hear(acknowledge(&sent[1]));
    assert_eq!(payloads(&bench.sent()), [[17]]);
}

#[test]
fn after_a_lost_connection_the_unacknowledged_go_first_in_order_with_their_id_and_dup() {
    let mut bench = Bench::online();
    for number in 0..20_u8 {
        bench.telemetry(&[number]);
    }
    let before = bench.sent();
    bench.hear(acknowledge(&before[0]));
    let before = [&before[1..], &bench.sent()[..]].concat();
    for session_present in [true, false] {
        bench.reconnect(session_present);
        let after = bench.sent();
        assert_eq!(after.len(), 16);
        for (old, new) in before.iter().zip(&after) {
            assert_eq!(*new, Sent { dup: true, ..old.clone() });
        }
    }
}

#[test]
fn what_was_never_sent_has_no_dup_after_a_reconnection() {
    let mut bench = Bench::online();
    for number in 0..17_u8 {
        bench.telemetry(&[number]);
    }
    bench.sent();
    bench.reconnect(true);
    let again = bench.sent();
    bench.hear(acknowledge(&again[0]));
    let new = bench.sent();
    assert_eq!((payloads(&new), new[0].dup), (vec![&[16][..]], false));
}

#[test]
fn acknowledgements_out_of_turn_are_taken_and_not_sent_again() {
    let mut bench = Bench::online();
    let tickets: Vec<_> = (0..3_u8).map(|number| bench.telemetry(&[number])).collect();
    let sent = bench.sent();
    assert_eq!(bench.hear(acknowledge(&sent[1])), Action::Acknowledged(tickets[1]));
    assert_eq!(bench.device.status().in_flight, 2);
    let twice = bench.hear_and_close(acknowledge(&sent[1]));
    assert_eq!(twice.reason(), CloseReason::Violation(Rule::UnsolicitedAck));
    bench.event(Event::Closed).unwrap();
    bench.wait_for_timer().unwrap();
    bench.open();
    bench.accept(true);
    assert_eq!(payloads(&bench.sent()), [[0], [2]]);
}

#[test]
fn what_was_acknowledged_out_of_turn_leaves_with_the_one_before_it() {
    let mut bench = Bench::online();
    for number in 0..4_u8 {
        bench.telemetry(&[number]);
    }
    let sent = bench.sent();
    for (acknowledged, queued) in [(1, 4), (2, 4), (0, 1), (3, 0)] {
        bench.hear(acknowledge(&sent[acknowledged]));
        let status = bench.device.status();
        assert_eq!(status.queued, queued, "after {acknowledged}");
    }
    assert_eq!(bench.device.status().queued_bytes, 0);
}

#[test]
fn telemetry_and_subscribe_do_not_take_each_others_ids_while_in_flight() {
    let mut bench = Bench::online();
    bench.telemetry(b"slow");
    let slow = bench.sent()[0].id;
    // As after 65535 more packets.
    bench.device.packet_ids = PacketIds::default();
    bench.device.subscribe(bench.now, Subscription::Methods, &mut bench.tx).unwrap();
    let subscribe = bench.sent()[0].id;
    assert_ne!(subscribe, slow);
    bench.device.packet_ids = PacketIds::default();
    bench.telemetry(b"x");
    let telemetry = bench.sent()[0].id;
    assert!(telemetry != slow && telemetry != subscribe);
}

#[test]
fn ids_wrap_around_what_is_in_flight() {
    let mut bench = Bench::online();
    let mut last = 0;
    for _ in 0..70_000_u32 {
        bench.telemetry(b"a");
        bench.telemetry(b"b");
        let sent = bench.sent();
        assert_ne!(sent[0].id, sent[1].id);
        last = sent[1].id.unwrap().get();
        bench.hear(acknowledge(&sent[0]));
        bench.hear(acknowledge(&sent[1]));
    }
    assert_eq!(u32::from(last), 140_000 - 2 * 65_535);
}

#[test]
fn a_full_outbox_refuses_and_changes_nothing() {
    let limits = Limits { outbox_messages: 2, outbox_bytes: 300, ..Limits::default() };
    let mut bench = Bench::online_with(config().with_limits(limits));
    let mut give = |payload: &[u8]| bench.device.telemetry(bench.now, Message::new(payload), &mut bench.tx);
    assert_eq!(give(&[0; 300]), Err(SendError::OutboxFull), "more bytes than there are");
    give(b"1").unwrap();
    give(b"2").unwrap();
    assert_eq!(give(b"3"), Err(SendError::OutboxFull), "more messages than there may be");
    let sent = bench.sent();
    assert_eq!(payloads(&sent), [b"1", b"2"]);
    bench.hear(acknowledge(&sent[0]));
    bench.telemetry(b"3");
    assert_eq!(payloads(&bench.sent()), [b"3"]);
}

#[test]
fn a_message_that_the_hub_would_cut_the_connection_for_is_not_taken() {
    let mut bench = Bench::online();
    let mut give =
        |message: Message<'_>| bench.device.telemetry(bench.now, message, &mut bench.tx).unwrap_err();
    assert_eq!(give(Message::new(&vec![0; 262_145])), SendError::TooLarge);
    let body = vec![0; 262_140];
    assert_eq!(
        give(Message { properties: &[("abc", Some("de"))], ..Message::new(&body) }),
        SendError::TooLarge
    );
    assert_eq!(give(Message { message_id: Some("abcde"), ..Message::new(&body) }), SendError::TooLarge);
    let long = "x".repeat(65_536);
    assert_eq!(give(Message { message_id: Some(&long), ..Message::new(b"") }), SendError::TopicTooLong);
    assert_eq!(
        give(Message { properties: &[("", Some("x"))], ..Message::new(b"") }),
        SendError::UnnamedProperty
    );
    assert!(bench.sent().is_empty());
    bench.telemetry(&vec![0; 262_144]);
}

#[test]
fn telemetry_waits_while_tx_is_full_and_flush_is_asked_for() {
    let limits = Limits { tx_high_water: 1000, ..Limits::default() };
    let mut bench = Bench::online_with(config().with_limits(limits));
    for _ in 0..5 {
        bench.telemetry(&[0; 600]);
    }
    assert_eq!(bench.pull(&mut &[][..]), Ok(Action::Wait(Wait::Flush)));
    assert_eq!(bench.sent().len(), 2);
    assert_eq!(bench.pull(&mut &[][..]), Ok(Action::Wait(Wait::Flush)));
    assert_eq!(bench.sent().len(), 2);
    assert_eq!(bench.pull(&mut &[][..]), Ok(Action::Wait(Wait::Read { at_least: 2 })));
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn at_qos_0_a_message_is_sent_now_or_not_at_all() {
    let mut bench = Bench::opening(config());
    let give = |bench: &mut Bench| bench.device.telemetry_at_most_once(Message::new(b"x"), &mut bench.tx);
    assert_eq!(give(&mut bench), Err(SendError::NotConnected));
    bench.accept(false);
    give(&mut bench).unwrap();
    let sent = bench.sent();
    assert_eq!(
        (sent[0].qos, sent[0].topic.as_str()),
        (Some(QoS::AtMostOnce), "devices/dev1/messages/events/")
    );
    bench.tx = vec![0; 64 << 10];
    assert_eq!(give(&mut bench), Err(SendError::Congested));
}

#[test]
fn bytes_of_acknowledged_messages_are_used_again() {
    let limits = Limits { outbox_bytes: 4096, window: 64, ..Limits::default() };
    let mut bench = Bench::online_with(config().with_limits(limits));
    let mut in_flight = alloc::collections::VecDeque::new();
    for round in 0..5000_u32 {
        // Bodies of all lengths and a backlog that changes, but is never empty: packets lie anywhere in the buffer.
        let body = vec![round as u8; (round % 97) as usize];
        bench.telemetry(&body);
        let sent = bench.sent().remove(0);
        assert_eq!(sent.payload, body);
        in_flight.push_back(sent);
        while in_flight.len() > 3 + (round as usize / 10) % 20 {
            bench.hear(acknowledge(&in_flight.pop_front().unwrap()));
        }
    }
    bench.reconnect(true);
    let again: Vec<_> = in_flight.into_iter().map(|packet| Sent { dup: true, ..packet }).collect();
    assert_eq!(bench.sent(), again);
    assert!(bench.device.outbox.capacity() <= 2 * 4096, "{}", bench.device.outbox.capacity());
}
