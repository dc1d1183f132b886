//! UNSUBSCRIBE (MQTT 3.1.1 §3.10).

use alloc::vec::Vec;

use super::decode::{DecodeError, Reader, split_field};
use super::encode::{EncodeError, field, header};
use super::{PacketId, TopicFilter};
use crate::rule::Rule;

const FIRST: u8 = 0xA2; // [MQTT-3.10.1-1]

/// A client asks for the messages of its filters no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    packet_id: PacketId,
    /// Checked: filters as they stand on the wire, at least one.
    filters: &'a [u8],
}

impl<'a> Unsubscribe<'a> {
    /// What the UNSUBACK repeats `[MQTT-3.10.4-4]`.
    #[must_use]
    pub const fn packet_id(&self) -> PacketId {
        self.packet_id
    }

    /// The filters, at least one, in their order.
    #[inline]
    pub fn filters(&self) -> impl Iterator<Item = TopicFilter<'a>> + Clone + 'a {
        let mut rest = self.filters;
        core::iter::from_fn(move || {
            let (filter, behind) = split_field(rest)?;
            rest = behind;
            Some(TopicFilter::from_checked(filter))
        })
    }

    /// Appends an UNSUBSCRIBE for `filters`.
    ///
    /// # Errors
    /// [`EncodeError::NoFilters`] or [`EncodeError::PacketTooLong`], and `out` as it was.
    pub fn encode(
        packet_id: PacketId,
        filters: &[TopicFilter<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if filters.is_empty() {
            return Err(EncodeError::NoFilters);
        }
        let lengths = filters.iter().map(|filter| filter.as_bytes().len().saturating_add(2));
        header(FIRST, lengths.fold(2, usize::saturating_add), out)?;
        out.extend_from_slice(&packet_id.get().to_be_bytes());
        for filter in filters {
            field(filter.as_bytes(), out);
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
        // [MQTT-3.10.3-2]
        if filters.is_empty() {
            return Err(body.error(Rule::NoFilters));
        }
        while !body.is_empty() {
            // [MQTT-3.10.3-1]
            body.field(Rule::BodyLength)?.topic_filter()?;
        }
        Ok(Self { packet_id, filters })
    }
}
