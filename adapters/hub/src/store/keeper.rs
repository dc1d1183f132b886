//! The one who writes to a store, and knows which revision of each record it holds.

use std::collections::HashMap;
use std::io;

use devicebound::hub::{DeviceRecord, Revision, SequenceNumber};

use super::{Batch, Block, Committed, RecordChange, Store};
use crate::Failure;

/// A store with the revisions that it holds, as far as this process has seen.
///
/// Another process that changed a record would be found out by the next commit of it, which the store refuses.
#[derive(Debug)]
pub struct Keeper {
    store: Box<dyn Store>,
    revisions: HashMap<Box<str>, Revision>,
}

/// Records and telemetry that are to be safe.
#[derive(Debug, Default)]
pub struct Kept {
    /// Telemetry, in order of arrival.
    pub blocks: Vec<Block>,
    /// Client ids whose records are gone; done before `records`.
    pub removed: Vec<String>,
    /// Records as they are now, each with the messages that were enqueued since it was kept last.
    pub records: Vec<(DeviceRecord, Vec<SequenceNumber>)>,
}

impl Keeper {
    /// The keeper of a store that nothing was read from yet.
    #[must_use]
    pub fn new(store: Box<dyn Store>) -> Self {
        Self { store, revisions: HashMap::new() }
    }

    /// Every record there is, once at start.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn load(&mut self) -> Result<Vec<DeviceRecord>, Failure> {
        let records = self.store.load()?;
        for record in &records {
            self.revisions.insert(record.identity.client_id().into(), record.revision());
        }
        Ok(records)
    }

    /// Makes all of it safe, but what is refused.
    ///
    /// # Errors
    /// When it is not known to be safe.
    pub fn keep(&mut self, kept: Kept) -> io::Result<Committed> {
        for client_id in &kept.removed {
            self.revisions.remove(client_id.as_str());
        }
        let change = |(record, enqueued): &(DeviceRecord, Vec<SequenceNumber>)| {
            let expected = self.revisions.get(record.identity.client_id()).copied();
            RecordChange::of(record, expected, enqueued)
        };
        let records = kept.records.iter().map(change).collect();
        let committed = self.store.commit(Batch { blocks: kept.blocks, removed: kept.removed, records })?;
        for (record, _) in kept.records {
            let client_id = record.identity.client_id();
            if !committed.refused.iter().any(|refused| refused == client_id) {
                self.revisions.insert(client_id.into(), record.revision());
            }
        }
        Ok(committed)
    }

    /// What is safe of one identity, after it was refused or the commit failed; `None` if there is no record.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn reload(&mut self, client_id: &str) -> io::Result<Option<DeviceRecord>> {
        let record = self.store.reload(client_id)?;
        match &record {
            Some(record) => self.revisions.insert(client_id.into(), record.revision()),
            None => self.revisions.remove(client_id),
        };
        Ok(record)
    }
}
