//! What the file holds: made, opened and checked, read as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use devicebound::hub::{DeviceRecord, SnapshotError};
use devicebound::time::UnixTime;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, StorageBackend, WriteTransaction};

use super::Disk;
use super::error::Error;
use super::guard::unless_it_panics;
use super::layout::{BLOCKS, DOCUMENTS, HEADS, LAYOUT, LAYOUT_WITHOUT_VERSIONS, MESSAGES, META};
use super::sealed::Sealed;
use crate::store::{Stored, Version};
use crate::telemetry::block::Block;

/// Pages that are kept in memory: the upper ones of the trees. The system's own cache has the rest.
const CACHE: usize = 16 * 1024 * 1024;

/// Makes an empty store.
pub(super) fn make(backend: Box<dyn StorageBackend>) -> Result<(), Error> {
    let database = Database::builder().set_cache_size(CACHE).create_with_backend(Sealed::make(backend))?;
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.open_table(META)?.insert("layout", LAYOUT)?;
    transaction.open_table(META)?.insert("telemetry", Tally::default().to_bytes().as_slice())?;
    drop((
        transaction.open_table(HEADS)?,
        transaction.open_table(MESSAGES)?,
        transaction.open_table(BLOCKS)?,
    ));
    transaction.commit()?;
    Ok(())
}

/// Opens what is there, and reads through it.
pub(super) fn open(disk: &dyn Disk) -> Result<Database, Error> {
    unless_it_panics(|| open_and_check(disk))
}

fn open_and_check(disk: &dyn Disk) -> Result<Database, Error> {
    // Of an empty file the library would make a new one; this makes none.
    let file = Sealed::check(disk.open().map_err(Error::Io)?)?;
    let was_repaired = Arc::new(AtomicBool::new(false));
    let repaired = Arc::clone(&was_repaired);
    let mut database = Database::builder()
        .set_cache_size(CACHE)
        .set_repair_callback(move |_| repaired.store(true, Ordering::Relaxed))
        .create_with_backend(file)?;
    // A repair, after a crash, compares all checksums, too.
    if !was_repaired.load(Ordering::Relaxed) && !database.check_integrity()? {
        return Err(Error::Damaged("its pages are not those that were written".to_owned()));
    }
    let transaction = database.begin_read()?;
    let layout = transaction.open_table(META)?.get("layout")?.map(|layout| layout.value().to_vec());
    match layout {
        Some(layout) if layout == LAYOUT || layout == LAYOUT_WITHOUT_VERSIONS => {}
        Some(layout) => return Err(Error::Layout(String::from_utf8_lossy(&layout).into_owned())),
        None => return Err(Error::Damaged("its layout is not named".to_owned())),
    }
    drop(transaction);
    Ok(database)
}

/// Every record.
pub(super) fn load(database: &Database) -> Result<Vec<Stored>, Error> {
    let transaction = database.begin_read()?;
    let messages = transaction.open_table(MESSAGES)?;
    let mut messages = messages.iter()?.peekable();
    let mut records = Vec::new();
    for head in transaction.open_table(HEADS)?.iter()? {
        let (client_id, head) = head?;
        let client_id = client_id.value();
        let mut entries = Vec::new();
        while let Some(message) =
            messages.next_if(|message| !message.as_ref().is_ok_and(|(key, _)| key.value().0 != client_id))
        {
            entries.push(message?.1.value().to_vec());
        }
        let of_record = |error| Error::Record { client_id: client_id.to_owned(), error };
        let (version, text) = split_head(head.value()).ok_or_else(|| of_record(SnapshotError::Json))?;
        let record = DeviceRecord::from_parts(text, entries.iter().map(Vec::as_slice)).map_err(of_record)?;
        if record.identity.client_id() != client_id {
            return Err(of_record(SnapshotError::Member("clientId")));
        }
        records.push(Stored { record, version });
    }
    match messages.next() {
        None => Ok(records),
        Some(message) => {
            Err(Error::Record { client_id: message?.0.value().0.to_owned(), error: SnapshotError::Messages })
        }
    }
}

/// Every document, by name.
pub(super) fn documents(database: &Database) -> Result<Vec<(String, String)>, Error> {
    let documents = match database.begin_read()?.open_table(DOCUMENTS) {
        Ok(documents) => documents,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for document in documents.iter()? {
        let (key, text) = document?;
        found.push((key.value().to_owned(), text.value().to_owned()));
    }
    Ok(found)
}

/// The version of a record, its head, and its messages in order.
pub(super) type Parts = (Version, Vec<u8>, Vec<Vec<u8>>);

pub(super) fn read_record(database: &Database, client_id: &str) -> Result<Option<Parts>, redb::Error> {
    let transaction = database.begin_read()?;
    let heads = transaction.open_table(HEADS)?;
    let Some(head) = heads.get(client_id)? else { return Ok(None) };
    // What is too short is no record, and is named as that.
    let (version, head) = split_head(head.value()).unwrap_or((Version::new(0), &[]));
    let head = head.to_vec();
    let mut entries = Vec::new();
    for message in transaction.open_table(MESSAGES)?.range((client_id, 0)..=(client_id, u64::MAX))? {
        entries.push(message?.1.value().to_vec());
    }
    Ok(Some((version, head, entries)))
}

/// The value of a head: so that its version can be compared without reading it.
pub(super) fn join_head(version: Version, head: &str) -> Vec<u8> {
    [&version.get().to_le_bytes(), head.as_bytes()].concat()
}

/// The version, and the text.
pub(super) fn split_head(value: &[u8]) -> Option<(Version, &[u8])> {
    let (version, text) = value.split_first_chunk()?;
    Some((Version::new(u64::from_le_bytes(*version)), text))
}

/// How long the value of a block is.
pub(super) fn block_length(block: &Block) -> usize {
    block.as_bytes().len().saturating_add(12)
}

/// The value of a block, into `value` of [`block_length`]: so that it can be found and dropped without being read.
pub(super) fn write_block(block: &Block, stored: UnixTime, value: &mut [u8]) {
    let Some((count, rest)) = value.split_at_mut_checked(4) else { return };
    let Some((time, bytes)) = rest.split_at_mut_checked(8) else { return };
    count.copy_from_slice(&block.count().to_le_bytes());
    time.copy_from_slice(&stored.as_millis().to_le_bytes());
    bytes.copy_from_slice(block.as_bytes());
}

/// How many messages, when they were stored, and the block.
pub(super) fn split_block(value: &[u8]) -> Option<(u32, UnixTime, &[u8])> {
    let (count, rest) = value.split_first_chunk()?;
    let (stored, bytes) = rest.split_first_chunk()?;
    Some((u32::from_le_bytes(*count), UnixTime::from_millis(u64::from_le_bytes(*stored)), bytes))
}

/// What is known of all blocks without looking at them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// The number of the newest message, kept or not.
    pub(super) newest: u64,
    /// Bytes of all blocks.
    pub(super) bytes: u64,
    opened: u64,
    /// The version that was given last.
    pub(super) version: u64,
}

impl Tally {
    /// Reads it, and commits that the file was opened. What a failed commit left in the system's cache alone is on disk
    /// from then on, or the file is not used.
    pub(super) fn begin(database: &Database) -> Result<Self, Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_two_phase_commit(true);
        let tally;
        {
            let mut meta = transaction.open_table(META)?;
            let before = meta.get("telemetry")?.and_then(|value| Self::from_bytes(value.value()));
            let (before, version) =
                before.ok_or_else(|| Error::Damaged("its tally is missing".to_owned()))?;
            let version = match version {
                Some(version) => version,
                None => newest_version(&transaction)?,
            };
            tally = Self { opened: before.opened.saturating_add(1), version, ..before };
            meta.insert("telemetry", tally.to_bytes().as_slice())?;
            meta.insert("layout", LAYOUT)?;
        }
        transaction.commit()?;
        Ok(tally)
    }

    pub(super) fn append(&mut self, block: &Block) {
        self.newest = self.newest.saturating_add(u64::from(block.count()));
        self.bytes = self.bytes.saturating_add(block_length(block) as u64);
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.newest, self.bytes, self.opened, self.version].map(u64::to_le_bytes).concat()
    }

    /// The tally, and the version that was given last where the file has them.
    fn from_bytes(bytes: &[u8]) -> Option<(Self, Option<u64>)> {
        let [newest, bytes, opened, rest @ ..] = bytes.as_chunks().0 else { return None };
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let tally = Self { newest: number(newest), bytes: number(bytes), opened: number(opened), version: 0 };
        Some((tally, rest.first().map(number)))
    }
}

/// The greatest number that a head begins with.
fn newest_version(transaction: &WriteTransaction) -> Result<u64, Error> {
    let mut newest = 0;
    for head in transaction.open_table(HEADS)?.iter()? {
        newest = split_head(head?.1.value()).map_or(newest, |(version, _)| version.get().max(newest));
    }
    Ok(newest)
}
