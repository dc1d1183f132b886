//! The store on a disk: one file, made by redb.
//!
//! # Layout
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `layout` | the number of this layout |
//! | | `telemetry` | number of the newest message, bytes of all blocks, how often the file was opened, the newest version of a record: four u64 |
//! | `heads` | client id | version (u64), then the head of the record as JSON |
//! | `messages` | client id, sequence number | a waiting cloud message as JSON |
//! | `documents` | name | the text |
//! | `blocks` | cursor of the first message | number of messages (u32), when they were stored (u64, ms), then the [`Block`] |
//! | `partitions` | the same | the age that the block begins with (u64, ms, by the [`AgeClock`]), and what the [`Partitions`] had counted before it |
//! | `meta` | `partitions` | the cursor up to which they have counted (u64), and what |
//!
//! Numbers are little-endian.
//!
//! # What is promised, and how
//!
//! * *A commit is on disk when it returns.* It has two phases: the new pages are synced before the header names them. One
//!   phase would save a sync, and tell a torn commit by its checksums; but devices choose the bytes, and after a sync
//!   that failed the kernel still shows pages that the disk does not have, checksums and all.
//! * *An error is a loss.* After any error the file is closed; what the disk really has is read anew before anything
//!   else is said about it, and nothing is shown from it before a commit of its own has succeeded.
//! * *Damage is named.* Each start reads the whole file and compares all checksums: about a second for each GiB. redb has
//!   one for each page and for each of the last two commits; which of these counts is [sealed](Sealed).

mod error;
mod file;
mod format;
mod guard;
mod layout;
mod partitions;
mod sealed;

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use devicebound::hub::DeviceRecord;
use devicebound::time::UnixTime;
use redb::{Database, Durability, StorageBackend, WriteTransaction};

use error::Error;
pub use file::FILE;
use format::Tally;
use guard::unless_it_panics;
use layout::{BLOCKS, DOCUMENTS, HEADS, MESSAGES, META, PARTITIONS};
pub use sealed::Sealed;

use super::partitions::Partitions;
use super::{
    Batch, Blocks, Committed, Document, Head, Piece, RecordChange, Retention, Store, Stored, TelemetryLog,
    Version,
};
use crate::Failure;
use crate::clock::{AgeClock, unix_time};
use crate::state::StateDir;
use crate::telemetry::block::Block;

/// Blocks that one commit may drop, so that a retention which was made much shorter is worked off in parts.
const DROPPED_AT_ONCE: usize = 64;

/// Where the file is: a real disk, or one that a test makes fail.
pub trait Disk: Send + std::fmt::Debug {
    /// Opens what is there, anew each time.
    ///
    /// # Errors
    /// When there is no file, or it cannot be opened.
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// What to call it in an error.
    fn name(&self) -> String;
}

/// Records and telemetry in one file. See the [module](self).
#[derive(Debug)]
pub struct DiskStore {
    disk: Box<dyn Disk>,
    shared: Arc<Shared>,
    retention: Retention,
    ages: AgeClock,
    tally: Tally,
    partitions: Partitions,
    telemetry: Arc<TelemetryLog>,
}

/// The file, which readers use while the writer commits; `None` after an error.
#[derive(Debug)]
struct Shared(RwLock<Option<Database>>);

impl DiskStore {
    /// The store of a state folder; made if the folder never had one.
    ///
    /// # Errors
    /// When the file is missing, damaged, of another version or cannot be opened.
    pub fn at(state: &StateDir, retention: Retention) -> Result<Self, Failure> {
        Self::open(file::find_or_make(state)?, retention)
    }

    /// The store on a disk that [`format`](Self::format) was done on.
    ///
    /// # Errors
    /// When it is damaged, of another version or cannot be opened.
    pub fn open(disk: Box<dyn Disk>, retention: Retention) -> Result<Self, Failure> {
        let opened = format::open(&*disk).and_then(|database| {
            let begun = unless_it_panics(|| {
                let counted = partitions::begin(&database)?;
                Ok((Tally::begin(&database)?, counted, partitions::newest_age(&database)?))
            })?;
            Ok((database, begun))
        });
        let (database, (tally, partitions, newest)) = opened.map_err(|error| error.failure(&disk.name()))?;
        let shared = Arc::new(Shared(RwLock::new(Some(database))));
        let telemetry = Arc::new(TelemetryLog::new(
            Box::new(Reader(Arc::clone(&shared))),
            tally.newest,
            partitions.clone(),
        ));
        Ok(Self { disk, shared, retention, ages: AgeClock::after(newest), tally, partitions, telemetry })
    }

    /// The same store with so many partitions.
    ///
    /// # Errors
    /// When it has another number of them, and telemetry in them; when that cannot be written.
    pub fn with_partitions(mut self, count: u16) -> Result<Self, Failure> {
        if self.partitions.count() == count {
            return Ok(self);
        }
        if self.tally.newest > 0 {
            return Err(Failure::new(
                format!("this store has {} partitions, not {count}", self.partitions.count()),
                "leave --partitions out, or begin with an empty state folder: --state DIR",
            ));
        }
        let partitions = Partitions::new(count);
        let written = self.with(|database, _, _| partitions::set(database, 0, &partitions));
        written
            .map_err(|error| Failure::new(format!("cannot write the store: {error}"), "check its disk"))?;
        self.telemetry.appended(0, &partitions);
        self.partitions = partitions;
        Ok(self)
    }

    /// Makes an empty store.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn format(backend: Box<dyn StorageBackend>) -> io::Result<()> {
        format::make(backend).map_err(Error::into_io)
    }

    /// Does something with the file, opening it anew after an error. An error closes it.
    fn with<R>(
        &mut self,
        act: impl FnOnce(&Database, Tally, &Partitions) -> redb::Result<R, redb::Error>,
    ) -> io::Result<R> {
        let mut guard = self.shared.0.write().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            let database = format::open(&*self.disk).map_err(Error::into_io)?;
            self.tally = Tally::begin(&database).map_err(Error::into_io)?;
            self.partitions = partitions::begin(&database).map_err(Error::into_io)?;
            *guard = Some(database);
            // A commit whose error came late may be there after all, and is safe by now.
            self.telemetry.appended(self.tally.newest, &self.partitions);
        }
        drop(guard);
        let guard = self.shared.0.read().unwrap_or_else(PoisonError::into_inner);
        // Only this writer takes it away.
        let Some(database) = &*guard else { return Err(closed()) };
        let result = act(database, self.tally, &self.partitions);
        drop(guard);
        result.map_err(|error| {
            *self.shared.0.write().unwrap_or_else(PoisonError::into_inner) = None;
            into_io(error)
        })
    }
}

#[cfg(test)]
impl DiskStore {
    pub(super) const fn set_ages(&mut self, ages: AgeClock) {
        self.ages = ages;
    }
}

/// The file is closed with the store, whoever still reads telemetry.
impl Drop for DiskStore {
    fn drop(&mut self) {
        *self.shared.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Store for DiskStore {
    fn load(&mut self) -> Result<Vec<Stored>, Failure> {
        let guard = self.shared.0.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or(Error::Io(closed()));
        let records = database.and_then(|database| unless_it_panics(|| format::load(database)));
        records.map_err(|error| error.failure(&self.disk.name()))
    }

    fn documents(&mut self) -> Result<Vec<(String, String)>, Failure> {
        let guard = self.shared.0.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or(Error::Io(closed()));
        let documents = database.and_then(|database| unless_it_panics(|| format::documents(database)));
        documents.map_err(|error| error.failure(&self.disk.name()))
    }

    fn commit(&mut self, batch: Batch) -> io::Result<Committed> {
        let keep = Keep { retention: self.retention, age: self.ages.now() };
        let (committed, tally, partitions) =
            self.with(|database, tally, partitions| write(database, &batch, tally, partitions, keep))?;
        self.tally = tally;
        self.telemetry.appended(tally.newest, &partitions);
        self.partitions = partitions;
        Ok(committed)
    }

    fn reload(&mut self, client_id: &str) -> io::Result<Option<Stored>> {
        let parts = self.with(|database, _, _| format::read_record(database, client_id))?;
        let Some((version, head, entries)) = parts else { return Ok(None) };
        let record = DeviceRecord::from_parts(&head, entries.iter().map(Vec::as_slice));
        Ok(Some(Stored { record: record.map_err(io::Error::other)?, version }))
    }

    fn telemetry(&self) -> Arc<TelemetryLog> {
        Arc::clone(&self.telemetry)
    }
}

/// How long telemetry is kept, and the time by which that is measured.
#[derive(Clone, Copy, Debug)]
struct Keep {
    retention: Retention,
    age: UnixTime,
}

/// One transaction; gives what was refused, and the tally that goes with it.
fn write(
    database: &Database,
    batch: &Batch,
    mut tally: Tally,
    partitions: &Partitions,
    keep: Keep,
) -> Result<(Committed, Tally, Partitions), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    let mut committed = Committed::default();
    let mut partitions = partitions.clone();
    {
        let mut heads = transaction.open_table(HEADS)?;
        let mut messages = transaction.open_table(MESSAGES)?;
        for client_id in &batch.removed {
            heads.remove(client_id.as_str())?;
            messages.retain_in((client_id.as_str(), 0)..=(client_id.as_str(), u64::MAX), |_, _| false)?;
        }
        for change in &batch.records {
            let version = Version::new(tally.version.saturating_add(1));
            let is_written = change_record(&mut heads, &mut messages, change, version)?;
            if is_written {
                tally.version = version.get();
            }
            committed.versions.push(is_written.then_some(version));
        }
        if !batch.documents.is_empty() {
            let mut documents = transaction.open_table(DOCUMENTS)?;
            for Document { key, text } in &batch.documents {
                match text {
                    Some(text) => documents.insert(key.as_str(), text.as_str())?,
                    None => documents.remove(key.as_str())?,
                };
            }
        }
        write_blocks(&transaction, &batch.blocks, &mut tally, &mut partitions, keep)?;
        let mut meta = transaction.open_table(META)?;
        meta.insert("telemetry", tally.to_bytes().as_slice())?;
        meta.insert("partitions", partitions::join(tally.newest, &partitions).as_slice())?;
    }
    transaction.commit()?;
    Ok((committed, tally, partitions))
}

fn write_blocks(
    transaction: &WriteTransaction,
    written: &[Block],
    tally: &mut Tally,
    partitions: &mut Partitions,
    keep: Keep,
) -> Result<(), redb::Error> {
    let mut blocks = transaction.open_table(BLOCKS)?;
    let mut counted = transaction.open_table(PARTITIONS)?;
    let stored = unix_time();
    for block in written.iter().filter(|block| !block.is_empty()) {
        let first = tally.newest.saturating_add(1);
        let mut value = blocks.insert_reserve(first, format::block_length(block))?;
        format::write_block(block, stored, value.as_mut());
        counted.insert(first, partitions::join(keep.age.as_millis(), partitions).as_slice())?;
        partitions.append(first, block);
        tally.append(block);
    }
    drop_old(&mut blocks, &mut counted, tally, keep)
}

/// Makes a record this version; false if the store holds another one than expected, or would not have all the messages.
fn change_record(
    heads: &mut redb::Table<'_, &'static str, &'static [u8]>,
    messages: &mut redb::Table<'_, (&'static str, u64), &'static [u8]>,
    change: &RecordChange,
    version: Version,
) -> Result<bool, redb::Error> {
    use redb::ReadableTable as _;
    let client_id = change.client_id.as_str();
    let present =
        heads.get(client_id)?.and_then(|head| format::split_head(head.value()).map(|(version, _)| version));
    if present != change.expected {
        return Ok(false);
    }
    let waits = |sequence: u64| change.waiting.iter().any(|waiting| waiting.0 == sequence);
    let range = (client_id, 0)..=(client_id, u64::MAX);
    let mut present = Vec::new();
    for message in messages.range(range.clone())? {
        present.push(message?.0.value().1);
    }
    let is_there = |sequence: u64| {
        present.contains(&sequence) || change.enqueued.iter().any(|(enqueued, _)| enqueued.0 == sequence)
    };
    if !change.waiting.iter().all(|waiting| is_there(waiting.0)) {
        return Ok(false);
    }
    if present.iter().any(|sequence| !waits(*sequence)) {
        messages.retain_in(range, |(_, sequence), _| waits(sequence))?;
    }
    for (sequence, entry) in &change.enqueued {
        messages.insert((client_id, sequence.0), entry.as_bytes())?;
    }
    heads.insert(client_id, format::join_head(version, &change.head).as_slice())?;
    Ok(true)
}

fn drop_old(
    blocks: &mut redb::Table<'_, u64, &'static [u8]>,
    counted: &mut redb::Table<'_, u64, &'static [u8]>,
    tally: &mut Tally,
    keep: Keep,
) -> Result<(), redb::Error> {
    use redb::ReadableTable as _;
    let Keep { retention, age } = keep;
    for _ in 0..DROPPED_AT_ONCE {
        let Some((first, oldest)) = blocks.first()? else { return Ok(()) };
        let key = first.value();
        let length = oldest.value().len() as u64;
        let row = counted.get(key)?;
        let taken =
            row.and_then(|row| partitions::split(row.value())).map(|(taken, _)| UnixTime::from_millis(taken));
        let is_young = taken.is_some_and(|taken| taken.after(retention.age) > age);
        if is_young && tally.bytes <= retention.bytes {
            return Ok(());
        }
        tally.bytes = tally.bytes.saturating_sub(length);
        drop((first, oldest));
        blocks.pop_first()?;
        counted.remove(key)?;
    }
    Ok(())
}

/// The blocks for those who read.
#[derive(Debug)]
struct Reader(Arc<Shared>);

impl Blocks for Reader {
    fn after(&self, cursor: u64) -> io::Result<Option<Piece>> {
        let found = self.find(cursor, |value| format::split_block(value).unwrap_or_default().2.to_vec())?;
        let piece = |(head, bytes)| {
            let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            Ok(Piece { head, block: Arc::new(Block::from_bytes(bytes).map_err(damaged)?) })
        };
        found.map(piece).transpose()
    }

    fn head(&self, cursor: u64) -> io::Result<Option<Head>> {
        Ok(self.find(cursor, |_| ())?.map(|(head, ())| head))
    }
}

impl Reader {
    fn find<V>(&self, cursor: u64, value: impl Fn(&[u8]) -> V) -> io::Result<Option<(Head, V)>> {
        let guard = self.0.0.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or_else(closed)?;
        partitions::find(database, cursor, value).map_err(into_io)
    }
}

fn into_io(error: redb::Error) -> io::Error {
    match error {
        redb::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

fn closed() -> io::Error {
    io::Error::other("the store failed and is not open again yet")
}
