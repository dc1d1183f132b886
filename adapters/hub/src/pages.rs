//! The one reader: reads stored telemetry for whoever asks, so that no task waits for a disk.
//!
//! It is started with the hub, as all of its threads are: where the system has no thread left to give, what runs goes on.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::sync::oneshot;

use crate::log::Entry;
use crate::store::TelemetryLog;

/// A way to the reader. It ends with the last of them.
#[derive(Clone, Debug)]
pub struct Pages {
    log: Arc<TelemetryLog>,
    // Unbounded: whoever asks waits for the page, so that there are as many as connections at most.
    wanted: mpsc::Sender<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    cursor: u64,
    page: oneshot::Sender<io::Result<Vec<Entry>>>,
}

impl Pages {
    /// Starts a reader.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn of(log: Arc<TelemetryLog>) -> io::Result<Self> {
        let (wanted, asked) = mpsc::channel::<Wanted>();
        let read = Arc::clone(&log);
        thread::Builder::new().name("reader".to_owned()).spawn(move || {
            for Wanted { cursor, page } in asked {
                // Whoever asked may have hung up.
                if !page.is_closed() {
                    let _ = page.send(read.page(cursor));
                }
            }
        })?;
        Ok(Self { log, wanted })
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
        let (page, read) = oneshot::channel();
        self.wanted.send(Wanted { cursor, page }).map_err(io::Error::other)?;
        read.await.map_err(io::Error::other)?
    }

    /// Waits until there is a message behind `cursor`.
    pub async fn wait_behind(&self, cursor: u64) {
        self.log.wait_behind(cursor).await;
    }
}
