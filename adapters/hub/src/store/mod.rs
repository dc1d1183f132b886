//! What makes changes last. The machine acknowledges nothing before a store has said that it is safe.
//!
//! A store knows two kinds of things. *Records*, one per identity, each with a revision: they are compared and
//! committed, so that of two that would change the same record one is refused. And *telemetry*, which is appended in
//! [blocks](Block) and read back by *cursor*, the number of a message in the order of the whole hub, from 1.
//!
//! | | |
//! |---|---|
//! | [`disk`] | the default: one file, made by redb; a [`Batch`] is one transaction, on disk with one commit |
//! | [`memory`] | nothing outlives the process: for tests, and for `--store memory` |
//!
//! # A store elsewhere
//!
//! Nothing in [`Store`] supposes that the store is in this process, or that this process is its only user: four verbs,
//! values in, values out. On NATS JetStream they would be:
//!
//! | verb | on JetStream |
//! |---|---|
//! | [`load`](Store::load) | a key-value bucket for heads and one for messages: watch all keys until the initial values are there |
//! | [`commit`](Store::commit) of a record | messages first (`put`, they never change), then the head by `update(key, value, revision)`: the bucket's own compare-and-commit, whose refusal is [`Committed::refused`]. [`RecordChange::expected`] would hold the bucket's revision; `None` is its `create` |
//! | `commit` of telemetry | publish each block to a stream, subject by partition; a commit is safe when the last publish acknowledgement is there. The stream's limits `max_age` and `max_bytes` are the [`Retention`] |
//! | [`telemetry`](Store::telemetry) | an ordered consumer that starts at a sequence: a cursor is the stream sequence of the block and the place in it |
//!
//! What a batch holds is independent of each other there: a batch is atomic on one disk, and no promise rests on that.
//! Each record is atomic everywhere, because its head lists its messages: an entry that no head lists was never there.

pub mod disk;
mod ledger;
mod log;
pub mod memory;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use devicebound::hub::{DeviceRecord, Revision, SequenceNumber};

pub use disk::DiskStore;
pub use ledger::Ledger;
pub use log::{Blocks, TelemetryLog};
pub use memory::MemoryStore;

use crate::Failure;
use crate::block::Block;

/// All that has gathered while the store was busy with the batch before.
#[derive(Debug, Default)]
pub struct Batch {
    /// Telemetry, in order of arrival.
    pub blocks: Vec<Block>,
    /// Client ids whose records are gone; done before `records`.
    pub removed: Vec<String>,
    /// Records that changed, each at most once; each contains all earlier changes of its identity.
    pub records: Vec<RecordChange>,
}

/// A record as it is to be.
#[derive(Clone, Debug)]
pub struct RecordChange {
    /// Whose record.
    pub client_id: String,
    /// The revision that the store must hold for the change to be made; `None`: there must be no record.
    pub expected: Option<Revision>,
    /// The revision that it holds afterwards.
    pub revision: Revision,
    /// The record without its messages.
    pub head: String,
    /// The messages that wait, oldest first; what the store has besides goes away.
    pub waiting: Vec<SequenceNumber>,
    /// Those of them that the store does not have yet.
    pub enqueued: Vec<(SequenceNumber, String)>,
}

/// What became of a batch that is safe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Committed {
    /// Client ids of the records that were not written, because the store held another revision than expected. All else
    /// is safe.
    pub refused: Vec<String>,
}

/// How long telemetry is kept: until it is too old, or until there is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How old a message may become.
    pub age: Duration,
    /// How many bytes all blocks together may have.
    pub bytes: u64,
}

/// One day, as the real hub keeps messages on its built-in endpoint by default (Azure: "Read device-to-cloud messages
/// from the built-in endpoint"); and 1 GiB, which a start after a crash reads through in about a second.
impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(24 * 3600), bytes: 1024 * 1024 * 1024 }
    }
}

/// A place where a hub's memory outlives the process. See the [module](self).
pub trait Store: Send + std::fmt::Debug {
    /// Every record there is, once at start.
    ///
    /// # Errors
    /// When one cannot be read: nothing is left out in silence.
    fn load(&mut self) -> Result<Vec<DeviceRecord>, Failure>;

    /// Whether what is committed outlives the process. If so, a commit may take its time, and nothing is acknowledged
    /// before it; if not, a commit must be over at once, nothing waits for it, and it is of telemetry alone.
    fn is_durable(&self) -> bool {
        true
    }

    /// Makes a whole batch safe; on return all of it is, but what was refused. One `fsync` stands for all of it.
    ///
    /// # Errors
    /// When it is not known to be safe. Each part of the batch is then as it was before or as the batch says, and
    /// [`reload`](Self::reload) tells which.
    fn commit(&mut self, batch: Batch) -> io::Result<Committed>;

    /// What is safe of one identity after a commit failed or was refused; `None` if there is no record.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn reload(&mut self, client_id: &str) -> io::Result<Option<DeviceRecord>>;

    /// The telemetry, for readers; they may read while batches are committed.
    fn telemetry(&self) -> Arc<TelemetryLog>;
}
