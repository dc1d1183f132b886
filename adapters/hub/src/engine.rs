//! The one place where what the machine wants becomes what happens.
//!
//! The machine is behind one mutex: its calls are short, and none waits. Whatever was done under the mutex,
//! [`Engine::with`] ends it by waking the connections that have become ready and by setting the timer.
//!
//! | the machine says | the engine does |
//! |---|---|
//! | `Authenticate` | asks the machine for the usual verdict, then `accept` or `refuse` |
//! | `Telemetry`, a will | puts it into the [`Backlog`]; the writer says `stored` |
//! | `Commit` | marks the record in the backlog; the writer says `committed` |
//! | `Answered`, `Expired::Call` | hands the outcome to whoever called the method |
//! | `Expired::Link`, `poll_ready` | wakes the connection's task |

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use devicebound::Rule;
use devicebound::hub::{
    Action, CallFailure, CallId, ClientCertificate, Commit, Event, Expired, Full, Hub, HubConfig, LinkId,
    Progress, Telemetry, Wait,
};
use devicebound::session::{Close, CloseReason};
use devicebound::time::Instant;
use tokio::sync::{Notify, oneshot};

use crate::Failure;
use crate::backlog::{Acknowledgement, Backlog, Change};
use crate::clock::{Clock, unix_time};
use crate::message::{Message, Sender};
use crate::operations::Operations;
use crate::store::Store;
use crate::view::View;
use crate::writer::Writer;

/// So many packets of one connection are dealt with before others get their turn.
const PACKETS_PER_TURN: usize = 64;

/// The hub machine with everything that it moves.
#[derive(Debug)]
pub struct Engine {
    core: Mutex<Core>,
    clock: Clock,
    backlog: Backlog,
    /// The timer is to be set anew.
    timer: Notify,
    /// A connection closed.
    closed: Notify,
    /// The live view.
    pub view: View,
    /// What begins, fails and ends.
    pub operations: Operations,
}

/// What is behind the mutex.
#[derive(Debug)]
pub struct Core {
    /// The machine.
    pub hub: Hub,
    links: HashMap<LinkId, Arc<Signal>>,
    calls: HashMap<CallId, oneshot::Sender<CallOutcome>>,
    /// What the timer is set to.
    alarm: Option<Instant>,
    stopping: bool,
}

/// What came of a call of a method: the device's status and payload, or why there is none.
pub type CallOutcome = Result<(i32, Vec<u8>), CallFailure>;

/// How a connection's task is called.
#[derive(Debug, Default)]
struct Signal {
    wake: Notify,
    timed_out: AtomicBool,
    ended: OnceLock<Rule>,
}

/// A connection's side of the engine.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    signal: Arc<Signal>,
    certificate: Option<ClientCertificate>,
    /// Known from the moment that CONNECT was accepted.
    sender: Option<Arc<Sender>>,
}

/// Why a connection's task was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// There may be something to transmit, or to pull.
    Ready,
    /// A deadline came.
    TimedOut,
    /// The hub ends the connection.
    End(Rule),
}

/// What a connection is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// All that was there was pulled.
    Wait(Wait),
    /// Others come first; pull again.
    Again,
    /// It is over.
    End(Close),
}

impl Engine {
    /// A hub with the records of a store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn start(
        config: HubConfig,
        mut store: Box<dyn Store>,
        view: View,
    ) -> Result<(Arc<Self>, Writer), Failure> {
        let clock = Clock::start();
        let mut hub = Hub::new(config, clock.now(), unix_time());
        for record in store.load()? {
            hub.insert(record).map_err(|twice| {
                Failure::new(
                    format!("the identity `{}` is stored twice", twice.identity.client_id()),
                    "move one of the two files in the state folder's `devices` away",
                )
            })?;
        }
        let core = Core { hub, links: HashMap::new(), calls: HashMap::new(), alarm: None, stopping: false };
        let engine = Arc::new(Self {
            core: Mutex::new(core),
            clock,
            backlog: Backlog::default(),
            timer: Notify::new(),
            closed: Notify::new(),
            view,
            operations: Operations::default(),
        });
        let writer = Writer::new(Arc::clone(&engine), store);
        Ok((engine, writer))
    }

    /// Does something with the machine, then what follows from it for other connections and for the timer.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Core, Instant) -> R) -> R {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut core, self.clock.now());
        while let Some(link) = core.hub.poll_ready() {
            if let Some(signal) = core.links.get(&link) {
                signal.wake.notify_one();
            }
        }
        let next = core.hub.poll_timeout().map(|deadline| deadline.at);
        if next.is_some_and(|next| core.alarm.is_none_or(|alarm| next < alarm)) {
            core.alarm = next;
            self.timer.notify_one();
        }
        result
    }

    /// Does something where the record of this client id lives: device id, for a module device id, slash, module id. A
    /// device's modules live where it does.
    pub async fn at<R: Send + 'static>(
        &self,
        _client_id: &str,
        act: impl FnOnce(&mut Core, Instant) -> R + Send + 'static,
    ) -> R {
        self.with(act)
    }

    /// Does something in every place where records live, and gives what came of each. No two places have the same device.
    pub async fn everywhere<R: Send + 'static>(
        &self,
        act: impl Fn(&mut Core, Instant) -> R + Clone + Send + 'static,
    ) -> Vec<R> {
        vec![self.with(act)]
    }

    /// Makes a change of what is kept of this client id durable before it is answered for; false if that failed.
    pub async fn durable(&self, _client_id: &str, change: Change) -> bool {
        self.backlog.change_durably(change).await.unwrap_or(false)
    }

    // --- connections ---

    /// A transport was accepted; `certificate` is what its client showed.
    ///
    /// # Errors
    /// [`Full`], and while the hub stops.
    pub fn open(&self, certificate: Option<ClientCertificate>) -> Result<Link, Full> {
        let signal = Arc::new(Signal::default());
        let id = self.with(|core, now| {
            if core.stopping {
                return Err(Full);
            }
            let id = core.hub.open(now)?;
            core.links.insert(id, Arc::clone(&signal));
            Ok(id)
        })?;
        Ok(Link { id, signal, certificate, sender: None })
    }

    /// Waits while the store is far behind: a connection calls it before it pulls.
    pub async fn room(&self) {
        self.backlog.room().await;
    }

    /// Pulls what `rx` holds through the machine. `pulled` is told the bytes of each packet.
    pub fn pull<'i>(
        &self,
        link: &mut Link,
        rx: &mut &'i [u8],
        tx: &mut Vec<u8>,
        mut pulled: impl FnMut(&'i [u8]),
    ) -> Turn {
        let mut telemetry = Vec::new();
        let turn = self.with(|core, now| {
            for _ in 0..PACKETS_PER_TURN {
                let before = *rx;
                let action = core.hub.handle(now, link.id, Event::Received(rx), tx);
                let taken = before.len() - rx.len();
                if let Some(packet) = before.get(..taken).filter(|packet| !packet.is_empty()) {
                    pulled(packet);
                }
                match action {
                    Ok(Action::Telemetry(message)) => telemetry.push(message),
                    Ok(Action::Wait(wait)) => return Turn::Wait(wait),
                    Ok(action) => self.act(core, now, link, action, tx),
                    Err(close) => return Turn::End(close),
                }
            }
            Turn::Again
        });
        // Copied outside the mutex: bodies are large, and they borrow the input alone.
        for message in telemetry {
            self.store(link, &message);
        }
        turn
    }

    /// A deadline came, or the transport ended, and what had arrived was pulled.
    pub fn tell(&self, link: &mut Link, event: Event<'_, '_>, tx: &mut Vec<u8>) -> Turn {
        self.with(|core, now| match core.hub.handle(now, link.id, event, tx) {
            Ok(Action::Wait(wait)) => Turn::Wait(wait),
            Ok(action) => {
                self.act(core, now, link, action, tx);
                Turn::Again
            }
            Err(close) => Turn::End(close),
        })
    }

    fn act(&self, core: &mut Core, now: Instant, link: &mut Link, action: Action<'_>, tx: &mut Vec<u8>) {
        match action {
            Action::Authenticate(request) => {
                match core.hub.authenticate(now, &request, link.certificate.as_ref()) {
                    Ok(grant) => {
                        let commit = core.hub.accept(now, link.id, grant);
                        link.sender =
                            core.hub.record(grant.device).map(|record| Arc::new(Sender::of(record)));
                        commit.into_iter().for_each(|commit| self.commit(commit));
                    }
                    Err(refusal) => core.hub.refuse(link.id, refusal, tx),
                }
            }
            Action::Commit(commit) => self.commit(commit),
            Action::Answered(answer) => {
                if let Some(caller) = core.calls.remove(&answer.call) {
                    // Whoever called may have hung up.
                    let _ = caller.send(Ok((answer.status, answer.payload.to_vec())));
                }
            }
            Action::Telemetry(_) | Action::Done(_) | Action::Wait(_) => {}
        }
    }

    fn commit(&self, commit: Commit) {
        self.backlog.change(Change::Record(commit.device));
    }

    fn store(&self, link: &Link, telemetry: &Telemetry<'_>) {
        // Only a connection that was accepted sends telemetry.
        let Some(sender) = &link.sender else { return };
        let message = Message::new(telemetry, Arc::clone(sender), unix_time());
        let acknowledgement = match telemetry.receipt {
            Some(receipt) => Acknowledgement::Owed(link.id, receipt),
            None => Acknowledgement::None,
        };
        self.backlog.telemetry(message, acknowledgement);
    }

    /// Appends to `tx` what waits for the connection; true if there is more once that was written.
    ///
    /// # Errors
    /// The end of the connection.
    pub fn transmit(&self, link: &Link, tx: &mut Vec<u8>) -> Result<bool, Close> {
        self.with(|core, now| {
            loop {
                match core.hub.poll_transmit(now, link.id, tx)? {
                    Progress::Idle => return Ok(false),
                    Progress::More => return Ok(true),
                    Progress::Commit(commit) => self.commit(commit),
                }
            }
        })
    }

    /// The connection is over: its will, if there is one, becomes telemetry.
    pub fn close(&self, link: &Link, why: CloseReason) {
        let ended = self.with(|core, now| {
            core.links.remove(&link.id);
            core.hub.close(now, link.id, why)
        });
        if let Some(will) = ended.as_ref().and_then(|ended| ended.will()) {
            self.store(link, &will);
        }
        self.closed.notify_waiters();
    }

    /// Ends every connection and takes no new ones.
    pub fn stop(&self) {
        self.with(|core, _| {
            core.stopping = true;
            for signal in core.links.values() {
                signal.end(Rule::HubStopping);
            }
        });
    }

    /// What these connections sent could not be stored: they end, and their devices send again.
    pub fn fail(&self, links: impl Iterator<Item = LinkId>) {
        self.with(|core, _| {
            for signal in links.filter_map(|link| core.links.get(&link)) {
                signal.end(Rule::StoreFailed);
            }
        });
    }

    /// Waits until there is no connection any more.
    pub async fn all_closed(&self) {
        loop {
            let mut closed = std::pin::pin!(self.closed.notified());
            // Enlisted before looking, so that one that closes in between is not missed.
            closed.as_mut().enable();
            if self.with(|core, _| core.links.is_empty()) {
                return;
            }
            closed.await;
        }
    }

    /// What waits for the store.
    #[must_use]
    pub const fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    // --- the service's side ---

    /// Enlists whoever waits for the outcome of a call; under the same lock as the call was made.
    pub fn expect_outcome(core: &mut Core, call: CallId) -> oneshot::Receiver<CallOutcome> {
        let (caller, outcome) = oneshot::channel();
        core.calls.insert(call, caller);
        outcome
    }

    // --- time ---

    /// Works off deadlines as they come, for ever; and once a second looks whether the wall clock was set.
    pub async fn keep_time(&self) {
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            let next = self.with(|core, _| core.alarm).map(|alarm| self.clock.until(alarm));
            let alarm = async {
                match next {
                    Some(duration) => tokio::time::sleep(duration).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = alarm => self.expire(),
                () = self.timer.notified() => {}
                _ = tick.tick() => self.with(|core, now| core.hub.set_clock(now, unix_time())),
            }
        }
    }

    fn expire(&self) {
        self.with(|core, now| {
            core.alarm = None;
            while let Some(expired) = core.hub.expire(now) {
                match expired {
                    Expired::Link(link) => {
                        if let Some(signal) = core.links.get(&link) {
                            signal.timed_out.store(true, Ordering::Relaxed);
                            signal.wake.notify_one();
                        }
                    }
                    Expired::Call(call, failure) => {
                        if let Some(caller) = core.calls.remove(&call) {
                            // Whoever called may have hung up.
                            let _ = caller.send(Err(failure));
                        }
                    }
                    Expired::DeadLettered(commit) => self.commit(commit),
                }
            }
        });
    }
}

impl Signal {
    fn end(&self, rule: Rule) {
        // The first reason counts.
        let _ = self.ended.set(rule);
        self.wake.notify_one();
    }
}

impl Link {
    /// The client id, once CONNECT was accepted.
    #[must_use]
    pub fn client_id(&self) -> Option<String> {
        self.sender.as_ref().map(|sender| sender.client_id())
    }

    /// Waits until the machine, the timer or the hub has something for this connection. Cancel-safe.
    pub async fn called(&self) -> Call {
        self.signal.wake.notified().await;
        if let Some(rule) = self.signal.ended.get() {
            return Call::End(*rule);
        }
        if self.signal.timed_out.swap(false, Ordering::Relaxed) { Call::TimedOut } else { Call::Ready }
    }
}
