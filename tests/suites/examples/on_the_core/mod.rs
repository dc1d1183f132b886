//! A thermostat straight on the core: its device machine, its clock and its bytes. This is what every event loop has to do,
//! but for the I/O; `devicebound_client::Machine` is the same at more length.

use std::error::Error;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Instant as StdInstant, SystemTime, UNIX_EPOCH};

use devicebound::Device;
use devicebound::device::{Action, ConnectionState, Event, Wait};
use devicebound::time::{Instant, UnixTime};
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::thermostat::{Options, SUBSCRIPTIONS, Thermostat, Wish, install, message};

/// Where MQTT over TLS is, where the command line does not say.
pub(crate) const PORT: u16 = 8883;

/// A device with its thermostat.
pub(crate) struct Unit {
    /// The machine.
    pub(crate) device: Device,
    /// What is to be written.
    pub(crate) tx: Vec<u8>,
    rx: Vec<u8>,
    thermostat: Thermostat,
    start: StdInstant,
}

/// What a unit wants of its event loop. Whatever it is, [`Unit::tick`] wants to be called at [`Unit::wake_at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Write `tx` and read.
    Exchange,
    /// Nothing, but for the time.
    Sleep,
    /// Open a transport now.
    Connect,
    /// Write `tx` and close the transport.
    Close,
    /// Nothing any more.
    End,
}

impl Unit {
    /// The device of a connection string.
    pub(crate) fn new(connection_string: &str, options: &Options) -> Result<Self, Box<dyn Error>> {
        let (mut device, thermostat) = install(connection_string, options)?;
        let mut tx = Vec::new();
        for subscription in SUBSCRIPTIONS {
            device.subscribe(Instant::default(), subscription, &mut tx)?;
        }
        Ok(Self { device, tx, rx: Vec::new(), thermostat, start: StdInstant::now() })
    }

    /// A transport is open.
    pub(crate) fn opened(&mut self) {
        let unix_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // To spread reconnections; it guards no secret.
        let jitter = RandomState::new().hash_one(()) as u32;
        self.rx.clear();
        self.tx.clear();
        self.event(Event::Opened { jitter, unix_time: UnixTime::default().after(unix_time) });
    }

    /// These bytes were read.
    pub(crate) fn received(&mut self, bytes: &[u8]) {
        self.rx.extend(bytes);
    }

    /// The transport is gone, or could not be opened. To be said when [`next`](Self::next) has seen what came before.
    pub(crate) fn closed(&mut self, error: Option<io::Error>) {
        if let Some(error) = error {
            self.thermostat.hear_offline(&error);
        }
        self.rx.clear();
        self.tx.clear();
        self.event(Event::Closed);
    }

    /// Does what is due by now. To be said when what has arrived was read.
    pub(crate) fn tick(&mut self) {
        if self.deadline().is_some_and(|at| at <= StdInstant::now()) {
            self.event(Event::TimedOut);
        }
        if let Some(reading) = self.thermostat.read() {
            let now = self.now();
            if let Err(error) = self.device.telemetry(now, message(&reading), &mut self.tx) {
                self.thermostat.hear_reading_refused(&error);
            }
        }
    }

    /// When there is something to do though nothing came.
    pub(crate) fn wake_at(&self) -> Option<StdInstant> {
        [self.deadline(), self.thermostat.next_reading()].into_iter().flatten().min()
    }

    /// Takes what has arrived, and says what to do next.
    pub(crate) fn next(&mut self) -> Next {
        let now = self.now();
        let mut rest = self.rx.as_slice();
        let next = loop {
            match self.device.handle(now, Event::Received(&mut rest), &mut self.tx) {
                Ok(Action::Wait(wait)) => break Ok(wait),
                Ok(action) => {
                    let wishes = self.thermostat.hear(&action);
                    grant(&mut self.device, now, &mut self.tx, &self.thermostat, wishes);
                }
                Err(close) => break Err(close),
            }
        };
        let taken = self.rx.len() - rest.len();
        self.rx.drain(..taken);
        match next {
            Ok(Wait::Read { .. } | Wait::Flush) => Next::Exchange,
            Ok(Wait::Connect { .. }) if self.deadline().is_none_or(|at| at <= StdInstant::now()) => {
                Next::Connect
            }
            Ok(Wait::Connect { .. }) => Next::Sleep,
            Ok(Wait::Nothing) => Next::End,
            Err(close) => {
                self.thermostat.hear_offline(&close);
                // Until the transport is closed, which the machine waits for, it says the same again and again.
                if self.device.status().connection == ConnectionState::Ended {
                    Next::Close
                } else {
                    self.next()
                }
            }
        }
    }

    fn event(&mut self, event: Event<'_, 'static>) {
        let now = self.now();
        match self.device.handle(now, event, &mut self.tx) {
            Ok(action) => {
                let wishes = self.thermostat.hear(&action);
                grant(&mut self.device, now, &mut self.tx, &self.thermostat, wishes);
            }
            Err(close) => self.thermostat.hear_offline(&close),
        }
    }

    fn now(&self) -> Instant {
        Instant::default().after(self.start.elapsed())
    }

    fn deadline(&self) -> Option<StdInstant> {
        self.device.poll_timeout().map(|deadline| self.start + deadline.at.since(Instant::default()))
    }
}

fn grant(device: &mut Device, now: Instant, tx: &mut Vec<u8>, thermostat: &Thermostat, wishes: Vec<Wish>) {
    for wish in wishes {
        let granted: Result<(), Box<dyn Error>> = match wish {
            Wish::Report(patch) => {
                device.report(now, patch.as_bytes(), None, tx).map(drop).map_err(Into::into)
            }
            Wish::Respond(call, status, payload) => {
                device.respond(now, call, status, payload.as_bytes(), tx).map_err(Into::into)
            }
            Wish::Disconnect => {
                device.disconnect(now, tx);
                Ok(())
            }
        };
        if let Err(error) = granted {
            thermostat.hear_refused(&error);
        }
    }
}

/// TLS that trusts the authorities of the command line's file.
pub(crate) fn tls(options: &Options) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let file = options.ca.as_ref().ok_or("say by --ca which authority to trust: a PEM file")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
