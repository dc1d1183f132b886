//! What all encoders share: the fixed header and length-prefixed fields. And the packets that are nothing but a header.
//!
//! An encoder judges all it has to judge, and then only appends. It makes no room beforehand: a buffer that is used again
//! has it, and for one that has not, the first packets see to it.

use alloc::vec::Vec;

use super::PacketId;
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
            Self::EmptyClientId => Rule::EmptyClientId,
            Self::NoFilters => Rule::NoFilters,
            Self::NoReturnCodes => Rule::SubAckCode,
        }
    }
}

/// Appends a PINGREQ (MQTT 3.1.1 §3.12).
#[inline]
pub fn pingreq(out: &mut Vec<u8>) {
    short([0xC0, 0], out);
}

/// Appends a PINGRESP (MQTT 3.1.1 §3.13).
#[inline]
pub fn pingresp(out: &mut Vec<u8>) {
    short([0xD0, 0], out);
}

/// Appends a DISCONNECT (MQTT 3.1.1 §3.14).
#[inline]
pub fn disconnect(out: &mut Vec<u8>) {
    short([0xE0, 0], out);
}

/// Appends a short packet, or the start of one, in one write of a constant size. That `out` has to grow for it is rare,
/// and a call of its own: what is done nearly always needs no stack frame then.
#[inline]
pub(super) fn short<const N: usize>(packet: [u8; N], out: &mut Vec<u8>) {
    #[cold]
    #[inline(never)]
    fn grow<const N: usize>(packet: [u8; N], out: &mut Vec<u8>) {
        out.extend_from_slice(&packet);
    }
    // Asked as Vec asks it, who need not ask again then. The length is never above the capacity.
    if out.capacity().wrapping_sub(out.len()) < N {
        grow(packet, out)
    } else {
        out.extend_from_slice(&packet)
    }
}

/// Appends the fixed header of a packet, the remaining length in as few bytes as will do (MQTT 3.1.1 §2.2.3), and the two
/// bytes that come next.
#[inline(always)]
pub(super) fn start(
    first: u8,
    length: usize,
    [high, low]: [u8; 2],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if length > REMAINING_LENGTH_MAX {
        return Err(EncodeError::PacketTooLong);
    }
    let last = |shift: u32| (length >> shift) as u8 & 0x7F;
    let more = |shift: u32| last(shift) | 0x80;
    match length {
        0..=0x7F => short([first, last(0), high, low], out),
        0x80..=0x3FFF => short([first, more(0), last(7), high, low], out),
        0x4000..=0x1F_FFFF => short([first, more(0), more(7), last(14), high, low], out),
        _ => short([first, more(0), more(7), more(14), last(21), high, low], out),
    }
    Ok(())
}

/// As [`start`], for a packet whose length is followed by its packet id.
#[inline(always)]
pub(super) fn start_with_id(
    first: u8,
    length: usize,
    id: PacketId,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    start(first, length, id.get().to_be_bytes(), out)
}

/// Appends a field with its length of two bytes. The field is known to be no longer than that length can say.
#[inline]
pub(super) fn field(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&length(bytes));
    out.extend_from_slice(bytes);
}

/// What stands before a field. The field is known to be no longer than that can say.
#[inline]
pub(super) const fn length(field: &[u8]) -> [u8; 2] {
    (field.len() as u16).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::super::*;
    use super::*;
    use crate::limits::TEXT_MAX;

    const ID: PacketId = PacketId::MIN;

    /// Encodes behind other bytes, which must not change.
    fn appended(
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<Vec<u8>, EncodeError> {
        let mut out = b"before".to_vec();
        let encoded = encode(&mut out);
        let packet = out.strip_prefix(b"before").expect("encoders append").to_vec();
        assert!(encoded.is_ok() || packet.is_empty(), "a failed encoder leaves nothing behind");
        encoded.map(|()| packet)
    }

    fn connect(client_id: &str) -> Connect<'_> {
        let client_id = Text::new(client_id).unwrap();
        Connect { clean_session: true, keep_alive: 0, client_id, will: None, credentials: None }
    }

    #[test]
    fn what_no_decoder_takes_is_not_encoded() {
        let long = "x".repeat(TEXT_MAX + 1);
        let will = Will {
            topic: TopicName::new("t").unwrap(),
            message: long.as_bytes(),
            qos: QoS::AtMostOnce,
            retain: false,
        };
        let username = Text::new("name").unwrap();
        let credentials = Credentials { username, password: Some(long.as_bytes()) };
        for (connect, error) in [
            (Connect { clean_session: false, ..connect("") }, EncodeError::EmptyClientId),
            (Connect { credentials: Some(credentials), ..connect("d") }, EncodeError::FieldTooLong),
            (Connect { will: Some(will), ..connect("d") }, EncodeError::FieldTooLong),
        ] {
            assert_eq!(appended(|out| connect.encode(out)), Err(error));
        }
        assert_eq!(appended(|out| Subscribe::encode(ID, &[], out)), Err(EncodeError::NoFilters));
        assert_eq!(appended(|out| Unsubscribe::encode(ID, &[], out)), Err(EncodeError::NoFilters));
        assert_eq!(appended(|out| SubAck::encode(ID, [].into_iter(), out)), Err(EncodeError::NoReturnCodes));
    }

    #[test]
    fn the_longest_packet_is_as_long_as_four_bytes_of_remaining_length_can_say() {
        let payload = vec![0; REMAINING_LENGTH_MAX];
        let publish = |length: usize| Publish {
            qos: PublishQoS::AtMostOnce,
            retain: false,
            topic: TopicName::new("t").unwrap(),
            payload: &payload[..length],
        };
        let longest = appended(|out| publish(REMAINING_LENGTH_MAX - 3).encode(out)).unwrap();
        assert_eq!(longest[..5], [0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
        assert_eq!(longest.len(), REMAINING_LENGTH_MAX + 5);
        let longer = appended(|out| publish(REMAINING_LENGTH_MAX - 2).encode(out));
        assert_eq!(longer, Err(EncodeError::PacketTooLong));
    }

    #[test]
    fn the_head_of_a_publish_and_its_payload_are_the_packet() {
        for payload in [&b""[..], &[0xAA; 200], &[0xAA; 20_000]] {
            let qos = PublishQoS::AtLeastOnce { packet_id: ID, dup: false };
            let publish = Publish { qos, retain: false, topic: TopicName::new("t").unwrap(), payload };
            let mut pieces = appended(|out| publish.encode_head(out)).unwrap();
            pieces.extend_from_slice(payload);
            assert_eq!(Ok(pieces), appended(|out| publish.encode(out)));
        }
    }

    #[test]
    fn every_length_of_the_remaining_length_comes_back() {
        for length in [0, 1, 0x7F, 0x80, 0x3FFF, 0x4000, 0x1F_FFFF, 0x20_0000] {
            let payload = vec![0xAA; length];
            let publish = Publish {
                qos: PublishQoS::AtLeastOnce { packet_id: ID, dup: true },
                retain: true,
                topic: TopicName::new("t").unwrap(),
                payload: &payload,
            };
            let bytes = appended(|out| publish.encode(out)).unwrap();
            let mut input = &bytes[..];
            let decoded = decode(&mut input, REMAINING_LENGTH_MAX);
            assert_eq!(decoded, Ok(Decoded::Packet(Packet::Publish(publish))));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let credentials = Credentials { username: Text::new("name").unwrap(), password: Some(b"secret") };
        let printed = alloc::format!("{credentials:?}");
        assert_eq!(printed, "Credentials { username: \"name\", password: Some(…) }");
    }
}
