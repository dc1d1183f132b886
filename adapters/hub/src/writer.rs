//! The one writer: takes what has gathered, makes it safe, and says so to the machine.

use std::sync::Arc;

use devicebound::Rule;
use devicebound::hub::DeviceKey;

use crate::backlog::{Acknowledgement, Gathered};
use crate::engine::Engine;
use crate::message::Message;
use crate::store::{Batch, Block, Ledger, RecordChange, Store};

/// A block that has grown to so many bytes is followed by another: it fits into a page of 64 KiB with what redb adds.
const BLOCK: usize = 60 * 1024;

/// Turns what has gathered into batches for a store.
#[derive(Debug)]
pub struct Writer {
    engine: Arc<Engine>,
    store: Box<dyn Store>,
    ledger: Ledger,
    /// Records of which it is not known what is safe: neither written nor read back.
    lost: Vec<(DeviceKey, String)>,
}

impl Writer {
    /// The writer of one engine, whose records are those that the store has.
    #[must_use]
    pub fn new(engine: Arc<Engine>, store: Box<dyn Store>) -> Self {
        let mut ledger = Ledger::default();
        engine.with(|core, _| core.hub.devices().for_each(|(device, record)| ledger.holds(device, record)));
        Self { engine, store, ledger, lost: Vec::new() }
    }

    /// Writes until the backlog is over. Blocks: for a thread of its own.
    pub fn run(mut self) {
        while let Some(gathered) = self.engine.backlog().take() {
            self.write(gathered);
        }
    }

    fn write(&mut self, gathered: Gathered) {
        for (device, client_id) in std::mem::take(&mut self.lost) {
            self.take_back(device, &client_id);
        }
        let changes = self.changes(&gathered);
        let revisions: Vec<_> = changes.iter().map(|(device, change)| (*device, change.revision)).collect();
        let client_ids: Vec<_> =
            changes.iter().map(|(device, change)| (*device, change.client_id.clone())).collect();
        let (telemetry, acknowledgements): (Vec<_>, Vec<_>) = gathered.telemetry.into_iter().unzip();
        let batch = Batch {
            blocks: blocks(&telemetry),
            removed: gathered.removed,
            records: changes.into_iter().map(|(_, change)| change).collect(),
        };
        let written = self.store.commit(batch);
        match &written {
            Ok(committed) => {
                let is_refused = |client_id: &String| committed.refused.contains(client_id);
                let (refused, safe): (Vec<_>, Vec<_>) = client_ids
                    .into_iter()
                    .zip(revisions)
                    .partition(|((_, client_id), _)| is_refused(client_id));
                self.engine.with(|core, _| {
                    for acknowledgement in acknowledgements {
                        if let Acknowledgement::Owed(_, receipt) = acknowledgement {
                            core.hub.stored(receipt);
                        }
                    }
                    for (_, (device, revision)) in safe {
                        core.hub.committed(device, revision);
                    }
                });
                for ((device, client_id), _) in refused {
                    self.engine
                        .view
                        .note("storeRefused", &format!("the store holds another record of {client_id}"));
                    self.take_back(device, &client_id);
                }
            }
            Err(error) => {
                let note = format!("cannot store: {error}; {}", Rule::StoreFailed.mend());
                self.engine.view.note("storeFailed", &note);
                for (device, client_id) in &client_ids {
                    self.take_back(*device, client_id);
                }
                let owed = |acknowledgement: &Acknowledgement| match acknowledgement {
                    Acknowledgement::Owed(link, _) => Some(*link),
                    Acknowledgement::None => None,
                };
                self.engine.fail(acknowledgements.iter().filter_map(owed));
            }
        }
        for waiting in gathered.waiting {
            // Whoever waited may have hung up.
            let _ = waiting.send(written.is_ok());
        }
    }

    /// The records as they are now.
    fn changes(&mut self, gathered: &Gathered) -> Vec<(DeviceKey, RecordChange)> {
        let Self { engine, ledger, .. } = self;
        engine.with(|core, _| {
            let mut changes = Vec::new();
            for device in &gathered.changed {
                match core.hub.record(*device) {
                    Some(record) => changes.push((*device, ledger.change(*device, record))),
                    None => ledger.forget(*device),
                }
            }
            changes
        })
    }

    /// Nothing of what failed was acknowledged: the connection ends, and the record starts again from what is safe.
    fn take_back(&mut self, device: DeviceKey, client_id: &str) {
        match self.store.reload(client_id) {
            Ok(Some(record)) => {
                self.ledger.holds(device, &record);
                self.engine.with(|core, _| core.hub.rejected(device, record));
            }
            Ok(None) => {
                self.ledger.forget(device);
                self.engine.with(|core, _| drop(core.hub.remove(device)));
            }
            Err(error) => {
                self.engine.view.note("storeFailed", &format!("cannot read {client_id}: {error}"));
                self.lost.push((device, client_id.to_owned()));
            }
        }
    }
}

fn blocks(telemetry: &[Message]) -> Vec<Block> {
    let mut blocks = vec![Block::default()];
    for message in telemetry {
        if blocks.last().is_none_or(|block| block.as_bytes().len() >= BLOCK) {
            blocks.push(Block::default());
        }
        if let Some(block) = blocks.last_mut() {
            block.push(message);
        }
    }
    blocks
}
