//! MQTT 3.1.1 as Azure IoT Hub speaks it, as pure state machines.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

extern crate alloc;

pub mod device;
pub mod explain;
pub mod hub;
pub mod iothub;
pub mod limits;
pub mod packet;
mod rule;
pub mod session;
pub mod time;

pub use device::Device;
pub use hub::Hub;
pub use rule::Rule;
pub use session::{Close, CloseReason};
