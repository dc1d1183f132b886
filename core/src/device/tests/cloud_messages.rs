//! Cloud messages: each is delivered, none is acknowledged before it is completed.

use super::*;
use crate::iothub::SystemProperty;
use alloc::borrow::{Cow, ToOwned as _};

const TOPIC: &str =
    "devices/dev1/messages/devicebound/%24.mid=m%201&%24.to=%2Fdevices%2Fdev1&colour=r%C3%A9d&flag";

fn message(packet_id: u16, dup: bool) -> impl FnOnce(&mut Vec<u8>) {
    let qos = PublishQoS::AtLeastOnce { packet_id: id(packet_id), dup };
    move |out| publish(TOPIC, qos, b"body", out)
}

fn delivery(action: Action<'_>) -> Delivery {
    match action {
        Action::Deliver(_, delivery) => delivery,
        other => panic!("{other:?}"),
    }
}

fn acknowledged(bench: &mut Bench) -> Vec<u16> {
    bench.sent().iter().map(|packet| packet.id.unwrap().get()).collect()
}

#[test]
fn a_message_comes_with_its_properties_sorted_into_system_and_application() {
    let mut bench = Bench::online();
    let Action::Deliver(message, _) = bench.hear(message(1, false)) else { panic!() };
    assert_eq!((message.payload, message.input.clone(), message.dup), (&b"body"[..], None, false));
    assert_eq!(message.system(SystemProperty::MessageId).as_deref(), Some("m 1"));
    assert_eq!(message.system(SystemProperty::CorrelationId), None);
    let application: Vec<_> = message.application().collect();
    let expected = [(Cow::Borrowed("colour"), Some(Cow::Borrowed("réd"))), (Cow::Borrowed("flag"), None)];
    assert_eq!(application, expected);
}

#[test]
fn a_message_right_behind_connack_is_delivered() {
    let mut bench = Bench::opening(config());
    let mut rx = packet_bytes(|out| {
        ConnAck::Accepted { session_present: true }.encode(out);
        message(1, true)(out);
    });
    assert_eq!(bench.pull(&mut rx), Ok(Action::Connected { session_present: true }));
    delivery(bench.pull(&mut rx).unwrap());
}

#[test]
fn a_message_is_acknowledged_when_it_is_completed_and_in_order_of_receipt() {
    let mut bench = Bench::online();
    let first = delivery(bench.hear(message(7, false)));
    let second = delivery(bench.hear(message(3, false)));
    assert!(bench.sent().is_empty());
    assert_eq!(bench.device.status().deliveries, 2);
    bench.device.complete(second, &mut bench.tx).unwrap();
    assert!(bench.sent().is_empty());
    bench.device.complete(first, &mut bench.tx).unwrap();
    assert_eq!(acknowledged(&mut bench), [7, 3]);
    assert_eq!(bench.device.complete(first, &mut bench.tx), Err(CompleteError::Gone));
}

#[test]
fn the_machine_may_be_called_while_a_message_is_borrowed() {
    let mut bench = Bench::online();
    let bytes = packet_bytes(message(1, false)).to_vec();
    let mut rx = &bytes[..];
    let action = bench.device.handle(bench.now, Event::Received(&mut rx), &mut bench.tx).unwrap();
    let Action::Deliver(message, delivery) = action else { panic!() };
    bench.device.complete(delivery, &mut bench.tx).unwrap();
    assert_eq!(message.payload, b"body");
}

#[test]
fn at_qos_0_there_is_nothing_to_acknowledge() {
    let mut bench = Bench::online();
    let delivery = delivery(bench.hear(say(TOPIC, b"body")));
    bench.device.complete(delivery, &mut bench.tx).unwrap();
    assert!(bench.sent().is_empty());
}

#[test]
fn what_the_application_has_already_is_not_delivered_again_in_the_same_session() {
    let mut bench = Bench::online();
    let done = delivery(bench.hear(message(1, false)));
    let open = delivery(bench.hear(message(2, false)));
    assert_eq!(bench.event(Event::Closed), Err(CloseReason::Lost));
    bench.device.complete(done, &mut bench.tx).unwrap();
    assert!(bench.sent().is_empty(), "there is no connection to acknowledge on");
    bench.wait_for_timer().unwrap();
    bench.open();
    bench.accept(true);
    assert_eq!(bench.hear(message(1, true)), Action::Handled);
    assert_eq!(acknowledged(&mut bench), [1]);
    assert_eq!(bench.hear(message(2, true)), Action::Handled);
    assert!(bench.sent().is_empty());
    bench.device.complete(open, &mut bench.tx).unwrap();
    assert_eq!(acknowledged(&mut bench), [2]);
    assert_eq!(bench.device.status().ignored.repeated_messages, 2);
}

#[test]
fn without_the_session_a_message_is_delivered_again() {
    let mut bench = Bench::online();
    let old = delivery(bench.hear(message(1, false)));
    bench.reconnect(false);
    let new = delivery(bench.hear(message(1, true)));
    assert_eq!(bench.device.complete(old, &mut bench.tx), Err(CompleteError::Gone));
    bench.device.complete(new, &mut bench.tx).unwrap();
    assert_eq!(acknowledged(&mut bench), [1]);
}

#[test]
fn one_message_more_than_the_device_holds_ends_the_connection_and_none_is_lost() {
    let mut bench = Bench::online();
    for packet_id in 1..=50 {
        delivery(bench.hear(message(packet_id, false)));
    }
    let close = bench.hear_and_close(message(51, false));
    assert_eq!(close.reason(), CloseReason::Ended(Rule::DeliveriesOpen));
    assert!(bench.sent().is_empty());
}

#[test]
fn a_topic_that_is_not_known_is_acknowledged_in_its_turn_and_counted() {
    let mut bench = Bench::online();
    let waiting = delivery(bench.hear(message(1, false)));
    for (packet_id, topic) in [(2, "devices/dev2/messages/devicebound/"), (3, "$iothub/new/thing")] {
        let qos = PublishQoS::AtLeastOnce { packet_id: id(packet_id), dup: false };
        assert_eq!(bench.hear(|out| publish(topic, qos, b"", out)), Action::Handled);
    }
    assert_eq!(bench.hear(say("$iothub/methods/POST/", b"")), Action::Handled);
    assert!(bench.sent().is_empty());
    bench.device.complete(waiting, &mut bench.tx).unwrap();
    assert_eq!(acknowledged(&mut bench), [1, 2, 3]);
    assert_eq!(bench.device.status().ignored.unknown_topics, 3);
}

#[test]
fn a_message_to_an_input_names_the_input() {
    let text = CONNECTION_STRING.to_owned() + ";ModuleId=modA";
    let mut bench = Bench::online_with(DeviceConfig::from_connection_string(&text).unwrap());
    let action = bench.hear(say("devices/dev1/modules/modA/inputs/in%201/%24.mid=9", b"x"));
    let Action::Deliver(message, _) = action else { panic!() };
    assert_eq!(message.input.as_deref(), Some("in 1"));
    assert_eq!(message.system(SystemProperty::MessageId).as_deref(), Some("9"));
}
