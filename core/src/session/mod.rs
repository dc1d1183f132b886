//! What both roles share: which packet is legal when, keep alive, packet ids, and why a connection ends.

mod close;
pub mod keep_alive;
pub mod legality;
#[cfg(feature = "device")]
mod packet_ids;

pub use close::{Close, CloseReason};
#[cfg(feature = "device")]
pub(crate) use packet_ids::PacketIds;
