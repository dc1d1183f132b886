//! What the suites share: hosts, clients, other people's programs, the kill harness and the bodies of the fuzz targets.

pub mod amqp_client;
#[cfg(feature = "sockets")]
pub mod connect_proxy;
#[cfg(feature = "sockets")]
pub mod drive;
pub mod fuzz;
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
#[cfg(feature = "sockets")]
pub mod walk;
