//! Bytes that were received, and the actions in them.

use devicebound::device::Action;

use crate::{Machine, Offline};

/// Room that there is for each read, in bytes; a TLS record holds twice as much.
const CHUNK: usize = 8 * 1024;

/// What was received and not taken yet.
///
/// It holds one packet that is not complete and a chunk of 8 KiB, so that
/// [`Limits::packet`](devicebound::device::Limits::packet) bounds it; it grows with what has arrived, not with what a
/// header announces.
#[derive(Debug, Default)]
pub struct Received {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Received {
    /// Room to read into; never empty.
    pub fn room(&mut self) -> &mut [u8] {
        if self.bytes.len() - self.end < CHUNK {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            self.bytes.resize(self.bytes.len().max(self.end + CHUNK), 0);
        }
        &mut self.bytes[self.end..]
    }

    /// `length` bytes were read into the room, at most as many as it has.
    pub fn fill(&mut self, length: usize) {
        self.end = self.bytes.len().min(self.end + length);
    }

    /// Forgets what is left of an earlier connection.
    pub fn clear(&mut self) {
        self.start = self.end;
    }

    /// The actions in what was received.
    pub fn actions(&mut self) -> Incoming<'_> {
        Incoming { rest: &self.bytes[self.start..self.end], start: &mut self.start, end: self.end }
    }
}

/// The received actions, each borrowed from the receive buffer alone. What was taken is gone when this is dropped.
#[derive(Debug)]
pub struct Incoming<'i> {
    rest: &'i [u8],
    start: &'i mut usize,
    end: usize,
}

impl<'i> Incoming<'i> {
    /// The next action; `None` when it is time to wait. Neither `Action::Wait` nor `Action::Handled` is among them.
    ///
    /// An error is the news that there is no connection, and why. It ends nothing: the client makes the next
    /// connection by itself, unless it was told to disconnect.
    pub fn next(&mut self, device: &mut Machine) -> Option<Result<Action<'i>, Offline>> {
        device.pull(&mut self.rest)
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        *self.start = self.end - self.rest.len();
    }
}
