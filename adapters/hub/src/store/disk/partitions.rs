//! What the partitions have counted, as the file holds it.

use devicebound::time::UnixTime;
use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use super::error::Error;
use super::format::split_block;
use super::layout::{BLOCKS, META, PARTITIONS};
use crate::store::Head;
use crate::store::partitions::{PARTITIONS as COUNT, Partitions};
use crate::telemetry::block::Block;

/// Reads what was counted, and counts what was not: a version that knew no partitions has written it.
pub(super) fn begin(database: &Database) -> Result<Partitions, Error> {
    let damaged = |what: &str| Error::Damaged(format!("what its partitions have counted {what}"));
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    let mut counted;
    {
        let mut meta = transaction.open_table(META)?;
        let mut rows = transaction.open_table(PARTITIONS)?;
        let blocks = transaction.open_table(BLOCKS)?;
        let found = meta.get("partitions")?.map(|value| split(value.value()));
        let (mut until, partitions) = match found {
            Some(split) => split.ok_or_else(|| damaged("cannot be read"))?,
            None => (0, Partitions::new(COUNT)),
        };
        counted = partitions;
        for row in blocks.range(until.saturating_add(1)..)? {
            let (first, value) = row?;
            let (_, stored, bytes) = split_block(value.value()).unwrap_or_default();
            let block = Block::from_bytes(bytes.to_vec()).map_err(|_| damaged("is of no block"))?;
            rows.insert(first.value(), join(stored.as_millis(), &counted).as_slice())?;
            counted.append(first.value(), &block);
            until = first.value().saturating_add(u64::from(block.count())).saturating_sub(1);
        }
        meta.insert("partitions", join(until, &counted).as_slice())?;
    }
    transaction.commit()?;
    Ok(counted)
}

/// Makes these the counts up to a cursor.
pub(super) fn set(database: &Database, until: u64, partitions: &Partitions) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.open_table(META)?.insert("partitions", join(until, partitions).as_slice())?;
    transaction.commit()?;
    Ok(())
}

/// The latest time that a block began its age with.
pub(super) fn newest_age(database: &Database) -> Result<UnixTime, Error> {
    let rows = database.begin_read()?.open_table(PARTITIONS)?;
    let newest = rows.last()?.and_then(|(_, row)| split(row.value()));
    Ok(newest.map_or_else(UnixTime::default, |(age, _)| UnixTime::from_millis(age)))
}

/// A number, and what was counted.
pub(super) fn join(number: u64, partitions: &Partitions) -> Vec<u8> {
    [&number.to_le_bytes()[..], &partitions.to_bytes()].concat()
}

pub(super) fn split(value: &[u8]) -> Option<(u64, Partitions)> {
    let (until, counted) = value.split_first_chunk()?;
    Some((u64::from_le_bytes(*until), Partitions::from_bytes(counted)?))
}

/// The block that holds the first message after `cursor`: its head, and what `take` makes of its value.
pub(super) fn find<V>(
    database: &Database,
    cursor: u64,
    take: impl Fn(&[u8]) -> V,
) -> Result<Option<(Head, V)>, redb::Error> {
    let transaction = database.begin_read()?;
    let (blocks, rows) = (transaction.open_table(BLOCKS)?, transaction.open_table(PARTITIONS)?);
    let wanted = cursor.saturating_add(1);
    let head = |first: u64, value: &[u8]| -> Result<Option<(Head, V)>, redb::Error> {
        let (count, stored, _) = split_block(value).unwrap_or_default();
        let last = first.saturating_add(u64::from(count)).saturating_sub(1);
        if last < wanted {
            return Ok(None);
        }
        let row = rows.get(first)?;
        let before = row.and_then(|row| split(row.value())).map(|(_, before)| before);
        Ok(before.map(|before| (Head { first, last, stored, before }, take(value))))
    };
    if let Some(block) = blocks.range(..=wanted)?.next_back() {
        let (first, value) = block?;
        if let Some(found) = head(first.value(), value.value())? {
            return Ok(Some(found));
        }
    }
    match blocks.range(wanted..)?.next().transpose()? {
        Some((first, value)) => head(first.value(), value.value()),
        None => Ok(None),
    }
}
