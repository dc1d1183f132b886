//! An IoT Hub on your own machine.
//!
//! The hub machine of [`devicebound`] decides everything; this crate gives it sockets, a clock, a disk and a service API:
//!
//! ```text
//!  TLS 8883 ────────────┐                       ┌─▶ store (one writer, many changes per fsync)
//!                       ├─▶ connection ─▶ engine ├─▶ telemetry log ─▶ GET /messages/events
//!  HTTPS 443 /$iothub ──┘    one task    one Hub ├─▶ live view
//!            /devices … ─▶ service ─────▶        └─▶ other connections that have become ready
//! ```
//!
//! [`engine`] is the only place where an action of the machine becomes an effect, and [`connection`] the only place that
//! moves bytes between a socket and the machine.

pub mod cli;
pub mod listen;
pub mod snippets;
pub mod state;
pub mod transport;

mod failure;

pub use failure::Failure;
