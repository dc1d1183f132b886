//! The device machine with a clock, and what it wants done by whoever has the socket.

use std::collections::VecDeque;
use std::io;
use std::time::Instant as StdInstant;

use devicebound::device::{
    Action, CallId, CompleteError, ConfigError, ConnectionState, Credential, Delivery, DesiredProperties,
    Device, DeviceConfig, Event, Message, RequestError, RequestId, RespondError, SendError, Status, Ticket,
    Wait,
};
use devicebound::iothub::Subscription;
use devicebound::session::Close;
use devicebound::time::Instant;

use crate::clock::{self, Clock};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Offline {
    /// The connection is over.
    #[error(transparent)]
    Closed(#[from] Close),
    /// The transport could not be opened, or broke: no such host, refused, certificate not trusted, reset.
    #[error("no transport to the hub: {0}")]
    Transport(#[from] io::Error),
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
    /// Write [`Machine::outgoing`] and read; say [`Machine::timed_out`] at this time, if nothing was there to be read.
    Exchange(StdInstant),
    /// Write [`Machine::outgoing`], close the transport, say [`Machine::closed`].
    Close,
    /// Nothing: the application has disconnected.
    Nothing,
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
    error: Option<io::Error>,
    /// What events gave, until the application has taken it.
    told: VecDeque<Result<Action<'static>, Close>>,
    step: Next,
}

/// What the machine said last.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// Nothing since something happened.
    Unknown,
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

    /// See [`Device::waits`].
    #[must_use]
    pub fn waits(&self, ticket: Ticket) -> bool {
        self.device.waits(ticket)
    }

    /// See [`Device::snapshot`]. [`Device::restore`] makes a device from it, and that a client.
    pub fn snapshot(&self, out: &mut Vec<u8>) {
        self.device.snapshot(out);
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
        self.call(|device, _, tx| device.respond(call, status, payload, tx))
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

    /// See [`Device::disconnect`].
    pub fn disconnect(&mut self) {
        self.call(|device, _, tx| device.disconnect(tx));
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

    /// Gives `device` a clock that starts now; `read` is the runtime's way to read the time.
    #[must_use]
    pub fn new(device: Device, read: fn() -> StdInstant) -> Self {
        let (clock, tx) = (Clock::new(read), Vec::new());
        Self { device, clock, tx, error: None, told: VecDeque::new(), step: Next::Unknown }
    }

    /// What to do next.
    #[must_use]
    pub fn step(&self) -> Step {
        let deadline = self.device.poll_timeout().map(|deadline| deadline.at);
        let std = |at: Option<Instant>| self.clock.to_std(at.unwrap_or_default());
        match self.step {
            Next::Unknown => Step::Pull,
            Next::Connect(at) if deadline.is_some_and(|deadline| deadline < at) => Step::Pause(std(deadline)),
            Next::Connect(at) => Step::Connect(std(Some(at))),
            Next::Wait(Wait::Nothing) => Step::Nothing,
            Next::Wait(_) => Step::Exchange(std(deadline)),
            Next::Close => Step::Close,
        }
    }

    /// Bytes to be written, in order.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        &self.tx
    }

    /// The first `length` of [`outgoing`](Self::outgoing) were written.
    pub fn written(&mut self, length: usize) {
        self.tx.drain(..self.tx.len().min(length));
        if self.tx.is_empty() && matches!(self.step, Next::Wait(Wait::Flush)) {
            self.step = Next::Unknown;
        }
    }

    /// A transport is open.
    pub fn opened(&mut self) {
        self.event(Event::Opened { jitter: clock::jitter(), unix_time: clock::unix_time() });
    }

    /// Bytes were read.
    pub fn received(&mut self) {
        self.step = Next::Unknown;
    }

    /// The transport is gone, or could not be opened. That it ended without a word is no error.
    pub fn closed(&mut self, error: Option<io::Error>) {
        let was_opening = self.device.status().connection == ConnectionState::Opening;
        self.error = error.filter(|error| error.kind() != io::ErrorKind::UnexpectedEof);
        self.tx.clear();
        self.event(Event::Closed);
        if was_opening && self.error.is_some() && matches!(self.told.back(), Some(Err(_))) {
            self.told.pop_back(); // a connection is lost that was never there
        }
    }

    /// The time of [`Step::Exchange`] has come.
    pub fn timed_out(&mut self) {
        self.event(Event::TimedOut);
    }

    /// Takes an action out of `rx`, which is what was received and not taken yet.
    pub(crate) fn pull<'i>(&mut self, rx: &mut &'i [u8]) -> Option<Result<Action<'i>, Offline>> {
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
                    self.step = match wait {
                        Wait::Connect { after } => Next::Connect(now.after(after)),
                        wait => Next::Wait(wait),
                    };
                    return None;
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
        self.step = Next::Unknown;
        let told = self.device.handle(self.clock.now(), event, &mut self.tx);
        if !matches!(told, Ok(Action::Wait(_) | Action::Handled)) {
            self.told.push_back(told);
        }
    }

    /// Calls the machine for the application, after which it may want something else.
    fn call<R>(&mut self, command: impl FnOnce(&mut Device, Instant, &mut Vec<u8>) -> R) -> R {
        let result = command(&mut self.device, self.clock.now(), &mut self.tx);
        if matches!(self.step, Next::Wait(_) | Next::Connect(_)) {
            self.step = Next::Unknown;
        }
        result
    }
}
