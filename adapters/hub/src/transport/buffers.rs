//! Memory that connections of a worker use one after the other, so that an idle one has none.

use std::mem;

/// A buffer that was lent and grew beyond this is not kept.
const KEPT: usize = 256 * 1024;

/// Memory that one connection after the other uses, so that an idle one has none.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// Where sockets are read into.
    raw: Vec<u8>,
    /// Where records are sealed.
    pub(crate) sealed: Vec<u8>,
    rx: Vec<u8>,
    tx: Vec<u8>,
}

impl Buffers {
    /// Room to read into; what stands in it is of no meaning.
    pub(crate) fn raw(&mut self, length: usize) -> &mut [u8] {
        if self.raw.len() < length {
            self.raw.resize(length, 0);
        }
        self.raw.get_mut(..length).unwrap_or_default()
    }

    /// An empty buffer to receive into.
    pub(crate) fn lend_rx(&mut self) -> Vec<u8> {
        mem::take(&mut self.rx)
    }

    /// An empty buffer to send from.
    pub(crate) fn lend_tx(&mut self) -> Vec<u8> {
        mem::take(&mut self.tx)
    }

    pub(crate) fn take_back_rx(&mut self, buffer: Vec<u8>) {
        take_back(&mut self.rx, buffer);
    }

    pub(crate) fn take_back_tx(&mut self, buffer: Vec<u8>) {
        take_back(&mut self.tx, buffer);
    }
}

/// The larger of the two is kept.
fn take_back(kept: &mut Vec<u8>, mut buffer: Vec<u8>) {
    if buffer.capacity() > kept.capacity() && buffer.capacity() <= KEPT {
        buffer.clear();
        *kept = buffer;
    }
}
