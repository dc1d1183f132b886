//! The machine of a worker, and the one place where an action of the machine becomes an effect.
//!
//! | the machine says | what is done |
//! |---|---|
//! | `Authenticate` | asks the machine for the usual verdict, then `accept` or `refuse` |
//! | `Telemetry`, a will | encodes it into the block of its unsaved; says `stored` when the writer has it safe |
//! | `Commit` | marks the record in the unsaved; says `committed` when the writer has it safe |
//! | `Answered`, `Expired::Call` | hands the outcome to the caller of the method |
//! | `IssueCertificate` | asks the provisioning service, if there is one |
//! | `Expired::Link` | wakes the connection's task |
//!
//! A store that does not outlive the process has nothing to wait for: with it both are said at once. It is given the
//! telemetry alone, as the machine has the records.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use devicebound::hub;
use devicebound::hub::{
    Action, CallFailure, CallId, Commit, ConnectRequest, DeadLetter, DeviceKey, DeviceRecord, Expired, Hub,
    LinkId, Telemetry,
};
use devicebound::iothub::Username;
use devicebound::limits::ID_MAX;
use devicebound::packet::Connect;
use devicebound::time::{Instant, UnixTime};
use tokio::sync::oneshot;

use crate::clock::unix_time;
use crate::engine::Engine;
use crate::engine::changed::ChangedRecords;
use crate::engine::durability::{Change, Safe};
use crate::engine::signal::{Introduction, Link, Signal};
use crate::engine::unsaved::Unsaved;
use crate::observe::metrics::{self, Counters};
use crate::store::Ledger;
use crate::telemetry::sender::Sender;
use crate::transport::tls::TlsPeer;

/// What came of a call of a method: the device's status and payload, or why there is none.
pub type CallOutcome = Result<(i32, Vec<u8>), CallFailure>;

/// Why a worker should get no new devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// The hub is stopping.
    Stopping,
    /// The store failed a moment ago, and nothing was stored since.
    StoreFailed,
    /// So much telemetry waits for the store that devices are not read from.
    StoreSlow,
}

/// For this long a failure of the store counts, if nothing is stored meanwhile. Afterwards devices may try again: a hub that
/// gets none would never learn that its store has recovered.
const STORE_FAILURE_COUNTS: Duration = Duration::from_secs(30);

/// What a worker's devices are.
#[derive(Debug)]
pub struct Core {
    /// The machine.
    pub hub: Hub,
    pub(super) links: HashMap<LinkId, Rc<Signal>>,
    pub(super) calls: HashMap<CallId, oneshot::Sender<CallOutcome>>,
    pub(super) unsaved: Unsaved,
    /// What the timer is set to.
    pub(super) alarm: Option<Instant>,
    pub(super) stopping: bool,
    /// When the store failed, unless something was stored since.
    pub(super) store_failed: Option<Instant>,
    /// Nothing is waited for: see the module.
    pub(super) at_once: bool,
    /// What nobody waits for is not handed over yet.
    pub(super) is_gathering: bool,
    pub(super) counters: Arc<Counters>,
    /// Told of records that change while somebody acts on it.
    changed: Arc<ChangedRecords>,
}

/// When a turn takes place. The wall clock is read at the first message of a turn, and holds for all of them.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    wall: Option<UnixTime>,
}

impl Moment {
    pub(super) const fn new(now: Instant) -> Self {
        Self { now, wall: None }
    }

    fn wall(&mut self) -> UnixTime {
        *self.wall.get_or_insert_with(unix_time)
    }
}

/// As much of what a stranger calls itself as an id may have.
fn cut(text: &str) -> &str {
    text.char_indices().nth(ID_MAX).map_or(text, |(end, _)| text.get(..end).unwrap_or_default())
}

/// What the user name of a CONNECT says besides the identity.
fn introduction(connect: &Connect<'_>) -> Option<Introduction> {
    let username = connect.credentials?.username;
    let username = Username::parse(username.as_str(), connect.client_id.as_str()).ok()?;
    let text = |text: Option<Cow<'_, str>>| text.map(|text| cut(&text).into());
    Some(Introduction {
        sdk_version: text(username.client_type()),
        api_version: text(username.api_version()),
    })
}

impl Core {
    /// The machine of a worker, to which nothing has happened yet.
    pub(super) fn new(
        hub: Hub,
        ledger: Ledger,
        at_once: bool,
        engine: &Engine,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            hub,
            links: HashMap::new(),
            calls: HashMap::new(),
            unsaved: Unsaved::of(ledger),
            alarm: None,
            stopping: false,
            store_failed: None,
            at_once,
            is_gathering: false,
            counters,
            changed: Arc::clone(&engine.changed),
        }
    }

    /// Does what the machine wants in the turn of a connection, and tells the observers.
    pub(super) fn act(
        &mut self,
        engine: &Engine,
        moment: &mut Moment,
        link: &mut Link,
        action: Action<'_>,
        tx: &mut Vec<u8>,
    ) {
        // By far the most frequent, and nothing to tell of one by one.
        if let Action::Telemetry(message) = action {
            return self.telemetry(moment, link, &message);
        }
        if let Some(sender) = &link.sender {
            engine.observers().acted(sender, &action);
        }
        let now = moment.now;
        match action {
            Action::Authenticate(request) => self.authenticate(now, link, &request, tx),
            Action::Commit(commit) => {
                match commit.change {
                    hub::Change::Reported => self.counters.did(metrics::Message::Reported),
                    hub::Change::Completed(_) => self.counters.did(metrics::Message::Completed),
                    _ => {}
                }
                self.commit(commit);
            }
            Action::Answered(answer) => {
                self.counters.did(metrics::Message::Answered);
                if let Some(caller) = self.calls.remove(&answer.call) {
                    // The caller may have hung up.
                    let _ = caller.send(Ok((answer.status, answer.payload.to_vec())));
                }
            }
            Action::IssueCertificate(request) => {
                if let Some(issuer) = engine.certificate_issuer() {
                    issuer.renew(self, now, &request);
                }
            }
            Action::TwinRead
            | Action::TwinRefused(_)
            | Action::Telemetry(_)
            | Action::Done(_)
            | Action::Wait(_) => {}
        }
    }

    /// Judges a CONNECT.
    fn authenticate(
        &mut self,
        now: Instant,
        link: &mut Link,
        request: &ConnectRequest<'_>,
        tx: &mut Vec<u8>,
    ) {
        link.signal.introduce(introduction(&request.connect));
        let client = link.tls.as_deref().map(TlsPeer::client).unwrap_or_default();
        match self.hub.authenticate(now, link.id, request, client) {
            Ok(grant) => {
                let commit = self.hub.accept(now, link.id, grant);
                link.tls = None;
                let sender = |record| Box::new(Sender::of_connection(record, grant.credential));
                link.sender = self.hub.record(grant.device).map(sender);
                commit.into_iter().for_each(|commit| self.commit(commit));
            }
            Err(refusal) => {
                link.claimed = Some(cut(request.connect.client_id.as_str()).into());
                link.comparison = refusal.comparison().cloned();
                self.hub.refuse(link.id, &refusal, tx);
            }
        }
    }

    /// Makes a change durable that the machine has made; the machine itself holds back what waits for it.
    pub(super) fn commit(&mut self, commit: Commit) {
        self.tell_changed(&Change::Record(commit.device));
        if self.at_once {
            self.hub.committed(commit.device, commit.revision);
        } else {
            self.unsaved.change(commit.into());
        }
    }

    /// Keeps a message, and owes the device its PUBACK until it is safe.
    pub(super) fn telemetry(&mut self, moment: &mut Moment, link: &Link, telemetry: &Telemetry<'_>) {
        // Only a connection that was accepted sends telemetry.
        let Some(sender) = &link.sender else { return };
        self.counters.did(metrics::Message::Telemetry);
        self.unsaved.telemetry(telemetry, sender, moment.wall());
        match telemetry.receipt {
            Some(receipt) if self.at_once => self.hub.stored(receipt),
            Some(receipt) => self.unsaved.owe(moment.now, link.id, receipt),
            None => {}
        }
    }

    /// Why this worker should get no new devices; `None` where it should.
    pub(crate) fn unready(&self, now: Instant) -> Option<Unready> {
        let is_recent = |failed| now.since(failed) < STORE_FAILURE_COUNTS;
        if self.stopping {
            Some(Unready::Stopping)
        } else if self.store_failed.is_some_and(is_recent) {
            Some(Unready::StoreFailed)
        } else if !self.unsaved.has_room() {
            Some(Unready::StoreSlow)
        } else {
            None
        }
    }

    /// The connection's side of a link.
    pub(crate) fn signal(&self, link: LinkId) -> Option<&Signal> {
        self.links.get(&link).map(Rc::as_ref)
    }

    /// Bytes of telemetry that wait for the store.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.unsaved.bytes()
    }

    /// Registers a record.
    ///
    /// # Errors
    /// The record comes back when there is one with its client id already.
    #[expect(clippy::result_large_err, reason = "the record was moved in, so it is moved out again")]
    pub(crate) fn register(&mut self, record: DeviceRecord) -> Result<(DeviceKey, Change), DeviceRecord> {
        self.hub.register(record).map(|device| (device, Change::Record(device)))
    }

    /// Takes a record away and cuts its connection.
    pub(crate) fn remove(&mut self, device: DeviceKey) -> Option<Change> {
        let record = self.hub.remove(device)?;
        Some(Change::Removal(record.identity.client_id().to_owned()))
    }

    fn tell_changed(&self, change: &Change) {
        if self.changed.is_watched() {
            let id = match change {
                Change::Record(device) => {
                    self.hub.record(*device).map(|record| record.identity.client_id().to_owned())
                }
                Change::Removal(client_id) => Some(client_id.clone()),
            };
            self.changed.mark(id);
        }
    }

    /// Makes changes durable.
    pub(crate) fn commit_durably(&mut self, changes: impl IntoIterator<Item = impl Into<Change>>) -> Safe {
        for change in changes {
            let change = change.into();
            self.tell_changed(&change);
            match change {
                Change::Record(device) if self.at_once => {
                    if let Some(revision) = self.hub.record(device).map(DeviceRecord::revision) {
                        self.hub.committed(device, revision);
                    }
                }
                Change::Removal(_) if self.at_once => {}
                change => self.unsaved.change(change),
            }
        }
        self.unsaved.when_safe()
    }

    /// Whether the record of this client id is safe as it is, or safely gone.
    pub(crate) fn is_settled(&self, client_id: &str) -> bool {
        match self.hub.find(client_id) {
            Some(device) => self.hub.is_safe(device),
            None => !self.unsaved.is_removing(client_id),
        }
    }

    /// If it is not: it tells whether all that was gathered so far has become safe.
    pub(crate) fn when_settled(&mut self, client_id: &str) -> Option<Safe> {
        (!self.is_settled(client_id)).then(|| self.unsaved.when_safe())
    }

    /// Stores a message that came over HTTP.
    pub(crate) fn telemetry_durably(
        &mut self,
        telemetry: &Telemetry<'_>,
        sender: &Sender,
        enqueued: UnixTime,
    ) -> Safe {
        self.unsaved.telemetry(telemetry, sender, enqueued);
        self.unsaved.when_safe()
    }

    pub(crate) fn expect_outcome(&mut self, call: CallId) -> oneshot::Receiver<CallOutcome> {
        let (caller, outcome) = oneshot::channel();
        self.calls.insert(call, caller);
        outcome
    }

    /// Nobody waits for the outcome of a call any more.
    pub(crate) fn cancel(&mut self, call: CallId) {
        self.calls.remove(&call);
        self.hub.cancel(call);
    }

    /// Works off what is due; gives the messages that nobody gets any more, each with its device.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(String, DeadLetter)> {
        self.alarm = None;
        let mut dead = Vec::new();
        while let Some(expired) = self.hub.expire(now) {
            match expired {
                Expired::Link(link) => {
                    if let Some(signal) = self.links.get(&link) {
                        signal.time_out();
                    }
                }
                Expired::Call(call, failure) => {
                    if let Some(caller) = self.calls.remove(&call) {
                        // The caller may have hung up.
                        let _ = caller.send(Err(failure));
                    }
                }
                Expired::Unlocked(commit) => self.commit(commit),
                Expired::DeadLettered(commit, letter) => {
                    let record = self.hub.record(commit.device);
                    dead.extend(record.map(|record| (record.identity.client_id().to_owned(), letter)));
                    self.commit(commit);
                }
            }
        }
        dead
    }
}
