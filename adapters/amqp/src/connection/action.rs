//! What a connection wants done.

use alloc::borrow::Cow;
use core::fmt;

use crate::Rule;
use crate::performative::{Open, Outcome, PeerError, Role, Terminus};
use crate::types::{Map, Value};

/// A link of a connection. No two links of a connection have the same, even one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    // First, so that a newer link is greater.
    pub(super) serial: u32,
    pub(super) channel: u16,
    pub(super) handle: u32,
}

impl LinkId {
    /// The channel of its session.
    #[must_use]
    pub const fn channel(self) -> u16 {
        self.channel
    }
}

/// Channel and handle, for people.
impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.channel, self.handle)
    }
}

/// What is to be done. It borrows the received bytes and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub enum Action<'i> {
    /// Nothing, until more bytes come, a call of yours decides, or time passes.
    Wait,
    /// Check these credentials and say [`authenticate`](super::Connection::authenticate); nothing is read before.
    Authenticate(Credentials<'i>),
    /// The connection is open both ways.
    Opened(Open<'i>),
    /// Answer with [`accept`](super::Connection::accept) or [`refuse`](super::Connection::refuse), now or later.
    Attach(AttachRequest<'i>),
    /// A message came. Unless it is settled, [`settle`](super::Connection::settle) it, now or later.
    Message(Incoming<'i>),
    /// The machine itself refused a message, and has told the client.
    Refused {
        /// The link.
        link: LinkId,
        /// Why.
        rule: Rule,
    },
    /// There may be room to [`send`](super::Connection::send) on the links of this session.
    Flow {
        /// The session.
        channel: u16,
        /// The link whose credit changed; `None` where it was the session's window alone.
        link: Option<LinkId>,
    },
    /// The outcome of a delivery that was sent with a tag.
    Outcome {
        /// The link that it was sent on.
        link: LinkId,
        /// Its tag.
        tag: [u8; 16],
        /// What became of it.
        outcome: Outcome,
    },
    /// The link is gone, and what was unsettled on it is released.
    Detached {
        /// The link.
        link: LinkId,
        /// The rule that the client broke, if it did: it has been told.
        rule: Option<Rule>,
        /// Why the client detached, if it said so.
        error: Option<PeerError<'i>>,
    },
    /// The session is gone with all of its links, as above.
    Ended {
        /// The session.
        channel: u16,
        /// The rule that the client broke, if it did: it has been told.
        rule: Option<Rule>,
        /// Why the client ended it, if it said so.
        error: Option<PeerError<'i>>,
    },
    /// The connection is over: write what is in `tx`, then close. What still comes is not looked at.
    Closed {
        /// The rule that the client broke, or the one that names an end in good order.
        rule: Rule,
        /// Why the client closed, if it said so.
        error: Option<PeerError<'i>>,
    },
}

/// What a client shows in SASL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials<'i> {
    /// PLAIN (RFC 4616).
    Plain {
        /// Who it says that it is.
        user: &'i str,
        /// The token.
        password: &'i str,
    },
    /// EXTERNAL: what the transport knows, a client certificate.
    External,
}

/// A link that a client wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttachRequest<'i> {
    /// The link.
    pub link: LinkId,
    /// Its name.
    pub name: &'i str,
    /// The role of the client.
    pub role: Role,
    /// Where it wants messages from.
    pub source: Option<Terminus<'i>>,
    /// Where it wants messages to go.
    pub target: Option<Terminus<'i>>,
    /// Capabilities that it would like.
    pub desired_capabilities: Value<'i>,
    /// Further properties.
    pub properties: Option<Map<'i>>,
}

/// A message from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming<'i> {
    /// The link that it came on.
    pub link: LinkId,
    /// By what to settle it.
    pub delivery_id: u32,
    /// The client does not wait for an outcome.
    pub settled: bool,
    /// 0, or a vendor's own (§2.8.11).
    pub format: u32,
    /// The sections.
    pub payload: Cow<'i, [u8]>,
}
