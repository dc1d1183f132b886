//! What makes changes last. The machine acknowledges nothing before a store has said that it is safe.
//!
//! A store knows two kinds of things. *Records*, one per identity, each with a [`Version`] that the store gives: they are
//! compared and committed, so that of two that would change the same record one is refused. And *telemetry*, which is appended in
//! [blocks](Block) and read back from a [`Position`]. The number of a message in the order of the whole hub, from 1, is its
//! *cursor*.
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
//! | [`commit`](Store::commit) of a record | messages first (`put`, they never change), then the head by `update(key, value, revision)`: the bucket's own compare-and-commit, whose refusal is a `None` in [`Committed::versions`]. [`RecordChange::expected`] would hold the bucket's revision, and so would [`Committed::versions`]; `None` is its `create` |
//! | `commit` of telemetry | publish each block to a stream, subject by partition; a commit is safe when the last publish acknowledgement is there. The stream's limits `max_age` and `max_bytes` are the [`Retention`] |
//! | [`telemetry`](Store::telemetry) | an ordered consumer that starts at a sequence; cursor and counts of partitions of a block's first message go with it as headers, which `seek` compares |
//!
//! What every store must promise, wherever it is:
//!
//! * What `commit` has returned for is safe: it is there after a crash of this process, of the store and of either machine.
//! * After an error nothing is known of the batch. [`reload`](Store::reload) then says what is safe, and says so until the
//!   next commit: what it has shown does not go away, and what it has not shown does not turn up later.
//! * Each record is atomic, because its head lists its messages: an entry that no head lists was never there. The parts of
//!   a batch are independent of each other: a batch is atomic on one disk, and no promise rests on that.
//! * A [`Version`] is given once in the life of a client id, removals included. It need not be the next number, and only
//!   the store compares it.
//! * Telemetry has one order. A message keeps its cursor, and its sequence number in its [partition](partitions), over
//!   restarts and whatever gives way; both grow by one from message to message. A reader sees no message before it is safe.
//! * The number of partitions is chosen when the store is made, and stays.

pub mod disk;
mod ledger;
mod log;
pub mod memory;
pub mod partitions;
pub mod reader;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use devicebound::hub::{DeviceRecord, SequenceNumber};

pub use disk::DiskStore;
pub use ledger::Ledger;
pub use log::{Blocks, Gap, Head, Page, Piece, Position, TelemetryLog};
pub use memory::MemoryStore;

use crate::Failure;
use crate::telemetry::block::Block;

/// All that has gathered while the store was busy with the batch before.
#[derive(Debug, Default)]
pub struct Batch {
    /// Telemetry, in order of arrival.
    pub blocks: Vec<Block>,
    /// Client ids whose records are gone; done before `records`.
    pub removed: Vec<String>,
    /// Records that changed, each at most once; each contains all earlier changes of its identity.
    pub records: Vec<RecordChange>,
    /// Documents that changed; of those with one name the last counts.
    pub documents: Vec<Document>,
}

/// A text that a part of the hub keeps under a name of its own choice, such as an enrollment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The name; what belongs together starts alike.
    pub key: String,
    /// The text; `None`: there is to be no such document.
    pub text: Option<String>,
}

/// Which commit of a record a store holds. The store chooses it; all others give it back as they got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// What no store gives: to expect it is to be refused.
    pub(crate) const NEVER_GIVEN: Self = Self(u64::MAX);

    /// For stores: the version that is kept as this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// For stores: how it is kept.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A record as a store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The record.
    pub record: DeviceRecord,
    /// Which commit of it this is.
    pub version: Version,
}

/// A record as it is to be.
#[derive(Clone, Debug)]
pub struct RecordChange {
    /// Whose record.
    pub client_id: String,
    /// The version that the store must hold for the change to be made; `None`: there must be no record.
    pub expected: Option<Version>,
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
    /// For each record of the batch, in its order, the version that was written; `None` where the store held another one
    /// than was expected, and was left as it is. All else is safe.
    pub versions: Vec<Option<Version>>,
}

impl Committed {
    /// Whether all of the batch was written.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.versions.iter().all(Option::is_some)
    }
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
    fn load(&mut self) -> Result<Vec<Stored>, Failure>;

    /// Whether what is committed outlives the process. If so, a commit may take its time, and nothing is acknowledged
    /// before it; if not, a commit must be over at once, nothing waits for it, and it is of telemetry alone.
    fn is_durable(&self) -> bool {
        true
    }

    /// Every document there is, once at start, by name.
    ///
    /// # Errors
    /// When one cannot be read.
    fn documents(&mut self) -> Result<Vec<(String, String)>, Failure>;

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
    fn reload(&mut self, client_id: &str) -> io::Result<Option<Stored>>;

    /// The telemetry, for readers; they may read while batches are committed.
    fn telemetry(&self) -> Arc<TelemetryLog>;
}
