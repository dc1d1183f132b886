//! What the tests share.

pub mod fixtures;
pub mod fuzz;
pub mod hub_host;
pub mod interop;
pub mod live;
pub mod packet_json;
pub mod pipe;
pub mod socket_hub;
pub mod station;
pub mod vectors;
pub mod walk;
pub mod world;
