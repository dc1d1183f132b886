//! The device's side of a registration.
//!
//! # Theory of operation
//!
//! A [`Provisioner`] works on one *step*: the register, and once that was answered with an operation id, the question
//! how far the operation is. A step outlives the connection on which it was sent: after a lost connection the same step
//! is done on the next, so that a poll goes on with the same operation id and a register that was not answered is made
//! again. A step is done at its time, which the service's `retry-after` moves, on a connection whose SUBACK has come.
//!
//! ```text
//!          Opened              CONNACK 0, SUBSCRIBE           SUBACK, and its time has come
//!  Offline ─────▶ Opening ──────────────────────▶ Waiting ─────────────────────────────────▶ Asking
//!     ▲              │ 3, time-out                  ▲   202, 429, 5xx: at its time again       │
//!     │              ▼                              └──────────────────────────────────────────┤
//!     └───────── connection over ◀── lost, silence, no answer in time, rule broken ────────────┤
//!                                                                                              ▼
//!                 Done ◀── assigned, failed, disabled, refused; CONNACK 1, 2, 4, 5; out of patience
//! ```
//!
//! The rules for the owner are those of the [device machine](crate::device): pull until `Wait`, then do I/O. After
//! [`Action::Assigned`] or [`Action::Failed`] the machine has said DISCONNECT and returns [`Close`]; it connects no more.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::config::{Credential, ProvisioningConfig, ProvisioningConfigError};
use crate::device::backoff::Backoff;
use crate::device::link::{Pulse, earlier};
use crate::device::{self, DeviceConfig, Event, Wait};
use crate::iothub::provisioning::{
    ANSWERS, Answer, Assignment, ErrorBody, FromService, poll_topic, register_topic,
};
use crate::iothub::{CertificateChain, Identity};
use crate::packet::{
    self, ConnAck, ConnectReturnCode, Decoded, Packet, PacketId, Publish, PublishQoS, QoS, SubAck,
    SubAckCode, Subscribe, TopicFilter, TopicName, decode,
};
use crate::rule::Rule;
use crate::session::legality::{self, Role};
use crate::session::{Close, CloseReason, PacketIds};
use crate::time::{Deadline, Instant, Timer};

/// CONNACK is four bytes long.
const CONNACK_LENGTH: usize = 4;
/// Largest packet from the service: a payload of 96 KB, a chain of certificates and the rest of an assignment (own limit).
const PACKET_MAX: usize = 256 << 10;
/// Bytes in `tx` at which the connection is given up: a service that sends and never reads could otherwise make the
/// acknowledgements grow without end (own limit).
const TX_MAX: usize = 1 << 20;
/// Publishes whose PUBACK is missing, at which the connection is given up (own limit: one request is made at a time).
const UNACKNOWLEDGED_MAX: usize = 4;
/// Nothing but this is sent with a poll, as by Azure's Python and Node SDKs.
const POLL_BODY: &[u8] = b" ";

/// A device's registration with the Device Provisioning Service.
///
/// See the head of this file's module for how it works.
#[derive(Debug)]
pub struct Provisioner {
    config: ProvisioningConfig,
    now: Instant,
    phase: Phase,
    step: Step,
    /// When the step is to be done.
    due: Instant,
    /// When patience ends; `None` before the first event.
    give_up_at: Option<Instant>,
    /// When to connect, while there is no connection; `None` after the end of the registration.
    reconnect_at: Option<Instant>,
    backoff: Backoff,
    packet_ids: PacketIds,
    last_rid: u32,
    /// Why the last try failed, for the failure that patience's end is.
    last_error: Option<ErrorBody>,
}

/// What is to be asked for.
#[derive(Clone, Debug)]
enum Step {
    Register,
    Poll { operation_id: String },
}

#[derive(Debug)]
enum Phase {
    Offline,
    Opening { deadline: Instant },
    Online(Session),
    Ended(Close),
}

#[derive(Debug)]
struct Session {
    since: Instant,
    pulse: Pulse,
    state: State,
    /// Publishes whose PUBACK has not come.
    unacknowledged: Vec<PacketId>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Subscribing { id: PacketId, deadline: Instant },
    Waiting,
    Asking { rid: u32, deadline: Instant },
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// There is nothing to tell: do I/O, then come again.
    Wait(Wait),
    /// A packet was taken that the application has no part in. Pull on.
    Handled,
    /// CONNECT was accepted.
    Connected,
    /// The service is looking for a hub; it is asked again after this time.
    Assigning {
        /// How long.
        after: Duration,
    },
    /// The service is busy or out of order; the same request is made again after this time.
    Delayed {
        /// As in HTTP: 429, or 500 and more.
        status: u16,
        /// How long.
        after: Duration,
    },
    /// The device has a hub. This is the end of the registration.
    Assigned(Box<Provisioned>),
    /// The device has no hub. This is the end of the registration.
    Failed(Failure),
}

/// What a registration has brought.
#[derive(Clone, Debug)]
pub struct Provisioned {
    /// What the device machine is made from. Its credential is the key that the device has registered with, or the
    /// client certificate: the issued one where there is one, else the one that it has registered with.
    pub device: DeviceConfig,
    /// What the service has said.
    pub assignment: Assignment,
    /// The certificates that were issued, where one was asked for; the device has the key.
    pub certificates: Option<CertificateChain>,
}

/// Two are equal that say the same of the assignment.
impl PartialEq for Provisioned {
    fn eq(&self, other: &Self) -> bool {
        self.assignment == other.assignment && self.certificates == other.certificates
    }
}

/// Why a device has no hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// CONNECT was refused: id scope, client id or credentials.
    #[error("CONNECT was refused with {}: check id scope, registration id and key", *.0 as u8)]
    Connect(ConnectReturnCode),
    /// The service has refused the request, and another one will not do better.
    #[error("the service refused with {status}, error {}: {}", .error.code, .error.message)]
    Refused {
        /// As in HTTP.
        status: u16,
        /// What the body said.
        error: ErrorBody,
    },
    /// The service found no hub.
    #[error("the assignment failed, error {}: {}", .0.code, .0.message)]
    Failed(ErrorBody),
    /// The enrollment is disabled.
    #[error("the enrollment is disabled; enable it at the service")]
    Disabled,
    /// The answer makes no sense.
    #[error("the answer of the service makes no sense: {0}")]
    Malformed(&'static str),
    /// The hub speaks another protocol.
    #[error("the hub wants connectionProfile {0}; this machine speaks classic, MQTT 3.1.1")]
    Profile(String),
    /// It took longer than patience. The last error of the service, if it named one.
    #[error("the registration took too long{}", last(.0.as_ref()))]
    TimedOut(Option<ErrorBody>),
}

fn last(error: Option<&ErrorBody>) -> String {
    error.map_or_else(String::new, |error| alloc::format!("; last error {}: {}", error.code, error.message))
}

impl Failure {
    /// Whether the same device may do better later, without anybody changing anything.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::TimedOut(_))
    }
}

/// In words, for logs.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait(wait) => wait.fmt(f),
            Self::Handled => f.write_str("took a packet"),
            Self::Connected => f.write_str("connected to the provisioning service"),
            Self::Assigning { after } => write!(f, "assigning; asked again after {} s", after.as_secs()),
            Self::Delayed { status, after } => write!(f, "busy, {status}; again after {} s", after.as_secs()),
            Self::Assigned(provisioned) => {
                let Assignment { hub, device_id, .. } = &provisioned.assignment;
                write!(f, "assigned to {hub} as {device_id}")
            }
            Self::Failed(failure) => write!(f, "not assigned: {failure}"),
        }
    }
}

impl Provisioner {
    /// A registration that wants to connect.
    ///
    /// # Errors
    /// [`ProvisioningConfigError`] where none could ever be made from the config.
    pub fn new(config: ProvisioningConfig) -> Result<Self, ProvisioningConfigError> {
        config.check()?;
        Ok(Self {
            backoff: Backoff::new(config.registration_id()?.as_str()),
            config,
            now: Instant::default(),
            phase: Phase::Offline,
            step: Step::Register,
            due: Instant::default(),
            give_up_at: None,
            reconnect_at: Some(Instant::default()),
            packet_ids: PacketIds::default(),
            last_rid: 0,
            last_error: None,
        })
    }

    /// What the registration was made from.
    #[must_use]
    pub const fn config(&self) -> &ProvisioningConfig {
        &self.config
    }

    /// Takes an event, and says what is to be done. Bytes to be sent are appended to `tx`.
    ///
    /// At most one packet is taken off the front of what was received.
    ///
    /// # Errors
    /// [`Close`]: the connection is over. Until the owner reports `Closed` or `Opened`, it is returned again.
    pub fn handle(&mut self, now: Instant, event: Event<'_, '_>, tx: &mut Vec<u8>) -> Result<Action, Close> {
        self.now = self.now.max(now);
        self.give_up_at.get_or_insert(self.now.after(self.config.patience));
        match event {
            Event::Opened { jitter, unix_time } => {
                if matches!(self.phase, Phase::Opening { .. } | Phase::Online(_)) {
                    let _ = self.end(Close::new(CloseReason::Lost)); // replaced without a word
                }
                self.backoff.stir(jitter);
                tx.clear(); // what an earlier connection left
                if self.reconnect_at.is_some() {
                    self.config.connect(unix_time, tx).expect("Provisioner::new has written a CONNECT");
                    self.phase = Phase::Opening { deadline: self.now.after(self.config.timing.connack) };
                }
                self.settle(CONNACK_LENGTH, tx)
            }
            Event::Received(rx) => self.pull(rx, tx),
            Event::Closed => self.closed(tx),
            Event::TimedOut => self.timed_out(tx),
        }
    }

    /// When to report [`Event::TimedOut`], and what is waited for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let reconnect_at = self.reconnect_at?; // nothing is waited for after the end
        let own = match &self.phase {
            Phase::Offline => Some(reconnect_at)
                .filter(|&at| at > self.now)
                .map(|at| Deadline { at, why: Timer::Reconnect }),
            Phase::Opening { deadline } => Some(Deadline { at: *deadline, why: Timer::ConnAck }),
            Phase::Online(session) => {
                let at = match session.state {
                    State::Subscribing { deadline, .. } | State::Asking { deadline, .. } => deadline,
                    State::Waiting => self.due,
                };
                Some(earlier(session.pulse.deadline(), Deadline { at, why: Timer::Request }))
            }
            Phase::Ended(_) => return None,
        };
        let patience = self.give_up_at.map(|at| Deadline { at, why: Timer::Request });
        own.into_iter().chain(patience).reduce(earlier)
    }

    fn closed(&mut self, tx: &mut Vec<u8>) -> Result<Action, Close> {
        match self.phase {
            Phase::Opening { .. } | Phase::Online(_) => {
                let close = self.end(Close::new(CloseReason::Lost));
                self.phase = Phase::Offline;
                return Err(close);
            }
            Phase::Ended(_) => self.phase = Phase::Offline,
            // A transport that the machine has asked for could not be opened.
            Phase::Offline if self.reconnect_at.is_some_and(|at| at <= self.now) => {
                let delay = self.backoff.after_failure(&self.config.timing);
                self.reconnect_at = Some(self.now.after(delay));
            }
            Phase::Offline => {}
        }
        self.settle(0, tx)
    }

    fn timed_out(&mut self, tx: &mut Vec<u8>) -> Result<Action, Close> {
        let now = self.now;
        if self.reconnect_at.is_some() && self.give_up_at.is_some_and(|at| at <= now) {
            let last_error = self.last_error.take();
            return Ok(self.finish(Err(Failure::TimedOut(last_error)), tx));
        }
        let overdue = match &mut self.phase {
            Phase::Opening { deadline } if *deadline <= now => Some(Rule::ConnAckTime),
            Phase::Online(session) => {
                if session.pulse.is_ping_due(now) {
                    packet::pingreq(tx);
                }
                match session.state {
                    _ if session.pulse.is_dead(now) => Some(Rule::PingTimeout),
                    State::Subscribing { deadline, .. } if deadline <= now => Some(Rule::AckTime),
                    State::Asking { deadline, .. } if deadline <= now => Some(Rule::ProvisioningAnswer),
                    _ => None,
                }
            }
            _ => None,
        };
        match overdue {
            Some(rule) => Err(self.end(Close::new(CloseReason::TimedOut(rule)))),
            None => self.settle(1, tx),
        }
    }

    /// Takes a packet, or says what to wait for.
    fn pull(&mut self, rx: &mut &[u8], tx: &mut Vec<u8>) -> Result<Action, Close> {
        if !matches!(self.phase, Phase::Opening { .. } | Phase::Online(_)) {
            return self.settle(0, tx);
        }
        if tx.len() >= TX_MAX {
            return Err(self.end(Close::new(CloseReason::Ended(Rule::DeviceBacklog))));
        }
        let whole = *rx;
        let packet = match decode(rx, PACKET_MAX) {
            Ok(Decoded::Packet(packet)) => packet,
            Ok(Decoded::Incomplete { at_least }) => {
                if let Phase::Online(session) = &mut self.phase {
                    session.pulse.receiving(whole.len(), self.now);
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

    fn packet(&mut self, packet: Packet<'_>, tx: &mut Vec<u8>) -> Result<Action, CloseReason> {
        let phase = match self.phase {
            Phase::Online(_) => legality::Phase::Open,
            _ => legality::Phase::Opening,
        };
        legality::check(Role::Device, phase, packet.packet_type()).map_err(CloseReason::Violation)?;
        let unsolicited = CloseReason::Violation(Rule::UnsolicitedAck);
        let session = match &mut self.phase {
            Phase::Online(session) => session,
            _ => return self.connack(packet, tx),
        };
        session.pulse.received(self.now);
        match packet {
            Packet::SubAck(suback) => self.suback(suback),
            Packet::Publish(publish) => self.publish(publish, tx),
            Packet::PubAck(id) => {
                let place = session.unacknowledged.iter().position(|&open| open == id).ok_or(unsolicited)?;
                session.unacknowledged.remove(place);
                Ok(Action::Handled)
            }
            Packet::PingResp => {
                session.pulse.answered();
                Ok(Action::Handled)
            }
            Packet::UnsubAck(_) => Err(unsolicited),
            _ => Err(CloseReason::Violation(Rule::Direction)),
        }
    }

    fn connack(&mut self, packet: Packet<'_>, tx: &mut Vec<u8>) -> Result<Action, CloseReason> {
        match packet {
            Packet::ConnAck(ConnAck::Accepted { .. }) => {}
            Packet::ConnAck(ConnAck::Refused(code)) => {
                let reason = CloseReason::Refused(code, Rule::ConnectRefused);
                if code == ConnectReturnCode::ServerUnavailable {
                    return Err(reason);
                }
                let _ = self.end(Close::new(reason));
                self.reconnect_at = None;
                return Ok(Action::Failed(Failure::Connect(code)));
            }
            _ => return Err(CloseReason::Violation(Rule::ConnAckFirst)),
        }
        let deadline = self.now.after(self.config.timing.request);
        let id = self.packet_ids.allocate(|_| false).unwrap_or(PacketId::MIN); // none is in use
        let filter = TopicFilter::new(ANSWERS).map_err(CloseReason::Violation)?;
        Subscribe::encode(id, &[(filter, QoS::AtLeastOnce)], tx)
            .map_err(|error| CloseReason::Ended(error.rule()))?;
        self.phase = Phase::Online(Session {
            since: self.now,
            pulse: Pulse::new(self.config.keep_alive(), self.config.timing.ping_response, self.now),
            state: State::Subscribing { id, deadline },
            unacknowledged: Vec::new(),
        });
        Ok(Action::Connected)
    }

    fn suback(&mut self, suback: SubAck<'_>) -> Result<Action, CloseReason> {
        let unsolicited = CloseReason::Violation(Rule::UnsolicitedAck);
        let Phase::Online(session) = &mut self.phase else { return Err(unsolicited) };
        match session.state {
            State::Subscribing { id, .. } if id == suback.packet_id() => {}
            _ => return Err(unsolicited),
        }
        let mut codes = suback.return_codes();
        match (codes.next(), codes.next()) {
            (Some(SubAckCode::Granted(_)), None) => {
                session.state = State::Waiting;
                Ok(Action::Handled)
            }
            (Some(SubAckCode::Failure), None) => Err(CloseReason::Ended(Rule::DpsFilter)),
            _ => Err(CloseReason::Violation(Rule::SubAckCount)),
        }
    }

    fn publish(&mut self, publish: Publish<'_>, tx: &mut Vec<u8>) -> Result<Action, CloseReason> {
        match publish.qos {
            PublishQoS::AtMostOnce => {}
            PublishQoS::AtLeastOnce { packet_id, .. } => packet::puback(packet_id, tx),
            PublishQoS::ExactlyOnce { .. } => return Err(CloseReason::Violation(Rule::Qos2Flow)),
        }
        let Phase::Online(session) = &mut self.phase else { return Ok(Action::Handled) };
        let State::Asking { rid, .. } = session.state else { return Ok(Action::Handled) };
        let answer = match FromService::parse(publish.topic) {
            Ok(answer) if answer.rid.as_str() == alloc::format!("{rid}") => answer,
            _ => return Ok(Action::Handled), // late, or none of ours
        };
        session.state = State::Waiting;
        Ok(match Answer::parse(answer.status, answer.retry_after, publish.payload) {
            Answer::Poll { operation_id, after } => {
                self.step = Step::Poll { operation_id };
                self.due = self.now.after(after);
                Action::Assigning { after }
            }
            Answer::Again { status, after, error } => {
                self.due = self.now.after(after);
                self.last_error = Some(error);
                Action::Delayed { status, after }
            }
            Answer::Assigned(assignment) => {
                let outcome = self.provisioned(*assignment);
                self.finish(outcome, tx)
            }
            Answer::Failed(error) => self.finish(Err(Failure::Failed(error)), tx),
            Answer::Disabled => self.finish(Err(Failure::Disabled), tx),
            Answer::Refused { status, error } => self.finish(Err(Failure::Refused { status, error }), tx),
            Answer::Malformed(why) => self.finish(Err(Failure::Malformed(why)), tx),
        })
    }

    /// Checks what the device machine relies on.
    fn provisioned(&self, assignment: Assignment) -> Result<Provisioned, Failure> {
        if let Some(profile) = &assignment.connection_profile
            && !profile.eq_ignore_ascii_case("classic")
        {
            return Err(Failure::Profile(profile.clone()));
        }
        let identity = Identity::new(&assignment.device_id, None)
            .map_err(|_| Failure::Malformed("deviceId is not the id of a device"))?;
        let certificates =
            match assignment.certificates.as_slice() {
                [] => None,
                chain => Some(CertificateChain::from_base64(chain).map_err(|_| {
                    Failure::Malformed("issuedCertificateChain is not a list of certificates")
                })?),
            };
        let credential = match (&self.config.credential, &certificates) {
            (Credential::Key(key), None) => device::Credential::Key(key.clone()),
            (Credential::Certificate, _) | (_, Some(_)) => device::Credential::Certificate,
        };
        let device = DeviceConfig::new(&assignment.hub, identity, credential);
        Ok(Provisioned { device, assignment, certificates })
    }

    /// The registration is over.
    fn finish(&mut self, outcome: Result<Provisioned, Failure>, tx: &mut Vec<u8>) -> Action {
        if matches!(self.phase, Phase::Online(_) | Phase::Opening { .. }) {
            packet::disconnect(tx);
            let _ = self.end(Close::new(CloseReason::Disconnected)); // handle returns it
        }
        self.reconnect_at = None;
        match outcome {
            Ok(provisioned) => Action::Assigned(Box::new(provisioned)),
            Err(failure) => Action::Failed(failure),
        }
    }

    /// What to do when no packet was taken: do the step if its time has come, say what to wait for.
    fn settle(&mut self, at_least: usize, tx: &mut Vec<u8>) -> Result<Action, Close> {
        match &self.phase {
            Phase::Ended(close) => return Err(*close),
            Phase::Online(Session { state: State::Waiting, .. }) if self.due <= self.now => self.ask(tx)?,
            _ => {}
        }
        Ok(Action::Wait(match (&self.phase, self.reconnect_at) {
            (Phase::Online(_) | Phase::Opening { .. }, _) => Wait::Read { at_least: at_least.max(1) },
            (_, Some(at)) => Wait::Connect { after: at.since(self.now) },
            (_, None) => Wait::Nothing,
        }))
    }

    /// Does the step.
    fn ask(&mut self, tx: &mut Vec<u8>) -> Result<(), Close> {
        let Phase::Online(session) = &mut self.phase else { return Ok(()) };
        if session.unacknowledged.len() >= UNACKNOWLEDGED_MAX {
            return Err(self.end(Close::new(CloseReason::TimedOut(Rule::AckTime))));
        }
        self.last_rid = self.last_rid.wrapping_add(1);
        let (rid, mut topic) = (self.last_rid, String::new());
        let body = match &self.step {
            Step::Register => {
                register_topic(rid, &mut topic);
                self.config.register_body().into_bytes()
            }
            Step::Poll { operation_id } => {
                poll_topic(rid, operation_id, &mut topic);
                POLL_BODY.to_vec()
            }
        };
        let in_use = |id| session.unacknowledged.contains(&id);
        let packet_id = self.packet_ids.allocate(in_use).unwrap_or(PacketId::MIN); // four at most are in use
        let sent = TopicName::new(&topic).map(|topic| Publish {
            qos: PublishQoS::AtLeastOnce { packet_id, dup: false },
            retain: false,
            topic,
            payload: &body,
        });
        // An operation id is as long as a packet at most, and may not fit into a topic.
        if !sent.is_ok_and(|publish| publish.encode(tx).is_ok()) {
            return Err(self.end(Close::new(CloseReason::Ended(Rule::TextLength))));
        }
        session.unacknowledged.push(packet_id);
        session.state = State::Asking { rid, deadline: self.now.after(self.config.timing.request) };
        Ok(())
    }

    /// The connection is over; the step is not.
    fn end(&mut self, close: Close) -> Close {
        let lived = match &self.phase {
            Phase::Online(session) => Some(self.now.since(session.since)),
            _ => None,
        };
        let delay = self.backoff.after_close(close.reason(), lived, &self.config.timing);
        self.reconnect_at = Some(self.now.after(delay).max(self.due));
        self.phase = Phase::Ended(close);
        close
    }
}
