//! An IoT Hub on your own machine.
//!
//! The hub machine of [`devicebound`] decides everything; this crate gives it sockets, a clock, a disk and a service API:
//!
//! ```text
//!  TLS 8883 ────────────┐                ┌───────── worker, one per core ─────────┐
//!                       ├─▶ connection ─▶│ one Hub, the links and calls of its    │─▶ writer ─▶ store
//!  HTTPS 443 /$iothub ──┘    one task    │ devices, their timers, their backlog   │   (one fsync for all)
//!            /devices … ─▶ service ─────▶└────────────────────────────────────────┘─▶ live view, operations
//! ```
//!
//! [`worker`] is the only place where an action of the machine becomes an effect, and [`connection`] the only place that
//! moves bytes between a socket and the machine. [`engine`] knows which worker has a device.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod aside;
pub mod backlog;
pub mod block;
pub(crate) mod buffers;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod connection;
pub mod engine;
mod failure;
mod lines;
pub(crate) mod link;
pub mod listen;
pub mod log;
pub mod message;
pub mod metrics;
pub mod operations;
pub mod pages;
pub mod policies;
mod scan;
pub mod server;
pub mod service;
pub mod snippets;
pub mod state;
pub mod store;
pub mod transport;
pub mod view;
pub mod worker;
pub mod writer;

pub use failure::Failure;
