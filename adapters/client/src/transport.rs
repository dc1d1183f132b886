//! All that is between a TCP connection and MQTT's bytes.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::proxy::{Tunnel, authority};
use crate::websocket::WebSocketBytes;
use crate::{Tls, TlsError};

/// A proxy's CONNECT, TLS and WebSocket, as far as a [`Tls`] asks for them: a stream of MQTT's bytes on one side, a TCP
/// connection on the other, which the caller has.
///
/// All handshakes are made by the calls of this, so that they have no time-out of their own: the device machine waits for
/// CONNACK only so long. What is to be done again ends with `WouldBlock`, and nothing is lost when it is done much later.
pub struct Transport {
    /// Until the proxy has answered.
    tunnel: Option<Tunnel>,
    stream: Stream,
}

enum Stream {
    Mqtt(Box<Plaintext>),
    WebSocket(Box<WebSocketBytes<Plaintext>>),
}

impl Transport {
    /// The way to the hub `host`, on a TCP connection to [`Tls::address`].
    ///
    /// # Errors
    /// `host` is no name that a certificate can be for.
    pub fn new(host: &str, tls: &Tls) -> io::Result<Self> {
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned())
                .map_err(|_| io::Error::other(TlsError::ServerName(host.to_owned())))?,
        };
        let config = Arc::clone(&tls.config);
        let has_certificate = config.client_auth_cert_resolver.has_certs();
        let plaintext = Plaintext(ClientConnection::new(config, name).map_err(io::Error::other)?);
        let stream = if tls.websocket {
            let hub = authority(host, tls.port());
            // The usual port is not written, as by browsers.
            let hub = hub.strip_suffix(":443").unwrap_or(&hub);
            Stream::WebSocket(Box::new(WebSocketBytes::new(plaintext, hub, has_certificate)?))
        } else {
            Stream::Mqtt(Box::new(plaintext))
        };
        let tunnel = tls.proxy.as_ref().map(|proxy| Tunnel::new(proxy, host, tls.port()));
        Ok(Self { tunnel, stream })
    }

    /// Takes MQTT's bytes out, as far as [`read_tcp`](Self::read_tcp) has brought some. To be called until it ends with
    /// `WouldBlock` before the next of those.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; else there is nothing more to come.
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Mqtt(plaintext) => plaintext.read(room),
            Stream::WebSocket(websocket) => websocket.read(room),
        }
    }

    /// Takes MQTT's bytes in, which [`write_tcp`](Self::write_tcp) brings out. To be called when that has brought out all
    /// that there was, so that 64 KiB are held at most.
    ///
    /// # Errors
    /// `WouldBlock` when no more is held; else there is no way to write any more.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Mqtt(plaintext) => plaintext.write(bytes),
            Stream::WebSocket(websocket) => websocket.write(bytes),
        }
    }

    /// Reads from TCP once at most, so that a peer that sends byte by byte cannot hold the caller here. What is to be
    /// answered is left to [`write_tcp`](Self::write_tcp), but for the reason of an error.
    ///
    /// # Errors
    /// That of `tcp`; [`ProxyError`](crate::ProxyError) and what rustls finds wrong, within an [`io::Error`].
    pub fn read_tcp(&mut self, tcp: &mut (impl Read + Write)) -> io::Result<()> {
        if let Some(tunnel) = &mut self.tunnel {
            if tunnel.read_tcp(tcp)? {
                self.tunnel = None;
            }
            return Ok(());
        }
        let Some(tls) = self.tls() else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        tls.read_tls(tcp)?;
        tls.process_new_packets().map(drop).map_err(|error| {
            let _ = tls.write_tls(tcp); // the alert, as far as the peer takes it
            io::Error::new(io::ErrorKind::InvalidData, error)
        })
    }

    /// Writes to TCP once at most, which takes everything unless the peer does not read. Whether that was all.
    ///
    /// # Errors
    /// That of `tcp`.
    pub fn write_tcp(&mut self, tcp: &mut impl Write) -> io::Result<bool> {
        if let Some(tunnel) = &mut self.tunnel {
            return tunnel.write_tcp(tcp);
        }
        let all = match &mut self.stream {
            Stream::Mqtt(_) => true,
            Stream::WebSocket(websocket) => websocket.flush()?,
        };
        let Some(tls) = self.tls() else { return Ok(true) };
        if tls.wants_write() {
            tls.write_tls(tcp)?;
        }
        Ok(all && !tls.wants_write())
    }

    /// Nothing more will be written; [`write_tcp`](Self::write_tcp) says so to the peer. May be said again.
    pub fn close(&mut self) {
        if let Stream::WebSocket(websocket) = &mut self.stream {
            websocket.close();
        }
        if let Some(tls) = self.tls() {
            tls.send_close_notify();
        }
    }

    /// `None` where the hub has not upgraded to WebSocket, and there is nothing more to say.
    fn tls(&mut self) -> Option<&mut ClientConnection> {
        match &mut self.stream {
            Stream::Mqtt(plaintext) => Some(&mut plaintext.0),
            Stream::WebSocket(websocket) => websocket.stream().map(|plaintext| &mut plaintext.0),
        }
    }
}

/// Without what is held, which may be a token or a password.
impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

/// The inner side of TLS.
#[derive(Debug)]
struct Plaintext(ClientConnection);

impl Read for Plaintext {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.reader().read(room)
    }
}

impl Write for Plaintext {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.writer().write(bytes)? {
            0 if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            length => Ok(length),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
