//! Feedback: what became of cloud-to-device messages, as the back end asked to hear (`iothub-ack`).
//!
//! Reports are kept with the record of their device until a reader has completed the batch that they came in. A batch is
//! locked for its reader; what it does not complete in time, or abandons, comes again in another batch.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use devicebound::hub::{DeviceKey, Feedback, Hub};
use devicebound::time::UnixTime;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Backend, Code, Error, detached, safe};
use crate::clock::unix_time;
use crate::engine::core::Core;

/// Reports in one batch, and how long a reader holds it, as in Azure (IoT Hub cloud-to-device guide).
const BATCH: usize = 64;
const LOCK: Duration = Duration::from_secs(60);
/// How long a report waits for a reader, as in Azure by default.
const RETENTION: Duration = Duration::from_secs(3600);

/// The media type of a batch.
pub const CONTENT_TYPE: &str = "application/vnd.microsoft.iothub.feedback.json";

/// Reports that one reader holds for a minute. They come again at once where it is dropped before it was
/// [given](Self::give) to the reader.
#[derive(Debug)]
pub struct Batch {
    lock: String,
    reports: Vec<Feedback>,
    /// Where to give it back.
    readers: Option<Arc<Readers>>,
}

impl Batch {
    /// What the batch says; never empty.
    #[must_use]
    pub fn reports(&self) -> &[Feedback] {
        &self.reports
    }

    /// What the batch says, as Azure writes it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        Value::Array(self.reports.iter().map(to_json).collect())
    }

    /// What completes or abandons the batch.
    #[must_use]
    pub fn lock(&self) -> &str {
        &self.lock
    }

    /// The reader gets it: from now on only its lock counts. Gives the lock.
    #[must_use]
    pub fn give(mut self) -> String {
        self.readers = None;
        std::mem::take(&mut self.lock)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(readers) = self.readers.take() {
            // Its time may be over already.
            let _ = readers.state().release(&self.lock);
        }
    }
}

/// Who has feedback, and who reads it.
#[derive(Debug, Default)]
pub(super) struct Readers {
    state: Mutex<Batches>,
    /// One batch is put together at a time.
    taking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Batches {
    /// Devices that have feedback to give, as far as it is known.
    ready: BTreeSet<String>,
    locked: HashMap<String, Held>,
    /// Makes locks.
    last: u64,
}

/// What one reader holds: of each device, the first so many reports.
#[derive(Clone, Debug)]
struct Held {
    taken: Vec<Taken>,
    until: Instant,
    /// It is being completed, however long that takes.
    is_ending: bool,
}

#[derive(Clone, Debug)]
struct Taken {
    device_id: String,
    generation_id: String,
    count: usize,
}

impl Readers {
    /// What is known, without the locks whose time is over.
    fn state(&self) -> MutexGuard<'_, Batches> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_over = |held: &Held| held.until <= now && !held.is_ending;
        let over: Vec<String> =
            state.locked.iter().filter(|(_, held)| is_over(held)).map(|(lock, _)| lock.clone()).collect();
        over.iter().for_each(|lock| drop(state.release(lock)));
        state
    }
}

fn lock_lost() -> Error {
    Error::new(Code::MessageLockLost, "the lock of the feedback batch has ended").with_fix("receive it again")
}

impl Batches {
    /// Takes a batch from its reader; its devices have feedback to give again.
    fn release(&mut self, lock: &str) -> Result<(), Error> {
        let held = self.locked.remove(lock).ok_or_else(lock_lost)?;
        self.ready.extend(held.taken.into_iter().map(|taken| taken.device_id));
        Ok(())
    }

    /// The reader is done with its batch: what was in it is to be dropped. It stays with the reader until that is done.
    fn end(&mut self, lock: &str) -> Result<Vec<Taken>, Error> {
        let held = self.locked.get_mut(lock).filter(|held| !held.is_ending).ok_or_else(lock_lost)?;
        held.is_ending = true;
        Ok(held.taken.clone())
    }

    /// Devices that may have feedback which no reader holds.
    fn free(&self) -> Vec<String> {
        let taken = self.locked.values().flat_map(|held| &held.taken);
        let locked: HashSet<&str> = taken.map(|taken| taken.device_id.as_str()).collect();
        self.ready.iter().filter(|id| !locked.contains(id.as_str())).cloned().collect()
    }

    /// Locks what was found for a reader; gives the lock.
    fn hold(&mut self, taken: Vec<Taken>) -> String {
        self.last = self.last.saturating_add(1);
        let lock = format!("{:x}-{:x}", unix_time().as_millis(), self.last);
        self.locked.insert(lock.clone(), Held { taken, until: Instant::now() + LOCK, is_ending: false });
        lock
    }
}

impl Backend {
    /// Takes the oldest reports that no reader holds, at most 64, and locks them for a minute; `None` where there are none.
    ///
    /// # Errors
    /// 503001 where the hub ends first.
    pub async fn take_feedback(self: &Arc<Self>) -> Result<Option<Batch>, Error> {
        let own = Arc::clone(self);
        // What the workers have named is named once, and so must not be lost with the caller.
        detached(async move { own.gather_feedback().await }).await
    }

    async fn gather_feedback(&self) -> Option<Batch> {
        let readers = &self.feedback;
        let _alone = readers.taking.lock().await;
        let named = self.engine.everywhere(|core, _| devices_with_feedback(core)).await;
        let free = {
            let mut state = readers.state();
            state.ready.extend(named.into_iter().flatten());
            state.free()
        };
        let (mut reports, mut taken) = (Vec::new(), Vec::new());
        for device_id in free {
            let room = BATCH.saturating_sub(reports.len());
            if room == 0 {
                break;
            }
            let found = self.feedback_of(&device_id, room).await;
            match found.first() {
                Some(first) => taken.push(Taken {
                    device_id,
                    generation_id: first.generation_id.clone(),
                    count: found.len(),
                }),
                None => drop(readers.state().ready.remove(&device_id)),
            }
            reports.extend(found);
        }
        if reports.is_empty() {
            return None;
        }
        let lock = readers.state().hold(taken);
        Some(Batch { lock, reports, readers: Some(Arc::clone(readers)) })
    }

    /// The reader is done with a batch: its reports do not come again.
    ///
    /// # Errors
    /// 412002 where the lock is none, or not any more; 503001 where it could not be stored, and what was not stored comes
    /// again.
    pub async fn complete_feedback(self: &Arc<Self>, lock: &str) -> Result<(), Error> {
        let taken = self.feedback.state().end(lock)?;
        let (own, lock) = (Arc::clone(self), lock.to_owned());
        let dropped = detached(async move {
            let mut result = Ok(());
            for taken in taken {
                result = result.and(own.drop_feedback(taken).await);
            }
            // Those that were dropped are not found again.
            own.feedback.state().release(&lock).and(result)
        });
        dropped.await?
    }

    /// The reports of a batch come again at once.
    ///
    /// # Errors
    /// 412002 where the lock is none, or not any more.
    pub fn abandon_feedback(&self, lock: &str) -> Result<(), Error> {
        let mut state = self.feedback.state();
        if state.locked.get(lock).is_some_and(|held| held.is_ending) {
            return Err(lock_lost());
        }
        state.release(lock)
    }

    /// The oldest reports of a device, those left out that nobody has read in time.
    async fn feedback_of(&self, device_id: &str, most: usize) -> Vec<Feedback> {
        let id = device_id.to_owned();
        let found = self.engine.at(device_id, move |core, _| {
            let Some(key) = core.hub.find(&id) else { return Vec::new() };
            drop_old(&mut core.hub, key, unix_time());
            core.hub.feedback(key).take(most).collect()
        });
        found.await
    }

    async fn drop_feedback(&self, taken: Taken) -> Result<(), Error> {
        let Taken { device_id, generation_id, count } = taken;
        let id = device_id.clone();
        let dropped = self.engine.at(&device_id, move |core, _| {
            let key = core.hub.find(&id)?;
            // Another identity of the same id has its own reports.
            let is_same = core.hub.record(key)?.identity.generation_id == generation_id;
            let commit = if is_same { core.hub.take_feedback(key, count) } else { None };
            commit.map(|commit| core.commit_durably([commit]))
        });
        match dropped.await {
            Some(change) => safe(change).await,
            None => Ok(()),
        }
    }
}

/// Drops what has waited too long, so that a back end which asks for feedback and never reads it can go on sending. It goes
/// to the store with the next change of the record.
pub(super) fn drop_old(hub: &mut Hub, key: DeviceKey, now: UnixTime) {
    let old = hub.feedback(key).take_while(|report| report.at.after(RETENTION) <= now).count();
    let _ = hub.take_feedback(key, old);
}

fn to_json(report: &Feedback) -> Value {
    let outcome = report.outcome.as_str();
    json!({
        "originalMessageId": report.original_message_id,
        "enqueuedTimeUtc": report.at.to_string(),
        "statusCode": outcome,
        "description": outcome,
        "deviceId": report.device_id,
        "deviceGenerationId": report.generation_id,
    })
}

fn devices_with_feedback(core: &mut Core) -> Vec<String> {
    let mut named = Vec::new();
    while let Some(key) = core.hub.poll_feedback() {
        named.extend(core.hub.record(key).map(|record| record.identity.client_id().to_owned()));
    }
    named
}

#[cfg(test)]
mod tests {
    use devicebound::hub::{
        Authentication, CloudMessage, DeviceIdentity, DeviceRecord, FeedbackRequest, HubConfig,
    };
    use devicebound::iothub::sas::SymmetricKey;
    use devicebound::time::Instant;

    use super::*;

    #[test]
    fn a_report_that_nobody_reads_for_an_hour_is_dropped_and_a_younger_one_stays() {
        let (begin, start) = (Instant::from_secs(1), UnixTime::from_secs(1_700_000_000));
        let mut hub = Hub::new(HubConfig::default(), begin, start);
        let key = || SymmetricKey::from_bytes(&[7; 32]);
        let authentication = Authentication::Sas { primary: key(), secondary: key() };
        let identity = DeviceIdentity::new("d", "1".to_owned(), authentication).unwrap();
        let device = hub.insert(DeviceRecord::new(identity)).unwrap();
        for minutes in [0, 1] {
            let now = begin.after(Duration::from_secs(60 * minutes));
            let message = CloudMessage { ack: Some(FeedbackRequest::Full), ..CloudMessage::default() };
            assert!(hub.enqueue(now, device, message).is_ok());
            let (_, commit) = hub.purge(now, device).unwrap();
            hub.committed(device, commit.revision);
        }
        let mut left = |seconds| {
            drop_old(&mut hub, device, start.after(Duration::from_secs(seconds)));
            hub.feedback(device).count()
        };
        assert_eq!([left(3599), left(3600), left(3659), left(3660)], [2, 1, 1, 0]);
    }
}
