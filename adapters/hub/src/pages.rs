//! Stored telemetry for those who read it, which takes its time.

use std::io;
use std::sync::Arc;

use crate::aside::Aside;
use crate::log::Entry;
use crate::store::TelemetryLog;

/// The log of a store, read on a thread of its own.
#[derive(Clone, Debug)]
pub struct Pages {
    log: Arc<TelemetryLog>,
    reader: Aside,
}

impl Pages {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn of(log: Arc<TelemetryLog>) -> io::Result<Self> {
        Ok(Self { log, reader: Aside::start("reader")? })
    }

    /// The number of the newest message; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.log.newest()
    }

    /// The next messages behind `cursor`: [`TelemetryLog::page`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn page(&self, cursor: u64) -> io::Result<Vec<Entry>> {
        let log = Arc::clone(&self.log);
        self.reader.run(move || log.page(cursor)).await?
    }

    /// Waits until there is a message behind `cursor`.
    pub async fn wait_behind(&self, cursor: u64) {
        self.log.wait_behind(cursor).await;
    }
}
