//! What a store holds of each record, as far as this process has seen.

use std::collections::HashMap;

use devicebound::hub::{DeviceRecord, SequenceNumber};

use super::{RecordChange, Stored, Version};

/// Which version of each record the store holds, and up to which message: so that a commit can be compared, and a message
/// is written once.
///
/// Another process that changed a record is found out by the next commit of it, which the store refuses.
#[derive(Debug, Default)]
pub struct Ledger {
    records: HashMap<Box<str>, Held>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// `None` until a first commit has come back.
    version: Option<Version>,
    /// Numbers grow, and a message never changes: those after this one are new.
    newest: Option<SequenceNumber>,
}

impl Ledger {
    /// The store holds this record: it was loaded, or reloaded after a commit failed.
    pub fn holds(&mut self, stored: &Stored) {
        let held = Held { version: Some(stored.version), newest: stored.record.waiting().last() };
        self.records.insert(stored.record.identity.client_id().into(), held);
    }

    /// The store has written the last [`change`](Self::change) of this client id, and made it this version.
    pub fn written(&mut self, client_id: &str, version: Version) {
        // One that is not there was removed meanwhile.
        if let Some(held) = self.records.get_mut(client_id) {
            held.version = Some(version);
        }
    }

    /// Nobody knows what the store holds of this client id: its next change is refused, and then the store says.
    pub fn doubt(&mut self, client_id: &str) {
        self.records.entry(client_id.into()).or_default().version = Some(Version::NEVER_GIVEN);
    }

    /// The store holds no such record, or will not from now on.
    pub fn forget(&mut self, client_id: &str) {
        self.records.remove(client_id);
    }

    /// What makes the store's record the present one. Before the next change of the same record say what came of it:
    /// [`written`](Self::written), or what is there instead, [`holds`](Self::holds) or [`forget`](Self::forget).
    #[must_use]
    pub fn change(&mut self, record: &DeviceRecord) -> RecordChange {
        let client_id = record.identity.client_id();
        let held = self.records.entry(client_id.into()).or_default();
        let before = std::mem::replace(held, Held { newest: record.waiting().last(), ..*held });
        let is_new = |sequence: &SequenceNumber| before.newest.is_none_or(|newest| newest < *sequence);
        let entry = |sequence| Some((sequence, record.to_entry(sequence)?));
        RecordChange {
            client_id: client_id.to_owned(),
            expected: before.version,
            head: record.to_head(),
            waiting: record.waiting().collect(),
            enqueued: record.waiting().filter(is_new).filter_map(entry).collect(),
        }
    }
}
