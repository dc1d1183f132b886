//! The service's side of one connection.
//!
//! # Theory of operation
//!
//! A [`ServiceLink`] takes CONNECT, hands it out for a verdict ([`Action::Authenticate`]) and then takes registers and
//! polls, which it hands out as well. Their answers come back by [`ServiceLink::answer`] in any order and at any time,
//! and leave in the order of the requests: a device may give two requests the same `$rid`. A connection that is owed
//! [`LinkLimits::requests`] answers is not read.
//!
//! ```text
//!            CONNECT               accept()            DISCONNECT, lost, silence, rule broken, idle
//! Handshake ─────────▶ Judged ───────────────▶ Live ──────────────────────────────────────────────▶ Ended
//!     │ no CONNECT in time, not MQTT  │ refuse(): CONNACK                                              ▲
//!     └───────────────────────────────┴────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A refusal of a request is an answer and never the end of the connection: Azure's Node SDK dies of the latter.

use alloc::borrow::Cow;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use crate::hub::{ConnectRequest, Event, Refusal, Wait, bad_connect, refuse_connect};
use crate::iothub::provisioning::{FromDevice, Username, UsernameError, answer_topic, check_filter};
use crate::iothub::topic::TopicError;
use crate::limits::{CONNECT_MAX, CONNECT_TIME, PACKET_MAX};
use crate::packet::{
    self, ConnAck, Decoded, Packet, Publish, PublishQoS, QoS, SubAck, SubAckCode, Subscribe, TopicName,
    decode,
};
use crate::rule::Rule;
use crate::session::keep_alive::keep_alive_timeout;
use crate::session::legality::{self, Phase as MqttPhase, Role};
use crate::session::{Close, CloseReason, PacketIds};
use crate::time::{Deadline, Instant, Timer};

/// Whether the first packet in `received` is a CONNECT that belongs to the provisioning service, by its user name, whether
/// it is a good one or not. False while the packet is not whole.
#[must_use]
pub fn is_for_provisioning(mut received: &[u8]) -> bool {
    let Ok(Decoded::Packet(Packet::Connect(connect))) = decode(&mut received, CONNECT_MAX) else {
        return false;
    };
    connect.credentials.is_some_and(|credentials| {
        let read = Username::parse(credentials.username.as_str(), connect.client_id.as_str());
        !matches!(read, Err(UsernameError::NotProvisioning))
    })
}

/// How much one connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// Time from accept to a complete CONNECT: 30 s, as at the hub.
    pub connect_time: Duration,
    /// Requests without answer, from which on the connection is not read: 4. Devices make one at a time.
    pub requests: usize,
    /// How long a connection lasts on which nothing is asked for: 5 min (own choice).
    pub idle: Duration,
    /// Bytes in `tx` from which on the connection is not read: 64 KiB.
    pub tx_high_water: usize,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            connect_time: CONNECT_TIME,
            requests: 4,
            idle: Duration::from_secs(300),
            tx_high_water: 64 << 10,
        }
    }
}

/// What a connection wants done. After any event, pull with [`Event::Received`] until [`ServiceAction::Wait`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum ServiceAction<'i> {
    /// There is nothing to tell: do I/O, then come again. [`Wait::Store`] stands for an answer that is owed.
    Wait(Wait),
    /// A packet was taken that the owner has no part in. Pull on.
    Handled,
    /// Whether the CONNECT is welcome is to be said by [`ServiceLink::accept`] or [`ServiceLink::refuse`].
    Authenticate(ConnectRequest<'i>),
    /// The device asks for something; the answer is due by [`ServiceLink::answer`].
    Request(RequestTicket, ServiceRequest<'i>),
}

/// What a device asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceRequest<'i> {
    /// To be assigned to a hub.
    Register {
        /// For [`RegisterBody::parse`](crate::iothub::provisioning::RegisterBody::parse).
        body: &'i [u8],
    },
    /// How far that is.
    Poll {
        /// What the register was answered with.
        operation_id: Cow<'i, str>,
    },
}

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestTicket(u64);

/// A connection to the service.
///
/// See the head of this file's module for how it works.
#[derive(Debug)]
pub struct ServiceLink {
    limits: LinkLimits,
    now: Instant,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Handshake { deadline: Instant },
    Judged { keep_alive: u16, deadline: Instant },
    Live(Live),
    Ended(Close),
}

#[derive(Debug)]
struct Live {
    patience: Duration,
    last_heard: Instant,
    /// When something was asked for, or answered.
    last_used: Instant,
    subscribed: Option<QoS>,
    owed: VecDeque<Owed>,
    next_ticket: u64,
    packet_ids: PacketIds,
}

/// A request whose answer has not left.
#[derive(Debug)]
struct Owed {
    ticket: RequestTicket,
    rid: String,
    answer: Option<Reply>,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    retry_after: Option<u32>,
    body: Vec<u8>,
}

impl ServiceLink {
    /// A transport was accepted.
    #[must_use]
    pub fn new(now: Instant, limits: LinkLimits) -> Self {
        let deadline = now.after(limits.connect_time);
        Self { limits, now, phase: Phase::Handshake { deadline } }
    }

    /// Something happened to the connection. What is to be sent at once is appended to `tx`, which must hold what was
    /// not written yet and nothing else.
    ///
    /// # Errors
    /// The end of the connection. Write `tx`, and close the transport.
    pub fn handle<'i>(
        &mut self,
        now: Instant,
        event: Event<'_, 'i>,
        tx: &mut Vec<u8>,
    ) -> Result<ServiceAction<'i>, Close> {
        self.now = self.now.max(now);
        let result = match (&self.phase, event) {
            (Phase::Ended(close), _) => Err(*close),
            (_, Event::Closed) => Err(Close::new(CloseReason::Lost)),
            (_, Event::TimedOut) => match self.overdue() {
                Some(reason) => Err(Close::new(reason)),
                None => self.pull(&mut &[][..], tx),
            },
            (_, Event::Received(input)) => self.pull(input, tx),
        };
        if let Err(close) = result {
            self.phase = Phase::Ended(close);
        }
        result
    }

    /// When to report [`Event::TimedOut`], and what is waited for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        match &self.phase {
            Phase::Handshake { deadline } | Phase::Judged { deadline, .. } => {
                Some(Deadline { at: *deadline, why: Timer::Handshake })
            }
            Phase::Live(live) => {
                let silent = live.last_heard.after(live.patience);
                let idle = live.last_used.after(self.limits.idle);
                Some(Deadline {
                    at: if live.owed.is_empty() { silent.min(idle) } else { silent },
                    why: Timer::KeepAlive,
                })
            }
            Phase::Ended(_) => None,
        }
    }

    /// The CONNECT is welcome. CONNACK is appended to `tx`. Nothing happens if no CONNECT is waiting.
    pub fn accept(&mut self, now: Instant, tx: &mut Vec<u8>) {
        self.now = self.now.max(now);
        if let Phase::Judged { keep_alive, .. } = self.phase {
            ConnAck::Accepted { session_present: false }.encode(tx);
            self.phase = Phase::Live(Live {
                patience: keep_alive_timeout(keep_alive),
                last_heard: self.now,
                last_used: self.now,
                subscribed: None,
                owed: VecDeque::new(),
                next_ticket: 0,
                packet_ids: PacketIds::default(),
            });
        }
    }

    /// The CONNECT is not welcome. CONNACK with the refusal's code is appended to `tx`; the next
    /// [`handle`](Self::handle) gives the [`Close`].
    pub fn refuse(&mut self, refusal: &Refusal, tx: &mut Vec<u8>) {
        if matches!(self.phase, Phase::Judged { .. }) {
            self.phase = Phase::Ended(refuse_connect(refusal, tx));
        }
    }

    /// Answers a request: with `status`, seconds to wait before the next request, and JSON. It is appended to `tx` when
    /// those before it have left. One for a request of an earlier connection, or a second one, is dropped; so is one to a
    /// device that has not subscribed to answers.
    pub fn answer(
        &mut self,
        now: Instant,
        ticket: RequestTicket,
        status: u16,
        retry_after: Option<u32>,
        body: Vec<u8>,
        tx: &mut Vec<u8>,
    ) {
        self.now = self.now.max(now);
        let Phase::Live(live) = &mut self.phase else { return };
        if let Some(owed) = live.owed.iter_mut().find(|owed| owed.ticket == ticket) {
            owed.answer.get_or_insert(Reply { status, retry_after, body });
        }
        live.last_used = self.now;
        while let Some(Owed { answer: Some(_), .. }) = live.owed.front() {
            let Some(Owed { rid, answer: Some(reply), .. }) = live.owed.pop_front() else { return };
            live.send(&rid, &reply, tx);
        }
    }

    fn overdue(&self) -> Option<CloseReason> {
        match &self.phase {
            Phase::Handshake { deadline } | Phase::Judged { deadline, .. } if *deadline <= self.now => {
                Some(CloseReason::TimedOut(Rule::ConnectTime))
            }
            Phase::Live(live) if live.last_heard.after(live.patience) <= self.now => {
                Some(CloseReason::TimedOut(Rule::KeepAlive))
            }
            Phase::Live(live)
                if live.owed.is_empty() && live.last_used.after(self.limits.idle) <= self.now =>
            {
                Some(CloseReason::TimedOut(Rule::DpsIdle))
            }
            _ => None,
        }
    }

    fn pull<'i>(&mut self, input: &mut &'i [u8], tx: &mut Vec<u8>) -> Result<ServiceAction<'i>, Close> {
        let phase = match &self.phase {
            Phase::Handshake { .. } => MqttPhase::Opening,
            Phase::Judged { .. } => return Ok(ServiceAction::Wait(Wait::Verdict)),
            Phase::Live(live) if live.owed.len() >= self.limits.requests => {
                return Ok(ServiceAction::Wait(Wait::Store));
            }
            Phase::Live(_) if tx.len() >= self.limits.tx_high_water => {
                return Ok(ServiceAction::Wait(Wait::Flush));
            }
            Phase::Live(_) => MqttPhase::Open,
            Phase::Ended(close) => return Err(*close),
        };
        legality::check_front(Role::Hub, phase, input)?;
        let whole = *input;
        let limit = if phase == MqttPhase::Opening { CONNECT_MAX } else { PACKET_MAX };
        let packet = match decode(input, limit) {
            Ok(Decoded::Packet(packet)) => packet,
            Ok(Decoded::Incomplete { at_least }) => return Ok(ServiceAction::Wait(Wait::Read { at_least })),
            Err(error) if phase == MqttPhase::Opening => {
                return Err(bad_connect(error.rule(), error.at(), tx));
            }
            Err(error) => return Err(Close::at(CloseReason::Malformed(error.rule()), error.at())),
        };
        let limits = &self.limits;
        let taken = match (&mut self.phase, packet) {
            (Phase::Handshake { deadline }, Packet::Connect(connect)) => {
                let (keep_alive, deadline) = (connect.keep_alive, *deadline);
                self.phase = Phase::Judged { keep_alive, deadline };
                return Ok(ServiceAction::Authenticate(ConnectRequest { connect }));
            }
            (Phase::Live(live), packet) => live.packet(self.now, limits, packet, tx),
            _ => Err(CloseReason::Violation(Rule::ConnectFirst)),
        };
        taken.map_err(|reason| {
            let length = whole.len().saturating_sub(input.len());
            *input = whole;
            Close::at(reason, 0..length)
        })
    }
}

impl Live {
    fn packet<'i>(
        &mut self,
        now: Instant,
        limits: &LinkLimits,
        packet: Packet<'i>,
        tx: &mut Vec<u8>,
    ) -> Result<ServiceAction<'i>, CloseReason> {
        self.last_heard = now;
        match packet {
            Packet::Publish(publish) => return self.publish(now, publish, tx),
            Packet::Subscribe(subscribe) => self.subscribe(&subscribe, limits, tx)?,
            Packet::Unsubscribe(unsubscribe) => {
                if unsubscribe.filters().any(|filter| check_filter(filter).is_ok()) {
                    self.subscribed = None;
                }
                packet::unsuback(unsubscribe.packet_id(), tx);
            }
            Packet::PingReq => packet::pingresp(tx),
            Packet::PubAck(_) => {} // answers are sent once
            Packet::Disconnect => return Err(CloseReason::Disconnected),
            _ => return Err(CloseReason::Violation(Rule::Direction)),
        }
        Ok(ServiceAction::Handled)
    }

    fn subscribe(
        &mut self,
        subscribe: &Subscribe<'_>,
        limits: &LinkLimits,
        tx: &mut Vec<u8>,
    ) -> Result<(), CloseReason> {
        let mut codes = Vec::new();
        for (filter, qos) in subscribe.filters() {
            check_filter(filter).map_err(|_| CloseReason::Violation(Rule::DpsFilter))?;
            if codes.len() >= limits.requests {
                return Err(CloseReason::Violation(Rule::TooManyFilters));
            }
            let qos = qos.min(QoS::AtLeastOnce);
            codes.push(SubAckCode::Granted(qos));
            self.subscribed = Some(qos);
        }
        let sent = SubAck::encode(subscribe.packet_id(), codes.into_iter(), tx);
        sent.map_err(|error| CloseReason::Violation(error.rule()))
    }

    fn publish<'i>(
        &mut self,
        now: Instant,
        publish: Publish<'i>,
        tx: &mut Vec<u8>,
    ) -> Result<ServiceAction<'i>, CloseReason> {
        let acknowledge = match publish.qos {
            PublishQoS::AtMostOnce => None,
            PublishQoS::AtLeastOnce { packet_id, .. } => Some(packet_id),
            PublishQoS::ExactlyOnce { .. } => return Err(CloseReason::Violation(Rule::PublishQos2)),
        };
        let request = FromDevice::parse(publish.topic).map_err(|error| {
            CloseReason::Violation(match error {
                TopicError::Malformed(rule) => rule,
                _ => Rule::DpsTopic,
            })
        })?;
        if let Some(packet_id) = acknowledge {
            packet::puback(packet_id, tx);
        }
        self.last_used = now;
        let ticket = RequestTicket(self.next_ticket);
        self.next_ticket = self.next_ticket.wrapping_add(1);
        self.owed.push_back(Owed { ticket, rid: request.rid().to_string(), answer: None });
        let request = match request {
            FromDevice::Register { .. } => ServiceRequest::Register { body: publish.payload },
            FromDevice::Poll { operation_id, .. } => ServiceRequest::Poll { operation_id },
        };
        Ok(ServiceAction::Request(ticket, request))
    }

    fn send(&mut self, rid: &str, reply: &Reply, tx: &mut Vec<u8>) {
        let Some(qos) = self.subscribed else { return };
        let qos = match (qos, self.packet_ids.allocate(|_| false)) {
            (QoS::AtLeastOnce, Some(packet_id)) => PublishQoS::AtLeastOnce { packet_id, dup: false },
            _ => PublishQoS::AtMostOnce,
        };
        let mut topic = String::new();
        answer_topic(reply.status, rid, reply.retry_after, &mut topic);
        // A rid is 1024 bytes at most, so that the topic is none too long.
        if let Ok(topic) = TopicName::new(&topic) {
            let _ = Publish { qos, retain: false, topic, payload: &reply.body }.encode(tx); // fails at 256 MB
        }
    }
}
