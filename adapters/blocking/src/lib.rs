//! A device of Azure IoT Hub on blocking sockets and rustls: one thread, no runtime.
//!
//! ```no_run
//! use devicebound::Device;
//! use devicebound::device::{Action, DeviceConfig, Message};
//! use devicebound::iothub::Subscription;
//! use devicebound_blocking::{Client, Tls};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let config = DeviceConfig::from_connection_string(&std::env::var("CONNECTION_STRING")?)?;
//!     let mut client = Client::new(Device::new(config)?, Tls::system()?);
//!     client.device().subscribe(Subscription::Methods)?;
//!     client.device().telemetry(Message::new(b"hello"))?;
//!     while client.wait() {
//!         let (device, mut incoming) = client.split();
//!         while let Some(next) = incoming.next(device) {
//!             match next {
//!                 Ok(Action::Invoke(call)) => drop(device.respond(call.id, 200, b"{}")), // its caller may be gone
//!                 Ok(action) => println!("{action:?}"),
//!                 Err(offline) => eprintln!("{offline}"), // the client connects again by itself
//!             }
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! [`Tls`] says how the hub is reached: MQTT over TLS (port 8883), or over WebSocket where a network lets only HTTPS out
//! (port 443), each through an HTTP proxy if need be:
//! `Tls::system()?.with_websocket().with_proxy("http://user:password@proxy:3128")?`.
//!
//! [`Client::wait`] does all the I/O, in the caller's thread; [`Client::split`] lends the device and the actions that were
//! received. Nothing else runs: no thread, no channel. Another thread that wants something sent hands it over in whatever way
//! it likes, and ends the `wait` by the [`Client::waker`]. No call waits for ever on a peer that does not read or does not
//! write. [`Socket`] is all that the client asks of its socket, and [`Client::over`] takes any.
//!
//! What has no socket in it comes from `devicebound-client`: the device with its clock ([`Machine`]), the receive buffer, [`Tls`]
//! and the transport.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod alarm;
mod provision;
mod socket;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use devicebound::Device;
use devicebound::device::Action;
use devicebound_client::{Outgoing, Received, Step};

pub use devicebound_client::{
    Incoming, MQTT_PORT, Machine, Offline, ProvisionError, ProxyError, Tls, TlsError, TransportError,
    WEBSOCKET_PORT,
};
pub use socket::{Socket, TlsSocket};

use alarm::Alarm;
use socket::TICK;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// How long a parting takes at most: to write what is left, and to see the hub's end.
const PARTING_TIME: Duration = Duration::from_secs(2);

type Connector<S> = Box<dyn FnMut(&str) -> io::Result<S> + Send>;

/// A device on a socket.
pub struct Client<S> {
    machine: Machine,
    rx: Received,
    socket: Option<S>,
    connect: Connector<S>,
    alarm: Arc<Alarm>,
}

impl Client<TlsSocket> {
    /// A device that connects by TLS, in the way that `tls` says.
    #[must_use]
    pub fn new(device: Device, tls: Tls) -> Self {
        Self::over(device, move |host| TlsSocket::connect(host, &tls))
    }

    /// Connects in another way from the next connection on: with a newer certificate, for example. The connection that
    /// there is ends when nothing is in flight, after [`Machine::replace_credential`].
    pub fn replace_tls(&mut self, tls: Tls) {
        self.connect = Box::new(move |host| TlsSocket::connect(host, &tls));
    }
}

impl<S: Socket> Client<S> {
    /// A device on any socket; `connect` opens one to the host that it is given, in bounded time.
    pub fn over(device: Device, connect: impl FnMut(&str) -> io::Result<S> + Send + 'static) -> Self {
        let machine = Machine::new(device, Instant::now);
        let (rx, alarm) = (Received::default(), Arc::default());
        Self { machine, rx, socket: None, connect: Box::new(connect), alarm }
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
    pub fn wait(&mut self) -> bool {
        self.wait_until(None)
    }

    /// [`wait`](Self::wait), but not much longer than `timeout`. Only to make a TCP connection may take up to 30 s.
    pub fn wait_timeout(&mut self, timeout: Duration) -> bool {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    /// What ends a [`wait`](Self::wait) from another thread: the present one, or the next. For a thread that has something
    /// for this one to send. Opening a TCP connection is not cut short.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Arc::clone(&self.alarm).into()
    }

    /// Goes on until the hub has acknowledged all telemetry and answered all requests, at most for `timeout`; whether it has.
    /// What is received meanwhile is given to `hear`, as in a loop over [`split`](Self::split).
    pub fn flush(
        &mut self,
        timeout: Duration,
        mut hear: impl FnMut(&mut Machine, Result<Action<'_>, Offline>),
    ) -> bool {
        let end = Instant::now().checked_add(timeout);
        loop {
            let (machine, mut incoming) = self.split();
            while let Some(next) = incoming.next(machine) {
                hear(machine, next);
            }
            drop(incoming);
            if self.machine.is_flushed() {
                return true;
            }
            if end.is_some_and(has_come) || !self.wait_for_machine(end) {
                return false;
            }
        }
    }

    /// Disconnects: writes what is left and closes the connection, within two seconds. PUBACKs that come meanwhile count;
    /// they can be taken by [`split`](Self::split). What was not acknowledged stays in the outbox: [`flush`](Self::flush) first
    /// where it shall not. The client can connect again: [`Machine::connect`].
    pub fn close(&mut self) {
        self.machine.disconnect();
        self.part();
    }

    /// The device, for another client: with other certificates, or another kind of socket. [`close`](Self::close) and take
    /// what is left first, or the connection is lost, and with it what was not taken.
    #[must_use]
    pub fn into_device(self) -> Device {
        self.machine.into_device()
    }

    fn wait_until(&mut self, limit: Option<Instant>) -> bool {
        self.alarm.take() || self.wait_for_machine(limit)
    }

    fn wait_for_machine(&mut self, limit: Option<Instant>) -> bool {
        loop {
            match self.machine.step() {
                Step::Pull => return true,
                Step::Nothing => return false,
                Step::Pause(at) => self.pause(at, limit),
                Step::Connect(at) => self.connect(at, limit),
                Step::Exchange(deadline) => self.exchange(deadline, limit),
                Step::Close => self.part(),
            }
            if limit.is_some_and(has_come) || self.alarm.take() {
                return true;
            }
        }
    }

    fn pause(&mut self, at: Instant, limit: Option<Instant>) {
        self.alarm.sleep(left(at, limit));
        if has_come(at) {
            self.machine.timed_out();
        }
    }

    fn connect(&mut self, at: Instant, limit: Option<Instant>) {
        self.alarm.sleep(left(at, limit));
        if !has_come(at) {
            return;
        }
        match (self.connect)(self.machine.config().network_host()) {
            Ok(socket) => {
                self.rx.clear();
                self.alarm.set_socket(socket.waker());
                self.socket = Some(socket);
                self.machine.opened();
            }
            Err(error) => self.lose(Some(error)),
        }
    }

    /// Writes once and reads once. A peer that does not take all of it is read from all the same: it may wait for that.
    fn exchange(&mut self, deadline: Instant, limit: Option<Instant>) {
        let Some(socket) = &mut self.socket else { return self.lose(None) };
        let written = loop {
            let written = write(socket, &mut self.machine);
            if self.machine.step() == Step::Pull {
                return;
            }
            // The machine may have had more than it writes at a time.
            if !matches!(written, Ok(true)) || self.machine.outgoing().is_empty() {
                break written;
            }
        };
        let left = self.alarm.patience(left(deadline, limit));
        let patience = if matches!(written, Ok(true)) { left } else { left.min(TICK) };
        let read = socket.set_read_timeout(patience).and_then(|()| read(socket, self.rx.room()));
        match (read, written) {
            (Ok(Some(length)), _) => {
                self.rx.fill(length);
                self.machine.received();
            }
            // What had arrived when a write failed was read first.
            (Err(error), _) | (Ok(None), Err(error)) => self.lose(Some(error)),
            (Ok(None), Ok(_)) if has_come(deadline) => self.machine.timed_out(),
            (Ok(None), Ok(_)) => {}
        }
    }

    fn part(&mut self) {
        if let Some(mut socket) = self.socket.take() {
            // The connection is over: nothing depends on how the transport ends.
            let _ = part(&mut socket, &mut self.machine, &mut self.rx);
        }
        self.lose(None);
    }

    fn lose(&mut self, error: Option<io::Error>) {
        self.socket = None;
        self.alarm.set_socket(None);
        self.rx.clear();
        self.machine.closed(error);
    }
}

impl<S> fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("machine", &self.machine).finish_non_exhaustive()
    }
}

/// Writes what waits, as far as the peer takes it; whether that was all.
fn write(socket: &mut impl Socket, machine: &mut impl Outgoing) -> io::Result<bool> {
    while unless_idle(socket.flush())?.is_some() {
        if machine.outgoing().is_empty() {
            return Ok(true);
        }
        match unless_idle(socket.write(machine.outgoing()))? {
            None | Some(0) => break,
            Some(length) => machine.written(length),
        }
    }
    Ok(false)
}

/// Reads what is there; `None` when nothing came in time.
fn read(socket: &mut impl Socket, room: &mut [u8]) -> io::Result<Option<usize>> {
    match socket.read(room) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
        result => unless_idle(result),
    }
}

/// Writes what is left and says that it was all, then waits for the peer's end: a socket that is closed with bytes unread
/// is reset, and what was written last is lost with it.
fn part(socket: &mut impl Socket, machine: &mut Machine, rx: &mut Received) -> io::Result<()> {
    let end = Instant::now() + PARTING_TIME;
    machine.received_last(rx);
    while !write(socket, machine)? && !has_come(end) {
        // A peer that does not read may wait for being read.
        read_last(socket, machine, rx, TICK)?;
    }
    while !shut_down(socket)? && !has_come(end) {
        read_last(socket, machine, rx, TICK)?;
    }
    while !has_come(end) {
        read_last(socket, machine, rx, left(end, None))?;
    }
    Ok(())
}

/// Whether all was written before.
fn shut_down(socket: &mut impl Socket) -> io::Result<bool> {
    unless_idle(socket.shut_down()).map(|done| done.is_some())
}

/// Reads what comes after the connection is over.
fn read_last(
    socket: &mut impl Socket,
    machine: &mut Machine,
    rx: &mut Received,
    patience: Duration,
) -> io::Result<()> {
    socket.set_read_timeout(patience)?;
    if let Some(length) = read(socket, rx.room())? {
        rx.fill(length);
        machine.received_last(rx);
    }
    Ok(())
}

fn has_come(at: Instant) -> bool {
    at <= Instant::now()
}

/// The time until `at`, or until `limit` where that comes first.
fn left(at: Instant, limit: Option<Instant>) -> Duration {
    limit.map_or(at, |limit| limit.min(at)).saturating_duration_since(Instant::now())
}

/// `None` where the call could not go on for now.
fn unless_idle<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}
