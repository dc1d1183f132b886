//! What a store holds of each record, as far as this process has seen.

use std::collections::HashMap;

use devicebound::hub::{DeviceRecord, Revision, SequenceNumber};

use super::RecordChange;

/// Which revision of each record was handed to the store, and up to which message: so that a commit can be compared,
/// and a message is written once.
///
/// Another process that changed a record is found out by the next commit of it, which the store refuses.
#[derive(Debug, Default)]
pub struct Ledger {
    records: HashMap<Box<str>, Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    revision: Revision,
    /// Numbers grow, and a message never changes: those behind this one are new.
    newest: Option<SequenceNumber>,
}

impl Ledger {
    /// The store holds this record: it was loaded, or reloaded after a commit failed.
    pub fn holds(&mut self, record: &DeviceRecord) {
        self.records.insert(record.identity.client_id().into(), Held::all_of(record));
    }

    /// The store holds no such record, or will not from now on.
    pub fn forget(&mut self, client_id: &str) {
        self.records.remove(client_id);
    }

    /// What makes the store's record the present one, which counts as done from now on. If it is not, say so with
    /// [`holds`](Self::holds) or [`forget`](Self::forget).
    #[must_use]
    pub fn change(&mut self, record: &DeviceRecord) -> RecordChange {
        let client_id = record.identity.client_id();
        let held = match self.records.get_mut(client_id) {
            Some(held) => Some(std::mem::replace(held, Held::all_of(record))),
            None => self.records.insert(client_id.into(), Held::all_of(record)),
        };
        let newest = held.and_then(|held| held.newest);
        let is_new = |sequence: &SequenceNumber| newest.is_none_or(|newest| newest < *sequence);
        let entry = |sequence| Some((sequence, record.to_entry(sequence)?));
        RecordChange {
            client_id: client_id.to_owned(),
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
