//! The threads of a hub: one for each worker, and one for the writer.

use std::convert::Infallible;
use std::sync::mpsc as answers;
use std::thread;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

use crate::Failure;
use crate::engine::worker::WorkerBuilder;

pub(super) fn no_thread(error: std::io::Error) -> Failure {
    Failure::new(format!("cannot start threads: {error}"), "see the limits of this system")
}

/// Threads whose end can be waited for without another one.
#[derive(Debug)]
pub(super) struct Threads {
    running: mpsc::Sender<Infallible>,
    ended: mpsc::Receiver<Infallible>,
}

impl Threads {
    pub(super) fn new() -> Self {
        let (running, ended) = mpsc::channel(1);
        Self { running, ended }
    }

    pub(super) fn start(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let running = self.running.clone();
        let run = move || {
            run();
            drop(running);
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).map(drop).map_err(no_thread)
    }

    /// Waits until all have ended. One that panicked has said so.
    pub(super) async fn all_ended(self) {
        let Self { running, mut ended } = self;
        drop(running);
        // Nothing is ever sent: it completes when the last sender is gone.
        let _ = ended.recv().await;
    }
}

/// A worker on its thread, whose runtime has nothing but what belongs to it.
pub(super) fn start_worker(threads: &Threads, worker: WorkerBuilder) -> Result<(), Failure> {
    let (started, has_started) = answers::sync_channel(1);
    let run = move || match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => {
            // Whoever started it waits for that.
            let _ = started.send(Ok(()));
            runtime.block_on(worker.run());
        }
        Err(error) => drop(started.send(Err(error))),
    };
    threads.start("worker", run)?;
    let started = has_started.recv().unwrap_or_else(|error| Err(std::io::Error::other(error)));
    started.map_err(no_thread)
}
