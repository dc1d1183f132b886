//! The codec: time of one packet.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use devicebound::limits::REMAINING_LENGTH_MAX;
use devicebound::packet::{Decoded, Packet, QoS, Subscribe, TopicFilter, decode as decode_packet};
use devicebound_benches::workloads::{self, Workload};
use devicebound_benches::{criterion, time_per_packet};

/// Bytes that are in the cache to packets that borrow them, all of them checked.
fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for Workload { name, packets, bytes } in workloads::all() {
        group.bench_function(name, |bencher| {
            time_per_packet(bencher, packets, || {
                let mut rest = black_box(bytes.as_slice());
                // The result is looked at where it was put: a packet that is moved first would cost a copy more.
                while let Ok(Decoded::Packet(_)) = black_box(&decode_packet(&mut rest, REMAINING_LENGTH_MAX))
                {
                }
            });
        });
    }
}

/// Packets to bytes, appended to a buffer that has grown.
fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for workload in workloads::all() {
        let packets: Vec<_> = workload.decoded().collect();
        let filters = filters(&packets);
        let mut out = Vec::new();
        encode_all(&packets, &filters, &mut out);
        assert_eq!(out, workload.bytes);
        group.bench_function(workload.name, |bencher| {
            time_per_packet(bencher, workload.packets, || {
                out.clear();
                encode_all(black_box(&packets), &filters, &mut out);
                black_box(&out);
            });
        });
    }
}

fn encode_all(packets: &[Packet<'_>], filters: &[(TopicFilter<'_>, QoS)], out: &mut Vec<u8>) {
    for packet in packets {
        let encoded = match packet {
            // As a device does it; Packet::encode would copy the filters in one piece.
            Packet::Subscribe(subscribe) => Subscribe::encode(subscribe.packet_id(), filters, out),
            packet => packet.encode(out),
        };
        encoded.expect("decoded packets encode");
    }
}

fn filters<'a>(packets: &[Packet<'a>]) -> Vec<(TopicFilter<'a>, QoS)> {
    match packets.first() {
        Some(Packet::Subscribe(subscribe)) => subscribe.filters().collect(),
        _ => Vec::new(),
    }
}

criterion_group! { name = codec; config = criterion(); targets = decode, encode }
criterion_main!(codec);
