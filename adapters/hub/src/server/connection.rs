//! One connection: its bytes through the machine and back, until it is over.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use devicebound::Rule;
use devicebound::explain::Sender;
use devicebound::hub::{self, Event, Wait};
use devicebound::packet::{Decoded, decode};
use devicebound::provisioning::is_for_provisioning;
use devicebound::session::{Close, CloseReason};
use devicebound::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_local;
use tokio::time::Sleep;

use crate::engine::Engine;
use crate::engine::signal::{Call, Link, Origin};
use crate::engine::worker::{Turn, Worker};
use crate::observe::observers::Ended;
use crate::observe::view::{View, Who};
use crate::observe::wording;
use crate::provisioning::{Provisioning, mqtt};
use crate::transport::guarded::{LINGER_BYTES, LINGER_TIME, WRITE_TIME};
use crate::transport::tls::TlsPeer;
use crate::transport::websocket::FrameError;
use crate::transport::{Stream, Transport};

/// A connection that no worker has yet.
struct Arrival<P> {
    transport: P,
    peer: SocketAddr,
    /// What the TLS handshake told of the client.
    tls: Option<Box<TlsPeer>>,
    /// What it has said already.
    rx: Vec<u8>,
    /// When the transport was there.
    began: Instant,
    /// The provisioning service that it may turn out to be for.
    provisioning: Option<Arc<Provisioning>>,
}

/// Serves a connection over any stream of bytes, on a worker, until its end. `tls` is what the handshake told of the client.
pub fn adopt<S>(
    engine: &Engine,
    socket: S,
    peer: SocketAddr,
    tls: Option<TlsPeer>,
    provisioning: Option<Arc<Provisioning>>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    engine.observers().opened();
    let transport = Stream::new(socket);
    let tls = tls.map(Box::new);
    let began = engine.clock.now();
    let arrival = Arrival { transport, peer, tls, rx: Vec::new(), began, provisioning };
    engine.send(engine.any_place(), |worker| take_over::<Stream<S>>(worker, arrival));
}

/// Serves a connection on this worker, or on the one that it turns out to belong to. `rx` is what has arrived already, and
/// `began` when it was accepted, from where the time to CONNECT counts.
pub(crate) async fn serve<T: Transport>(
    worker: Rc<Worker>,
    transport: T,
    peer: SocketAddr,
    tls: Option<TlsPeer>,
    rx: Vec<u8>,
    began: Instant,
    provisioning: Option<Arc<Provisioning>>,
) {
    worker.engine.observers().opened();
    run(worker, Arrival { transport, peer, tls: tls.map(Box::new), rx, began, provisioning }).await;
}

fn take_over<T: Transport>(worker: &Rc<Worker>, arrival: Arrival<T::Parked>) {
    let Arrival { transport, peer, tls, rx, began, provisioning } = arrival;
    // What cannot be taken over has hung up.
    let Ok(transport) = T::resume(transport) else { return };
    let worker = Rc::clone(worker);
    spawn_local(run(worker, Arrival { transport, peer, tls, rx, began, provisioning }));
}

async fn run<T: Transport>(worker: Rc<Worker>, arrival: Arrival<T>) {
    let Arrival { transport, peer, tls, rx, began, provisioning } = arrival;
    let Ok(link) = worker.open(began, tls, Origin { peer, protocol: T::PROTOCOL }) else {
        return worker.engine.observers().turned_away(peer, CloseReason::Ended(Rule::ThrottledConnect));
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
        stalled: None,
        provisioning,
    };
    match connection.run().await {
        End::Closed(close) => {
            connection.report(&close);
            connection.worker.close(&connection.link, close.reason());
            connection.give_back_rx();
            // What was said last, a CONNACK that refuses for one, should arrive; a client that does not listen is not
            // waited for.
            let _ = tokio::time::timeout(LINGER_TIME, connection.part()).await;
        }
        End::Moves(place) => connection.moves(place),
        End::Provisions(service) => {
            let rx = connection.unread().to_vec();
            connection.give_back_rx();
            let Connection { worker, link, peer, transport, .. } = connection;
            worker.close(&link, CloseReason::Lost);
            let chain = link.tls.as_ref().and_then(|tls| tls.chain());
            drop(link);
            mqtt::serve(service, mqtt::Connection { worker, transport, peer, chain, rx, began }).await;
        }
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
    /// Only while the client takes nothing of what is written to it.
    stalled: Option<Stalled>,
    /// The provisioning service that it may turn out to be for.
    provisioning: Option<Arc<Provisioning>>,
}

/// A client that takes nothing: how much it had taken, and until when it may go on so.
struct Stalled {
    taken: u64,
    until: Pin<Box<Sleep>>,
}

/// Why a worker is done with a connection.
enum End {
    Closed(Close),
    /// Another worker has the device.
    Moves(usize),
    /// It belongs to the provisioning service.
    Provisions(Arc<Provisioning>),
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
                && is_for_provisioning(self.unread())
                && let Some(service) = self.provisioning.take()
            {
                return End::Provisions(service);
            }
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
        let turn = worker.pull(link, &mut rest, tx, |packet, is_stray| {
            if watched {
                packets.push((packet, is_stray));
            }
        });
        if !was_known && let Some(sender) = &link.sender {
            let client_id = sender.client_id();
            let who = Who { client_id: Some(&client_id), peer: *peer };
            worker.engine.observers().connected(who, sender, link.signal.sdk_version());
        }
        if watched {
            let client_id = link.client_id();
            let who = Who { client_id: client_id.as_deref(), peer: *peer };
            for (packet, is_stray) in packets {
                if is_stray {
                    view.stray_acknowledgement(who, packet);
                } else {
                    view.packet(who, Sender::Device, packet);
                }
            }
            show_sent(view, who, tx.get(written..).unwrap_or_default());
        }
        warn(worker, link, *peer);
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
            match self.poll_send(cx) {
                Poll::Ready(()) if report_written => return Poll::Ready(Happening::Written),
                Poll::Ready(()) => self.stalled = None,
                Poll::Pending if self.poll_stalled(cx).is_ready() => {
                    return Poll::Ready(Happening::Ended(CloseReason::TimedOut(Rule::SlowReader)));
                }
                Poll::Pending => {}
            }
            if reads
                && self.worker.has_room(cx)
                && let Poll::Ready(read) = self.poll_read(cx)
            {
                return Poll::Ready(match read {
                    Ok(1..) => Happening::Received,
                    Ok(0) => Happening::Ended(CloseReason::Lost),
                    Err(error) if is_frame_error(&error) => {
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

    /// Ready when the client has taken nothing for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let taken = self.transport.taken();
        let stalled = self.stalled.take_if(|stalled| stalled.taken == taken);
        let until = || Box::pin(tokio::time::sleep(WRITE_TIME));
        let stalled = self.stalled.insert(stalled.unwrap_or_else(|| Stalled { taken, until: until() }));
        stalled.until.as_mut().poll(cx)
    }

    /// Writes what is left, says that no more will come, and throws away what the client still sends: a socket that is
    /// closed over unread bytes is reset, and the client might never see the CONNACK that says why (RFC 1122 §4.2.2.13).
    async fn part(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx)).await;
        poll_fn(|cx| self.transport.poll_close(cx, &mut self.worker.buffers.borrow_mut())).await?;
        let mut left = LINGER_BYTES;
        while left > 0 {
            let read = poll_fn(|cx| self.poll_read(cx)).await?;
            self.give_back_rx();
            if read == 0 {
                break;
            }
            left = left.saturating_sub(read);
        }
        Ok(())
    }

    /// Hands the connection to the worker that has the device.
    fn moves(mut self, place: usize) {
        let rx = self.unread().to_vec();
        self.give_back_rx();
        let Self { worker, link, peer, transport, provisioning, .. } = self;
        worker.close(&link, CloseReason::Lost);
        // What cannot be moved has hung up.
        let Ok(transport) = transport.park() else { return };
        let Link { tls, began, .. } = link;
        let arrival = Arrival { transport, peer, tls, rx, began, provisioning };
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
        let end = wording::End {
            close,
            offending: self.unread().get(close.offending()).unwrap_or_default(),
            comparison: self.link.comparison.as_ref(),
        };
        let auth_type = self.link.sender.as_ref().map(|sender| sender.auth_method());
        let ended = Ended {
            is_known: self.link.is_known(),
            auth_type: auth_type.as_deref(),
            sdk_version: self.link.signal.sdk_version(),
        };
        self.worker.engine.observers().closed(who, ended, end);
    }
}

fn is_frame_error(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<FrameError>())
}

/// Tells what the machine has warned of.
fn warn(worker: &Worker, link: &mut Link, peer: SocketAddr) {
    if link.warnings.is_empty() {
        return;
    }
    let name = link.name();
    let who = Who { client_id: name.as_deref(), peer };
    for warning in mem::take(&mut link.warnings) {
        worker.engine.observers().warned(who, &warning);
    }
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
    use std::time::Duration;

    use devicebound::hub::{Authentication, ClientCertificate, DeviceIdentity, DeviceRecord, HubConfig};
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
        let worker = parts.workers.remove(0).build().0;
        let prints = ClientCertificate {
            sha1: "A".repeat(40),
            sha256: "B".repeat(64),
            ..ClientCertificate::default()
        };
        let authentication = Authentication::SelfSigned { primary: prints.sha1.clone(), secondary: None };
        let identity = DeviceIdentity::new("d", "1".to_owned(), authentication).unwrap();
        worker.with(|core, _| core.hub.insert(DeviceRecord::new(identity)).unwrap());

        let (mut device, socket) = tokio::io::duplex(1024);
        let tls = TlsPeer { certificate: Some(prints.into()), server_name: None };
        let origin = Origin { peer: ([127, 0, 0, 1], 1).into(), protocol: "MQTT" };
        let link = worker.open(worker.engine.clock.now(), Some(Box::new(tls)), origin).unwrap();
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
            stalled: None,
            provisioning: None,
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
