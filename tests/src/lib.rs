//! What the tests share.

pub mod allocations;
#[cfg(feature = "sockets")]
pub mod connect_proxy;
#[cfg(feature = "sockets")]
pub mod drive;
pub mod fixtures;
pub mod fuzz;
pub mod hub_host;
#[cfg(feature = "sockets")]
pub mod interop;
#[cfg(feature = "sockets")]
pub mod kill;
pub mod live;
pub mod matrix;
pub mod packet_json;
#[cfg(feature = "sockets")]
pub mod pipe;
#[cfg(feature = "sockets")]
pub mod relay;
#[cfg(feature = "sockets")]
pub mod socket_hub;
pub mod station;
pub mod vectors;
#[cfg(feature = "sockets")]
pub mod walk;
pub mod world;
