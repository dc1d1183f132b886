//! Protocol headers and frames (AMQP 1.0 §2.2, §2.3).

use alloc::vec::Vec;

use crate::Rule;
use crate::limits::FRAME_MAX;

/// The header of AMQP 1.0 without a security layer.
pub const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
/// The header of the SASL layer (§5.3.1).
pub const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";

/// Type of an AMQP frame.
const TYPE_AMQP: u8 = 0;
/// Type of a SASL frame (§5.3.1).
const TYPE_SASL: u8 = 1;
/// Bytes of the header of a frame.
const HEADER: usize = 8;

/// One frame: what is in front of its body was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// A SASL frame; its channel says nothing.
    pub is_sasl: bool,
    /// The channel.
    pub channel: u16,
    /// Performative and payload; empty in a heartbeat.
    pub body: &'a [u8],
    /// Bytes of the whole frame.
    pub size: usize,
}

/// The frame at the front of `rx`; `None` when it is not there as a whole.
///
/// # Errors
/// The rule that its header breaks, as soon as that can be told: a frame that is too large is not waited for.
pub fn decode(rx: &[u8]) -> Result<Option<Frame<'_>>, Rule> {
    let Some(size) = rx.first_chunk() else { return Ok(None) };
    let size = u32::from_be_bytes(*size);
    let length = usize::try_from(size).map_err(|_| Rule::FrameSize)?;
    if length < HEADER || size > FRAME_MAX {
        return Err(Rule::FrameSize);
    }
    let Some(&[_, _, _, _, offset, kind, c0, c1]) = rx.first_chunk() else { return Ok(None) };
    // In units of four bytes; what lies between header and body is skipped (§2.3.1).
    let offset = usize::from(offset).saturating_mul(4);
    if offset < HEADER || offset > length {
        return Err(Rule::DataOffset);
    }
    if kind > TYPE_SASL {
        return Err(Rule::FrameType);
    }
    let Some(frame) = rx.get(..length) else { return Ok(None) };
    Ok(Some(Frame {
        is_sasl: kind == TYPE_SASL,
        channel: u16::from_be_bytes([c0, c1]),
        body: frame.get(offset..).unwrap_or_default(),
        size: length,
    }))
}

/// A frame that was begun behind a buffer: where it begins.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Begun(pub(crate) usize);

pub(crate) fn begin(tx: &mut Vec<u8>, channel: u16) -> Begun {
    let at = tx.len();
    let [c0, c1] = channel.to_be_bytes();
    tx.extend_from_slice(&[0, 0, 0, 0, 2, TYPE_AMQP, c0, c1]);
    Begun(at)
}

pub(crate) fn begin_sasl(tx: &mut Vec<u8>) -> Begun {
    let at = tx.len();
    tx.extend_from_slice(&[0, 0, 0, 0, 2, TYPE_SASL, 0, 0]);
    Begun(at)
}

/// Writes the size of the frame, and gives it.
pub(crate) fn end(tx: &mut [u8], begun: Begun) -> u32 {
    let size = u32::try_from(tx.len().saturating_sub(begun.0)).unwrap_or(u32::MAX);
    if let Some(head) = tx.get_mut(begun.0..).and_then(<[u8]>::first_chunk_mut) {
        *head = size.to_be_bytes();
    }
    size
}

/// The empty frame that keeps a connection alive (§2.4.5).
pub(crate) fn heartbeat(tx: &mut Vec<u8>) {
    let begun = begin(tx, 0);
    end(tx, begun);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_waits_for_all_of_its_bytes_and_one_that_is_too_large_does_not() {
        let empty = [0, 0, 0, 8, 2, 0, 0, 0];
        for cut in 0..8 {
            assert_eq!(decode(&empty[..cut]), Ok(None));
        }
        assert_eq!(decode(&empty).unwrap().unwrap().body, b"");
        assert_eq!(decode(&[0, 1, 0, 1]), Err(Rule::FrameSize));
        for size in 0..8 {
            assert_eq!(decode(&[0, 0, 0, size]), Err(Rule::FrameSize));
        }
        assert_eq!(decode(&[0, 0, 0, 8, 1, 0, 0, 0]), Err(Rule::DataOffset));
        assert_eq!(decode(&[0, 0, 0, 8, 3, 0, 0, 0]), Err(Rule::DataOffset));
        assert_eq!(decode(&[0, 0, 0, 8, 2, 2, 0, 0]), Err(Rule::FrameType));
        let extended = [0, 0, 0, 13, 3, 0, 0, 7, 9, 9, 9, 9, 0x40];
        let frame = decode(&extended).unwrap().unwrap();
        assert_eq!((frame.channel, frame.body, frame.size), (7, &[0x40][..], 13));
    }
}
