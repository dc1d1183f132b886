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
    Device::restore(&config(), snapshot).unwrap()
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
        assert!(Device::restore(&config(), &snapshot[..length]).is_err(), "{length} bytes");
    }
    for at in 0..snapshot.len() {
        let mut changed = snapshot.clone();
        changed[at] ^= 0x10;
        assert!(Device::restore(&config(), &changed).is_err(), "byte {at}");
    }
}

#[test]
fn a_snapshot_says_why_it_cannot_be_used() {
    let refused = |config, snapshot: &[u8]| Device::restore(&config, snapshot).unwrap_err();
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
            if let Ok(device) = Device::restore(&config(), &changed) {
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

// --- changes ---

/// What an application has stored, as `Save` says.
#[derive(Default)]
struct Store {
    bytes: Vec<u8>,
    /// Where the pieces after the snapshot begin.
    pieces: Vec<usize>,
}

impl Store {
    fn save(&mut self, device: &mut Device) -> Save {
        let mut written = Vec::new();
        let save = device.save(&mut written);
        match save {
            Save::Nothing => assert!(written.is_empty()),
            Save::Append => {
                self.pieces.push(self.bytes.len());
                self.bytes.extend(written);
            }
            Save::Replace => {
                self.pieces.clear();
                self.bytes = written;
            }
        }
        save
    }
}

/// What a device holds, as bytes.
fn snapshot_of(device: &Device) -> Vec<u8> {
    let mut bytes = Vec::new();
    device.snapshot(&mut bytes);
    bytes
}

#[test]
fn changes_make_the_same_outbox_as_a_snapshot_after_every_step() {
    for policy in [OutboxPolicy::Reject, OutboxPolicy::DropOldest] {
        let limits = Limits { outbox_messages: 6, window: 3, ..Limits::default() };
        let mut bench = Bench::new(config().with_limits(limits).with_outbox(policy));
        let (mut store, mut in_flight, mut appended) = (Store::default(), Vec::new(), 0);
        let mut state = 7_u32;
        for step in 0..500 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match state >> 29 {
                0..=3 => {
                    let _ = bench.device.telemetry(bench.now, Message::new(b"21.5"), &mut bench.tx);
                    bench.pull_all();
                }
                4 if bench.device.status().connection == ConnectionState::Offline => {
                    bench.open();
                    in_flight.clear();
                    bench.accept(true);
                }
                4 if step % 5 == 0 => {
                    let _ = bench.event(Event::Closed);
                }
                // In turn and out of turn.
                _ if !in_flight.is_empty() => {
                    let acknowledged = (state as usize >> 3) % in_flight.len();
                    let packet: Sent = in_flight.remove(acknowledged);
                    if bench.device.status().connection == ConnectionState::Online {
                        bench.hear(acknowledge(&packet));
                    }
                }
                _ => {}
            }
            let sent = bench.sent();
            in_flight.extend(sent.into_iter().filter(|packet| packet.kind == PacketType::Publish));
            appended += u32::from(store.save(&mut bench.device) == Save::Append);
            let restored = Device::restore(bench.device.config(), &store.bytes).unwrap();
            assert_eq!(snapshot_of(&restored), snapshot_of(&bench.device), "step {step}");
        }
        assert!(appended > 100, "{appended}");
    }
}

#[test]
fn what_has_not_changed_is_not_written_and_what_has_is_short() {
    let mut bench = Bench::new(config());
    let mut store = Store::default();
    for _ in 0..500 {
        bench.telemetry(&[7; 100]);
    }
    assert_eq!(store.save(&mut bench.device), Save::Replace);
    let whole = store.bytes.len();
    assert_eq!(store.save(&mut bench.device), Save::Nothing);
    bench.telemetry(b"one more");
    assert_eq!(store.save(&mut bench.device), Save::Append);
    assert!(store.bytes.len() - whole < 150);
    bench.device.save_all();
    assert_eq!(store.save(&mut bench.device), Save::Replace);
}

#[test]
fn changes_do_not_pile_up() {
    let mut bench = Bench::online();
    let mut store = Store::default();
    for _ in 0..1500 {
        bench.telemetry(&[7; 100]);
        let _ = store.save(&mut bench.device);
        let sent = bench.sent();
        bench.hear(acknowledge(&sent[0]));
        assert!(store.bytes.len() < 70_000);
    }
}

#[test]
fn a_change_that_is_cut_short_was_never_written_and_one_that_is_damaged_is_found() {
    let mut device = Device::new(config()).unwrap();
    let (now, mut store) = (Instant::from_secs(1), Store::default());
    let mut states = Vec::new();
    for _ in 0..3 {
        device.telemetry(now, Message::new(b"x"), &mut Vec::new()).unwrap();
        let _ = store.save(&mut device);
        states.push(snapshot_of(&device));
    }
    let ends = [store.pieces[0], store.pieces[1], store.bytes.len()];
    for length in ends[0]..=ends[2] {
        let kept = ends.iter().rposition(|&end| end <= length).unwrap();
        let restored = Device::restore(&config(), &store.bytes[..length]).unwrap();
        assert_eq!(snapshot_of(&restored), states[kept], "{length} bytes");
    }
    // In the middle, where what comes after was written.
    for at in ends[0] + 4..ends[1] {
        let mut damaged = store.bytes.clone();
        damaged[at] ^= 1;
        assert_eq!(Device::restore(&config(), &damaged).err(), Some(RestoreError::Damaged), "byte {at}");
    }
    for at in 0..ends[0] {
        let mut damaged = store.bytes.clone();
        damaged[at] ^= 1;
        assert!(Device::restore(&config(), &damaged).is_err(), "byte {at}");
    }
}
