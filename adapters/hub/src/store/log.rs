//! The telemetry that a store keeps, as readers see it: by cursor, then as it comes.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use crate::block::Block;
use crate::log::Entry;
use crate::message::Message;

/// Messages that are made into text at a time: some megabytes of it.
const PAGE: usize = 4096;

/// Where a store keeps its blocks.
pub trait Blocks: Send + Sync + std::fmt::Debug {
    /// The first block that holds a message behind `cursor`, with the cursor of its first message.
    ///
    /// # Errors
    /// When it cannot be read.
    fn behind(&self, cursor: u64) -> io::Result<Option<(u64, Arc<Block>)>>;
}

/// All telemetry that is kept. Its numbers go on over restarts.
#[derive(Debug)]
pub struct TelemetryLog {
    blocks: Box<dyn Blocks>,
    /// The number of the newest message, kept or not; 0 before the first.
    newest: watch::Sender<u64>,
}

impl TelemetryLog {
    /// The log of a store whose newest message has the number `newest`.
    #[must_use]
    pub fn new(blocks: Box<dyn Blocks>, newest: u64) -> Self {
        Self { blocks, newest: watch::Sender::new(newest) }
    }

    /// The number of the newest message; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// The store holds messages up to this one, and they are safe.
    pub fn appended(&self, newest: u64) {
        self.newest.send_if_modified(|last| {
            let is_new = newest > *last;
            *last = newest.max(*last);
            is_new
        });
    }

    /// The next messages behind `cursor`, at most 4096 of one block; none when there are no more. The first of them has a
    /// later number where others gave way. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn page(&self, cursor: u64) -> io::Result<Vec<Entry>> {
        let newest = self.newest();
        let Some((first, block)) = self.blocks.behind(cursor)? else { return Ok(Vec::new()) };
        let entry = |(number, message): (u64, Message<'_>)| Entry {
            cursor: number,
            device_id: message.sender.device_id.into(),
            line: message.to_line(number).into(),
        };
        // Nothing is shown before the commit has come back: its numbers may have to be given again.
        let is_wanted =
            |(number, _): &(u64, Message<'_>)| (cursor.saturating_add(1)..=newest).contains(number);
        Ok((first..=u64::MAX).zip(block.messages()).filter(is_wanted).take(PAGE).map(entry).collect())
    }

    /// Waits until there is a message behind `cursor`.
    pub async fn wait_behind(&self, cursor: u64) {
        // The sender is here, so the channel does not close.
        let _ = self.newest.subscribe().wait_for(|newest| *newest > cursor).await;
    }
}
