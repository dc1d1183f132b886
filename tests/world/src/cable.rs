//! A connection without a device machine: whoever holds its end says what he likes.

use devicebound::hub::LinkId;

use super::{Arrival, Pipe};
use crate::hub_host::HubHost;

/// Bytes that the pipes of a cable take.
const WINDOW: usize = 1 << 20;

/// A connection to a hub through two [pipes](Pipe) that take no time. Each read takes as many bytes as the caller says.
#[derive(Debug)]
pub struct Cable {
    link: LinkId,
    up: Pipe,
    down: Pipe,
}

impl Cable {
    /// A new connection.
    #[must_use]
    pub fn new(hub: &mut HubHost) -> Self {
        Self { link: hub.open(), up: Pipe::new(WINDOW), down: Pipe::new(WINDOW) }
    }

    /// The hub's name for it.
    #[must_use]
    pub const fn link(&self) -> LinkId {
        self.link
    }

    /// Sends `bytes`; the hub reads `most` at a time, as long as it reads at all.
    pub fn send(&mut self, hub: &mut HubHost, bytes: &[u8], most: impl FnMut() -> usize) {
        self.up.write(bytes, hub.now);
        self.deliver(hub, most);
    }

    /// This end is closed, behind what was sent.
    pub fn close(&mut self, hub: &mut HubHost) {
        self.up.close(hub.now);
        self.deliver(hub, || usize::MAX);
    }

    /// Lets the hub go on reading, `most` at a time.
    pub fn deliver(&mut self, hub: &mut HubHost, mut most: impl FnMut() -> usize) {
        while hub.reads(self.link) {
            match self.up.read(hub.now, most()) {
                Some(Arrival::Bytes(bytes)) => hub.receive(self.link, &bytes),
                Some(Arrival::End) => return hub.hang_up(self.link),
                None => return,
            }
        }
    }

    /// What the hub has sent, read `most` at a time.
    pub fn receive(&mut self, hub: &mut HubHost, mut most: impl FnMut() -> usize) -> Vec<u8> {
        let mut received = Vec::new();
        loop {
            let sent = hub.take_some(self.link, self.down.room());
            if sent.is_empty() {
                return received;
            }
            self.down.write(&sent, hub.now);
            while let Some(Arrival::Bytes(bytes)) = self.down.read(hub.now, most()) {
                received.extend(bytes);
            }
        }
    }
}
