//! Programs that nobody here wrote: clients against `devicebound hub` on real sockets, and a server against our devices.
//!
//! ```text
//!  test ──▶ Program: python3, mosquitto_* ──── TLS, WebSocket ────▶ Hub: the program `devicebound hub`
//!    │                                                                │
//!    └───────────────── Service: the service API over HTTPS ──────────┘   what arrived is read back here
//! ```
//!
//! Nothing here sleeps: a test waits for a line that a program prints, or for the program's end, and fails when that
//! does not come within [`PATIENCE`]. When a test fails, every program that took part prints all that it had said.

#![allow(clippy::panic, reason = "these are parts of tests: a panic is the failure itself")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use devicebound::time::UnixTime;

pub mod broker;
pub mod certificate;
pub mod hub;
pub mod node;
pub mod program;
pub mod python;
pub mod sdk;
pub mod service;

pub use broker::Broker;
pub use certificate::Certificate;
pub use hub::{Device, Hub};
pub use node::Node;
pub use program::Program;
pub use python::Python;
pub use sdk::Sdk;
pub use service::{Service, Telemetry};

/// How long a test waits for what should come at once. Only a failure takes that long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a missing tool is answered with.
const INSTALL: &str = "bash .ci/install tests";

/// What cargo tells to integration tests alone; [`site!`](crate::site) gathers it.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The program `devicebound`.
    pub program: &'static str,
    /// A folder under `target/` that outlives a run.
    pub scratch: &'static str,
}

/// The [`Site`] of the integration test that says this.
#[macro_export]
macro_rules! site {
    () => {
        $crate::interop::Site {
            program: env!("CARGO_BIN_EXE_devicebound-for-tests"),
            scratch: env!("CARGO_TARGET_TMPDIR"),
        }
    };
}

fn now() -> UnixTime {
    // A clock before 1970 counts as 1970.
    UnixTime::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
