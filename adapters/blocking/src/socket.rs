//! Sockets whose every call is bounded in time.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::Tls;

/// How long all addresses of a host together may take to be connected to.
pub(crate) const CONNECT_TIME: Duration = Duration::from_secs(30);
/// How long one write waits for a peer that does not read, before the client reads again.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// A stream to the hub, no call of which waits for the peer for long.
///
/// * `write` takes what the peer takes within a moment, or ends with `WouldBlock` or `TimedOut`. It may keep back what it
///   has taken until `flush`, which ends in the same way while something is left.
/// * `read` waits as long as it was told to, and ends with `WouldBlock` or `TimedOut` where nothing came, with
///   `Interrupted` where it is to be called again.
pub trait Socket: Read + Write {
    /// Sets how long a read waits, at most a little longer. Zero is allowed.
    ///
    /// # Errors
    /// That of the system.
    fn set_read_timeout(&mut self, timeout: Duration) -> io::Result<()>;

    /// Says that nothing more will be written.
    ///
    /// # Errors
    /// That of the system.
    fn shut_down(&mut self) -> io::Result<()>;
}

/// TLS over TCP.
///
/// Its handshake is made by the reads and writes of the client, and so has no time-out of its own: the device machine waits
/// for CONNACK only so long.
#[derive(Debug)]
pub struct TlsSocket {
    tls: ClientConnection,
    tcp: TcpStream,
}

impl TlsSocket {
    /// Resolves `host`, which the system does in its own time, and opens a TCP connection to the first of its addresses
    /// that answers.
    ///
    /// # Errors
    /// No such host, or none of its addresses answers.
    pub fn connect(host: &str, tls: &Tls) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let config = Arc::clone(tls.config());
        let tcp = connect((host, tls.port()))?;
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(TICK))?;
        Ok(Self { tls: ClientConnection::new(config, name).map_err(io::Error::other)?, tcp })
    }
}

/// Gives each address an equal share of the time that is left, so that a dead one does not use up that of the next.
fn connect(host: (&str, u16)) -> io::Result<TcpStream> {
    let end = Instant::now() + CONNECT_TIME;
    let addresses: Vec<_> = host.to_socket_addrs()?.collect();
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    for (address, left) in addresses.iter().zip((1..=addresses.len() as u32).rev()) {
        let share = end.saturating_duration_since(Instant::now()) / left;
        result = TcpStream::connect_timeout(address, share.max(TICK));
        if result.is_ok() {
            break;
        }
    }
    result
}

impl Read for TlsSocket {
    /// Reads from TCP once at most, so that a peer that sends byte by byte cannot hold the client here.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.tls.reader().read(room) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        self.tls.read_tls(&mut self.tcp)?;
        if let Err(error) = self.tls.process_new_packets() {
            let _ = self.tls.write_tls(&mut self.tcp); // the alert, as far as the peer takes it
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        match self.tls.reader().read(room) {
            // Part of a record came, and the rest may be there.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::Interrupted.into()),
            result => result,
        }
    }
}

impl Write for TlsSocket {
    /// Takes nothing while rustls holds what the peer has not taken, so that rustls holds 64 KiB at most.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        self.tls.writer().write(bytes)
    }

    /// Writes to TCP once at most, which takes everything unless the peer does not read.
    fn flush(&mut self) -> io::Result<()> {
        if self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp)?;
        }
        if self.tls.wants_write() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }
}

impl Socket for TlsSocket {
    fn set_read_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        // The system takes zero for "for ever".
        self.tcp.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))
    }

    fn shut_down(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.flush()?;
        self.tcp.shutdown(Shutdown::Write)
    }
}
