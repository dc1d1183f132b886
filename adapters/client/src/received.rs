//! Bytes that were received, and the actions in them.

use devicebound::device::{Action, Device, Event};
use devicebound::session::Close;
use devicebound::time::Instant;

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

    /// Lends what was received and not taken yet; what `act` takes off its front is gone.
    pub(crate) fn take_with<R>(&mut self, act: impl FnOnce(&mut &[u8]) -> R) -> R {
        let mut rest = &self.bytes[self.start..self.end];
        let result = act(&mut rest);
        self.start = self.end - rest.len();
        result
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
    /// What was not taken yet.
    pub(crate) const fn rest(&mut self) -> &mut &'i [u8] {
        &mut self.rest
    }

    /// One pull at the machine itself.
    pub(crate) fn pull(
        &mut self,
        device: &mut Device,
        now: Instant,
        tx: &mut Vec<u8>,
    ) -> Result<Action<'i>, Close> {
        device.handle(now, Event::Received(&mut self.rest), tx)
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        *self.start = self.end - self.rest.len();
    }
}
