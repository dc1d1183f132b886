//! Hazards that a skeleton of this design showed, each by name.

use std::time::Duration;

use devicebound::device::Message;
use devicebound::hub::CloudMessage;
use devicebound::iothub::Subscription;
use devicebound::limits::MAILBOX_MAX;
use devicebound::packet::QoS;
use devicebound::{CloseReason, Rule};
use devicebound_tests::fixtures::{config, connected, connected_with};
use devicebound_tests::hub_host::StoreMode;
use devicebound_tests::station::{Heard, Station};

const PINGREQ: [u8; 2] = [0xC0, 0];

#[test]
fn a_fin_right_behind_disconnect_fires_no_will_and_loses_no_telemetry() {
    let will = Message::new(b"gone");
    let config = config("dev").with_will(&will, QoS::AtLeastOnce).expect("the will is good");
    let (mut hub, mut station) = connected_with(config);
    let link = station.link.expect("it is connected");
    let mut last = Vec::new();
    station.device.telemetry(hub.now, Message::new(b"last"), &mut last).expect("the outbox is empty");
    station.device.disconnect(&mut last);
    hub.arrive(link, &last);
    hub.hang_up(link);
    assert_eq!(hub.closed(link).map(|close| close.reason()), Some(CloseReason::Disconnected));
    let bodies: Vec<_> = hub.telemetry.iter().map(|message| message.payload.as_slice()).collect();
    assert_eq!(bodies, [b"last"]);
}

#[test]
fn a_packet_that_waits_in_the_socket_refutes_the_time_out() {
    let (mut hub, station) = connected();
    let link = station.link.expect("it is connected");
    hub.arrive(link, &PINGREQ); // while the hub's process stood still
    hub.wake(hub.now.after(Duration::from_secs(100)));
    assert_eq!(hub.closed(link), None);
    hub.advance(Duration::from_secs(90));
    let reason = hub.closed(link).map(|close| close.reason());
    assert_eq!(reason, Some(CloseReason::TimedOut(Rule::KeepAlive)));
}

/// The World found it: messages that waited for a slow reader kept the hub from reading its PINGREQs, and so cut it, again
/// and again.
#[test]
fn a_device_that_reads_slowly_and_pings_is_not_taken_for_silent() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    let link = station.link.expect("it is connected");
    let device = hub.device("dev");
    for _ in 0..MAILBOX_MAX {
        let message = CloudMessage { payload: vec![b'x'; 60_000], ..CloudMessage::default() };
        let (_, commit) = hub.hub.enqueue(hub.now, device, message).expect("the queue has room");
        hub.commit(commit);
    }
    for second in 0..1000 {
        hub.advance(Duration::from_secs(1));
        let _ = hub.take_some(link, 100);
        if second % 30 == 0 {
            hub.receive(link, &PINGREQ);
        }
        assert_eq!(hub.closed(link), None, "after {second} s");
    }
    hub.advance(Duration::from_secs(91));
    assert!(hub.closed(link).is_some(), "it reads no more, and is silent");
}

#[test]
fn a_late_stored_after_a_takeover_is_harmless() {
    let (mut hub, mut station) = connected();
    hub.store = StoreMode::Held;
    station.telemetry(&mut hub, Message::new(b"1"));
    let mut second = Station::new(config("dev"));
    second.connect(&mut hub);
    hub.release_store();
    second.talk(&mut hub);
    assert!(second.heard.contains(&Heard::Connected { session_present: true }), "{:?}", second.heard);
    assert_eq!(second.heard.iter().filter(|heard| matches!(heard, Heard::Acknowledged(_))).count(), 0);
}

#[test]
fn a_rejected_commit_ends_the_connection_and_nothing_of_it_stays() {
    let (mut hub, mut station) = connected();
    let safe = hub.record("dev").clone();
    hub.store = StoreMode::Held;
    let now = hub.now;
    let link = station.link.expect("it is connected");
    station
        .command(&mut hub, |device, tx| device.report(now, br#"{"a":1}"#, None, tx))
        .expect("it is online");
    let _ = hub.take_writes();
    hub.hub.rejected(hub.device("dev"), safe.clone());
    hub.settle();
    let reason = hub.closed(link).map(|close| close.reason());
    assert_eq!(reason, Some(CloseReason::Ended(Rule::StoreFailed)));
    assert_eq!(hub.record("dev").twin(), safe.twin());
    assert!(
        !station.heard.iter().any(|heard| matches!(heard, Heard::Answered { .. })),
        "{:?}",
        station.heard
    );
}
