//! The hub: a set of devices, each on its own.
//!
//! # Theory of operation
//!
//! All that a hub remembers belongs to one identity: a [`DeviceRecord`]. A connection is a *link*. A link begins as a
//! handshake: its first packet must be CONNECT and arrive within [`CONNECT_TIME`](crate::limits::CONNECT_TIME). The
//! hub hands the CONNECT out ([`Action::Authenticate`]) and waits for a verdict. [`Hub::accept`] binds the link to the
//! record; whoever held the record before has lost it from that moment on, so an identity never has two live links.
//! The link is then *opening*: its CONNACK waits until the revision of the record that it rests on is safe. After the
//! CONNACK it is *live*.
//!
//! ```text
//!            open()                    CONNECT               accept()             revision safe
//!   ∅ ───────────────▶ Handshake ────────────────▶ Judged ─────────────▶ Opening ───────────────▶ Live
//!                          │ no CONNECT in time,      │ refuse()            │ lost, taken over      │ DISCONNECT, lost,
//!                          │ not MQTT                 │ CONNACK 1…5         │                       │ silence, rule broken,
//!                          ▼                          ▼                     ▼                       ▼ taken over, expired
//!                        Ended ◀──────────────────────┴─────────────────────┴───────────────────────┘
//!                          │ close()
//!                          ▼
//!                          ∅   the will, if there is one, comes out
//! ```
//!
//! *Nothing is acknowledged before it is safe.* Telemetry leaves as [`Action::Telemetry`] with a [`Receipt`]; its PUBACK
//! is owed from then on and goes when [`Hub::stored`] was said. A change of the record leaves as [`Commit`]; every reply
//! that read or wrote the record waits for [`Hub::committed`]. Replies leave in the order of their requests. A link
//! that is owed [`Limits::in_flight`] acknowledgements is not read ([`Wait::Store`]), and one whose output is not taken
//! is not read either ([`Wait::Flush`]): backpressure, not an error.
//!
//! *Who says goodbye is answered first.* A DISCONNECT, or a packet that breaks a rule, ends the connection when what is
//! owed for the packets before it is safe and written, or after [`LAST_WORDS_TIME`](crate::limits::LAST_WORDS_TIME).
//!
//! *Time* comes in with every call. Deadlines are looked up with [`Hub::poll_timeout`] and worked off with
//! [`Hub::expire`].
//!
//! # Rules for the owner
//!
//! 1. After every event, pull with [`Event::Received`] until [`Action::Wait`]; then do I/O. Do not read while it says
//!    [`Wait::Store`] or [`Wait::Flush`].
//! 2. Write `tx` in order. After a [`Close`] write what is in it, close the transport, and call [`Hub::close`]; what that
//!    gives may hold a will, which is telemetry.
//! 3. Make every [`Commit`] durable, also those that [`Hub::accept`], [`Hub::poll_transmit`], [`Hub::expire`] and the methods
//!    of the back end give, then say [`Hub::committed`]; store telemetry, then say [`Hub::stored`]. Until then the device
//!    waits. After a failure say [`Hub::rejected`] with the record as it is stored.
//! 4. After any call, [`Hub::poll_ready`] until `None`: for each link that it names, [`Hub::poll_transmit`], and pull again if
//!    the link was waiting. Then set the timer to [`Hub::poll_timeout`].
//! 5. When the timer fires, [`Hub::expire`] until `None`. A link that it names is pulled first and then handed
//!    [`Event::TimedOut`]: what has arrived counts as in time.
//! 6. Report [`Event::Closed`] only after what had arrived was pulled. Call [`Hub::set_clock`] when the wall clock was set.
//! 7. A [`Receipt`], a [`CallId`] and a [`DeviceKey`] are of no use to another [`Hub`].
//!
//! ```
//! use devicebound::Hub;
//! use devicebound::hub::{
//!     Action, Authentication, DeviceIdentity, DeviceRecord, Event, HubConfig, TlsClient, Wait,
//! };
//! use devicebound::iothub::sas::{SymmetricKey, sign};
//! use devicebound::packet::{Connect, Credentials, Text};
//! use devicebound::time::{Instant, UnixTime};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let (now, wall) = (Instant::from_secs(1), UnixTime::from_secs(1_700_000_000));
//! let mut hub = Hub::new(HubConfig::default(), now, wall);
//! let key = SymmetricKey::from_base64("AAECAwQFBgcICQoLDA0ODw==")?;
//! let keys = Authentication::Sas { primary: key.clone(), secondary: key.clone() };
//! let identity = DeviceIdentity::new("dev1", "1".into(), keys)?;
//! hub.insert(DeviceRecord::new(identity)).map_err(|_| "dev1 is there already")?; // as it was loaded
//!
//! // A transport was accepted. Here is what its client sends: CONNECT, and a message at QoS 1.
//! let link = hub.open(now)?;
//! let token = sign("hub.example.test/devices/dev1", &key, UnixTime::from_secs(1_700_003_600), None);
//! let mut received = Vec::new();
//! Connect {
//!     clean_session: true,
//!     keep_alive: 60,
//!     client_id: Text::new("dev1").map_err(|rule| rule.says())?,
//!     will: None,
//!     credentials: Some(Credentials {
//!         username: Text::new("hub.example.test/dev1/?api-version=2021-04-12")
//!             .map_err(|rule| rule.says())?,
//!         password: Some(token.as_bytes()),
//!     }),
//! }
//! .encode(&mut received)?;
//! received.extend(b"\x32\x23\x00\x1ddevices/dev1/messages/events/\x00\x0121");
//!
//! let (mut rest, mut tx) = (received.as_slice(), Vec::new());
//! loop {
//!     match hub.handle(now, link, Event::Received(&mut rest), &mut tx)? {
//!         Action::Authenticate(request) => match hub.authenticate(now, link, &request, TlsClient::default()) {
//!             Ok(grant) => {
//!                 if let Some(commit) = hub.accept(now, link, grant) {
//!                     hub.committed(commit.device, commit.revision); // once it is stored
//!                 }
//!             }
//!             Err(refusal) => hub.refuse(link, &refusal, &mut tx),
//!         },
//!         Action::Telemetry(message) => {
//!             assert_eq!(message.payload, b"21");
//!             if let Some(receipt) = message.receipt {
//!                 hub.stored(receipt); // once it is stored
//!             }
//!         }
//!         Action::Commit(commit) => hub.committed(commit.device, commit.revision),
//!         Action::Wait(Wait::Read { .. }) if rest.is_empty() => break,
//!         _ => {}
//!     }
//! }
//! while let Some(link) = hub.poll_ready() {
//!     let _ = hub.poll_transmit(now, link, &mut tx)?;
//! }
//! assert_eq!(tx, [0x20, 2, 0, 0, 0x40, 2, 0, 1]); // CONNACK, PUBACK: write them
//! assert!(hub.poll_timeout().is_some(), "silence has a limit");
//! # Ok(())
//! # }
//! ```

mod action;
mod admission;
mod authentication;
mod clock;
mod cloud_to_device_queue;
mod config;
mod deadlines;
mod fault;
mod feedback;
mod handshake;
mod identity;
mod keys;
mod link;
mod metadata;
mod methods;
mod opening;
mod outcome;
mod pending;
mod receive;
mod record;
mod registry;
mod revision;
mod service;
mod slab;
mod slots;
mod snapshot;
mod telemetry;
mod throttle;
mod tier;
mod timers;
mod twin;
mod warnings;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

pub use action::{
    Action, Change, Commit, ConnectRequest, Ended, Event, Expired, Full, IssueRequest, Progress, TwinRefusal,
    Wait,
};
pub use authentication::{Grant, ServerName, TlsClient};
pub use cloud_to_device_queue::{
    CloudMessage, DeadLetter, EnqueueError, LockLost, LockToken, SequenceNumber, WaitingMessage,
};
pub use config::{HubConfig, Limits};
pub use fault::Fault;
pub use handshake::{Refusal, device_of};
#[cfg(feature = "provisioning")]
pub(crate) use handshake::{answer_bad_connect as bad_connect, refuse as refuse_connect};
pub use identity::{Authentication, ClientCertificate, Credential, DeviceIdentity, KeySlot};
pub use keys::{DeviceKey, LinkId, Receipt};
pub use methods::{CallFailure, CallId, InvokeError, MethodAnswer, MethodRequest};
pub use outcome::{Feedback, FeedbackRequest, Outcome};
pub use record::{Activity, DeviceRecord};
pub use registry::{Connection, LiveConnection};
pub use revision::Revision;
pub use snapshot::SnapshotError;
pub use telemetry::{Telemetry, hub_properties};
pub use throttle::Usage;
pub use tier::{Operation, Scale, Tier, TierError};
pub use twin::{Section, Twin, TwinUpdate, TwinUpdateError};
pub use warnings::{Comparison, Warning};

use admission::Admission;
use clock::Clock;
use handshake::Handshake;
use link::Link;
use methods::Calls;
use opening::Opening;
use slab::Slab;
use slots::{DeviceSlot, LinkSlot, State};
use telemetry::Will;
use timers::{Target, Timers};
use warnings::Warnings;

use crate::rule::Rule;
use crate::session::{Close, CloseReason};
use crate::time::{Instant, UnixTime};

/// The hub machine. See the [module](self) for how it works.
///
/// Methods come in four kinds: [`handle`](Self::handle) and its verdicts for what a link brings; `stored`, `committed`,
/// `rejected` for what the store says; `enqueue`, `invoke`, `update_twin` for what the back end wants; and the polls,
/// to be called after any of them: [`poll_ready`](Self::poll_ready), then
/// [`poll_transmit`](Self::poll_transmit) for each link that it names, and [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Hub {
    config: HubConfig,
    devices: Slab<DeviceSlot>,
    ids: BTreeMap<alloc::boxed::Box<str>, DeviceKey>,
    links: Slab<LinkSlot>,
    ready: VecDeque<LinkId>,
    has_feedback: BTreeSet<DeviceKey>,
    calls: Calls,
    timers: Timers,
    admission: Admission,
    warnings: Warnings,
    clock: Clock,
}

impl Hub {
    /// A hub without devices. `now` and `unix_time` are the same moment on the two clocks.
    #[must_use]
    pub fn new(config: HubConfig, now: Instant, unix_time: UnixTime) -> Self {
        Self {
            admission: Admission::new(&config),
            warnings: Warnings::new(config.strict),
            config,
            devices: Slab::new(),
            ids: BTreeMap::new(),
            links: Slab::new(),
            ready: VecDeque::new(),
            has_feedback: BTreeSet::new(),
            calls: Calls::new(),
            timers: Timers::new(),
            clock: Clock::new(now, unix_time),
        }
    }

    /// A transport was accepted.
    ///
    /// # Errors
    /// [`Full`], when there are [`Limits::links`] already.
    pub fn open(&mut self, now: Instant) -> Result<LinkId, Full> {
        if self.links.len() >= self.config.limits.links {
            return Err(Full);
        }
        let handshake = Handshake::new(now, self.config.limits.connect_time);
        let link = LinkSlot { state: State::Handshake(handshake), ready: false, timer: None };
        let id = LinkId(self.links.insert(link).ok_or(Full)?);
        self.schedule_link(id);
        Ok(id)
    }

    /// The CONNECT of `link` is welcome: it gets the record, and whoever had it loses it.
    ///
    /// CONNACK goes out once the commit is safe, if there is one. Nothing happens if no CONNECT is waiting.
    #[must_use = "if there is a commit, CONNACK waits until `Hub::committed` is told of it"]
    pub fn accept(&mut self, now: Instant, link: LinkId, grant: Grant) -> Option<Commit> {
        let Some(device) = self.devices.get_mut(grant.device.0) else {
            self.end(link, CloseReason::Ended(Rule::DeviceRemoved));
            return None;
        };
        let slot = self.links.get_mut(link.0)?;
        let State::Handshake(handshake) = &mut slot.state else { return None };
        let request = handshake.request.take()?;
        let limits = &self.config.limits;
        device.record.queue.disconnect();
        let (mut opening, changed) = Opening::new(now, grant, request, &mut device.record, limits);
        let revision = device.record.revision;
        if let Some(previous) = device.link.replace(link) {
            let other = self.links.get(previous.0).and_then(|slot| slot.state.link());
            let rule = other.map_or(Rule::Takeover, |other| opening.link.take_over_from(other));
            self.end(previous, CloseReason::Ended(rule));
        }
        if let Some(slot) = self.links.get_mut(link.0) {
            slot.state = State::Opening(opening);
        }
        self.make_ready(link);
        self.schedule_queue(grant.device);
        changed.then_some(Commit { device: grant.device, revision, change: Change::Session })
    }

    /// The CONNECT of `link` is not welcome. CONNACK with the refusal's code is appended to `tx`; the next
    /// [`handle`](Self::handle) gives the [`Close`].
    pub fn refuse(&mut self, link: LinkId, refusal: &Refusal, tx: &mut Vec<u8>) {
        let Some(slot) = self.links.get_mut(link.0) else { return };
        if let State::Handshake(Handshake { request: Some(_), .. }) = slot.state {
            slot.state = State::ended(handshake::refuse(refusal, tx));
        }
    }

    /// Something happened to `link`. What is to be sent at once is appended to `tx`, which must hold what was not
    /// written yet and nothing else.
    ///
    /// # Errors
    /// The end of the connection. Write `tx`, close the transport, then call [`close`](Self::close).
    #[inline(never)] // the result is large: it is written where the caller wants it, and not moved
    pub fn handle<'i>(
        &mut self,
        now: Instant,
        link: LinkId,
        event: Event<'_, 'i>,
        tx: &mut Vec<u8>,
    ) -> Result<Action<'i>, Close> {
        match self.dispatch(now, link, event, tx) {
            Err(close) => Err(self.end_by(link, close)),
            action => action,
        }
    }

    #[inline]
    fn dispatch<'i>(
        &mut self,
        now: Instant,
        link: LinkId,
        event: Event<'_, 'i>,
        tx: &mut Vec<u8>,
    ) -> Result<Action<'i>, Close> {
        let lost = Close::new(CloseReason::Lost);
        let slot = self.links.get_mut(link.0).ok_or(lost)?;
        match (&mut slot.state, event) {
            (State::Live(live), Event::Received(input)) => {
                let device = self.devices.get_mut(live.device.0).ok_or(lost)?;
                let context = receive::Context {
                    now,
                    clock: &self.clock,
                    id: link,
                    limits: &self.config.limits,
                    calls: &mut self.calls,
                    timers: &mut self.timers,
                    admission: &mut self.admission,
                    warnings: &mut self.warnings,
                };
                live.received(context, device, input, tx)
            }
            (State::Handshake(handshake), Event::Received(input)) => handshake.received(input, tx),
            (State::Opening(_), event) => {
                if self.go_live(now, link, tx) {
                    return self.handle(now, link, event, tx);
                }
                match event {
                    Event::Received(_) => Ok(Action::Wait(Wait::Store)),
                    Event::Closed => Err(lost),
                    Event::TimedOut => self.timed_out(now, link, tx),
                }
            }
            (State::Ended { close, .. }, _) => Err(*close),
            (_, Event::Closed) => Err(lost),
            (_, Event::TimedOut) => self.timed_out(now, link, tx),
        }
    }

    fn timed_out(&mut self, now: Instant, link: LinkId, tx: &mut Vec<u8>) -> Result<Action<'static>, Close> {
        let unix_time = self.unix_time(now);
        let slot = self.links.get_mut(link.0).ok_or(Close::new(CloseReason::Lost))?;
        if let Some(reason) = slot.state.due(now, unix_time, self.config.expiry_grace) {
            return Err(Close::new(reason));
        }
        self.schedule_link(link);
        self.handle(now, link, Event::Received(&mut &[][..]), tx)
    }

    /// Telemetry is safe: its PUBACK may go, when it is its turn. One that is told late or twice is harmless.
    #[inline]
    pub fn stored(&mut self, receipt: Receipt) {
        let Some(slot) = self.links.get_mut(receipt.link.0) else { return };
        if let State::Live(live) = &mut slot.state {
            live.pending.stored(receipt.number);
            slot.make_ready(receipt.link, &mut self.ready);
        }
    }

    /// The record is safe up to this revision: a watermark, so one call may stand for many commits.
    pub fn committed(&mut self, device: DeviceKey, up_to: Revision) {
        let Some(slot) = self.devices.get_mut(device.0) else { return };
        slot.committed = slot.committed.max(up_to).min(slot.record.revision);
        if let Some(link) = slot.link {
            self.make_ready(link);
        }
        self.look_for_feedback(device);
    }

    /// A commit could not be made: its link ends, and the record starts again from what is safe.
    pub fn rejected(&mut self, device: DeviceKey, reloaded: DeviceRecord) {
        let Some(slot) = self.devices.get_mut(device.0) else { return };
        // Revisions are not counted twice: what is said late of one that was lost must not be taken for a new one.
        let last = slot.record.revision.max(reloaded.revision);
        slot.record = DeviceRecord { revision: last, ..reloaded };
        slot.record.queue.recover();
        slot.committed = last;
        if let Some(link) = slot.link.take() {
            self.end(link, CloseReason::Ended(Rule::StoreFailed));
        }
        self.schedule_queue(device);
        self.look_for_feedback(device);
    }

    /// The next link that has something to send or to say: call [`poll_transmit`](Self::poll_transmit) for it, and
    /// [`handle`](Self::handle) if it was waiting.
    pub fn poll_ready(&mut self) -> Option<LinkId> {
        while let Some(link) = self.ready.pop_front() {
            if let Some(slot) = self.links.get_mut(link.0) {
                slot.ready = false;
                return Some(link);
            }
        }
        None
    }

    /// Appends to `tx` what waits for `link`: replies that are safe now, notifications, method calls, cloud messages.
    /// It stops when `tx` holds [`Limits::tx_high_water`] bytes.
    ///
    /// # Errors
    /// The end of the connection, as from [`handle`](Self::handle).
    pub fn poll_transmit(&mut self, now: Instant, link: LinkId, tx: &mut Vec<u8>) -> Result<Progress, Close> {
        let gone = Close::new(CloseReason::Lost);
        self.go_live(now, link, tx);
        let slot = self.links.get_mut(link.0).ok_or(gone)?;
        match &mut slot.state {
            State::Ended { close, .. } => Err(*close),
            State::Live(live) => {
                let device = self.devices.get_mut(live.device.0).ok_or(gone)?;
                let progress =
                    live.transmit(device, &mut self.calls, now, &self.clock, &self.config.limits, tx);
                match live.parted(now) {
                    Some(close) => Err(self.end_by(link, close)),
                    None => Ok(progress),
                }
            }
            State::Handshake(_) | State::Opening(_) => Ok(Progress::Idle),
        }
    }

    /// Takes a link away. Its will comes out, unless the device said DISCONNECT `[MQTT-3.14.4-3]`.
    ///
    /// `why` counts only where the machine has not ended the link itself.
    #[must_use = "the will, if there is one, is to be stored as telemetry"]
    pub fn close(&mut self, now: Instant, link: LinkId, why: CloseReason) -> Option<Ended> {
        self.end(link, why);
        let LinkSlot { state, timer, .. } = self.links.remove(link.0)?;
        if timer.is_some() {
            let links = &self.links;
            self.timers.forget_link(|target, at| match target {
                Target::Link(link) => links.get(link.0).is_some_and(|slot| slot.timer == Some(at)),
                Target::Hold(link) => links.get(link.0).is_some(),
                Target::Call(_) | Target::CloudToDeviceQueue(_) => true,
            });
        }
        let State::Ended { device, api_version, will, heard, .. } = state else { return None };
        let unix_time = self.unix_time(now);
        let heard = heard.map(|heard| self.unix_time_of(now, heard));
        let mut was_current = false;
        if let Some(key) = device
            && let Some(slot) = self.devices.get_mut(key.0)
            && slot.link == Some(link)
        {
            slot.link = None;
            was_current = true;
            if heard.is_some() {
                slot.record.activity = Activity { connection_state_updated: Some(unix_time), last: heard };
            }
            self.schedule_queue(key);
        }
        Some(Ended { device, was_current, api_version, will })
    }

    /// An opening link becomes live when the revision that its CONNACK rests on is safe; says whether it did.
    #[cold]
    fn go_live(&mut self, now: Instant, link: LinkId, tx: &mut Vec<u8>) -> bool {
        let Some(slot) = self.links.get_mut(link.0) else { return false };
        let State::Opening(opening) = &slot.state else { return false };
        let Some(device) = self.devices.get_mut(opening.link.device.0) else { return false };
        if !opening.is_safe(device.committed) {
            return false;
        }
        device.record.activity.connection_state_updated = Some(self.clock.unix_time(now));
        let between = State::ended(Close::new(CloseReason::Lost));
        if let State::Opening(opening) = core::mem::replace(&mut slot.state, between) {
            let mut live = opening.open(now, device, &mut self.calls, tx);
            if let Some(until) = self.admission.slow_until(now, live.device) {
                live.hold(&mut self.timers, link, until);
            }
            slot.state = State::Live(live);
            self.schedule_link(link);
        }
        true
    }

    fn make_ready(&mut self, link: LinkId) {
        if let Some(slot) = self.links.get_mut(link.0) {
            slot.make_ready(link, &mut self.ready);
        }
    }

    /// Ends a link from this side; whoever drives it hears of it.
    fn end(&mut self, link: LinkId, reason: CloseReason) {
        let _ = self.end_by(link, Close::new(reason));
        self.make_ready(link);
    }

    /// Ends a link, and with it the deliveries that are under way over it. Gives the end that counts, which is the first.
    #[cold]
    fn end_by(&mut self, link: LinkId, close: Close) -> Close {
        let Some(slot) = self.links.get_mut(link.0) else { return close };
        if let Some(device) = slot.state.end(close)
            && let Some(device) = self.devices.get_mut(device.0).filter(|device| device.link == Some(link))
        {
            device.record.queue.disconnect();
        }
        match slot.state {
            State::Ended { close, .. } => close,
            _ => close,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn connections_that_come_and_go_leave_no_timers_behind() {
        let now = Instant::from_secs(1);
        let mut hub = Hub::new(HubConfig::default(), now, UnixTime::from_secs(1));
        let stays = hub.open(now).expect("there is room");
        for _ in 0..10_000 {
            let link = hub.open(now).expect("there is room");
            assert!(hub.close(now, link, CloseReason::Lost).is_some());
        }
        assert!(hub.timers.len() < 200, "{}", hub.timers.len());
        assert_eq!(hub.expire(now.after(limits::CONNECT_TIME)), Some(Expired::Link(stays)));
    }
}
