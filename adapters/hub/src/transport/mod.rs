//! From a socket to a stream of MQTT bytes: TLS, the certificates for it, and WebSocket.

mod authority;
pub mod certs;
pub mod device_certs;
pub mod tls;
pub mod websocket;
