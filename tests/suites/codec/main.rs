//! The codec and the dialect: known answers, rules, legality of packets, no allocation.

mod accept_reject_matrix;
mod dialect_vectors;
mod legality;
mod no_alloc;
mod packet_rules;
mod packet_vectors;
mod provisioning_vectors;

use devicebound_world::allocations::Counting;

#[global_allocator]
static COUNTING: Counting = Counting;
