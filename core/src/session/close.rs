//! Why a connection is over.

use core::fmt;
use core::ops::Range;

use crate::Rule;
use crate::packet::ConnectReturnCode;

/// The end of a connection: why, and where in the bytes that were given it stands.
///
/// A machine that returned it returns it again: an end is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the transport is to be closed, after what is in `tx` was written"]
pub struct Close {
    reason: CloseReason,
    start: u32,
    end: u32,
}

/// The causes of an end, sorted by who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer's bytes are not MQTT 3.1.1.
    Malformed(Rule),
    /// The peer's bytes are MQTT, and break a rule.
    Violation(Rule),
    /// CONNECT was answered with a return code other than 0.
    Refused(ConnectReturnCode, Rule),
    /// What had to come in time did not.
    TimedOut(Rule),
    /// This side, or its owner, ended the connection: takeover, expiry, removal, stop.
    Ended(Rule),
    /// The transport ended without DISCONNECT.
    Lost,
    /// The client said DISCONNECT.
    Disconnected,
}

impl CloseReason {
    /// The rule that was broken, or that names this end.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Malformed(rule)
            | Self::Violation(rule)
            | Self::Refused(_, rule)
            | Self::TimedOut(rule)
            | Self::Ended(rule) => rule,
            Self::Lost => Rule::ConnectionLost,
            Self::Disconnected => Rule::Disconnect,
        }
    }
}

impl Close {
    /// An end for which no received bytes are to blame.
    pub const fn new(reason: CloseReason) -> Self {
        Self { reason, start: 0, end: 0 }
    }

    /// An end because of the bytes at `at`, counted from the front of the input that the event carried.
    #[cfg(any(feature = "device", feature = "hub"))]
    pub(crate) fn at(reason: CloseReason, at: Range<usize>) -> Self {
        let clamp = |offset| u32::try_from(offset).unwrap_or(u32::MAX);
        Self { reason, start: clamp(at.start), end: clamp(at.end) }
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> CloseReason {
        self.reason
    }

    /// The rule that was broken, or that names this end.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        self.reason.rule()
    }

    /// What to do about it, one sentence to the person whose device it is: that of the rule, and for a CONNECT that was refused
    /// the usual causes.
    #[must_use]
    pub const fn fix(&self) -> &'static str {
        use ConnectReturnCode as Code;
        match self.reason {
            CloseReason::Refused(Code::UnacceptableProtocolVersion, _) => {
                "connect with MQTT 3.1.1, protocol level 4"
            }
            CloseReason::Refused(Code::IdentifierRejected, _) => {
                "check that the client id is the device id, or {device id}/{module id}"
            }
            CloseReason::Refused(Code::ServerUnavailable, _) => {
                "nothing to fix unless it lasts: the hub is starting, or throttles connections, or its quota is used up"
            }
            CloseReason::Refused(Code::BadUserNameOrPassword | Code::NotAuthorized, _) => {
                "check, in this order: the device's clock (a token has expired or is made in the past), that the key or thumbprint is the one in the registry, that the device is registered in this hub and enabled, that the token's sr names this host and device"
            }
            _ => self.rule().fix(),
        }
    }

    /// The offending bytes, counted from the front of the input that the event carried, which is not advanced
    /// past them; empty where no bytes are to blame.
    #[must_use]
    pub const fn offending(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The rule's id, what it says, and how to fix a breach.
impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.rule().says())?;
        if self.start < self.end {
            write!(f, " (bytes {}..{})", self.start, self.end)?;
        }
        write!(f, "; {}", self.fix())
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.rule();
        match self {
            Self::Malformed(_) => write!(f, "not MQTT, {rule}"),
            Self::Violation(_) => write!(f, "rule broken, {rule}"),
            Self::Refused(code, _) => write!(f, "CONNECT refused with {}, {rule}", *code as u8),
            Self::TimedOut(_) => write!(f, "timed out, {rule}"),
            Self::Ended(_) => write!(f, "ended, {rule}"),
            Self::Lost => write!(f, "connection lost, {rule}"),
            Self::Disconnected => write!(f, "disconnected, {rule}"),
        }
    }
}

impl core::error::Error for Close {}
