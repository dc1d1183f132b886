//! How a job is carried out.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use devicebound::time::UnixTime;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;

use super::job::{Job, SharedJob, Work};
use super::row::{DeviceRow, End, Outcome};
use super::status::Status;
use super::{JOB, row_key};
use crate::backend::twins::{Manner, if_match, update_of};
use crate::backend::{Backend, ClientId, Error};
use crate::clock::unix_time;
use crate::observe::observers::EndedJob;
use crate::store::Document;

/// Devices that one job deals with at the same time (own limit): one fsync stands for what comes of them.
const DEVICES_AT_ONCE: usize = 100;
/// Rows that are written at once when a job starts.
const ROWS_AT_ONCE: usize = 10_000;
/// The wall clock may be set while a job waits for its time: it is looked at so often.
const LOOK: Duration = Duration::from_secs(30);
/// A store that failed is asked again after this time.
const RETRY: Duration = Duration::from_secs(1);

impl Backend {
    /// Goes on with the jobs that the store had. To be called once.
    pub(in crate::backend) fn resume_jobs(self: &Arc<Self>) {
        for job in self.jobs.all() {
            let is_over = job.progress().status.is_over();
            if !is_over {
                self.start_job(job);
            }
        }
    }

    /// Has a job run when its time has come.
    pub(super) fn start_job(self: &Arc<Self>, job: SharedJob) {
        let own = Arc::clone(self);
        tokio::spawn(async move {
            let mut cancelled = job.cancelled.subscribe();
            tokio::select! {
                () = own.run_job(&job) => {}
                _ = cancelled.wait_for(|is_cancelled| *is_cancelled) => {}
            }
        });
    }

    async fn run_job(&self, job: &Job) {
        while let Some(left) = left_until(job.start) {
            tokio::time::sleep(left.min(LOOK)).await;
        }
        let Ok(_place) = self.jobs.places.acquire().await else { return };
        let started = job.progress().started;
        let started = match started {
            Some(started) => started,
            None => self.choose_devices(job).await,
        };
        let pending: Vec<String> = {
            let progress = job.progress();
            progress.rows.iter().filter(|(_, row)| row.end.is_none()).map(|(id, _)| id.clone()).collect()
        };
        let each = stream::iter(pending)
            .for_each_concurrent(DEVICES_AT_ONCE, |client_id| self.do_with_device(job, client_id));
        let left = left_until(started.after(job.time)).unwrap_or_default();
        // What has no end when time is over has failed, which its row tells from the status of the job.
        let _ = tokio::time::timeout(left, each).await;
        self.complete_job(job, started).await;
    }

    /// Chooses the devices of a job that starts now; gives the time.
    async fn choose_devices(&self, job: &Job) -> UnixTime {
        let (target, applications) = (job.target.clone(), Arc::clone(&self.applications));
        let chosen = self.engine.look_through("", Vec::new(), move |chosen, seen| {
            if target.wants(seen, &applications) {
                chosen.push(seen.record.identity.client_id().to_owned());
            }
            ControlFlow::Continue(())
        });
        let mut chosen: Vec<String> = chosen.await.into_iter().flatten().collect();
        chosen.sort();
        // A hub that ended while it chose has left rows of devices that are not chosen any more.
        let left_behind: Vec<String> = std::mem::take(&mut job.progress().rows).into_keys().collect();
        let gone = left_behind.into_iter().filter(|id| chosen.binary_search(id).is_err());
        let gone = gone.map(|id| Document { key: row_key(job, &id), text: None });
        let empty = DeviceRow::default().to_document();
        let added = chosen.iter().map(|id| Document { key: row_key(job, id), text: Some(empty.clone()) });
        let documents: Vec<Document> = gone.chain(added).collect();
        for part in documents.chunks(ROWS_AT_ONCE) {
            self.keep_at_last(part.to_vec()).await;
        }
        let started = unix_time();
        let _changing = job.changing.lock().await;
        let is_over = job.progress().status.is_over();
        if is_over {
            return started;
        }
        let text = Some(job.to_document(Status::Running, Some(started), None));
        self.keep_at_last(vec![Document { key: format!("{JOB}{}", job.id), text }]).await;
        let mut progress = job.progress();
        progress.rows = chosen.into_iter().map(|id| (id, DeviceRow::default())).collect();
        (progress.status, progress.started) = (Status::Running, Some(started));
        started
    }

    async fn do_with_device(&self, job: &Job, client_id: String) {
        if let Some(row) = job.progress().rows.get_mut(&client_id) {
            row.started = Some(unix_time());
        }
        let outcome = self.outcome(job, &client_id).await.unwrap_or_else(|error| Outcome::Failed {
            code: error.code().name().to_owned(),
            description: error.to_string(),
        });
        self.engine.metrics.job_device_ended(matches!(outcome, Outcome::Failed { .. }));
        let mut row = job.progress().rows.get(&client_id).cloned().unwrap_or_default();
        row.end = Some(End { at: unix_time(), outcome });
        let document = Document { key: row_key(job, &client_id), text: Some(row.to_document()) };
        self.keep_at_last(vec![document]).await;
        job.progress().rows.insert(client_id, row);
    }

    async fn outcome(&self, job: &Job, client_id: &str) -> Result<Outcome, Error> {
        let (device_id, module_id) = match client_id.split_once('/') {
            Some((device_id, module_id)) => (device_id, Some(module_id)),
            None => (client_id, None),
        };
        let id = ClientId::new(device_id, module_id)?;
        match &job.work {
            Work::UpdateTwin(update) => {
                let etag = update.get("etag").and_then(Value::as_str).and_then(if_match);
                self.update_twin(&id, update_of(update, Manner::Merge, etag)?).await?;
                Ok(Outcome::Changed)
            }
            Work::CallMethod(request) => {
                let result = self.invoke(&id, request.clone()).await?;
                Ok(Outcome::Answered { status: result.status, payload: result.to_json() })
            }
        }
    }

    async fn complete_job(&self, job: &Job, started: UnixTime) {
        let changing = job.changing.lock().await;
        let is_over = job.progress().status.is_over();
        if is_over {
            return;
        }
        let ended = unix_time();
        let text = Some(job.to_document(Status::Completed, Some(started), Some(ended)));
        self.keep_at_last(vec![Document { key: format!("{JOB}{}", job.id), text }]).await;
        {
            let mut progress = job.progress();
            (progress.status, progress.ended) = (Status::Completed, Some(ended));
        }
        drop(changing);
        self.job_ended(job);
    }

    /// Tells that a job is over.
    pub(super) fn job_ended(&self, job: &Job) {
        let shown = job.to_json();
        let count =
            |name: &str| shown.pointer(&format!("/deviceJobStatistics/{name}")).and_then(Value::as_u64);
        self.engine.observers().job_ended(&EndedJob {
            id: &job.id,
            kind: job.work.name(),
            status: job.progress().status.as_str(),
            devices: count("deviceCount").unwrap_or_default(),
            failed: count("failedCount").unwrap_or_default(),
        });
    }

    /// Keeps documents, however often that has to be tried: what nobody waits for with an answer may take its time.
    async fn keep_at_last(&self, documents: Vec<Document>) {
        while !self.engine.keep_documents(documents.clone()).await {
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn left_until(time: UnixTime) -> Option<Duration> {
    Some(time.since(unix_time())).filter(|left| !left.is_zero())
}
