//! Load for an MQTT server, ours or another: many connections on one thread, QoS 1, counted and timed.
//!
//! [`Client`](client::Client) is one connection; [`drive`] has many of them publish, connect or rest; [`process`] looks at
//! the server from outside.

pub mod client;
pub mod drive;
pub mod process;
pub mod server;
pub mod target;
