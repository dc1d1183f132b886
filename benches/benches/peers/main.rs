//! Us, the peers and the limits in one process, round by round: what does a packet cost each?
//!
//! `cargo bench -p devicebound-benches --bench peers [-- part of a workload's name]`

#![allow(clippy::panic, reason = "what does not do as it should cannot be measured")]

mod codecs;
mod machines;
mod measure;
mod table;

use std::hint::black_box;

use codecs::{DECODERS, ENCODERS, Kind, NewDecoder, NewEncoder};
use devicebound::limits::IN_FLIGHT_MAX;
use devicebound_benches::workloads::{self, Workload};
use devicebound_world::allocations::Counting;
use machines::{Properties, Telemetry};
use measure::{Contender, Cost, Plan, sample};
use table::Table;

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let plan = if arguments.iter().any(|argument| argument == "--test") { Plan::TRY } else { Plan::MEASURE };
    let filter = arguments.iter().find(|argument| !argument.starts_with("--"));
    let wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter.as_str()));

    println!("Nanoseconds per packet: medians of {} rounds.", plan.rounds);
    // What decodes lives as long as the program: encoders borrow it.
    let workloads: &'static [Workload] = Vec::leak(workloads::all());
    let workloads: Vec<_> = workloads.iter().filter(|workload| wanted(workload.name)).collect();

    let mut decode = Table::new("decode", DECODERS.map(|(name, kind, _)| (name, kind)));
    for workload in &workloads {
        decode.add(workload.name, &run(plan, workload.packets, decoders(workload)));
    }
    let mixed = workloads::mixed();
    for (name, size) in [("mixed in 1460 B", 1460), ("mixed in 7 B", 7)] {
        if wanted(name) {
            decode.add(name, &run(plan, mixed.packets, streams(&mixed, size)));
        }
    }
    println!("\n{decode}");

    let mut encode = Table::new("encode", ENCODERS.map(|(name, kind, _)| (name, kind)));
    for workload in &workloads {
        encode.add(workload.name, &run(plan, workload.packets, encoders(workload)));
    }
    println!("\n{encode}");

    let mut hub = Table::new("hub: PUBLISH in, PUBACK out", machines::HUBS);
    let mut sessions = workloads::telemetry();
    sessions.extend([mixed, workloads::mixed_without_patches()]);
    for workload in sessions.iter().filter(|workload| wanted(workload.name)) {
        hub.add(workload.name, &run(plan, workload.packets, machines::hub(workload)));
    }
    println!("\n{hub}");

    let mut device = Table::new("device: PUBLISH out, PUBACK in", machines::DEVICES);
    for (name, size, properties) in [
        ("publish 16 B", 16, Properties::Written),
        ("publish 128 B", 128, Properties::Written),
        ("publish 128 B, properties prepared", 128, Properties::Prepared),
        ("publish 128 B without properties", 128, Properties::None),
        ("publish 1 KiB", 1024, Properties::Written),
    ] {
        if wanted(name) {
            let message = Telemetry { size, properties };
            device.add(name, &run(plan, IN_FLIGHT_MAX, machines::device_sends(message)));
        }
    }
    if wanted("puback") {
        let message = Telemetry { size: 128, properties: Properties::Written };
        device.add("puback", &run(plan, IN_FLIGHT_MAX, machines::device_receives(message)));
    }
    println!("\n{device}");
}

fn run(plan: Plan, packets: usize, mut contenders: Vec<Contender<'_>>) -> Vec<Cost> {
    plan.run(packets, &mut contenders)
}

fn decoders(workload: &Workload) -> Vec<Contender<'_>> {
    let contender = |(name, kind, new): (_, _, NewDecoder)| {
        let mut decoder = new();
        Contender::new(move || {
            decoder.append(&workload.bytes);
            let mut packets = 0;
            let sample = sample(|| packets = black_box(&mut decoder).decode().packets);
            assert!(kind == Kind::Limit || packets == workload.packets, "{name}: {packets} packets");
            sample
        })
    };
    DECODERS.map(contender).into()
}

fn streams(workload: &Workload, size: usize) -> Vec<Contender<'_>> {
    let contender = |(name, kind, new): (_, _, NewDecoder)| {
        let mut decoder = new();
        Contender::new(move || {
            let mut packets = 0;
            let sample = sample(|| packets = black_box(&mut decoder).stream(&workload.bytes, size));
            assert!(kind == Kind::Limit || packets == workload.packets, "{name}: {packets} packets");
            sample
        })
    };
    DECODERS.map(contender).into()
}

fn encoders(workload: &'static Workload) -> Vec<Contender<'static>> {
    let contender = |(name, kind, new): (_, _, NewEncoder)| {
        let mut encoder = new(&workload.bytes);
        encoder.prepare();
        encoder.encode();
        if kind != Kind::Other && encoder.written() != workload.bytes {
            eprintln!("{}: {name} writes other bytes than it has read", workload.name);
        }
        Contender::new(move || {
            encoder.prepare();
            sample(|| black_box(&mut encoder).encode())
        })
    };
    ENCODERS.map(contender).into()
}
