//! A store that outlives nothing.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devicebound::hub::{DeviceRecord, SequenceNumber};
use devicebound::time::UnixTime;

use super::partitions::{PARTITIONS, Partitions};
use super::{
    Batch, Blocks, Committed, Head, Piece, RecordChange, Retention, Store, Stored, TelemetryLog, Version,
};
use crate::Failure;
use crate::clock::{AgeClock, unix_time};

/// Records and telemetry in memory, with the same rules as on a disk.
#[derive(Debug)]
pub struct MemoryStore {
    records: BTreeMap<String, Record>,
    /// The version that was given last.
    last: u64,
    retention: Retention,
    blocks: Arc<Mutex<Kept>>,
    telemetry: Arc<TelemetryLog>,
}

#[derive(Debug)]
struct Record {
    version: Version,
    head: String,
    messages: BTreeMap<SequenceNumber, String>,
}

#[derive(Debug)]
struct Kept {
    /// Each with the time that its age begins with.
    blocks: VecDeque<(UnixTime, Piece)>,
    ages: AgeClock,
    bytes: u64,
    newest: u64,
    partitions: Partitions,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        Self::with_partitions(retention, PARTITIONS)
    }

    /// An empty store with so many partitions.
    #[must_use]
    pub fn with_partitions(retention: Retention, count: u16) -> Self {
        let partitions = Partitions::new(count);
        let ages = AgeClock::after(UnixTime::default());
        let kept =
            Kept { blocks: VecDeque::new(), ages, bytes: 0, newest: 0, partitions: partitions.clone() };
        let blocks = Arc::new(Mutex::new(kept));
        let telemetry = Arc::new(TelemetryLog::new(Box::new(Shared(Arc::clone(&blocks))), 0, partitions));
        Self { records: BTreeMap::new(), last: 0, retention, blocks, telemetry }
    }

    /// The version that was written; `None` if the store holds another one than expected.
    fn change(&mut self, change: &RecordChange) -> Option<Version> {
        let present = self.records.get(&change.client_id).map(|record| record.version);
        if present != change.expected {
            return None;
        }
        let mut messages =
            self.records.remove(&change.client_id).map_or_else(BTreeMap::new, |record| record.messages);
        messages.extend(change.enqueued.iter().cloned());
        messages.retain(|sequence, _| change.waiting.contains(sequence));
        self.last = self.last.saturating_add(1);
        let version = Version::new(self.last);
        let record = Record { version, head: change.head.clone(), messages };
        self.records.insert(change.client_id.clone(), record);
        Some(version)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Retention::default())
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Vec<Stored>, Failure> {
        Ok(Vec::new())
    }

    fn documents(&mut self) -> Result<Vec<(String, String)>, Failure> {
        Ok(Vec::new())
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn commit(&mut self, batch: Batch) -> io::Result<Committed> {
        for client_id in &batch.removed {
            self.records.remove(client_id);
        }
        let versions = batch.records.iter().map(|change| self.change(change)).collect();
        let mut kept = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let (stored, age) = (unix_time(), kept.ages.now());
        for block in batch.blocks.into_iter().filter(|block| !block.is_empty()) {
            let first = kept.newest.saturating_add(1);
            kept.newest = kept.newest.saturating_add(u64::from(block.count()));
            kept.bytes = kept.bytes.saturating_add(block.as_bytes().len() as u64);
            let before = kept.partitions.clone();
            kept.partitions.append(first, &block);
            let head = Head { first, last: kept.newest, stored, before };
            kept.blocks.push_back((age, Piece { head, block: Arc::new(block) }));
        }
        kept.drop_old(age, self.retention);
        let (newest, partitions) = (kept.newest, kept.partitions.clone());
        drop(kept);
        self.telemetry.appended(newest, &partitions);
        Ok(Committed { versions })
    }

    fn reload(&mut self, client_id: &str) -> io::Result<Option<Stored>> {
        let Some(Record { version, head, messages }) = self.records.get(client_id) else { return Ok(None) };
        let record = DeviceRecord::from_parts(head.as_bytes(), messages.values().map(String::as_bytes));
        Ok(Some(Stored { record: record.map_err(io::Error::other)?, version: *version }))
    }

    fn telemetry(&self) -> Arc<TelemetryLog> {
        Arc::clone(&self.telemetry)
    }
}

impl Kept {
    fn drop_old(&mut self, now: UnixTime, retention: Retention) {
        while let Some((age, oldest)) = self.blocks.front() {
            let is_old = age.after(retention.age) <= now;
            if !is_old && self.bytes <= retention.bytes {
                return;
            }
            self.bytes = self.bytes.saturating_sub(oldest.block.as_bytes().len() as u64);
            self.blocks.pop_front();
        }
    }
}

#[derive(Debug)]
struct Shared(Arc<Mutex<Kept>>);

impl Kept {
    fn after(&self, cursor: u64) -> Option<&Piece> {
        let index = self.blocks.partition_point(|(_, piece)| piece.head.last <= cursor);
        self.blocks.get(index).map(|(_, piece)| piece)
    }
}

impl Blocks for Shared {
    fn after(&self, cursor: u64) -> io::Result<Option<Piece>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).after(cursor).cloned())
    }

    fn head(&self, cursor: u64) -> io::Result<Option<Head>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(kept.after(cursor).map(|piece| piece.head.clone()))
    }
}
