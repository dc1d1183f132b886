//! A transport on tokio's sockets.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use devicebound_blocking::Transport;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

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
    /// Opens a TCP connection to `host` or its proxy. All handshakes are left to the reads and writes of the client.
    ///
    /// # Errors
    /// No such host, or none of its addresses answers.
    pub async fn connect(host: String, tls: Tls) -> io::Result<Self> {
        let transport = Transport::new(&host, &tls)?;
        let tcp = TcpStream::connect(tls.address(&host)).await.map_err(|error| tls.no_connection(error))?;
        tcp.set_nodelay(true)?;
        Ok(Self { transport, tcp, writer: None })
    }
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
            match unless_idle(this.transport.read_tcp(&mut AtOnce(&this.tcp)))? {
                Some(()) => this.writer.take().into_iter().for_each(Waker::wake),
                None => ready!(this.tcp.poll_read_ready(cx))?,
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
