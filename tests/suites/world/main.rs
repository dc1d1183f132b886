//! The World from a bounded number of seeds, and small fleets in it.

mod hazards;
mod scale;
mod seeds;

use devicebound_world::allocations::Counting;

#[global_allocator]
static COUNTING: Counting = Counting;
