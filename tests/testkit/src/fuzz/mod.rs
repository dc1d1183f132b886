//! What the fuzz targets do: each takes any bytes at all, and panics where something holds not.
//!
//! The targets in `fuzz/fuzz_targets` call these; `tests/suites/hostile/fuzz_corpus.rs` replays the committed corpus through
//! them without a fuzzer.

mod amqp;
#[cfg(feature = "hub")]
mod captures;
mod machines;
mod packets;
mod seeds;
mod words;

pub use amqp::amqp_connection;
#[cfg(feature = "hub")]
pub use captures::capture;
pub use machines::{device_link, hub_link};
pub use packets::{chunked_stream, packet_decode, packet_round_trip};
pub use seeds::seeds;
pub use words::{connection_string, sas_token, topic_and_bag, user_name};

/// A World that draws all that happens from these bytes.
///
/// # Panics
/// When something happens that cannot be.
pub fn world(data: &[u8]) {
    let result = devicebound_world::run_bytes(data);
    assert!(result.is_ok(), "{result:?}");
}

/// What a fuzz target does with its input.
pub type Body = fn(&[u8]);

/// Every fuzz target, by its name.
pub const TARGETS: &[(&str, Body)] = &[
    ("packet_decode", packet_decode),
    ("packet_round_trip", packet_round_trip),
    ("chunked_stream", chunked_stream),
    ("topic_and_bag", topic_and_bag),
    ("user_name", user_name),
    ("sas_token", sas_token),
    ("connection_string", connection_string),
    ("hub_link", hub_link),
    ("device_link", device_link),
    ("world", world),
    ("amqp_connection", amqp_connection),
    #[cfg(feature = "hub")]
    ("capture", capture),
];
