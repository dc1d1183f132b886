//! What the blocking and the tokio client share: everything but the socket.
//!
//! * [`Machine`] is the device machine with a clock and the bytes to be written. Its [`step`](Machine::step) says what the owner
//!   of the socket has to do next.
//! * [`Registration`] is the same for the Device Provisioning Service.
//! * [`Received`] is the receive buffer, and [`Incoming`] the actions in it.
//! * [`Tls`] says how the hub is reached, and [`Transport`] is that way as a state machine: proxy, TLS and WebSocket between
//!   MQTT's bytes and a TCP connection that the caller has. [`Race`] says which of a host's addresses to try, and when.
//!
//! A client for another runtime is a loop over [`Step`]; `devicebound-blocking` is one to read.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod clock;
mod failure;
mod machine;
mod proxy;
mod race;
mod received;
mod registration;
mod tls;
mod transport;
mod websocket;

pub use failure::TransportError;
pub use machine::{Machine, Offline, Outgoing, Step};
pub use proxy::ProxyError;
pub use race::Race;
pub use received::{Incoming, Received};
pub use registration::{ProvisionError, Registration, RegistrationStep};
pub use tls::{MQTT_PORT, Tls, TlsError};
pub use transport::Transport;
pub use websocket::WEBSOCKET_PORT;
