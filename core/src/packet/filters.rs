//! What SUBSCRIBE and UNSUBSCRIBE have in common: a packet id, and filters one behind the other.

use alloc::vec::Vec;

use super::encode::{EncodeError, start_with_id};
use super::reader::{DecodeError, Reader, split_field};
use super::{PacketId, TopicFilter};
use crate::rule::Rule;

/// Filters as they stand on the wire: at least one, each with what belongs to it behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filters<'a> {
    pub(super) packet_id: PacketId,
    bytes: &'a [u8],
}

impl<'a> Filters<'a> {
    /// Checks a body of a packet id and filters; `behind` takes what stands behind each filter.
    #[inline]
    pub(super) fn decode(
        mut body: Reader<'a>,
        behind: impl Fn(&mut Reader<'a>) -> Result<(), DecodeError>,
    ) -> Result<Self, DecodeError> {
        let packet_id = body.packet_id()?;
        let bytes = body.remaining();
        // [MQTT-3.8.3-3] [MQTT-3.10.3-2]
        if bytes.is_empty() {
            return Err(body.error(Rule::NoFilters));
        }
        while !body.is_empty() {
            // [MQTT-3.8.3-1] [MQTT-3.10.3-1]
            body.field(Rule::BodyLength)?.topic_filter()?;
            behind(&mut body)?;
        }
        Ok(Self { packet_id, bytes })
    }

    /// The filters in their order; `behind` splits off what stands behind each.
    #[inline]
    pub(super) fn iter<T>(
        self,
        behind: impl Fn(&'a [u8]) -> Option<(T, &'a [u8])> + Clone + 'a,
    ) -> impl Iterator<Item = (TopicFilter<'a>, T)> + Clone + 'a {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            let (filter, after) = split_field(rest)?;
            let (item, after) = behind(after)?;
            rest = after;
            Some((TopicFilter::from_checked(filter), item))
        })
    }

    /// Appends the packet that begins with `first`.
    #[inline(never)]
    pub(super) fn encode(self, first: u8, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        start_with_id(first, self.bytes.len().saturating_add(2), self.packet_id, out)?;
        out.extend_from_slice(self.bytes);
        Ok(())
    }
}

/// Appends the fixed header and the packet id of a packet of filters with these lengths.
#[inline]
pub(super) fn start(
    first: u8,
    packet_id: PacketId,
    lengths: impl ExactSizeIterator<Item = usize>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if lengths.len() == 0 {
        return Err(EncodeError::NoFilters);
    }
    start_with_id(first, lengths.fold(2, usize::saturating_add), packet_id, out)
}
