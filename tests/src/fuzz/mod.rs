//! What the fuzz targets do: each takes any bytes at all, and panics where something holds not.
//!
//! The targets in `fuzz/fuzz_targets` call these; `tests/tests/fuzz_corpus.rs` replays the committed corpus through
//! them without a fuzzer.

mod machines;
mod packets;
mod seeds;
mod words;
mod world;

pub use machines::{device_link, hub_link};
pub use packets::{chunked_stream, packet_decode, packet_round_trip};
pub use seeds::seeds;
pub use words::{connection_string, sas_token, topic_and_bag, user_name};
pub use world::{replay, world};

/// What a fuzz target does with its input.
pub type Body = fn(&[u8]);

/// Every fuzz target, by its name.
pub const TARGETS: [(&str, Body); 10] = [
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
];
