//! Rows of the list of faults that dice do not bring about, each by its number; and that no row is forgotten.

use std::path::PathBuf;
use std::time::Duration;

use devicebound::device::Message;
use devicebound::hub::LinkId;
use devicebound::iothub::Subscription;
use devicebound::limits::MAILBOX_MAX;
use devicebound::packet::{Decoded, Packet, PacketId, QoS, Subscribe, TopicFilter, decode};
use devicebound_world::allocations::growth;
use devicebound_world::fixtures::{config, connected, connected_with, send};
use devicebound_world::hub_host::HubHost;
use devicebound_world::station::{Heard, Station};
use devicebound_world::{FAULTS, MARKS, Marks, Options, Reached, Seeded, Step, World};

#[test]
fn every_row_that_concerns_machines_and_protocol_is_seen_somewhere() {
    let wanted = "A1 A3 A4 A6 B2 B3 B4 B5 B6 B7 B10 C1 C4 C5 D1 D2 D3 D4 D5 D6 D7 D8 D9 E6 E9 F1 F2 F3";
    let ids: Vec<_> = FAULTS.iter().map(|fault| fault.id).collect();
    assert_eq!(ids.join(" "), wanted);
    for fault in FAULTS {
        assert!(!fault.marks.is_empty() || !fault.scenarios.is_empty(), "{} is seen nowhere", fault.id);
        for mark in fault.marks {
            assert!(MARKS.contains(mark), "{}: there is no mark {mark:?}", fault.id);
        }
        for (file, test) in fault.scenarios {
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file).with_extension("rs");
            let source = std::fs::read_to_string(&path).unwrap_or_default();
            let is_test = source.contains(&format!("#[test]\nfn {test}("));
            assert!(is_test, "{}: {} has no test {test}", fault.id, path.display());
        }
    }
}

#[test]
fn a_run_prints_how_often_each_row_was_reached() {
    let mut marks = Marks::default();
    marks.mark("hub: queue full");
    let printed = Reached(&marks).to_string();
    assert_eq!(printed.lines().count(), FAULTS.len());
    assert!(printed.contains("scenario  A4: "), "{printed}");
    assert!(printed.contains("           0  B3: "), "one of its marks was not reached: {printed}");
}

fn subscribe(id: u16, filters: &[&str]) -> Vec<u8> {
    let filter = |text| (TopicFilter::new(text).expect("it is a filter"), QoS::AtLeastOnce);
    let filters: Vec<_> = filters.iter().map(|text| filter(*text)).collect();
    let mut bytes = Vec::new();
    Subscribe::encode(PacketId::new(id).expect("it is not 0"), &filters, &mut bytes).expect("it fits");
    bytes
}

#[test]
fn b2_a_flood_of_subscribes_is_answered_in_order_and_leaves_no_memory_behind() {
    const KNOWN: [&str; 2] = ["$iothub/twin/res/#", "$iothub/methods/POST/#"];
    let filters: Vec<_> = KNOWN.into_iter().cycle().take(30).collect();
    let (mut hub, station) = connected();
    let link = station.link.expect("it is connected");
    let mut flood = |ids: std::ops::RangeInclusive<u16>| {
        for id in ids {
            hub.receive(link, &subscribe(id, &filters));
            let output = hub.take_output(link);
            let Ok(Decoded::Packet(Packet::SubAck(suback))) = decode(&mut output.as_slice(), 1000) else {
                panic!("SUBSCRIBE {id} is answered with {output:?}");
            };
            assert_eq!(suback.packet_id().get(), id);
        }
    };
    flood(1..=1000);
    let grown = growth(|| flood(1001..=10_000));
    assert!(grown < 1000, "{grown} bytes are left of 9000 SUBSCRIBEs");
}

/// The packet ids of the PUBLISHes that a hub has sent.
fn published(hub: &mut HubHost, link: LinkId) -> Vec<u16> {
    let output = hub.take_output(link);
    let mut rest = output.as_slice();
    let mut ids = Vec::new();
    while let Ok(Decoded::Packet(packet)) = decode(&mut rest, usize::MAX) {
        if let Packet::Publish(publish) = packet {
            ids.extend(publish.qos.packet_id().map(PacketId::get));
        }
    }
    ids
}

/// A message that was not acknowledged while 65535 others were lent its packet id to one of them.
#[test]
fn b4_a_hubs_packet_ids_start_again_at_1_and_pass_over_those_in_flight() {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::CloudMessages);
    let link = station.link.expect("it is connected");
    send(&mut hub, "first");
    let stays = published(&mut hub, link);
    let [held] = stays.as_slice() else { panic!("one message was sent: {stays:?}") };
    let mut seen = Vec::new();
    for _ in 0..66_000 {
        send(&mut hub, "m");
        let ids = published(&mut hub, link);
        for id in &ids {
            let mut puback = Vec::new();
            let id = PacketId::new(*id).expect("no id is 0");
            Packet::PubAck(id).encode(&mut puback).expect("it fits");
            hub.receive(link, &puback);
        }
        seen.extend(ids);
    }
    assert_eq!(seen.len(), 66_000);
    assert!(!seen.contains(held), "{held} is in flight");
    assert!(seen.windows(2).any(|pair| pair[0] > 65_000 && pair[1] < 100), "ids start again");
}

#[test]
fn b4_a_devices_packet_ids_start_again_at_1_and_pass_over_those_in_flight() -> Result<(), String> {
    // The World's wire says no to an id that is 0 or in flight.
    let mut world = World::new(Options::calm(1), Seeded::new(1));
    for _ in 0..66_000 {
        world.send_telemetry(0).map_err(|breach| breach.to_string())?;
    }
    world.heal().map_err(|breach| breach.to_string())?;
    assert!(world.marks().count("rule: acknowledged telemetry is safe") >= 66_000);
    Ok(())
}

#[test]
fn b7_a_twin_patch_that_cannot_be_held_changes_nothing() {
    let (mut hub, mut station) = connected();
    let before = hub.record("dev").clone();
    let bombs = [
        format!("{}1{}", "{\"a\":".repeat(12), "}".repeat(12)),
        format!("{{\"a\":\"{}\"}}", "x".repeat(32_768)),
        "{\"a\":\"\\ud800\"}".to_owned(),
        "[".repeat(100_000),
    ];
    for bomb in bombs {
        let now = hub.now;
        let report = station.command(&mut hub, |device, tx| device.report(now, bomb.as_bytes(), None, tx));
        let refused = report.is_err()
            || station
                .take_heard()
                .iter()
                .any(|heard| matches!(heard, Heard::Answered { status: 400 | 413, .. }));
        assert!(refused, "{} bytes", bomb.len());
    }
    assert_eq!(hub.record("dev").twin(), before.twin());
}

#[test]
fn d8_a_slow_application_gets_ten_thousand_cloud_messages_and_loses_none() -> Result<(), String> {
    let options = Options { application: Duration::from_secs(20), ..Options::calm(1) };
    let mut world = World::new(options, Seeded::new(1));
    let mut run = || {
        while world.marks().count("rule: cloud messages in order") < 10_000 {
            world.act(Step::CloudMessage, 0)?;
            world.run(Duration::from_millis(100))?;
            assert!(world.device(0).status().deliveries <= MAILBOX_MAX);
        }
        world.heal()
    };
    run().map_err(|breach| breach.to_string())?;
    assert!(world.marks().count("rule: completed after PUBACK") >= 10_000);
    Ok(())
}

#[test]
fn e9_a_hundred_takeovers_a_second_lose_nothing_and_disturb_nobody() {
    const TAKEOVERS: usize = 500;
    let with_will =
        config("dev").with_will(&Message::new(b"gone"), QoS::AtLeastOnce).expect("the will is good");
    let (mut hub, mut holder) = connected_with(with_will.clone());
    let _ = hub.register(devicebound_world::fixtures::record("probe"));
    let mut probe = Station::new(config("probe"));
    probe.connect(&mut hub);
    holder.subscribe(&mut hub, Subscription::CloudMessages);
    for number in 0..10 {
        send(&mut hub, &number.to_string());
    }
    for _ in 0..TAKEOVERS {
        hub.advance(Duration::from_millis(10));
        let mut next = Station::new(with_will.clone());
        next.connect(&mut hub);
        holder.talk(&mut hub);
        assert_eq!(holder.link, None, "the new one wins");
        holder = next;
        probe.telemetry(&mut hub, Message::new(b"undisturbed"));
    }
    let count = |body: &[u8]| hub.telemetry.iter().filter(|message| message.payload == body).count();
    assert_eq!((count(b"gone"), count(b"undisturbed")), (TAKEOVERS, TAKEOVERS));
    assert!(!probe.take_heard().iter().any(|heard| matches!(heard, Heard::Closed(_))));
    let deliveries: Vec<_> = holder
        .take_heard()
        .into_iter()
        .filter_map(|heard| match heard {
            Heard::Delivered { delivery, .. } => Some(delivery),
            _ => None,
        })
        .collect();
    assert_eq!(deliveries.len(), 10);
    for delivery in deliveries {
        holder.command(&mut hub, |device, tx| device.complete(delivery, tx)).expect("it is open");
    }
    assert_eq!(hub.record("dev").waiting().len(), 0);
}
