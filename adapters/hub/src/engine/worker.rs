//! One thread's share of the hub: the connections, the time and the machine of its devices.
//!
//! A worker owns its machine: connections, service calls and timers of its devices all run on its thread, one after the
//! other, and no lock is on the way of a packet. Whatever was done with the machine, `Worker::with` ends it by waking
//! the connections that have become ready and by setting the timer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use devicebound::Rule;
use devicebound::hub::{Action, Event, Full, Hub, LinkId, Progress, Wait};
use devicebound::packet::PacketType;
use devicebound::session::{Close, CloseReason};
use devicebound::time::Instant;
use tokio::sync::{Notify, mpsc as jobs};
use tokio::task::{AbortHandle, spawn_local, yield_now};

use crate::clock::unix_time;
use crate::engine::core::{Core, Moment};
use crate::engine::signal::{Link, Origin, Signal};
use crate::engine::writer::Work;
use crate::engine::{Engine, Job};
use crate::observe::metrics::Counters;
use crate::store::{Ledger, Store};
use crate::transport::buffers::Buffers;
use crate::transport::tls::TlsPeer;

/// Maximum packets of one connection in a turn, before other connections get theirs.
const PACKETS_PER_TURN: usize = 64;
/// How many sockets tokio's runtime asks the system about at a time, by default.
const SOCKETS_PER_LOOK: usize = 1024;

/// Where a worker's changes go.
#[derive(Clone, Debug)]
pub(crate) enum StoreHandle {
    /// To the writer, which makes them safe while the worker goes on.
    Thread(mpsc::Sender<Work>),
    /// Into memory, at once. Shared by the workers, and taken once for all that a turn of one has gathered.
    Inline(Arc<Mutex<Box<dyn Store>>>),
}

/// A worker that was not given its thread yet.
#[derive(Debug)]
pub struct WorkerBuilder {
    index: usize,
    engine: Arc<Engine>,
    hub: Hub,
    ledger: Ledger,
    jobs: jobs::UnboundedReceiver<Job>,
    store: StoreHandle,
}

/// One thread's share of the hub.
#[derive(Debug)]
pub struct Worker {
    pub(super) index: usize,
    pub(crate) engine: Arc<Engine>,
    pub(super) core: RefCell<Core>,
    pub(super) store: StoreHandle,
    pub(super) counters: Arc<Counters>,
    /// The timer is to be set anew.
    pub(super) timer: Notify,
    /// Something was gathered.
    pub(super) work: Notify,
    /// Connections that wait until the writer has caught up.
    pub(super) waiting: RefCell<Vec<Waker>>,
    /// When something was handed over last, and how long the one before took to become safe.
    pub(super) handed_over_at: Cell<Instant>,
    pub(super) last_took: Cell<Duration>,
    /// Tasks that end when the hub stops.
    pub(super) listening: RefCell<Vec<AbortHandle>>,
    pub(crate) buffers: RefCell<Buffers>,
}

/// What a connection is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// All that was there was pulled.
    Wait(Wait),
    /// Others come first; pull again.
    Again,
    /// It is over.
    End(Close),
}

impl WorkerBuilder {
    pub(crate) fn new(
        index: usize,
        engine: Arc<Engine>,
        (hub, ledger): (Hub, Ledger),
        jobs: jobs::UnboundedReceiver<Job>,
        store: StoreHandle,
    ) -> Self {
        Self { index, engine, hub, ledger, jobs, store }
    }

    pub(crate) fn build(self) -> (Rc<Worker>, jobs::UnboundedReceiver<Job>) {
        let Self { index, engine, hub, ledger, jobs, store } = self;
        (Rc::new(Worker::new(index, engine, (hub, ledger), store)), jobs)
    }

    /// Works until the hub ends. For a runtime that takes tasks which stay on their thread.
    pub async fn run(self) {
        let (worker, mut jobs) = self.build();
        let (storing, time) = (Rc::clone(&worker), Rc::clone(&worker));
        let tasks = [
            spawn_local(async move { storing.keep_storing().await }),
            spawn_local(async move { time.keep_time().await }),
        ];
        let mut is_over = false;
        while let Some(job) = jobs.recv().await {
            match job {
                Job::Do(act) => act(&worker),
                Job::End => is_over = true,
            }
            if is_over {
                worker.hand_over();
                if worker.core.borrow().unsaved.is_settled() {
                    break;
                }
            }
        }
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Worker {
    fn new(index: usize, engine: Arc<Engine>, (hub, ledger): (Hub, Ledger), store: StoreHandle) -> Self {
        let counters = engine.metrics.worker(index);
        let at_once = matches!(store, StoreHandle::Inline(_));
        let core = Core::new(hub, ledger, at_once, &engine, Arc::clone(&counters));
        Self {
            index,
            counters,
            engine,
            core: RefCell::new(core),
            store,
            timer: Notify::new(),
            work: Notify::new(),
            waiting: RefCell::default(),
            handed_over_at: Cell::default(),
            last_took: Cell::default(),
            listening: RefCell::default(),
            buffers: RefCell::default(),
        }
    }

    /// Does something with the machine, then what follows from it for connections and for the timer.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Core, Instant) -> R) -> R {
        let core = &mut *self.core.borrow_mut();
        let result = act(core, self.engine.clock.now());
        self.settle(core, None);
        result
    }

    /// The same for the turn of a connection, which need not be woken for what it has just done itself.
    fn turn<R>(&self, link: LinkId, act: impl FnOnce(&mut Core, Instant) -> R) -> R {
        let core = &mut *self.core.borrow_mut();
        let result = act(core, self.engine.clock.now());
        self.settle(core, Some(link));
        result
    }

    fn settle(&self, core: &mut Core, awake: Option<LinkId>) {
        while let Some(link) = core.hub.poll_ready() {
            if Some(link) != awake
                && let Some(signal) = core.links.get(&link)
            {
                signal.call();
            }
        }
        let next = core.hub.poll_timeout().map(|deadline| deadline.at);
        if next.is_some_and(|next| core.alarm.is_none_or(|alarm| next < alarm)) {
            core.alarm = next;
            self.timer.notify_one();
        }
        if core.unsaved.wants_hand_over() && (!core.is_gathering || core.unsaved.is_pressing()) {
            self.work.notify_one();
        }
    }

    /// Starts a task that ends when the hub stops.
    pub(crate) fn listen(&self, task: impl Future<Output = ()> + 'static) {
        self.listening.borrow_mut().push(spawn_local(task).abort_handle());
    }

    /// Whether a device's records are here, or where else.
    pub(crate) fn elsewhere(&self, device_id: &str) -> Option<usize> {
        Some(self.engine.place_of(device_id)).filter(|place| *place != self.index)
    }

    // --- connections ---

    /// A transport has been there since `began`; `tls` is what the handshake told of its client.
    ///
    /// # Errors
    /// [`Full`], and while the hub stops.
    pub(crate) fn open(
        &self,
        began: Instant,
        tls: Option<Box<TlsPeer>>,
        origin: Origin,
    ) -> Result<Link, Full> {
        let signal = Rc::new(Signal::new(origin));
        let id = self.with(|core, _| {
            if core.stopping {
                return Err(Full);
            }
            let id = core.hub.open(began)?;
            core.links.insert(id, Rc::clone(&signal));
            Ok(id)
        })?;
        self.engine.link_opened();
        Ok(Link {
            id,
            signal,
            began,
            tls,
            sender: None,
            claimed: None,
            comparison: None,
            warnings: Vec::new(),
        })
    }

    /// Whether the store is not far behind; if it is, the task is woken when it has caught up.
    pub(crate) fn has_room(&self, cx: &Context<'_>) -> bool {
        let has_room = self.core.borrow().unsaved.has_room();
        if !has_room {
            self.waiting.borrow_mut().push(cx.waker().clone());
        }
        has_room
    }

    /// Pulls what `rx` holds through the machine. `pulled` is told the bytes of each packet, and whether it is a
    /// PUBACK for nothing that was sent.
    pub(crate) fn pull<'i>(
        &self,
        link: &mut Link,
        rx: &mut &'i [u8],
        tx: &mut Vec<u8>,
        mut pulled: impl FnMut(&'i [u8], bool),
    ) -> Turn {
        let before = tx.len();
        let turn = self.turn(link.id, |core, now| {
            let mut moment = Moment::new(now);
            for _ in 0..PACKETS_PER_TURN {
                let before = *rx;
                let action = core.hub.handle(now, link.id, Event::Received(rx), tx);
                let taken = before.len() - rx.len();
                if let Some(packet) = before.get(..taken).filter(|packet| !packet.is_empty()) {
                    core.counters.received(packet);
                    pulled(packet, matches!(action, Ok(Action::Done(PacketType::PubAck))));
                }
                match action {
                    Ok(Action::Wait(wait)) => return Turn::Wait(wait),
                    Ok(action) => core.act(&self.engine, &mut moment, link, action, tx),
                    Err(close) => return Turn::End(close),
                }
            }
            Turn::Again
        });
        self.counters.sent(tx.len() - before);
        self.take_warnings(link);
        turn
    }

    /// What the machine warns of it says in the turn of the connection that it is about.
    fn take_warnings(&self, link: &mut Link) {
        let core = &mut *self.core.borrow_mut();
        while let Some((of, warning)) = core.hub.poll_warning() {
            if of == link.id {
                link.warnings.push(warning);
            }
        }
    }

    /// A deadline came, or the transport ended, and what had arrived was pulled.
    pub(crate) fn tell(&self, link: &mut Link, event: Event<'_, '_>, tx: &mut Vec<u8>) -> Turn {
        self.turn(link.id, |core, now| match core.hub.handle(now, link.id, event, tx) {
            Ok(Action::Wait(wait)) => Turn::Wait(wait),
            Ok(action) => {
                core.act(&self.engine, &mut Moment::new(now), link, action, tx);
                Turn::Again
            }
            Err(close) => Turn::End(close),
        })
    }

    /// Appends to `tx` what waits for the connection; true if there is more once that was written.
    ///
    /// # Errors
    /// The end of the connection.
    pub(crate) fn transmit(&self, link: &Link, tx: &mut Vec<u8>) -> Result<bool, Close> {
        let before = tx.len();
        let result = self.turn(link.id, |core, now| {
            loop {
                match core.hub.poll_transmit(now, link.id, tx)? {
                    Progress::Idle => return Ok(false),
                    Progress::More => return Ok(true),
                    Progress::Commit(commit) => core.commit(commit),
                }
            }
        });
        self.counters.sent(tx.len() - before);
        result
    }

    /// The connection is over: its will, if there is one, becomes telemetry.
    pub(crate) fn close(&self, link: &Link, why: CloseReason) {
        self.with(|core, now| {
            core.links.remove(&link.id);
            let ended = core.hub.close(now, link.id, why);
            if let Some(will) = ended.as_ref().and_then(|ended| ended.will()) {
                core.telemetry(&mut Moment::new(now), link, &will);
            }
        });
        self.engine.link_closed();
    }

    /// Ends every connection and takes no new ones.
    pub(crate) fn stop(&self) {
        self.listening.borrow_mut().drain(..).for_each(|task| task.abort());
        self.with(|core, _| {
            core.stopping = true;
            for signal in core.links.values() {
                signal.end(Rule::HubStopping);
            }
        });
    }

    // --- time ---

    /// Works off deadlines as they come, for ever; and once a second looks whether the wall clock was set.
    async fn keep_time(&self) {
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            let next = self.with(|core, _| core.alarm).map(|alarm| self.engine.clock.until(alarm));
            let alarm = async {
                match next {
                    Some(duration) => tokio::time::sleep(duration).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = alarm => {
                    self.look_around().await;
                    for (device_id, letter) in self.with(Core::expire) {
                        self.engine.observers().dead_lettered(&device_id, &letter);
                    }
                }
                () = self.timer.notified() => {}
                _ = tick.tick() => self.with(|core, now| {
                    core.hub.set_clock(now, unix_time());
                    core.unsaved.ask_again();
                }),
            }
        }
    }

    /// Has every connection take what has arrived, because that counts as in time. After a standstill (SIGSTOP, a machine
    /// that was suspended) deadlines have passed and no socket was looked at yet.
    async fn look_around(&self) {
        let looks = self.core.borrow().links.len() / SOCKETS_PER_LOOK;
        for _ in 0..=looks {
            // The runtime looks at its sockets, and wakes their tasks, before it comes back here.
            yield_now().await;
        }
    }
}
