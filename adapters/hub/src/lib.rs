//! An IoT Hub on your own machine.
//!
//! The hub machine of [`devicebound`] decides everything; this crate gives it sockets, a clock, a disk and a service API:
//!
//! ```text
//!  TLS 8883 ────────────┐                ┌───────── worker, one per core ─────────┐
//!                       ├─▶ connection ─▶│ one Hub, the links and calls of its    │─▶ writer ─▶ store
//!  HTTPS 443 /$iothub ──┘    one task    │ devices, their timers, their unsaved   │   (one fsync for all)
//!            /devices … ─▶ service ─────▶└────────────────────────────────────────┘─▶ live view, operations
//! ```
//!
//! [`engine::core`] is the only place where an action of the machine becomes an effect, and [`server::connection`] the only place that
//! moves bytes between a socket and the machine. [`engine`] knows which worker has a device.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod amqp;
pub mod backend;
pub(crate) mod blocking_thread;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod engine;
mod failure;
pub mod observe;
pub mod provisioning;
pub mod server;
pub mod service;
pub mod state;
pub mod storage;
pub mod store;
pub mod telemetry;
pub mod testing;
pub mod transport;
pub mod web;

pub use failure::Failure;
