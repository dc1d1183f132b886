//! One socket: its bytes through the machine and back, until it is over.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use devicebound::Rule;
use devicebound::explain::Sender;
use devicebound::hub::{Event, Thumbprints, Wait};
use devicebound::packet::{Decoded, decode};
use devicebound::session::{Close, CloseReason};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::engine::{Call, Engine, Link, Turn};
use crate::transport::websocket::TextFrame;
use crate::view::Who;

/// How long a client may take to accept the last bytes.
const PARTING_TIME: Duration = Duration::from_secs(1);
/// The receive buffer grows by at most so much ahead of what has arrived.
const READ_STEP: usize = 16 * 1024;
/// A buffer that grew beyond this is given back when it is empty.
const KEPT: usize = 64 * 1024;

/// Serves one connection until its end. `certificate` is what the client showed in the TLS handshake.
pub async fn serve<S>(engine: &Engine, socket: S, peer: SocketAddr, certificate: Option<Thumbprints>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ok(link) = engine.open(certificate) else {
        engine.view.note("busy", &format!("{peer} was turned away: {}", Rule::ThrottledConnect.says()));
        return;
    };
    let mut connection = Connection { engine, link, peer, socket: Socket::new(socket), rx: Inbox::default() };
    let close = connection.run().await;
    connection.report(&close);
    engine.close(&connection.link, close.reason());
    // What was said last, a CONNACK that refuses for one, should arrive; a client that does not listen is not waited for.
    let _ = tokio::time::timeout(PARTING_TIME, connection.socket.part()).await;
}

struct Connection<'e, S> {
    engine: &'e Engine,
    link: Link,
    peer: SocketAddr,
    socket: Socket<S>,
    rx: Inbox,
}

/// What happened while a connection waited.
enum Happening {
    Received,
    Ended(CloseReason),
    Written,
    Called(Call),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn run(&mut self) -> Close {
        let mut ended = None;
        loop {
            self.engine.room().await;
            let wait = match self.pull() {
                Turn::Wait(wait) => wait,
                Turn::Again => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Turn::End(close) => return close,
            };
            // What has arrived comes before the end of the transport.
            if let (Some(reason), Wait::Read { .. }) = (ended, wait) {
                return self.tell_end(reason);
            }
            let more = match self.transmit() {
                Ok(more) => more,
                Err(close) => return close,
            };
            let at_least = match wait {
                Wait::Read { at_least } if ended.is_none() => at_least,
                _ => 0,
            };
            match self.wait(at_least, more || wait == Wait::Flush).await {
                Happening::Received | Happening::Written | Happening::Called(Call::Ready) => {}
                Happening::Ended(reason) => ended = Some(reason),
                Happening::Called(Call::End(rule)) => return Close::new(CloseReason::Ended(rule)),
                Happening::Called(Call::TimedOut) => {
                    if let Turn::End(close) = self.time_out(ended.is_none()) {
                        return close;
                    }
                }
            }
        }
    }

    /// Pulls what has arrived; a packet that is not whole stays.
    fn pull(&mut self) -> Turn {
        let Self { engine, link, rx, socket, .. } = self;
        let input = rx.unread();
        let mut rest = input;
        let mut packets = Vec::new();
        let watched = engine.view.is_on();
        let was_known = link.client_id().is_some();
        let tx = socket.tx();
        let written = tx.len();
        let turn = engine.pull(link, &mut rest, tx, |packet| {
            if watched {
                packets.push(packet);
            }
        });
        let client_id = link.client_id();
        if let (false, Some(client_id)) = (was_known, &client_id) {
            engine.operations.connected(client_id);
        }
        if watched {
            let who = Who { client_id: client_id.as_deref(), peer: self.peer };
            for packet in packets {
                engine.view.packet(who, Sender::Device, packet);
            }
            show_sent(engine, who, socket.tx().get(written..).unwrap_or_default());
        }
        let taken = input.len() - rest.len();
        self.rx.consume(taken);
        turn
    }

    /// Takes from the machine what is to be sent; true if there is more once that was written.
    fn transmit(&mut self) -> Result<bool, Close> {
        let tx = self.socket.tx();
        let before = tx.len();
        let result = self.engine.transmit(&self.link, tx);
        if self.engine.view.is_on() {
            let client_id = self.link.client_id();
            let who = Who { client_id: client_id.as_deref(), peer: self.peer };
            show_sent(self.engine, who, self.socket.tx().get(before..).unwrap_or_default());
        }
        result
    }

    /// A deadline came. What has arrived by now counts as in time.
    fn time_out(&mut self, may_read: bool) -> Turn {
        if may_read {
            let mut context = Context::from_waker(std::task::Waker::noop());
            // At most one buffer: a client that sends without end does not hold off its time-out.
            if let Poll::Ready(Ok(1..)) = self.rx.poll_fill(&mut context, &mut self.socket.inner, 0) {
                match self.pull() {
                    Turn::Wait(_) | Turn::Again => {}
                    end @ Turn::End(_) => return end,
                }
            }
        }
        self.engine.tell(&mut self.link, Event::TimedOut, self.socket.tx())
    }

    /// The transport has ended, and what it brought was pulled.
    fn tell_end(&mut self, reason: CloseReason) -> Close {
        if reason != CloseReason::Lost {
            return Close::new(reason);
        }
        match self.engine.tell(&mut self.link, Event::Closed, self.socket.tx()) {
            Turn::End(close) => close,
            Turn::Wait(_) | Turn::Again => Close::new(CloseReason::Lost),
        }
    }

    /// Listens, writes, and reads if `at_least` is not 0; whichever comes first. Listening comes first, or a client that
    /// sends without end would outlive its token; [`time_out`](Self::time_out) reads before it says so.
    async fn wait(&mut self, at_least: usize, report_written: bool) -> Happening {
        let Self { link, socket, rx, .. } = self;
        let mut called = pin!(link.called());
        poll_fn(|cx| {
            if let Poll::Ready(call) = called.as_mut().poll(cx) {
                return Poll::Ready(Happening::Called(call));
            }
            // A write that failed is not the end yet: what the client sent before it closed is still to be read.
            if socket.poll_send(cx).is_ready() && report_written {
                return Poll::Ready(Happening::Written);
            }
            if at_least > 0
                && let Poll::Ready(read) = rx.poll_fill(cx, &mut socket.inner, at_least)
            {
                return Poll::Ready(match read {
                    Ok(1..) => Happening::Received,
                    Ok(0) => Happening::Ended(CloseReason::Lost),
                    Err(error) if is_text_frame(&error) => {
                        Happening::Ended(CloseReason::Violation(Rule::WebSocketFrames))
                    }
                    Err(_) => Happening::Ended(CloseReason::Lost),
                });
            }
            Poll::Pending
        })
        .await
    }

    /// Every end says why.
    fn report(&self, close: &Close) {
        let client_id = self.link.client_id();
        let offending = self.rx.unread().get(close.offending()).unwrap_or_default();
        self.engine.operations.closed(client_id.as_deref(), close, offending);
        self.engine.view.closed(Who { client_id: client_id.as_deref(), peer: self.peer }, close, offending);
    }
}

fn is_text_frame(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TextFrame>())
}

fn show_sent(engine: &Engine, who: Who<'_>, sent: &[u8]) {
    let mut rest = sent;
    while !rest.is_empty() {
        let before = rest;
        let Ok(Decoded::Packet(_)) = decode(&mut rest, usize::MAX) else { return };
        let packet = before.get(..before.len() - rest.len()).unwrap_or(before);
        engine.view.packet(who, Sender::Hub, packet);
    }
}

/// The socket with what is to be written to it.
struct Socket<S> {
    inner: S,
    unsent: Vec<u8>,
    /// So much of `unsent` was written already.
    written: usize,
    /// Something was written since the last flush.
    dirty: bool,
    /// A write failed: nothing more will go out, and what would is dropped.
    is_broken: bool,
}

impl<S: AsyncWrite + Unpin> Socket<S> {
    const fn new(inner: S) -> Self {
        Self { inner, unsent: Vec::new(), written: 0, dirty: false, is_broken: false }
    }

    /// What is to be written and was not yet, for the machine to append to.
    fn tx(&mut self) -> &mut Vec<u8> {
        if self.written > 0 {
            self.unsent.drain(..self.written);
            self.written = 0;
        }
        &mut self.unsent
    }

    /// Writes all there is and flushes it; nothing once a write has failed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken {
            self.unsent.clear();
            self.written = 0;
            return Poll::Ready(Ok(()));
        }
        let sent = self.poll_write_and_flush(cx);
        self.is_broken = matches!(sent, Poll::Ready(Err(_)));
        sent
    }

    fn poll_write_and_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.unsent.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
            self.dirty = true;
        }
        self.unsent.clear();
        self.written = 0;
        if self.unsent.capacity() > KEPT {
            self.unsent = Vec::new();
        }
        if self.dirty {
            ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is left and closes.
    async fn part(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx)).await?;
        poll_fn(|cx| Pin::new(&mut self.inner).poll_shutdown(cx)).await
    }
}

/// Bytes that have arrived and were not pulled yet.
#[derive(Default)]
struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEPT {
                self.bytes = Vec::new();
            }
        }
    }

    /// Reads once; `at_least` more bytes are needed. Gives how many came, 0 at the end of the stream.
    fn poll_fill<S>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
        at_least: usize,
    ) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        let mut space = ReadBuf::new(self.space(at_least));
        ready!(Pin::new(socket).poll_read(cx, &mut space))?;
        let count = space.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Room behind the unread bytes: what is needed, but never far ahead of what has arrived, because a client may
    /// announce much and send nothing.
    fn space(&mut self, at_least: usize) -> &mut [u8] {
        let wanted = at_least.clamp(2048, READ_STEP);
        if self.bytes.len() - self.end < wanted {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.bytes.len() - self.end < wanted {
                self.bytes.resize(self.end + wanted, 0);
            }
        }
        &mut self.bytes[self.end..]
    }
}
