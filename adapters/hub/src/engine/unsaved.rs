//! What waits for the store: gathered by a worker from all its connections, handed over a batch at a time.

use std::collections::BTreeSet;
use std::mem;

use devicebound::hub::{DeviceKey, Hub, LinkId, Receipt, Revision, Telemetry};
use devicebound::time::{Instant, UnixTime};
use tokio::sync::oneshot;

use crate::engine::durability::{Change, Safe};
use crate::observe::observers::Observers;
use crate::store::{Batch, Ledger, RecordChange, Store, Stored, Version};
use crate::telemetry::block::Block;
use crate::telemetry::sender::Sender;

/// From so many bytes on, a worker's connections stop reading until the writer has caught up.
const HIGH_WATER: usize = 16 * 1024 * 1024;

/// Changes of one worker's devices on their way to the store.
#[derive(Debug)]
pub(crate) struct Unsaved {
    block: Block,
    /// The block's number, from 1.
    number: u64,
    /// What to say once the block is stored.
    receipts: Vec<(LinkId, Receipt)>,
    /// When the first of them was owed.
    owed_since: Option<Instant>,
    /// Devices whose records changed. Which revision is written is seen when it is: one write stands for many commits.
    changed: BTreeSet<DeviceKey>,
    /// Client ids whose records are gone.
    removed: Vec<String>,
    /// Those of the hand-over that the writer has.
    removing: Vec<String>,
    /// Who wants to hear whether the batch is safe.
    waiting: Vec<oneshot::Sender<bool>>,
    /// The writer has the hand-over before; the next one waits for that, and grows.
    is_handing_over: bool,
    /// What the store holds of each record.
    ledger: Ledger,
    /// Devices of which the store could not say what is safe: asked for with the next hand-over.
    unknown: Vec<DeviceKey>,
    /// Client ids of which it could not say whether they are gone.
    unknown_removed: Vec<String>,
    /// Those of them that are asked for with the next hand-over.
    asked: Vec<String>,
}

/// A block of so many bytes costs as little for each message as a larger one.
const LARGE: usize = 256 * 1024;

/// What a worker hands to the store in one go.
#[derive(Debug)]
pub(crate) struct HandOver {
    /// Which worker.
    pub(crate) worker: usize,
    block: Block,
    receipts: Vec<(LinkId, Receipt)>,
    owed_since: Option<Instant>,
    records: Vec<(DeviceKey, Revision, RecordChange)>,
    removed: Vec<String>,
    /// Client ids of which the store could not say before whether they are gone.
    asked: Vec<String>,
    waiting: Vec<oneshot::Sender<bool>>,
}

/// A change of a record that was not made.
#[derive(Debug)]
pub(crate) struct Unwritten {
    /// Whose record was to be written; `None`: it was to be gone.
    pub(crate) device: Option<DeviceKey>,
    client_id: String,
    /// What is safe of it.
    pub(crate) safe: Found,
}

/// A record that was written.
#[derive(Debug)]
pub(crate) struct SafeRecord {
    pub(crate) device: DeviceKey,
    client_id: String,
    /// The machine's count of its changes, up to which it is safe.
    pub(crate) revision: Revision,
    /// What the store calls it.
    version: Version,
}

/// What is safe of a record.
#[derive(Debug)]
pub(crate) enum Found {
    /// This.
    Record(Box<Stored>),
    /// There is no such record.
    Nothing,
    /// The store cannot say yet.
    Unknown,
}

/// What became of a hand-over.
#[derive(Debug)]
pub(crate) struct Written {
    /// Whose telemetry it was.
    pub(crate) receipts: Vec<(LinkId, Receipt)>,
    /// When the first of it was owed.
    pub(crate) owed_since: Option<Instant>,
    /// Whether the hand-over was committed: its telemetry is safe, and of its records those that were not refused.
    pub(crate) is_committed: bool,
    /// Which records are safe.
    pub(crate) safe: Vec<SafeRecord>,
    /// Which are not.
    pub(crate) unwritten: Vec<Unwritten>,
    /// Who wants to hear of it.
    pub(crate) waiting: Vec<oneshot::Sender<bool>>,
}

impl Default for Unsaved {
    fn default() -> Self {
        Self {
            block: Block::default(),
            number: 1,
            receipts: Vec::new(),
            owed_since: None,
            changed: BTreeSet::new(),
            removed: Vec::new(),
            removing: Vec::new(),
            waiting: Vec::new(),
            is_handing_over: false,
            ledger: Ledger::default(),
            unknown: Vec::new(),
            unknown_removed: Vec::new(),
            asked: Vec::new(),
        }
    }
}

impl Unsaved {
    /// The unsaved of a machine whose records are those that the store has.
    pub(crate) fn of(ledger: Ledger) -> Self {
        Self { ledger, ..Self::default() }
    }

    /// A message is to be stored.
    #[inline]
    pub(crate) fn telemetry(&mut self, telemetry: &Telemetry<'_>, sender: &Sender, enqueued: UnixTime) {
        self.block.push(self.number, telemetry, sender, enqueued);
    }

    /// The connection waits for the message that was gathered last.
    pub(crate) fn owe(&mut self, now: Instant, link: LinkId, receipt: Receipt) {
        self.owed_since.get_or_insert(now);
        self.receipts.push((link, receipt));
    }

    /// A record is to be made durable as it is now, or to be gone for good.
    pub(crate) fn change(&mut self, change: Change) {
        match change {
            Change::Record(device) => {
                self.changed.insert(device);
            }
            Change::Removal(client_id) => {
                self.ledger.forget(&client_id);
                self.removed.push(client_id);
            }
        }
    }

    /// The receiver hears whether all that was gathered so far has become safe.
    pub(crate) fn when_safe(&mut self) -> Safe {
        let (sender, receiver) = oneshot::channel();
        self.waiting.push(sender);
        Safe::heard_by(receiver)
    }

    /// Bytes of telemetry that wait to be handed over.
    pub(crate) fn bytes(&self) -> usize {
        self.block.as_bytes().len()
    }

    /// Whether the writer is not far behind.
    pub(crate) fn has_room(&self) -> bool {
        self.block.as_bytes().len() < HIGH_WATER
    }

    /// Whether there is something to hand over and the writer is free.
    pub(crate) fn wants_hand_over(&self) -> bool {
        !self.is_handing_over && !self.is_empty()
    }

    /// A measure of how much was gathered, which grows with each message and change.
    pub(crate) fn gathered(&self) -> usize {
        self.block.as_bytes().len() + self.changed.len() + self.waiting.len()
    }

    /// Whether somebody waits for the next hand-over, or it has become large.
    pub(crate) fn is_pressing(&self) -> bool {
        !self.waiting.is_empty() || self.block.as_bytes().len() >= LARGE
    }

    /// Whether nothing is on its way any more.
    pub(crate) fn is_settled(&self) -> bool {
        !self.is_handing_over && self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.block.is_empty()
            && self.changed.is_empty()
            && self.removed.is_empty()
            && self.asked.is_empty()
            && self.waiting.is_empty()
    }

    /// The store is to be asked again what it could not say before. Called now and then, so that those records do not wait
    /// for others to change.
    pub(crate) fn ask_again(&mut self) {
        self.changed.extend(self.unknown.drain(..));
        self.asked.append(&mut self.unknown_removed);
    }

    /// Whether it is not safe yet that this record is gone.
    pub(crate) fn is_removing(&self, client_id: &str) -> bool {
        let removals = [&self.removed, &self.removing, &self.unknown_removed, &self.asked];
        removals.into_iter().flatten().any(|removed| removed == client_id)
    }

    /// What to hand over now, with the records as they are now.
    pub(crate) fn take(&mut self, hub: &Hub, worker: usize) -> Option<HandOver> {
        if !self.wants_hand_over() {
            return None;
        }
        self.is_handing_over = true;
        self.number += 1;
        self.ask_again();
        let ledger = &mut self.ledger;
        let record = |device: DeviceKey| {
            let record = hub.record(device)?;
            Some((device, record.revision(), ledger.change(record)))
        };
        // The next ones will be about as large.
        let next = Vec::with_capacity(self.receipts.len());
        let next_block = self.block.with_the_same_room();
        self.removing = [&self.removed[..], &self.asked].concat();
        Some(HandOver {
            worker,
            block: mem::replace(&mut self.block, next_block),
            receipts: mem::replace(&mut self.receipts, next),
            owed_since: self.owed_since.take(),
            records: mem::take(&mut self.changed).into_iter().filter_map(record).collect(),
            removed: mem::take(&mut self.removed),
            asked: mem::take(&mut self.asked),
            waiting: mem::take(&mut self.waiting),
        })
    }

    /// The writer is done with what was handed over.
    pub(crate) fn handed_over(&mut self, safe: &[SafeRecord], unwritten: &[Unwritten]) {
        self.is_handing_over = false;
        self.removing.clear();
        safe.iter().for_each(|safe| self.ledger.written(&safe.client_id, safe.version));
        for Unwritten { device, client_id, safe } in unwritten {
            match (safe, device) {
                (Found::Record(stored), _) => self.ledger.holds(stored),
                (Found::Nothing, _) => self.ledger.forget(client_id),
                (Found::Unknown, Some(device)) => {
                    self.ledger.doubt(client_id);
                    self.unknown.push(*device);
                }
                (Found::Unknown, None) => self.unknown_removed.push(client_id.clone()),
            }
        }
    }
}

impl HandOver {
    /// Writes this alone.
    pub(crate) fn write(self, store: &mut dyn Store, observers: Observers<'_>) -> Vec<Written> {
        write(vec![self], store, observers).into_iter().map(|(_, written)| written).collect()
    }
}

/// Writes what several workers have handed over as one batch. Each worker is to hear what became of its part.
pub(crate) fn write(
    handed_over: Vec<HandOver>,
    store: &mut dyn Store,
    observers: Observers<'_>,
) -> Vec<(usize, Written)> {
    let mut batch = Batch::default();
    let mut parts = Vec::with_capacity(handed_over.len());
    for HandOver { worker, block, receipts, owed_since, records, removed, asked, waiting } in handed_over {
        if !block.is_empty() {
            batch.blocks.push(block);
        }
        batch.removed.extend_from_slice(&removed);
        let ids: Vec<_> = records
            .iter()
            .map(|(device, revision, change)| (*device, change.client_id.clone(), *revision))
            .collect();
        batch.records.extend(records.into_iter().map(|(_, _, change)| change));
        parts.push((worker, receipts, owed_since, waiting, ids, removed, asked));
    }
    let result = store.commit(batch);
    if let Err(error) = &result {
        observers.store_failed(error);
    }
    // In the order of the batch; none where the store could not say.
    let mut versions = result.as_ref().map_or(&[][..], |committed| &committed.versions).iter().copied();
    let mut told = Vec::with_capacity(parts.len());
    for (worker, receipts, owed_since, waiting, ids, removed, mut asked) in parts {
        let mut written = Written {
            receipts,
            owed_since,
            is_committed: result.is_ok(),
            safe: Vec::new(),
            unwritten: Vec::new(),
            waiting,
        };
        for (device, client_id, revision) in ids {
            if let Some(version) = versions.next().flatten() {
                written.safe.push(SafeRecord { device, client_id, revision, version });
            } else {
                let safe = reload(&client_id, store, observers);
                written.unwritten.push(Unwritten { device: Some(device), client_id, safe });
            }
        }
        if result.is_err() {
            asked.extend(removed);
        }
        written.unwritten.extend(asked.into_iter().map(|client_id| {
            let safe = reload(&client_id, store, observers);
            Unwritten { device: None, client_id, safe }
        }));
        told.push((worker, written));
    }
    told
}

/// Nothing of a failed commit was acknowledged: its records start again from what is safe.
fn reload(client_id: &str, store: &mut dyn Store, observers: Observers<'_>) -> Found {
    match store.reload(client_id) {
        Ok(Some(stored)) => Found::Record(Box::new(stored)),
        Ok(None) => Found::Nothing,
        Err(error) => {
            observers.store_unreadable(client_id, &error);
            Found::Unknown
        }
    }
}
