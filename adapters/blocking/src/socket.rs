//! Sockets whose every call is bounded in time.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use crate::{Tls, Transport};

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

/// A [`Transport`] over TCP.
#[derive(Debug)]
pub struct TlsSocket {
    transport: Transport,
    tcp: TcpStream,
}

impl TlsSocket {
    /// Opens a TCP connection to `host` or its proxy: resolves the name, which the system does in its own time, and takes
    /// the first address that answers. All handshakes are left to the reads and writes of the client.
    ///
    /// # Errors
    /// No such host, or none of its addresses answers.
    pub fn connect(host: &str, tls: &Tls) -> io::Result<Self> {
        let transport = Transport::new(host, tls)?;
        let tcp = connect(tls.address(host)).map_err(|error| tls.no_connection(error))?;
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(TICK))?;
        Ok(Self { transport, tcp })
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
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.transport.read(room) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        self.transport.read_tcp(&mut self.tcp)?;
        match self.transport.read(room) {
            // Something came that is no whole part of MQTT's bytes, and the rest may be there.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::Interrupted.into()),
            result => result,
        }
    }
}

impl Write for TlsSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        self.transport.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.transport.write_tcp(&mut self.tcp)? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}

impl Socket for TlsSocket {
    fn set_read_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        // The system takes zero for "for ever".
        self.tcp.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))
    }

    fn shut_down(&mut self) -> io::Result<()> {
        self.transport.close();
        self.flush()?;
        self.tcp.shutdown(Shutdown::Write)
    }
}
