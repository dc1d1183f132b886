//! What the tests share.

pub mod hub_host;
pub mod interop;
pub mod packet_json;
pub mod vectors;
