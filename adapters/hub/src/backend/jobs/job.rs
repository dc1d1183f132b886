//! One job: what was asked for, and how far it has come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use devicebound::hub::MethodRequest;
use devicebound::time::UnixTime;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::row::{DeviceRow, RowState};
use super::status::Status;
use crate::backend::identity::text;
use crate::backend::query::Target;
use crate::backend::{Error, methods, twins};
use crate::clock::time_of;

/// Longest id of a job, in characters (own limit, as of a device id).
const ID_MAX: usize = 128;
/// How long a job may run unless it says otherwise (Azure: "Schedule jobs on multiple devices").
const TIME: Duration = Duration::from_secs(3600);
/// How long a job may run at most, and how far ahead it may start: as long as an ended job is kept (own limit).
pub(super) const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a job does with each device.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// Merges this into the twin, as PATCH does.
    UpdateTwin(Value),
    /// Calls this method.
    CallMethod(MethodRequest),
}

impl Work {
    /// The value of `type`.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::UpdateTwin(_) => "scheduleUpdateTwin",
            Self::CallMethod(_) => "scheduleDeviceMethod",
        }
    }
}

/// A job, shared by who runs it and who asks about it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: String,
    /// The request, as it is shown and stored.
    request: Value,
    pub(super) work: Work,
    pub(super) target: Target,
    pub(super) created: UnixTime,
    pub(super) start: UnixTime,
    /// How long it may run.
    pub(super) time: Duration,
    progress: Mutex<Progress>,
    /// Held by who changes the status, so that memory and store see changes in one order.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// Becomes true when somebody ends it.
    pub(super) cancelled: watch::Sender<bool>,
}

/// What changes of a job.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) status: Status,
    pub(super) started: Option<UnixTime>,
    pub(super) ended: Option<UnixTime>,
    /// The devices that were chosen, by client id.
    pub(super) rows: BTreeMap<String, DeviceRow>,
}

impl Job {
    /// Reads a request.
    ///
    /// # Errors
    /// 400004 with what cannot be meant.
    pub(super) fn read(id: &str, request: Value, now: UnixTime) -> Result<Self, Error> {
        let is_plain = |character: char| character.is_ascii_graphic() && character != '/';
        if id.is_empty() || id.len() > ID_MAX || !id.chars().all(is_plain) {
            let what = "the id of a job has 1 to 128 characters of ASCII, without blanks and slashes";
            return Err(Error::invalid(what));
        }
        if text(&request, "jobId")?.is_some_and(|named| named != id) {
            return Err(
                Error::invalid("the jobId of the body is not that of the path").with_fix("send one of them")
            );
        }
        let work = read_work(&request)?;
        let condition = text(&request, "queryCondition")?.unwrap_or("*");
        let target = Target::read(condition).map_err(|error| {
            Error::from(error).with_fix("queryCondition is what stands behind WHERE, or *")
        })?;
        let time = match request.get("maxExecutionTimeInSeconds") {
            None | Some(Value::Null) => TIME,
            Some(seconds) => seconds
                .as_u64()
                .map(Duration::from_secs)
                .filter(|time| !time.is_zero() && *time <= TIME_MAX)
                .ok_or_else(|| Error::invalid("maxExecutionTimeInSeconds is 1 to 2592000 seconds"))?,
        };
        let start = match text(&request, "startTime")?.filter(|text| !text.is_empty()) {
            None => now,
            Some(text) => time_of(text)
                .ok_or_else(|| Error::invalid("startTime is a time such as 2030-01-31T12:00:00Z"))?,
        };
        if start > now.after(TIME_MAX) {
            return Err(Error::invalid("startTime is more than 30 days ahead"));
        }
        let progress = Progress { status: Status::Queued, started: None, ended: None, rows: BTreeMap::new() };
        Ok(Self {
            id: id.to_owned(),
            request,
            work,
            target,
            created: now,
            start,
            time,
            progress: Mutex::new(progress),
            changing: tokio::sync::Mutex::default(),
            cancelled: watch::Sender::new(false),
        })
    }

    /// Reads what [`to_document`](Self::to_document) wrote.
    pub(super) fn of_document(id: &str, document: &Value) -> Option<Self> {
        let moment = |name: &str| document.get(name).and_then(Value::as_u64).map(UnixTime::from_millis);
        let status = document.get("status").and_then(Value::as_str)?;
        let job = Self::read(id, document.get("request")?.clone(), moment("created")?).ok()?;
        {
            let mut progress = job.progress();
            progress.status = Status::ALL.into_iter().find(|known| known.as_str() == status)?;
            (progress.started, progress.ended) = (moment("started"), moment("ended"));
        }
        Some(job)
    }

    /// The job as the store keeps it, with another status than it has. Its rows are documents of their own.
    pub(super) fn to_document(
        &self,
        status: Status,
        started: Option<UnixTime>,
        ended: Option<UnixTime>,
    ) -> String {
        let moment = |time: Option<UnixTime>| time.map(UnixTime::as_millis);
        json!({
            "request": self.request, "created": self.created.as_millis(), "status": status.as_str(),
            "started": moment(started), "ended": moment(ended),
        })
        .to_string()
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs in the order in which they were made.
    pub(super) fn order(&self) -> String {
        format!("{:020}/{}", self.created.as_millis(), self.id)
    }

    /// What the service answers to the request: no more is known then.
    pub(super) fn to_receipt(&self) -> Value {
        json!({"jobId": self.id, "type": self.work.name(), "status": Status::Queued.as_str()})
    }

    /// The job as it is shown.
    pub(super) fn to_json(&self) -> Value {
        let progress = self.progress();
        let mut shown = Map::new();
        for name in ["cloudToDeviceMethod", "updateTwin", "queryCondition"] {
            shown.extend(self.request.get(name).map(|value| (name.to_owned(), value.clone())));
        }
        let moment = |time: Option<UnixTime>| time.map_or(Value::Null, |time| time.to_string().into());
        shown.extend([
            ("jobId".to_owned(), self.id.as_str().into()),
            ("type".to_owned(), self.work.name().into()),
            ("status".to_owned(), progress.status.as_str().into()),
            ("createdTime".to_owned(), self.created.to_string().into()),
            ("startTime".to_owned(), self.start.to_string().into()),
            ("endTime".to_owned(), moment(progress.ended)),
            ("maxExecutionTimeInSeconds".to_owned(), self.time.as_secs().into()),
            ("deviceJobStatistics".to_owned(), self.statistics(&progress)),
        ]);
        Value::Object(shown)
    }

    fn statistics(&self, progress: &Progress) -> Value {
        let mut counts = [0_u64; 4];
        for row in progress.rows.values() {
            let place = match row.state(progress.status) {
                RowState::Completed => 0,
                RowState::Failed | RowState::Cancelled => 1,
                RowState::Running => 2,
                RowState::Pending => 3,
            };
            if let Some(count) = counts.get_mut(place) {
                *count = count.saturating_add(1);
            }
        }
        let [succeeded, failed, running, pending] = counts;
        json!({
            "deviceCount": progress.rows.len(), "failedCount": failed, "succeededCount": succeeded,
            "runningCount": running, "pendingCount": pending,
        })
    }
}

fn read_work(request: &Value) -> Result<Work, Error> {
    let part = |name: &str| {
        let part = request.get(name).filter(|part| part.is_object()).cloned();
        part.ok_or_else(|| Error::invalid(format!("a job of this type has {name}, an object")))
    };
    match text(request, "type")? {
        Some("scheduleUpdateTwin") => {
            let update = part("updateTwin")?;
            twins::update_of(&update, twins::Manner::Merge, None)?;
            Ok(Work::UpdateTwin(update))
        }
        Some("scheduleDeviceMethod") => {
            let call = methods::request_of(&part("cloudToDeviceMethod")?)?;
            call.check()?;
            Ok(Work::CallMethod(call))
        }
        other => Err(Error::invalid(format!(
            "type is scheduleUpdateTwin or scheduleDeviceMethod, not {}",
            other.unwrap_or("missing")
        ))),
    }
}

/// A job under the name that it is shared by.
pub(super) type SharedJob = Arc<Job>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_would_be_right() {
        let method = json!({"methodName": "reboot", "responseTimeoutInSeconds": 30});
        let request = |members: Value| {
            let mut request =
                json!({"type": "scheduleDeviceMethod", "cloudToDeviceMethod": method, "queryCondition": "*"});
            request.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            request
        };
        let now = UnixTime::from_secs(1_700_000_000);
        assert!(Job::read("j", request(json!({})), now).is_ok());
        for (members, said) in [
            (json!({"type": "scheduleTwinUpdate"}), "scheduleUpdateTwin or scheduleDeviceMethod"),
            (json!({"type": "scheduleUpdateTwin"}), "has updateTwin"),
            (json!({"type": "scheduleUpdateTwin", "updateTwin": {"tags": 1}}), "tags"),
            (json!({"cloudToDeviceMethod": {"methodName": "a b"}}), "method name"),
            (json!({"queryCondition": "tags.a ="}), "character 9"),
            (json!({"queryCondition": "SELECT * FROM devices"}), "behind WHERE"),
            (json!({"startTime": "tomorrow"}), "2030-01-31T12:00:00Z"),
            (json!({"startTime": "2100-01-01T00:00:00Z"}), "30 days"),
            (json!({"maxExecutionTimeInSeconds": 0}), "1 to 2592000"),
            (json!({"jobId": "other"}), "not that of the path"),
        ] {
            let error = Job::read("j", request(members.clone()), now).unwrap_err().to_string();
            assert!(error.contains(said), "{members}: {error}");
        }
        for id in ["", "a b", "a/b", &"x".repeat(129)] {
            assert!(Job::read(id, request(json!({})), now).is_err(), "{id}");
        }
    }

    #[test]
    fn a_job_is_read_back_from_the_store_as_it_was() {
        let request = json!({"type": "scheduleUpdateTwin", "updateTwin": {"etag": "*", "tags": {"a": 1}}});
        let made = Job::read("j", request, UnixTime::from_secs(5)).unwrap();
        let text = made.to_document(Status::Running, Some(UnixTime::from_secs(7)), None);
        let read = Job::of_document("j", &serde_json::from_str(&text).unwrap()).unwrap();
        made.progress().status = Status::Running;
        assert_eq!(read.to_json(), made.to_json());
        assert_eq!(read.progress().started, Some(UnixTime::from_secs(7)));
        assert!(Job::of_document("j", &json!({"status": "asleep"})).is_none());
    }
}
