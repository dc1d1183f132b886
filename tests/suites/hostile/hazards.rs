//! Hazards that a skeleton of this design showed, each by name.
//!
//! Four of them stand among the scenarios of what they concern; [`ELSEWHERE`] says where.

use std::path::PathBuf;
use std::time::Duration;

use devicebound::device::{Event, Message};
use devicebound::hub::CloudMessage;
use devicebound::iothub::Subscription;
use devicebound::limits::MAILBOX_MAX;
use devicebound::packet::{Decoded, Packet, PacketId, PublishQoS, QoS, decode};
use devicebound::{CloseReason, Rule};
use devicebound_testkit::live::publish;
use devicebound_world::fixtures::{config, connected, connected_with, send};
use devicebound_world::hub_host::StoreMode;
use devicebound_world::station::{Heard, Station};
use devicebound_world::{Breach, Bytes, Options, Step, World};

const PINGREQ: [u8; 2] = [0xC0, 0];

const ELSEWHERE: [(&str, &str, &str); 4] = [
    (
        "a GET behind an unsafe PATCH",
        "scenarios/requests",
        "a_get_behind_a_patch_that_is_not_safe_waits_for_it",
    ),
    (
        "a takeover while a commit is open",
        "scenarios/connection",
        "nothing_overtakes_the_connack_when_a_takeover_waits_for_the_store",
    ),
    (
        "keep alive while the store is slow",
        "scenarios/connection",
        "keep_alive_does_not_run_while_the_hub_itself_waits_for_its_store",
    ),
    (
        "a late word of a commit that was rejected",
        "scenarios/requests",
        "a_commit_that_is_rejected_ends_the_connection_and_a_late_word_of_it_counts_for_nothing",
    ),
];

#[test]
fn the_hazards_that_stand_elsewhere_are_there() {
    for (hazard, file, test) in ELSEWHERE {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file).with_extension("rs");
        let source = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            source.contains(&format!("#[test]\nfn {test}(")),
            "{hazard}: no {test} in {}",
            path.display()
        );
    }
}

#[test]
fn a_fin_right_behind_disconnect_fires_no_will_and_loses_no_telemetry() {
    let will = Message::new(b"gone");
    let config = config("dev").with_will(&will, QoS::AtLeastOnce).expect("the will is good");
    let (mut hub, mut station) = connected_with(config);
    let link = station.link.expect("it is connected");
    let mut last = Vec::new();
    station.device.telemetry(hub.now, Message::new(b"last"), &mut last).expect("the outbox is empty");
    station.device.disconnect(hub.now, &mut last);
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

/// A byte fits into the network either way, and either machine has more to send than it may hold: whoever waited for the
/// other would wait for ever, as no time goes by.
#[test]
fn two_full_buffers_do_not_wait_for_each_other() -> Result<(), Breach> {
    let options = Options { window: 1, high_water: 16, ..Options::calm(1) };
    let mut world = World::new(options, Bytes::new(&[]));
    world.act(Step::Nothing, 0)?;
    let start = world.elapsed();
    world.act(Step::Stall, 0)?; // down
    for _ in 0..MAILBOX_MAX {
        world.act(Step::CloudMessage, 0)?;
        world.send_telemetry(0)?;
        world.send_telemetry(0)?;
    }
    assert_eq!(world.device(0).status().queued, 2 * MAILBOX_MAX, "neither side gets anywhere");
    world.act(Step::Stall, 0)?; // no more
    let status = world.device(0).status();
    assert_eq!((status.queued, status.deliveries), (0, 0));
    assert_eq!(world.elapsed(), start);
    assert!(world.marks().count("hub: output full") > 0 && world.marks().count("fault: short write") > 0);
    world.heal()
}

/// A device leaves while its answers cannot be written: what it said last is read all the same.
#[test]
fn a_disconnect_behind_requests_is_read_though_nobody_takes_the_answers() -> Result<(), Breach> {
    let options = Options { window: 7, high_water: 64, ..Options::calm(1) };
    let mut world = World::new(options, Bytes::new(&[]));
    world.run(Duration::from_secs(1))?;
    world.act(Step::Stall, 0)?; // down
    for step in [Step::Desired, Step::CloudMessage, Step::GetTwin, Step::GetTwin, Step::Report, Step::GetTwin]
    {
        world.act(step, 0)?;
    }
    world.act(Step::Disconnect, 0)?;
    assert_eq!(world.marks().count("close: hub, disconnected"), 1);
    world.heal()
}

#[test]
fn telemetry_and_twin_patches_are_acknowledged_in_the_order_in_which_they_came() {
    let (mut hub, station) = connected();
    let link = station.link.expect("it is connected");
    let patch = |rid: u16| format!("$iothub/twin/PATCH/properties/reported/?$rid={rid}");
    let events = "devices/dev/messages/events/";
    hub.store = StoreMode::Held;
    for (id, topic) in [(7, patch(7).as_str()), (8, events), (9, patch(9).as_str()), (10, events)] {
        hub.receive(link, &publish(topic, id, b"{}"));
    }
    let writes = hub.take_writes();
    for receipt in writes.receipts.into_iter().flatten() {
        hub.hub.stored(receipt);
    }
    hub.settle();
    assert!(hub.take_output(link).is_empty(), "the first patch is not safe");
    let last = writes.commits.last().expect("a patch is committed");
    hub.hub.committed(last.device, last.revision);
    hub.settle();
    let output = hub.take_output(link);
    let mut rest = output.as_slice();
    let mut acknowledged = Vec::new();
    while let Ok(Decoded::Packet(packet)) = decode(&mut rest, usize::MAX) {
        if let Packet::PubAck(id) = packet {
            acknowledged.push(id.get());
        }
    }
    assert_eq!(acknowledged, [7, 8, 9, 10]);
}

#[test]
fn a_cloud_message_is_sent_again_after_a_restart_with_its_packet_id_and_dup() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    let link = station.link.expect("it is connected");
    let publish_of = |output: &[u8]| {
        let mut rest = output;
        while let Ok(Decoded::Packet(packet)) = decode(&mut rest, usize::MAX) {
            if let Packet::Publish(publish) = packet {
                return Some((publish.payload.to_vec(), publish.qos));
            }
        }
        None
    };
    for message in ["first", "second"] {
        send(&mut hub, message);
    }
    hub.receive(link, &[0x40, 2, 0, 1]); // PUBACK of the first
    let sent = hub.take_output(link);
    assert!(publish_of(&sent).is_some_and(|(payload, _)| payload == b"first"));
    hub.restart();
    let _ = station.device.handle(hub.now, Event::Closed, &mut Vec::new());
    let link = hub.open();
    let mut connect = Vec::new();
    let opened = Event::Opened { jitter: 1, unix_time: hub.unix_time() };
    assert!(station.device.handle(hub.now, opened, &mut connect).is_ok());
    hub.receive(link, &connect);
    let again = publish_of(&hub.take_output(link));
    let packet_id = PacketId::new(2).expect("it is not 0");
    assert_eq!(again, Some((b"second".to_vec(), PublishQoS::AtLeastOnce { packet_id, dup: true })));
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
