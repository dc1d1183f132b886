//! An IoT Hub on your own machine.
//!
//! The hub machine of [`devicebound`] decides everything; this crate gives it sockets, a clock, a disk and a service API:
//!
//! ```text
//!  TLS 8883 ────────────┐                        ┌─▶ backlog ─▶ store (one writer, a batch at a time)
//!                       ├─▶ connection ─▶ engine ─┼─▶ live view, operations
//!  HTTPS 443 /$iothub ──┘    one task    one Hub  ├─▶ timer
//!            /devices … ─▶ service ─────▶         └─▶ other connections that have become ready
//! ```
//!
//! [`engine`] is the only place where an action of the machine becomes an effect, and [`connection`] the only place that
//! moves bytes between a socket and the machine.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod backlog;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod connection;
pub mod engine;
mod failure;
mod lines;
pub mod listen;
pub mod log;
pub mod message;
pub mod metrics;
pub mod operations;
pub mod policies;
pub mod server;
pub mod service;
pub mod snippets;
pub mod state;
pub mod store;
pub mod transport;
pub mod view;
pub mod writer;

pub use failure::Failure;
