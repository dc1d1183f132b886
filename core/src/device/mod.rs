//! The device: it does not lose, drift or stampede.
//!
//! # Theory of operation
//!
//! A [`Device`] is told what happens by [`Device::handle`] and says what it wants done by the [`Action`] that comes
//! back. It is *offline* until its owner reports an open transport; it then writes CONNECT and is *opening* until
//! CONNACK comes. *Online* it takes packets one at a time. A connection ends because the transport is gone, which the
//! owner reports, or because the machine says so: it returns [`Close`], and goes on returning it until the owner has
//! closed the transport and reports that. When the machine has ended a connection in good order, it still takes the
//! PUBACKs that were on their way.
//!
//! ```text
//!              Opened                 CONNACK 0
//!  ┌─────────┐ ─────▶ ┌─────────┐ ─────────────▶ ┌────────┐
//!  │ Offline │        │ Opening │                │ Online │
//!  └─────────┘ ◀───── └─────────┘                └────────┘
//!    ▲     ▲   Closed      │ refused, time-out        │ │
//!    │     └───────────────┼──────── Closed ──────────┼─┘
//!    │ Closed              ▼                          │ rule broken, silence,
//!    │                ┌─────────┐ ◀───────────────────┘ new token, disconnect()
//!    └─────────────── │  Ended  │
//!                     └─────────┘
//! ```
//!
//! Every end is returned as [`Close`]: by the event after which the machine ends the connection, or by the `Closed`
//! that reports it. Offline, the machine says after which time to open the next transport. What the application gave
//! it lives on; what belongs to one connection (`Link`) goes with it, whole.
//!
//! | what | over the end of a connection |
//! |---|---|
//! | telemetry | kept. What was sent and not acknowledged goes out first on the next connection, in order, with the same packet id and DUP `[MQTT-4.4.0-1]`, whether the hub kept the session or not |
//! | cloud messages | kept, and matched by packet id and DUP when the hub sends them again in the same session: the application does not see them twice, and may complete them meanwhile |
//! | subscriptions | kept; made again where the hub has no session |
//! | twin requests | those that were not sent yet wait for the next connection, until their time is over. Those that were: [`Action::Failed`], whether the hub acted on them is not known; with [`RequestPolicy::Resend`] they are sent again |
//! | direct methods | gone: the hub gives up a call with its connection, and [`Device::respond`] says so |
//! | desired properties | the document is asked for again |
//!
//! Twin requests and answers to methods are sent at QoS 0, and their subscriptions are made at QoS 0 (as the C and Node
//! SDKs do): a request is acknowledged by its answer, and an answer to a method that did not arrive could not be sent
//! again anyway. So only telemetry and cloud messages are QoS 1, and a cloud message that is slowly worked on does not
//! hold up the acknowledgements of twins and methods.
//!
//! # Rules for the owner
//!
//! 1. After every event, pull with [`Event::Received`] until the action is [`Action::Wait`]; then do I/O. Do the same
//!    after calling the machine for the application, as it may want something else now.
//! 2. Report [`Event::Closed`] and [`Event::TimedOut`] only after what has arrived was pulled.
//! 3. Write `tx` in order. After [`Close`], write what is in it, close the transport, and report [`Event::Closed`].
//! 4. Not to pull is to make the hub wait. Whoever does that for longer than the keep alive loses the connection.
//!
//! ```
//! use devicebound::Device;
//! use devicebound::device::{Action, DeviceConfig, Event, Message};
//! use devicebound::time::{Instant, UnixTime};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let text = "HostName=hub.example.test;DeviceId=dev1;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==";
//! let mut device = Device::new(DeviceConfig::from_connection_string(text)?)?;
//! let (now, mut tx) = (Instant::from_secs(1), Vec::new());
//! device.telemetry(now, Message::new(b"21.5"), &mut tx)?; // waits for the connection
//!
//! // A transport is open; the device writes CONNECT.
//! let opened = Event::Opened { jitter: 4711, unix_time: UnixTime::from_secs(1_700_000_000) };
//! assert!(matches!(device.handle(now, opened, &mut tx)?, Action::Wait(_)));
//! tx.clear(); // stands for writing it
//!
//! let mut received = &[0x20, 2, 0, 0][..]; // CONNACK 0
//! loop {
//!     match device.handle(now, Event::Received(&mut received), &mut tx)? {
//!         Action::Wait(_) => break,
//!         Action::Deliver(message, delivery) => {
//!             println!("{} bytes from the cloud", message.payload.len());
//!             device.complete(delivery, &mut tx)?;
//!         }
//!         action => println!("{action:?}"),
//!     }
//! }
//! assert!(tx.ends_with(b"21.5"));
//! # Ok(())
//! # }
//! ```

mod action;
pub(crate) mod backoff;
mod calls;
#[cfg(feature = "provisioning")]
mod certificate;
mod commands;
pub(crate) mod config;
mod deliveries;
mod desired;
pub(crate) mod link;
mod message;
mod outbox;
mod owned;
mod receive;
mod requests;
mod status;
#[cfg(test)]
mod tests;
mod twin;

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

#[cfg(feature = "provisioning")]
pub use action::CertificateFailure;
pub use action::{Action, Answer, CloudMessage, Event, MethodCall, Twin, Wait};
pub use calls::{CallId, RespondError};
pub use config::{ConfigError, Credential, DeviceConfig, Limits, OutboxPolicy, Timing};
pub use deliveries::{CompleteError, Delivery};
#[cfg(feature = "twin")]
pub use desired::DesiredProperties;
pub use message::{Message, PreparedProperties, SendError};
pub use outbox::{DropReason, RestoreError, Save, Ticket};
pub use owned::OwnedAction;
pub use requests::{RequestError, RequestFailure, RequestId, RequestPolicy};
pub use status::{ConnectionState, Ignored, OfflineTime, Status};

use backoff::Backoff;
use calls::Calls;
use config::TokenLife;
use deliveries::Deliveries;
use desired::Live;
use link::{Link, Renewal, earlier};
use message::TelemetryTopic;
use outbox::Outbox;
use requests::{Asker, Requests};
use status::Gap;

use crate::iothub::Subscriptions;
use crate::packet::{self, Decoded, Packet, decode};
use crate::rule::Rule;
use crate::session::{Close, CloseReason, PacketIds};
use crate::time::{Deadline, Instant, Timer, UnixTime};

/// CONNACK is four bytes long.
const CONNACK_LENGTH: usize = 4;

/// The device's side of a connection to IoT Hub, and all that outlives it.
///
/// See the [module](self) for how it works and what its owner has to do.
#[derive(Debug)]
pub struct Device {
    config: DeviceConfig,
    now: Instant,
    phase: Phase,
    /// When to connect, while there is no connection; `None` after `disconnect`.
    reconnect_at: Option<Instant>,
    /// The credential was replaced since CONNECT was written with another.
    credential_is_newer: bool,
    backoff: Backoff,
    last_close: Option<Close>,
    /// What the application wants to hear.
    wanted: Subscriptions,
    /// What the hub's session holds, as far as the machine knows.
    granted: Subscriptions,
    packet_ids: PacketIds,
    outbox: Outbox,
    deliveries: Deliveries,
    requests: Requests,
    live: Live,
    calls: Calls,
    #[cfg(feature = "provisioning")]
    issue: certificate::Issue,
    ignored: Ignored,
    offline: OfflineTime,
    /// Since the last connection that was established.
    gap: Option<Gap>,
    /// Topics are written here, so that none is allocated.
    topic: String,
    telemetry_topic: TelemetryTopic,
}

#[derive(Debug)]
enum Phase {
    Offline,
    Opening { deadline: Instant, token: TokenLife },
    Online(Box<Link>),
    Ended(Close),
}

impl Device {
    /// A device that is offline and wants to connect.
    ///
    /// # Errors
    /// [`ConfigError`] where no connection could ever be made from the config.
    pub fn new(config: DeviceConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let seed = alloc::format!("{}", config.identity());
        Ok(Self {
            telemetry_topic: config.telemetry_topic()?,
            config,
            now: Instant::default(),
            phase: Phase::Offline,
            reconnect_at: Some(Instant::default()),
            credential_is_newer: false,
            backoff: Backoff::new(&seed),
            last_close: None,
            wanted: Subscriptions::default(),
            granted: Subscriptions::default(),
            packet_ids: PacketIds::default(),
            outbox: Outbox::default(),
            deliveries: Deliveries::default(),
            requests: Requests::default(),
            live: Live::default(),
            calls: Calls::default(),
            #[cfg(feature = "provisioning")]
            issue: certificate::Issue::default(),
            ignored: Ignored::default(),
            offline: OfflineTime::default(),
            gap: None,
            topic: String::new(),
        })
    }

    /// A device as [`new`](Self::new) makes it, with the telemetry that [`snapshot`](Self::snapshot) has saved.
    ///
    /// What was sent before the snapshot goes out again with the same packet id and DUP; a message can arrive twice. The
    /// messages have the [`tickets`](Self::tickets) that they had.
    ///
    /// # Errors
    /// [`RestoreError`]. The config is only borrowed, because a device is then made without the snapshot, as a rule.
    pub fn restore(config: &DeviceConfig, snapshot: &[u8]) -> Result<Self, RestoreError> {
        let mut device = Self::new(config.clone())?;
        let identity = device.config.identity().to_string();
        let (outbox, last_id) = Outbox::restored(snapshot, &identity, &device.config.limits)?;
        device.outbox = outbox;
        device.packet_ids = PacketIds::behind(last_id);
        Ok(device)
    }

    /// Appends to `out` all telemetry that the hub has not acknowledged, to be stored where a crash does not reach it:
    /// less than [`Limits::outbox_bytes`], 14 bytes a message and 400 in all. The format has a version and a checksum.
    ///
    /// Save after [`telemetry`](Self::telemetry) and the pull that follows it, and before its `tx` is written, and nothing
    /// that was taken over is lost. A client writes `tx` in its `wait`: save before you call that.
    pub fn snapshot(&self, out: &mut Vec<u8>) {
        self.outbox.write_snapshot(&self.config.identity().to_string(), self.packet_ids.last(), out);
    }

    /// As [`snapshot`](Self::snapshot), but appends only what has changed since the last call, where that is shorter; what is to
    /// be done with it is said by [`Save`]. [`restore`](Self::restore) takes a snapshot with what was appended to it; the last
    /// piece may be cut short, which is as if it had not been written.
    ///
    /// After a piece that could not be stored, call [`save_all`](Self::save_all).
    pub fn save(&mut self, out: &mut Vec<u8>) -> Save {
        self.outbox.save(&self.config.identity().to_string(), self.packet_ids.last(), out)
    }

    /// The next [`save`](Self::save) is a whole one.
    pub fn save_all(&mut self) {
        self.outbox.forget_saves();
    }

    /// The latest time that the machine was told. An owner that takes over a machine from another starts its clock there.
    #[must_use]
    pub const fn latest(&self) -> Instant {
        self.now
    }

    /// What the device was made from.
    #[must_use]
    pub const fn config(&self) -> &DeviceConfig {
        &self.config
    }

    /// Takes an event, and says what is to be done. Bytes to be sent are appended to `tx`.
    ///
    /// At most one packet is taken off the front of what was received. A `now` that lies before an earlier one is
    /// taken for that.
    ///
    /// # Errors
    /// [`Close`]: the connection is over, and the input was not advanced past the packet that ended it. Until the
    /// owner reports `Closed` or `Opened`, it is returned again.
    #[inline(never)] // the result is large: it is written where the caller wants it, and not moved
    pub fn handle<'i>(
        &mut self,
        now: Instant,
        event: Event<'_, 'i>,
        tx: &mut Vec<u8>,
    ) -> Result<Action<'i>, Close> {
        self.now = self.now.max(now);
        match event {
            Event::Opened { jitter, unix_time } => self.opened(jitter, unix_time, tx),
            Event::Received(rx) => self.pull(rx, tx),
            Event::Closed => self.closed(tx),
            Event::TimedOut => self.timed_out(tx),
        }
    }

    /// When to report [`Event::TimedOut`], and what is waited for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let own = match &self.phase {
            Phase::Offline => {
                let at = self.reconnect_at.filter(|&at| at > self.now);
                at.map(|at| Deadline { at, why: Timer::Reconnect })
            }
            Phase::Opening { deadline, .. } => Some(Deadline { at: *deadline, why: Timer::ConnAck }),
            Phase::Online(link) => {
                let puback = self.outbox.deadline().map(|at| Deadline { at, why: Timer::PubAck });
                Some(puback.map_or(link.deadline(), |puback| earlier(link.deadline(), puback)))
            }
            Phase::Ended(_) => return None,
        };
        let request = self.requests.deadline().map(|at| Deadline { at, why: Timer::Request });
        #[cfg(feature = "provisioning")]
        let request = self
            .issue
            .deadline()
            .map(|at| Deadline { at, why: Timer::CertificateRenewal })
            .into_iter()
            .chain(request)
            .reduce(earlier);
        own.into_iter().chain(request).reduce(earlier)
    }

    /// What the machine is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            connection: match self.phase {
                Phase::Offline => ConnectionState::Offline,
                Phase::Opening { .. } => ConnectionState::Opening,
                Phase::Online(_) => ConnectionState::Online,
                Phase::Ended(_) => ConnectionState::Ended,
            },
            last_close: self.last_close,
            failures: self.backoff.failures(),
            queued: self.outbox.len(),
            queued_bytes: self.outbox.size(),
            in_flight: self.outbox.in_flight(),
            deliveries: self.deliveries.len(),
            requests: self.requests.len(),
            calls: self.calls.len(),
            next: self.poll_timeout(),
            ignored: self.ignored,
            offline: self.offline,
        }
    }

    fn opened(
        &mut self,
        jitter: u32,
        unix_time: UnixTime,
        tx: &mut Vec<u8>,
    ) -> Result<Action<'static>, Close> {
        if matches!(self.phase, Phase::Opening { .. } | Phase::Online(_)) {
            let _ = self.end(Close::new(CloseReason::Lost)); // the owner has replaced the transport without a word
        }
        self.outbox.rewind();
        self.credential_is_newer = false;
        self.backoff.stir(jitter);
        // What an earlier connection left would be taken for the start of this one.
        tx.clear();
        let token = self.config.connect(unix_time, tx).expect("Device::new has written a CONNECT");
        self.phase = Phase::Opening { deadline: self.now.after(self.config.timing.connack), token };
        self.settle(CONNACK_LENGTH, tx)
    }

    fn closed(&mut self, tx: &mut Vec<u8>) -> Result<Action<'static>, Close> {
        match self.phase {
            Phase::Opening { .. } | Phase::Online(_) => {
                let close = self.end(Close::new(CloseReason::Lost));
                self.phase = Phase::Offline;
                return Err(close);
            }
            Phase::Ended(_) => {
                self.outbox.rewind();
                self.phase = Phase::Offline;
            }
            // A transport that the machine has asked for could not be opened.
            Phase::Offline if self.reconnect_at.is_some_and(|at| at <= self.now) => {
                let delay = self.backoff.after_failure(&self.config.timing);
                self.reconnect_at = Some(self.now.after(delay));
            }
            Phase::Offline => {}
        }
        self.settle(0, tx)
    }

    fn timed_out(&mut self, tx: &mut Vec<u8>) -> Result<Action<'static>, Close> {
        let (now, timing) = (self.now, self.config.timing);
        let mut expires = None;
        match &mut self.phase {
            Phase::Opening { deadline, .. } if *deadline <= now => {
                return Err(self.end(Close::new(CloseReason::TimedOut(Rule::ConnAckTime))));
            }
            Phase::Online(link) => {
                if link.pulse.is_dead(now) {
                    return Err(self.end(Close::new(CloseReason::TimedOut(Rule::PingTimeout))));
                }
                if link.pending.iter().any(|pending| pending.deadline <= now) {
                    return Err(self.end(Close::new(CloseReason::TimedOut(Rule::AckTime))));
                }
                if self.outbox.is_overdue(now, timing.puback, tx.len()) {
                    return Err(self.end(Close::new(CloseReason::TimedOut(Rule::PubAckTime))));
                }
                if link.pulse.is_ping_due(now) {
                    packet::pingreq(tx);
                }
                expires = link.renewal.warn(now);
                link.renewal.time_out(now, timing.renewal_patience);
                link.observer.time_out(now);
                self.ask_for_desired(tx);
            }
            _ => {}
        }
        self.requests.expire(now);
        #[cfg(feature = "provisioning")]
        self.issue.expire(now);
        match expires {
            Some(after) => Ok(Action::TokenExpires { after }),
            None => self.settle(1, tx),
        }
    }

    /// Takes a packet, or says what to wait for.
    fn pull<'i>(&mut self, rx: &mut &'i [u8], tx: &mut Vec<u8>) -> Result<Action<'i>, Close> {
        if !matches!(self.phase, Phase::Opening { .. } | Phase::Online(_)) {
            return self.pull_last(rx, tx);
        }
        if let Some(action) = self.owed() {
            return Ok(action);
        }
        if tx.len() >= self.config.limits.tx_max {
            return Err(self.end(Close::new(CloseReason::Ended(Rule::DeviceBacklog))));
        }
        let whole = *rx;
        let packet = match decode(rx, self.config.limits.packet) {
            // Nearly all that comes in are PUBACKs of telemetry: they go the short way.
            Ok(Decoded::Packet(Packet::PubAck(id))) => match self.acknowledged(id) {
                Some(ticket) => return Ok(Action::Acknowledged(ticket)),
                None => Packet::PubAck(id),
            },
            Ok(Decoded::Packet(packet)) => packet,
            Ok(Decoded::Incomplete { at_least }) => {
                // An empty input is a question, and says nothing of what has come.
                if let Phase::Online(link) = &mut self.phase
                    && !whole.is_empty()
                {
                    link.pulse.receiving(whole.len(), self.now);
                }
                return self.settle(at_least, tx);
            }
            Err(error) => return Err(self.end(Close::at(CloseReason::Malformed(error.rule()), error.at()))),
        };
        self.packet(packet, tx).map_err(|reason| {
            let length = whole.len().saturating_sub(rx.len());
            *rx = whole;
            self.end(Close::at(reason, 0..length))
        })
    }

    /// Takes what comes without a connection. After an end in good order that is PUBACKs that were on their way, and
    /// packets that mean nothing any more.
    #[cold]
    fn pull_last<'i>(&mut self, rx: &mut &'i [u8], tx: &mut Vec<u8>) -> Result<Action<'i>, Close> {
        if let Phase::Ended(close) = self.phase
            && is_in_good_order(close.reason())
            && let Ok(Decoded::Packet(packet)) = decode(rx, self.config.limits.packet)
        {
            return Ok(match packet {
                Packet::PubAck(id) => {
                    self.outbox.acknowledge(id).map_or(Action::Handled, Action::Acknowledged)
                }
                _ => Action::Handled,
            });
        }
        self.settle(0, tx)
    }

    /// What the application is to be told without a packet that says it.
    #[inline]
    fn owed(&mut self) -> Option<Action<'static>> {
        #[cfg(feature = "provisioning")]
        if self.issue.owes() {
            return self.issue.owed();
        }
        if self.requests.is_empty() && !self.outbox.has_dropped() { None } else { self.fate() }
    }

    /// What became of a message or a request that gets no answer.
    fn fate(&mut self) -> Option<Action<'static>> {
        if let Some(ticket) = self.outbox.poll_dropped() {
            return Some(Action::Dropped(ticket, DropReason::Displaced));
        }
        while let Some((id, asker, failure)) = self.requests.poll_failure(self.config.limits.requests) {
            match asker {
                Asker::Application => return Some(Action::Failed(id, failure)),
                Asker::Machine => self.pause_following(),
            }
        }
        None
    }

    /// What to do when no packet was taken: tell what is owed, send what waits, say what to wait for.
    fn settle(&mut self, at_least: usize, tx: &mut Vec<u8>) -> Result<Action<'static>, Close> {
        if let Phase::Ended(close) = self.phase {
            return Err(close);
        }
        if let Some(action) = self.owed() {
            return Ok(action);
        }
        if self.is_ready_to_renew() {
            packet::disconnect(tx);
            return Err(self.end(Close::new(CloseReason::Ended(Rule::TokenRenewal))));
        }
        self.transmit(tx);
        Ok(Action::Wait(match &self.phase {
            Phase::Online(link)
                if link.takes_telemetry() && self.outbox.has_sendable(self.config.limits.window) =>
            {
                Wait::Flush
            }
            Phase::Online(_) | Phase::Opening { .. } => Wait::Read { at_least: at_least.max(1) },
            Phase::Offline | Phase::Ended(_) => match self.reconnect_at {
                Some(at) => Wait::Connect { after: at.since(self.now) },
                None => Wait::Nothing,
            },
        }))
    }

    /// Whether the connection is to be replaced now: nothing is in flight that the end would cut, or it took too long.
    fn is_ready_to_renew(&self) -> bool {
        let Phase::Online(link) = &self.phase else { return false };
        let Renewal::Draining(latest) = link.renewal else { return false };
        let quiet = self.outbox.in_flight() == 0
            && !self.requests.any_open()
            && self.calls.len() == 0
            && link.pending.is_empty();
        quiet || latest <= self.now
    }

    /// Sends telemetry as far as window and `tx` go.
    fn transmit(&mut self, tx: &mut Vec<u8>) {
        if let Phase::Online(link) = &self.phase
            && link.takes_telemetry()
        {
            let due = self.now.after(self.config.timing.puback);
            self.outbox.transmit(due, &self.config.limits, &mut self.packet_ids, |id| link.awaits(id), tx);
        }
    }

    /// The connection is over. All that it leaves behind is put in order here.
    fn end(&mut self, close: Close) -> Close {
        let lived = match &self.phase {
            Phase::Online(link) => {
                self.gap = Some(Gap::new(self.now, close.reason()));
                Some(self.now.since(link.since))
            }
            _ => None,
        };
        let delay = self.backoff.after_close(close.reason(), lived, &self.config.timing);
        self.reconnect_at = match close.reason() {
            CloseReason::Disconnected => None,
            // The refusal was of another credential.
            CloseReason::Refused(..) if self.credential_is_newer => Some(self.now),
            _ => Some(self.now.after(delay)),
        };
        if !is_in_good_order(close.reason()) {
            self.outbox.rewind();
        }
        #[cfg(feature = "provisioning")]
        self.issue.rewind();
        self.deliveries.park();
        match close.reason() {
            CloseReason::Disconnected => self.requests.fail_all(RequestFailure::ConnectionLost),
            _ => self.requests.fail_lost(),
        }
        self.calls.clear();
        self.last_close = Some(close);
        self.phase = Phase::Ended(close);
        close
    }
}

/// Whether the machine has said DISCONNECT, and what the hub had sent before it read that may still come.
const fn is_in_good_order(reason: CloseReason) -> bool {
    matches!(reason, CloseReason::Disconnected | CloseReason::Ended(Rule::TokenRenewal))
}
