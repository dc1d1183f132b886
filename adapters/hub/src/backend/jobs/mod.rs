//! Jobs: a change of twins, or a call of a method, for many devices at a time of choice.
//!
//! ```text
//!  PUT ─▶ queued ── its time, and a place among those that run ──▶ running ── each device has ended, or time is over ──▶ completed
//!            └─────────────────── cancel ──────────────────────────────┴──────────────────────▶ cancelled
//! ```
//! The devices are chosen when a job starts. Each of the arrows, and what came of each device, is safe in the store before
//! it shows: a hub that starts again goes on with what has no end yet. A method whose answer was not written down is called
//! again then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devicebound::time::UnixTime;
use serde_json::Value;
use tokio::sync::Semaphore;

use self::job::{Job, SharedJob, TIME_MAX};
use self::row::{DeviceRow, JobOfRow};
use self::status::Status;
use super::query::{Cursor, Filter, ItemType, JsonRow, PAGE_MAX, Page};
use super::{Backend, ClientId, Code, Error};
use crate::Failure;
use crate::clock::unix_time;
use crate::store::Document;

mod job;
mod row;
mod run;
mod status;

/// Names of documents begin so.
const JOB: &str = "jobs/job/";
const ROW: &str = "jobs/row/";

/// Jobs that are kept: at least as many as a day of one every two minutes needs (own limit).
const JOBS_MAX: usize = 1000;
/// Jobs that run at the same time (IoT Hub limits: 10 for S3).
const JOBS_AT_ONCE: usize = 10;

/// The jobs of a hub.
#[derive(Debug)]
pub(crate) struct Jobs {
    jobs: Mutex<BTreeMap<String, SharedJob>>,
    /// Held by who adds and removes jobs.
    changing: tokio::sync::Mutex<()>,
    places: Semaphore,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            jobs: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            places: Semaphore::new(JOBS_AT_ONCE),
        }
    }
}

impl Jobs {
    /// Those that the store has.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn load(documents: &[(String, String)]) -> Result<Self, Failure> {
        let jobs = Self::default();
        let damaged = |name: &str| {
            Failure::new(
                format!("the document {name} in the store is no part of a job"),
                "restore the store from a backup",
            )
        };
        let named = |prefix: &'static str| {
            documents.iter().filter_map(move |(name, text)| Some((name, name.strip_prefix(prefix)?, text)))
        };
        for (name, id, text) in named(JOB) {
            let document = serde_json::from_str(text).ok();
            let job = document.and_then(|document| Job::of_document(id, &document));
            jobs.jobs().insert(id.to_owned(), Arc::new(job.ok_or_else(|| damaged(name))?));
        }
        for (name, place, text) in named(ROW) {
            let document = serde_json::from_str(text).ok();
            let row = document.and_then(|document| DeviceRow::of_document(&document));
            let (id, client_id) = place.split_once('/').ok_or_else(|| damaged(name))?;
            // The job of a row that was left behind is gone.
            let Some(job) = jobs.job(id) else { continue };
            job.progress().rows.insert(client_id.to_owned(), row.ok_or_else(|| damaged(name))?);
        }
        Ok(jobs)
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, SharedJob>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn job(&self, id: &str) -> Option<SharedJob> {
        self.jobs().get(id).cloned()
    }

    fn find(&self, id: &str) -> Result<SharedJob, Error> {
        self.job(id).ok_or_else(|| {
            Error::new(Code::JobNotFound, format!("there is no job `{id}`"))
                .with_fix("list them: GET /jobs/v2/query")
        })
    }

    /// All of them, in the order in which they were made.
    fn all(&self) -> Vec<SharedJob> {
        let mut jobs: Vec<SharedJob> = self.jobs().values().cloned().collect();
        jobs.sort_by_key(|job| job.order());
        jobs
    }

    /// Those that ended too long ago; and the one that ended first where there is room for no more.
    fn outdated(&self, now: UnixTime) -> Vec<SharedJob> {
        let mut ended: Vec<(UnixTime, SharedJob)> =
            self.all().into_iter().filter_map(|job| Some((job.progress().ended?, job.clone()))).collect();
        ended.sort_by_key(|(at, _)| *at);
        let is_full = self.jobs().len() >= JOBS_MAX;
        let is_outdated = |(index, (at, _)): &(usize, (UnixTime, SharedJob))| {
            at.after(TIME_MAX) <= now || (*index == 0 && is_full)
        };
        ended.into_iter().enumerate().filter(is_outdated).map(|(_, (_, job))| job).collect()
    }
}

/// A job as a document that is to go.
fn no_job(id: &str) -> Document {
    Document { key: format!("{JOB}{id}"), text: None }
}

fn row_key(job: &Job, client_id: &str) -> String {
    format!("{ROW}{}/{client_id}", job.id)
}

impl Backend {
    /// Schedules a job.
    ///
    /// # Errors
    /// 400004 with what cannot be meant, 409000 for an id that is taken, 403003 where as many wait and run as the hub keeps,
    /// 503001 where it could not be stored.
    pub async fn schedule_job(self: &Arc<Self>, id: &str, request: Value) -> Result<Value, Error> {
        let now = unix_time();
        let job = Arc::new(Job::read(id, request, now)?);
        let _changing = self.jobs.changing.lock().await;
        if self.jobs.job(id).is_some() {
            return Err(Error::new(Code::JobAlreadyExists, format!("there is a job `{id}`"))
                .with_fix("give each job an id of its own, such as a GUID"));
        }
        self.remove_jobs(self.jobs.outdated(now)).await?;
        if self.jobs.jobs().len() >= JOBS_MAX {
            return Err(Error::new(
                Code::JobQuotaExceeded,
                format!("{JOBS_MAX} jobs wait or run, as many as there may be"),
            )
            .with_fix("cancel some: POST /jobs/v2/{id}/cancel"));
        }
        let text = Some(job.to_document(Status::Queued, None, None));
        if !self.engine.keep_documents(vec![Document { key: format!("{JOB}{id}"), text }]).await {
            return Err(Error::store_failed());
        }
        self.jobs.jobs().insert(id.to_owned(), Arc::clone(&job));
        let receipt = job.to_receipt();
        self.start_job(job);
        Ok(receipt)
    }

    /// A job as it is now.
    ///
    /// # Errors
    /// 404002.
    pub fn job(&self, id: &str) -> Result<Value, Error> {
        Ok(self.jobs.find(id)?.to_json())
    }

    /// Ends a job that waits or runs: devices whose turn has not ended are left as they are.
    ///
    /// # Errors
    /// 404002, 400004 for a job that has ended, 503001 where it could not be stored.
    pub async fn cancel_job(&self, id: &str) -> Result<Value, Error> {
        let job = self.jobs.find(id)?;
        let changing = job.changing.lock().await;
        let (status, started) = {
            let progress = job.progress();
            (progress.status, progress.started)
        };
        if status.is_over() {
            let what = format!("the job `{id}` is {} already", status.as_str());
            return Err(Error::invalid(what).with_fix("nothing is left to be cancelled"));
        }
        let ended = unix_time();
        let text = Some(job.to_document(Status::Cancelled, started, Some(ended)));
        if !self.engine.keep_documents(vec![Document { key: format!("{JOB}{id}"), text }]).await {
            return Err(Error::store_failed());
        }
        {
            let mut progress = job.progress();
            (progress.status, progress.ended) = (Status::Cancelled, Some(ended));
        }
        drop(changing);
        job.cancelled.send_replace(true);
        self.job_ended(&job);
        Ok(job.to_json())
    }

    /// Jobs of a type and a status, those made first first; `None` is any.
    ///
    /// # Errors
    /// 400004 for a token that was not given out for the same question.
    pub fn jobs(
        &self,
        kind: Option<&str>,
        status: Option<&str>,
        continuation: Option<&str>,
        size: usize,
    ) -> Result<Page, Error> {
        let question = format!("jobs {} {}", kind.unwrap_or("*"), status.unwrap_or("*"));
        let cursor = Cursor::of(continuation, &question)?;
        let is = |wanted: Option<&str>, found: &str| {
            wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(found))
        };
        let wanted = |job: &SharedJob| {
            job.order() > cursor.after
                && is(kind, job.work.name())
                && is(status, job.progress().status.as_str())
        };
        let size = size.clamp(1, PAGE_MAX);
        let mut found: Vec<SharedJob> =
            self.jobs.all().into_iter().filter(wanted).take(size.saturating_add(1)).collect();
        let has_more = found.len() > size;
        found.truncate(size);
        let next = found.last().filter(|_| has_more).map(|job| Cursor { after: job.order(), sent: 0 });
        Ok(Page {
            rows: found.iter().map(|job| job.to_json().to_string()).collect(),
            item_type: ItemType::JobResponse,
            continuation: next.map(|next| next.token(&question)),
        })
    }

    /// What jobs did with devices, in the order of jobs and client ids: a page of it.
    pub(crate) async fn job_rows(
        &self,
        filter: Option<&Filter>,
        top: Option<u64>,
        cursor: Cursor,
        size: usize,
    ) -> (Vec<String>, Option<Cursor>) {
        let left = top.map_or(u64::MAX, |top| top.saturating_sub(cursor.sent));
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(size.clamp(1, PAGE_MAX));
        let (mut rows, mut last, mut has_more) = (Vec::new(), cursor.after.clone(), false);
        for job in self.jobs.all() {
            for (place, row) in rows_of(&job, &cursor.after) {
                if filter.is_some_and(|filter| !filter.wants(&JsonRow(&row))) {
                    continue;
                }
                has_more = rows.len() >= most;
                if has_more {
                    break;
                }
                rows.push(row.to_string());
                last = place;
            }
            if has_more {
                break;
            }
            // Others have their turn between two jobs.
            tokio::task::yield_now().await;
        }
        let sent = cursor.sent.saturating_add(rows.len() as u64);
        let next = (has_more && left > rows.len() as u64).then_some(Cursor { after: last, sent });
        (rows, next)
    }

    /// Removes jobs with their rows, first of all the jobs: a row without its job means nothing.
    async fn remove_jobs(&self, jobs: Vec<SharedJob>) -> Result<(), Error> {
        for job in jobs {
            let mut gone = vec![no_job(&job.id)];
            let rows: Vec<String> = job.progress().rows.keys().cloned().collect();
            gone.extend(rows.iter().map(|row| Document { key: row_key(&job, row), text: None }));
            if !self.engine.keep_documents(gone).await {
                return Err(Error::store_failed());
            }
            self.jobs.jobs().remove(&job.id);
        }
        Ok(())
    }
}

/// The rows of a job behind this place, each with its own.
fn rows_of(job: &Job, after: &str) -> Vec<(String, Value)> {
    let progress = job.progress();
    let shown = JobOfRow {
        id: &job.id,
        kind: job.work.name(),
        status: progress.status,
        created: job.created,
        started: progress.started,
        ended: progress.ended,
    };
    let order = job.order();
    let row = |(client_id, row): (&String, &DeviceRow)| {
        let place = format!("{order}/{client_id}");
        let (device_id, module_id) = match client_id.split_once('/') {
            Some((device_id, module_id)) => (device_id, Some(module_id)),
            None => (client_id.as_str(), None),
        };
        let id = ClientId::new(device_id, module_id).ok()?;
        (place.as_str() > after).then(|| (place.clone(), row.to_json(&id, &shown)))
    };
    progress.rows.iter().filter_map(row).collect()
}
