//! The device machine with a clock, and what it wants done by whoever has the socket.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant as StdInstant};

use devicebound::device::{
    Action, CallId, CompleteError, ConfigError, ConnectionState, Credential, Delivery, DesiredProperties,
    Device, DeviceConfig, Event, Message, PreparedProperties, RequestError, RequestId, RespondError, Save,
    SendError, Status, Ticket, Wait,
};
use devicebound::iothub::{CertificateChain, CertificateRequest, Subscription};
use devicebound::session::Close;
use devicebound::time::Instant;

use crate::clock::{self, Clock};
use crate::failure::TransportError;
use crate::received::{Incoming, Received};

/// How long a timer may be late so that what has arrived in time is read first. A hub that never pauses cannot hold it up
/// any longer.
const GRACE: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Offline {
    /// The connection is over.
    #[error(transparent)]
    Closed(#[from] Close),
    /// The transport could not be opened, or broke: no such host, refused, certificate not trusted, reset.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// What the owner of the socket is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Let the application take actions: there may be some.
    Pull,
    /// Say [`Machine::timed_out`] at this time.
    Pause(StdInstant),
    /// Open a transport at this time, then say [`Machine::opened`] or [`Machine::closed`].
    Connect(StdInstant),
    /// Write what is [outgoing](Outgoing) and read; say [`Machine::timed_out`] at this time, if nothing was there to be read.
    Exchange(StdInstant),
    /// Write what is [outgoing](Outgoing), close the transport, say [`Machine::closed`].
    Close,
    /// Nothing: the application has disconnected.
    Nothing,
}

/// What has bytes to be written.
pub trait Outgoing {
    /// Bytes to be written, in order.
    fn outgoing(&self) -> &[u8];

    /// The first `length` of [`outgoing`](Self::outgoing) were written.
    fn written(&mut self, length: usize);
}

impl Outgoing for Machine {
    fn outgoing(&self) -> &[u8] {
        &self.tx
    }

    fn written(&mut self, length: usize) {
        self.tx.drain(..self.tx.len().min(length));
        if self.tx.is_empty() && matches!(self.step, Next::Wait(Wait::Flush)) {
            self.step = Next::Asked;
        }
    }
}

/// A [`Device`] with a clock and the bytes that it wants written: what an application talks to.
///
/// The first methods are those of `Device`, with the time filled in. The rest is for whoever has the socket.
#[derive(Debug)]
pub struct Machine {
    device: Device,
    clock: Clock,
    tx: Vec<u8>,
    /// Why the transport failed, until the application has heard it.
    error: Option<TransportError>,
    /// What events gave, until the application has taken it.
    told: VecDeque<Result<Action<'static>, Close>>,
    step: Next,
    /// Since when a timer waits for what has arrived to be read.
    late_since: Option<Instant>,
}

/// What the machine said last.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// Nothing since bytes were received.
    Unknown,
    /// Nothing since it was called, but what was received was taken before.
    Asked,
    Wait(Wait),
    /// The machine wants to connect, at this time.
    Connect(Instant),
    /// The connection is over, and the application has heard it.
    Close,
}

impl Machine {
    /// See [`Device::telemetry`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn telemetry(&mut self, message: Message<'_>) -> Result<Ticket, SendError> {
        self.call(|device, now, tx| device.telemetry(now, message, tx))
    }

    /// See [`Device::telemetry_with`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn telemetry_with(
        &mut self,
        properties: &PreparedProperties,
        payload: &[u8],
    ) -> Result<Ticket, SendError> {
        self.call(|device, now, tx| device.telemetry_with(now, properties, payload, tx))
    }

    /// See [`Device::waits`].
    #[must_use]
    pub fn waits(&self, ticket: Ticket) -> bool {
        self.device.waits(ticket)
    }

    /// See [`Device::snapshot`]. [`Device::restore`] makes a device from it, and that a client. What `telemetry` has taken is
    /// written by the client's next `wait`: save before that, and a crash loses nothing.
    pub fn snapshot(&self, out: &mut Vec<u8>) {
        self.device.snapshot(out);
    }

    /// See [`Device::save`]: a [`snapshot`](Self::snapshot) that is not written as a whole each time.
    pub fn save(&mut self, out: &mut Vec<u8>) -> Save {
        self.device.save(out)
    }

    /// See [`Device::save_all`].
    pub fn save_all(&mut self) {
        self.device.save_all();
    }

    /// See [`Device::telemetry_at_most_once`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn telemetry_at_most_once(&mut self, message: Message<'_>) -> Result<(), SendError> {
        self.call(|device, _, tx| device.telemetry_at_most_once(message, tx))
    }

    /// See [`Device::complete`].
    ///
    /// # Errors
    /// [`CompleteError`].
    pub fn complete(&mut self, delivery: Delivery) -> Result<(), CompleteError> {
        self.call(|device, _, tx| device.complete(delivery, tx))
    }

    /// See [`Device::respond`].
    ///
    /// # Errors
    /// [`RespondError`].
    pub fn respond(&mut self, call: CallId, status: i32, payload: &[u8]) -> Result<(), RespondError> {
        self.call(|device, now, tx| device.respond(now, call, status, payload, tx))
    }

    /// See [`Device::get_twin`].
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn get_twin(&mut self) -> Result<RequestId, RequestError> {
        self.call(|device, now, tx| device.get_twin(now, tx))
    }

    /// See [`Device::report`].
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn report(&mut self, patch: &[u8], if_version: Option<u64>) -> Result<RequestId, RequestError> {
        self.call(|device, now, tx| device.report(now, patch, if_version, tx))
    }

    /// See [`Device::subscribe`].
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn subscribe(&mut self, subscription: Subscription) -> Result<(), RequestError> {
        self.call(|device, now, tx| device.subscribe(now, subscription, tx))
    }

    /// See [`Device::follow_desired`].
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn follow_desired(&mut self) -> Result<(), RequestError> {
        self.call(|device, now, tx| device.follow_desired(now, tx))
    }

    /// See [`Device::desired`].
    #[must_use]
    pub fn desired(&self) -> Option<&DesiredProperties> {
        self.device.desired()
    }

    /// See [`Device::unsubscribe`].
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn unsubscribe(&mut self, subscription: Subscription) -> Result<(), RequestError> {
        self.call(|device, now, tx| device.unsubscribe(now, subscription, tx))
    }

    /// See [`Device::replace_credential`].
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn replace_credential(&mut self, credential: Credential) -> Result<(), ConfigError> {
        self.call(|device, now, _| device.replace_credential(now, credential))
    }

    /// See [`Device::request_certificate`].
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn request_certificate(&mut self, request: CertificateRequest) -> Result<(), RequestError> {
        self.call(|device, now, tx| device.request_certificate(now, request, tx))
    }

    /// See [`Device::plan_certificate_renewal`].
    pub fn plan_certificate_renewal(&mut self, chain: &CertificateChain) {
        self.call(|device, now, _| device.plan_certificate_renewal(now, clock::unix_time(), chain));
    }

    /// See [`Device::connect`]: connects again after [`disconnect`](Self::disconnect), or before a delay is over.
    pub fn connect(&mut self) {
        self.call(|device, now, tx| device.connect(now, tx));
    }

    /// See [`Device::disconnect`].
    pub fn disconnect(&mut self) {
        self.call(|device, now, tx| device.disconnect(now, tx));
    }

    /// See [`Device::tickets`].
    pub fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.device.tickets()
    }

    /// Whether nothing is on its way to the hub any more: all telemetry is acknowledged, all requests are answered, and the
    /// rest is written.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        let status = self.device.status();
        status.queued == 0 && status.requests == 0 && self.tx.is_empty()
    }

    /// See [`Device::status`].
    #[must_use]
    pub fn status(&self) -> Status {
        self.device.status()
    }

    /// See [`Device::config`].
    #[must_use]
    pub const fn config(&self) -> &DeviceConfig {
        self.device.config()
    }

    /// Gives `device` a clock that goes on from the latest time that it was told; `read` is the runtime's way to read the time.
    #[must_use]
    pub fn new(device: Device, read: fn() -> StdInstant) -> Self {
        let clock = Clock::new(device.latest(), read);
        Self {
            device,
            clock,
            tx: Vec::new(),
            error: None,
            told: VecDeque::new(),
            step: Next::Asked,
            late_since: None,
        }
    }

    /// The device without its clock, for another client. Its connection is lost, if it has one. Actions that were not taken are
    /// lost as well: disconnect and take them first.
    #[must_use]
    pub fn into_device(mut self) -> Device {
        self.closed(None);
        self.device
    }

    /// What to do next.
    pub fn step(&mut self) -> Step {
        if matches!(self.step, Next::Asked) {
            self.ask();
        }
        if self.error.is_some() || !self.told.is_empty() {
            return Step::Pull;
        }
        let deadline = self.device.poll_timeout().map(|deadline| deadline.at);
        let std = |at: Option<Instant>| self.clock.to_std(at.unwrap_or_default());
        match self.step {
            Next::Unknown | Next::Asked => Step::Pull,
            Next::Connect(at) if deadline.is_some_and(|deadline| deadline < at) => Step::Pause(std(deadline)),
            Next::Connect(at) => Step::Connect(std(Some(at))),
            Next::Wait(Wait::Nothing) => Step::Nothing,
            Next::Wait(_) => Step::Exchange(std(deadline)),
            Next::Close => Step::Close,
        }
    }

    /// A transport is open.
    pub fn opened(&mut self) {
        self.step = Next::Asked; // what was received by another does not count
        self.event(Event::Opened { jitter: clock::jitter(), unix_time: clock::unix_time() });
    }

    /// Bytes were read.
    pub fn received(&mut self) {
        self.step = Next::Unknown;
    }

    /// The transport is gone, or could not be opened. That it ended without a word is no error.
    pub fn closed(&mut self, error: Option<io::Error>) {
        let was_opening = self.device.status().connection == ConnectionState::Opening;
        let error = error.filter(|error| error.kind() != io::ErrorKind::UnexpectedEof);
        self.error = error.map(|error| TransportError::new(self.config().network_host(), error));
        self.tx.clear();
        self.step = Next::Asked;
        self.event(Event::Closed);
        if was_opening && self.error.is_some() && matches!(self.told.back(), Some(Err(_))) {
            self.told.pop_back(); // a connection is lost that was never there
        }
    }

    /// Bytes were read after the connection has ended in good order: takes the PUBACKs that were on their way.
    pub fn received_last(&mut self, rx: &mut Received) {
        let mut incoming = rx.actions();
        let now = self.clock.now();
        while let Ok(action) = incoming.pull(&mut self.device, now, &mut self.tx) {
            match action {
                Action::Acknowledged(ticket) => self.told.push_back(Ok(Action::Acknowledged(ticket))),
                Action::Dropped(ticket, reason) => self.told.push_back(Ok(Action::Dropped(ticket, reason))),
                Action::Failed(id, failure) => self.told.push_back(Ok(Action::Failed(id, failure))),
                _ => {}
            }
        }
    }

    /// The time of [`Step::Exchange`] has come.
    pub fn timed_out(&mut self) {
        self.event(Event::TimedOut);
    }

    /// Takes an action out of `rx`, which is what was received and not taken yet.
    fn pull<'i>(&mut self, rx: &mut &'i [u8]) -> Option<Result<Action<'i>, Offline>> {
        if let Some(error) = self.error.take() {
            return Some(Err(error.into()));
        }
        loop {
            let now = self.clock.now();
            let told = match self.told.pop_front() {
                Some(told) => told,
                None if matches!(self.step, Next::Close) => return None,
                None => self.device.handle(now, Event::Received(rx), &mut self.tx),
            };
            match told {
                Ok(Action::Handled) => {}
                Ok(Action::Wait(wait)) => {
                    self.rest(wait, now);
                    if !self.is_late(now) {
                        return None;
                    }
                    self.timed_out();
                    if self.told.is_empty() {
                        return None;
                    }
                }
                Ok(action) => return Some(Ok(action)),
                Err(close) => {
                    if self.device.status().connection == ConnectionState::Ended {
                        self.step = Next::Close;
                    }
                    return Some(Err(close.into()));
                }
            }
        }
    }

    fn event(&mut self, event: Event<'_, 'static>) {
        let now = self.clock.now();
        self.late_since = None;
        let told = self.device.handle(now, event, &mut self.tx);
        let was_pulled = !matches!(self.step, Next::Unknown);
        match told {
            Ok(Action::Wait(wait)) if was_pulled => self.rest(wait, now),
            Ok(Action::Wait(_)) => {}
            told => {
                if was_pulled {
                    self.step = Next::Asked;
                }
                if !matches!(told, Ok(Action::Handled)) {
                    self.told.push_back(told);
                }
            }
        }
    }

    /// Asks what is to be done, where nothing that was received is left to be taken.
    fn ask(&mut self) {
        while self.told.is_empty() && matches!(self.step, Next::Asked) {
            self.event(Event::Received(&mut &[][..]));
        }
    }

    fn rest(&mut self, wait: Wait, now: Instant) {
        self.step = match wait {
            Wait::Connect { after } => Next::Connect(now.after(after)),
            wait => Next::Wait(wait),
        };
    }

    /// Whether a timer has been held up for long enough by what arrived.
    fn is_late(&mut self, now: Instant) -> bool {
        let is_due = self.device.poll_timeout().is_some_and(|deadline| deadline.at <= now);
        let since = if is_due { *self.late_since.get_or_insert(now) } else { now };
        if !is_due {
            self.late_since = None;
        }
        now.since(since) >= GRACE
    }

    /// Calls the machine for the application, after which it may want something else.
    fn call<R>(&mut self, command: impl FnOnce(&mut Device, Instant, &mut Vec<u8>) -> R) -> R {
        let result = command(&mut self.device, self.clock.now(), &mut self.tx);
        if matches!(self.step, Next::Wait(_) | Next::Connect(_)) {
            self.step = Next::Asked;
        }
        result
    }
}

impl<'i> Incoming<'i> {
    /// The next action; `None` when it is time to wait. Neither `Action::Wait` nor `Action::Handled` is among them.
    ///
    /// An error is the news that there is no connection, and why. It ends nothing: the client makes the next
    /// connection by itself, unless it was told to disconnect.
    pub fn next(&mut self, device: &mut Machine) -> Option<Result<Action<'i>, Offline>> {
        device.pull(self.rest())
    }
}
