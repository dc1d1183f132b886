//! The performatives (AMQP 1.0 §2.7, §5.3.3) and what they are made of (§2.8, §3.4, §3.5).
//!
//! What comes is read leniently: trailing fields may be left out, a symbol may be a string, capabilities may be anything.
//! What goes is written in full: pyamqp reads fields by their position and takes no list that ends early.

mod read;
pub(crate) mod write;

pub use read::{
    Attach, Begin, Close, Detach, Disposition, Flow, Open, PeerError, Performative, SaslInit, Terminus,
    Transfer,
};

/// Descriptors: the low byte of `0x00000000:0x000000..`, with the names that mean the same.
pub(crate) mod descriptor {
    pub(crate) const OPEN: u8 = 0x10;
    pub(crate) const BEGIN: u8 = 0x11;
    pub(crate) const ATTACH: u8 = 0x12;
    pub(crate) const FLOW: u8 = 0x13;
    pub(crate) const TRANSFER: u8 = 0x14;
    pub(crate) const DISPOSITION: u8 = 0x15;
    pub(crate) const DETACH: u8 = 0x16;
    pub(crate) const END: u8 = 0x17;
    pub(crate) const CLOSE: u8 = 0x18;
    pub(crate) const ERROR: u8 = 0x1d;
    pub(crate) const RECEIVED: u8 = 0x23;
    pub(crate) const ACCEPTED: u8 = 0x24;
    pub(crate) const REJECTED: u8 = 0x25;
    pub(crate) const RELEASED: u8 = 0x26;
    pub(crate) const MODIFIED: u8 = 0x27;
    pub(crate) const SOURCE: u8 = 0x28;
    pub(crate) const TARGET: u8 = 0x29;
    pub(crate) const COORDINATOR: u8 = 0x30;
    pub(crate) const SASL_MECHANISMS: u8 = 0x40;
    pub(crate) const SASL_INIT: u8 = 0x41;
    pub(crate) const SASL_OUTCOME: u8 = 0x44;
    pub(crate) const HEADER: u8 = 0x70;
    pub(crate) const DELIVERY_ANNOTATIONS: u8 = 0x71;
    pub(crate) const MESSAGE_ANNOTATIONS: u8 = 0x72;
    pub(crate) const PROPERTIES: u8 = 0x73;
    pub(crate) const APPLICATION_PROPERTIES: u8 = 0x74;
    pub(crate) const DATA: u8 = 0x75;
    pub(crate) const SEQUENCE: u8 = 0x76;
    pub(crate) const VALUE: u8 = 0x77;
    pub(crate) const FOOTER: u8 = 0x78;

    const NAMES: [(&str, u8); 27] = [
        ("amqp:open:list", OPEN),
        ("amqp:begin:list", BEGIN),
        ("amqp:attach:list", ATTACH),
        ("amqp:flow:list", FLOW),
        ("amqp:transfer:list", TRANSFER),
        ("amqp:disposition:list", DISPOSITION),
        ("amqp:detach:list", DETACH),
        ("amqp:end:list", END),
        ("amqp:close:list", CLOSE),
        ("amqp:error:list", ERROR),
        ("amqp:received:list", RECEIVED),
        ("amqp:accepted:list", ACCEPTED),
        ("amqp:rejected:list", REJECTED),
        ("amqp:released:list", RELEASED),
        ("amqp:modified:list", MODIFIED),
        ("amqp:source:list", SOURCE),
        ("amqp:target:list", TARGET),
        ("amqp:coordinator:list", COORDINATOR),
        ("amqp:sasl-init:list", SASL_INIT),
        ("amqp:header:list", HEADER),
        ("amqp:delivery-annotations:map", DELIVERY_ANNOTATIONS),
        ("amqp:message-annotations:map", MESSAGE_ANNOTATIONS),
        ("amqp:properties:list", PROPERTIES),
        ("amqp:application-properties:map", APPLICATION_PROPERTIES),
        ("amqp:data:binary", DATA),
        ("amqp:amqp-value:*", VALUE),
        ("amqp:footer:map", FOOTER),
    ];

    /// The code of a descriptor, be it number or name.
    pub(crate) fn of(value: crate::types::Value<'_>) -> Option<u8> {
        match value {
            crate::types::Value::Ulong(code) => u8::try_from(code).ok(),
            value => {
                let name = value.text()?;
                NAMES.iter().find(|(known, _)| *known == name).map(|(_, code)| *code)
            }
        }
    }
}

/// What became of a delivery (§3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done with, as it should be.
    Accepted,
    /// Not acceptable, now and later.
    Rejected,
    /// Not taken: as if it had not been sent.
    Released,
    /// Not taken, perhaps with a reason to count it.
    Modified {
        /// The delivery counts as one that failed.
        delivery_failed: bool,
        /// This receiver does not want it again.
        undeliverable_here: bool,
    },
}

/// Which side of a link (§2.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It sends messages.
    Sender,
    /// It receives messages.
    Receiver,
}
