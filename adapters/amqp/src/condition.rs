//! Error conditions by their names on the wire.

use core::fmt;

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
