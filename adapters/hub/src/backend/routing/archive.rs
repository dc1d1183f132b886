//! Delivery to a container: messages are gathered, and go into its folder batch by batch.
//!
//! ```text
//!  store ─▶ page after the place ─▶ twin, conditions ─▶ record ─▶ batch ─▶ time is up, or it is large: closed, cursor goes on
//!              ▲                                                   │
//!              └──────────── place is the cursor again ◀───────────┴─ failed: the batch is forgotten, after a pause
//! ```
//! At least once: the cursor stays where the batch began until its files are safe, so that a crash writes it again.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Instant, sleep};

use super::batch::{Batch, Record};
use super::container::Container;
use super::follower::{Follower, PAUSE_MAX, STORE_AFTER};
use crate::blocking_thread::BlockingThread;
use crate::clock::unix_time;
use crate::store::partitions::partition_of;

/// Delivery to one container.
pub(super) struct Archive {
    follower: Follower,
    container: Container,
    thread: BlockingThread,
    batch: Arc<Mutex<Batch>>,
    /// The cursor of what was read last; ahead of the endpoint's own while a batch is open.
    place: u64,
    /// Since when a batch is open, and how many records it has.
    open: Option<(Instant, u64)>,
}

impl Archive {
    pub(super) fn new(follower: Follower, container: Container, root: &Path, thread: BlockingThread) -> Self {
        let batch = Arc::new(Mutex::new(Batch::new(root, &container)));
        let place = follower.progress.cursor();
        Self { follower, container, thread, batch, place, open: None }
    }

    pub(super) async fn run(mut self) {
        loop {
            if let Err(error) = self.step().await {
                self.follower.failed(&error.to_string());
                // A panic has left nothing of it that is of use.
                self.batch.lock().unwrap_or_else(PoisonError::into_inner).abandon();
                (self.open, self.place) = (None, self.follower.progress.cursor());
                sleep(PAUSE_MAX).await;
            }
        }
    }

    async fn step(&mut self) -> io::Result<()> {
        let left = self
            .open
            .map_or(STORE_AFTER, |(began, _)| self.container.frequency.saturating_sub(began.elapsed()));
        if !left.is_zero() && self.follower.wait_after(self.place, left).await {
            if self.gather().await? >= self.container.chunk {
                self.close().await?;
            }
        } else if self.open.is_some() {
            self.close().await?;
        } else {
            self.follower.store().await;
        }
        Ok(())
    }

    /// Takes a page into the batch; gives the length of its longest file.
    async fn gather(&mut self) -> io::Result<u64> {
        let page = self.follower.page(self.place).await?;
        let partitions = self.follower.backend.telemetry.log().partitions().count();
        let mut records = Vec::new();
        for message in page.messages {
            if let Some((routed, enrichments)) = self.follower.judge(&message).await {
                let partition = partition_of(message.client_id.device_id(), partitions);
                let line = message.to_record(&routed, enrichments);
                records.push(Record { partition, cursor: message.cursor, line });
            }
        }
        self.place = page.next;
        if records.is_empty() {
            if self.open.is_none() {
                self.follower.progress.advance(self.place);
                self.follower.store_if_due().await;
            }
            return Ok(0);
        }
        let (began, count) = self.open.unwrap_or((Instant::now(), 0));
        self.open = Some((began, count.saturating_add(records.len() as u64)));
        let batch = Arc::clone(&self.batch);
        let push = move || {
            let mut batch = batch.lock().unwrap_or_else(PoisonError::into_inner);
            batch.push(&records, unix_time())
        };
        self.thread.run(push).await?
    }

    async fn close(&mut self) -> io::Result<()> {
        let (batch, container) = (Arc::clone(&self.batch), self.container.clone());
        let hub_name = self.follower.hub_name().to_owned();
        let close = move || {
            let mut batch = batch.lock().unwrap_or_else(PoisonError::into_inner);
            batch.close(&container, &hub_name)
        };
        self.thread.run(close).await??;
        let records = self.open.take().map_or(0, |(_, records)| records);
        self.follower.progress.advance(self.place);
        self.follower.succeeded(records);
        self.follower.store().await;
        Ok(())
    }
}
