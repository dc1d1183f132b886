//! A store that outlives nothing.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devicebound::hub::{DeviceRecord, Revision, SequenceNumber};

use super::{Batch, Block, Blocks, Committed, RecordChange, Retention, Store, TelemetryLog};
use crate::Failure;
use crate::clock::unix_time;

/// Records and telemetry in memory, with the same rules as on a disk.
#[derive(Debug)]
pub struct MemoryStore {
    records: BTreeMap<String, Record>,
    retention: Retention,
    blocks: Arc<Mutex<Kept>>,
    telemetry: Arc<TelemetryLog>,
}

#[derive(Debug)]
struct Record {
    revision: Revision,
    head: String,
    messages: BTreeMap<SequenceNumber, String>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Each with the cursor of its first message.
    blocks: VecDeque<(u64, Block)>,
    bytes: u64,
    newest: u64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        let blocks = Arc::new(Mutex::new(Kept::default()));
        let telemetry = Arc::new(TelemetryLog::new(Box::new(Shared(Arc::clone(&blocks))), 0));
        Self { records: BTreeMap::new(), retention, blocks, telemetry }
    }

    /// False if the store holds another revision than expected.
    fn change(&mut self, change: &RecordChange) -> bool {
        let present = self.records.get(&change.client_id).map(|record| record.revision);
        if present != change.expected {
            return false;
        }
        let mut messages =
            self.records.remove(&change.client_id).map_or_else(BTreeMap::new, |record| record.messages);
        messages.extend(change.enqueued.iter().cloned());
        messages.retain(|sequence, _| change.waiting.contains(sequence));
        let record = Record { revision: change.revision, head: change.head.clone(), messages };
        self.records.insert(change.client_id.clone(), record);
        true
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Retention::default())
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Vec<DeviceRecord>, Failure> {
        Ok(Vec::new())
    }

    fn commit(&mut self, batch: Batch) -> io::Result<Committed> {
        for client_id in &batch.removed {
            self.records.remove(client_id);
        }
        let refused = batch.records.iter().filter(|change| !self.change(change));
        let refused = refused.map(|change| change.client_id.clone()).collect();
        let mut kept = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        for block in batch.blocks.into_iter().filter(|block| !block.is_empty()) {
            let first = kept.newest.saturating_add(1);
            kept.newest = kept.newest.saturating_add(u64::from(block.len()));
            kept.bytes = kept.bytes.saturating_add(block.as_bytes().len() as u64);
            kept.blocks.push_back((first, block));
        }
        kept.drop_old(self.retention);
        let newest = kept.newest;
        drop(kept);
        self.telemetry.appended(newest);
        Ok(Committed { refused })
    }

    fn reload(&mut self, client_id: &str) -> io::Result<Option<DeviceRecord>> {
        let record = |record: &Record| {
            DeviceRecord::from_parts(record.head.as_bytes(), record.messages.values().map(String::as_bytes))
        };
        self.records.get(client_id).map(record).transpose().map_err(io::Error::other)
    }

    fn telemetry(&self) -> Arc<TelemetryLog> {
        Arc::clone(&self.telemetry)
    }
}

impl Kept {
    fn drop_old(&mut self, retention: Retention) {
        while let Some((_, oldest)) = self.blocks.front() {
            let is_old = oldest.newest().after(retention.age) <= unix_time();
            if !is_old && self.bytes <= retention.bytes {
                return;
            }
            self.bytes = self.bytes.saturating_sub(oldest.as_bytes().len() as u64);
            self.blocks.pop_front();
        }
    }
}

#[derive(Debug)]
struct Shared(Arc<Mutex<Kept>>);

impl Blocks for Shared {
    fn behind(&self, cursor: u64) -> io::Result<Option<(u64, Block)>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_before = |(first, block): &(u64, Block)| {
            first.saturating_add(u64::from(block.len())) <= cursor.saturating_add(1)
        };
        let index = kept.blocks.partition_point(is_before);
        Ok(kept.blocks.get(index).cloned())
    }
}
