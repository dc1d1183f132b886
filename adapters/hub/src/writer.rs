//! The one writer: takes what has gathered, makes it safe, and says so to the machine.

use std::io;
use std::sync::Arc;

use devicebound::Rule;
use devicebound::hub::{DeviceKey, DeviceRecord};

use crate::backlog::{Acknowledgement, Gathered};
use crate::engine::Engine;
use crate::store::{Batch, Store};

/// Turns what has gathered into batches for a store.
#[derive(Debug)]
pub struct Writer {
    engine: Arc<Engine>,
    store: Box<dyn Store>,
}

impl Writer {
    /// The writer of one engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>, store: Box<dyn Store>) -> Self {
        Self { engine, store }
    }

    /// Writes until the backlog is over. Blocks: for a thread of its own.
    pub fn run(mut self) {
        while let Some(gathered) = self.engine.backlog().take() {
            self.write(gathered);
        }
    }

    fn write(&mut self, gathered: Gathered) {
        let records = self.snapshots(&gathered);
        let revisions: Vec<_> = records.iter().map(|(device, record)| (*device, record.revision())).collect();
        let (telemetry, acknowledgements): (Vec<_>, Vec<_>) = gathered.telemetry.into_iter().unzip();
        let batch = Batch {
            telemetry,
            removed: gathered.removed,
            records: records.into_iter().map(|(_, record)| record).collect(),
        };
        let written = self.store.write(batch);
        match &written {
            Ok(()) => self.engine.with(|core, _| {
                for acknowledgement in acknowledgements {
                    if let Acknowledgement::Owed(_, receipt) = acknowledgement {
                        core.hub.stored(receipt);
                    }
                }
                for (device, revision) in revisions {
                    core.hub.committed(device, revision);
                }
            }),
            Err(error) => {
                let devices: Vec<DeviceKey> = revisions.iter().map(|(device, _)| *device).collect();
                self.take_back(&devices, &acknowledgements, error);
            }
        }
        for waiting in gathered.waiting {
            // Whoever waited may have hung up.
            let _ = waiting.send(written.is_ok());
        }
    }

    /// The records as they are now. Copied under the mutex and turned into text outside it.
    fn snapshots(&self, gathered: &Gathered) -> Vec<(DeviceKey, DeviceRecord)> {
        self.engine.with(|core, _| {
            let record = |device: &DeviceKey| Some((*device, core.hub.record(*device)?.clone()));
            gathered.changed.iter().filter_map(record).collect()
        })
    }

    /// Nothing of a failed batch was acknowledged: its connections end, and its records start again from what is safe.
    fn take_back(&mut self, devices: &[DeviceKey], acknowledgements: &[Acknowledgement], error: &io::Error) {
        self.engine.view.note("storeFailed", &format!("cannot store: {error}; {}", Rule::StoreFailed.mend()));
        for device in devices {
            let client_id = self.engine.with(|core, _| {
                core.hub.record(*device).map(|record| record.identity.client_id().to_owned())
            });
            let Some(client_id) = client_id else { continue };
            match self.store.reload(&client_id) {
                Ok(Some(record)) => self.engine.with(|core, _| core.hub.rejected(*device, record)),
                Ok(None) => self.engine.with(|core, _| drop(core.hub.remove(*device))),
                Err(error) => {
                    self.engine.view.note("storeFailed", &format!("cannot read {client_id}: {error}"))
                }
            }
        }
        let owed = |acknowledgement: &Acknowledgement| match acknowledgement {
            Acknowledgement::Owed(link, _) => Some(*link),
            Acknowledgement::None => None,
        };
        self.engine.fail(acknowledgements.iter().filter_map(owed));
    }
}
