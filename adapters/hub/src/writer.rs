//! The one writer: takes what the workers hand over, makes it safe, and tells them.

use std::sync::{Arc, mpsc};
use std::time::Instant;

use crate::backlog::{HandOver, write};
use crate::engine::Engine;
use crate::store::Store;

/// Turns what has gathered into batches for a store.
#[derive(Debug)]
pub struct Writer {
    engine: Arc<Engine>,
    store: Box<dyn Store>,
    // Each worker has one hand-over here at most.
    handed_over: mpsc::Receiver<HandOver>,
}

impl Writer {
    pub(crate) const fn new(
        engine: Arc<Engine>,
        store: Box<dyn Store>,
        handed_over: mpsc::Receiver<HandOver>,
    ) -> Self {
        Self { engine, store, handed_over }
    }

    /// Writes until the workers have ended. Blocks: for a thread of its own.
    pub fn run(mut self) {
        while let Ok(first) = self.handed_over.recv() {
            let mut all = vec![first];
            all.extend(self.handed_over.try_iter());
            let began = Instant::now();
            let written = write(all, &mut *self.store, &self.engine.view);
            self.engine.metrics.written(began.elapsed());
            for (worker, written) in written {
                self.engine.send(worker, move |worker| worker.told(written));
            }
        }
    }
}
