//! The machine from the outside.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod client;
mod legality;
mod messages;
mod opening;
mod properties;
mod vectors;
