//! Instructions per packet that decoding takes, counted under callgrind and compared with what is recorded.
//!
//! `cargo bench -p devicebound-benches --bench instructions` fails where a count has risen by more than [`RISE_MAX`] per
//! cent; `-- --record` writes the counts down. Unlike times they are the same on a loaded machine, so that a gate can
//! stand on them. They are those of one compiler: a new one is a reason to record again.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::{env, fs};

use devicebound::limits::REMAINING_LENGTH_MAX;
use devicebound::packet::{Decoded, decode};
use devicebound_benches::workloads::{self, Workload};

/// What is counted: the packets that there are most of, and a stream of several kinds.
const COUNTED: [&str; 3] = ["publish 128 B", "puback", "mixed"];

/// By how much a count may rise, in per cent. Not 0: another layout of the program moves a few instructions.
const RISE_MAX: u64 = 5;

/// The recorded counts, a line each: instructions per packet, and the workload's name.
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let workload = |name: &str| workloads::all().into_iter().find(|workload| workload.name == name);
    if let Some(workload) = arguments.first().and_then(|argument| workload(argument)) {
        // This is the process that callgrind looks at.
        println!("{}", decode_all(&workload));
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

/// Callgrind counts what runs in here, and finds it by its name.
#[inline(never)]
fn decode_all(workload: &Workload) -> usize {
    let mut rest = black_box(workload.bytes.as_slice());
    let mut packets = 0;
    while let Ok(Decoded::Packet(_)) = black_box(&decode(&mut rest, REMAINING_LENGTH_MAX)) {
        packets += 1;
    }
    packets
}

/// Instructions per packet of each workload that is counted.
fn counts() -> Result<Vec<(&'static str, u64)>, String> {
    COUNTED.into_iter().map(|name| Ok((name, count(name)?))).collect()
}

fn count(name: &str) -> Result<u64, String> {
    let program = env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*decode_all*"])
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
        println!("| decode {name} | {count} | {recorded} |");
        if count * 100 > recorded * (100 + RISE_MAX) {
            risen.push(*name);
        }
    }
    if risen.is_empty() {
        return Ok(());
    }
    Err(format!(
        "decoding takes over {RISE_MAX} % more instructions than recorded: {}. Find out why; if it must be so, record it: \
         cargo bench -p devicebound-benches --bench instructions -- --record",
        risen.join(", ")
    ))
}
