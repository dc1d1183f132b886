//! The rule book: every rule that a client can break has an id, what it says, how to fix a breach, and where it is written.

use core::fmt;

use crate::Condition;

macro_rules! rules {
    ($($name:ident = $id:literal, $source:literal, $condition:ident, says $says:literal, fix $fix:literal;)*) => {
        /// One rule of AMQP 1.0 (`AMQP-…`) or of the hub's dialect (`HUB-AMQP-…`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = concat!("`", $id, "`: ", $says)] $name,)*
        }

        impl Rule {
            /// Every rule, in the order of this file.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The id: a section of AMQP 1.0 with a word, or a name of ours that starts with `HUB-AMQP-`.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// What the rule says, one sentence.
            #[must_use]
            pub const fn says(self) -> &'static str {
                match self { $(Self::$name => $says,)* }
            }

            /// What to do about a breach, one sentence to the person whose client it is.
            #[must_use]
            pub const fn fix(self) -> &'static str {
                match self { $(Self::$name => $fix,)* }
            }

            /// Where the rule is written.
            #[must_use]
            pub const fn source(self) -> &'static str {
                match self { $(Self::$name => $source,)* }
            }

            /// The error condition that the client is told.
            #[must_use]
            pub const fn condition(self) -> Condition {
                match self { $(Self::$name => Condition::$condition,)* }
            }
        }
    };
}

rules! {
    // Bytes
    ProtocolHeader = "AMQP-2.2", "AMQP 1.0 §2.2", FramingError,
        says "a connection begins with the protocol header AMQP 0 1 0 0 or, for SASL, AMQP 3 1 0 0",
        fix "use an AMQP 1.0 client; AMQP 0.9.1 (RabbitMQ's own) and TLS inside of AMQP are other protocols";
    FrameSize = "AMQP-2.3.1-SIZE", "AMQP 1.0 §2.3.1", FramingError,
        says "a frame has 8 bytes at least, and at most the max-frame-size of the hub's open, before that 65536",
        fix "keep to the max-frame-size of the hub's open, and split larger messages into several transfers";
    DataOffset = "AMQP-2.3.1-DOFF", "AMQP 1.0 §2.3.1", FramingError,
        says "the data offset is at least 2 and lies within the frame", fix "write the data offset as 2";
    FrameType = "AMQP-2.3.1-TYPE", "AMQP 1.0 §2.3.1", FramingError,
        says "a frame is an AMQP frame (0), during SASL a SASL frame (1)",
        fix "check that nothing but AMQP frames is written to the connection";
    Encoding = "AMQP-1.2", "AMQP 1.0 §1.2, §1.6", DecodeError,
        says "a value has a known constructor and as many bytes as that and its size say",
        fix "check the encoder of the client: the bytes are no AMQP value";
    Text = "AMQP-1.6.20", "AMQP 1.0 §1.6.20, §1.6.21", DecodeError,
        says "a string is UTF-8 and a symbol is ASCII", fix "encode strings as UTF-8";
    Depth = "HUB-AMQP-DEPTH", "own limit, see limits::DEPTH_MAX", DecodeError,
        says "a value is nested at most 32 levels deep", fix "flatten the value";
    MapKeys = "AMQP-1.6.23", "AMQP 1.0 §1.6.23; limits::MAP_MAX", DecodeError,
        says "a map has pairs of keys and values, at most 4096", fix "send each property once, and fewer of them";
    Performative = "AMQP-2.7", "AMQP 1.0 §2.7", DecodeError,
        says "the body of a frame is a performative that belongs there",
        fix "check the client's AMQP library: the hub knows open to close of AMQP 1.0, and during SASL sasl-init";
    Field = "AMQP-1.4", "AMQP 1.0 §1.4, §2.7", DecodeError,
        says "a performative has the fields of its definition: mandatory ones are there, each has its type, there are no more",
        fix "check the client's AMQP library against the definition of this performative";
    Payload = "AMQP-2.3.2", "AMQP 1.0 §2.3.2", DecodeError,
        says "only a transfer has bytes behind its performative", fix "end the frame where the performative ends";
    Sections = "AMQP-3.2", "AMQP 1.0 §3.2", DecodeError,
        says "a message is its sections in order: header, annotations, properties, application properties, body, footer",
        fix "check the client's AMQP library: sections are out of order, twice there or unknown";

    // SASL
    SaslOrder = "AMQP-5.3.2", "AMQP 1.0 §5.3.2", NotAllowed,
        says "the client answers the mechanisms with one sasl-init", fix "send sasl-init once, then wait for the outcome";
    SaslMechanism = "AMQP-5.3.3.2", "AMQP 1.0 §5.3.3.2", NotAllowed,
        says "the mechanism is one of those offered: MSSBCBS, PLAIN, ANONYMOUS, EXTERNAL",
        fix "use ANONYMOUS or MSSBCBS with a token to $cbs, or PLAIN with {policy}@sas.root.{hub} and a token";
    SaslResponse = "AMQP-5.3.3.2-PLAIN", "RFC 4616 §2", NotAllowed,
        says "PLAIN is NUL, user, NUL, password", fix "send an empty authorization id, the user and the token, each behind a NUL but the first";

    // Connection
    OpenFirst = "AMQP-2.4.1", "AMQP 1.0 §2.4.1", NotAllowed,
        says "the first frame is open, and it is sent once", fix "send open once, before all other frames";
    IdleTime = "AMQP-2.4.5", "AMQP 1.0 §2.4.5", NotAllowed,
        says "the idle-time-out of a client is at least one second", fix "ask for a longer idle-time-out, such as 60000";
    Silence = "AMQP-2.4.5-SILENCE", "AMQP 1.0 §2.4.5", ResourceLimitExceeded,
        says "a client sends a frame within the idle-time-out of the hub's open, an empty one if need be",
        fix "send an empty frame every 120 s";
    ChannelMax = "AMQP-2.7.1", "AMQP 1.0 §2.7.1", FramingError,
        says "a channel number is at most the channel-max of both opens", fix "number channels from 0; the hub takes 0 to 255";
    AuthenticationTime = "HUB-AMQP-AUTH-TIME", "IoT Hub MQTT 5 preview: 30 s", UnauthorizedAccess,
        says "a connection shows within 30 s who it is", fix "put a token to $cbs as soon as the connection is open";
    AuthenticationBytes = "HUB-AMQP-AUTH-BYTES", "own limit, see limits::BEFORE_AUTHENTICATION_MAX", ResourceLimitExceeded,
        says "a connection shows within its first 16.5 KiB who it is", fix "put a token to $cbs before anything else";

    // Sessions
    ChannelInUse = "AMQP-2.5.1", "AMQP 1.0 §2.5.1", NotAllowed,
        says "begin is for a channel without a session", fix "end the session before the channel is used again";
    NoSession = "AMQP-2.5.1-NONE", "AMQP 1.0 §2.5.1", NotAllowed,
        says "the first frame on a channel is begin", fix "send begin before other frames on this channel";
    SessionsMax = "HUB-AMQP-SESSIONS", "own limit, see limits::SESSIONS_MAX", ResourceLimitExceeded,
        says "a connection has at most 64 sessions", fix "share a session among links, or open another connection";
    Window = "AMQP-2.5.6", "AMQP 1.0 §2.5.6, §2.8.17", WindowViolation,
        says "a client sends no more transfers than the session's incoming-window allows", fix "wait for the hub's flow when the window is used up";
    HandleMax = "AMQP-2.7.2", "AMQP 1.0 §2.7.2", FramingError,
        says "a handle is at most the handle-max of both begins", fix "number handles from 0; the hub takes 0 to 255 in a session";
    HandleInUse = "AMQP-2.6.2", "AMQP 1.0 §2.6.2, §2.8.17", HandleInUse,
        says "attach is for a handle without a link", fix "detach the link before its handle is used again";
    NoLink = "AMQP-2.6.2-NONE", "AMQP 1.0 §2.8.17", UnattachedHandle,
        says "flow, transfer and detach are for a handle that is attached", fix "attach the link first";

    // Links
    LinksMax = "HUB-AMQP-LINKS", "own limit, see limits::LINKS_MAX", ResourceLimitExceeded,
        says "a connection has at most 1024 links", fix "detach links that are not needed, or open another connection";
    LinkName = "AMQP-2.6.1", "AMQP 1.0 §2.6.1; limits::LINK_NAME_MAX", NotAllowed,
        says "a link has a name of at most 512 bytes that no other link of this direction has", fix "give each link a name of its own, such as a UUID";
    Terminus = "HUB-AMQP-TERMINUS", "own limit, see limits::ADDRESS_MAX and FILTER_MAX", NotAllowed,
        says "an address has at most 1024 bytes, a filter set at most 2048", fix "check the address and the filters of the link";
    NotImplemented = "AMQP-4", "AMQP 1.0 §4, §3.5.3", NotImplemented,
        says "the hub has no transactions, no dynamic nodes, and resumes no deliveries", fix "use plain links to the addresses that the hub documents";
    FrameMaxSmall = "AMQP-2.8.16", "AMQP 1.0 §2.8.16", FrameSizeTooSmall,
        says "what the hub has to answer fits the max-frame-size of the client", fix "ask for a larger max-frame-size, such as 65536";
    Role = "AMQP-2.8.18", "AMQP 1.0 §2.7.5, §2.8.17", ErrantLink,
        says "a transfer comes on a link whose sender the client is", fix "attach a link with role sender for what is sent";
    Credit = "AMQP-2.6.7", "AMQP 1.0 §2.6.7, §2.8.18", TransferLimitExceeded,
        says "a client sends no more messages than the link has credit", fix "wait for the hub's flow when the credit is used up";
    Delivery = "AMQP-2.7.5", "AMQP 1.0 §2.7.5", NotAllowed,
        says "the first transfer of a delivery has an id that is not in use and a tag of at most 32 bytes, and further ones repeat or omit them",
        fix "number deliveries upwards in each session, and finish one delivery before the next begins on the link";
    MessageSize = "AMQP-2.7.3", "AMQP 1.0 §2.7.3; IoT Hub quotas", MessageSizeExceeded,
        says "a message is not larger than the max-message-size of the hub's attach", fix "send less in one message; 64 KB go to a device, 256 KB to the hub";
    PartialMax = "HUB-AMQP-PARTIAL", "own limit, see limits::PARTIAL_MAX", ResourceLimitExceeded,
        says "the messages that a connection has begun and not ended have at most 1 MiB", fix "finish one message before the next begins";

    // Ends of a connection that break no rule
    Closed = "AMQP-2.4.3", "AMQP 1.0 §2.4.3", None,
        says "close ends a connection in good order", fix "nothing to fix";
    Lost = "HUB-AMQP-LOST", "AMQP 1.0 §2.4.3", None,
        says "a connection that ends without close is lost", fix "close the client before the program ends";
    Stopping = "HUB-AMQP-STOPPING", "AMQP 1.0 §2.8.16", ConnectionForced,
        says "the hub is stopping and closes its connections", fix "connect again";
}

/// The id.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}
