//! What a store holds of each record, as far as this process has seen.

use std::collections::HashMap;

use devicebound::hub::{DeviceKey, DeviceRecord, Revision, SequenceNumber};

use super::RecordChange;

/// Which revision of each record was handed to the store, and up to which message: so that a commit can be compared,
/// and a message is written once.
///
/// Another process that changed a record is found out by the next commit of it, which the store refuses.
#[derive(Debug, Default)]
pub struct Ledger {
    records: HashMap<DeviceKey, Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    revision: Revision,
    /// Numbers grow, and a message never changes: those behind this one are new.
    newest: Option<SequenceNumber>,
}

impl Ledger {
    /// The store holds this record: it was loaded, or reloaded after a commit failed.
    pub fn holds(&mut self, device: DeviceKey, record: &DeviceRecord) {
        self.records.insert(device, Held::all_of(record));
    }

    /// The store is to hold no such record from now on.
    pub fn forget(&mut self, device: DeviceKey) {
        self.records.remove(&device);
    }

    /// What makes the store's record the present one, which counts as done from now on. If it is not, say so with
    /// [`holds`](Self::holds) or [`forget`](Self::forget).
    #[must_use]
    pub fn change(&mut self, device: DeviceKey, record: &DeviceRecord) -> RecordChange {
        let held = self.records.insert(device, Held::all_of(record));
        let is_new = |sequence: &SequenceNumber| {
            held.and_then(|held| held.newest).is_none_or(|newest| newest < *sequence)
        };
        let entry = |sequence| Some((sequence, record.to_entry(sequence)?));
        RecordChange {
            client_id: record.identity.client_id().to_owned(),
            expected: held.map(|held| held.revision),
            revision: record.revision(),
            head: record.to_head(),
            waiting: record.waiting().collect(),
            enqueued: record.waiting().filter(is_new).filter_map(entry).collect(),
        }
    }
}

impl Held {
    fn all_of(record: &DeviceRecord) -> Self {
        Self { revision: record.revision(), newest: record.waiting().last() }
    }
}
