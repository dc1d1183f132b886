//! A registration with the Device Provisioning Service, with a clock, and what it wants done by whoever has the socket.

use std::io;
use std::time::Instant as StdInstant;

use devicebound::device::{Event, Wait};
use devicebound::provisioning::{
    Action, Failure, Provisioned, Provisioner, ProvisioningConfig, ProvisioningConfigError,
};
use devicebound::session::Close;
use devicebound::time::Instant;

use crate::clock::{self, Clock};
use crate::machine::Outgoing;
use crate::received::Received;

/// Why a device has no hub.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// No registration could be made from the config.
    #[error(transparent)]
    Config(#[from] ProvisioningConfigError),
    /// The service, or its answer.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The transport could not be opened, or broke, until patience ended; or the service's certificate is not trusted.
    #[error("no transport to the provisioning service: {0}")]
    Transport(#[from] io::Error),
}

/// What the owner of the socket is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationStep {
    /// Say [`Registration::timed_out`] at this time.
    Pause(StdInstant),
    /// Open a transport at this time, then say [`Registration::opened`] or [`Registration::closed`].
    Connect(StdInstant),
    /// Write what is [outgoing](Outgoing) and read; say [`Registration::timed_out`] at this time, if nothing was there to
    /// be read.
    Exchange(StdInstant),
    /// Write what is outgoing, close the transport, say [`Registration::closed`].
    Close,
    /// Write what is outgoing, close the transport, and take the [outcome](Registration::outcome).
    Done,
}

/// A [`Provisioner`] with a clock, the bytes that it wants written, and those that were read.
#[derive(Debug)]
pub struct Registration {
    machine: Provisioner,
    clock: Clock,
    tx: Vec<u8>,
    rx: Received,
    /// Why the transport failed last.
    error: Option<io::Error>,
    outcome: Option<Result<Box<Provisioned>, ProvisionError>>,
    step: RegistrationStep,
}

impl Registration {
    /// A registration whose clock starts now; `read` is the runtime's way to read the time.
    ///
    /// # Errors
    /// [`ProvisionError::Config`].
    pub fn new(config: ProvisioningConfig, read: fn() -> StdInstant) -> Result<Self, ProvisionError> {
        Ok(Self {
            machine: Provisioner::new(config)?,
            clock: Clock::new(Instant::default(), read),
            tx: Vec::new(),
            rx: Received::default(),
            error: None,
            outcome: None,
            step: RegistrationStep::Connect(read()),
        })
    }

    /// The host to open a transport to.
    #[must_use]
    pub fn network_host(&self) -> &str {
        self.machine.config().network_host()
    }

    /// What to do next.
    #[must_use]
    pub const fn step(&self) -> RegistrationStep {
        self.step
    }

    /// What came of it, after [`RegistrationStep::Done`].
    ///
    /// # Errors
    /// [`ProvisionError`].
    pub fn outcome(self) -> Result<Provisioned, ProvisionError> {
        self.outcome.unwrap_or(Err(Failure::TimedOut(None).into())).map(|provisioned| *provisioned)
    }

    /// A transport is open.
    pub fn opened(&mut self) {
        self.rx.clear();
        self.tell(Event::Opened { jitter: clock::jitter(), unix_time: clock::unix_time() });
        self.pull();
    }

    /// Room to read into; never empty.
    pub fn room(&mut self) -> &mut [u8] {
        self.rx.room()
    }

    /// `length` bytes were read into the room.
    pub fn received(&mut self, length: usize) {
        self.rx.fill(length);
        self.pull();
    }

    /// The transport is gone, or could not be opened.
    pub fn closed(&mut self, error: Option<io::Error>) {
        self.rx.clear();
        self.tx.clear();
        // Another try would bring the same certificate.
        let is_final = error.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::InvalidData);
        self.error = error.or(self.error.take());
        if is_final && let Some(error) = self.error.take() {
            self.finish(Err(error.into()));
        }
        self.tell(Event::Closed);
        self.pull();
    }

    /// The time of [`RegistrationStep::Exchange`] or [`RegistrationStep::Pause`] has come.
    pub fn timed_out(&mut self) {
        self.tell(Event::TimedOut);
        self.pull();
    }

    fn tell(&mut self, event: Event<'_, '_>) {
        let told = self.machine.handle(self.clock.now(), event, &mut self.tx);
        self.take(told);
    }

    /// Takes what has come, until the machine waits.
    fn pull(&mut self) {
        loop {
            let now = self.clock.now();
            let told = {
                let Self { machine, rx, tx, .. } = self;
                rx.take_with(|rest| machine.handle(now, Event::Received(rest), tx))
            };
            if self.take(told) {
                return;
            }
        }
    }

    /// Whether the machine waits, or has ended the connection.
    fn take(&mut self, told: Result<Action, Close>) -> bool {
        if self.outcome.is_some() {
            self.step = RegistrationStep::Done;
            return true;
        }
        let deadline = self.machine.poll_timeout().map(|deadline| deadline.at);
        let std = |at: Instant| self.clock.to_std(at);
        match told {
            Ok(Action::Wait(Wait::Connect { after })) => {
                let at = self.clock.now().after(after);
                self.step = match deadline {
                    Some(deadline) if deadline < at => RegistrationStep::Pause(std(deadline)),
                    _ => RegistrationStep::Connect(std(at)),
                };
                true
            }
            Ok(Action::Wait(_)) => {
                self.step = RegistrationStep::Exchange(std(deadline.unwrap_or_default()));
                true
            }
            Ok(Action::Assigned(provisioned)) => self.finish(Ok(provisioned)),
            Ok(Action::Failed(failure)) => {
                let error = match (failure, self.error.take()) {
                    (Failure::TimedOut(None), Some(error)) => error.into(),
                    (failure, _) => failure.into(),
                };
                self.finish(Err(error))
            }
            Ok(_) => {
                self.error = None; // it is well connected
                false
            }
            Err(_) => {
                self.step = RegistrationStep::Close;
                true
            }
        }
    }

    fn finish(&mut self, outcome: Result<Box<Provisioned>, ProvisionError>) -> bool {
        self.outcome = Some(outcome);
        self.step = RegistrationStep::Done;
        true
    }
}

impl Outgoing for Registration {
    fn outgoing(&self) -> &[u8] {
        &self.tx
    }

    fn written(&mut self, length: usize) {
        self.tx.drain(..self.tx.len().min(length));
    }
}
