//! What holds for every packet and every text, shown on thousands of made-up ones.
//!
//! A failing case is shrunk and printed; it goes into the vectors, or into the corpus of the fuzz target it is for.

mod misuse;
mod packets;
mod samples;
mod text;
mod twins;
mod words;

use devicebound_world::allocations::Counting;
use proptest::test_runner::Config;

#[global_allocator]
static COUNTING: Counting = Counting;

/// So many cases, and no file of failures beside the source.
fn cases(count: u32) -> Config {
    Config { cases: count, failure_persistence: None, ..Config::default() }
}
