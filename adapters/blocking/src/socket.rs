//! Sockets whose every call is bounded in time.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use devicebound_client::{Race, Transport};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::Tls;

/// How long all addresses of a host together may take to be connected to.
pub(crate) const CONNECT_TIME: Duration = Duration::from_secs(30);
/// How long the client waits before it writes again to a peer that does not read.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// The socket, or the first of those that are being opened.
const SOCKET: Token = Token(0);
/// Somebody wants a read to end.
const WAKE: Token = Token(usize::MAX);

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

    /// What ends a waiting read from another thread, with `Interrupted`. A socket that has nothing of that kind is read in
    /// steps of a tenth of a second once [`Client::waker`](crate::Client::waker) was called.
    fn waker(&self) -> Option<Waker> {
        None
    }
}

/// A [`Transport`] over TCP.
#[derive(Debug)]
pub struct TlsSocket {
    transport: Transport,
    tcp: TcpStream,
    poll: Poll,
    events: Events,
    waker: Arc<PollWaker>,
    patience: Duration,
}

#[derive(Debug)]
struct PollWaker(mio::Waker);

impl Wake for PollWaker {
    fn wake(self: Arc<Self>) {
        // It fails where the socket is gone, and with it the read.
        let _ = self.0.wake();
    }
}

impl TlsSocket {
    /// Opens a TCP connection to `host` or its proxy: resolves the name, which the system does in its own time, and takes
    /// the first address that answers (RFC 8305). All handshakes are left to the reads and writes of the client.
    ///
    /// # Errors
    /// No such host, or none of its addresses answers.
    pub fn connect(host: &str, tls: &Tls) -> io::Result<Self> {
        let transport = Transport::new(host, tls)?;
        let tcp = tls
            .address(host)
            .to_socket_addrs()
            .and_then(connect)
            .map_err(|error| tls.no_connection(host, error))?;
        Self::over(transport, tcp)
    }

    fn over(transport: Transport, mut tcp: TcpStream) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let poll = Poll::new()?;
        poll.registry().register(&mut tcp, SOCKET, Interest::READABLE | Interest::WRITABLE)?;
        let waker = Arc::new(PollWaker(mio::Waker::new(poll.registry(), WAKE)?));
        Ok(Self { transport, tcp, poll, events: Events::with_capacity(4), waker, patience: Duration::ZERO })
    }
}

/// Takes the first address that answers.
fn connect(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let end = Instant::now() + CONNECT_TIME;
    let mut race = Race::new(addresses, Instant::now());
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(16);
    let mut started: Vec<Option<TcpStream>> = Vec::new();
    loop {
        let now = Instant::now();
        while let Some(address) = race.poll(now) {
            match TcpStream::connect(address) {
                Ok(mut tcp) => {
                    poll.registry().register(&mut tcp, Token(started.len()), Interest::WRITABLE)?;
                    started.push(Some(tcp));
                }
                Err(error) => race.failed(error, now),
            }
        }
        if race.next_at().is_none() && started.iter().all(Option::is_none) {
            return Err(race.failure());
        }
        if now >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let until = race.next_at().map_or(end, |at| at.min(end));
        poll_once(&mut poll, &mut events, until.saturating_duration_since(now))?;
        for event in &events {
            let Some(slot) = started.get_mut(event.token().0) else { continue };
            match slot.as_ref().map(state) {
                Some(Ok(true)) => {
                    let Some(mut tcp) = slot.take() else { continue };
                    poll.registry().deregister(&mut tcp)?;
                    return Ok(tcp);
                }
                Some(Err(error)) => {
                    *slot = None;
                    race.failed(error, Instant::now());
                }
                Some(Ok(false)) | None => {}
            }
        }
    }
}

/// Whether the connection is there.
fn state(tcp: &TcpStream) -> io::Result<bool> {
    if let Some(error) = tcp.take_error()? {
        return Err(error);
    }
    match tcp.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

/// A signal that comes meanwhile is as good as nothing.
fn poll_once(poll: &mut Poll, events: &mut Events, timeout: Duration) -> io::Result<()> {
    match poll.poll(events, Some(timeout)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        result => result,
    }
}

impl TlsSocket {
    /// Reads what is there, without waiting.
    fn read_now(&mut self, room: &mut [u8]) -> io::Result<usize> {
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

impl Read for TlsSocket {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.read_now(room) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.patience.is_zero() => {}
            result => return result,
        }
        poll_once(&mut self.poll, &mut self.events, self.patience)?;
        match self.read_now(room) {
            // There is room to write, or somebody has woken this up.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.events.is_empty() => {
                Err(io::ErrorKind::Interrupted.into())
            }
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
        self.patience = timeout;
        Ok(())
    }

    fn shut_down(&mut self) -> io::Result<()> {
        self.transport.close();
        self.flush()?;
        self.tcp.shutdown(Shutdown::Write)
    }

    fn waker(&self) -> Option<Waker> {
        Some(Arc::clone(&self.waker).into())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// An address that drops what is sent to it, as a firewall does: its queue is full. Held as long as this lives.
    #[cfg(target_os = "linux")]
    fn black_hole() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Vec::new();
        // The queue takes as many as the system allows, and one more is not answered.
        while held.last().is_none_or(|last| state(last).unwrap()) {
            held.push(TcpStream::connect(address).unwrap());
        }
        (address, listener, held)
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_address_that_does_not_answer_does_not_keep_a_device_from_the_next_one() {
        let holes = [black_hole(), black_hole()];
        let hub = TcpListener::bind("127.0.0.3:0").unwrap();
        let refuses = TcpListener::bind("127.0.0.4:0").unwrap().local_addr().unwrap();
        let address = hub.local_addr().unwrap();
        let tcp = connect([holes[0].0, holes[1].0, refuses, address]).unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), address);
    }

    #[test]
    fn where_all_addresses_refuse_that_is_told() {
        let refuses = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        assert_eq!(connect(refuses).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect([]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
