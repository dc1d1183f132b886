//! One connection, in the server's role.
//!
//! # Theory of operation
//!
//! A connection is bytes and time in, actions out. [`receive`](Connection::receive) takes at most one frame that matters and
//! gives one [`Action`]; what the client has to be sent is appended to the caller's buffer, in order. Commands do the same
//! from the other side: [`accept`](Connection::accept), [`refuse`](Connection::refuse), [`settle`](Connection::settle),
//! [`send`](Connection::send), [`detach`](Connection::detach), [`close`](Connection::close). Each names a link by a
//! [`LinkId`] that is never given twice, so that a command that comes too late does nothing.
//!
#![doc = include_str!("states.md")]
//!
//! # Who is at fault, and what it costs
//!
//! Bytes that cannot be read, and frames in a wrong state, end the connection; what breaks a rule of a session (§2.8.17) ends
//! that session; what breaks a rule of a link (§2.8.18) detaches that link. Each goes with the rule's condition, and with
//! the rule and its fix as the text. A *node* refuses by detaching, never by ending a session: clients wait for ever on an
//! `end` with an error.
//!
//! # What is counted
//!
//! | what | where it comes from | what it bounds |
//! |---|---|---|
//! | incoming window | [`limits::INCOMING_WINDOW`] | transfer frames of the client, per session (§2.5.6) |
//! | remote window | the client's begin and flow | our transfer frames, per session; a message that does not fit waits as the session's `unsent` |
//! | credit of a sending client | [`limits::CREDIT`], less what is unsettled | its messages, per link (§2.6.7); given anew when half is used |
//! | credit of a receiving client | its flow | our messages, per link |
//! | delivery ids | one count per session and direction | a disposition settles a range over all links of a session |
//!
//! All of these are 32-bit serial numbers (RFC 1982): they wrap.
//!
//! [`limits::INCOMING_WINDOW`]: crate::limits::INCOMING_WINDOW
//! [`limits::CREDIT`]: crate::limits::CREDIT

mod action;
mod links;
mod opening;
mod receiving;
mod sending;
mod session;
mod timers;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use devicebound::time::Instant;

pub use action::{Action, AttachRequest, Credentials, Incoming, LinkId};
pub use links::Grant;
pub use sending::Tag;

use session::{Link, LinkState, Session, Settling};

use crate::Failure;
use crate::Rule;
use crate::frame::{self, Frame};
use crate::limits::{BEFORE_AUTHENTICATION_MAX, CHANNEL_MAX, FRAME_MAX, FRAME_MAX_MIN};
use crate::performative::{Begin, Close, Disposition, Flow, Outcome, Performative, Role, write};

/// What every connection of a server has in common.
#[derive(Clone, Debug)]
pub struct Config {
    /// The container id of our `open`.
    pub container_id: Arc<str>,
    /// The product in the properties of our `open`.
    pub product: Arc<str>,
}

/// How far a connection is; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A protocol header is due; the first may be that of SASL.
    Header { after_sasl: bool },
    /// The mechanisms are sent, sasl-init is due.
    Sasl,
    /// The caller decides on what sasl-init brought.
    Deciding,
    /// `open` is due.
    Opening,
    /// Open both ways.
    Open,
    /// Nothing more is sent or looked at.
    Closed,
}

/// One connection with a client.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    phase: Phase,
    began: Instant,
    last_heard: Instant,
    /// Bytes that were taken before it was known whose connection it is; `None` from then on.
    unproven: Option<usize>,
    /// How often the client wants to hear from us, and when it is to next.
    heartbeat: Option<(Duration, Instant)>,
    peer_frame_max: u32,
    peer_channel_max: u16,
    sessions: Vec<Session>,
    /// Channels whose session is over: a bit each. Frames that were on their way are passed over (§2.5.5).
    ended: [u64; 4],
    next_serial: u32,
    settling: Option<Settling>,
    /// Sessions that a command ended, for a rule.
    broken: VecDeque<(u16, Rule)>,
}

/// The breach of a rule, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Connection(Rule),
    Session(u16, Rule),
    Link(LinkId, Rule),
}

impl From<Rule> for Fault {
    fn from(rule: Rule) -> Self {
        Self::Connection(rule)
    }
}

impl Connection {
    /// A connection whose transport is open since `now`.
    #[must_use]
    pub fn new(now: Instant, config: Config) -> Self {
        Self {
            config,
            phase: Phase::Header { after_sasl: false },
            began: now,
            last_heard: now,
            unproven: Some(0),
            heartbeat: None,
            peer_frame_max: FRAME_MAX_MIN,
            peer_channel_max: CHANNEL_MAX,
            sessions: Vec::new(),
            ended: [0; 4],
            next_serial: 0,
            settling: None,
            broken: VecDeque::new(),
        }
    }

    /// Takes bytes off the front of `rx` until there is something to do; [`Action::Wait`] when there is not.
    ///
    /// What is left in `rx` is to be there again, with what comes behind it: a frame is at most [`FRAME_MAX`] bytes.
    pub fn receive<'i>(&mut self, now: Instant, rx: &mut &'i [u8], tx: &mut Vec<u8>) -> Action<'i> {
        loop {
            if let Some(action) = self.next_queued() {
                return action;
            }
            let step = match self.phase {
                Phase::Closed => {
                    *rx = &[];
                    return Action::Wait;
                }
                Phase::Deciding => return Action::Wait,
                Phase::Header { after_sasl } => self.header(after_sasl, rx, tx),
                Phase::Sasl | Phase::Opening | Phase::Open => self.next_frame(now, rx, tx),
            };
            match step {
                Ok(Step::Wait) => return Action::Wait,
                Ok(Step::Next) => {}
                Ok(Step::Do(action)) => return action,
                Err(fault) => return self.fail(fault, tx),
            }
        }
    }

    fn next_frame<'i>(
        &mut self,
        now: Instant,
        rx: &mut &'i [u8],
        tx: &mut Vec<u8>,
    ) -> Result<Step<'i>, Fault> {
        self.check_budget(rx)?;
        let Some(frame) = frame::decode(rx)? else { return Ok(Step::Wait) };
        *rx = rx.get(frame.size..).unwrap_or_default();
        self.last_heard = now;
        if let Some(taken) = &mut self.unproven {
            *taken = taken.saturating_add(frame.size);
        }
        let action = match self.phase {
            Phase::Sasl => self.sasl_frame(frame, tx)?,
            _ if frame.is_sasl => return Err(Rule::FrameType.into()),
            _ if frame.body.is_empty() => None, // a heartbeat (§2.4.5)
            Phase::Opening => Some(self.open(now, frame, tx)?),
            _ => self.open_frame(frame, tx)?,
        };
        Ok(action.map_or(Step::Next, Step::Do))
    }

    /// A frame that goes beyond what a stranger may send is not waited for.
    fn check_budget(&self, rx: &[u8]) -> Result<(), Rule> {
        let (Some(taken), Some(size)) = (self.unproven, rx.first_chunk()) else { return Ok(()) };
        let size = u32::from_be_bytes(*size);
        let total = taken.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        // One that no client may send has a rule of its own.
        if size <= FRAME_MAX && total > BEFORE_AUTHENTICATION_MAX {
            return Err(Rule::AuthenticationBytes);
        }
        Ok(())
    }

    /// A frame of a connection that is open.
    fn open_frame<'i>(&mut self, frame: Frame<'i>, tx: &mut Vec<u8>) -> Result<Option<Action<'i>>, Fault> {
        let channel = frame.channel;
        match Performative::decode(frame.body)? {
            Performative::Open(_) => Err(Rule::OpenFirst.into()),
            Performative::Close(close) => Ok(Some(self.closed(close, tx))),
            Performative::Begin(begin) => self.begin(channel, &begin, tx).map(|()| None),
            performative => {
                let Some(session) = self.session(channel) else {
                    let is_over = self.was_ended(channel);
                    return if is_over { Ok(None) } else { Err(Rule::NoSession.into()) };
                };
                let is_discarding = session.is_discarding;
                match performative {
                    Performative::End(error) => Ok(self.end(channel, error, tx)),
                    _ if is_discarding => Ok(None),
                    Performative::Attach(attach) => self.attach(channel, &attach, tx),
                    Performative::Detach(detach) => self.detached(channel, &detach, tx),
                    Performative::Flow(flow) => self.flow(channel, &flow, tx).map(Some),
                    Performative::Disposition(disposition) => self.disposition(channel, &disposition, tx),
                    Performative::Transfer(transfer, payload) => {
                        self.transfer(channel, &transfer, payload, tx)
                    }
                    // These were dealt with above.
                    Performative::Open(_) | Performative::Begin(_) | Performative::Close(_) => Ok(None),
                }
            }
        }
    }

    /// §2.5.1: the client begins a session; we answer on the same channel number.
    fn begin(&mut self, channel: u16, begin: &Begin, tx: &mut Vec<u8>) -> Result<(), Fault> {
        if channel > CHANNEL_MAX.min(self.peer_channel_max) {
            return Err(Rule::ChannelMax.into());
        }
        // We begin none, so that there is none of ours to answer.
        if self.session(channel).is_some() || begin.remote_channel.is_some() {
            return Err(Rule::ChannelInUse.into());
        }
        if self.sessions.len() >= crate::limits::SESSIONS_MAX {
            return Err(Rule::SessionsMax.into());
        }
        self.sessions.push(Session::new(channel, begin));
        write::begin(tx, channel, crate::limits::INCOMING_WINDOW);
        Ok(())
    }

    /// §2.5.4: the client ends a session, or answers our end.
    fn end<'i>(
        &mut self,
        channel: u16,
        error: Option<crate::performative::PeerError<'i>>,
        tx: &mut Vec<u8>,
    ) -> Option<Action<'i>> {
        let at = self.sessions.iter().position(|session| session.channel == channel)?;
        let session = self.sessions.swap_remove(at);
        self.mark_ended(channel);
        if session.is_discarding {
            return None;
        }
        write::end(tx, channel, None);
        Some(Action::Ended { channel, rule: None, error })
    }

    /// §2.4.3: the client closes.
    fn closed<'i>(&mut self, close: Close<'i>, tx: &mut Vec<u8>) -> Action<'i> {
        write::close(tx, None);
        self.phase = Phase::Closed;
        Action::Closed { rule: Rule::Closed, error: close.error }
    }

    /// The rule is broken: whoever broke it is told, and what that costs it is gone.
    fn fail<'i>(&mut self, fault: Fault, tx: &mut Vec<u8>) -> Action<'i> {
        match fault {
            Fault::Connection(rule) => {
                self.write_last(&Failure::of(rule), tx);
                Action::Closed { rule, error: None }
            }
            Fault::Session(channel, rule) => {
                self.break_session(channel, rule, tx);
                Action::Ended { channel, rule: Some(rule), error: None }
            }
            Fault::Link(link, rule) => {
                self.detach(link, &Failure::of(rule), tx);
                Action::Detached { link, rule: Some(rule), error: None }
            }
        }
    }

    fn break_session(&mut self, channel: u16, rule: Rule, tx: &mut Vec<u8>) {
        let Some(session) = self.session(channel) else { return };
        session.is_discarding = true;
        session.links = Vec::new();
        session.unsettled_in = Vec::new();
        session.unsettled_out = VecDeque::new();
        session.unsent = None;
        write::end(tx, channel, Some(&Failure::of(rule)));
    }

    /// Closes the connection for this reason; nothing more is sent or taken.
    pub fn close(&mut self, failure: &Failure<'_>, tx: &mut Vec<u8>) {
        self.write_last(failure, tx);
    }

    /// What may be said last in each phase (§2.2, §2.4.3, §5.3.3.6).
    fn write_last(&mut self, failure: &Failure<'_>, tx: &mut Vec<u8>) {
        match end_phase(&mut self.phase) {
            Phase::Header { .. } | Phase::Closed => {}
            Phase::Sasl | Phase::Deciding => write::sasl_outcome(tx, opening::OUTCOME_AUTH),
            Phase::Opening => {
                // Close comes behind open only.
                write::open(tx, &self.config.container_id, &self.config.product);
                write::close(tx, Some(failure));
            }
            Phase::Open => write::close(tx, Some(failure)),
        }
    }

    /// §2.7.6: the client settles, or says what it thinks of, deliveries.
    fn disposition<'i>(
        &mut self,
        channel: u16,
        disposition: &Disposition,
        tx: &mut Vec<u8>,
    ) -> Result<Option<Action<'i>>, Fault> {
        let &Disposition { role, first, last, settled, outcome } = disposition;
        if last.wrapping_sub(first) > u32::MAX / 2 {
            return Err(Rule::Field.into());
        }
        let Some(session) = self.session(channel) else { return Ok(None) };
        if role == Role::Sender {
            // Its own deliveries: one that it settles needs no outcome any more.
            let is_in = |id: u32| id.wrapping_sub(first) <= last.wrapping_sub(first);
            while let Some(id) =
                session.unsettled_in.iter().map(|received| received.id).find(|id| settled && is_in(*id))
            {
                if let Some(serial) = session.settle(id) {
                    session.top_up(serial, tx);
                }
            }
            return Ok(None);
        }
        let outcome = match (outcome, settled) {
            (Some(outcome), true) => outcome,
            (Some(outcome), false) => {
                // It waits for us to settle (§2.6.12); what was granted is that it settles first, and it is done at once.
                write::disposition(tx, channel, Role::Sender, (first, last), Ok(outcome));
                outcome
            }
            // Forgotten without an outcome: as if it had not been sent.
            (None, true) => Outcome::Released,
            (None, false) => return Ok(None),
        };
        self.settling = Some(Settling { channel, first, last, outcome });
        Ok(None)
    }

    /// What one frame, or a command, has brought besides its own action.
    fn next_queued<'i>(&mut self) -> Option<Action<'i>> {
        if let Some((channel, rule)) = self.broken.pop_front() {
            return Some(Action::Ended { channel, rule: Some(rule), error: None });
        }
        let Settling { channel, first, last, outcome } = self.settling?;
        let sent = self.session(channel).and_then(|session| session.take_sent(first, last));
        if sent.is_none() {
            self.settling = None;
        }
        sent.map(|sent| Action::Outcome { link: sent.link, tag: sent.tag, outcome })
    }

    /// §2.7.4: windows and credit.
    fn flow<'i>(&mut self, channel: u16, flow: &Flow, tx: &mut Vec<u8>) -> Result<Action<'i>, Fault> {
        let frame_max = self.peer_frame_max;
        let Some(session) = self.session(channel) else { return Err(Rule::NoSession.into()) };
        session.update_window(flow);
        sending::write_unsent(session, frame_max, tx);
        let link = match flow.handle {
            None => None,
            Some(handle) => {
                let link = session.link_at(handle).ok_or(Fault::Session(channel, Rule::NoLink))?;
                link.take_flow(flow);
                Some(link.id(channel))
            }
        };
        if flow.echo {
            let state = link.and_then(|link| session.link(link)).map(|link| link.flow());
            session.write_flow(state, tx);
        }
        Ok(Action::Flow { channel, link })
    }

    /// Whose connection it is is known: the bounds for strangers end.
    pub const fn authenticated(&mut self) {
        self.unproven = None;
    }

    /// Whether [`close`](Self::close) was called, or [`Action::Closed`] given.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    fn session(&mut self, channel: u16) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.channel == channel)
    }

    /// The link, if its session lives.
    fn link(&mut self, id: LinkId) -> Option<(&mut Session, LinkState)> {
        let session = self.session(id.channel).filter(|session| !session.is_discarding)?;
        let state = session.link(id)?.state;
        Some((session, state))
    }

    fn mark_ended(&mut self, channel: u16) {
        if let Some(bits) = self.ended.get_mut(usize::from(channel / 64)) {
            *bits |= 1_u64.wrapping_shl(u32::from(channel % 64));
        }
    }

    fn was_ended(&self, channel: u16) -> bool {
        let bits = self.ended.get(usize::from(channel / 64)).copied().unwrap_or(0);
        bits & 1_u64.wrapping_shl(u32::from(channel % 64)) != 0
    }
}

/// What one look at the bytes came to.
enum Step<'i> {
    Wait,
    Next,
    Do(Action<'i>),
}

/// Ends the connection, and gives the phase that it was in.
const fn end_phase(phase: &mut Phase) -> Phase {
    core::mem::replace(phase, Phase::Closed)
}
