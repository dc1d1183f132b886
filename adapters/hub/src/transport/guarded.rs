//! A socket with patience that ends: a peer that takes nothing is given up, and one that is still talking when it is
//! told goodbye can read the goodbye.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a peer may take nothing of what is written to it (own limit; as long as it may take to log in).
pub(crate) const WRITE_TIME: Duration = Duration::from_secs(30);
/// How long a peer may go on sending after the last was written to it (own limit). A socket that is closed over unread
/// bytes is reset, and the peer may never see what it was told last (RFC 1122 §4.2.2.13).
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(1);
/// How much of it is read and thrown away at most (own limit).
pub(crate) const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// A stream whose writes come to an end, one way or the other.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    inner: S,
    /// Until when the peer has to take something; only while it takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Only while the last bytes of the peer are thrown away.
    linger: Option<Linger>,
}

#[derive(Debug)]
struct Linger {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<S> Guarded<S> {
    pub(crate) const fn new(inner: S) -> Self {
        Self { inner, stalled: None, linger: None }
    }

    /// What became of a write: one that waits has its time.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_TIME)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer read nothing for 30 s")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.in_time(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.in_time(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            let shut = Pin::new(&mut this.inner).poll_shutdown(cx);
            ready!(this.in_time(cx, shut))?;
        }
        let linger = this.linger.get_or_insert_with(|| Linger {
            until: Box::pin(tokio::time::sleep_until(Instant::now() + LINGER_TIME)),
            left: LINGER_BYTES,
        });
        let mut room = [0; 4096];
        while linger.left > 0 && linger.until.as_mut().poll(cx).is_pending() {
            let mut space = ReadBuf::new(&mut room);
            // An error or the end: there is nothing left that could reset the connection.
            if ready!(Pin::new(&mut this.inner).poll_read(cx, &mut space)).is_err()
                || space.filled().is_empty()
            {
                break;
            }
            linger.left = linger.left.saturating_sub(space.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_given_up_after_thirty_seconds() {
        let (_client, server) = tokio::io::duplex(16);
        let began = Instant::now();
        let error = Guarded::new(server).write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, WRITE_TIME));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_is_served() {
        let (mut client, server) = tokio::io::duplex(16);
        let reader = tokio::spawn(async move {
            for _ in 0..8 {
                tokio::time::advance(WRITE_TIME / 2).await;
                client.read_exact(&mut [0; 8]).await.unwrap();
            }
        });
        Guarded::new(server).write_all(&[0; 64]).await.unwrap();
        reader.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_waits_for_a_peer_that_is_still_talking_but_not_for_ever() {
        let (mut client, server) = tokio::io::duplex(16);
        let talker = tokio::spawn(async move {
            while client.write_all(&[0; 8]).await.is_ok() {
                tokio::task::yield_now().await
            }
        });
        let began = Instant::now();
        Guarded::new(server).shutdown().await.unwrap();
        assert!(began.elapsed() <= LINGER_TIME);
        talker.await.unwrap();
    }
}
