//! Error conditions, and what goes with one on the wire.

use alloc::borrow::Cow;
use core::fmt;

use crate::Rule;

macro_rules! conditions {
    ($($name:ident = $text:literal;)*) => {
        /// An error condition by its name (AMQP 1.0 §2.8.15 to §2.8.18, and those that Azure's clients know).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names are those of the wire")]
        #[non_exhaustive]
        pub enum Condition {
            /// No error.
            None,
            $(#[doc = concat!("`", $text, "`")] $name,)*
        }

        impl Condition {
            /// The symbol on the wire; empty for [`None`](Self::None).
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { Self::None => "", $(Self::$name => $text,)* }
            }
        }
    };
}

conditions! {
    InternalError = "amqp:internal-error";
    NotFound = "amqp:not-found";
    UnauthorizedAccess = "amqp:unauthorized-access";
    DecodeError = "amqp:decode-error";
    ResourceLimitExceeded = "amqp:resource-limit-exceeded";
    NotAllowed = "amqp:not-allowed";
    NotImplemented = "amqp:not-implemented";
    FrameSizeTooSmall = "amqp:frame-size-too-small";
    ConnectionForced = "amqp:connection:forced";
    FramingError = "amqp:connection:framing-error";
    WindowViolation = "amqp:session:window-violation";
    ErrantLink = "amqp:session:errant-link";
    HandleInUse = "amqp:session:handle-in-use";
    UnattachedHandle = "amqp:session:unattached-handle";
    DetachForced = "amqp:link:detach-forced";
    TransferLimitExceeded = "amqp:link:transfer-limit-exceeded";
    MessageSizeExceeded = "amqp:link:message-size-exceeded";
    Redirect = "amqp:link:redirect";
    Stolen = "amqp:link:stolen";
    ArgumentError = "com.microsoft:argument-error";
    ArgumentOutOfRange = "com.microsoft:argument-out-of-range";
    PreconditionFailed = "com.microsoft:precondition-failed";
    ServerBusy = "com.microsoft:server-busy";
    Timeout = "com.microsoft:timeout";
    QuotaExceeded = "com.microsoft:quota-exceeded";
    Throttled = "com.microsoft:device-container-throttled";
    MessageLockLost = "com.microsoft:message-lock-lost";
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value of an error's info map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info<'a> {
    /// A string.
    Text(&'a str),
    /// An int.
    Int(i32),
}

/// An error as it goes to a client (AMQP 1.0 §2.8.14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure<'a> {
    /// What programs read.
    pub condition: Condition,
    /// What people read; cut to [`DESCRIPTION_MAX`](crate::limits::DESCRIPTION_MAX) bytes on the wire.
    pub description: Cow<'a, str>,
    /// The info map, with symbols as keys.
    pub info: &'a [(&'a str, Info<'a>)],
}

impl<'a> Failure<'a> {
    /// An error without an info map.
    #[must_use]
    pub fn new(condition: Condition, description: impl Into<Cow<'a, str>>) -> Self {
        Self { condition, description: description.into(), info: &[] }
    }

    /// The breach of a rule: the text says the rule and the fix.
    #[must_use]
    pub fn of(rule: Rule) -> Self {
        Self::new(rule.condition(), alloc::format!("{}: {}; fix: {}", rule.id(), rule.says(), rule.fix()))
    }
}
