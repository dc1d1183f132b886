//! The outbox over its limits and over a crash: every message has a fate, and it is told.

use super::*;
use alloc::format;

fn limited(messages: usize, policy: OutboxPolicy) -> DeviceConfig {
    let limits = Limits { outbox_messages: messages, ..Limits::default() };
    config().with_limits(limits).with_outbox(policy)
}

fn dropped(ticket: Ticket) -> Outcome {
    Ok(Action::Dropped(ticket, DropReason::Displaced))
}

/// Online, with all its telemetry written.
fn online(mut device: Device) -> (Bench, Vec<Sent>) {
    let mut tx = Vec::new();
    let _ = device.handle(Instant::from_secs(1), Event::Received(&mut &[][..]), &mut tx);
    let mut bench = Bench { device, now: Instant::from_secs(1000), tx };
    bench.open();
    bench.accept(false);
    let sent = bench.sent();
    (bench, sent)
}

fn saved(device: &Device) -> Vec<u8> {
    let mut snapshot = Vec::new();
    device.snapshot(&mut snapshot);
    snapshot
}

fn restored(snapshot: &[u8]) -> Device {
    Device::restore(config(), snapshot).unwrap()
}

#[test]
fn the_oldest_message_makes_room_and_its_fate_is_told() {
    let mut bench = Bench::new(limited(3, OutboxPolicy::DropOldest));
    let tickets = [b"1", b"2", b"3", b"4", b"5"].map(|payload| bench.telemetry(payload));
    assert_eq!(tickets.map(|ticket| bench.device.waits(ticket)), [false, false, true, true, true]);
    assert_eq!(bench.event(Event::Received(&mut &[][..])), dropped(tickets[0]));
    assert_eq!(bench.event(Event::Received(&mut &[][..])), dropped(tickets[1]));
    assert!(matches!(bench.event(Event::Received(&mut &[][..])), Ok(Action::Wait(_))));
    bench.open();
    bench.accept(false);
    let payloads: Vec<_> = bench.sent().into_iter().map(|packet| packet.payload).collect();
    assert_eq!(payloads, [b"3", b"4", b"5"]);
}

#[test]
fn what_is_in_flight_is_not_dropped_and_where_that_is_all_the_new_message_is_not_taken() {
    let limits = Limits { outbox_messages: 3, window: 2, ..Limits::default() };
    let config = config().with_limits(limits).with_outbox(OutboxPolicy::DropOldest);
    let mut bench = Bench::online_with(config);
    let tickets = [b"1", b"2", b"3", b"4"].map(|payload| bench.telemetry(payload));
    let in_flight = bench.sent();
    assert_eq!(bench.event(Event::Received(&mut &[][..])), dropped(tickets[2]));
    assert_eq!(bench.hear(acknowledge(&in_flight[0])), Action::Acknowledged(tickets[0]));
    assert_eq!(bench.sent()[0].payload, b"4", "the third left a gap, and the fourth is whole");

    let limits = Limits { outbox_messages: 2, window: 2, ..Limits::default() };
    let mut bench =
        Bench::online_with(self::config().with_limits(limits).with_outbox(OutboxPolicy::DropOldest));
    bench.telemetry(b"1");
    bench.telemetry(b"2");
    let message = Message::new(b"3");
    assert_eq!(bench.device.telemetry(bench.now, message, &mut bench.tx), Err(SendError::OutboxFull));
    assert_eq!(bench.device.status().queued, 2);
}

#[test]
fn nothing_is_dropped_for_a_message_that_is_too_large_by_itself() {
    let limits = Limits { outbox_bytes: 1000, ..Limits::default() };
    let mut bench = Bench::new(config().with_limits(limits).with_outbox(OutboxPolicy::DropOldest));
    bench.telemetry(b"1");
    let message = Message::new(&[0; 1000]);
    assert_eq!(bench.device.telemetry(bench.now, message, &mut bench.tx), Err(SendError::OutboxFull));
    assert_eq!(bench.device.status().queued, 1);
}

#[test]
fn gaps_of_dropped_messages_do_not_let_the_buffer_grow() {
    let limits = Limits { outbox_bytes: 4000, window: 2, ..Limits::default() };
    let mut bench = Bench::online_with(config().with_limits(limits).with_outbox(OutboxPolicy::DropOldest));
    for number in 0..1000_u32 {
        bench.telemetry(&[number as u8; 200]);
        while matches!(bench.event(Event::Received(&mut &[][..])), Ok(Action::Dropped(..))) {}
        assert!(bench.device.outbox.capacity() <= 2 * 4000);
    }
    let in_flight = bench.sent();
    assert_eq!(in_flight.iter().map(|sent| sent.payload[0]).collect::<Vec<_>>(), [0, 1]);
    bench.hear(acknowledge(&in_flight[0]));
    let next = bench.sent().remove(0).payload;
    assert!(next.len() == 200 && next.iter().all(|&byte| byte == next[0]) && next[0] > 200, "{next:?}");
}

#[test]
fn a_crash_loses_nothing_that_was_saved_and_what_was_sent_goes_first_with_its_id_and_dup() {
    let mut bench = Bench::online_with(config().with_limits(Limits { window: 2, ..Limits::default() }));
    let tickets = [b"1", b"2", b"3"].map(|payload| bench.telemetry(payload));
    let before = bench.sent();
    bench.hear(acknowledge(&before[1])); // out of turn: it is not sent again
    let snapshot = saved(&bench.device);

    let device = restored(&snapshot);
    assert_eq!(tickets.map(|ticket| device.waits(ticket)), [true, false, true]);
    let (mut bench, after) = online(device);
    assert_eq!(after[0], Sent { dup: true, ..before[0].clone() });
    assert_eq!((after[1].dup, &after[1].payload[..]), (false, &b"3"[..]));
    assert_ne!(after[1].id, before[1].id, "an id rests as long as possible");
    assert!(bench.telemetry(b"4") > tickets[2]);
    assert_eq!(bench.hear(acknowledge(&after[0])), Action::Acknowledged(tickets[0]));
}

#[test]
fn to_save_what_was_restored_gives_the_same_bytes() {
    let mut bench = Bench::online();
    assert_eq!(saved(&restored(&saved(&bench.device))), saved(&bench.device), "empty");
    bench.telemetry(b"1");
    bench.telemetry(&[7; 300]);
    let snapshot = saved(&bench.device);
    assert_eq!(saved(&restored(&snapshot)), snapshot);
}

#[test]
fn a_snapshot_that_was_changed_or_cut_short_is_refused() {
    let mut bench = Bench::online();
    bench.telemetry(b"1");
    let snapshot = saved(&bench.device);
    for length in 0..snapshot.len() {
        assert!(Device::restore(config(), &snapshot[..length]).is_err(), "{length} bytes");
    }
    for at in 0..snapshot.len() {
        let mut changed = snapshot.clone();
        changed[at] ^= 0x10;
        assert!(Device::restore(config(), &changed).is_err(), "byte {at}");
    }
}

#[test]
fn a_snapshot_says_why_it_cannot_be_used() {
    let refused = |config, snapshot: &[u8]| Device::restore(config, snapshot).unwrap_err();
    let mut bench = Bench::online();
    bench.telemetry(b"1");
    bench.telemetry(b"2");
    let snapshot = saved(&bench.device);
    assert_eq!(refused(config(), b""), RestoreError::NotASnapshot);
    assert_eq!(refused(config(), b"devicebound outbox 2\n"), RestoreError::Version);
    assert_eq!(refused(config(), &snapshot[..60]), RestoreError::Damaged);
    assert_eq!(refused(limited(1, OutboxPolicy::DropOldest), &snapshot), RestoreError::Limits);
    let other = CONNECTION_STRING.replace("dev1", "dev2");
    let other = DeviceConfig::from_connection_string(&other).unwrap();
    assert_eq!(refused(other, &snapshot), RestoreError::OtherIdentity);
}

#[test]
fn what_has_the_right_digest_is_read_as_carefully() {
    use sha2::{Digest as _, Sha256};
    let mut bench = Bench::online();
    bench.telemetry(b"1");
    let snapshot = saved(&bench.device);
    let content = &snapshot[..snapshot.len() - 32];
    for at in 0..content.len() {
        for bit in 0..8 {
            let mut changed = content.to_vec();
            changed[at] ^= 1 << bit;
            let digest = Sha256::digest(&changed);
            changed.extend_from_slice(&digest);
            if let Ok(device) = Device::restore(config(), &changed) {
                assert_eq!(saved(&device), changed, "byte {at}, bit {bit}");
                let (_, sent) = online(device);
                assert_eq!(sent.len(), 1, "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn the_format_is_what_it_was() {
    let mut bench = Bench::new(config());
    bench.telemetry(b"21.5");
    let snapshot = saved(&bench.device);
    let topic = "devices/dev1/messages/events/";
    let head = b"devicebound outbox 1\n\0\x04dev1\0\0\0\0\0\0\0\x01\0\0\0\0\0\x01";
    let entry = format!("\0\0\0\0\0\0\0\x01\0\0\0\0\0\x27\x32\x25\0\x1d{topic}\0\x0121.5");
    assert_eq!(snapshot[..snapshot.len() - 32], [&head[..], entry.as_bytes()].concat());
}
