//! WebSocket frames of a server (RFC 6455 §5), sans-IO: what arrives is unmasked where it was read to, and nothing of a
//! data frame is ever held.
//!
//! A library that gathers frames reserves what their headers announce: half a megabyte before a client has logged in. MQTT
//! and AMQP need a stream of bytes and no messages, so a payload is passed on as it comes.
//!
//! ```text
//!            header whole              payload complete
//!  HEADER ───────────────▶ PAYLOAD ──────────────────────▶ HEADER
//!    │ a rule of §5 broken    data: passed on, in place
//!    ▼                        control: at most 125 bytes are kept
//!  error                      ping: one pong is owed │ close: one close is owed, and the stream has ended
//! ```

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The longest header: two bytes, eight of length, four of mask (RFC 6455 §5.2).
const HEADER_MAX: usize = 14;
/// The longest payload of a control frame (RFC 6455 §5.5).
const CONTROL_MAX: usize = 125;
/// The longest payload sent in one frame: about a TLS record, so that a copy of it is no burden.
pub(super) const FRAME_MAX: usize = 16 * 1024;

/// What a client did that RFC 6455, or MQTT over it, does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A text frame came where only binary frames may `[MQTT-6.0.0-1]`.
    #[error("a WebSocket text frame; MQTT travels in binary frames")]
    Text,
    /// A frame without a mask (§5.1).
    #[error("a WebSocket frame of a client without a mask (RFC 6455 §5.1)")]
    Unmasked,
    /// Reserved bits, opcodes or lengths (§5.2).
    #[error(
        "a WebSocket frame with reserved bits, a reserved opcode or a length that is too large (RFC 6455 §5.2)"
    )]
    Reserved,
    /// A continuation of nothing, or a new message inside one (§5.4).
    #[error("WebSocket fragments out of order (RFC 6455 §5.4)")]
    Fragments,
    /// A control frame in fragments, or longer than 125 bytes (§5.5).
    #[error("a WebSocket control frame in fragments or longer than 125 bytes (RFC 6455 §5.5)")]
    Control,
}

/// What kind of payload is being passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Ping,
    Pong,
    Close,
}

/// The payload that is arriving.
#[derive(Clone, Copy, Debug)]
struct Payload {
    kind: Kind,
    /// Bytes still to come.
    left: u64,
    mask: [u8; 4],
    /// Which byte of the mask is next.
    phase: usize,
}

/// The receiving side of one WebSocket, and the control frames that it owes.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The part of a header that has arrived.
    header: Vec<u8>,
    payload: Option<Payload>,
    /// A binary message is not complete.
    is_fragmented: bool,
    /// The payload of the control frame that is arriving.
    control: Vec<u8>,
    /// The answer to the youngest ping that was not answered (§5.5.3: older ones may be left out).
    pong: Option<Vec<u8>>,
    /// The answer to a close frame.
    close: Option<Vec<u8>>,
    has_ended: bool,
}

impl Frames {
    /// Whether the client has closed: nothing that comes after is looked at (§5.5.1).
    pub(super) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Turns what has arrived into payload, in place; gives how many bytes at the front are payload.
    ///
    /// # Errors
    /// [`FrameError`]; the payload before the offending frame is lost with the connection.
    pub(super) fn open(&mut self, arrived: &mut [u8]) -> Result<usize, FrameError> {
        let (mut from, mut to) = (0, 0);
        while from < arrived.len() && !self.has_ended {
            let Some(payload) = &mut self.payload else {
                from += self.read_header(arrived.get(from..).unwrap_or_default())?;
                continue;
            };
            let rest = arrived.len() - from;
            let count = usize::try_from(payload.left).map_or(rest, |left| left.min(rest));
            if let Some(bytes) = arrived.get_mut(from..from + count) {
                unmask(bytes, payload);
                if payload.kind != Kind::Data {
                    self.control.extend_from_slice(bytes);
                }
            }
            if payload.kind == Kind::Data {
                arrived.copy_within(from..from + count, to);
                to += count;
            }
            payload.left -= count as u64;
            from += count;
            self.finish_payload();
        }
        Ok(to)
    }

    /// Takes bytes of a header; gives how many. One that is whole is judged.
    fn read_header(&mut self, arrived: &[u8]) -> Result<usize, FrameError> {
        let kept = self.header.len();
        let taken = arrived.len().min(HEADER_MAX - kept);
        self.header.extend_from_slice(arrived.get(..taken).unwrap_or_default());
        let mut cursor = Cursor::new(self.header.as_slice());
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| FrameError::Reserved)?;
        let Some((header, length)) = parsed else { return Ok(taken) };
        let used = usize::try_from(cursor.position()).unwrap_or(HEADER_MAX);
        self.header = Vec::new();
        self.payload = Some(self.judge(&header, length)?);
        self.finish_payload();
        Ok(used.saturating_sub(kept))
    }

    fn judge(&mut self, header: &FrameHeader, length: u64) -> Result<Payload, FrameError> {
        if header.rsv1 || header.rsv2 || header.rsv3 || length > i64::MAX as u64 {
            return Err(FrameError::Reserved);
        }
        let mask = header.mask.ok_or(FrameError::Unmasked)?;
        let kind = match header.opcode {
            OpCode::Data(Data::Text) => return Err(FrameError::Text),
            OpCode::Data(Data::Binary) if self.is_fragmented => return Err(FrameError::Fragments),
            OpCode::Data(Data::Continue) if !self.is_fragmented => return Err(FrameError::Fragments),
            OpCode::Data(Data::Binary | Data::Continue) => {
                self.is_fragmented = !header.is_final;
                Kind::Data
            }
            OpCode::Control(_) if !header.is_final || length > CONTROL_MAX as u64 => {
                return Err(FrameError::Control);
            }
            OpCode::Control(Control::Ping) => Kind::Ping,
            OpCode::Control(Control::Pong) => Kind::Pong,
            OpCode::Control(Control::Close) => Kind::Close,
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                return Err(FrameError::Reserved);
            }
        };
        Ok(Payload { kind, left: length, mask, phase: 0 })
    }

    /// A payload without bytes left is complete: a control frame takes effect.
    fn finish_payload(&mut self) {
        let Some(payload) = self.payload.take_if(|payload| payload.left == 0) else { return };
        let control = std::mem::take(&mut self.control);
        match payload.kind {
            Kind::Data | Kind::Pong => {}
            Kind::Ping => self.pong = Some(control),
            Kind::Close => {
                // The status code is repeated, the reason is not (§5.5.1).
                self.close = Some(control.get(..2).unwrap_or_default().to_vec());
                self.has_ended = true;
            }
        }
    }

    /// Appends the control frames that are owed. They may stand between two frames only.
    pub(super) fn answer(&mut self, tx: &mut Vec<u8>) {
        if let Some(pong) = self.pong.take() {
            write_frame(OpCode::Control(Control::Pong), &pong, tx);
        }
        if let Some(close) = self.close.take() {
            write_frame(OpCode::Control(Control::Close), &close, tx);
        }
    }

    /// Has a close frame sent, unless the client was answered with one.
    pub(super) fn close(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.close = Some(1000_u16.to_be_bytes().to_vec());
        }
    }
}

/// Appends one binary frame with the payload's first [`FRAME_MAX`] bytes; gives how many those are.
pub(super) fn write_binary(payload: &[u8], tx: &mut Vec<u8>) -> usize {
    let payload = payload.get(..FRAME_MAX).unwrap_or(payload);
    write_frame(OpCode::Data(Data::Binary), payload, tx);
    payload.len()
}

fn write_frame(opcode: OpCode, payload: &[u8], tx: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing to a Vec does not fail.
    let _ = header.format(payload.len() as u64, tx);
    tx.extend_from_slice(payload);
}

fn unmask(bytes: &mut [u8], payload: &mut Payload) {
    let mut mask = payload.mask;
    mask.rotate_left(payload.phase);
    let (words, rest) = bytes.as_chunks_mut::<4>();
    let word_mask = u32::from_ne_bytes(mask);
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ word_mask).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    payload.phase = (payload.phase + bytes.len()) % 4;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A masked frame as a client writes it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x12, 0x34, 0x56, 0x78];
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | length as u8),
            length => {
                bytes.push(0x80 | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn open(frames: &mut Frames, mut arrived: Vec<u8>) -> Result<Vec<u8>, FrameError> {
        let count = frames.open(&mut arrived)?;
        arrived.truncate(count);
        Ok(arrived)
    }

    #[test]
    fn a_ping_between_fragments_is_answered_once_and_not_seen() {
        let mut frames = Frames::default();
        let arrived = [frame(0x02, b"ab"), frame(0x89, b"x"), frame(0x89, b"y"), frame(0x80, b"c")].concat();
        assert_eq!(open(&mut frames, arrived).unwrap(), b"abc");
        let mut tx = Vec::new();
        frames.answer(&mut tx);
        assert_eq!(tx, b"\x8a\x01y", "the youngest ping");
        frames.answer(&mut tx);
        assert_eq!(tx.len(), 3);
    }

    #[test]
    fn a_close_frame_is_answered_with_its_code_and_ends_the_stream() {
        let mut frames = Frames::default();
        let arrived = [frame(0x82, b"a"), frame(0x88, b"\x03\xe9bye"), frame(0x82, b"late")].concat();
        assert_eq!(open(&mut frames, arrived).unwrap(), b"a");
        assert!(frames.has_ended());
        let mut tx = Vec::new();
        frames.answer(&mut tx);
        frames.close();
        frames.answer(&mut tx);
        assert_eq!(tx, b"\x88\x02\x03\xe9");
    }

    #[test]
    fn what_the_specification_forbids_is_named() {
        let unmasked = vec![0x82, 0x01, b'a'];
        let long = [&[0x82, 0xff][..], &[0xff; 8], &[0; 4]].concat();
        for (arrived, error) in [
            (unmasked, FrameError::Unmasked),
            (long, FrameError::Reserved),
            (frame(0xc2, b""), FrameError::Reserved),
            (frame(0x83, b""), FrameError::Reserved),
            (frame(0x8b, b""), FrameError::Reserved),
            (frame(0x81, b"hello"), FrameError::Text),
            (frame(0x80, b""), FrameError::Fragments),
            ([frame(0x02, b""), frame(0x82, b"")].concat(), FrameError::Fragments),
            (frame(0x09, b""), FrameError::Control),
            (frame(0x89, &[0; 126]), FrameError::Control),
        ] {
            assert_eq!(open(&mut Frames::default(), arrived.clone()), Err(error), "{arrived:x?}");
        }
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let mut frames = Frames::default();
        let announced = [&[0x82, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
        assert_eq!(open(&mut frames, announced).unwrap(), b"");
        assert_eq!(frames.header.capacity() + frames.control.capacity(), 0);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_stream(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in prop::collection::vec(1_usize..40, 1..20),
        ) {
            let sent: Vec<u8> = payloads.iter().flat_map(|payload| frame(0x82, payload)).collect();
            let (mut frames, mut read, mut rest) = (Frames::default(), Vec::new(), sent.as_slice());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (front, back) = rest.split_at((*cut).min(rest.len()));
                read.extend(open(&mut frames, front.to_vec()).unwrap());
                rest = back;
            }
            prop_assert_eq!(read, payloads.concat());
        }

        #[test]
        fn any_bytes_are_payload_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = open(&mut Frames::default(), bytes);
        }

        #[test]
        fn what_is_written_is_read_back_by_a_client(payload in prop::collection::vec(any::<u8>(), 0..70_000)) {
            let mut tx = Vec::new();
            let count = write_binary(&payload, &mut tx);
            let mut cursor = Cursor::new(tx.as_slice());
            let (header, length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            prop_assert_eq!((header.is_final, header.mask, length as usize), (true, None, count));
            prop_assert_eq!(&tx[cursor.position() as usize..], &payload[..count]);
        }
    }
}
