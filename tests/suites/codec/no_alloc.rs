//! No allocation per packet, on either side, once buffers have grown to their size.

use std::hint::black_box;

use devicebound::limits::REMAINING_LENGTH_MAX;
use devicebound::packet::{Decoded, Packet, decode};
use devicebound_testkit::live::{CLOUD_MESSAGE_TOPIC, LiveDevice, LiveHub, TELEMETRY_TOPIC, publish};
use devicebound_world::allocations::allocations;
use devicebound_world::hub_host::StoreMode;
use devicebound_world::vectors;

const PACKETS: u16 = 10_000;
const WINDOW: u16 = 16;
const PAYLOAD: [u8; 128] = [b'x'; 128];

/// Allocations while `work` runs the second time; the first time, buffers grow.
fn steady_allocations(mut work: impl FnMut()) -> usize {
    work();
    allocations(work).blocks
}

fn numbered(topic: &str) -> Vec<u8> {
    (1..=PACKETS).flat_map(|id| publish(topic, id, &PAYLOAD)).collect()
}

fn puback(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}

#[test]
fn the_counter_sees_an_allocation() {
    assert_eq!(steady_allocations(|| drop(black_box(Box::new(1)))), 1);
    let mut growing = Vec::new();
    assert_eq!(steady_allocations(|| growing = black_box(vec![0; growing.len() + 1])), 1);
}

#[test]
fn decoding_and_encoding_a_packet_of_any_kind_allocates_nothing() {
    let packets: Vec<_> = vectors::load("packets_valid")
        .iter()
        .map(vectors::bytes)
        .filter(|bytes| bytes.len() < 1 << 20)
        .collect();
    let mut out = Vec::new();
    let mut kinds = [false; 15];
    let allocations = steady_allocations(|| {
        for bytes in &packets {
            let mut rest = bytes.as_slice();
            while let Ok(Decoded::Packet(packet)) = decode(&mut rest, REMAINING_LENGTH_MAX) {
                kinds[packet.packet_type() as usize] = true;
                if let Packet::Subscribe(subscribe) = packet {
                    black_box(subscribe.filters().count());
                }
                out.clear();
                packet.encode(&mut out).expect("a decoded packet always encodes");
                black_box(&out);
            }
        }
    });
    assert_eq!(kinds.iter().filter(|&&seen| seen).count(), 14, "all kinds were seen");
    assert_eq!(allocations, 0);
}

#[test]
fn a_hub_takes_telemetry_and_acknowledges_it_without_an_allocation() {
    let stream = numbered(TELEMETRY_TOPIC);
    let expected = (1..=PACKETS).flat_map(puback).collect::<Vec<_>>();
    for store in [StoreMode::Immediate, StoreMode::Held] {
        let mut hub = LiveHub::new();
        let allocations = steady_allocations(|| assert!(hub.receive(&stream, store) == expected));
        assert_eq!(hub.stored(), 2 * usize::from(PACKETS));
        assert_eq!(allocations, 0, "store {store:?}");
    }
}

#[test]
fn a_hub_answers_pings_without_an_allocation() {
    let mut hub = LiveHub::new();
    let stream = [0xC0, 0].repeat(PACKETS.into());
    let allocations =
        steady_allocations(|| assert_eq!(hub.receive(&stream, StoreMode::Immediate).len(), stream.len()));
    assert_eq!(allocations, 0);
}

#[test]
fn a_hub_takes_pubacks_that_complete_nothing_without_an_allocation() {
    let mut hub = LiveHub::new();
    let stream = (1..=PACKETS).flat_map(puback).collect::<Vec<_>>();
    let allocations = steady_allocations(|| assert!(hub.receive(&stream, StoreMode::Immediate).is_empty()));
    assert_eq!(allocations, 0);
}

#[test]
fn a_device_sends_telemetry_by_the_window_and_takes_its_acknowledgements_without_an_allocation() {
    let mut device = LiveDevice::new();
    let packet = publish(TELEMETRY_TOPIC, 1, &PAYLOAD);
    let allocations = steady_allocations(|| {
        for _ in 0..PACKETS / WINDOW {
            for _ in 0..WINDOW {
                device.telemetry(&PAYLOAD).expect("the outbox is empty");
            }
            assert_eq!(device.output().len(), packet.len() * usize::from(WINDOW));
            acknowledge(&mut device, usize::from(WINDOW));
        }
    });
    assert_eq!(device.acknowledged(), 2 * usize::from(PACKETS / WINDOW * WINDOW));
    assert_eq!(allocations, 0);
}

#[test]
fn a_device_whose_outbox_never_empties_sends_and_takes_acknowledgements_without_an_allocation() {
    let mut device = LiveDevice::new();
    for _ in 0..WINDOW {
        device.telemetry(&PAYLOAD).expect("the outbox is empty");
    }
    let allocations = steady_allocations(|| {
        for _ in 0..PACKETS {
            device.telemetry(&PAYLOAD).expect("the outbox holds a window");
            acknowledge(&mut device, 1);
        }
    });
    assert_eq!(device.acknowledged(), 2 * usize::from(PACKETS));
    assert_eq!(allocations, 0);
}

/// The hub acknowledges the oldest `count` packets that are in flight. Output is taken as written.
fn acknowledge(device: &mut LiveDevice, count: usize) {
    device.written();
    for _ in 0..count {
        let id = (device.acknowledged() % 65_535 + 1) as u16;
        device.receive(&puback(id));
    }
}

#[test]
fn a_device_takes_and_completes_cloud_messages_without_an_allocation() {
    let mut device = LiveDevice::new();
    let stream = numbered(CLOUD_MESSAGE_TOPIC);
    let expected = (1..=PACKETS).flat_map(puback).collect::<Vec<_>>();
    let allocations = steady_allocations(|| {
        device.written();
        device.receive(&stream);
        assert!(device.output() == expected);
    });
    assert_eq!(device.delivered(), 2 * usize::from(PACKETS));
    assert_eq!(allocations, 0);
}
