//! What a job did with one device.

use devicebound::time::UnixTime;
use serde_json::{Map, Value, json};

use super::status::Status;
use crate::backend::ClientId;

/// A device of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DeviceRow {
    /// Not written down: what was begun and has no end is begun again after a restart.
    pub(super) started: Option<UnixTime>,
    pub(super) end: Option<End>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct End {
    pub(super) at: UnixTime,
    pub(super) outcome: Outcome,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// The twin was changed.
    Changed,
    /// The device answered the method.
    Answered { status: i32, payload: Value },
    /// It could not be done: Azure's name of the error, and what is wrong.
    Failed { code: String, description: String },
}

/// How far a device has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowState {
    Pending,
    Running,
    Completed,
    Failed,
    /// The job was ended before.
    Cancelled,
}

impl RowState {
    /// As Azure writes it: with one l, other than the status of a job.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "canceled",
        }
    }
}

impl DeviceRow {
    /// How far the device has come in a job of this status.
    pub(super) fn state(&self, job: Status) -> RowState {
        match (&self.end, job) {
            (Some(End { outcome: Outcome::Failed { .. }, .. }), _) => RowState::Failed,
            (Some(_), _) => RowState::Completed,
            (None, Status::Cancelled) => RowState::Cancelled,
            // The time of the job was over.
            (None, Status::Completed) => RowState::Failed,
            (None, Status::Queued | Status::Running) if self.started.is_none() => RowState::Pending,
            (None, Status::Queued | Status::Running) => RowState::Running,
        }
    }

    /// The row as a query shows it.
    pub(super) fn to_json(&self, id: &ClientId, job: &JobOfRow<'_>) -> Value {
        let moment = |time: Option<UnixTime>| time.map(|time| time.to_string());
        let ended = self.end.as_ref().map(|end| end.at).or(job.ended);
        let mut row = Map::new();
        let mut set = |name: &str, value: Value| drop(row.insert(name.to_owned(), value));
        set("deviceId", id.device_id().into());
        if let Some(module_id) = id.module_id() {
            set("moduleId", module_id.into());
        }
        set("jobId", job.id.into());
        set("jobType", job.kind.into());
        let state = self.state(job.status);
        set("status", state.as_str().into());
        set("startTimeUtc", moment(self.started.or(job.started)).into());
        set("endTimeUtc", moment(ended).into());
        set("createdDateTimeUtc", job.created.to_string().into());
        set("lastUpdatedDateTimeUtc", moment(ended.or(self.started).or(job.started)).into());
        match self.end.as_ref().map(|end| &end.outcome) {
            Some(Outcome::Answered { status, payload }) => {
                set("outcome", json!({"deviceMethodResponse": {"status": status, "payload": payload}}));
            }
            Some(Outcome::Failed { code, description }) => {
                set("error", json!({"code": code, "description": description}));
            }
            None if state == RowState::Failed => set(
                "error",
                json!({"code": "JobTimedOut", "description": "maxExecutionTimeInSeconds was over before the device's turn had ended"}),
            ),
            Some(Outcome::Changed) | None => {}
        }
        Value::Object(row)
    }

    /// The row as the store keeps it.
    pub(super) fn to_document(&self) -> String {
        let moment = |time: Option<UnixTime>| time.map(UnixTime::as_millis);
        let outcome = match self.end.as_ref().map(|end| &end.outcome) {
            None => Value::Null,
            Some(Outcome::Changed) => json!({}),
            Some(Outcome::Answered { status, payload }) => json!({"status": status, "payload": payload}),
            Some(Outcome::Failed { code, description }) => json!({"code": code, "description": description}),
        };
        let at = self.end.as_ref().map(|end| end.at);
        let started = self.started.filter(|_| at.is_some());
        json!({"started": moment(started), "ended": moment(at), "outcome": outcome}).to_string()
    }

    /// Reads what [`to_document`](Self::to_document) wrote.
    pub(super) fn of_document(document: &Value) -> Option<Self> {
        let moment = |name: &str| document.get(name).and_then(Value::as_u64).map(UnixTime::from_millis);
        let outcome = document.get("outcome")?;
        let text = |name: &str| outcome.get(name).and_then(Value::as_str).map(str::to_owned);
        let outcome = match (outcome.get("status"), text("code")) {
            (Some(status), _) => {
                let status = i32::try_from(status.as_i64()?).ok()?;
                Outcome::Answered { status, payload: outcome.get("payload")?.clone() }
            }
            (None, Some(code)) => Outcome::Failed { code, description: text("description")? },
            (None, None) => Outcome::Changed,
        };
        let end = moment("ended").map(|at| End { at, outcome });
        Some(Self { started: moment("started"), end })
    }
}

/// What a row shows of its job.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobOfRow<'j> {
    pub(super) id: &'j str,
    pub(super) kind: &'static str,
    pub(super) status: Status,
    pub(super) created: UnixTime,
    pub(super) started: Option<UnixTime>,
    pub(super) ended: Option<UnixTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_back_from_the_store_as_it_was() {
        let moment = UnixTime::from_secs(7);
        for outcome in [
            Outcome::Changed,
            Outcome::Answered { status: -3, payload: json!([1]) },
            Outcome::Failed { code: "DeviceNotFound".to_owned(), description: "gone".to_owned() },
        ] {
            let row = DeviceRow { started: Some(moment), end: Some(End { at: moment, outcome }) };
            let text: Value = serde_json::from_str(&row.to_document()).unwrap();
            assert_eq!(DeviceRow::of_document(&text), Some(row));
        }
        let begun = DeviceRow { started: Some(moment), end: None };
        let text: Value = serde_json::from_str(&begun.to_document()).unwrap();
        assert_eq!(DeviceRow::of_document(&text), Some(DeviceRow::default()), "it is begun again");
    }

    #[test]
    fn what_a_job_did_not_come_to_ends_with_it() {
        let row = DeviceRow::default();
        for (status, state) in [
            (Status::Running, RowState::Pending),
            (Status::Cancelled, RowState::Cancelled),
            (Status::Completed, RowState::Failed),
        ] {
            assert_eq!(row.state(status), state);
        }
    }
}
