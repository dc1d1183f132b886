//! The blocking and the tokio client against a hub on real sockets.

mod endings;
mod progress;
mod provisioning;
mod sockets;
mod websocket;
