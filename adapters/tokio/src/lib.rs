//! A device of Azure IoT Hub on tokio and rustls: one future, no spawned task.
//!
//! ```no_run
//! use devicebound::Device;
//! use devicebound::device::{DeviceConfig, Message};
//! use devicebound_tokio::{Client, Tls};
//! use tokio::time::{Duration, interval};
//!
//! async fn run(connection_string: &str) -> Result<(), Box<dyn std::error::Error>> {
//!     let config = DeviceConfig::from_connection_string(connection_string)?;
//!     let mut client = Client::new(Device::new(config)?, Tls::system()?);
//!     let mut minute = interval(Duration::from_secs(60));
//!     loop {
//!         tokio::select! {
//!             _ = minute.tick() => {
//!                 // After hours offline the outbox is full; OutboxPolicy::DropOldest would keep the newest instead.
//!                 if let Err(full) = client.device().telemetry(Message::new(b"21.5")) {
//!                     eprintln!("{full}");
//!                 }
//!             }
//!             _ = client.wait() => {
//!                 let (device, mut incoming) = client.split();
//!                 while let Some(next) = incoming.next(device) {
//!                     match next {
//!                         Ok(action) => println!("{action:?}"),
//!                         Err(offline) => eprintln!("{offline}"), // the client connects again by itself
//!                     }
//!                 }
//!             }
//!         }
//!     }
//! }
//! ```
//!
//! [`Tls`] says how the hub is reached: MQTT over TLS (port 8883), or over WebSocket where a network lets only HTTPS out
//! (port 443), each through an HTTP proxy if need be:
//! `Tls::system()?.with_websocket().with_proxy("http://user:password@proxy:3128")?`.
//!
//! [`Client::wait`] does all the I/O; [`Client::split`] lends the device and the actions that were received. Both futures
//! of a client may be dropped at any time and made again, as `select!` does: what was under way stands in the client, the
//! opening of a connection included, so that no byte is lost and no handshake starts over. There is no task, no channel
//! and no lock; only a host name is resolved by tokio's own pool.
//!
//! What has no socket in it comes from `devicebound-client`: the device with its clock ([`Machine`]), the receive buffer,
//! [`Tls`] and the transport.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use devicebound::Device;
use devicebound::device::Action;
use devicebound_client::{Outgoing, Received, Step};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

mod provision;
mod socket;

pub use devicebound_client::{
    Incoming, MQTT_PORT, Machine, Offline, ProvisionError, ProxyError, Tls, TlsError, TransportError,
    WEBSOCKET_PORT,
};
pub use socket::TlsSocket;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// How long the opening of a transport may take.
const CONNECT_TIME: Duration = Duration::from_secs(30);
/// How long a parting takes at most: to write what is left, and to see the hub's end.
const PARTING_TIME: Duration = Duration::from_secs(2);

/// A transport that is being opened.
pub type Opening<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

type Connector<S> = Box<dyn FnMut(&str) -> Opening<S> + Send>;

/// A device on a socket.
pub struct Client<S> {
    machine: Machine,
    rx: Received,
    link: Link<S>,
    connect: Connector<S>,
}

/// What the client has of a transport.
enum Link<S> {
    None,
    Opening(Opening<S>),
    Open(S),
    /// Until then, what is left is written and the peer's end is waited for.
    Parting(S, Instant),
}

impl Client<TlsSocket> {
    /// A device that connects by TLS, in the way that `tls` says.
    #[must_use]
    pub fn new(device: Device, tls: Tls) -> Self {
        Self::over(device, move |host| Box::pin(TlsSocket::connect(host.to_owned(), tls.clone())))
    }

    /// Connects in another way from the next connection on: with a newer certificate, for example. The connection that
    /// there is ends when nothing is in flight, after [`Machine::replace_credential`].
    pub fn replace_tls(&mut self, tls: Tls) {
        self.connect = Box::new(move |host| Box::pin(TlsSocket::connect(host.to_owned(), tls.clone())));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Client<S> {
    /// A device on any socket; `connect` opens one to the host that it is given. It is given up after 30 seconds.
    pub fn over(device: Device, connect: impl FnMut(&str) -> Opening<S> + Send + 'static) -> Self {
        let machine = Machine::new(device, || Instant::now().into_std());
        Self { machine, rx: Received::default(), link: Link::None, connect: Box::new(connect) }
    }

    /// The device, to ask for something.
    pub const fn device(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// The device and what was received. To be taken until there is no more, after each [`wait`](Self::wait).
    pub fn split(&mut self) -> (&mut Machine, Incoming<'_>) {
        (&mut self.machine, self.rx.actions())
    }

    /// Writes, reads, connects and watches the time, until there may be something to take; at once where something was
    /// not taken yet.
    ///
    /// False when the application has disconnected, and there is nothing more to wait for until [`Machine::connect`].
    pub async fn wait(&mut self) -> bool {
        loop {
            match self.machine.step() {
                Step::Pull => return true,
                Step::Nothing => break,
                Step::Pause(at) => {
                    sleep_until(at.into()).await;
                    self.machine.timed_out();
                }
                Step::Connect(at) => self.open(at.into()).await,
                Step::Exchange(deadline) => self.exchange(deadline.into()).await,
                Step::Close => self.part().await,
            }
        }
        self.link = Link::None; // which may still be opening
        false
    }

    /// Goes on until the hub has acknowledged all telemetry and answered all requests, at most for `time`; whether it has.
    /// What is received meanwhile is given to `hear`, as in a loop over [`split`](Self::split).
    pub async fn flush(
        &mut self,
        time: Duration,
        mut hear: impl FnMut(&mut Machine, Result<Action<'_>, Offline>),
    ) -> bool {
        let mut end = pin!(sleep(time));
        loop {
            let (machine, mut incoming) = self.split();
            while let Some(next) = incoming.next(machine) {
                hear(machine, next);
            }
            drop(incoming);
            if self.machine.is_flushed() {
                return true;
            }
            let mut wait = pin!(self.wait());
            let goes_on = poll_fn(|cx| match end.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(false),
                Poll::Pending => wait.as_mut().poll(cx),
            });
            if !goes_on.await {
                return false;
            }
        }
    }

    /// Disconnects: writes what is left and closes the connection, within two seconds. PUBACKs that come meanwhile count;
    /// they can be taken by [`split`](Self::split). What was not acknowledged stays in the outbox: [`flush`](Self::flush) first
    /// where it shall not. The client can connect again: [`Machine::connect`].
    pub async fn close(&mut self) {
        self.machine.disconnect();
        self.part().await;
    }

    /// The device, for another client: with other certificates, or another kind of socket. [`close`](Self::close) and take
    /// what is left first, or the connection is lost, and with it what was not taken.
    #[must_use]
    pub fn into_device(self) -> Device {
        self.machine.into_device()
    }

    async fn open(&mut self, at: Instant) {
        if !matches!(self.link, Link::Opening(_)) {
            sleep_until(at).await;
            let opening = (self.connect)(self.machine.config().network_host());
            self.link = Link::Opening(Box::pin(async {
                timeout(CONNECT_TIME, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }));
        }
        let Link::Opening(opening) = &mut self.link else { return };
        match opening.await {
            Ok(socket) => {
                self.rx.clear();
                self.link = Link::Open(socket);
                self.machine.opened();
            }
            Err(error) => self.lose(Some(error)),
        }
    }

    /// Writes and reads until something was read, or `deadline` has come and nothing was there.
    async fn exchange(&mut self, deadline: Instant) {
        let Self { machine, rx, link: Link::Open(socket), .. } = self else { return self.lose(None) };
        let mut alarm = pin!(sleep_until(deadline));
        let exchanged = poll_fn(|cx| {
            let written = loop {
                let written = poll_write(socket, machine, cx);
                if machine.step() == Step::Pull {
                    return Poll::Ready(Ok(()));
                }
                // The machine may have had more than it writes at a time.
                if !matches!(written, Poll::Ready(Ok(()))) || machine.outgoing().is_empty() {
                    break written;
                }
            };
            match poll_read(socket, rx.room(), cx)? {
                Poll::Ready(length) => {
                    rx.fill(length);
                    machine.received();
                    Poll::Ready(Ok(()))
                }
                // What had arrived when the write failed was read first.
                Poll::Pending => match written {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    _ => alarm.as_mut().poll(cx).map(|()| {
                        machine.timed_out();
                        Ok(())
                    }),
                },
            }
        });
        if let Err(error) = exchanged.await {
            self.lose(Some(error));
        }
    }

    async fn part(&mut self) {
        let end = Instant::now() + PARTING_TIME;
        self.link = match std::mem::replace(&mut self.link, Link::None) {
            Link::Open(socket) => Link::Parting(socket, end),
            Link::Parting(socket, end) => Link::Parting(socket, end),
            Link::None | Link::Opening(_) => Link::None,
        };
        if let Link::Parting(socket, end) = &mut self.link {
            // The connection is over: nothing depends on how the transport ends.
            let _ = timeout_at(*end, part(socket, &mut self.machine, &mut self.rx)).await;
        }
        self.lose(None);
    }

    fn lose(&mut self, error: Option<io::Error>) {
        self.link = Link::None;
        self.rx.clear();
        self.machine.closed(error);
    }
}

impl<S> fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("machine", &self.machine).finish_non_exhaustive()
    }
}

/// Writes what waits; ready when that was all.
fn poll_write<S: AsyncWrite + Unpin>(
    socket: &mut S,
    machine: &mut impl Outgoing,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !machine.outgoing().is_empty() {
        match ready!(Pin::new(&mut *socket).poll_write(cx, machine.outgoing()))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            length => machine.written(length),
        }
    }
    Pin::new(socket).poll_flush(cx)
}

fn poll_read<S: AsyncRead + Unpin>(
    socket: &mut S,
    room: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut room = ReadBuf::new(room);
    ready!(Pin::new(socket).poll_read(cx, &mut room))?;
    match room.filled().len() {
        0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        length => Poll::Ready(Ok(length)),
    }
}

/// Writes what is left and says that it was all, then waits for the peer's end: a socket that is closed with bytes unread
/// is reset, and what was written last is lost with it.
async fn part<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    machine: &mut Machine,
    rx: &mut Received,
) -> io::Result<()> {
    machine.received_last(rx);
    let mut is_shut_down = false;
    poll_fn(|cx| {
        if !is_shut_down && poll_write(socket, machine, cx)?.is_ready() {
            is_shut_down = Pin::new(&mut *socket).poll_shutdown(cx)?.is_ready();
        }
        // A peer that does not read may wait for being read. Its end is an error, and ends this.
        loop {
            let length = ready!(poll_read(socket, rx.room(), cx))?;
            rx.fill(length);
            machine.received_last(rx);
        }
    })
    .await
}
