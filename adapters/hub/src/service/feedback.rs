//! `/messages/serviceBound/feedback`: what became of cloud-to-device messages, as the back end asked to hear (`iothub-ack`).
//!
//! Reports are kept with the record of their device until a reader has completed the batch that they came in. A batch is
//! locked for its reader; what it does not complete in time, or abandons, comes again in another batch.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use devicebound::hub::{DeviceKey, Feedback, Hub};
use devicebound::time::UnixTime;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{ApiError, Code, Service, Shared};
use crate::backlog::Change;
use crate::clock::unix_time;
use crate::worker::Core;

/// Reports in one batch, and how long a reader holds it, as in Azure (IoT Hub cloud-to-device guide).
const BATCH: usize = 64;
const LOCK: Duration = Duration::from_secs(60);
/// How long a report waits for a reader, as in Azure by default.
const RETENTION: Duration = Duration::from_secs(3600);
const CONTENT_TYPE: &str = "application/vnd.microsoft.iothub.feedback.json";

/// Who has feedback, and who reads it.
#[derive(Debug, Default)]
pub struct Readers(Mutex<Batches>);

#[derive(Debug, Default)]
struct Batches {
    /// Devices that have feedback to give, as far as it is known.
    ready: BTreeSet<String>,
    locked: HashMap<String, Batch>,
    /// Makes lock tokens.
    last: u64,
}

/// What one reader holds: of each device, the first so many reports.
#[derive(Clone, Debug)]
struct Batch {
    taken: Vec<Taken>,
    until: Instant,
}

#[derive(Clone, Debug)]
struct Taken {
    device_id: String,
    generation_id: String,
    count: usize,
}

impl Readers {
    /// What is known, without the locks whose time is over.
    async fn lock(&self) -> MutexGuard<'_, Batches> {
        let mut state = self.0.lock().await;
        let now = Instant::now();
        let over: Vec<String> = state
            .locked
            .iter()
            .filter(|(_, batch)| batch.until <= now)
            .map(|(token, _)| token.clone())
            .collect();
        over.iter().for_each(|token| drop(state.release(token)));
        state
    }
}

impl Batches {
    /// Takes a batch from its reader; its devices have feedback to give again.
    fn release(&mut self, token: &str) -> Result<Batch, ApiError> {
        let lost = "the lock of the feedback batch has ended; receive it again";
        let batch = self.locked.remove(token).ok_or_else(|| ApiError::new(Code::MessageLockLost, lost))?;
        self.ready.extend(batch.taken.iter().map(|taken| taken.device_id.clone()));
        Ok(batch)
    }

    /// Devices that may have feedback which no reader holds.
    fn free(&self) -> Vec<String> {
        let taken = self.locked.values().flat_map(|batch| &batch.taken);
        let locked: HashSet<&str> = taken.map(|taken| taken.device_id.as_str()).collect();
        self.ready.iter().filter(|id| !locked.contains(id.as_str())).cloned().collect()
    }
}

pub(super) async fn receive(State(service): Shared) -> Response {
    let mut state = service.feedback.lock().await;
    let named = service.engine.everywhere(|core, _| devices_with_feedback(core)).await;
    state.ready.extend(named.into_iter().flatten());
    let (mut reports, mut taken) = (Vec::new(), Vec::new());
    for device_id in state.free() {
        let room = BATCH.saturating_sub(reports.len());
        if room == 0 {
            break;
        }
        let found = service.feedback_of(&device_id, room).await;
        match found.first() {
            Some(first) => taken.push(Taken {
                device_id,
                generation_id: first.generation_id.clone(),
                count: found.len(),
            }),
            None => drop(state.ready.remove(&device_id)),
        }
        reports.extend(found.iter().map(to_json));
    }
    if reports.is_empty() {
        return StatusCode::NO_CONTENT.into_response();
    }
    state.last = state.last.saturating_add(1);
    let token = format!("{:x}-{:x}", unix_time().as_millis(), state.last);
    let etag = format!("\"{token}\"");
    state.locked.insert(token, Batch { taken, until: Instant::now() + LOCK });
    let headers = [("content-type", CONTENT_TYPE.to_owned()), ("etag", etag)];
    (StatusCode::OK, headers, Value::Array(reports).to_string()).into_response()
}

pub(super) async fn complete(
    State(service): Shared,
    Path(token): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut state = service.feedback.lock().await;
    for taken in state.release(token.trim_matches('"'))?.taken {
        service.drop_feedback(taken).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn abandon(
    State(service): Shared,
    Path(token): Path<String>,
) -> Result<StatusCode, ApiError> {
    service.feedback.lock().await.release(token.trim_matches('"'))?;
    Ok(StatusCode::NO_CONTENT)
}

impl Service {
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

    async fn drop_feedback(&self, taken: Taken) -> Result<(), ApiError> {
        let Taken { device_id, generation_id, count } = taken;
        let id = device_id.clone();
        let dropped = self.engine.at(&device_id, move |core, _| {
            let key = core.hub.find(&id)?;
            // Another identity of the same id has its own reports.
            let is_same = core.hub.record(key)?.identity.generation_id == generation_id;
            if is_same { core.hub.take_feedback(key, count) } else { None }
        });
        match dropped.await {
            Some(commit) if !self.engine.durable(&device_id, Change::Record(commit.device)).await => {
                Err(ApiError::store_failed())
            }
            _ => Ok(()),
        }
    }
}

/// Drops what has waited too long, so that a back end which asks for feedback and never reads it can go on sending. It goes
/// to the store with the next change of the record.
pub(super) fn drop_old(hub: &mut Hub, key: DeviceKey, now: UnixTime) {
    let old = hub.feedback(key).take_while(|report| report.at.after(RETENTION) <= now).count();
    let _ = hub.take_feedback(key, old);
}

fn devices_with_feedback(core: &mut Core) -> Vec<String> {
    let mut named = Vec::new();
    while let Some(key) = core.hub.poll_feedback() {
        named.extend(core.hub.record(key).map(|record| record.identity.client_id().to_owned()));
    }
    named
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
