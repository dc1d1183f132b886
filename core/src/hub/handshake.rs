//! Before the first CONNACK: whose connection is this, and may it be?

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::telemetry::Will;
use super::warnings::Comparison;
use super::{Action, ConnectRequest, Wait};
use crate::iothub::topic::FromDevice;
use crate::iothub::{Identity, Username};
use crate::limits::CONNECT_MAX;
use crate::packet::{ConnAck, Connect, ConnectReturnCode, Decoded, Packet, decode};
use crate::rule::Rule;
use crate::session::legality::{self, Phase, Role};
use crate::session::{Close, CloseReason};
use crate::time::Instant;

/// A connection of which nothing is known yet.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) deadline: Instant,
    /// The CONNECT that waits for its verdict.
    pub(super) request: Option<Request>,
}

/// Which device the first packet of a connection names, so that its bytes can be brought to where that device's record
/// is. `None` while the packet is not whole, and for what names no device: any [`Hub`](super::Hub) can judge that.
#[must_use]
pub fn device_of(mut received: &[u8]) -> Option<&str> {
    match decode(&mut received, CONNECT_MAX) {
        Ok(Decoded::Packet(Packet::Connect(connect))) => {
            Identity::from_client_id(connect.client_id.as_str()).ok().map(Identity::device_id)
        }
        Ok(_) | Err(_) => None,
    }
}

/// What is kept of a CONNECT while its verdict is out.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) clean_session: bool,
    pub(super) keep_alive: u16,
    pub(super) will: Option<Will>,
    pub(super) model_id: Option<String>,
}

/// A verdict against.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CONNECT refused with {}, {rule}: {}; {}", *.return_code as u8, .rule.says(), .rule.fix())]
pub struct Refusal {
    return_code: ConnectReturnCode,
    rule: Rule,
    comparison: Option<Box<Comparison>>,
}

impl Refusal {
    /// Not authorized, 5: the answer to every identity that cannot be shown, whatever is wrong with it.
    #[must_use]
    pub const fn not_authorized(rule: Rule) -> Self {
        Self { return_code: ConnectReturnCode::NotAuthorized, rule, comparison: None }
    }

    /// Server unavailable, 3: not now. Clients come again.
    #[must_use]
    pub const fn unavailable(rule: Rule) -> Self {
        Self { return_code: ConnectReturnCode::ServerUnavailable, rule, comparison: None }
    }

    /// The same, with what came and what it was compared with.
    #[must_use]
    pub fn with(self, comparison: Comparison) -> Self {
        Self { comparison: Some(Box::new(comparison)), ..self }
    }

    /// What CONNACK says.
    #[must_use]
    pub const fn return_code(&self) -> ConnectReturnCode {
        self.return_code
    }

    /// The rule that was broken, for the log: the device is not told.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        self.rule
    }

    /// What came, and what it was compared with, for the log: the device is not told.
    #[must_use]
    pub fn comparison(&self) -> Option<&Comparison> {
        self.comparison.as_deref()
    }
}

impl Handshake {
    pub(super) fn new(now: Instant, time: Duration) -> Self {
        Self { deadline: now.after(time), request: None }
    }

    pub(super) fn received<'i>(
        &mut self,
        input: &mut &'i [u8],
        tx: &mut Vec<u8>,
    ) -> Result<Action<'i>, Close> {
        if self.request.is_some() {
            return Ok(Action::Wait(Wait::Verdict));
        }
        legality::check_front(Role::Hub, Phase::Opening, input)?;
        let whole = *input;
        let connect = match decode(input, CONNECT_MAX) {
            Ok(Decoded::Packet(Packet::Connect(connect))) => connect,
            Ok(Decoded::Packet(_)) => return Err(Close::new(CloseReason::Violation(Rule::ConnectFirst))),
            Ok(Decoded::Incomplete { at_least }) => return Ok(Action::Wait(Wait::Read { at_least })),
            Err(error) => return Err(answer_bad_connect(error.rule(), error.at(), tx)),
        };
        let (client_id, will) = (connect.client_id.as_str(), connect.will);
        if client_id.is_empty() {
            *input = whole;
            // The text is empty: its length is shown.
            let end = offset(client_id.as_bytes(), whole);
            return Err(refused(
                ConnectReturnCode::IdentifierRejected,
                Rule::ClientId,
                end.saturating_sub(2)..end,
                tx,
            )); // [MQTT-3.1.3-9]
        }
        if let Err(rule) = self.keep(&connect) {
            *input = whole;
            let at = match (rule, will) {
                (Rule::WillTopic, Some(will)) => part(will.topic.as_bytes(), whole),
                _ => part(client_id.as_bytes(), whole),
            };
            return Err(refused(ConnectReturnCode::NotAuthorized, rule, at, tx));
        }
        Ok(Action::Authenticate(ConnectRequest { connect }))
    }

    /// Keeps what outlives the input. A will on any topic but the identity's own telemetry topic is refused.
    fn keep(&mut self, connect: &Connect<'_>) -> Result<(), Rule> {
        let will = connect.will.map(|will| {
            let identity =
                Identity::from_client_id(connect.client_id.as_str()).map_err(|_| Rule::ClientId)?;
            match FromDevice::parse(will.topic, identity) {
                Ok(FromDevice::Telemetry(bag)) => Ok(Will {
                    properties: bag.as_str().to_string(),
                    payload: Vec::from(will.message),
                    retain: will.retain,
                }),
                Ok(_) | Err(_) => Err(Rule::WillTopic),
            }
        });
        let model_id = connect
            .credentials
            .and_then(|credentials| {
                Username::parse(credentials.username.as_str(), connect.client_id.as_str()).ok()
            })
            .and_then(|username| username.model_id().map(|model| model.to_string()));
        self.request = Some(Request {
            clean_session: connect.clean_session,
            keep_alive: connect.keep_alive,
            will: will.transpose()?,
            model_id,
        });
        Ok(())
    }
}

/// The one place that says which CONNECT that cannot be read gets an answer.
pub(crate) fn answer_bad_connect(rule: Rule, at: Range<usize>, tx: &mut Vec<u8>) -> Close {
    let code = match rule {
        Rule::ProtocolLevel => ConnectReturnCode::UnacceptableProtocolVersion, // [MQTT-3.1.2-2]
        Rule::EmptyClientId => ConnectReturnCode::IdentifierRejected,          // [MQTT-3.1.3-8]
        _ => return Close::at(CloseReason::Malformed(rule), at),               // [MQTT-3.1.4-1]
    };
    refused(code, rule, at, tx)
}

/// Refuses a CONNECT for the part of it that stands at `at`.
fn refused(code: ConnectReturnCode, rule: Rule, at: Range<usize>, tx: &mut Vec<u8>) -> Close {
    ConnAck::Refused(code).encode(tx);
    Close::at(CloseReason::Refused(code, rule), at)
}

/// Where `part` of `input` begins, found by its address.
fn offset(part: &[u8], input: &[u8]) -> usize {
    part.as_ptr().addr().saturating_sub(input.as_ptr().addr())
}

/// Where `part` of `input` stands.
fn part(part: &[u8], input: &[u8]) -> Range<usize> {
    let start = offset(part, input);
    start..start.saturating_add(part.len())
}

/// Appends the CONNACK of a refusal `[MQTT-3.2.2-5]`.
pub(crate) fn refuse(refusal: &Refusal, tx: &mut Vec<u8>) -> Close {
    refused(refusal.return_code(), refusal.rule(), 0..0, tx)
}
