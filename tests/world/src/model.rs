//! What must be true of hub and devices, in maps and lists, without any protocol.
//!
//! It is told what the applications, the back end and the disk see, and says where that cannot be. What it does for one
//! event depends on one device only, so a thousand of them cost no more per step than one.

use std::collections::BTreeMap;

use devicebound::device::Ticket;
use devicebound::hub::{CallId, DeviceRecord, Outcome, Revision, Section, SequenceNumber};
use devicebound::time::UnixTime;
use serde_json::{Map, Value, json};

use super::disk::Name;
use super::wire::Seen;
use super::{Breach, breach};

/// Patches of reported properties change one of so many properties, beside `n`.
const KEYS: u64 = 4;
/// Versions of desired properties that are remembered behind the last safe one.
const HISTORY: usize = 256;

/// The telemetry of one device machine's application.
#[derive(Debug, Default)]
pub(super) struct Sender {
    next: u64,
    /// What the application knows not to be safe yet.
    pub(super) open: BTreeMap<Ticket, u64>,
    /// What was open when the application wrote down its outbox, and is not any more.
    closed_since_saved: BTreeMap<Ticket, u64>,
    durable: Seen,
    /// The application gave it up, with the machine that held it.
    forgotten: Seen,
    /// The hub has had all below, or they were forgotten.
    received: u64,
    next_at_most_once: u64,
    received_at_most_once: u64,
}

impl Sender {
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn submitted(&mut self, ticket: Ticket, number: u64) {
        self.next = self.next.max(number + 1);
        self.open.insert(ticket, number);
    }

    /// The application has written down the outbox.
    pub(super) fn saved(&mut self) {
        self.closed_since_saved.clear();
    }

    /// The machine is gone, and what it held comes back as it was last written down, or not.
    pub(super) fn crashed(&mut self, kept: bool) {
        if kept {
            self.open.append(&mut self.closed_since_saved);
        } else {
            std::mem::take(&mut self.open).values().for_each(|number| self.forgotten.insert(*number));
            self.closed_since_saved.clear();
        }
    }

    /// The machine has given it up.
    pub(super) fn dropped(&mut self, ticket: Ticket) -> Result<(), Breach> {
        let Some(number) = self.open.remove(&ticket) else {
            return breach(format!("{ticket:?} was not open and is dropped"));
        };
        self.closed_since_saved.insert(ticket, number);
        self.forgotten.insert(number);
        Ok(())
    }

    pub(super) fn next_at_most_once(&mut self) -> u64 {
        self.next_at_most_once += 1;
        self.next_at_most_once
    }

    /// The hub has read it. True if it had before.
    pub(super) fn received(&mut self, number: u64) -> Result<bool, Breach> {
        if number >= self.next {
            return breach(format!("telemetry {number} was never sent"));
        }
        if number < self.received {
            return Ok(true);
        }
        if let Some(gap) = (self.received..number).find(|gap| !self.forgotten.contains(*gap)) {
            return breach(format!("telemetry {number} came before {gap}"));
        }
        self.received = number + 1;
        Ok(false)
    }

    pub(super) fn received_at_most_once(&mut self, number: u64) -> Result<(), Breach> {
        if number <= self.received_at_most_once || number > self.next_at_most_once {
            return breach(format!("QoS 0 telemetry {number} came after {}", self.received_at_most_once));
        }
        self.received_at_most_once = number;
        Ok(())
    }

    fn durable(&mut self, number: u64) {
        self.durable.insert(number);
    }

    fn acknowledged(&mut self, ticket: Ticket) -> Result<(), Breach> {
        let Some(number) = self.open.remove(&ticket) else {
            return breach(format!("{ticket:?} was not open and is acknowledged"));
        };
        if !self.durable.contains(number) {
            return breach(format!("telemetry {number} is acknowledged and not safe"));
        }
        self.closed_since_saved.insert(ticket, number);
        Ok(())
    }
}

/// A cloud message that is not done with.
#[derive(Debug)]
struct Cloud {
    sequence: SequenceNumber,
    since: Revision,
    safe: bool,
    /// How many connections it was sent over.
    sent: u32,
    /// How often the hub started again from what was written down when it might just have been sent.
    recovered: u32,
    /// The application is done with it.
    finished: bool,
    /// The hub has its PUBACK; the revision that says so is not safe yet.
    completed: Option<Revision>,
    /// The hub has dropped it; what was on its way then may come later.
    dropped: Option<Revision>,
    expires: UnixTime,
}

#[derive(Debug)]
struct Desired {
    since: Revision,
    document: Map<String, Value>,
}

/// Why the hub has dropped a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Its time was over.
    Expired,
    /// It was delivered in vain too often.
    InVain,
}

/// What the back end and the device's application know of one identity.
#[derive(Debug, Default)]
pub(super) struct Identity {
    cloud: BTreeMap<u64, Cloud>,
    next_cloud: u64,
    done: Seen,
    dropped: Seen,
    /// The back end has heard what became of it, or it never was safe.
    told: Seen,
    desired: BTreeMap<u64, Desired>,
    desired_safe: u64,
    next_desired: u64,
    next_patch: u64,
    /// The newest patch of each property that was acknowledged.
    patched: [u64; KEYS as usize],
    /// The newest patch that was acknowledged, and the version that it made.
    newest: (u64, u64),
}

impl Identity {
    fn new() -> Self {
        let first = Desired { since: Revision::default(), document: Map::new() };
        Self { desired: BTreeMap::from([(1, first)]), desired_safe: 1, ..Self::default() }
    }

    pub(super) const fn next_cloud(&self) -> u64 {
        self.next_cloud
    }

    pub(super) fn enqueued(&mut self, sequence: SequenceNumber, since: Revision, expires: UnixTime) {
        let cloud = Cloud {
            sequence,
            since,
            safe: false,
            sent: 0,
            recovered: 0,
            finished: false,
            completed: None,
            dropped: None,
            expires,
        };
        self.cloud.insert(self.next_cloud, cloud);
        self.next_cloud += 1;
    }

    /// The hub sent it, over at `most` so many connections. True if it had before.
    pub(super) fn cloud_sent(&mut self, number: u64, dup: bool, most: Option<u32>) -> Result<bool, Breach> {
        match self.cloud.get_mut(&number) {
            // It was on its way when its time was over.
            None if self.dropped.contains(number) => Ok(false),
            None if self.done.contains(number) => breach(format!("cloud message {number} was completed")),
            None => breach(format!("there is no cloud message {number}")),
            Some(cloud) if !cloud.safe => breach(format!("cloud message {number} is sent and not safe")),
            Some(cloud) if cloud.completed.is_some() => {
                breach(format!("cloud message {number} is sent again after its PUBACK"))
            }
            Some(cloud) if cloud.sent > 0 && !dup => {
                breach(format!("cloud message {number} is sent again without DUP"))
            }
            Some(cloud) if most.is_some_and(|most| cloud.sent >= most) => {
                breach(format!("cloud message {number} was sent {} times and is again", cloud.sent))
            }
            Some(cloud) if cloud.sent > 0 => {
                cloud.sent += 1;
                Ok(true)
            }
            Some(_) => self.cloud_sent_first(number).map(|()| false),
        }
    }

    /// The hub sent it for the first time: no older one waits for that.
    fn cloud_sent_first(&mut self, number: u64) -> Result<(), Breach> {
        let waits = |cloud: &Cloud| cloud.sent == 0 && cloud.completed.or(cloud.dropped).is_none();
        if let Some((older, _)) = self.cloud.range(..number).find(|(_, cloud)| waits(cloud)) {
            return breach(format!("cloud message {number} overtakes {older}"));
        }
        self.cloud.entry(number).and_modify(|cloud| cloud.sent = 1);
        Ok(())
    }

    /// The application is done with it. True if it was before.
    pub(super) fn finished(&mut self, number: u64) -> bool {
        self.cloud.get_mut(&number).is_none_or(|cloud| std::mem::replace(&mut cloud.finished, true))
    }

    /// The hub has the PUBACK.
    pub(super) fn completed(&mut self, sequence: SequenceNumber, revision: Revision) -> Result<(), Breach> {
        let open = |cloud: &&mut Cloud| cloud.sequence == sequence && cloud.completed.is_none();
        match self.cloud.values_mut().find(open) {
            None => breach(format!("there is no message {} to complete", sequence.0)),
            Some(cloud) if !cloud.finished => {
                breach(format!("message {} is completed, and no application has said so", sequence.0))
            }
            Some(cloud) => {
                cloud.completed = Some(revision);
                Ok(())
            }
        }
    }

    /// The hub has, with this revision, dropped what had expired, or was delivered in vain `most` times; gives why, for each.
    pub(super) fn dropped(
        &mut self,
        record: &DeviceRecord,
        at: Revision,
        wall: UnixTime,
        most: Option<u32>,
    ) -> Result<Vec<Dropped>, Breach> {
        let waiting: Vec<_> = record.waiting().collect();
        let open = |cloud: &Cloud| cloud.completed.or(cloud.dropped).is_none();
        // The last may lie in the output of a connection that has just ended.
        let delivered = |cloud: &Cloud| cloud.sent + cloud.recovered + 1;
        let mut ends = Vec::new();
        for (number, cloud) in
            self.cloud.iter_mut().filter(|(_, cloud)| open(cloud) && !waiting.contains(&cloud.sequence))
        {
            ends.push(match most {
                _ if cloud.expires <= wall => Dropped::Expired,
                Some(most) if delivered(cloud) >= most => Dropped::InVain,
                _ => {
                    return breach(format!(
                        "cloud message {number} is dropped at {wall}, before its time, {}",
                        cloud.expires
                    ));
                }
            });
            cloud.dropped = Some(at);
        }
        Ok(ends)
    }

    /// The back end has, with this revision, emptied the queue.
    pub(super) fn purged(&mut self, at: Revision) {
        for cloud in self.cloud.values_mut().filter(|cloud| cloud.completed.or(cloud.dropped).is_none()) {
            cloud.dropped = Some(at);
        }
    }

    /// The back end hears what became of a message.
    pub(super) fn told(&mut self, number: u64, outcome: Outcome) -> Result<(), Breach> {
        let ended = match outcome {
            Outcome::Success => &self.done,
            _ => &self.dropped,
        };
        if !ended.contains(number) {
            return breach(format!("the back end is told {outcome:?} of cloud message {number}"));
        }
        self.told.insert(number);
        Ok(())
    }

    /// The record is safe up to this revision.
    pub(super) fn safe(&mut self, up_to: Revision) {
        for cloud in self.cloud.values_mut() {
            cloud.safe |= cloud.since <= up_to;
        }
        let done = |_: &u64, cloud: &mut Cloud| {
            cloud.completed.or(cloud.dropped).is_some_and(|revision| revision <= up_to)
        };
        for (number, cloud) in self.cloud.extract_if(.., done) {
            let gone = if cloud.dropped.is_some() { &mut self.dropped } else { &mut self.done };
            gone.insert(number);
        }
        let mut newer = self.desired.range(self.desired_safe..);
        if let Some((version, _)) = newer.rfind(|(_, desired)| desired.since <= up_to) {
            self.desired_safe = *version;
        }
        while self.desired.len() > HISTORY && self.desired.keys().next() < Some(&self.desired_safe) {
            self.desired.pop_first();
        }
    }

    /// The hub starts again from this record.
    pub(super) fn recovered(&mut self, record: &DeviceRecord, wall: UnixTime) -> Result<(), Breach> {
        self.take_out_missing(record, wall)?;
        let known: Vec<_> = self.cloud.values().map(|cloud| cloud.sequence).collect();
        if let Some(back) = record.waiting().find(|sequence| !known.contains(sequence)) {
            return breach(format!("message {} was done with and waits again", back.0));
        }
        for cloud in self.cloud.values_mut() {
            cloud.safe = true;
            cloud.recovered += 1;
            (cloud.completed, cloud.dropped) = (None, None);
        }
        let version = record.twin().desired_version();
        if version < self.desired_safe {
            return breach(format!("desired version {} was safe, now it is {version}", self.desired_safe));
        }
        self.desired.split_off(&(version + 1));
        self.desired_safe = version;
        self.is_desired(version, record.twin().desired())?;
        self.is_reported(record.twin().reported())
    }

    fn take_out_missing(&mut self, record: &DeviceRecord, wall: UnixTime) -> Result<(), Breach> {
        let waiting: Vec<_> = record.waiting().collect();
        let missing = |_: &u64, cloud: &mut Cloud| !waiting.contains(&cloud.sequence);
        for (number, cloud) in self.cloud.extract_if(.., missing) {
            if !cloud.safe {
                self.told.insert(number);
            }
            if cloud.completed.is_some() {
                self.done.insert(number);
            } else if cloud.expires <= wall || cloud.dropped.is_some() {
                self.dropped.insert(number);
            } else if cloud.safe {
                return breach(format!("cloud message {number} is lost"));
            }
        }
        Ok(())
    }

    /// The next patch of desired properties.
    /// The next change of desired properties: two patches, then a document that replaces the section.
    pub(super) fn next_desired(&mut self) -> Section {
        self.next_desired += 1;
        let number = self.next_desired;
        if number.is_multiple_of(3) {
            return Section::Replace(desired_document(number));
        }
        let mut patch = patch(number);
        let gone = format!("a{}", number % 3);
        patch.insert("deep".to_owned(), json!({"n": number, gone: null, "b": {"c": number}}));
        Section::Patch(patch)
    }

    pub(super) fn desired_changed(&mut self, version: u64, since: Revision, change: &Section) {
        let document = match change {
            Section::Replace(document) => document.clone(),
            Section::Patch(patch) => {
                let last = self.desired.values().next_back();
                let mut document = last.map_or_else(Map::new, |last| last.document.clone());
                apply(&mut document, patch);
                document
            }
        };
        self.desired.insert(version, Desired { since, document });
    }

    /// The device's application holds these desired properties.
    pub(super) fn device_has(&self, version: u64, document: &Map<String, Value>) -> Result<(), Breach> {
        if version > self.desired_safe {
            return breach(format!("the device sees desired version {version} before it is safe"));
        }
        self.is_desired(version, document)
    }

    fn is_desired(&self, version: u64, document: &Map<String, Value>) -> Result<(), Breach> {
        match self.desired.get(&version) {
            Some(desired) if desired.document == *document => Ok(()),
            Some(desired) => {
                breach(format!("desired version {version}: {document:?}, not {:?}", desired.document))
            }
            None if self.desired.first_key_value().is_some_and(|(first, _)| version < *first) => Ok(()),
            None => breach(format!("there is no desired version {version}")),
        }
    }

    /// The next patch of reported properties.
    pub(super) fn next_patch(&mut self) -> (u64, Map<String, Value>) {
        self.next_patch += 1;
        (self.next_patch, patch(self.next_patch))
    }

    pub(super) const fn acknowledged_version(&self) -> u64 {
        self.newest.1
    }

    /// The hub has answered a patch.
    pub(super) fn patch_acknowledged(&mut self, number: u64, version: u64) -> Result<(), Breach> {
        let (newest, at) = self.newest;
        if (number > newest) != (version > at) {
            return breach(format!("patch {number} made version {version}, patch {newest} version {at}"));
        }
        self.newest = self.newest.max((number, version));
        let key = &mut self.patched[usize::try_from(number % KEYS).unwrap_or(0)];
        *key = number.max(*key);
        Ok(())
    }

    /// These are reported properties that somebody reads.
    pub(super) fn is_reported(&self, document: &Map<String, Value>) -> Result<(), Breach> {
        let value = |name: &str| document.get(name).and_then(Value::as_u64).unwrap_or(0);
        for (key, acknowledged) in (0..KEYS).zip(self.patched) {
            let value = value(&format!("k{key}"));
            let sound =
                value >= acknowledged && value <= self.next_patch && (value == 0 || value % KEYS == key);
            if !sound {
                return breach(format!("reported k{key} is {value}, patch {acknowledged} was acknowledged"));
            }
        }
        Ok(())
    }

    /// What a quiet world has not come to rest with.
    pub(super) fn unrest(&self) -> Option<String> {
        if let Some(number) = self.cloud.keys().next() {
            return Some(format!("cloud message {number} is not completed"));
        }
        let untold = (0..self.next_cloud).find(|number| !self.told.contains(*number));
        untold.map(|number| format!("nobody was told what became of cloud message {number}"))
    }
}

/// Patch number `n` of a twin.
fn patch(number: u64) -> Map<String, Value> {
    let mut patch = Map::new();
    patch.insert("n".to_owned(), json!(number));
    patch.insert(format!("k{}", number % KEYS), json!(number));
    patch
}

/// A document of desired properties in which some names are missing that others have, on two levels.
fn desired_document(number: u64) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("n".to_owned(), json!(number));
    let (name, inner) = (format!("a{}", number % 2), format!("x{}", number % 5));
    document.insert("deep".to_owned(), json!({name: {inner: number}, "b": {}}));
    document
}

/// What a patch makes of a document, by the letter of the device twin guide.
fn apply(document: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, change) in patch {
        match change {
            Value::Null => drop(document.remove(name)),
            Value::Object(change) => {
                let mut inner = match document.remove(name) {
                    Some(Value::Object(inner)) => inner,
                    _ => Map::new(),
                };
                apply(&mut inner, change);
                document.insert(name.clone(), Value::Object(inner));
            }
            change => drop(document.insert(name.clone(), change.clone())),
        }
    }
}

/// The whole model.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) identities: Vec<Identity>,
    /// By device machine.
    pub(super) senders: Vec<Sender>,
    /// Open calls: whom they are for, and their number.
    pub(super) calls: BTreeMap<CallId, (usize, u64)>,
    pub(super) next_call: u64,
}

impl Model {
    pub(super) fn new(identities: usize) -> Self {
        Self { identities: (0..identities).map(|_| Identity::new()).collect(), ..Self::default() }
    }

    /// Telemetry is safe; that of a guest is of no interest.
    pub(super) fn telemetry_safe(&mut self, name: Name) {
        if let Some(sender) = self.senders.get_mut(name.thing) {
            sender.durable(name.number);
        }
    }

    pub(super) fn telemetry_acknowledged(&mut self, thing: usize, ticket: Ticket) -> Result<(), Breach> {
        self.senders[thing].acknowledged(ticket)
    }
}
