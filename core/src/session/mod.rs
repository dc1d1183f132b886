//! What both roles share: which packet is legal when, keep alive, packet ids, and why a connection ends.

mod close;
pub mod keep_alive;
pub mod legality;
mod packet_ids;

pub use close::{Close, CloseReason};
pub(crate) use packet_ids::PacketIds;
