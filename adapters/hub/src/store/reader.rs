//! Stored telemetry for those who read it, which takes its time.

use std::io;
use std::sync::Arc;

use crate::blocking_thread::BlockingThread;
use crate::store::{Position, TelemetryLog};

/// The log of a store, read on a thread of its own.
#[derive(Clone, Debug)]
pub struct TelemetryReader {
    log: Arc<TelemetryLog>,
    reader: BlockingThread,
}

impl TelemetryReader {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn of(log: Arc<TelemetryLog>) -> io::Result<Self> {
        Ok(Self { log, reader: BlockingThread::start("reader")? })
    }

    /// The number of the newest message; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.log.newest()
    }

    /// The log itself, for what takes no time.
    #[must_use]
    pub fn log(&self) -> &TelemetryLog {
        &self.log
    }

    /// Does something with the log that takes its time.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read<R: Send + 'static>(
        &self,
        act: impl FnOnce(&TelemetryLog) -> io::Result<R> + Send + 'static,
    ) -> io::Result<R> {
        let log = Arc::clone(&self.log);
        self.reader.run(move || act(&log)).await?
    }

    /// Waits until there is a message after a position.
    pub async fn wait_after(&self, after: impl Into<Position>) {
        self.log.wait_after(after).await;
    }
}
