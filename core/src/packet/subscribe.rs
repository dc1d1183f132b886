//! SUBSCRIBE (MQTT 3.1.1 §3.8).

use alloc::vec::Vec;

use super::encode::{EncodeError, field};
use super::filters::{Filters, start};
use super::reader::{DecodeError, Reader};
use super::{PacketId, QoS, TopicFilter};
use crate::rule::Rule;

const FIRST: u8 = 0x82; // [MQTT-3.8.1-1]

/// A client asks for the messages that match one of its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a>(Filters<'a>);

impl<'a> Subscribe<'a> {
    /// What the SUBACK repeats `[MQTT-3.8.4-2]`.
    #[must_use]
    pub const fn packet_id(&self) -> PacketId {
        self.0.packet_id
    }

    /// The filters, at least one, in their order, each with the QoS that the client asks for.
    #[inline]
    pub fn filters(&self) -> impl Iterator<Item = (TopicFilter<'a>, QoS)> + Clone + 'a {
        self.0.iter(|behind| {
            let (&qos, behind) = behind.split_first()?;
            Some((QoS::from_bits(qos)?, behind))
        })
    }

    /// Appends a SUBSCRIBE for `filters`.
    ///
    /// # Errors
    /// [`EncodeError::NoFilters`] or [`EncodeError::PacketTooLong`], and `out` as it was.
    pub fn encode(
        packet_id: PacketId,
        filters: &[(TopicFilter<'_>, QoS)],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let lengths = filters.iter().map(|(filter, _)| filter.as_bytes().len().saturating_add(3));
        start(FIRST, packet_id, lengths, out)?;
        for &(filter, qos) in filters {
            field(filter.as_bytes(), out);
            out.push(qos as u8);
        }
        Ok(())
    }

    pub(super) fn encode_again(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.0.encode(FIRST, out)
    }

    #[inline]
    pub(super) fn decode(body: Reader<'a>) -> Result<Self, DecodeError> {
        Filters::decode(body, |behind| {
            let at_qos = *behind;
            // [MQTT-3.8.3-4]
            match QoS::from_bits(behind.u8()?) {
                Some(_) => Ok(()),
                None => Err(at_qos.error_in(Rule::RequestedQos, 0, 1)),
            }
        })
        .map(Self)
    }
}
