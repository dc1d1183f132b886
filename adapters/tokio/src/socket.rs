//! A transport on tokio's sockets.

use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use devicebound_client::{Race, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep_until};

use crate::Tls;

/// TLS over TCP, with the proxy and the WebSocket that [`Tls`] asks for.
///
/// Whoever writes must also read: the handshakes go on when what they wait for is read.
#[derive(Debug)]
pub struct TlsSocket {
    transport: Transport,
    tcp: TcpStream,
    /// Who wants to write when a handshake has gone on.
    writer: Option<Waker>,
}

impl TlsSocket {
    /// Opens a TCP connection to `host` or its proxy, to the first address that answers (RFC 8305). All handshakes are left to the reads and writes of the client.
    ///
    /// # Errors
    /// No such host, or none of its addresses answers.
    pub async fn connect(host: String, tls: Tls) -> io::Result<Self> {
        let transport = Transport::new(&host, &tls)?;
        let tcp = match lookup_host(tls.address(&host)).await {
            Ok(addresses) => connect(addresses).await,
            Err(error) => Err(error),
        };
        let tcp = tcp.map_err(|error| tls.no_connection(&host, error))?;
        tcp.set_nodelay(true)?;
        Ok(Self { transport, tcp, writer: None })
    }
}

/// An attempt at one address.
type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Takes the first address that answers.
async fn connect(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let now = || Instant::now().into_std();
    let mut race = Race::new(addresses, now());
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut alarm = pin!(sleep_until(Instant::now()));
    let winner = poll_fn(|cx| {
        loop {
            attempts.extend(std::iter::from_fn(|| race.poll(now())).map(attempt));
            let mut winner = None;
            attempts.retain_mut(|attempt| match attempt.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(Ok(tcp)) => {
                    winner.get_or_insert(tcp);
                    false
                }
                Poll::Ready(Err(error)) => {
                    race.failed(error, now());
                    false
                }
            });
            if let Some(winner) = winner {
                return Poll::Ready(Some(winner));
            }
            match race.next_at() {
                None if attempts.is_empty() => return Poll::Ready(None),
                None => return Poll::Pending,
                Some(at) => {
                    alarm.as_mut().reset(at.into());
                    ready!(alarm.as_mut().poll(cx));
                }
            }
        }
    });
    winner.await.ok_or_else(|| race.failure())
}

fn attempt(address: SocketAddr) -> Attempt {
    Box::pin(TcpStream::connect(address))
}

impl AsyncRead for TlsSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(length) = unless_idle(this.transport.read(room.initialize_unfilled()))? {
                room.advance(length);
                return Poll::Ready(Ok(()));
            }
            // What was read may want an answer. That it cannot be written is told by who writes.
            let _ = Pin::new(&mut *this).poll_flush(cx);
            // Asked first, because it is this that gives other tasks their turn when the peer never pauses.
            ready!(this.tcp.poll_read_ready(cx))?;
            if unless_idle(this.transport.read_tcp(&mut AtOnce(&this.tcp)))?.is_some() {
                this.writer.take().into_iter().for_each(Waker::wake);
            }
        }
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.as_mut().poll_flush(cx))?;
        match unless_idle(self.transport.write(bytes))? {
            Some(length) => Poll::Ready(Ok(length)),
            None => {
                self.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match unless_idle(this.transport.write_tcp(&mut AtOnce(&this.tcp)))? {
                Some(true) => return Poll::Ready(Ok(())),
                Some(false) => {}
                None => ready!(this.tcp.poll_write_ready(cx))?,
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.close();
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// `None` where the call is to be made again when there is something.
fn unless_idle<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

/// Reads and writes what can be at once.
struct AtOnce<'a>(&'a TcpStream);

impl Read for AtOnce<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(room)
    }
}

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::{Duration, timeout};

    use super::*;

    /// An address that drops what is sent to it, as a firewall does: its queue is full. Held as long as this lives.
    #[cfg(target_os = "linux")]
    async fn black_hole() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(tcp) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            held.push(tcp.unwrap());
        }
        (address, listener, held)
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_does_not_answer_does_not_keep_a_device_from_the_next_one() {
        let holes = [black_hole().await, black_hole().await];
        let hub = TcpListener::bind("127.0.0.3:0").await.unwrap();
        let refuses = TcpListener::bind("127.0.0.4:0").await.unwrap().local_addr().unwrap();
        let address = hub.local_addr().unwrap();
        let tcp = connect([holes[0].0, holes[1].0, refuses, address]).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), address);
    }

    #[tokio::test]
    async fn where_all_addresses_refuse_that_is_told() {
        let refuses = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(connect([refuses]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect([]).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
