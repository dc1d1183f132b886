//! The hub as the rest of this crate sees it: several [`Worker`]s, each on a thread of its own.
//!
//! A worker owns the machine with the records of its devices, their connections and their calls, and shares nothing of
//! them: which worker it is follows from the device id alone ([`Engine::place_of`]). Other threads send it jobs.
//!
//! ```text
//!  socket ─▶ any worker: TLS, CONNECT ─▶ the device's worker ─▶ block, records ─▶ writer (one thread, one fsync for all)
//!  service API ─────────── job ────────▶        │  ▲                                │
//!                                               ▼  └──────────── stored, committed ─┘
//!                                     live view, operations
//! ```

pub(crate) mod changed;
pub mod core;
pub mod durability;
pub(crate) mod record_scan;
pub(crate) mod signal;
pub(crate) mod storing;
pub mod unsaved;
pub mod worker;
pub mod writer;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, mpsc};

use devicebound::hub::{CallId, Hub, HubConfig, IssueRequest};
use devicebound::time::Instant;
use tokio::sync::{Notify, mpsc as jobs, oneshot};

use crate::Failure;
use crate::clock::{Clock, unix_time};
use crate::engine::changed::ChangedRecords;
use crate::engine::core::{CallOutcome, Core};
use crate::engine::durability::Change;
use crate::engine::worker::{StoreHandle, Worker, WorkerBuilder};
use crate::engine::writer::{Work, Writer};
use crate::observe::metrics::{Gauges, Metrics};
use crate::observe::observers::Observers;
use crate::observe::operations::Operations;
use crate::observe::view::View;
use crate::store::{Document, Ledger, Store, Stored};

/// Something to be done on a worker's thread.
type Act = Box<dyn FnOnce(&Rc<Worker>) + Send>;

/// What a worker is to do.
pub(crate) enum Job {
    /// This.
    Do(Act),
    /// To end, once all that it took is stored.
    End,
}

/// A way to the hub from any thread.
#[derive(Debug)]
pub struct Engine {
    // Unbounded: whoever sends a job waits for what comes of it, so that there are as many as connections at most.
    workers: Vec<jobs::UnboundedSender<Job>>,
    pub(crate) clock: Clock,
    /// Whom the next connection goes to that does not say yet where it belongs.
    next: AtomicUsize,
    /// Connections that are open.
    open: AtomicUsize,
    /// A connection closed.
    closed: Notify,
    /// The live view.
    pub view: View,
    /// What begins, fails and ends.
    pub operations: Operations,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The writer, until the hub ends; `None` with a store that does not outlive the process.
    writer: Mutex<Option<mpsc::Sender<Work>>>,
    /// Who issues certificates to devices, if anybody does and as long as it is there.
    certificate_issuer: OnceLock<Weak<dyn CertificateIssuer>>,
    /// Whether what is stored outlives the process.
    is_durable: bool,
    /// Records that have changed.
    pub(crate) changed: Arc<ChangedRecords>,
}

/// Issues certificates to devices that ask for them over their connection (`$iothub/credentials/POST/issueCertificate`).
pub(crate) trait CertificateIssuer: std::fmt::Debug + Send + Sync {
    /// Answers a request, on the worker that has the device.
    fn renew(&self, core: &mut Core, now: Instant, request: &IssueRequest<'_>);
}

/// The parts of a hub that want a thread each.
#[derive(Debug)]
pub struct Parts {
    /// The workers.
    pub workers: Vec<WorkerBuilder>,
    /// The writer, where writing takes its time.
    pub writer: Option<Writer>,
}

impl Engine {
    /// A hub with the records of a store, over so many workers; at least one, and no more where it has a tier.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn start(
        config: HubConfig,
        mut store: Box<dyn Store>,
        view: View,
        workers: usize,
    ) -> Result<(Arc<Self>, Parts), Failure> {
        // The rates and the quota of a tier are for the hub as a whole: two workers would count twice.
        let workers = if config.tier.is_some() { 1 } else { workers };
        let clock = Clock::start();
        let hubs = place(config, store.load()?, clock, workers.max(1))?;
        let (senders, receivers): (Vec<_>, Vec<_>) = hubs.iter().map(|_| jobs::unbounded_channel()).unzip();
        let engine = Arc::new(Self {
            workers: senders,
            clock,
            next: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            closed: Notify::new(),
            view,
            operations: Operations::default(),
            metrics: Arc::new(Metrics::new(workers.max(1))),
            writer: Mutex::default(),
            certificate_issuer: OnceLock::new(),
            is_durable: store.is_durable(),
            changed: Arc::default(),
        });
        let (store, writer) = if store.is_durable() {
            let (hand_over, handed_over) = mpsc::channel();
            *engine.writer() = Some(hand_over.clone());
            (StoreHandle::Thread(hand_over), Some(Writer::new(Arc::clone(&engine), store, handed_over)))
        } else {
            (StoreHandle::Inline(Arc::new(Mutex::new(store))), None)
        };
        let seed =
            |(index, (hub, jobs))| WorkerBuilder::new(index, Arc::clone(&engine), hub, jobs, store.clone());
        let workers = hubs.into_iter().zip(receivers).enumerate().map(seed).collect();
        Ok((engine, Parts { workers, writer }))
    }

    /// All that look at this hub.
    pub(crate) fn observers(&self) -> Observers<'_> {
        Observers { view: &self.view, operations: &self.operations, metrics: &self.metrics }
    }

    // --- the service's side ---

    /// Does something where the record of this client id lives: device id, for a module device id, slash, module id. A
    /// device's modules live where it does.
    pub async fn at<R: Send + 'static>(
        &self,
        client_id: &str,
        act: impl FnOnce(&mut Core, Instant) -> R + Send + 'static,
    ) -> R {
        let device_id = client_id.split_once('/').map_or(client_id, |(device_id, _)| device_id);
        self.ask(self.place_of(device_id), act).await
    }

    /// Does something in every place where records live, and gives what came of each. No two places have the same device.
    pub async fn everywhere<R: Send + 'static>(
        &self,
        act: impl Fn(&mut Core, Instant) -> R + Clone + Send + 'static,
    ) -> Vec<R> {
        let asked: Vec<_> = (0..self.workers.len()).map(|place| self.ask(place, act.clone())).collect();
        let mut results = Vec::with_capacity(asked.len());
        for asked in asked {
            results.push(asked.await);
        }
        results
    }

    /// Has devices' requests for certificates answered by this service.
    pub(crate) fn set_certificate_issuer(&self, issuer: Weak<dyn CertificateIssuer>) {
        // There is one at most, which is set before anybody connects.
        let _ = self.certificate_issuer.set(issuer);
    }

    /// Who answers them.
    pub(crate) fn certificate_issuer(&self) -> Option<Arc<dyn CertificateIssuer>> {
        self.certificate_issuer.get()?.upgrade()
    }

    /// Makes documents durable; false if that failed.
    pub async fn keep_documents(&self, documents: Vec<Document>) -> bool {
        let (told, is_safe) = oneshot::channel();
        match &*self.writer() {
            // The writer takes what it is given before the hub ends.
            Some(writer) => drop(writer.send(Work::Documents(documents, told))),
            None => return !self.is_durable,
        }
        is_safe.await.unwrap_or(false)
    }

    fn writer(&self) -> MutexGuard<'_, Option<mpsc::Sender<Work>>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change of what is kept of this client id durable before it is answered for; false if that failed.
    pub async fn durable(&self, client_id: &str, change: Change) -> bool {
        self.at(client_id, |core, _| core.commit_durably([change])).await.await
    }

    /// Waits until what there is of this client id is safe, that there is nothing included; false if the store cannot say.
    pub async fn settled(&self, client_id: &str) -> bool {
        let id = client_id.to_owned();
        let Some(safe) = self.at(client_id, move |core, _| core.when_settled(&id)).await else { return true };
        if safe.await {
            return true;
        }
        // What failed was taken back, unless the store could not say.
        let id = client_id.to_owned();
        self.at(client_id, move |core, _| core.is_settled(&id)).await
    }

    /// Brings to the store what nobody waits for: whoever reads telemetry from now on sees all that was acknowledged before.
    pub async fn bring_telemetry(&self) {
        for place in 0..self.workers.len() {
            self.send(place, |worker| worker.hand_over_what_nobody_waits_for());
        }
        self.everywhere(|_, _| ()).await;
    }

    /// Enlists whoever waits for the outcome of a call; in the same closure as the call was made.
    pub fn expect_outcome(core: &mut Core, call: CallId) -> oneshot::Receiver<CallOutcome> {
        core.expect_outcome(call)
    }

    /// Does something in one place.
    pub(crate) fn ask<R: Send + 'static, A: FnOnce(&mut Core, Instant) -> R + Send + 'static>(
        &self,
        place: usize,
        act: A,
    ) -> impl Future<Output = R> + use<R, A> {
        let (answer, answered) = oneshot::channel();
        // Whoever asked may have hung up.
        self.send(place, move |worker| drop(answer.send(worker.with(act))));
        async {
            match answered.await {
                Ok(answer) => answer,
                // The hub has ended, and whoever still asks ends with it.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// What can only be looked up.
    pub async fn gauges(&self) -> Gauges {
        let of_workers = self.everywhere(|core, _| (core.hub.device_count(), core.backlog_bytes())).await;
        let sum = |part: fn(&(usize, usize)) -> usize| of_workers.iter().map(part).sum::<usize>() as u64;
        Gauges {
            connections: self.open.load(Ordering::Relaxed) as u64,
            records: sum(|(records, _)| *records),
            backlog_bytes: sum(|(_, bytes)| *bytes),
            ..Gauges::default()
        }
    }

    // --- workers ---

    /// Which worker has the records of a device and of its modules.
    #[must_use]
    pub fn place_of(&self, device_id: &str) -> usize {
        place_of(device_id, self.workers.len())
    }

    /// A worker for a connection that has not said yet whose it is: each in turn.
    pub(crate) fn any_place(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len()
    }

    /// So many workers there are.
    pub(crate) const fn places(&self) -> usize {
        self.workers.len()
    }

    /// Has a worker do something; nothing happens when it has ended.
    pub(crate) fn send(&self, place: usize, act: impl FnOnce(&Rc<Worker>) + Send + 'static) {
        if let Some(worker) = self.workers.get(place) {
            let _ = worker.send(Job::Do(Box::new(act)));
        }
    }

    // --- the end ---

    /// Ends every connection and takes no new ones.
    pub fn stop(&self) {
        for place in 0..self.workers.len() {
            self.send(place, |worker| worker.stop());
        }
    }

    /// Waits until there is no connection any more.
    pub async fn all_closed(&self) {
        // The workers have heard of the stop once they have answered.
        self.everywhere(|_, _| ()).await;
        loop {
            let mut closed = std::pin::pin!(self.closed.notified());
            // Enlisted before looking, so that one that closes in between is not missed.
            closed.as_mut().enable();
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            closed.await;
        }
    }

    /// The workers end, and the writer behind them, after what they have taken.
    pub fn end(&self) {
        *self.writer() = None;
        for worker in &self.workers {
            // One that has ended needs not be told.
            let _ = worker.send(Job::End);
        }
    }

    pub(crate) fn link_opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn link_closed(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.closed.notify_waiters();
        }
    }
}

fn place_of(device_id: &str, places: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    device_id.hash(&mut hasher);
    // The remainder is less than `places`, which is a usize.
    usize::try_from(hasher.finish() % places as u64).unwrap_or_default()
}

/// Each record into the machine of its place.
fn place(
    mut config: HubConfig,
    records: Vec<Stored>,
    clock: Clock,
    places: usize,
) -> Result<Vec<(Hub, Ledger)>, Failure> {
    config.limits.links = config.limits.links.div_ceil(places);
    let hub = || (Hub::new(config.clone(), clock.now(), unix_time()), Ledger::default());
    let mut hubs: Vec<_> = std::iter::repeat_with(hub).take(places).collect();
    for stored in records {
        let place = place_of(stored.record.identity.identity().device_id(), places);
        let Some((hub, ledger)) = hubs.get_mut(place) else { continue };
        ledger.holds(&stored);
        hub.insert(stored.record).map_err(|twice| {
            Failure::new(
                format!("the identity `{}` is stored twice", twice.identity.client_id()),
                "restore the store from a backup",
            )
        })?;
    }
    Ok(hubs)
}
