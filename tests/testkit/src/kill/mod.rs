//! Kills a hub under load, again and again, and looks whether anything is missing that it had acknowledged (row E1 of the
//! fault matrix).
//!
//! ```text
//!  50 devices ──── TLS: telemetry, PUBACKs, reports ────▶ Process: `devicebound hub` ◀── SIGKILL, at random moments
//!      │                                                        ▲
//!  4 back ends ─── HTTPS: cloud messages, desired ──────────────┘
//!      └──▶ Ledger of each device: what was acknowledged ◀──▶ Audit: what the hub shows when it runs again
//! ```
//!
//! A round is: load for a random time, SIGKILL (now and then SIGTERM: row E7), and a start on the same state folder, which
//! itself is killed now and then.
//! Everybody waits until the audit has seen all that the hub shows; then the load goes on. At the end the load runs dry, the
//! hub is asked to stop (SIGTERM), and everything must be there once more. And the alarm is tried: a state folder from
//! before is put in the place of the last one, which must not pass.
//!
//! SIGKILL loses nothing that was given to the operating system; what a power cut does is tried in the World, on a simulated
//! disk.

mod audit;
mod back_end;
mod device;
mod events;
mod process;
mod rounds;
mod shared;

pub mod ledger;

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::ledger::{Violation, violation};
use self::shared::Shared;

/// A hub that was asked to stop has ended within this time: row E7 of the fault matrix.
const STOP_TIME: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program `devicebound`.
    pub program: PathBuf,
    /// All choices follow from it; what the threads of hub and devices make of them does not.
    pub seed: u64,
    /// How many kills; `None`: without end.
    pub times: Option<u64>,
    /// How many devices.
    pub devices: usize,
    /// Within which time a hub has to be ready again.
    pub start_time: Duration,
}

/// What a run has shown.
#[derive(Debug)]
pub struct Summary {
    kills: u64,
    start_times: Vec<Duration>,
    start_time: Duration,
    stop_times: Vec<Duration>,
    state_bytes: u64,
    load: Load,
    losses: String,
}

/// What was asked of the hub.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    telemetry: u64,
    repeated: u64,
    cloud_messages: u64,
    changes: u64,
}

/// A run that has found something.
#[derive(Debug, thiserror::Error)]
#[error("{what}\n\nseed {seed}, kill {kills}; the state folder is {}", state.display())]
pub struct Failure {
    what: Violation,
    seed: u64,
    kills: u64,
    state: PathBuf,
}

/// Runs, and says what it does.
///
/// # Errors
/// What must not be, with the state folder, which is kept.
pub fn run(options: &Options, say: impl FnMut(&str)) -> Result<Summary, Failure> {
    let mut kills = 0;
    let folder = TempDir::with_prefix("devicebound-kill-");
    let result = match &folder {
        Ok(folder) => Runtime::new()
            .map_err(|error| Violation(error.to_string()))
            .and_then(|runtime| runtime.block_on(rounds::run(options, folder.path(), &mut kills, say))),
        Err(error) => violation(format!("cannot make a folder: {error}")),
    };
    result.map_err(|what| {
        let state = folder.map(TempDir::keep).unwrap_or_default();
        Failure { what, seed: options.seed, kills, state }
    })
}

impl Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Load { telemetry, repeated, cloud_messages, changes } = self.load;
        let mib = self.state_bytes as f64 / f64::from(1 << 20);
        writeln!(f, "{} kills, and nothing that was acknowledged is missing:", self.kills)?;
        writeln!(f, "  {telemetry} telemetry messages, {repeated} more times because they were sent again")?;
        writeln!(
            f,
            "  {cloud_messages} cloud messages, {changes} changes of twins, {mib:.1} MiB of state in the end"
        )?;
        for (what, times, most) in [
            ("starts", &self.start_times, self.start_time),
            ("stops by SIGTERM", &self.stop_times, STOP_TIME),
        ] {
            let mut sorted = times.clone();
            sorted.sort();
            let middle = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
            let longest = sorted.last().copied().unwrap_or_default();
            writeln!(
                f,
                "  {} {what}: median {middle:.0?}, longest {longest:.0?}, at most {most:?}",
                sorted.len()
            )?;
        }
        write!(f, "connections ended so:{}", self.losses)
    }
}
