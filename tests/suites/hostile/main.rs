//! Peers that break rules, shapes that broke other programs, and faults that random runs do not reach.

mod cve;
mod device;
mod faults;
mod fuzz_corpus;
mod hazards;
mod hub;

use devicebound_world::allocations::Counting;

#[global_allocator]
static COUNTING: Counting = Counting;
