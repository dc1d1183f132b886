//! Where packets begin in a side's bytes, and how sure that is.
//!
//! From the first byte of a connection on it is certain. In a capture that begins later, and behind bytes that are missing,
//! the next boundary is searched; what is told of a packet that was found so is no ground for a charge, until more packets
//! follow each other without a rest.

use devicebound::explain::Sender;
use devicebound::limits::REMAINING_LENGTH_MAX;
use devicebound::packet::{Decoded, decode};

use super::words;

/// Bytes that are looked at again when more come: as many as tell the front of a packet with a topic.
const FRONT_MAX: usize = 64;
/// Evidence that is enough to judge by.
const ENOUGH: u8 = 2;

/// What is known of the boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sync {
    /// Everything since the first byte is there.
    Certain,
    /// A boundary was found; so much speaks for it.
    Found(u8),
    /// It is searched.
    Lost,
}

/// The bytes of one side that are no whole packet yet.
#[derive(Debug)]
pub(super) struct Framing {
    unread: Vec<u8>,
    sync: Sync,
    has_begun: bool,
    /// What follows cannot be read any more.
    is_over: bool,
    /// Bytes that were passed over since the last packet.
    passed_over: u64,
    /// Bytes that are missing and that no line has told yet.
    untold: u64,
    has_told_gap: bool,
}

impl Framing {
    /// A side whose first byte begins a packet, or one where that is to be found out.
    pub(super) const fn new(is_certain: bool) -> Self {
        Self {
            unread: Vec::new(),
            sync: if is_certain { Sync::Certain } else { Sync::Lost },
            has_begun: false,
            is_over: false,
            passed_over: 0,
            untold: 0,
            has_told_gap: false,
        }
    }

    /// The first byte that comes is the first of the connection; true if none had come.
    pub(super) const fn starts_whole(&mut self) -> bool {
        if !self.has_begun {
            self.sync = Sync::Certain;
        }
        !self.has_begun
    }

    pub(super) const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether every byte so far was seen.
    pub(super) const fn is_certain(&self) -> bool {
        matches!(self.sync, Sync::Certain)
    }

    /// Whether enough is known of the boundaries to judge by what stands between them.
    pub(super) const fn is_good(&self) -> bool {
        match self.sync {
            Sync::Certain => true,
            Sync::Found(evidence) => evidence >= ENOUGH,
            Sync::Lost => false,
        }
    }

    /// Nothing more is read.
    pub(super) fn finish(&mut self) {
        self.is_over = true;
        self.unread = Vec::new();
    }

    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Bytes of a packet that has not ended.
    pub(super) const fn left(&self) -> usize {
        if self.is_over || matches!(self.sync, Sync::Lost) { 0 } else { self.unread.len() }
    }

    /// More bytes came.
    pub(super) fn extend(&mut self, bytes: &[u8], sender: Sender) {
        self.has_begun |= !bytes.is_empty();
        if self.is_over {
            return;
        }
        let piece = self.unread.len();
        self.unread.extend_from_slice(bytes);
        if self.sync == Sync::Lost {
            self.search(piece, sender);
        }
    }

    /// The bytes to be read; [`keep`](Self::keep) gives back what is left of them.
    pub(super) fn take(&mut self) -> Vec<u8> {
        if self.sync == Sync::Lost { Vec::new() } else { std::mem::take(&mut self.unread) }
    }

    /// Keeps the last so many of these bytes, without copying them all: a packet may come in many small pieces.
    pub(super) fn keep(&mut self, mut unread: Vec<u8>, left: usize) {
        if self.sync == Sync::Lost {
            return;
        }
        unread.drain(..unread.len().saturating_sub(left));
        self.unread = if self.is_over { Vec::new() } else { unread };
    }

    /// A whole packet was taken.
    pub(super) fn found(&mut self, packet: &[u8]) {
        if let Sync::Found(evidence) = &mut self.sync {
            *evidence = evidence.saturating_add(if words::has_known_topic(packet) { ENOUGH } else { 1 });
        }
    }

    /// What is at the front is no packet; where the next one begins is to be found again in `rest`.
    pub(super) fn lose(&mut self, rest: &[u8], sender: Sender) {
        self.sync = Sync::Lost;
        // Its first byte begins no packet.
        self.passed_over = self.passed_over.saturating_add(1);
        self.unread = rest.get(1..).unwrap_or_default().to_vec();
        self.search(usize::MAX, sender);
    }

    /// Bytes are missing before those that come next.
    pub(super) fn gap(&mut self) {
        self.has_begun = true;
        self.unread.clear();
        self.sync = Sync::Lost;
    }

    /// How many of `missing` bytes to tell of: nothing, where a line about missing bytes was the last that was told.
    pub(super) fn count_missing(&mut self, missing: u64) -> Option<u64> {
        if self.has_told_gap {
            self.untold = self.untold.saturating_add(missing);
            return None;
        }
        self.has_told_gap = true;
        Some(missing)
    }

    /// Further bytes that are missing since the last line about it, once something else is to be told.
    pub(super) fn take_untold(&mut self) -> Option<u64> {
        self.has_told_gap = false;
        Some(std::mem::take(&mut self.untold)).filter(|untold| *untold > 0)
    }

    /// Bytes that were passed over before the packet that is read next.
    pub(super) fn passed_over(&mut self) -> Option<u64> {
        if self.sync == Sync::Lost {
            return None;
        }
        Some(std::mem::take(&mut self.passed_over)).filter(|passed_over| *passed_over > 0)
    }

    /// Looks for the next boundary. The bytes from `piece` on came just now, with a segment of their own.
    fn search(&mut self, piece: usize, sender: Sender) {
        let is_segment = self.unread.get(piece..).is_some_and(|bytes| are_packets(bytes, sender));
        let known = |bytes: &[u8]| words::has_known_topic_of(bytes, sender);
        let at = if is_segment {
            Some((piece, 0))
        } else {
            let at = (0..self.unread.len()).find(|at| self.unread.get(*at..).is_some_and(known));
            at.map(|at| (at, ENOUGH))
        };
        match at {
            Some((at, evidence)) => {
                self.unread.drain(..at);
                self.passed_over = self.passed_over.saturating_add(at as u64);
                self.sync = Sync::Found(evidence);
            }
            None => {
                let useless = self.unread.len().saturating_sub(FRONT_MAX);
                self.unread.drain(..useless);
                self.passed_over = self.passed_over.saturating_add(useless as u64);
            }
        }
    }
}

/// Whether these bytes are packets of this side from the first to the last byte.
fn are_packets(bytes: &[u8], sender: Sender) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        match decode(&mut rest, REMAINING_LENGTH_MAX) {
            Ok(Decoded::Packet(packet)) if words::may_send(sender, packet.packet_type()) => {}
            _ => return false,
        }
    }
    !bytes.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_is_found_behind_the_rest_of_a_packet() {
        let mut framing = Framing::new(false);
        let mut bytes = b"the rest of a body\x30\xc0\x00".to_vec();
        let telemetry = b"\x30\x1f\0\x1ddevices/demo/messages/events/";
        bytes.extend(telemetry);
        for byte in &bytes {
            framing.extend(&[*byte], Sender::Device);
        }
        assert_eq!(framing.take(), telemetry);
        assert_eq!(framing.passed_over(), Some(21));
        assert!(framing.is_good() && !framing.is_certain());
    }

    #[test]
    fn a_small_packet_counts_only_as_a_segment_of_its_own() {
        let mut framing = Framing::new(false);
        framing.extend(b"xx\xc0\0", Sender::Device);
        assert_eq!(framing.take(), b"");
        framing.extend(b"\xc0\0", Sender::Device);
        assert_eq!(framing.take(), b"\xc0\0");
        assert!(!framing.is_good(), "it may be anything");
        framing.found(b"\xc0\0");
        framing.found(b"\xc0\0");
        assert!(framing.is_good(), "two in a row");
    }

    #[test]
    fn a_search_keeps_little_and_takes_no_packet_of_the_other_side() {
        let mut framing = Framing::new(false);
        framing.extend(b"\xd0\0", Sender::Device);
        assert_eq!(framing.take(), b"");
        for _ in 0..1000 {
            framing.extend(&[b'x'; 1000], Sender::Device);
            assert!(framing.unread.len() <= FRONT_MAX);
        }
        assert_eq!(framing.left(), 0);
    }
}
