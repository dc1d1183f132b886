//! What both roles share: which packet is legal when, keep alive, packet ids, and why a connection ends.

mod close;
pub mod keep_alive;
pub mod legality;
#[cfg(any(feature = "device", all(feature = "hub", feature = "provisioning")))]
mod packet_ids;

pub use close::{Close, CloseReason};
#[cfg(any(feature = "device", all(feature = "hub", feature = "provisioning")))]
pub(crate) use packet_ids::PacketIds;
