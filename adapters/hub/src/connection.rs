//! One connection: its bytes through the machine and back, until it is over.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use devicebound::Rule;
use devicebound::explain::Sender;
use devicebound::hub::{self, ClientCertificate, Event, Wait};
use devicebound::packet::{Decoded, decode};
use devicebound::session::{Close, CloseReason};
use devicebound::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_local;

use crate::engine::Engine;
use crate::link::{Call, Link};
use crate::transport::websocket::TextFrame;
use crate::transport::{Stream, Transport};
use crate::view::{View, Who};
use crate::worker::{Turn, Worker};

/// How long a client may take to accept the last bytes.
const PARTING_TIME: Duration = Duration::from_secs(1);

/// A connection that no worker has yet.
struct Arrival<P> {
    transport: P,
    peer: SocketAddr,
    /// What the client showed in the TLS handshake.
    certificate: Option<Box<ClientCertificate>>,
    /// What it has said already.
    rx: Vec<u8>,
    /// When the transport was there.
    began: Instant,
}

/// Serves a connection over any stream of bytes, on a worker, until its end. `certificate` is what the client showed.
pub fn adopt<S>(engine: &Engine, socket: S, peer: SocketAddr, certificate: Option<ClientCertificate>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    engine.metrics.opened();
    let certificate = certificate.map(Box::new);
    let transport = Stream::new(socket);
    let arrival = Arrival { transport, peer, certificate, rx: Vec::new(), began: engine.clock.now() };
    engine.send(engine.any_place(), |worker| take_over::<Stream<S>>(worker, arrival));
}

/// Serves a connection on this worker, or on the one that it turns out to belong to. `rx` is what has arrived already, and
/// `began` when it was accepted, from where the time to CONNECT counts.
pub(crate) async fn serve<T: Transport>(
    worker: Rc<Worker>,
    transport: T,
    peer: SocketAddr,
    certificate: Option<ClientCertificate>,
    rx: Vec<u8>,
    began: Instant,
) {
    worker.engine.metrics.opened();
    run(worker, Arrival { transport, peer, certificate: certificate.map(Box::new), rx, began }).await;
}

/// Tells that a transport is gone before its client could say who it is.
pub(crate) fn turn_away(engine: &Engine, peer: SocketAddr, reason: CloseReason) {
    let (who, close) = (Who { client_id: None, peer }, Close::new(reason));
    engine.metrics.closed(&close, false);
    engine.operations.closed(who, None, None, &close, &[]);
    engine.view.closed(who, &close, &[]);
}

fn take_over<T: Transport>(worker: &Rc<Worker>, arrival: Arrival<T::Parked>) {
    let Arrival { transport, peer, certificate, rx, began } = arrival;
    // What cannot be taken over has hung up.
    let Ok(transport) = T::resume(transport) else { return };
    let worker = Rc::clone(worker);
    spawn_local(run(worker, Arrival { transport, peer, certificate, rx, began }));
}

async fn run<T: Transport>(worker: Rc<Worker>, arrival: Arrival<T>) {
    let Arrival { transport, peer, certificate, rx, began } = arrival;
    let Ok(link) = worker.open(began, certificate) else {
        return turn_away(&worker.engine, peer, CloseReason::Ended(Rule::ThrottledConnect));
    };
    let mut connection = Connection {
        worker,
        link,
        peer,
        transport,
        rx,
        rx_start: 0,
        rx_is_lent: false,
        tx: Vec::new(),
        is_broken: false,
    };
    match connection.run().await {
        End::Closed(close) => {
            connection.report(&close);
            connection.worker.close(&connection.link, close.reason());
            connection.give_back_rx();
            // What was said last, a CONNACK that refuses for one, should arrive; a client that does not listen is not
            // waited for.
            let _ = tokio::time::timeout(PARTING_TIME, connection.part()).await;
        }
        End::Moves(place) => connection.moves(place),
    }
}

struct Connection<T> {
    worker: Rc<Worker>,
    link: Link,
    peer: SocketAddr,
    transport: T,
    /// What has arrived and was not pulled yet begins at `rx_start`.
    rx: Vec<u8>,
    rx_start: usize,
    /// The buffer is the worker's.
    rx_is_lent: bool,
    /// What is to be sent.
    tx: Vec<u8>,
    /// A write failed.
    is_broken: bool,
}

/// Why a worker is done with a connection.
enum End {
    Closed(Close),
    /// Another worker has the device.
    Moves(usize),
}

/// What happened while a connection waited.
enum Happening {
    Received,
    Ended(CloseReason),
    Written,
    Called(Call),
}

impl<T: Transport> Connection<T> {
    async fn run(&mut self) -> End {
        loop {
            if !self.link.is_known()
                && let Some(device_id) = hub::device_of(self.unread())
                && let Some(place) = self.worker.elsewhere(device_id)
            {
                return End::Moves(place);
            }
            let wait = match self.pull() {
                Turn::Wait(wait) => wait,
                Turn::Again => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Turn::End(close) => return End::Closed(close),
            };
            let more = match self.transmit() {
                Ok(more) => more,
                Err(close) => return End::Closed(close),
            };
            // The end of the stream is seen by reading alone, and so after every whole packet was pulled.
            let reads = matches!(wait, Wait::Read { .. });
            match self.wait(reads, more || wait == Wait::Flush).await {
                Happening::Received | Happening::Written | Happening::Called(Call::Ready) => {}
                Happening::Ended(reason) => return End::Closed(self.tell_end(reason)),
                Happening::Called(Call::End(rule)) => {
                    return End::Closed(Close::new(CloseReason::Ended(rule)));
                }
                Happening::Called(Call::TimedOut) => {
                    if let Turn::End(close) = self.time_out() {
                        return End::Closed(close);
                    }
                }
            }
        }
    }

    fn unread(&self) -> &[u8] {
        self.rx.get(self.rx_start..).unwrap_or_default()
    }

    /// Pulls what has arrived; a packet that is not whole stays.
    fn pull(&mut self) -> Turn {
        self.borrow_tx();
        let Self { worker, link, rx, rx_start, tx, peer, .. } = self;
        let mut rest = rx.get(*rx_start..).unwrap_or_default();
        let mut packets = Vec::new();
        let view = &worker.engine.view;
        let watched = view.shows_packets();
        let was_known = link.is_known();
        let written = tx.len();
        let turn = worker.pull(link, &mut rest, tx, |packet| {
            if watched {
                packets.push(packet);
            }
        });
        if !was_known && let Some(sender) = &link.sender {
            let client_id = sender.client_id();
            let who = Who { client_id: Some(&client_id), peer: *peer };
            worker.engine.operations.connected(who, &sender.auth_method(), link.sdk_version.as_deref());
        }
        if watched {
            let client_id = link.client_id();
            let who = Who { client_id: client_id.as_deref(), peer: *peer };
            for packet in packets {
                view.packet(who, Sender::Device, packet);
            }
            show_sent(view, who, tx.get(written..).unwrap_or_default());
        }
        *rx_start = rx.len() - rest.len();
        if !matches!(turn, Turn::End(_)) {
            self.keep_unread();
        }
        turn
    }

    /// Takes from the machine what is to be sent; true if there is more once that was written.
    fn transmit(&mut self) -> Result<bool, Close> {
        self.borrow_tx();
        let before = self.tx.len();
        let result = self.worker.transmit(&self.link, &mut self.tx);
        let view = &self.worker.engine.view;
        if view.shows_packets() {
            let client_id = self.link.client_id();
            let who = Who { client_id: client_id.as_deref(), peer: self.peer };
            show_sent(view, who, self.tx.get(before..).unwrap_or_default());
        }
        result
    }

    /// A deadline came. What has arrived by now counts as in time.
    fn time_out(&mut self) -> Turn {
        let mut context = Context::from_waker(Waker::noop());
        // At most one buffer: a client that sends without end does not hold off its time-out.
        if let Poll::Ready(Ok(1..)) = self.poll_read(&mut context)
            && let end @ Turn::End(_) = self.pull()
        {
            return end;
        }
        self.borrow_tx();
        self.worker.tell(&mut self.link, Event::TimedOut, &mut self.tx)
    }

    /// The transport has ended, and what it brought was pulled.
    fn tell_end(&mut self, reason: CloseReason) -> Close {
        if reason != CloseReason::Lost {
            return Close::new(reason);
        }
        match self.worker.tell(&mut self.link, Event::Closed, &mut self.tx) {
            Turn::End(close) => close,
            Turn::Wait(_) | Turn::Again => Close::new(CloseReason::Lost),
        }
    }

    /// Listens, writes, and reads if it may; whichever comes first. Listening comes first, or a client that sends
    /// without end would outlive its token; [`time_out`](Self::time_out) reads before it says so.
    async fn wait(&mut self, reads: bool, report_written: bool) -> Happening {
        poll_fn(|cx| {
            if let Poll::Ready(call) = self.link.poll_called(cx) {
                return Poll::Ready(Happening::Called(call));
            }
            if self.poll_send(cx).is_ready() && report_written {
                return Poll::Ready(Happening::Written);
            }
            if reads
                && self.worker.has_room(cx)
                && let Poll::Ready(read) = self.poll_read(cx)
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

    /// Reads once, behind what is unread.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let buffers = &mut *self.worker.buffers.borrow_mut();
        let mut rx = buffers.lend_rx();
        rx.extend_from_slice(self.unread());
        let read = self.transport.poll_read(cx, buffers, &mut rx);
        if let Poll::Ready(Ok(1..)) = read {
            self.rx = rx;
            (self.rx_start, self.rx_is_lent) = (0, true);
        } else {
            rx.clear();
            buffers.take_back_rx(rx);
        }
        read
    }

    /// Writes all there is.
    ///
    /// A write that fails is not yet the end: what the other side said before it hung up, a DISCONNECT perhaps, is still
    /// to be read. Nothing more is written from then on, and reading finds the end.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let buffers = &mut *self.worker.buffers.borrow_mut();
        if !self.is_broken {
            match self.transport.poll_write(cx, buffers, &mut self.tx) {
                Poll::Ready(written) => self.is_broken = written.is_err(),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.tx.clear();
        buffers.take_back_tx(mem::take(&mut self.tx));
        Poll::Ready(())
    }

    /// Writes what is left and closes.
    async fn part(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx)).await;
        poll_fn(|cx| self.transport.poll_close(cx, &mut self.worker.buffers.borrow_mut())).await
    }

    /// Hands the connection to the worker that has the device.
    fn moves(mut self, place: usize) {
        let rx = self.unread().to_vec();
        self.give_back_rx();
        let Self { worker, link, peer, transport, .. } = self;
        worker.close(&link, CloseReason::Lost);
        // What cannot be moved has hung up.
        let Ok(transport) = transport.park() else { return };
        let arrival = Arrival { transport, peer, certificate: link.certificate, rx, began: link.began };
        worker.engine.send(place, |worker| take_over::<T>(worker, arrival));
    }

    /// A buffer of the worker's, where there is nothing to be sent yet.
    fn borrow_tx(&mut self) {
        if self.tx.capacity() == 0 {
            self.tx = self.worker.buffers.borrow_mut().lend_tx();
        }
    }

    /// Gives the buffer back, and keeps the unread rest in one of its own; mostly there is none. What stands in one of its
    /// own moves only when it has become half as long, so that a long rest is not copied for each packet of it.
    fn keep_unread(&mut self) {
        let rest = self.unread();
        if !self.rx_is_lent && rest.len() > self.rx.len() / 2 {
            return;
        }
        let rest = rest.to_vec();
        self.give_back_rx();
        self.rx = rest;
        (self.rx_start, self.rx_is_lent) = (0, false);
    }

    fn give_back_rx(&mut self) {
        let mut rx = mem::take(&mut self.rx);
        rx.clear();
        self.worker.buffers.borrow_mut().take_back_rx(rx);
    }

    /// Every end says why.
    fn report(&self, close: &Close) {
        let name = self.link.name();
        let who = Who { client_id: name.as_deref(), peer: self.peer };
        let offending = self.unread().get(close.offending()).unwrap_or_default();
        let engine = &self.worker.engine;
        engine.metrics.closed(close, self.link.is_known());
        let auth_type = self.link.sender.as_ref().map(|sender| sender.auth_method());
        engine.operations.closed(
            who,
            auth_type.as_deref(),
            self.link.sdk_version.as_deref(),
            close,
            offending,
        );
        engine.view.closed(who, close, offending);
    }
}

fn is_text_frame(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TextFrame>())
}

fn show_sent(view: &View, who: Who<'_>, sent: &[u8]) {
    let mut rest = sent;
    while !rest.is_empty() {
        let before = rest;
        let Ok(Decoded::Packet(_)) = decode(&mut rest, usize::MAX) else { return };
        let packet = before.get(..before.len() - rest.len()).unwrap_or(before);
        view.packet(who, Sender::Hub, packet);
    }
}

#[cfg(test)]
mod tests {
    use devicebound::hub::{Authentication, DeviceIdentity, DeviceRecord, HubConfig};
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::store::MemoryStore;

    /// CONNECT of `d`, keep alive 10 s, user name `h/d`, no password.
    const CONNECT: &[u8] = b"\x10\x12\x00\x04MQTT\x04\x82\x00\x0a\x00\x01d\x00\x03h/d";
    const PINGREQ: &[u8] = b"\xc0\x00";

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn what_has_arrived_by_a_deadline_is_in_time() {
        let store = Box::new(MemoryStore::default());
        let (_, mut parts) = Engine::start(HubConfig::default(), store, View::default(), 1).unwrap();
        let worker = parts.workers.remove(0).grow().0;
        let prints = ClientCertificate {
            sha1: "A".repeat(40),
            sha256: "B".repeat(64),
            ..ClientCertificate::default()
        };
        let authentication = Authentication::SelfSigned { primary: prints.sha1.clone(), secondary: None };
        let identity = DeviceIdentity::new("d", "1".to_owned(), authentication).unwrap();
        worker.with(|core, _| core.hub.insert(DeviceRecord::new(identity)).unwrap());

        let (mut device, socket) = tokio::io::duplex(1024);
        let link = worker.open(worker.engine.clock.now(), Some(Box::new(prints))).unwrap();
        let mut connection = Connection {
            worker,
            link,
            peer: ([127, 0, 0, 1], 1).into(),
            transport: Stream::new(socket),
            rx: Vec::new(),
            rx_start: 0,
            rx_is_lent: false,
            tx: Vec::new(),
            is_broken: false,
        };
        device.write_all(CONNECT).await.unwrap();
        assert!(matches!(connection.wait(true, false).await, Happening::Received));
        assert!(matches!(connection.pull(), Turn::Wait(_)));
        connection.transmit().unwrap();

        device.write_all(PINGREQ).await.unwrap();
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(!matches!(connection.time_out(), Turn::End(_)), "PINGREQ was there");
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(matches!(connection.time_out(), Turn::End(_)), "nothing was there");
    }
}
