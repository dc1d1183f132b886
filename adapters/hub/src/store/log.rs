//! The telemetry that a store keeps, as readers see it: page by page, then as it comes.
//!
//! ```text
//!   Position ──read──▶ Page { gap?, messages, next } ──▶ Position …
//!   Position ──wait_after──▶ there is more
//! ```

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use devicebound::time::UnixTime;
use tokio::sync::watch;

use super::partitions::{Partition, Partitions};
use crate::telemetry::block::Block;
use crate::telemetry::message::Message;

/// The most messages of a page: some megabytes of text.
const PAGE: u64 = 4096;

/// A reader's place in a log: after a message, or before the first one.
///
/// It comes from the log and goes back to it; to a client it goes as the cursor of the message before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

impl Position {
    /// Before the first message that there ever was.
    pub const START: Self = Self(0);

    /// Right after the message with this cursor.
    #[must_use]
    pub const fn after(cursor: u64) -> Self {
        Self(cursor)
    }

    /// Right before the message with this cursor.
    #[must_use]
    pub const fn before(cursor: u64) -> Self {
        Self(cursor.saturating_sub(1))
    }

    /// The cursor of the message before it; 0 at the start.
    #[must_use]
    pub const fn cursor(self) -> u64 {
        self.0
    }

    /// What lies between this place and another one, if there is anything.
    #[must_use]
    pub fn gap_until(self, end: Self) -> Option<Gap> {
        (self < end).then(|| Gap { from: self.0.saturating_add(1), to: end.0 })
    }
}

/// The place right after the message with this cursor.
impl From<u64> for Position {
    fn from(cursor: u64) -> Self {
        Self::after(cursor)
    }
}

/// Messages that are not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The cursor of the first of them.
    pub from: u64,
    /// The cursor of the last of them.
    pub to: u64,
}

/// The messages that follow a position; at most 4096, of one block.
#[derive(Clone, Debug)]
pub struct Page {
    /// What is missing before the first of them.
    pub gap: Option<Gap>,
    /// Where to read on.
    pub next: Position,
    piece: Option<Piece>,
    after: Position,
}

impl Page {
    /// The messages in order, each with its cursor.
    pub fn messages(&self) -> impl Iterator<Item = (u64, Message<'_>)> {
        let wanted = self.after.0.saturating_add(1)..=self.next.0;
        let first = self.piece.as_ref().map_or(0, |piece| piece.head.first);
        let messages = self.piece.iter().flat_map(|piece| piece.block.messages());
        (first..=u64::MAX).zip(messages).filter(move |(cursor, _)| wanted.contains(cursor))
    }
}

/// Where a store keeps its blocks.
pub trait Blocks: Send + Sync + std::fmt::Debug {
    /// The first block that holds a message after `cursor`.
    ///
    /// # Errors
    /// When it cannot be read.
    fn after(&self, cursor: u64) -> io::Result<Option<Piece>>;

    /// The same block without its messages.
    ///
    /// # Errors
    /// When it cannot be read.
    fn head(&self, cursor: u64) -> io::Result<Option<Head>>;
}

/// What is known of a block without its messages.
#[derive(Clone, Debug)]
pub struct Head {
    /// The cursor of its first message.
    pub first: u64,
    /// The cursor of its last one.
    pub last: u64,
    /// When it was stored: none of its messages was taken later.
    pub stored: UnixTime,
    /// What the partitions had counted before it.
    pub before: Partitions,
}

/// A block with what belongs to it.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Where it is, and what the partitions had counted before it.
    pub head: Head,
    /// Its messages.
    pub block: Arc<Block>,
}

/// All telemetry that is kept. Its numbers go on over restarts.
#[derive(Debug)]
pub struct TelemetryLog {
    blocks: Box<dyn Blocks>,
    /// The number of the newest message, kept or not; 0 before the first.
    newest: watch::Sender<u64>,
    /// What the partitions have counted up to it.
    partitions: RwLock<Partitions>,
}

impl TelemetryLog {
    /// The log of a store whose newest message has the number `newest`, and whose partitions have counted so far.
    #[must_use]
    pub fn new(blocks: Box<dyn Blocks>, newest: u64, partitions: Partitions) -> Self {
        Self { blocks, newest: watch::Sender::new(newest), partitions: RwLock::new(partitions) }
    }

    /// What the partitions have counted.
    #[must_use]
    pub fn partitions(&self) -> Partitions {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What one of them has counted; nothing where there is no such partition.
    #[must_use]
    pub fn partition(&self, number: u16) -> Partition {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        partitions.get(number).copied().unwrap_or_default()
    }

    /// Hears of the number of the newest message.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The number of the newest message; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// The store holds messages up to this one, and they are safe.
    pub fn appended(&self, newest: u64, partitions: &Partitions) {
        self.partitions.write().unwrap_or_else(PoisonError::into_inner).clone_from(partitions);
        self.newest.send_if_modified(|last| {
            let is_new = newest > *last;
            *last = newest.max(*last);
            is_new
        });
    }

    /// What follows a position. Without messages, nothing more is safe yet; what is missing before it is told all the same.
    /// Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn read(&self, after: impl Into<Position>) -> io::Result<Page> {
        let (after, end) = (after.into(), Position::after(self.newest()));
        // Nothing is shown before the commit has come back: its numbers may have to be given again.
        let found = if after < end { self.blocks.after(after.0)? } else { None };
        let Some(piece) = found.filter(|piece| piece.head.first <= end.0) else {
            let next = after.max(end);
            return Ok(Page { gap: after.gap_until(next), next, piece: None, after: next });
        };
        let from = after.max(Position::before(piece.head.first));
        let last = piece.head.last.min(end.0).min(from.0.saturating_add(PAGE));
        Ok(Page { gap: after.gap_until(from), next: Position::after(last), piece: Some(piece), after: from })
    }

    /// The next blocks with messages after a position, until they have `bytes` bytes; none when there are no more. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn pieces(&self, after: impl Into<Position>, bytes: usize) -> io::Result<Vec<Piece>> {
        let (newest, mut cursor, mut total) = (self.newest(), after.into().cursor(), 0_usize);
        let mut pieces = Vec::new();
        while cursor < newest && total < bytes {
            // As in `read`.
            let Some(piece) = self.blocks.after(cursor)?.filter(|piece| piece.head.last <= newest) else {
                break;
            };
            cursor = piece.head.last;
            total = total.saturating_add(piece.block.as_bytes().len());
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// The cursor behind which the first block begins that is not `before` what is looked for. Blocks are in order. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn seek(&self, before: impl Fn(&Head) -> bool) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.newest());
        while low < high {
            let middle = low.midpoint(high);
            match self.blocks.head(middle)? {
                Some(head) if before(&head) && head.last > low => low = head.last.min(high),
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The block that the message with this cursor is in, or the next one that is kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn head_of(&self, cursor: u64) -> io::Result<Option<Head>> {
        self.blocks.head(cursor.saturating_sub(1))
    }

    /// Waits until there is a message after a position.
    pub async fn wait_after(&self, after: impl Into<Position>) {
        let cursor = after.into().cursor();
        // The sender is here, so the channel does not close.
        let _ = self.newest.subscribe().wait_for(|newest| *newest > cursor).await;
    }
}
