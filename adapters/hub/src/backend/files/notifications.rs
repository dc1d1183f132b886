//! What a back end hears of uploads: one notification at a time, locked for its reader.
//!
//! A notification is a document of the store until a reader has completed it. What a reader does not complete in time, or
//! abandons, comes again, first of all, until it was delivered too often or has waited for too long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use devicebound::time::UnixTime;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::damaged;
use crate::Failure;
use crate::backend::{Backend, Code, Error, detached};
use crate::clock::unix_time;
use crate::store::Document;

/// How long a reader holds a notification, how long it waits, and how often it is delivered, as there by default
/// (`fileNotifications`: `lockDuration`, `ttlAsIso8601`, `maxDeliveryCount`; Azure: file upload notification options).
const LOCK: Duration = Duration::from_secs(60);
const RETENTION: Duration = Duration::from_secs(3600);
const DELIVERIES_MAX: u32 = 100;
/// Notifications that wait (own limit: 10 uploads of 1,000 devices).
const WAITING_MAX: usize = 10_000;
/// Names of documents begin so; the number of the notification follows.
const PREFIX: &str = "file-notification/";

/// The media type of a notification.
pub const CONTENT_TYPE: &str = "application/json";

/// That a device has uploaded a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNotification {
    /// Whose file.
    pub device_id: String,
    /// Where it is.
    pub blob_uri: String,
    /// Its name, the device id in front.
    pub blob_name: String,
    /// When it was written.
    pub last_updated: UnixTime,
    /// Bytes.
    pub size: u64,
    /// When the device said that it is there.
    pub enqueued: UnixTime,
}

impl FileNotification {
    /// As Azure writes it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "deviceId": self.device_id,
            "blobUri": self.blob_uri,
            "blobName": self.blob_name,
            "lastUpdatedTime": self.last_updated.to_string().replace('Z', "+00:00"),
            "blobSizeInBytes": self.size,
            "enqueuedTimeUtc": self.enqueued.to_string().replace('Z', "0000Z"),
        })
    }

    fn of_json(json: &Value) -> Option<Self> {
        let text = |name| json.get(name)?.as_str().map(str::to_owned);
        let time = |name| json.get(name)?.as_u64().map(UnixTime::from_millis);
        Some(Self {
            device_id: text("deviceId")?,
            blob_uri: text("blobUri")?,
            blob_name: text("blobName")?,
            last_updated: time("lastUpdated")?,
            size: json.get("size")?.as_u64()?,
            enqueued: time("enqueued")?,
        })
    }
}

/// A notification in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    number: u64,
    pub(super) notification: FileNotification,
    deliveries: u32,
}

impl Entry {
    pub(super) fn to_document(&self) -> Document {
        let FileNotification { device_id, blob_uri, blob_name, last_updated, size, enqueued } =
            &self.notification;
        let text = json!({
            "deviceId": device_id, "blobUri": blob_uri, "blobName": blob_name,
            "lastUpdated": last_updated.as_millis(), "size": size, "enqueued": enqueued.as_millis(),
            "deliveries": self.deliveries,
        });
        Document { key: key(self.number), text: Some(text.to_string()) }
    }

    fn of_document(number: &str, text: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(text).ok()?;
        Some(Self {
            number: u64::from_str_radix(number, 16).ok()?,
            notification: FileNotification::of_json(&json)?,
            deliveries: u32::try_from(json.get("deliveries")?.as_u64()?).ok()?,
        })
    }

    fn is_over(&self, now: UnixTime) -> bool {
        self.notification.enqueued.after(RETENTION) <= now || self.deliveries >= DELIVERIES_MAX
    }
}

fn key(number: u64) -> String {
    format!("{PREFIX}{number:016x}")
}

/// What waits for a reader, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    entries: BTreeMap<u64, Entry>,
    /// Which are held, and until when.
    locks: BTreeMap<u64, (String, Instant)>,
    /// Makes numbers and locks.
    last: u64,
}

/// A notification that one reader holds for a minute. It comes again at once where it is dropped before it was
/// [given](Self::give) to the reader.
#[derive(Debug)]
pub struct Delivery {
    notification: FileNotification,
    lock: String,
    /// Where to give it back.
    queue: Option<Arc<Queue>>,
}

impl Delivery {
    /// What it says.
    #[must_use]
    pub const fn notification(&self) -> &FileNotification {
        &self.notification
    }

    /// The reader gets it: from now on only its lock counts. Gives the lock.
    #[must_use]
    pub fn give(mut self) -> String {
        self.queue = None;
        std::mem::take(&mut self.lock)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            // Its time may be over already.
            let _ = queue.waiting().release(&self.lock);
        }
    }
}

fn lock_lost() -> Error {
    Error::new(Code::MessageLockLost, "the lock of the file notification has ended")
        .with_fix("receive it again")
}

impl Waiting {
    fn release(&mut self, lock: &str) -> Result<u64, Error> {
        let held = self.locks.iter().find(|(_, (known, _))| known == lock).map(|(number, _)| *number);
        let number = held.ok_or_else(lock_lost)?;
        self.locks.remove(&number);
        Ok(number)
    }
}

impl Queue {
    pub(super) fn load(documents: &[(String, String)]) -> Result<Self, Failure> {
        let mut waiting = Waiting::default();
        for (key, text) in documents {
            let Some(number) = key.strip_prefix(PREFIX) else { continue };
            let entry = Entry::of_document(number, text).ok_or_else(|| damaged(key))?;
            waiting.last = waiting.last.max(entry.number);
            waiting.entries.insert(entry.number, entry);
        }
        Ok(Self(Mutex::new(waiting)))
    }

    /// What waits, without the locks whose time is over.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        waiting.locks.retain(|_, (_, until)| now < *until);
        waiting
    }

    /// A number for a notification that is to be stored.
    pub(super) fn prepare(&self, notification: FileNotification) -> Result<Entry, Error> {
        let mut waiting = self.waiting();
        if waiting.entries.len() >= WAITING_MAX {
            let what = format!("{WAITING_MAX} file notifications wait, and nobody reads them");
            return Err(Error::new(Code::QueueFull, what)
                .with_fix("read them: GET /messages/serviceBound/filenotifications"));
        }
        waiting.last = waiting.last.saturating_add(1);
        Ok(Entry { number: waiting.last, notification, deliveries: 0 })
    }

    /// The store has it.
    pub(super) fn push(&self, entry: Entry) {
        self.waiting().entries.insert(entry.number, entry);
    }

    /// How many wait, or are held.
    pub(super) fn len(&self) -> u64 {
        self.waiting().entries.len() as u64
    }
}

impl Backend {
    /// Takes the oldest notification that no reader holds, and locks it for a minute; `None` where there is none.
    ///
    /// # Errors
    /// 400004 where the hub has no storage, 503001 where it could not be stored.
    pub async fn take_file_notification(self: &Arc<Self>) -> Result<Option<Delivery>, Error> {
        let own = Arc::clone(self);
        detached(async move { own.next_file_notification().await }).await?
    }

    async fn next_file_notification(&self) -> Result<Option<Delivery>, Error> {
        let files = self.files()?;
        let _alone = files.changing.lock().await;
        let (now, queue) = (unix_time(), &files.queue);
        let (over, next) = {
            let waiting = queue.waiting();
            let free = || waiting.entries.values().filter(|entry| !waiting.locks.contains_key(&entry.number));
            let over: Vec<u64> =
                free().filter(|entry| entry.is_over(now)).map(|entry| entry.number).collect();
            (over, free().find(|entry| !entry.is_over(now)).cloned())
        };
        let next = next.map(|entry| Entry { deliveries: entry.deliveries.saturating_add(1), ..entry });
        let mut documents: Vec<Document> =
            over.iter().map(|number| Document { key: key(*number), text: None }).collect();
        documents.extend(next.as_ref().map(Entry::to_document));
        if !documents.is_empty() && !self.engine.keep_documents(documents).await {
            return Err(Error::store_failed());
        }
        let mut waiting = queue.waiting();
        for number in &over {
            waiting.entries.remove(number);
        }
        if !over.is_empty() {
            let text = format!(
                "{} file notifications were dropped: nobody completed them within an hour, or {DELIVERIES_MAX} deliveries; fix: complete what was received",
                over.len()
            );
            self.engine.view.note("fileNotificationsDropped", &text);
        }
        let Some(entry) = next else { return Ok(None) };
        waiting.last = waiting.last.saturating_add(1);
        let lock = format!("{:x}-{:x}", now.as_millis(), waiting.last);
        waiting.locks.insert(entry.number, (lock.clone(), Instant::now() + LOCK));
        let notification = entry.notification.clone();
        waiting.entries.insert(entry.number, entry);
        Ok(Some(Delivery { notification, lock, queue: Some(Arc::clone(queue)) }))
    }

    /// The reader is done with a notification: it does not come again.
    ///
    /// # Errors
    /// 412002 where the lock is none, or not any more; 503001 where it could not be stored, and it comes again.
    pub async fn complete_file_notification(self: &Arc<Self>, lock: &str) -> Result<(), Error> {
        let (own, lock) = (Arc::clone(self), lock.to_owned());
        detached(async move {
            let files = own.files()?;
            let _alone = files.changing.lock().await;
            let held = {
                let waiting = files.queue.waiting();
                waiting.locks.iter().find(|(_, (known, _))| *known == lock).map(|(number, _)| *number)
            };
            let number = held.ok_or_else(lock_lost)?;
            if !own.engine.keep_documents(vec![Document { key: key(number), text: None }]).await {
                return Err(Error::store_failed());
            }
            let mut waiting = files.queue.waiting();
            waiting.locks.remove(&number);
            waiting.entries.remove(&number);
            Ok(())
        })
        .await?
    }

    /// The notification comes again at once.
    ///
    /// # Errors
    /// 412002 where the lock is none, or not any more.
    pub fn abandon_file_notification(&self, lock: &str) -> Result<(), Error> {
        self.files()?.queue.waiting().release(lock).map(drop)
    }
}
