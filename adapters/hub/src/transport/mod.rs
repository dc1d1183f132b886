//! From a socket to a stream of MQTT bytes: TLS and WebSocket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::buffers::Buffers;

mod any_certificate;
pub(crate) mod body;
pub(crate) mod buffers;
pub(crate) mod guarded;
pub(crate) mod head;
pub mod key_log;
pub mod offer;
pub mod tls;
pub(crate) mod tls_socket;
pub mod websocket;

/// So much is read at a time at most. A TLS record has up to 16 KiB and some.
pub(crate) const READ_MAX: usize = 64 * 1024;

/// Reads in a row that brought nothing of MQTT (pings, empty frames and records) before other connections get their turn.
pub(crate) const EMPTY_READS_PER_TURN: usize = 8;

/// What carries MQTT's bytes. All memory that is not owed to the other side is lent from `buffers`, so that an idle
/// connection has none.
pub(crate) trait Transport: Sized + 'static {
    /// What is spoken over it, as people are told.
    const PROTOCOL: &'static str;

    /// The same on its way to another thread.
    type Parked: Send + 'static;

    /// Takes it off this thread.
    ///
    /// # Errors
    /// When the system will not have it.
    fn park(self) -> io::Result<Self::Parked>;

    /// Takes it onto this thread.
    ///
    /// # Errors
    /// When the system will not have it.
    fn resume(parked: Self::Parked) -> io::Result<Self>;

    /// Reads once and appends what came to `rx`. Gives how much, 0 at the end of the stream.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
        rx: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>>;

    /// Writes all of `tx`, and what was left before. What stays in `tx` was not taken yet.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
        tx: &mut Vec<u8>,
    ) -> Poll<io::Result<()>>;

    /// How many bytes the other side has taken so far, sealed as they are: it grows while somebody reads.
    fn taken(&self) -> u64;

    /// Says that no more will come. To be called once all is written.
    fn poll_close(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Poll<io::Result<()>>;
}

/// Any stream of bytes.
pub(crate) struct Stream<S> {
    inner: S,
    /// Something was written since the last flush.
    dirty: bool,
    taken: u64,
}

impl<S> Stream<S> {
    pub(crate) const fn new(inner: S) -> Self {
        Self { inner, dirty: false, taken: 0 }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for Stream<S> {
    // A socket without WebSocket frames is a `TlsSocket`.
    const PROTOCOL: &'static str = "MQTT over WebSocket";

    type Parked = Self;

    fn park(self) -> io::Result<Self> {
        Ok(self)
    }

    fn resume(parked: Self) -> io::Result<Self> {
        Ok(parked)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
        rx: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let mut space = ReadBuf::new(buffers.raw(READ_MAX));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut space))?;
        rx.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        _: &mut Buffers,
        tx: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        let mut written = 0;
        let result = loop {
            let rest = tx.get(written..).unwrap_or_default();
            if rest.is_empty() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.inner).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.dirty |= written > 0;
        self.taken += written as u64;
        tx.drain(..written);
        ready!(result)?;
        if self.dirty {
            ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    fn taken(&self) -> u64 {
        self.taken
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, _: &mut Buffers) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
