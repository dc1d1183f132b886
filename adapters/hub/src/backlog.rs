//! What waits for the store: gathered from all connections, taken by its one writer a batch at a time.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use devicebound::hub::{DeviceKey, LinkId, Receipt};
use tokio::sync::{Notify, oneshot};

use crate::message::Message;

/// From so many bytes on, connections stop reading until the writer has caught up.
const HIGH_WATER: usize = 16 * 1024 * 1024;

/// Changes on their way to the store.
#[derive(Debug, Default)]
pub struct Backlog {
    gathered: Mutex<Gathered>,
    /// Something was gathered, or it is over.
    work: Condvar,
    /// The writer took a batch.
    room: Notify,
}

/// What the writer takes in one go.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Telemetry in order of arrival, with what to say once it is stored.
    pub telemetry: Vec<(Message, Acknowledgement)>,
    /// Devices whose records changed. Which revision is written is seen when it is: one write stands for many commits.
    pub changed: BTreeSet<DeviceKey>,
    /// Client ids whose records are gone.
    pub removed: Vec<String>,
    /// Who wants to hear whether the batch is safe.
    pub waiting: Vec<oneshot::Sender<bool>>,
    bytes: usize,
    over: bool,
}

/// Who is to hear that a message is stored.
#[derive(Debug)]
pub enum Acknowledgement {
    /// Nobody.
    None,
    /// The connection that sent it.
    Owed(LinkId, Receipt),
}

/// A change of what the store keeps of a device.
#[derive(Debug)]
pub enum Change {
    /// The record is another one now.
    Record(DeviceKey),
    /// The record of this client id is gone.
    Removal(String),
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message is to be stored.
    pub fn telemetry(&self, message: Message, acknowledgement: Acknowledgement) {
        let mut gathered = self.lock();
        gathered.bytes += message.size();
        gathered.telemetry.push((message, acknowledgement));
        self.work.notify_one();
    }

    /// A record is to be made durable as it is now, or to be gone for good.
    pub fn change(&self, change: Change) {
        self.lock().add(change);
        self.work.notify_one();
    }

    /// The same; the receiver hears whether it has become safe.
    pub fn change_durably(&self, change: Change) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        let mut gathered = self.lock();
        gathered.add(change);
        gathered.waiting.push(sender);
        self.work.notify_one();
        receiver
    }

    /// Waits while the writer is far behind.
    pub async fn room(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // Enlisted before looking, so that a batch taken in between is not missed.
            room.as_mut().enable();
            if self.lock().bytes < HIGH_WATER {
                return;
            }
            room.await;
        }
    }

    /// The next batch, once there is something; `None` when it is over and all was taken. Blocks: for the writer alone.
    pub fn take(&self) -> Option<Gathered> {
        let mut gathered = self.lock();
        while gathered.is_empty() && !gathered.over {
            gathered = self.work.wait(gathered).unwrap_or_else(PoisonError::into_inner);
        }
        if gathered.is_empty() {
            return None;
        }
        let over = gathered.over;
        let batch = mem::replace(&mut *gathered, Gathered { over, ..Gathered::default() });
        drop(gathered);
        self.room.notify_waiters();
        Some(batch)
    }

    /// No more will come; the writer ends after what is there.
    pub fn end(&self) {
        self.lock().over = true;
        self.work.notify_one();
    }
}

impl Gathered {
    fn add(&mut self, change: Change) {
        match change {
            Change::Record(device) => {
                self.changed.insert(device);
            }
            Change::Removal(client_id) => self.removed.push(client_id),
        }
    }

    fn is_empty(&self) -> bool {
        self.telemetry.is_empty()
            && self.changed.is_empty()
            && self.removed.is_empty()
            && self.waiting.is_empty()
    }
}
