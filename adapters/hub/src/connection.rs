//! One socket: its bytes through the machine and back, until it is over.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use devicebound::Rule;
use devicebound::explain::Sender;
use devicebound::hub::{ClientCertificate, Event, Wait};
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
pub async fn serve<S>(engine: &Engine, socket: S, peer: SocketAddr, certificate: Option<ClientCertificate>)
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
            let more = match self.transmit() {
                Ok(more) => more,
                Err(close) => return close,
            };
            // The end of the stream is seen by reading alone, and so after every whole packet was pulled.
            let at_least = if let Wait::Read { at_least } = wait { at_least } else { 0 };
            match self.wait(at_least, more || wait == Wait::Flush).await {
                Happening::Received | Happening::Written | Happening::Called(Call::Ready) => {}
                Happening::Ended(reason) => return self.tell_end(reason),
                Happening::Called(Call::End(rule)) => return Close::new(CloseReason::Ended(rule)),
                Happening::Called(Call::TimedOut) => {
                    if let Turn::End(close) = self.time_out() {
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
    fn time_out(&mut self) -> Turn {
        let mut context = Context::from_waker(std::task::Waker::noop());
        // At most one buffer: a client that sends without end does not hold off its time-out.
        if let Poll::Ready(Ok(1..)) = self.rx.poll_fill(&mut context, &mut self.socket.inner, 0)
            && let end @ Turn::End(_) = self.pull()
        {
            return end;
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
    /// A write failed.
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

    /// Writes all there is and flushes it.
    ///
    /// A write that fails is not yet the end: what the other side said before it hung up, a DISCONNECT perhaps, is still
    /// to be read. Nothing more is written from then on, and reading finds the end.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_broken && ready!(self.poll_write_all(cx)).is_err() {
            self.is_broken = true;
        }
        self.written = 0;
        self.unsent.clear();
        if self.unsent.capacity() > KEPT {
            self.unsent = Vec::new();
        }
        Poll::Ready(())
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.unsent.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
            self.dirty = true;
        }
        if self.dirty {
            ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is left and closes.
    async fn part(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx)).await;
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

#[cfg(test)]
mod tests {
    use devicebound::hub::{Authentication, DeviceIdentity, DeviceRecord, HubConfig};
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::state::StateDir;
    use crate::store::FileStore;
    use crate::view::View;

    /// CONNECT of `d`, keep alive 10 s, user name `h/d`, no password.
    const CONNECT: &[u8] = b"\x10\x12\x00\x04MQTT\x04\x82\x00\x0a\x00\x01d\x00\x03h/d";
    const PINGREQ: &[u8] = b"\xc0\x00";

    #[tokio::test(start_paused = true)]
    async fn what_has_arrived_by_a_deadline_is_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(&StateDir::open(folder.path()).unwrap(), Default::default());
        let (engine, _writer) =
            Engine::start(HubConfig::default(), Box::new(store), View::default()).unwrap();
        let prints = ClientCertificate {
            sha1: "A".repeat(40),
            sha256: "B".repeat(64),
            ..ClientCertificate::default()
        };
        let authentication = Authentication::SelfSigned { primary: prints.sha1.clone(), secondary: None };
        let identity = DeviceIdentity::new("d", "1".to_owned(), authentication).unwrap();
        engine.with(|core, _| core.hub.insert(DeviceRecord::new(identity)).unwrap());

        let (mut device, socket) = tokio::io::duplex(1024);
        let link = engine.open(Some(prints)).unwrap();
        let peer = ([127, 0, 0, 1], 1).into();
        let mut connection =
            Connection { engine: &engine, link, peer, socket: Socket::new(socket), rx: Inbox::default() };
        device.write_all(CONNECT).await.unwrap();
        assert!(matches!(connection.wait(1, false).await, Happening::Received));
        assert!(matches!(connection.pull(), Turn::Wait(_)));
        connection.transmit().unwrap();

        device.write_all(PINGREQ).await.unwrap();
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(!matches!(connection.time_out(), Turn::End(_)), "PINGREQ was there");
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(matches!(connection.time_out(), Turn::End(_)), "nothing was there");
    }

    #[test]
    fn the_buffer_grows_with_what_has_arrived_and_not_with_what_is_announced() {
        let mut rx = Inbox::default();
        assert!(rx.space(100_000_000).len() <= READ_STEP);
        assert!(rx.bytes.capacity() <= 2 * READ_STEP);
    }

    #[test]
    fn unread_bytes_move_to_the_front_when_room_is_needed() {
        let mut rx = Inbox::default();
        let length = rx.space(READ_STEP).len();
        rx.bytes[length - 2..].copy_from_slice(b"ab");
        rx.end = length;
        rx.consume(length - 2);
        assert!(!rx.space(1).is_empty());
        assert_eq!(rx.unread(), b"ab");
        assert_eq!(rx.bytes.len(), length, "no growth");
    }
}
