//! The head of a connection's first request, read before hyper sees the connection.
//!
//! hyper holds 16 KiB of buffers for each connection from its first moment on, and nobody is known before the head is
//! whole. Until then a connection costs what it has sent, [`HEAD_MAX`] at most.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// The head of a request at most (own limit; nginx and Apache take 8 KiB a line). A token of Azure has some 300 bytes, one
/// of Entra 2 to 4 KiB.
pub(crate) const HEAD_MAX: usize = 8 * 1024;

/// A stream of which something was read already.
#[derive(Debug)]
pub(crate) struct Begun<S> {
    /// What was read.
    head: Vec<u8>,
    /// How much of it was given out.
    given: usize,
    inner: S,
}

impl<S> Begun<S> {
    pub(crate) const fn new(inner: S) -> Self {
        Self { head: Vec::new(), given: 0, inner }
    }

    /// Something has arrived.
    pub(crate) const fn has_begun(&self) -> bool {
        !self.head.is_empty()
    }
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// Waits until a head is whole, cannot become one, or is too long: what it is, hyper judges. False if the client has
    /// hung up before it said anything. Cancelled, it loses nothing.
    ///
    /// # Errors
    /// Those of the stream.
    pub(crate) async fn arrives(&mut self) -> io::Result<bool> {
        let mut scan = Scan::default();
        while !scan.is_done(&self.head) {
            if self.inner.read_buf(&mut self.head).await? == 0 {
                return Ok(self.has_begun());
            }
        }
        Ok(true)
    }
}

/// How far a head was looked at. Each byte is looked at a few times, however small the pieces are.
#[derive(Debug, Default)]
struct Scan {
    seen: usize,
    has_line: bool,
}

impl Scan {
    /// Whether there is something for hyper in what has arrived.
    fn is_done(&mut self, head: &[u8]) -> bool {
        let start = self.seen.saturating_sub(2);
        let (new, fresh) = (head.get(start..).unwrap_or_default(), head.get(self.seen..).unwrap_or_default());
        let is_foreign = fresh.iter().any(|byte| byte.is_ascii_control() && !b"\r\n\t".contains(byte));
        let is_whole = contains(new, b"\n\r\n") || contains(new, b"\n\n");
        let is_no_request = match fresh.iter().position(|&byte| byte == b'\n') {
            Some(end) if !self.has_line => {
                self.has_line = true;
                !contains(head.get(..self.seen + end).unwrap_or(head), b" HTTP/1.")
            }
            _ => false,
        };
        self.seen = head.len();
        head.len() >= HEAD_MAX || is_foreign || is_whole || is_no_request
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = this.head.get(this.given..).unwrap_or_default();
        if rest.is_empty() {
            this.head = Vec::new();
            this.given = 0;
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let part = rest.get(..buf.remaining()).unwrap_or(rest);
        buf.put_slice(part);
        this.given += part.len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// How many bytes of `sent`, which come one at a time, are there when hyper gets them; 0 if it never does.
    fn needed(sent: &[u8]) -> usize {
        let mut scan = Scan::default();
        (0..=sent.len()).find(|&count| scan.is_done(&sent[..count])).unwrap_or_default()
    }

    #[test]
    fn a_head_is_waited_for_until_it_is_whole() {
        for head in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.0\n\n"] {
            assert_eq!(needed(head.as_bytes()), head.len(), "{head:?}");
            assert!(Scan::default().is_done(head.as_bytes()), "{head:?}");
        }
        let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'a'; HEAD_MAX]].concat();
        assert_eq!(needed(&endless), HEAD_MAX);
    }

    #[test]
    fn what_is_no_request_is_not_waited_for() {
        assert_eq!(needed(b"\x10\x12\x00\x04MQTT"), 1);
        assert_eq!(needed(b"AMQP\x00\x01\x00\x00"), 5);
        assert_eq!(needed(b"SSH-2.0-x\r\nmore"), 11);
        assert_eq!(needed(b"PRI * HTTP/2.0\r\n\r\nSM"), 16);
        assert_eq!(needed(b"\r\n\r\n"), 2);
    }

    #[tokio::test]
    async fn what_was_read_early_comes_first() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut begun = Begun::new(server);
        client.write_all(b"GET / HTTP/1.1\r\n\r\nbody").await.unwrap();
        assert!(begun.arrives().await.unwrap());
        client.write_all(b" and more").await.unwrap();
        drop(client);
        let mut all = String::new();
        begun.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "GET / HTTP/1.1\r\n\r\nbody and more");
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_in_silence_has_not_begun() {
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        assert!(!Begun::new(server).arrives().await.unwrap());
    }
}
