//! What all encoders share: the fixed header and length-prefixed fields. And the packets that are nothing but a header.
//!
//! An encoder judges all it has to judge, makes room once, and then only appends.

use alloc::vec::Vec;

use crate::limits::REMAINING_LENGTH_MAX;
use crate::rule::Rule;

/// Why a packet cannot be written. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The packet would be longer than four bytes of remaining length can say: 268 435 455 bytes.
    #[error("the packet would be longer than 268435455 bytes")]
    PacketTooLong,
    /// A field would be longer than its length can say: 65 535 bytes.
    #[error("a field of the packet would be longer than 65535 bytes")]
    FieldTooLong,
    /// Client id or user name contain U+0000.
    #[error("client id or user name contain U+0000")]
    Nul,
    /// The client id is empty, and the session is not a clean one.
    #[error("an empty client id needs a clean session")]
    EmptyClientId,
    /// A SUBSCRIBE or UNSUBSCRIBE without a filter.
    #[error("there is no filter to subscribe or to unsubscribe")]
    NoFilters,
    /// A SUBACK without a return code.
    #[error("there is no return code to answer with")]
    NoReturnCodes,
}

impl EncodeError {
    /// The rule that the packet would break.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::PacketTooLong => Rule::RemainingLength,
            Self::FieldTooLong => Rule::TextLength,
            Self::Nul => Rule::Utf8Nul,
            Self::EmptyClientId => Rule::EmptyClientId,
            Self::NoFilters => Rule::NoFilters,
            Self::NoReturnCodes => Rule::SubAckCode,
        }
    }
}

/// Appends a PINGREQ (MQTT 3.1.1 §3.12).
#[inline]
pub fn pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xC0, 0]);
}

/// Appends a PINGRESP (MQTT 3.1.1 §3.13).
#[inline]
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xD0, 0]);
}

/// Appends a DISCONNECT (MQTT 3.1.1 §3.14).
#[inline]
pub fn disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xE0, 0]);
}

/// Makes room for a whole packet and appends its fixed header, the remaining length in as few bytes as will do
/// (MQTT 3.1.1 §2.2.3).
#[inline]
pub(super) fn header(first: u8, length: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if length > REMAINING_LENGTH_MAX {
        return Err(EncodeError::PacketTooLong);
    }
    out.reserve(length.saturating_add(5));
    let last = |shift: u32| (length >> shift) as u8 & 0x7F;
    let more = |shift: u32| last(shift) | 0x80;
    match length {
        0..=0x7F => out.extend_from_slice(&[first, last(0)]),
        0x80..=0x3FFF => out.extend_from_slice(&[first, more(0), last(7)]),
        0x4000..=0x1F_FFFF => out.extend_from_slice(&[first, more(0), more(7), last(14)]),
        _ => out.extend_from_slice(&[first, more(0), more(7), more(14), last(21)]),
    }
    Ok(())
}

/// Appends a field with its length of two bytes. The field is known to be no longer than that length can say.
#[inline]
pub(super) fn field(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}
