//! One side's bytes of a TCP connection, in the order of their sequence numbers.
//!
//! Flags act at their sequence number, not when they are seen: a FIN that overtakes data waits for it. What is missing is
//! lost once the other side has acknowledged it, because then it arrived and only the capture does not have it.

use std::collections::{BTreeMap, VecDeque};

use super::link::Segment;

/// Segments that may wait for one that is missing; then that one counts as lost.
const WAITING_MAX: usize = 1000;
/// Bytes that may wait for some that are missing.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Acknowledgements of what is not here that are remembered; each is settled after a few segments.
const ACKNOWLEDGED_MAX: usize = 64;
/// The offset of the first sequence number that was seen: what comes before it has one, too.
const ORIGIN: u64 = 1 << 40;
/// The largest window of TCP (RFC 7323 §2.3): what is farther away belongs to no stream here.
const WINDOW_MAX: u64 = 1 << 30;
/// A capture puts a segment so many places of its connection behind those that it came before …
const PATIENCE_SEGMENTS: u64 = 16;
/// … or so many milliseconds, and no more. Then what did not come is not in it.
const PATIENCE_MILLIS: u64 = 100;

/// Where a capture is: the segments of the connection so far, and the time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    pub(super) segments: u64,
    pub(super) time: Option<u64>,
}

impl Position {
    /// Whether what was to come since `earlier` would have come.
    fn is_patient_enough(self, earlier: Self) -> bool {
        let has_passed = matches!((self.time, earlier.time), (Some(now), Some(then)) if now.saturating_sub(then) >= PATIENCE_MILLIS);
        has_passed || self.segments.saturating_sub(earlier.segments) >= PATIENCE_SEGMENTS
    }
}

/// What comes out of a direction, with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    /// So many bytes are not in the capture.
    Gap(u64),
    /// The other side acknowledges one number more than there are bytes: one byte, or a FIN that is not in the capture.
    GapOrFin,
    /// The sender closes the connection, or resets it.
    End {
        reset: bool,
    },
}

/// One side's bytes.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// The sequence number at [`ORIGIN`].
    origin: Option<u32>,
    /// The offset of the next byte; unknown until it is settled where the stream begins.
    next: Option<u64>,
    /// The sequence number of SYN, where that was seen.
    initial: Option<u32>,
    /// Segments that came before their turn, by the offsets of their first bytes.
    waiting: BTreeMap<u64, Waiting>,
    waiting_bytes: usize,
    end: Option<End>,
    /// How far its sender says that it is.
    sent: u64,
    /// How far the other side has it all, and where it said so, of what was not here then; the farthest last.
    acknowledged: VecDeque<(u64, Position)>,
    /// The time of what was given last: nothing is heard before what precedes it.
    heard: Option<u64>,
    has_ended: bool,
}

#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    seen: Position,
    /// What its sender had of the other side.
    after: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    at: u64,
    seen: Position,
    reset: bool,
    after: Option<u64>,
}

impl Direction {
    /// Whether this segment is of another connection than what was seen: its SYN has another number, or it comes after the end.
    pub(super) fn is_of_another(&self, segment: &Segment<'_>) -> bool {
        if !segment.syn {
            let reached = self.next.unwrap_or_default().saturating_add(1);
            let offset = self.offset(segment.sequence);
            return self.has_ended
                && !segment.payload.is_empty()
                && offset.is_none_or(|offset| offset > reached);
        }
        let first = self.offset(segment.sequence.wrapping_add(1));
        match self.initial {
            Some(initial) => initial != segment.sequence,
            None if !self.has_begun() => self.has_ended,
            // A SYN may stand in the capture behind the data that follow it.
            None => first.is_none() || (self.next != first && self.first_waiting() != first),
        }
    }

    /// Whether its first byte is known to be the first one.
    pub(super) const fn is_from_the_start(&self) -> bool {
        self.initial.is_some()
    }

    /// Whether anything of it was seen.
    pub(super) fn has_begun(&self) -> bool {
        self.next.is_some() || !self.waiting.is_empty()
    }

    /// The offset of a sequence number, seen from where the stream is now; sequence numbers wrap (RFC 9293 §3.4).
    fn offset(&self, sequence: u32) -> Option<u64> {
        let origin = self.origin?;
        let near = self.next.or_else(|| self.first_waiting()).unwrap_or(ORIGIN);
        let [.., a, b, c, d] = near.wrapping_sub(ORIGIN).to_be_bytes();
        let at_near = origin.wrapping_add(u32::from_be_bytes([a, b, c, d]));
        let distance = i64::from(sequence.wrapping_sub(at_near).cast_signed());
        let offset = near.checked_add_signed(distance)?;
        (offset.abs_diff(near) <= WINDOW_MAX).then_some(offset)
    }

    fn first_waiting(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(offset, _)| *offset)
    }

    /// The offset up to which everything was given; a FIN counts as one more.
    fn reached(&self) -> Option<u64> {
        if self.has_ended { Some(u64::MAX) } else { self.next }
    }

    /// The offset of an acknowledgement for this direction, if it can be one.
    pub(super) fn acknowledgement(&self, number: Option<u32>) -> Option<u64> {
        self.offset(number?)
    }

    /// The other side says that it has everything before `number`.
    pub(super) fn acknowledge(&mut self, number: u32, seen: Position) {
        if self.origin.is_none() {
            // Nothing of this side was seen: what comes below was there before.
            self.origin = Some(number);
        }
        let Some(offset) = self.offset(number) else { return };
        let next = self.next.unwrap_or_default();
        self.acknowledged.retain(|(known, _)| *known > next);
        if offset > next && self.acknowledged.back().is_none_or(|(known, _)| *known < offset) {
            if self.acknowledged.len() >= ACKNOWLEDGED_MAX {
                self.acknowledged.pop_front();
            }
            self.acknowledged.push_back((offset, seen));
        }
    }

    /// Takes a segment. `after` is the offset in the other direction that its sender acknowledges.
    pub(super) fn take(&mut self, segment: &Segment<'_>, seen: Position, after: Option<u64>) {
        if self.has_ended {
            return;
        }
        let mut first = segment.sequence;
        if segment.syn {
            self.initial = Some(first);
            first = first.wrapping_add(1);
            if self.next.is_none() {
                self.origin.get_or_insert(first);
                self.next = self.offset(first);
            }
        }
        if !segment.payload.is_empty() || segment.fin || segment.rst {
            self.origin.get_or_insert(first);
        }
        if self.offset(first).is_none() && !self.has_begun() && !segment.payload.is_empty() {
            // What was acknowledged before is not of this stream.
            self.origin = Some(first);
            self.acknowledged.clear();
        }
        let Some(offset) = self.offset(first) else { return };
        let length = segment.payload.len() as u64;
        if length > 0 && self.next.is_none_or(|next| offset.saturating_add(length) > next) {
            self.wait(offset, Waiting { bytes: segment.payload.to_vec(), seen, after });
        }
        let at = offset.saturating_add(length).saturating_add(u64::from(segment.cut));
        if !segment.rst {
            self.sent = self.sent.max(at);
        }
        // Where the stream begins is not known, but where it ends is: there is nothing else of it.
        if (segment.fin || segment.rst) && !self.has_begun() {
            self.next = Some(at);
        }
        if segment.rst {
            if self.end.is_none_or(|end| at < end.at) {
                self.end = Some(End { at, seen, reset: true, after });
            }
        } else if segment.fin && self.end.is_none() {
            self.end = Some(End { at, seen, reset: false, after });
        }
    }

    fn wait(&mut self, offset: u64, waiting: Waiting) {
        let length = waiting.bytes.len();
        // What was there first is what the other side took.
        let is_longer = |there: &Waiting| there.bytes.len() < length;
        if self.waiting.get(&offset).is_none_or(is_longer) {
            let before = self.waiting.insert(offset, waiting).map_or(0, |before| before.bytes.len());
            self.waiting_bytes = self.waiting_bytes.saturating_add(length).saturating_sub(before);
        }
    }

    /// The next piece whose turn it is. What was sent in answer to something of the `other` direction comes behind that; with
    /// `now`, not even then if that was waited for long enough.
    pub(super) fn ready(&mut self, other: &Self, now: Option<Position>) -> Option<(Option<u64>, Piece)> {
        let next = self.next?;
        let waits =
            |after, seen| other.is_before(after) && now.is_none_or(|now| !now.is_patient_enough(seen));
        while let Some(entry) = self.waiting.first_entry().filter(|entry| *entry.key() <= next) {
            if waits(entry.get().after, entry.get().seen) {
                return None;
            }
            let (offset, Waiting { mut bytes, seen, .. }) = entry.remove_entry();
            self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes.len());
            // What overlaps was given before.
            let overlap = usize::try_from(next.saturating_sub(offset)).unwrap_or(usize::MAX);
            bytes.drain(..overlap.min(bytes.len()));
            if !bytes.is_empty() {
                self.next = Some(next.saturating_add(bytes.len() as u64));
                return Some((self.at(seen.time), Piece::Bytes(bytes)));
            }
        }
        let end = self.end.filter(|end| end.at <= next && !self.has_ended)?;
        if waits(end.after, end.seen) {
            return None;
        }
        self.has_ended = true;
        self.waiting.clear();
        Some((self.at(end.seen.time), Piece::End { reset: end.reset }))
    }

    /// Whether something up to `offset` is still to be given.
    fn is_before(&self, offset: Option<u64>) -> bool {
        matches!((self.reached(), offset), (Some(reached), Some(offset)) if reached < offset)
    }

    fn at(&mut self, time: Option<u64>) -> Option<u64> {
        self.heard = self.heard.max(time);
        time.and(self.heard)
    }

    /// Gives up what will not come any more, or settles where the stream begins.
    pub(super) fn settle(&mut self, now: Position) -> Option<(Option<u64>, Piece)> {
        let Some(next) = self.next else {
            self.begin(now);
            return None;
        };
        let is_ready = |offset: u64| offset <= next;
        if self.first_waiting().is_some_and(is_ready) || self.end.is_some_and(|end| is_ready(end.at)) {
            return None;
        }
        let is_too_much = self.waiting.len() > WAITING_MAX || self.waiting_bytes > WAITING_BYTES_MAX;
        let mut patient = self.acknowledged.iter().rev().filter(|(_, since)| now.is_patient_enough(*since));
        let acknowledged = patient.next();
        let reset = self.end.filter(|end| end.reset && now.is_patient_enough(end.seen));
        let known = acknowledged.map(|(offset, _)| *offset).max(reset.map(|end| end.at));
        match known.filter(|offset| *offset > next) {
            Some(offset) => self.skip(next, offset),
            None if is_too_much => self.skip(next, u64::MAX),
            None => None,
        }
    }

    /// The capture is over: goes on with what there is.
    pub(super) fn give_up(&mut self) -> Option<(Option<u64>, Piece)> {
        let next = self.next.filter(|_| !self.has_ended)?;
        self.skip(next, u64::MAX)
    }

    /// Goes on with what waits next, not beyond `limit`, and says how much is missing before it.
    fn skip(&mut self, next: u64, limit: u64) -> Option<(Option<u64>, Piece)> {
        let waiting = self.waiting.first_key_value().map(|(offset, waiting)| (*offset, waiting.seen.time));
        let end = self.end.map(|end| (end.at, end.seen.time));
        let said = self.acknowledged.iter().find(|(offset, _)| *offset > next);
        let first_said = said.and_then(|(_, since)| since.time);
        let said = self.acknowledged.iter().rev().find(|(offset, _)| *offset <= limit);
        let said = said.map(|(offset, _)| (*offset, first_said));
        let sent = (limit == u64::MAX).then_some((self.sent, None));
        let ends = || [waiting, end, said, sent].into_iter().flatten().filter(|(offset, _)| *offset > next);
        let offset = ends().map(|(offset, _)| offset).min()?.min(limit);
        // The first that showed it.
        let time = ends().filter_map(|(_, time)| time).min();
        self.next = Some(offset);
        let is_acknowledged_only = waiting.is_none() && end.is_none() && self.sent < offset;
        let piece = match offset.saturating_sub(next) {
            1 if is_acknowledged_only => Piece::GapOrFin,
            missing => Piece::Gap(missing),
        };
        Some((self.at(time), piece))
    }

    /// Begins with the earliest bytes, once it is known which those are.
    fn begin(&mut self, now: Position) {
        let Some((offset, first)) = self.waiting.first_key_value() else { return };
        let is_told = self.acknowledged.back().is_some_and(|(acknowledged, _)| acknowledged > offset);
        if is_told || now.is_patient_enough(first.seen) || self.waiting.len() > WAITING_MAX {
            self.next = Some(*offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u32, payload: &[u8]) -> Segment<'_> {
        let end = ([127, 0, 0, 1], 1).into();
        Segment {
            time: None,
            from: end,
            to: end,
            sequence,
            acknowledges: None,
            ack: false,
            syn: false,
            fin: false,
            rst: false,
            payload,
            cut: 0,
        }
    }

    /// One that begins at this sequence number.
    fn direction(next: u32) -> Direction {
        let mut direction = Direction::default();
        let syn = Segment { syn: true, ..segment(next.wrapping_sub(1), b"") };
        direction.take(&syn, Position::default(), None);
        direction
    }

    fn bytes_after(direction: &mut Direction, segment: &Segment<'_>) -> Vec<u8> {
        direction.take(segment, Position::default(), None);
        let other = Direction::default();
        let mut bytes = Vec::new();
        while let Some((_, piece)) = direction.ready(&other, None) {
            if let Piece::Bytes(more) = piece {
                bytes.extend(more);
            }
        }
        bytes
    }

    #[test]
    fn segments_are_put_in_order_and_what_came_twice_counts_once() {
        let mut direction = direction(u32::MAX - 1);
        assert_eq!(bytes_after(&mut direction, &segment(1, b"de")), b"");
        assert_eq!(bytes_after(&mut direction, &segment(u32::MAX - 1, b"abc")), b"abcde", "numbers wrap");
        assert_eq!(bytes_after(&mut direction, &segment(1, b"de")), b"");
        assert_eq!(bytes_after(&mut direction, &segment(2, b"ef")), b"f", "the rest of an overlap");
        assert_eq!(bytes_after(&mut direction, &segment(3, b"\0")), b"", "a keep-alive");
    }

    #[test]
    fn four_gibibytes_and_more_stay_in_order() {
        let mut direction = direction(5);
        let mut sequence = 5_u32;
        let chunk = vec![7; 1 << 20];
        for _ in 0..4100 {
            assert_eq!(bytes_after(&mut direction, &segment(sequence, &chunk)).len(), chunk.len());
            sequence = sequence.wrapping_add(1 << 20);
        }
    }

    #[test]
    fn what_is_missing_is_counted_and_what_comes_behind_it_is_not_lost() {
        let mut direction = direction(10);
        assert_eq!(bytes_after(&mut direction, &segment(15, b"x")), b"");
        assert_eq!(direction.give_up(), Some((None, Piece::Gap(5))));
        let ready = direction.ready(&Direction::default(), None);
        assert_eq!(ready, Some((None, Piece::Bytes(b"x".to_vec()))));
    }

    #[test]
    fn a_direction_does_not_wait_for_ever() {
        let mut direction = direction(0);
        let mut given = 0;
        for number in 0..5000 {
            given += bytes_after(&mut direction, &segment(100 + number * 2, b"x")).len();
            while direction.settle(Position::default()).is_some() {}
        }
        assert!(direction.waiting.len() <= WAITING_MAX + 1);
        assert!(given > 0);
    }

    #[test]
    fn what_is_farther_away_than_any_window_is_not_of_this_stream() {
        let mut direction = direction(10);
        assert_eq!(bytes_after(&mut direction, &segment(10 + (1 << 31) - 5, b"x")), b"");
        let rst = Segment { rst: true, ..segment(10 + (1 << 31) - 5, b"") };
        assert_eq!(bytes_after(&mut direction, &rst), b"");
        assert_eq!((direction.give_up(), direction.has_ended), (None, false));
    }
}
