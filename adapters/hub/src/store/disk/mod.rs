//! The store on a disk: one file, made by redb.
//!
//! # Layout
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `layout` | the number of this layout |
//! | | `telemetry` | number of the newest message, bytes of all blocks, how often the file was opened: three u64 |
//! | `heads` | client id | revision (u64), then the head of the record as JSON |
//! | `messages` | client id, sequence number | a waiting cloud message as JSON |
//! | `blocks` | cursor of the first message | number of messages (u32), when they were stored (u64, ms), then the [`Block`] |
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

mod file;
mod format;
mod guard;
mod sealed;

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use devicebound::hub::DeviceRecord;
use devicebound::time::UnixTime;
use redb::{Database, Durability, ReadableDatabase as _, StorageBackend};

pub use file::FILE;
use format::{BLOCKS, HEADS, MESSAGES, META, Tally};
use guard::unless_it_panics;
pub use sealed::Sealed;

use super::{Batch, Blocks, Committed, RecordChange, Retention, Store, TelemetryLog};
use crate::Failure;
use crate::block::Block;
use crate::clock::unix_time;
use crate::state::StateDir;

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
    tally: Tally,
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
            let tally = unless_it_panics(|| Tally::begin(&database))?;
            Ok((database, tally))
        });
        let (database, tally) = opened.map_err(|error| error.failure(&disk.name()))?;
        let shared = Arc::new(Shared(RwLock::new(Some(database))));
        let telemetry = Arc::new(TelemetryLog::new(Box::new(Reader(Arc::clone(&shared))), tally.newest));
        Ok(Self { disk, shared, retention, tally, telemetry })
    }

    /// Makes an empty store.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn format(backend: Box<dyn StorageBackend>) -> io::Result<()> {
        format::make(backend).map_err(format::Error::into_io)
    }

    /// Does something with the file, opening it anew after an error. An error closes it.
    fn with<R>(
        &mut self,
        act: impl FnOnce(&Database, Tally) -> redb::Result<R, redb::Error>,
    ) -> io::Result<R> {
        let mut guard = self.shared.0.write().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            let database = format::open(&*self.disk).map_err(format::Error::into_io)?;
            self.tally = Tally::begin(&database).map_err(format::Error::into_io)?;
            *guard = Some(database);
            // A commit whose error came late may be there after all, and is safe by now.
            self.telemetry.appended(self.tally.newest);
        }
        drop(guard);
        let guard = self.shared.0.read().unwrap_or_else(PoisonError::into_inner);
        // Only this writer takes it away.
        let Some(database) = &*guard else { return Err(closed()) };
        let result = act(database, self.tally);
        drop(guard);
        result.map_err(|error| {
            *self.shared.0.write().unwrap_or_else(PoisonError::into_inner) = None;
            into_io(error)
        })
    }
}

/// The file is closed with the store, whoever still reads telemetry.
impl Drop for DiskStore {
    fn drop(&mut self) {
        *self.shared.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Store for DiskStore {
    fn load(&mut self) -> Result<Vec<DeviceRecord>, Failure> {
        let guard = self.shared.0.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or(format::Error::Io(closed()));
        let records = database.and_then(|database| unless_it_panics(|| format::load(database)));
        records.map_err(|error| error.failure(&self.disk.name()))
    }

    fn commit(&mut self, batch: Batch) -> io::Result<Committed> {
        let retention = self.retention;
        let (committed, tally) = self.with(|database, tally| write(database, &batch, tally, retention))?;
        self.tally = tally;
        self.telemetry.appended(tally.newest);
        Ok(committed)
    }

    fn reload(&mut self, client_id: &str) -> io::Result<Option<DeviceRecord>> {
        let parts = self.with(|database, _| format::read_record(database, client_id))?;
        let record = |(head, entries): (Vec<u8>, Vec<Vec<u8>>)| {
            DeviceRecord::from_parts(&head, entries.iter().map(Vec::as_slice))
        };
        parts.map(record).transpose().map_err(io::Error::other)
    }

    fn telemetry(&self) -> Arc<TelemetryLog> {
        Arc::clone(&self.telemetry)
    }
}

/// One transaction; gives what was refused, and the tally that goes with it.
fn write(
    database: &Database,
    batch: &Batch,
    mut tally: Tally,
    retention: Retention,
) -> Result<(Committed, Tally), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    let mut committed = Committed::default();
    {
        let mut heads = transaction.open_table(HEADS)?;
        let mut messages = transaction.open_table(MESSAGES)?;
        for client_id in &batch.removed {
            heads.remove(client_id.as_str())?;
            messages.retain_in((client_id.as_str(), 0)..=(client_id.as_str(), u64::MAX), |_, _| false)?;
        }
        for change in &batch.records {
            if !change_record(&mut heads, &mut messages, change)? {
                committed.refused.push(change.client_id.clone());
            }
        }
        let mut blocks = transaction.open_table(BLOCKS)?;
        let now = unix_time();
        for block in batch.blocks.iter().filter(|block| !block.is_empty()) {
            let first = tally.newest.saturating_add(1);
            let mut value = blocks.insert_reserve(first, format::block_length(block))?;
            format::write_block(block, now, value.as_mut());
            tally.append(block);
        }
        drop_old(&mut blocks, &mut tally, now, retention)?;
        transaction.open_table(META)?.insert("telemetry", tally.to_bytes().as_slice())?;
    }
    transaction.commit()?;
    Ok((committed, tally))
}

/// False if the store holds another revision than expected, or would not have all the messages.
fn change_record(
    heads: &mut redb::Table<'_, &'static str, &'static [u8]>,
    messages: &mut redb::Table<'_, (&'static str, u64), &'static [u8]>,
    change: &RecordChange,
) -> Result<bool, redb::Error> {
    use redb::ReadableTable as _;
    let client_id = change.client_id.as_str();
    let present =
        heads.get(client_id)?.and_then(|head| format::split_head(head.value()).map(|(revision, _)| revision));
    if present != change.expected.map(|revision| revision.get()) {
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
    heads.insert(client_id, format::join_head(change.revision.get(), &change.head).as_slice())?;
    Ok(true)
}

fn drop_old(
    blocks: &mut redb::Table<'_, u64, &'static [u8]>,
    tally: &mut Tally,
    now: UnixTime,
    retention: Retention,
) -> Result<(), redb::Error> {
    use redb::ReadableTable as _;
    for _ in 0..DROPPED_AT_ONCE {
        let Some((_, oldest)) = blocks.first()? else { return Ok(()) };
        let length = oldest.value().len() as u64;
        let is_young = format::split_block(oldest.value())
            .is_some_and(|(_, stored, _)| stored.after(retention.age) > now);
        if is_young && tally.bytes <= retention.bytes {
            return Ok(());
        }
        tally.bytes = tally.bytes.saturating_sub(length);
        drop(oldest);
        blocks.pop_first()?;
    }
    Ok(())
}

/// The blocks for those who read.
#[derive(Debug)]
struct Reader(Arc<Shared>);

impl Blocks for Reader {
    fn behind(&self, cursor: u64) -> io::Result<Option<(u64, Arc<Block>)>> {
        let guard = self.0.0.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or_else(closed)?;
        let found = behind(database, cursor).map_err(into_io)?;
        let block = |(first, bytes)| {
            let block = Block::from_bytes(bytes);
            let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            Ok((first, Arc::new(block.map_err(damaged)?)))
        };
        found.map(block).transpose()
    }
}

fn behind(database: &Database, cursor: u64) -> Result<Option<(u64, Vec<u8>)>, redb::Error> {
    let table = database.begin_read()?.open_table(BLOCKS)?;
    let wanted = cursor.saturating_add(1);
    if let Some(block) = table.range(..=wanted)?.next_back() {
        let (first, value) = block?;
        let (count, _, bytes) = format::split_block(value.value()).unwrap_or_default();
        if first.value().saturating_add(u64::from(count)) > wanted {
            return Ok(Some((first.value(), bytes.to_vec())));
        }
    }
    let next = table.range(wanted..)?.next().transpose()?;
    let bytes = |value: &[u8]| format::split_block(value).unwrap_or_default().2.to_vec();
    Ok(next.map(|(first, value)| (first.value(), bytes(value.value()))))
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
