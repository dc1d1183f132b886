//! The one writer: takes what the workers hand over, makes it safe, and tells them.

use std::sync::{Arc, mpsc};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::engine::unsaved::{HandOver, write};
use crate::store::{Batch, Document, Store};

/// What the writer is given.
#[derive(Debug)]
pub(crate) enum Work {
    /// What a worker has gathered. Each worker has one here at most.
    HandOver(HandOver),
    /// Documents, and who waits for them: one for each request that changes some.
    Documents(Vec<Document>, oneshot::Sender<bool>),
}

/// Turns what has gathered into batches for a store.
#[derive(Debug)]
pub struct Writer {
    engine: Arc<Engine>,
    store: Box<dyn Store>,
    work: mpsc::Receiver<Work>,
}

impl Writer {
    pub(crate) const fn new(engine: Arc<Engine>, store: Box<dyn Store>, work: mpsc::Receiver<Work>) -> Self {
        Self { engine, store, work }
    }

    /// Writes until the workers have ended. Blocks: for a thread of its own.
    pub fn run(mut self) {
        while let Ok(first) = self.work.recv() {
            let (mut all, mut documents, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
            for work in std::iter::once(first).chain(self.work.try_iter()) {
                match work {
                    Work::HandOver(hand_over) => all.push(hand_over),
                    Work::Documents(changed, waits) => {
                        documents.extend(changed);
                        waiting.push(waits);
                    }
                }
            }
            let began = Instant::now();
            if !waiting.is_empty() {
                let is_safe = self.keep(documents);
                // Whoever waited may have hung up.
                waiting.into_iter().for_each(|waits| {
                    let _ = waits.send(is_safe);
                });
            }
            if all.is_empty() {
                continue;
            }
            let written = write(all, &mut *self.store, self.engine.observers());
            self.engine.observers().stored(began.elapsed());
            for (worker, written) in written {
                self.engine.send(worker, move |worker| worker.told(written));
            }
        }
    }
    /// Commits documents; the last of those with one name counts.
    fn keep(&mut self, documents: Vec<Document>) -> bool {
        let committed = self.store.commit(Batch { documents, ..Batch::default() });
        if let Err(error) = &committed {
            self.engine.observers().store_failed(error);
        }
        committed.is_ok()
    }
}
