//! Kills the hub at random moments under load, and looks whether it kept what it had acknowledged:
//! `cargo run --release -p devicebound-tests --example kill -- --times 20`
//!
//! Fifty devices over TLS send telemetry at QoS 1, report properties and complete cloud messages that a back end sends.
//! The hub is ended by SIGKILL, started again on the same state, and asked. Then:
//!
//! * each telemetry message whose PUBACK a device has seen is in the log, and the log's numbers have no gap;
//! * each twin update that was answered with 204 holds;
//! * each cloud message that was accepted is delivered, and none comes back that the hub had said to be completed;
//! * the hub was ready within two seconds.
//!
//! Without `--times` it does so without end. The same seed draws the same moments, but not the same race.

#![allow(clippy::panic, reason = "what the hub has lost must stop the run")]

mod fleet;
mod hub;

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use fleet::Fleet;
use hub::{Hub, Line};

/// The hub is ready again after this at most (E1).
const READY: Duration = Duration::from_secs(2);
/// What was accepted arrives after this at most once the hub is back. Only a loss takes that long.
const PATIENCE: Duration = Duration::from_secs(60);
/// From one look to the next while something is waited for.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Parser)]
struct Options {
    /// How often the hub is killed; 0: without end
    #[arg(long, default_value_t = 0)]
    times: u64,
    /// How many devices there are
    #[arg(long, default_value_t = 50)]
    devices: usize,
    /// The longest time from a start to a kill, in milliseconds
    #[arg(long, default_value_t = 1500)]
    longest: u64,
    /// Draws the moments
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    // This program is the hub, too, so that what is killed is built from the same sources.
    if std::env::args().nth(1).is_some_and(|argument| argument == "hub") {
        return devicebound_hub::cli::main();
    }
    let options = Options::parse();
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs());
    let seed = options.seed.unwrap_or(now);
    println!("seed {seed}: {} devices, a kill within {} ms", options.devices, options.longest);

    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("a folder for the state: {error}"));
    let mut hub = Hub::start(folder.path(), None);
    let fleet = Fleet::start(&hub, options.devices);
    let mut seen = Seen::default();
    let mut moments = Moments(seed.max(1));
    let mut slowest = Duration::ZERO;
    for time in 1..=if options.times == 0 { u64::MAX } else { options.times } {
        let moment = Duration::from_millis(moments.next() % options.longest.max(1));
        std::thread::sleep(moment);
        hub.kill();
        let killed = Instant::now();
        hub = Hub::start(folder.path(), Some(&hub));
        let ready = killed.elapsed();
        slowest = slowest.max(ready);
        assert!(ready < READY || cfg!(debug_assertions), "the hub was ready after {ready:?}");
        fleet.meet(&hub);
        seen.check(&hub, &fleet);
        if time % 10 == 0 || time == options.times {
            let state = hub.state_size() / 1_000_000;
            println!(
                "{time} kills: {} telemetry, {} twin updates and {} cloud messages were acknowledged, none is lost; \
                 ready after {} ms, at most {} ms, with {state} MB of state",
                seen.telemetry,
                fleet.reports(),
                fleet.accepted(),
                ready.as_millis(),
                slowest.as_millis()
            );
        }
    }
    fleet.stop();
    ExitCode::SUCCESS
}

/// When the hub is killed. SplitMix64.
struct Moments(u64);

impl Moments {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// What the hub has shown so far.
#[derive(Default)]
struct Seen {
    /// The number of the last line of the log.
    cursor: u64,
    /// Which messages of each device are in the log and are still asked for.
    bodies: HashMap<String, HashSet<u64>>,
    telemetry: u64,
}

impl Seen {
    /// # Panics
    /// When something is missing.
    fn check(&mut self, hub: &Hub, fleet: &Fleet) {
        // First what was acknowledged, then what there is.
        let acknowledged = fleet.take_acknowledged();
        let confirmed = fleet.confirmed();
        for line in hub.lines_from(self.cursor + 1) {
            let Line { cursor, device_id, number } = line;
            assert_eq!(cursor, self.cursor + 1, "the log's numbers have a gap");
            self.cursor = cursor;
            self.bodies.entry(device_id).or_default().insert(number);
        }
        for (device_id, numbers) in acknowledged {
            let stored = self.bodies.entry(device_id.clone()).or_default();
            for number in numbers {
                assert!(stored.remove(&number), "{device_id}: message {number} was acknowledged and is lost");
                self.telemetry += 1;
            }
        }
        for (device_id, report) in confirmed {
            let (number, version) = hub.reported(&device_id);
            assert!(
                number >= report.number && version >= report.version,
                "{device_id}: update {report:?} was confirmed, and the twin has {number} in version {version}"
            );
        }
        let asked = Instant::now();
        let undelivered = fleet.undelivered();
        while let Some((device_id, message)) = fleet.still_undelivered(&undelivered) {
            assert!(
                asked.elapsed() < PATIENCE,
                "{device_id}: message {message} was accepted and does not come"
            );
            std::thread::sleep(PAUSE);
        }
    }
}
