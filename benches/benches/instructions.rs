//! Instructions per packet that decoding, both machines and reading back take, counted under callgrind and compared with
//! what is recorded.
//!
//! `cargo bench -p devicebound-benches --bench instructions` fails where a count has risen by more than [`RISE_MAX`] per
//! cent; `-- --record` writes the counts down. Unlike times they are the same on a loaded machine, so that a gate can
//! stand on them. They are those of one compiler: a new one is a reason to record again.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::{env, fs};

use devicebound::device::PreparedProperties;
use devicebound::limits::{IN_FLIGHT_MAX, REMAINING_LENGTH_MAX};
use devicebound::packet::{Decoded, decode, puback};
use devicebound_benches::workloads::{self, Workload};
use devicebound_hub::telemetry::block::Block;
use devicebound_testkit::live::{LiveDevice, LiveHub, telemetry};
use devicebound_world::hub_host::StoreMode;

/// A path that is counted.
struct Counted {
    /// Its name in the record, and the argument of the process that callgrind looks at.
    name: &'static str,
    /// The function that callgrind counts, by its name.
    function: &'static str,
    /// Goes the path, and says how many packets took it.
    run: fn() -> usize,
}

/// What is counted: the packets that there are most of, a stream of several kinds, and what becomes of telemetry.
const COUNTED: [Counted; 8] = [
    Counted { name: "decode publish 128 B", function: "decode_all", run: || decoded("publish 128 B") },
    Counted { name: "decode puback", function: "decode_all", run: || decoded("puback") },
    Counted { name: "decode mixed", function: "decode_all", run: || decoded("mixed") },
    Counted { name: "hub publish in, puback out", function: "hub_receives", run: hub },
    Counted { name: "device publish out", function: "device_sends", run: device },
    Counted { name: "device publish out, prepared", function: "device_repeats", run: repeating_device },
    Counted { name: "device puback in", function: "device_receives", run: device },
    Counted { name: "hub read-back line", function: "read_back", run: lines },
];

/// How often a machine's path is gone, so that what happens only once weighs nothing.
const ROUNDS: usize = 32;

/// By how much a count may rise, in per cent. Not 0: another layout of the program moves a few instructions.
const RISE_MAX: u64 = 5;

/// The recorded counts, a line each: instructions per packet, and the path's name.
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let Some(counted) =
        COUNTED.iter().find(|counted| arguments.first().is_some_and(|name| name == counted.name))
    {
        // This is the process that callgrind looks at.
        println!("{}", (counted.run)());
        return ExitCode::SUCCESS;
    }
    let outcome = counts().and_then(|counts| {
        if arguments.iter().any(|argument| argument == "--record") {
            record(&counts)
        } else {
            compare(&counts)
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn decoded(workload: &str) -> usize {
    workloads::all().iter().find(|known| known.name == workload).map_or(0, decode_all)
}

/// Callgrind counts what runs in here and in its like below, and finds it by its name.
#[inline(never)]
fn decode_all(workload: &Workload) -> usize {
    let mut rest = black_box(workload.bytes.as_slice());
    let mut packets = 0;
    while let Ok(Decoded::Packet(_)) = black_box(&decode(&mut rest, REMAINING_LENGTH_MAX)) {
        packets += 1;
    }
    packets
}

/// PUBLISHes to a hub that stores them at once.
fn hub() -> usize {
    let telemetry = workloads::telemetry_of("publish 128 B", 128, 300);
    let mut hub = LiveHub::new();
    for _ in 0..ROUNDS {
        hub_receives(&mut hub, &telemetry.bytes);
    }
    hub.stored()
}

#[inline(never)]
fn hub_receives(hub: &mut LiveHub, packets: &[u8]) {
    black_box(hub.receive(black_box(packets), StoreMode::Immediate));
}

/// A device that sends telemetry of three properties.
fn device() -> usize {
    windows(device_sends)
}

/// A device that has prepared the three properties.
fn repeating_device() -> usize {
    let properties = PreparedProperties::new(&telemetry(b"")).expect("they are good");
    windows(|device, payload| device_repeats(device, &properties, payload))
}

/// Fills the window of a device and gives it the PUBACKs, again and again; says how many messages that were.
fn windows(mut fill: impl FnMut(&mut LiveDevice, &[u8])) -> usize {
    let payload = workloads::payload(128);
    let mut device = LiveDevice::new();
    for _ in 0..ROUNDS {
        fill(&mut device, &payload);
        let mut pubacks = Vec::new();
        for id in workloads::packet_ids(device.acknowledged()).take(IN_FLIGHT_MAX) {
            puback(id, &mut pubacks);
        }
        device.written();
        device_receives(&mut device, &pubacks);
    }
    device.acknowledged()
}

#[inline(never)]
fn device_sends(device: &mut LiveDevice, payload: &[u8]) {
    for _ in 0..IN_FLIGHT_MAX {
        black_box(device.telemetry(black_box(payload)).is_ok());
    }
}

#[inline(never)]
fn device_repeats(device: &mut LiveDevice, properties: &PreparedProperties, payload: &[u8]) {
    for _ in 0..IN_FLIGHT_MAX {
        black_box(device.telemetry_with(properties, black_box(payload)).is_ok());
    }
}

#[inline(never)]
fn device_receives(device: &mut LiveDevice, pubacks: &[u8]) {
    device.receive(black_box(pubacks));
}

/// Stored telemetry, as lines of `GET /messages/events`.
fn lines() -> usize {
    let block = workloads::stored_telemetry(128, 300);
    let mut text = String::new();
    (0..ROUNDS).map(|_| read_back(&block, &mut text)).sum()
}

#[inline(never)]
fn read_back(block: &Block, text: &mut String) -> usize {
    text.clear();
    (1..).zip(black_box(block).messages()).map(|(cursor, message)| message.write_line(cursor, text)).count()
}

/// Instructions per packet of each path that is counted.
fn counts() -> Result<Vec<(&'static str, u64)>, String> {
    COUNTED.iter().map(|counted| Ok((counted.name, count(counted)?))).collect()
}

fn count(counted: &Counted) -> Result<u64, String> {
    let name = counted.name;
    let program = env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect=*{}*", counted.function))
        .arg(program)
        .arg(name)
        .output()
        .map_err(|error| format!("valgrind does not run: {error}. Install it: apt-get install valgrind"))?;
    let (report, packets) =
        (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    let collected =
        report.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
    match (collected, packets.trim().parse::<u64>()) {
        (Some(collected @ 1..), Ok(packets @ 1..)) => Ok(collected.div_ceil(packets)),
        _ => Err(format!("callgrind has counted nothing of {name}:\n{report}")),
    }
}

fn record(counts: &[(&str, u64)]) -> Result<(), String> {
    let lines: String = counts.iter().map(|(name, count)| format!("{count} {name}\n")).collect();
    print!("{lines}");
    fs::write(RECORD, lines).map_err(|error| format!("{RECORD}: {error}"))
}

fn compare(counts: &[(&str, u64)]) -> Result<(), String> {
    let text = fs::read_to_string(RECORD).map_err(|error| format!("{RECORD}: {error}"))?;
    let recorded: BTreeMap<&str, u64> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(n, name)| Some((name, n.parse().ok()?)))
        .collect();

    println!("| instructions per packet | now | recorded |\n|---|--:|--:|");
    let mut risen = Vec::new();
    for (name, count) in counts {
        let recorded = *recorded.get(name).ok_or_else(|| format!("{RECORD} has no number for {name}"))?;
        println!("| {name} | {count} | {recorded} |");
        if count * 100 > recorded * (100 + RISE_MAX) {
            risen.push(*name);
        }
    }
    if risen.is_empty() {
        return Ok(());
    }
    Err(format!(
        "these take over {RISE_MAX} % more instructions than recorded: {}. Find out why; if it must be so, record it: \
         cargo bench -p devicebound-benches --bench instructions -- --record",
        risen.join(", ")
    ))
}
