//! SUBACK (MQTT 3.1.1 §3.9).

use alloc::vec::Vec;

use super::encode::{EncodeError, start_with_id};
use super::reader::{DecodeError, Reader};
use super::{PacketId, QoS};
use crate::rule::Rule;

const FAILURE: u8 = 0x80;

/// The server's answer to SUBSCRIBE: one return code per filter, in the order of the filters `[MQTT-3.9.3-1]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    packet_id: PacketId,
    /// Checked: at least one, each a return code.
    codes: &'a [u8],
}

/// What became of one filter `[MQTT-3.8.4-5]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubAckCode {
    /// Subscribed; messages come at this QoS at most.
    Granted(QoS),
    /// Not subscribed.
    Failure,
}

impl SubAckCode {
    const fn from_byte(byte: u8) -> Option<Self> {
        match (QoS::from_bits(byte), byte) {
            (Some(qos), _) => Some(Self::Granted(qos)),
            (None, FAILURE) => Some(Self::Failure),
            (None, _) => None,
        }
    }

    const fn to_byte(self) -> u8 {
        match self {
            Self::Granted(qos) => qos as u8,
            Self::Failure => FAILURE,
        }
    }
}

impl<'a> SubAck<'a> {
    /// The packet id of the SUBSCRIBE that this answers `[MQTT-3.8.4-2]`.
    #[must_use]
    pub const fn packet_id(&self) -> PacketId {
        self.packet_id
    }

    /// The return codes, at least one, in the order of the filters.
    pub fn return_codes(&self) -> impl ExactSizeIterator<Item = SubAckCode> + Clone + 'a {
        // Decoding let nothing but return codes in, so that no other byte is taken for a failure here.
        self.codes.iter().map(|&byte| SubAckCode::from_byte(byte).unwrap_or(SubAckCode::Failure))
    }

    /// Appends a SUBACK with `codes`, one per filter of the SUBSCRIBE with `packet_id`.
    ///
    /// # Errors
    /// [`EncodeError::NoReturnCodes`] or [`EncodeError::PacketTooLong`], and `out` as it was.
    pub fn encode(
        packet_id: PacketId,
        codes: impl ExactSizeIterator<Item = SubAckCode>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if codes.len() == 0 {
            return Err(EncodeError::NoReturnCodes);
        }
        start_with_id(0x90, codes.len().saturating_add(2), packet_id, out)?;
        out.extend(codes.map(SubAckCode::to_byte));
        Ok(())
    }

    #[inline(never)]
    pub(super) fn encode_again(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        start_with_id(0x90, self.codes.len().saturating_add(2), self.packet_id, out)?;
        out.extend_from_slice(self.codes);
        Ok(())
    }

    #[inline]
    pub(super) fn decode(mut body: Reader<'a>) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id()?;
        let codes = body.remaining();
        // [MQTT-3.8.4-5]: a code per filter, and SUBSCRIBE has at least one.
        if codes.is_empty() {
            return Err(body.error(Rule::SubAckCode));
        }
        // [MQTT-3.9.3-2]: first whether, and only then where, as a branch for each code costs more than the code.
        let wrong = |byte: &u8| SubAckCode::from_byte(*byte).is_none();
        if codes.iter().fold(false, |found, byte| found | wrong(byte)) {
            let right = codes.iter().take_while(|byte| !wrong(byte)).count();
            return Err(body.error_in(Rule::SubAckCode, right, 1));
        }
        Ok(Self { packet_id, codes })
    }
}
