//! The hub's disk: what was written and not synced is lost at a crash, or torn, or there, in any order.

use std::collections::BTreeSet;

use devicebound::hub::{DeviceRecord, Receipt};
use devicebound::time::Instant;

use super::Entropy;

/// A telemetry message by who sent it, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) thing: usize,
    pub(super) number: u64,
}

/// What is written at a time and made durable by one sync.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Whose record, by identity.
    pub(super) records: Vec<(usize, DeviceRecord)>,
    pub(super) telemetry: Vec<(Receipt, Name)>,
}

#[derive(Debug, Default)]
pub(super) struct Disk {
    /// What a hub finds at its start, by identity.
    records: Vec<DeviceRecord>,
    changed: BTreeSet<usize>,
    telemetry: Vec<(Receipt, Name)>,
    writing: Option<(Instant, Batch)>,
    /// It says that records are safe, and does not write them.
    pub(super) forgetful: bool,
}

impl Disk {
    pub(super) fn new(records: Vec<DeviceRecord>) -> Self {
        Self { records, ..Self::default() }
    }

    pub(super) fn record(&self, identity: usize) -> &DeviceRecord {
        &self.records[identity]
    }

    pub(super) fn records(&self) -> &[DeviceRecord] {
        &self.records
    }

    /// A record has changed; it is written as it is when the next batch starts.
    pub(super) fn change(&mut self, identity: usize) {
        self.changed.insert(identity);
    }

    pub(super) fn append(&mut self, receipt: Receipt, name: Name) {
        self.telemetry.push((receipt, name));
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.writing.is_none()
    }

    pub(super) fn has_work(&self) -> bool {
        !self.changed.is_empty() || !self.telemetry.is_empty()
    }

    /// Starts to write all that waits; it is safe at `done`.
    pub(super) fn write(&mut self, done: Instant, mut record: impl FnMut(usize) -> DeviceRecord) {
        let changed = std::mem::take(&mut self.changed);
        let records = changed.into_iter().map(|identity| (identity, record(identity))).collect();
        let telemetry = std::mem::take(&mut self.telemetry);
        self.writing = Some((done, Batch { records, telemetry }));
    }

    /// The batch, once it is safe.
    pub(super) fn sync(&mut self, now: Instant) -> Option<Batch> {
        let (_, batch) = self.writing.take_if(|(done, _)| *done <= now)?;
        if !self.forgetful {
            for (identity, record) in &batch.records {
                self.records[*identity] = record.clone();
            }
        }
        Some(batch)
    }

    /// The device's record cannot be written: nothing of it that waits will be.
    pub(super) fn reject(&mut self, identity: usize) {
        self.changed.remove(&identity);
        if let Some((_, batch)) = &mut self.writing {
            batch.records.retain(|(other, _)| *other != identity);
        }
    }

    /// The power is gone. Gives the telemetry of the unfinished batch that is there all the same.
    pub(super) fn crash(&mut self, entropy: &mut dyn Entropy) -> Vec<Name> {
        self.changed.clear();
        self.telemetry.clear();
        let Some((_, batch)) = self.writing.take() else { return Vec::new() };
        for (identity, record) in batch.records {
            if entropy.one_in(2) {
                self.records[identity] = record;
            }
        }
        batch.telemetry.into_iter().filter(|_| entropy.one_in(2)).map(|(_, name)| name).collect()
    }
}
