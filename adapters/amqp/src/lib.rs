//! AMQP 1.0 in the server's role, as the clients of Azure IoT Hub and Event Hubs speak it: a pure state machine.
//!
//! It does no I/O and reads no clock: bytes and time come in as arguments, and what is to be done comes out as values. The
//! crate is `no_std` with `alloc`, has no unsafe code and panics on no input.
//!
//! ```text
//!           bytes           Frame<'a>                Performative<'a>               Action<'a>
//!  socket ────────▶ frame ────────────▶ performative ────────────────▶ Connection ─────────────▶ nodes
//!         ◀──────── tx, in order ◀──────────────────────────────────── send, settle, detach ◀───
//! ```
//!
//! | module | what it knows |
//! |---|---|
//! | [`types`] | the type system: values that are read where they lie, and written behind a buffer |
//! | [`frame`] | protocol headers and frames |
//! | [`performative`] | open to close and SASL, read leniently and written in full |
//! | [`message`] | the sections of a message |
//! | [`connection`] | who may send what, when: the machine |
//! | [`limits`] | every bound, with its number and its source |
//!
//! # A connection in memory
//!
//! ```
//! use devicebound::time::Instant;
//! use devicebound_amqp::{Action, Config, Connection};
//!
//! let config = Config { container_id: "hub".into(), product: "example".into() };
//! let (now, mut tx) = (Instant::from_secs(0), Vec::new());
//! let mut connection = Connection::new(now, config);
//!
//! let mut rx: &[u8] = b"AMQP\x00\x01\x00\x00";
//! assert_eq!(connection.receive(now, &mut rx, &mut tx), Action::Wait);
//! assert_eq!(tx, b"AMQP\x00\x01\x00\x00");
//! ```
//!
//! # Why an own codec
//!
//! `serde_amqp` with `fe2o3-amqp-types` (0.14) was compared. It has every type and every performative, and clients that are
//! built on it work. But its encoder leaves out trailing nulls and defaults, which cannot be switched off: pyamqp, the
//! transport of Python's Event Hubs client, reads fields by position, and a multi-frame event stops its reader for good. So
//! performatives would have had to be written by hand anyway. Its decoder wants symbols where uamqp sends strings, copies
//! every text, and panicked on two of 35 hostile inputs (a list of 2^32-1 elements, a map of odd length). A machine that
//! borrows what it received and writes events straight into the output buffer is some hundred lines of codec away.
//! `fe2o3-amqp`'s acceptor and `ntex-amqp` bring a runtime each, with tasks, channels and a clock inside.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

extern crate alloc;

mod condition;
pub mod connection;
mod failure;
pub mod frame;
pub mod limits;
pub mod message;
pub mod performative;
mod rule;
pub mod types;

pub use condition::Condition;
pub use connection::{Action, Config, Connection, Grant, LinkId, Tag};
pub use failure::{Failure, Info};
pub use rule::Rule;
