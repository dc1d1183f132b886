//! UNSUBSCRIBE (MQTT 3.1.1 §3.10).

use alloc::vec::Vec;

use super::encode::{EncodeError, field};
use super::filters::{Filters, start};
use super::reader::{DecodeError, Reader};
use super::{PacketId, TopicFilter};

const FIRST: u8 = 0xA2; // [MQTT-3.10.1-1]

/// A client asks for the messages of its filters no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a>(Filters<'a>);

impl<'a> Unsubscribe<'a> {
    /// What the UNSUBACK repeats `[MQTT-3.10.4-4]`.
    #[must_use]
    pub const fn packet_id(&self) -> PacketId {
        self.0.packet_id
    }

    /// The filters, at least one, in their order.
    #[inline]
    pub fn filters(&self) -> impl Iterator<Item = TopicFilter<'a>> + Clone + 'a {
        self.0.iter(|behind| Some(((), behind))).map(|(filter, ())| filter)
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
        start(FIRST, packet_id, filters.iter().map(|filter| filter.as_bytes().len().saturating_add(2)), out)?;
        for filter in filters {
            field(filter.as_bytes(), out);
        }
        Ok(())
    }

    pub(super) fn encode_again(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.0.encode(FIRST, out)
    }

    #[inline]
    pub(super) fn decode(body: Reader<'a>) -> Result<Self, DecodeError> {
        Filters::decode(body, |_| Ok(())).map(Self)
    }
}
