//! The machines: time of one QoS 1 packet.

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use devicebound::limits::{IN_FLIGHT_MAX, PACKET_MAX};
use devicebound::packet::{Decoded, Packet, decode, puback};
use devicebound_benches::workloads::{self, Workload};
use devicebound_benches::{criterion, time_part_per_packet, time_per_packet};
use devicebound_testkit::live::{LiveDevice, LiveHub};
use devicebound_world::hub_host::StoreMode;

/// PUBLISH in, its topic read, its message handed out with a receipt, the receipt handed back, PUBACK out: stored at once,
/// and stored when 16 messages wait. The least that this can cost is to decode and to append a PUBACK, with no machine.
fn hub(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hub");
    for Workload { name, packets, bytes } in workloads::telemetry() {
        group.bench_function(BenchmarkId::new("no machine", name), |bencher| {
            let mut tx = Vec::new();
            time_per_packet(bencher, packets, || {
                tx.clear();
                decode_and_acknowledge(black_box(&bytes), &mut tx);
                black_box(&tx);
            });
        });
        let stores = [("stored at once", StoreMode::Immediate), ("stored by 16", StoreMode::Held)];
        for (how, store) in stores {
            group.bench_function(BenchmarkId::new(how, name), |bencher| {
                let mut hub = LiveHub::new();
                time_per_packet(bencher, packets, || {
                    black_box(hub.receive(black_box(&bytes), store));
                });
            });
        }
    }
}

fn decode_and_acknowledge(mut packets: &[u8], tx: &mut Vec<u8>) {
    while let Ok(Decoded::Packet(packet)) = decode(&mut packets, PACKET_MAX) {
        if let Packet::Publish(publish) = packet {
            black_box(&publish);
            if let Some(id) = publish.qos.packet_id() {
                puback(id, tx);
            }
        }
    }
}

/// Telemetry from the application to PUBLISH out, kept for sending again; and PUBACK in to what was kept let go. Both in
/// windows of 16, so that a sixteenth of a reading of the clock is in each number.
fn device(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("device");
    for (name, size) in [("16 B", 16), ("128 B", 128), ("1 KiB", 1024)] {
        let payload = workloads::payload(size);
        group.bench_function(BenchmarkId::new("telemetry out", name), |bencher| {
            let mut device = LiveDevice::new();
            time_part_per_packet(bencher, IN_FLIGHT_MAX, || {
                let start = Instant::now();
                fill_window(&mut device, &payload);
                let spent = start.elapsed();
                let pubacks = pubacks(&device);
                empty_window(&mut device, &pubacks);
                spent
            });
        });
    }
    group.bench_function("puback in", |bencher| {
        let mut device = LiveDevice::new();
        let payload = workloads::payload(128);
        time_part_per_packet(bencher, IN_FLIGHT_MAX, || {
            fill_window(&mut device, &payload);
            let pubacks = pubacks(&device);
            let start = Instant::now();
            empty_window(&mut device, &pubacks);
            start.elapsed()
        });
    });
}

fn fill_window(device: &mut LiveDevice, payload: &[u8]) {
    for _ in 0..IN_FLIGHT_MAX {
        device.telemetry(black_box(payload)).expect("the window is empty");
    }
    black_box(device.output());
}

/// PUBACKs for all that is in flight.
fn pubacks(device: &LiveDevice) -> Vec<u8> {
    let mut out = Vec::new();
    for id in workloads::packet_ids(device.acknowledged()).take(IN_FLIGHT_MAX) {
        puback(id, &mut out);
    }
    out
}

fn empty_window(device: &mut LiveDevice, pubacks: &[u8]) {
    device.written();
    device.receive(black_box(pubacks));
}

criterion_group! { name = machines; config = criterion(); targets = hub, device }
criterion_main!(machines);
