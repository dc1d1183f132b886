//! One direction of a TCP connection, with TCP's faults and no others: bytes arrive in order, unchanged, each once, in
//! pieces of any size, late, not at all from some point on, or never.

use std::collections::VecDeque;

use devicebound::time::Instant;

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Bytes.
    Bytes(Vec<u8>),
    /// The writer closed the connection, and all that it wrote has arrived.
    End,
}

/// Bytes on their way from a writer to a reader.
#[derive(Debug)]
pub struct Pipe {
    bytes: VecDeque<u8>,
    /// When how many of the bytes arrive, oldest first.
    segments: VecDeque<(Instant, usize)>,
    /// What the reader's window takes.
    window: usize,
    /// The reader takes nothing.
    pub stalled: bool,
    /// When the end arrives, once the writer has closed.
    end: Option<Instant>,
    /// Nothing more arrives, and nobody is told.
    pub dead: bool,
    abandoned: bool,
    written: u64,
    arrived: u64,
}

impl Pipe {
    /// An empty pipe whose reader takes `window` bytes before it has read any.
    #[must_use]
    pub const fn new(window: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            segments: VecDeque::new(),
            window,
            stalled: false,
            end: None,
            dead: false,
            abandoned: false,
            written: 0,
            arrived: 0,
        }
    }

    const fn goes_nowhere(&self) -> bool {
        self.end.is_some() || self.abandoned
    }

    /// How many bytes can be written now. Behind the end, or to nobody, any number: no writer waits for that.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.goes_nowhere() { usize::MAX } else { self.window.saturating_sub(self.bytes.len()) }
    }

    /// The reader has closed its end: what is written goes nowhere, without end.
    pub fn abandon(&mut self) {
        self.abandoned = true;
        self.stalled = false;
        self.bytes.clear();
        self.segments.clear();
    }

    /// The reader takes so many bytes from now on.
    pub const fn widen(&mut self, window: usize) {
        self.window = window;
    }

    /// Writes, and says when that arrives; never before what was written earlier. Behind the end nothing arrives.
    pub fn write(&mut self, bytes: &[u8], arrives: Instant) {
        if self.goes_nowhere() {
            return;
        }
        let arrives = self.segments.back().map_or(arrives, |(last, _)| arrives.max(*last));
        self.bytes.extend(bytes);
        self.segments.push_back((arrives, bytes.len()));
        self.written += bytes.len() as u64;
    }

    /// The writer closes.
    pub fn close(&mut self, arrives: Instant) {
        let arrives = self.segments.back().map_or(arrives, |(last, _)| arrives.max(*last));
        self.end.get_or_insert(arrives);
    }

    /// All but the first `keep` bytes on the way are lost.
    pub fn cut(&mut self, keep: usize) {
        self.bytes.truncate(keep);
        let mut left = self.bytes.len();
        for (_, length) in &mut self.segments {
            *length = left.min(*length);
            left -= *length;
        }
    }

    /// Bytes on the way.
    #[must_use]
    pub fn on_the_way(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that have arrived since the start.
    #[must_use]
    pub const fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Bytes that were written since the start.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Whether there is nothing more to read but the end.
    #[must_use]
    pub fn is_at_end(&self, now: Instant) -> bool {
        self.bytes.is_empty() && !self.stalled && !self.dead && self.end.is_some_and(|end| end <= now)
    }

    /// When there will be something to read.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Instant> {
        if self.stalled || self.dead || self.abandoned {
            return None;
        }
        self.segments.front().map(|(at, _)| *at).or(self.end)
    }

    /// What can be read now, `most` bytes at a time.
    pub fn read(&mut self, now: Instant, most: usize) -> Option<Arrival> {
        self.next_arrival().filter(|at| *at <= now)?;
        let due =
            self.segments.iter().take_while(|(at, _)| *at <= now).map(|(_, length)| length).sum::<usize>();
        let taken = due.min(most.max(1));
        let mut left = taken;
        while let Some((at, length)) = self.segments.front_mut() {
            let part = left.min(*length);
            *length -= part;
            left -= part;
            if *length > 0 || *at > now {
                break;
            }
            self.segments.pop_front();
        }
        self.arrived += taken as u64;
        if taken == 0 {
            return self.segments.is_empty().then_some(Arrival::End).filter(|_| self.end.is_some());
        }
        Some(Arrival::Bytes(self.bytes.drain(..taken).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_secs(1);
    const LATER: Instant = Instant::from_secs(2);

    fn bytes(text: &[u8]) -> Option<Arrival> {
        Some(Arrival::Bytes(text.to_vec()))
    }

    #[test]
    fn writes_arrive_in_order_split_and_joined() {
        let mut pipe = Pipe::new(9);
        pipe.write(b"abc", LATER);
        pipe.write(b"def", NOW); // cannot overtake
        assert_eq!(pipe.read(NOW, 9), None);
        assert_eq!(pipe.read(LATER, 4), bytes(b"abcd"));
        assert_eq!(pipe.room(), 7);
        assert_eq!(pipe.read(LATER, 9), bytes(b"ef"));
        assert_eq!(pipe.read(LATER, 9), None);
    }

    #[test]
    fn the_end_arrives_behind_the_bytes() {
        let mut pipe = Pipe::new(9);
        pipe.write(b"ab", NOW);
        pipe.close(NOW);
        assert_eq!(pipe.read(NOW, 9), bytes(b"ab"));
        assert_eq!(pipe.read(NOW, 9), Some(Arrival::End));
    }

    #[test]
    fn a_cut_pipe_ends_within_what_was_written() {
        let mut pipe = Pipe::new(9);
        pipe.write(b"abc", NOW);
        pipe.write(b"def", NOW);
        pipe.cut(4);
        pipe.close(NOW);
        assert_eq!(pipe.read(NOW, 9), bytes(b"abcd"));
        assert_eq!(pipe.read(NOW, 9), Some(Arrival::End));
    }

    #[test]
    fn an_abandoned_pipe_takes_all_and_delivers_nothing() {
        let mut pipe = Pipe::new(2);
        pipe.write(b"ab", NOW);
        pipe.abandon();
        pipe.write(&[0; 100], NOW);
        assert_eq!((pipe.room(), pipe.on_the_way(), pipe.read(LATER, 9)), (usize::MAX, 0, None));
    }

    #[test]
    fn a_stalled_pipe_delivers_later_and_a_dead_one_never() {
        let mut pipe = Pipe::new(2);
        pipe.write(b"ab", NOW);
        pipe.stalled = true;
        assert_eq!((pipe.read(NOW, 9), pipe.room()), (None, 0));
        pipe.stalled = false;
        assert_eq!(pipe.read(NOW, 9), bytes(b"ab"));
        pipe.dead = true;
        pipe.write(b"c", NOW);
        assert_eq!(pipe.read(LATER, 9), None);
    }
}
