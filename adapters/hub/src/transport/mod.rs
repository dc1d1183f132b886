//! From a socket to a stream of MQTT bytes: TLS, the certificates for it, and WebSocket.

pub mod certs;
pub mod tls;
pub mod websocket;
