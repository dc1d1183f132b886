//! SUBSCRIBE (MQTT 3.1.1 §3.8).

use alloc::vec::Vec;

use super::decode::{DecodeError, Reader, split_field};
use super::encode::{EncodeError, field, header};
use super::{PacketId, QoS, TopicFilter};
use crate::rule::Rule;

const FIRST: u8 = 0x82; // [MQTT-3.8.1-1]

/// A client asks for the messages that match one of its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    packet_id: PacketId,
    /// Checked: filters as they stand on the wire, each with its QoS, at least one.
    filters: &'a [u8],
}

impl<'a> Subscribe<'a> {
    /// What the SUBACK repeats `[MQTT-3.8.4-2]`.
    #[must_use]
    pub const fn packet_id(&self) -> PacketId {
        self.packet_id
    }

    /// The filters, at least one, in their order, each with the QoS that the client asks for.
    #[inline]
    pub fn filters(&self) -> impl Iterator<Item = (TopicFilter<'a>, QoS)> + Clone + 'a {
        let mut rest = self.filters;
        core::iter::from_fn(move || {
            let (filter, behind) = split_field(rest)?;
            let (&qos, behind) = behind.split_first()?;
            rest = behind;
            Some((TopicFilter::from_checked(filter), QoS::from_bits(qos)?))
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
        if filters.is_empty() {
            return Err(EncodeError::NoFilters);
        }
        let lengths = filters.iter().map(|(filter, _)| filter.as_bytes().len().saturating_add(3));
        header(FIRST, lengths.fold(2, usize::saturating_add), out)?;
        out.extend_from_slice(&packet_id.get().to_be_bytes());
        for &(filter, qos) in filters {
            field(filter.as_bytes(), out);
            out.push(qos as u8);
        }
        Ok(())
    }

    pub(super) fn encode_again(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        header(FIRST, self.filters.len().saturating_add(2), out)?;
        out.extend_from_slice(&self.packet_id.get().to_be_bytes());
        out.extend_from_slice(self.filters);
        Ok(())
    }

    #[inline(never)]
    pub(super) fn decode(mut body: Reader<'a>) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id()?;
        let filters = body.remaining();
        // [MQTT-3.8.3-3]
        if filters.is_empty() {
            return Err(body.error(Rule::NoFilters));
        }
        while !body.is_empty() {
            // [MQTT-3.8.3-1]
            body.field(Rule::BodyLength)?.topic_filter()?;
            let at_qos = body;
            // [MQTT-3.8.3-4]
            if QoS::from_bits(body.u8()?).is_none() {
                return Err(at_qos.error_in(Rule::RequestedQos, 0, 1));
            }
        }
        Ok(Self { packet_id, filters })
    }
}
