//! Bytes to packets: the fixed header, and which decoder has the rest.

use super::reader::{DecodeError, Reader};
use super::{ConnAck, Connect, Packet, PacketId, PacketType, Publish, SubAck, Subscribe, Unsubscribe};
use crate::rule::Rule;

/// What [`decode`] found at the front of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole packet, taken off the input.
    Packet(Packet<'a>),
    /// The start of a packet, nothing wrong with it so far. Nothing was taken.
    Incomplete {
        /// How many bytes have to come at least before it is worth looking again; never 0.
        at_least: usize,
    },
}

/// Takes one packet off the front of `input`, if there is a whole one.
///
/// `limit` is the largest remaining length to put up with. A packet that is longer, and one whose first byte or whose
/// length is wrong, is refused as soon as its fixed header is there, and what follows it is never waited for. The
/// verdict on a packet does not depend on what stands behind it, nor on the steps in which it came.
///
/// Padded remaining lengths of up to four bytes are taken, and so are controls and noncharacters in text: MQTT 3.1.1
/// forbids none of them to a receiver.
///
/// # Errors
/// [`DecodeError`], with `input` where it was.
#[inline]
pub fn decode<'a>(input: &mut &'a [u8], limit: usize) -> Result<Decoded<'a>, DecodeError> {
    let bytes = *input;
    let Some((header, rest)) = FixedHeader::split_off(bytes) else { return incomplete(bytes, limit) };
    let Some((body, behind)) = rest.split_at_checked(header.length) else { return incomplete(bytes, limit) };
    if header.length > limit {
        return incomplete(bytes, limit);
    }
    let decoded = header.decode(body);
    if decoded.is_ok() {
        *input = behind;
    }
    decoded
}

/// Judges a packet that is not to be taken: because it is not whole, or because it is too large.
///
/// The verdict on the first byte comes before the one on the length, as the first byte may come before the length.
#[cold]
fn incomplete<'a>(bytes: &[u8], limit: usize) -> Result<Decoded<'a>, DecodeError> {
    let Some(&first) = bytes.first() else { return Ok(Decoded::Incomplete { at_least: 2 }) };
    let packet_type = packet_type(first).map_err(|rule| DecodeError::new(rule, 0, 1))?;
    let Some((header, _)) = FixedHeader::split_off(bytes) else {
        return match bytes {
            // MQTT 3.1.1 §2.2.3: the fourth byte is the last one.
            [_, _, _, _, _, ..] => Err(DecodeError::new(Rule::RemainingLength, 1, 5)),
            _ => Ok(Decoded::Incomplete { at_least: 1 }),
        };
    };
    if header.length > limit {
        return Err(DecodeError::new(Rule::PacketSize, 1, header.size));
    }
    match packet_type.fixed_length() {
        Some(length) if length != header.length => Err(header.wrong_length()),
        _ => Ok(Decoded::Incomplete { at_least: header.packet_size().saturating_sub(bytes.len()) }),
    }
}

impl PacketType {
    /// The remaining length, where all packets of this kind have the same.
    const fn fixed_length(self) -> Option<usize> {
        match self {
            Self::ConnAck | Self::PubAck | Self::PubRec | Self::PubRel | Self::PubComp | Self::UnsubAck => {
                Some(2)
            }
            Self::PingReq | Self::PingResp | Self::Disconnect => Some(0),
            Self::Connect | Self::Publish | Self::Subscribe | Self::SubAck | Self::Unsubscribe => None,
        }
    }
}

/// The first two to five bytes of a packet (MQTT 3.1.1 §2.2).
#[derive(Clone, Copy)]
struct FixedHeader {
    first: u8,
    /// Bytes of the header itself.
    size: usize,
    /// Remaining length: bytes of the body.
    length: usize,
}

impl FixedHeader {
    /// The header, and what stands behind it; `None` where its length does not end.
    #[inline]
    fn split_off(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let seven = |byte: u8, shift: u32| usize::from(byte & 0x7F) << shift;
        let header = |first, size, length| Self { first, size, length };
        match bytes {
            [first, a @ ..=0x7F, rest @ ..] => Some((header(*first, 2, seven(*a, 0)), rest)),
            [first, a, b @ ..=0x7F, rest @ ..] => {
                Some((header(*first, 3, seven(*a, 0) | seven(*b, 7)), rest))
            }
            [first, a, b, c @ ..=0x7F, rest @ ..] => {
                Some((header(*first, 4, seven(*a, 0) | seven(*b, 7) | seven(*c, 14)), rest))
            }
            [first, a, b, c, d @ ..=0x7F, rest @ ..] => {
                let length = seven(*a, 0) | seven(*b, 7) | seven(*c, 14) | seven(*d, 21);
                Some((header(*first, 5, length), rest))
            }
            _ => None,
        }
    }

    #[inline]
    const fn packet_size(self) -> usize {
        self.size.saturating_add(self.length)
    }

    #[cold]
    const fn wrong_length(self) -> DecodeError {
        DecodeError::new(Rule::BodyLength, 1, self.size)
    }

    /// Each kind is put where the caller wants it as soon as it is known: a step that all share would move the largest
    /// kind for the smallest.
    #[inline]
    fn decode(self, body: &[u8]) -> Result<Decoded<'_>, DecodeError> {
        let end = self.packet_size();
        let reader = Reader::new(body, end);
        match packet_type(self.first) {
            Ok(PacketType::Publish) => {
                Ok(Decoded::Packet(Packet::Publish(Publish::decode(self.first, reader)?)))
            }
            Ok(PacketType::PubAck) => Ok(Decoded::Packet(Packet::PubAck(self.packet_id_alone(reader)?))),
            Ok(PacketType::PubRec) => Ok(Decoded::Packet(Packet::PubRec(self.packet_id_alone(reader)?))),
            Ok(PacketType::PubRel) => Ok(Decoded::Packet(Packet::PubRel(self.packet_id_alone(reader)?))),
            Ok(PacketType::PubComp) => Ok(Decoded::Packet(Packet::PubComp(self.packet_id_alone(reader)?))),
            Ok(PacketType::UnsubAck) => Ok(Decoded::Packet(Packet::UnsubAck(self.packet_id_alone(reader)?))),
            Ok(PacketType::PingReq) => self.alone(Packet::PingReq),
            Ok(PacketType::PingResp) => self.alone(Packet::PingResp),
            Ok(PacketType::Disconnect) => self.alone(Packet::Disconnect),
            Ok(PacketType::Connect) => apart(body, end, |body| Connect::decode(body).map(Packet::Connect)),
            Ok(PacketType::ConnAck) if self.length != 2 => Err(self.wrong_length()),
            Ok(PacketType::ConnAck) => apart(body, end, |body| ConnAck::decode(body).map(Packet::ConnAck)),
            Ok(PacketType::Subscribe) => {
                apart(body, end, |body| Subscribe::decode(body).map(Packet::Subscribe))
            }
            Ok(PacketType::SubAck) => Ok(Decoded::Packet(Packet::SubAck(SubAck::decode(reader)?))),
            Ok(PacketType::Unsubscribe) => {
                apart(body, end, |body| Unsubscribe::decode(body).map(Packet::Unsubscribe))
            }
            Err(rule) => Err(DecodeError::new(rule, 0, 1)),
        }
    }

    /// A body that is a packet id and nothing else (MQTT 3.1.1 §3.4.2 and its like).
    #[inline]
    fn packet_id_alone(self, mut body: Reader<'_>) -> Result<PacketId, DecodeError> {
        if self.length == 2 { body.packet_id() } else { Err(self.wrong_length()) }
    }

    /// A packet without a body (MQTT 3.1.1 §3.12, §3.13 and §3.14).
    #[inline]
    fn alone<'a>(self, packet: Packet<'a>) -> Result<Decoded<'a>, DecodeError> {
        if self.length == 0 { Ok(Decoded::Packet(packet)) } else { Err(self.wrong_length()) }
    }
}

/// Decodes a kind of packet that comes once or twice in a connection: in a function of its own, so that the frequent
/// kinds need not save registers for it.
#[inline(never)]
fn apart<'a>(
    body: &'a [u8],
    end: usize,
    decode: impl FnOnce(Reader<'a>) -> Result<Packet<'a>, DecodeError>,
) -> Result<Decoded<'a>, DecodeError> {
    Ok(Decoded::Packet(decode(Reader::new(body, end))?))
}

/// The kind of packet that starts with `first`, before anything else of it is known.
///
/// # Errors
/// The rule that a first byte breaks which starts no packet.
#[inline(always)]
pub const fn packet_type(first: u8) -> Result<PacketType, Rule> {
    // The kind, and the flags that it must have.
    Ok(match (first >> 4, first & 0x0F) {
        (1, 0x0) => PacketType::Connect,
        (2, 0x0) => PacketType::ConnAck,
        (3, 0x8 | 0x9) => return Err(Rule::DupAtQos0), // [MQTT-3.3.1-2]
        (3, 0x6 | 0x7 | 0xE | 0xF) => return Err(Rule::Qos3), // [MQTT-3.3.1-4]
        (3, _) => PacketType::Publish,
        (4, 0x0) => PacketType::PubAck,
        (5, 0x0) => PacketType::PubRec,
        (6, 0x2) => PacketType::PubRel, // [MQTT-3.6.1-1]
        (7, 0x0) => PacketType::PubComp,
        (8, 0x2) => PacketType::Subscribe, // [MQTT-3.8.1-1]
        (9, 0x0) => PacketType::SubAck,
        (10, 0x2) => PacketType::Unsubscribe, // [MQTT-3.10.1-1]
        (11, 0x0) => PacketType::UnsubAck,
        (12, 0x0) => PacketType::PingReq,
        (13, 0x0) => PacketType::PingResp,
        (14, 0x0) => PacketType::Disconnect, // [MQTT-3.14.1-1]
        (0 | 15, _) => return Err(Rule::PacketType),
        _ => return Err(Rule::FixedHeaderFlags), // [MQTT-2.2.2-1] [MQTT-2.2.2-2]
    })
}
