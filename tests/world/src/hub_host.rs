//! A hub with its driver, without sockets: bytes in, bytes out, time by hand, a store that is immediate or held back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use devicebound::Rule;
use devicebound::hub::{
    Action, CallFailure, CallId, Commit, Comparison, DeviceKey, DeviceRecord, Event, Expired, HubConfig,
    LinkId, Progress, Receipt, Telemetry, TlsClient, Wait, Warning,
};
use devicebound::time::{Instant, UnixTime};
use devicebound::{Close, CloseReason, Hub};

use crate::canary::Canary;

/// The wall clock at the start of every test.
pub const START: UnixTime = UnixTime::from_secs(1_700_000_000);

/// Telemetry as a back end would read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The client id of the sender.
    pub client_id: String,
    /// All properties, decoded.
    pub properties: Vec<(String, Option<String>)>,
    /// The body.
    pub payload: Vec<u8>,
}

/// What became of a method call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// The device answered.
    Answered {
        /// The device's status.
        status: i32,
        /// The device's body.
        payload: Vec<u8>,
    },
    /// It did not.
    Failed(CallFailure),
}

/// When the store says that something is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreMode {
    /// At once.
    Immediate,
    /// Only when [`HubHost::release_store`] is called, or whoever called [`HubHost::take_writes`] says so.
    Held,
}

/// What a store that is [`StoreMode::Held`] was given.
#[derive(Debug, Default)]
pub struct Writes {
    /// Telemetry, in order.
    pub telemetry: Vec<Stored>,
    /// What to say `stored` with, for each of these; `None` where nobody waits for that.
    pub receipts: Vec<Option<Receipt>>,
    /// Records that changed, in order.
    pub commits: Vec<Commit>,
}

/// One connection, seen from the hub's socket.
#[derive(Debug, Default)]
struct Line {
    rx: Vec<u8>,
    tx: Vec<u8>,
    eof: bool,
    /// The peer does not take output.
    stalled: bool,
    /// The machine refuses to read.
    refuses: bool,
    closed: Option<Close>,
}

/// A hub and everything that a driver keeps for it.
#[derive(Debug)]
pub struct HubHost {
    /// The machine.
    pub hub: Hub,
    /// Monotonic time.
    pub now: Instant,
    /// All telemetry that was stored, in order.
    pub telemetry: Vec<Stored>,
    /// Results of calls.
    pub calls: BTreeMap<CallId, CallResult>,
    /// Ends of connections, in order.
    pub closes: Vec<Close>,
    /// What came and what it was compared with, of each CONNECT that was refused.
    pub comparisons: Vec<Comparison>,
    /// What the hub warned of.
    pub warnings: Vec<Warning>,
    /// Whether the store is immediate.
    pub store: StoreMode,
    /// The rule that this driver breaks, to see whether the World notices.
    pub canary: Option<Canary>,
    config: HubConfig,
    /// One moment on both clocks; the wall clock is counted from it, so that no part of a millisecond is lost.
    clock: (Instant, UnixTime),
    lines: BTreeMap<LinkId, Line>,
    touched: BTreeSet<LinkId>,
    held_receipts: Vec<Option<Receipt>>,
    held_commits: Vec<Commit>,
}

impl HubHost {
    /// A hub without devices.
    #[must_use]
    pub fn new(config: HubConfig) -> Self {
        let now = Instant::from_secs(1000);
        Self {
            hub: Hub::new(config.clone(), now, START),
            now,
            telemetry: Vec::new(),
            calls: BTreeMap::new(),
            closes: Vec::new(),
            comparisons: Vec::new(),
            warnings: Vec::new(),
            store: StoreMode::Immediate,
            canary: None,
            config,
            clock: (now, START),
            lines: BTreeMap::new(),
            touched: BTreeSet::new(),
            held_receipts: Vec::new(),
            held_commits: Vec::new(),
        }
    }

    /// The wall clock.
    #[must_use]
    pub fn unix_time(&self) -> UnixTime {
        self.clock.1.after(self.now.since(self.clock.0))
    }

    /// Registers a record.
    pub fn register(&mut self, record: DeviceRecord) -> DeviceKey {
        self.hub.insert(record).expect("each client id is registered once")
    }

    /// The record of a client id.
    #[must_use]
    pub fn record(&self, client_id: &str) -> &DeviceRecord {
        self.hub.record(self.device(client_id)).expect("found just now")
    }

    /// The key of a client id.
    #[must_use]
    pub fn device(&self, client_id: &str) -> DeviceKey {
        self.hub.find(client_id).expect("the device is registered")
    }

    /// A transport is there.
    pub fn open(&mut self) -> LinkId {
        let link = self.hub.open(self.now).expect("there is room for a link");
        self.lines.insert(link, Line::default());
        link
    }

    /// Bytes from the device.
    pub fn receive(&mut self, link: LinkId, bytes: &[u8]) {
        let line = self.line(link);
        if line.closed.is_none() && !line.eof {
            line.rx.extend_from_slice(bytes);
        }
        self.pump(link);
        self.settle();
    }

    /// Bytes from the device that lie in the socket, while nobody has looked.
    pub fn arrive(&mut self, link: LinkId, bytes: &[u8]) {
        self.line(link).rx.extend_from_slice(bytes);
    }

    /// The device's side of the transport has ended.
    pub fn hang_up(&mut self, link: LinkId) {
        self.line(link).eof = true;
        self.pump(link);
        self.settle();
    }

    /// The device stops, or starts, taking output.
    pub fn stall(&mut self, link: LinkId, stalled: bool) {
        self.line(link).stalled = stalled;
        self.pump(link);
        self.settle();
    }

    /// Whether the machine reads what a link brings.
    #[must_use]
    pub fn reads(&self, link: LinkId) -> bool {
        self.lines.get(&link).is_some_and(|line| !line.refuses && line.closed.is_none())
    }

    /// What the hub has written to a link since the last call.
    pub fn take_output(&mut self, link: LinkId) -> Vec<u8> {
        self.take_some(link, usize::MAX)
    }

    /// At most so many bytes of what the hub has written to a link.
    pub fn take_some(&mut self, link: LinkId, most: usize) -> Vec<u8> {
        let line = self.line(link);
        let most = if line.stalled { 0 } else { most.min(line.tx.len()) };
        let rest = line.tx.split_off(most);
        let output = std::mem::replace(&mut line.tx, rest);
        if !output.is_empty() {
            self.pump(link);
            self.settle();
        }
        output
    }

    /// Links of which something happened since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<LinkId> {
        std::mem::take(&mut self.touched)
    }

    /// What the store was given since the last call.
    pub fn take_writes(&mut self) -> Writes {
        Writes {
            telemetry: std::mem::take(&mut self.telemetry),
            receipts: std::mem::take(&mut self.held_receipts),
            commits: std::mem::take(&mut self.held_commits),
        }
    }

    /// Drops what is left of a link that is closed.
    pub fn forget(&mut self, link: LinkId) {
        self.lines.remove(&link);
    }

    /// Why the hub has closed a link, if it has.
    #[must_use]
    pub fn closed(&self, link: LinkId) -> Option<Close> {
        self.lines.get(&link).and_then(|line| line.closed)
    }

    /// Bytes that wait on the hub's side, in and out.
    #[must_use]
    pub fn buffered(&self, link: LinkId) -> (usize, usize) {
        self.lines.get(&link).map_or((0, 0), |line| (line.rx.len(), line.tx.len()))
    }

    /// Says that everything is safe which the store was given so far.
    pub fn release_store(&mut self) {
        for receipt in std::mem::take(&mut self.held_receipts).into_iter().flatten() {
            self.hub.stored(receipt);
        }
        for commit in std::mem::take(&mut self.held_commits) {
            self.hub.committed(commit.device, commit.revision);
        }
        self.settle();
    }

    /// Makes a change of the service's safe, or holds it back.
    pub fn commit(&mut self, commit: Commit) {
        match self.store {
            StoreMode::Immediate => self.hub.committed(commit.device, commit.revision),
            StoreMode::Held => self.held_commits.push(commit),
        }
        self.settle();
    }

    /// Moves both clocks on, deadline by deadline.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now.after(by);
        while let Some(deadline) = self.hub.poll_timeout()
            && deadline.at <= end
        {
            self.step_clock(deadline.at.max(self.now));
            self.expire();
        }
        self.wake(end);
    }

    /// Moves both clocks to `to`, and does what is due then.
    pub fn wake(&mut self, to: Instant) {
        self.step_clock(to);
        self.expire();
    }

    /// Moves the wall clock alone.
    pub fn step_wall(&mut self, by: Duration) {
        self.set_wall(self.unix_time().after(by));
    }

    /// Sets the wall clock alone, forwards or back.
    pub fn set_wall(&mut self, wall: UnixTime) {
        self.clock = (self.now, wall);
        self.hub.set_clock(self.now, wall);
        self.expire();
    }

    /// Ends all transports and starts a new hub from its records, as text.
    pub fn restart(&mut self) {
        let records: Vec<_> = self.hub.devices().map(|(_, record)| record.clone()).collect();
        self.start_again(&records);
    }

    /// Ends all transports and starts a new hub from these records, as text. What the store was given is forgotten.
    pub fn start_again(&mut self, records: &[DeviceRecord]) {
        let close = Close::new(CloseReason::Lost);
        for line in self.lines.values_mut().filter(|line| line.closed.is_none()) {
            line.closed = Some(close);
        }
        let _ = self.take_writes();
        self.touched.clear();
        self.hub = Hub::new(self.config.clone(), self.now, self.unix_time());
        for record in records {
            self.register(reread(record));
        }
    }

    /// Moves both clocks to `to`; what is due waits for [`wake`](Self::wake).
    pub fn step_clock(&mut self, to: Instant) {
        self.now = to;
    }

    fn expire(&mut self) {
        while let Some(link) = self.poll_expired() {
            self.time_out(link);
        }
        self.settle();
    }

    /// The next link with a deadline that has come: hand it what has [arrived](Self::arrive), then
    /// [`time_out`](Self::time_out). Whatever else is due is done on the way.
    pub fn poll_expired(&mut self) -> Option<LinkId> {
        loop {
            match self.hub.expire(self.now)? {
                Expired::Link(link) => return Some(link),
                Expired::Call(call, failure) => {
                    self.calls.insert(call, CallResult::Failed(failure));
                }
                Expired::Unlocked(commit) | Expired::DeadLettered(commit, _) => self.commit(commit),
            }
        }
    }

    /// The deadline of a link that [`poll_expired`](Self::poll_expired) gave has come.
    pub fn time_out(&mut self, link: LinkId) {
        if self.canary != Some(Canary::TimeOutBeforeReading) {
            self.pump(link);
        }
        let Some(line) = self.lines.get_mut(&link).filter(|line| line.closed.is_none()) else { return };
        if let Err(close) = self.hub.handle(self.now, link, Event::TimedOut, &mut line.tx) {
            self.finish(link, close);
        }
    }

    /// Works off what the machine says is ready, until nothing is.
    pub fn settle(&mut self) {
        if self.canary == Some(Canary::ReadyLinkForgotten) {
            return;
        }
        while let Some(link) = self.hub.poll_ready() {
            self.pump(link);
        }
    }

    fn line(&mut self, link: LinkId) -> &mut Line {
        self.lines.get_mut(&link).expect("the link was opened here")
    }

    /// Hands a link what has arrived, until it waits, then lets it send.
    fn pump(&mut self, link: LinkId) {
        self.touched.insert(link);
        loop {
            let Some(line) = self.lines.get_mut(&link).filter(|line| line.closed.is_none()) else { return };
            let rx = std::mem::take(&mut line.rx);
            let mut rest = rx.as_slice();
            let result = self.pull(link, &mut rest);
            let rest = rest.to_vec();
            self.line(link).rx = rest;
            let wait = match result {
                Ok(wait) => wait,
                Err(close) => return self.finish(link, close),
            };
            let line = self.line(link);
            line.refuses = !matches!(wait, Wait::Read { .. });
            if line.eof && !line.refuses {
                let mut tx = std::mem::take(&mut line.tx);
                let end = self.hub.handle(self.now, link, Event::Closed, &mut tx);
                self.line(link).tx = tx;
                return end.map_or_else(|close| self.finish(link, close), |_| ());
            }
            if !self.transmit(link) {
                return;
            }
        }
    }

    fn pull(&mut self, link: LinkId, rest: &mut &[u8]) -> Result<Wait, Close> {
        loop {
            let mut tx = std::mem::take(&mut self.line(link).tx);
            let action = self.hub.handle(self.now, link, Event::Received(rest), &mut tx);
            self.line(link).tx = tx;
            self.warnings.extend(std::iter::from_fn(|| self.hub.poll_warning()).map(|(_, warning)| warning));
            match action? {
                Action::Authenticate(request) => {
                    match self.hub.authenticate(self.now, link, &request, TlsClient::default()) {
                        Ok(grant) => {
                            if let Some(commit) = self.hub.accept(self.now, link, grant) {
                                self.commit_quietly(commit);
                            }
                        }
                        Err(refusal) => {
                            self.comparisons.extend(refusal.comparison().cloned());
                            let mut tx = std::mem::take(&mut self.line(link).tx);
                            self.hub.refuse(link, &refusal, &mut tx);
                            self.line(link).tx = tx;
                        }
                    }
                }
                Action::Telemetry(message) => self.store(message),
                Action::Commit(commit) => self.commit_quietly(commit),
                Action::Answered(answer) => {
                    let result =
                        CallResult::Answered { status: answer.status, payload: answer.payload.to_vec() };
                    self.calls.insert(answer.call, result);
                }
                Action::Done(_) | Action::TwinRead | Action::TwinRefused(_) | Action::IssueCertificate(_) => {
                }
                Action::Wait(wait) => return Ok(wait),
            }
        }
    }

    fn commit_quietly(&mut self, commit: Commit) {
        match self.store {
            StoreMode::Immediate => self.hub.committed(commit.device, commit.revision),
            StoreMode::Held => self.held_commits.push(commit),
        }
    }

    fn store(&mut self, message: Telemetry<'_>) {
        let record = self.hub.record(message.device).expect("telemetry comes from a registered device");
        let text = |text: std::borrow::Cow<'_, str>| text.into_owned();
        self.telemetry.push(Stored {
            client_id: record.identity.client_id().to_owned(),
            properties: message.properties().map(|(name, value)| (text(name), value.map(text))).collect(),
            payload: message.payload.to_vec(),
        });
        match self.store {
            StoreMode::Held => self.held_receipts.push(message.receipt),
            StoreMode::Immediate => message.receipt.into_iter().for_each(|receipt| self.hub.stored(receipt)),
        }
    }

    /// Lets the link send; true if it is worth to pull again.
    fn transmit(&mut self, link: LinkId) -> bool {
        loop {
            let mut tx = std::mem::take(&mut self.line(link).tx);
            let before = tx.len();
            let progress = self.hub.poll_transmit(self.now, link, &mut tx);
            let grown = tx.len() > before;
            self.line(link).tx = tx;
            match progress {
                Ok(Progress::Commit(commit)) => self.commit_quietly(commit),
                Ok(Progress::Idle) => return grown,
                Ok(Progress::More) => return false,
                Err(close) => {
                    self.finish(link, close);
                    return false;
                }
            }
        }
    }

    fn finish(&mut self, link: LinkId, close: Close) {
        self.touched.insert(link);
        if self.canary == Some(Canary::TakeoverIgnored)
            && close.reason() == CloseReason::Ended(Rule::Takeover)
        {
            return;
        }
        self.line(link).closed = Some(close);
        self.closes.push(close);
        let ended = self.hub.close(self.now, link, close.reason());
        if let Some(will) = ended.as_ref().and_then(devicebound::hub::Ended::will) {
            self.store(will);
        }
    }
}

/// The record after it was written to a store and read back.
///
/// # Panics
/// When the hub does not read what it wrote.
#[must_use]
pub fn reread(record: &DeviceRecord) -> DeviceRecord {
    let entries: Vec<String> = record.waiting().filter_map(|sequence| record.to_entry(sequence)).collect();
    DeviceRecord::from_parts(record.to_head().as_bytes(), entries.iter().map(String::as_bytes))
        .expect("what a hub writes, a hub reads")
}
