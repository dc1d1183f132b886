//! Bytes against the codec.

use devicebound::Rule;
use devicebound::limits::REMAINING_LENGTH_MAX;
use devicebound::packet::{DecodeError, Decoded, Packet, decode};

/// A remaining length that many packets have, for a caller who wants no longer ones.
const SMALL: usize = 64;
/// Up to so many missing bytes are made up.
const PROMISE_MAX: usize = 1024;

/// Any bytes give a packet, a number of bytes to wait for, or an error, and none of them depends on what stands behind
/// the packet; fewer bytes than are waited for never make a packet, and a packet that is longer than the limit is
/// refused.
///
/// # Panics
/// Where that is not so.
pub fn packet_decode(data: &[u8]) {
    let mut input = data;
    let decoded = decode(&mut input, REMAINING_LENGTH_MAX);
    let taken = data.len() - input.len();
    match decoded {
        Ok(Decoded::Packet(_)) => {
            assert!(taken >= 2, "a packet is two bytes at least");
            for end in 0..taken {
                let cut = decode(&mut &data[..end], REMAINING_LENGTH_MAX);
                let missing = 1..=taken - end;
                assert!(
                    matches!(cut, Ok(Decoded::Incomplete { at_least }) if missing.contains(&at_least)),
                    "{cut:?} of {end} of {taken} bytes"
                );
            }
            assert_eq!(decode(&mut &data[..taken], REMAINING_LENGTH_MAX), decoded, "without what is behind");
        }
        Ok(Decoded::Incomplete { at_least }) => {
            assert_eq!(taken, 0, "what is not whole is left");
            assert!(at_least > 0);
            less_than_promised_is_not_enough(data, at_least - 1);
        }
        Err(error) => {
            assert_eq!(taken, 0, "what is wrong is left");
            let at = error.at();
            assert!(at.start <= at.end && at.end <= data.len(), "{error} in {} bytes", data.len());
            let mut cuts = (0..data.len()).map(|end| decode(&mut &data[..end], REMAINING_LENGTH_MAX));
            let first = cuts.find(|cut| !matches!(cut, Ok(Decoded::Incomplete { .. })));
            assert!(first.is_none_or(|first| first == decoded), "{first:?}, and in the end {decoded:?}");
        }
    }
    let limited = decode(&mut &data[..], SMALL);
    match limited {
        Err(error) if error.rule() == Rule::PacketSize => assert!(announced_length(data) > SMALL),
        _ => assert_eq!(limited, decoded),
    }
}

/// The start of a packet and `count` further bytes are not a packet, whichever bytes they are.
fn less_than_promised_is_not_enough(data: &[u8], count: usize) {
    if count > PROMISE_MAX {
        return; // to make so many bytes would take all the time there is
    }
    for byte in [0x00, 0x01, 0xFF] {
        let longer = [data, &vec![byte; count]].concat();
        let decoded = decode(&mut &longer[..], REMAINING_LENGTH_MAX);
        assert!(!matches!(decoded, Ok(Decoded::Packet(_))), "{decoded:?}");
    }
}

/// The remaining length that stands in `data`.
fn announced_length(data: &[u8]) -> usize {
    let digits = data[1..].iter().take(4);
    let last = digits.clone().position(|byte| byte & 0x80 == 0).expect("a length that was judged has an end");
    digits.take(last + 1).rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7F))
}

/// A decoded packet encodes, to no more bytes than it came from, and decodes to itself again.
///
/// # Panics
/// Where that is not so.
pub fn packet_round_trip(data: &[u8]) {
    let mut rest = data;
    loop {
        let before = rest;
        let Ok(Decoded::Packet(packet)) = decode(&mut rest, REMAINING_LENGTH_MAX) else { return };
        let bytes = &before[..before.len() - rest.len()];
        let mut encoded = Vec::new();
        packet.encode(&mut encoded).expect("a decoded packet encodes");
        let padding = bytes.len() - encoded.len();
        assert!(padding <= 3, "only the length can be padded");
        // First byte and body are the same; what lies between is the length.
        assert!(bytes[0] == encoded[0] && bytes.ends_with(&encoded[header_size(&encoded)..]), "{packet:?}");
        assert!(padding > 0 || bytes == encoded, "{packet:?}");
        assert_eq!(decode(&mut &encoded[..], REMAINING_LENGTH_MAX), Ok(Decoded::Packet(packet)));
    }
}

fn header_size(packet: &[u8]) -> usize {
    2 + packet[1..].iter().take_while(|byte| *byte & 0x80 != 0).count()
}

/// The first byte says how the others are cut; they decode to the same packets and the same end as in one piece, and no
/// packet comes sooner than was promised.
///
/// # Panics
/// Where that is not so.
pub fn chunked_stream(data: &[u8]) {
    let Some((&cuts, bytes)) = data.split_first() else { return };
    let mut whole = Stream::default();
    let end = whole.take(bytes);
    let mut cut = Stream::default();
    let mut seen = 0;
    for step in [usize::from(cuts & 7), usize::from(cuts >> 3)].into_iter().cycle() {
        let next = bytes.len().min(seen + step + 1);
        let (packets, promised) = (cut.packets.len(), cut.promised);
        let end_so_far = cut.take(&bytes[..next]);
        let came = cut.packets.len() - packets;
        assert!(came == 0 || next >= promised, "{promised} bytes were to be waited for, and {next} will do");
        seen = next;
        if seen == bytes.len() || end_so_far.is_some() {
            assert_eq!(end_so_far, end);
            break;
        }
    }
    assert!(cut.packets == whole.packets, "{:?} and {:?}", cut.packets, whole.packets);
}

/// What came out of a stream so far.
#[derive(Default)]
struct Stream<'a> {
    packets: Vec<Packet<'a>>,
    taken: usize,
    /// How many bytes the stream has at least, if it goes on.
    promised: usize,
}

impl<'a> Stream<'a> {
    /// Takes all packets that are whole; the error, if there is one.
    fn take(&mut self, bytes: &'a [u8]) -> Option<DecodeError> {
        loop {
            let mut rest = &bytes[self.taken..];
            match decode(&mut rest, REMAINING_LENGTH_MAX) {
                Ok(Decoded::Packet(packet)) => self.packets.push(packet),
                Ok(Decoded::Incomplete { at_least }) => {
                    self.promised = bytes.len() + at_least;
                    return None;
                }
                Err(error) => return Some(error),
            }
            self.taken = bytes.len() - rest.len();
        }
    }
}
