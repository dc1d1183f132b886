//! A store that outlives nothing.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devicebound::hub::{DeviceRecord, Revision, SequenceNumber};
use devicebound::time::UnixTime;

use super::{Batch, Blocks, Committed, RecordChange, Retention, Store, TelemetryLog};
use crate::Failure;
use crate::block::Block;
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

#[derive(Debug)]
struct Piece {
    /// The cursor of its first message.
    first: u64,
    taken: UnixTime,
    block: Arc<Block>,
}

#[derive(Debug, Default)]
struct Kept {
    blocks: VecDeque<Piece>,
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

    fn is_durable(&self) -> bool {
        false
    }

    fn commit(&mut self, batch: Batch) -> io::Result<Committed> {
        for client_id in &batch.removed {
            self.records.remove(client_id);
        }
        let refused = batch.records.iter().filter(|change| !self.change(change));
        let refused = refused.map(|change| change.client_id.clone()).collect();
        let taken = unix_time();
        let mut kept = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        for block in batch.blocks.into_iter().filter(|block| !block.is_empty()) {
            let first = kept.newest.saturating_add(1);
            kept.newest = kept.newest.saturating_add(u64::from(block.count()));
            kept.bytes = kept.bytes.saturating_add(block.as_bytes().len() as u64);
            kept.blocks.push_back(Piece { first, taken, block: Arc::new(block) });
        }
        kept.drop_old(taken, self.retention);
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
    fn drop_old(&mut self, now: UnixTime, retention: Retention) {
        while let Some(oldest) = self.blocks.front() {
            let is_old = oldest.taken.after(retention.age) <= now;
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

impl Blocks for Shared {
    fn behind(&self, cursor: u64) -> io::Result<Option<(u64, Arc<Block>)>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_before = |piece: &Piece| {
            piece.first.saturating_add(u64::from(piece.block.count())) <= cursor.saturating_add(1)
        };
        let piece = kept.blocks.get(kept.blocks.partition_point(is_before));
        Ok(piece.map(|piece| (piece.first, Arc::clone(&piece.block))))
    }
}
