//! What waits for the store: gathered by a worker from all its connections, handed over a batch at a time.

use std::collections::BTreeSet;
use std::mem;

use devicebound::Rule;
use devicebound::hub::{DeviceKey, DeviceRecord, Hub, LinkId, Receipt, Revision, Telemetry};
use devicebound::time::UnixTime;
use tokio::sync::oneshot;

use crate::block::Block;
use crate::message::Sender;
use crate::store::{Batch, Store};
use crate::view::View;

/// From so many bytes on, a worker's connections stop reading until the writer has caught up.
const HIGH_WATER: usize = 16 * 1024 * 1024;

/// Changes of one worker's devices on their way to the store.
#[derive(Debug)]
pub(crate) struct Backlog {
    block: Block,
    /// The block's number, from 1.
    number: u64,
    /// What to say once the block is stored.
    receipts: Vec<(LinkId, Receipt)>,
    /// Devices whose records changed. Which revision is written is seen when it is: one write stands for many commits.
    changed: BTreeSet<DeviceKey>,
    /// Client ids whose records are gone.
    removed: Vec<String>,
    /// Who wants to hear whether the batch is safe.
    waiting: Vec<oneshot::Sender<bool>>,
    /// The writer has the hand-over before; the next one waits for that, and grows.
    is_handing_over: bool,
}

/// A change of what the store keeps of a device.
#[derive(Debug)]
pub enum Change {
    /// The record is another one now.
    Record(DeviceKey),
    /// The record of this client id is gone.
    Removal(String),
}

/// What a worker hands to the store in one go.
#[derive(Debug)]
pub(crate) struct HandOver {
    /// Which worker.
    pub(crate) worker: usize,
    block: Block,
    receipts: Vec<(LinkId, Receipt)>,
    records: Vec<(DeviceKey, DeviceRecord)>,
    removed: Vec<String>,
    waiting: Vec<oneshot::Sender<bool>>,
}

/// A record as it is safe; `None` where there is none.
pub(crate) type Reloaded = (DeviceKey, Option<Box<DeviceRecord>>);

/// What became of a hand-over.
#[derive(Debug)]
pub(crate) struct Written {
    /// Whose telemetry it was.
    pub(crate) receipts: Vec<(LinkId, Receipt)>,
    /// Which records, as they were written.
    pub(crate) revisions: Vec<(DeviceKey, Revision)>,
    /// Whether it is safe; where it is not, the records as they are safe.
    pub(crate) outcome: Result<(), Vec<Reloaded>>,
    /// Who wants to hear of it.
    pub(crate) waiting: Vec<oneshot::Sender<bool>>,
}

impl Default for Backlog {
    fn default() -> Self {
        Self {
            block: Block::default(),
            number: 1,
            receipts: Vec::new(),
            changed: BTreeSet::new(),
            removed: Vec::new(),
            waiting: Vec::new(),
            is_handing_over: false,
        }
    }
}

impl Backlog {
    /// A message is to be stored.
    #[inline]
    pub(crate) fn telemetry(&mut self, telemetry: &Telemetry<'_>, sender: &Sender, enqueued: UnixTime) {
        self.block.push(self.number, telemetry, sender, enqueued);
    }

    /// The connection waits for the message that was gathered last.
    pub(crate) fn owe(&mut self, link: LinkId, receipt: Receipt) {
        self.receipts.push((link, receipt));
    }

    /// A record is to be made durable as it is now, or to be gone for good.
    pub(crate) fn change(&mut self, change: Change) {
        match change {
            Change::Record(device) => {
                self.changed.insert(device);
            }
            Change::Removal(client_id) => self.removed.push(client_id),
        }
    }

    /// The receiver hears whether all that was gathered so far has become safe.
    pub(crate) fn when_safe(&mut self) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.push(sender);
        receiver
    }

    /// Whether the writer is not far behind.
    pub(crate) fn has_room(&self) -> bool {
        self.block.as_bytes().len() < HIGH_WATER
    }

    /// Whether there is something to hand over and the writer is free.
    pub(crate) fn wants_hand_over(&self) -> bool {
        !self.is_handing_over && !self.is_empty()
    }

    /// Whether nothing is on its way any more.
    pub(crate) fn is_settled(&self) -> bool {
        !self.is_handing_over && self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.block.is_empty() && self.changed.is_empty() && self.removed.is_empty() && self.waiting.is_empty()
    }

    /// What to hand over now, with the records as they are now.
    pub(crate) fn take(&mut self, hub: &Hub, worker: usize) -> Option<HandOver> {
        if !self.wants_hand_over() {
            return None;
        }
        self.is_handing_over = true;
        self.number += 1;
        let record = |device: DeviceKey| Some((device, hub.record(device)?.clone()));
        // The next one will be about as large.
        let next = Vec::with_capacity(self.receipts.len());
        Some(HandOver {
            worker,
            block: mem::take(&mut self.block),
            receipts: mem::replace(&mut self.receipts, next),
            records: mem::take(&mut self.changed).into_iter().filter_map(record).collect(),
            removed: mem::take(&mut self.removed),
            waiting: mem::take(&mut self.waiting),
        })
    }

    /// The writer is done with what was handed over.
    pub(crate) const fn handed_over(&mut self) {
        self.is_handing_over = false;
    }
}

impl HandOver {
    /// Writes this alone.
    pub(crate) fn write(self, store: &mut dyn Store, view: &View) -> Vec<Written> {
        write(vec![self], store, view).into_iter().map(|(_, written)| written).collect()
    }
}

/// Writes what several workers have handed over as one batch: safe are all of them or none. Each worker is to hear what
/// became of its part.
pub(crate) fn write(handed_over: Vec<HandOver>, store: &mut dyn Store, view: &View) -> Vec<(usize, Written)> {
    let mut batch = Batch::default();
    let mut parts = Vec::with_capacity(handed_over.len());
    for HandOver { worker, block, receipts, records, removed, waiting } in handed_over {
        if !block.is_empty() {
            batch.blocks.push(block);
        }
        batch.removed.extend(removed);
        let revisions = records.iter().map(|(device, record)| (*device, record.revision())).collect();
        let ids: Vec<_> = records
            .iter()
            .map(|(device, record)| (*device, record.identity.client_id().to_owned()))
            .collect();
        batch.records.extend(records.into_iter().map(|(_, record)| record));
        parts.push((worker, Written { receipts, revisions, outcome: Ok(()), waiting }, ids));
    }
    let result = store.write(batch);
    if let Err(error) = &result {
        view.note("storeFailed", &format!("cannot store: {error}; {}", Rule::StoreFailed.mend()));
    }
    let mut told = Vec::with_capacity(parts.len());
    for (worker, mut written, ids) in parts {
        if result.is_err() {
            written.outcome = Err(reload(&ids, store, view));
        }
        told.push((worker, written));
    }
    told
}

/// Nothing of a failed batch was acknowledged: its records start again from what is safe.
fn reload(ids: &[(DeviceKey, String)], store: &mut dyn Store, view: &View) -> Vec<Reloaded> {
    let mut reloaded = Vec::with_capacity(ids.len());
    for (device, client_id) in ids {
        match store.reload(client_id) {
            Ok(record) => reloaded.push((*device, record.map(Box::new))),
            Err(error) => view.note("storeFailed", &format!("cannot read {client_id}: {error}")),
        }
    }
    reloaded
}
