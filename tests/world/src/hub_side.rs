//! The hub's sockets, its deadlines and its disk.

use std::ops::Range;

use devicebound::explain::{Sender as Side, explain};
use devicebound::hub::{Change, LinkId};
use devicebound::iothub::Identity;
use devicebound::limits::PACKET_MAX;
use devicebound::packet::{Decoded, Packet, decode};
use devicebound::time::Instant;
use devicebound::{Close, CloseReason, Rule};
use serde_json::Map;

use super::application::{call_payload, parse_cloud, parse_name, status_of};
use super::disk::Name;
use super::model::Dropped;
use super::thing::Thing;
use super::wire::Fact;
use super::{Arrival, Breach, Canary, Connection, KnockKind, Wake, World, breach};
use crate::hub_host::{CallResult, Stored};

/// Telemetry that the model knows nothing of.
const NO_NAME: Name = Name { thing: usize::MAX, number: 0 };
/// Nothing that is sent in this world is longer.
const LARGEST: usize = 1024;

impl World<'_> {
    pub(super) fn hub_reads(&mut self, number: u64) -> Result<(), Breach> {
        if self.hub_paused_until > self.now {
            self.schedule(Some(self.hub_paused_until), Wake::Up(number));
            return Ok(());
        }
        let Some((link, arrival)) = self.take_arrival(number) else { return Ok(()) };
        self.hub.step_clock(self.now);
        let is_last =
            self.connections.get(&number).is_some_and(|connection| connection.up.is_at_end(self.now));
        match arrival {
            Arrival::Bytes(_) if is_last && self.canary == Some(Canary::ClosedBeforeReading) => {
                self.hub.hang_up(link);
            }
            Arrival::Bytes(bytes) => self.hub.receive(link, &bytes),
            Arrival::End => self.hub.hang_up(link),
        }
        self.after_hub()?;
        self.has_room_again(number)
    }

    /// A device whose write was short goes on with it.
    fn has_room_again(&mut self, number: u64) -> Result<(), Breach> {
        let Some(thing) = self.connections.get(&number).map(|connection| connection.thing) else {
            return Ok(());
        };
        let Thing { connection, tx, paused_until, .. } = &self.things[thing];
        if *connection == Some(number) && !tx.is_empty() && *paused_until <= self.now {
            self.after_thing(thing)?;
        }
        Ok(())
    }

    /// What the hub's socket has, if the hub reads it.
    pub(super) fn take_arrival(&mut self, number: u64) -> Option<(LinkId, Arrival)> {
        let most = self.draw_read();
        let connection = self.connections.get_mut(&number)?;
        let link = connection.link.filter(|link| self.hub.reads(*link))?;
        let arrival = connection.up.read(self.now, most);
        let arrived = connection.up.arrived();
        while connection.ends.pop_front_if(|end| *end <= arrived).is_some() {
            connection.heard_at = self.now;
        }
        let next = connection.up.next_arrival();
        self.schedule(next, Wake::Up(number));
        Some((link, arrival?))
    }

    pub(super) fn draw_read(&mut self) -> usize {
        if !self.entropy.one_in(self.options.split) {
            return usize::MAX;
        }
        self.marks.mark("fault: read split");
        self.entropy.between(1, 40) as usize
    }

    /// The hub's deadlines. What has arrived meanwhile lies in the sockets' buffers, and is read before a link is judged.
    pub(super) fn wake_hub(&mut self) -> Result<(), Breach> {
        if let Some(at) = self.hub_back_at {
            if at > self.now {
                self.schedule(Some(at), Wake::Hub);
                return Ok(());
            }
            self.hub_back_at = None;
        }
        if self.hub_paused_until > self.now {
            self.schedule(Some(self.hub_paused_until), Wake::Hub);
            return Ok(());
        }
        self.hub.step_clock(self.now);
        self.work_off_deadlines();
        // A connection that ended by that may have been the last that a message had, which is due at once.
        self.work_off_deadlines();
        self.marks.mark("rule: deadlines lie ahead");
        let deadline = self.hub.hub.poll_timeout();
        if let Some(deadline) = deadline.filter(|deadline| deadline.at <= self.now) {
            return breach(format!("the hub's deadline {deadline:?} is not in the future"));
        }
        self.after_hub()
    }

    fn work_off_deadlines(&mut self) {
        while let Some(link) = self.hub.poll_expired() {
            if let Some(&number) = self.links.get(&link) {
                self.read_into_buffer(number);
            }
            self.hub.time_out(link);
        }
        self.hub.settle();
    }

    pub(super) fn read_into_buffer(&mut self, number: u64) {
        let Some(connection) = self.connections.get(&number) else { return };
        let due = connection.up.next_arrival().is_some_and(|at| at <= self.now);
        let bytes = connection.up.on_the_way() > 0;
        if !due || !bytes {
            return;
        }
        if let Some((link, Arrival::Bytes(bytes))) = self.take_arrival(number) {
            self.hub.arrive(link, &bytes);
        }
    }

    /// The hub machine was called: what it wants done is done.
    pub(super) fn after_hub(&mut self) -> Result<(), Breach> {
        let mut accepted = Vec::new();
        loop {
            self.take_writes()?;
            let touched = self.hub.take_touched();
            if touched.is_empty() {
                break;
            }
            // What a link still has was written before what its successor has.
            let mut in_order: Vec<_> = touched.into_iter().collect();
            in_order.sort_by_key(|link| (self.hub.closed(*link).is_none(), self.links.get(link)));
            for link in in_order {
                self.send_to_device(link, &mut accepted)?;
            }
        }
        for (call, result) in std::mem::take(&mut self.hub.calls) {
            let Some((identity, number)) = self.model.calls.remove(&call) else {
                return breach(format!("{call:?} was not open and has the result {result:?}"));
            };
            match result {
                CallResult::Answered { status: 429, payload } if payload == b"null" => {
                    self.marks.mark("app: method refused, too many are open");
                }
                CallResult::Answered { status, payload } if self.logics.contains_key(&identity) => {
                    self.own_answers.push((identity, status, payload));
                    self.marks.mark("app: method answered");
                }
                CallResult::Answered { status, payload } => {
                    let wanted = call_payload(identity, number);
                    if payload != wanted.as_bytes() || i64::from(status) != status_of(number) {
                        let payload = String::from_utf8_lossy(&payload).into_owned();
                        return breach(format!("call {wanted} is answered with {status}, {payload}"));
                    }
                    self.marks.mark("app: method answered");
                }
                CallResult::Failed(_) => self.marks.mark("hub: call failed"),
            }
        }
        for number in accepted {
            self.is_the_only_one(number)?;
        }
        self.take_feedback()?;
        self.start_disk();
        let next = self.hub.hub.poll_timeout().map(|deadline| deadline.at);
        self.schedule(next, Wake::Hub);
        Ok(())
    }

    /// The back end hears what became of its messages.
    fn take_feedback(&mut self) -> Result<(), Breach> {
        while let Some(device) = self.hub.hub.poll_feedback() {
            let Some(&identity) = self.identities.get(&device) else {
                return breach(format!("{device:?} belongs to nobody and has feedback"));
            };
            let feedback: Vec<_> = self.hub.hub.feedback(device).collect();
            for feedback in &feedback {
                let (whose, message) = parse_cloud(&feedback.original_message_id)?;
                if whose != identity {
                    return breach(format!("dev{identity} has feedback for dev{whose}"));
                }
                self.model.identities[identity].told(message, feedback.outcome)?;
                self.marks.mark("hub: feedback told");
            }
            if let Some(commit) = self.hub.hub.take_feedback(device, feedback.len()) {
                self.hub.commit(commit);
            }
        }
        self.take_writes()
    }

    pub(super) fn is_the_only_one(&mut self, number: u64) -> Result<(), Breach> {
        let Some(connection) = self.connections.get(&number) else { return Ok(()) };
        let thing = connection.thing;
        let identity = self.things[thing].identity;
        self.note(thing, KnockKind::Accepted);
        let previous = self.live[identity].replace(number);
        let previous = previous.filter(|previous| *previous != number);
        let is_open = |number: &u64| self.connections.get(number).is_some_and(|other| other.link.is_some());
        if previous.is_some() {
            self.marks.mark("rule: one live connection");
        }
        if previous.as_ref().is_some_and(is_open) {
            return breach(format!("dev{identity} has two live connections"));
        }
        Ok(())
    }

    pub(super) fn take_writes(&mut self) -> Result<(), Breach> {
        let writes = self.hub.take_writes();
        for (stored, receipt) in writes.telemetry.iter().zip(writes.receipts) {
            let name = self.telemetry_received(stored, receipt.is_some())?;
            if let Some(receipt) = receipt {
                self.disk.append(receipt, name);
                if self.canary == Some(Canary::StoredBeforeSynced) {
                    self.hub.hub.stored(receipt);
                    self.hub.settle();
                }
            }
        }
        for commit in writes.commits {
            let Some(&identity) = self.identities.get(&commit.device) else {
                return breach(format!("{:?} belongs to nobody", commit.device));
            };
            self.disk.change(identity);
            match commit.change {
                Change::Completed(sequence) => {
                    self.model.identities[identity].completed(sequence, commit.revision)?;
                    self.marks.mark("rule: completed after PUBACK");
                }
                Change::Reported => {
                    let record = self.hub.hub.record(commit.device);
                    let reported = record.map(|record| record.twin().reported());
                    self.model.identities[identity].is_reported(reported.unwrap_or(&Map::new()))?;
                }
                Change::DeadLettered => {
                    let wall = self.hub.unix_time();
                    let (revision, most) = (commit.revision, self.options.deliveries());
                    let Some(record) = self.hub.hub.record(commit.device) else { continue };
                    for end in self.model.identities[identity].dropped(record, revision, wall, most)? {
                        self.marks.mark(match end {
                            Dropped::Expired => "hub: cloud message expired",
                            Dropped::InVain => "hub: cloud message delivered in vain too often",
                        });
                    }
                }
                Change::Identity
                | Change::Session
                | Change::Enqueued(_)
                | Change::Locked(_)
                | Change::Feedback
                | Change::Desired => {}
            }
            if self.canary == Some(Canary::CommittedBeforeSynced) {
                self.hub.hub.committed(commit.device, commit.revision);
                self.hub.settle();
            }
        }
        Ok(())
    }

    /// Telemetry reached the hub, and somebody waits for its acknowledgement or not. Gives its name.
    pub(super) fn telemetry_received(&mut self, stored: &Stored, waits: bool) -> Result<Name, Breach> {
        let text = String::from_utf8_lossy(&stored.payload).into_owned();
        if stored.client_id == self.options.client_id(self.guests_identity()) {
            return Ok(NO_NAME);
        }
        let Some((kind, name)) = parse_name(&text) else { return self.own_telemetry_received(stored, &text) };
        let thing = self.things.get(name.thing);
        if thing.is_none_or(|thing| self.options.client_id(thing.identity) != stored.client_id) {
            return breach(format!("{text} comes from {}", stored.client_id));
        }
        let sender = &mut self.model.senders[name.thing];
        if waits != (kind == 't') {
            return breach(format!("{text}: a receipt is for QoS 1, and for nothing else"));
        }
        match kind {
            't' => {
                if sender.received(name.number)? {
                    self.marks.mark("wire: telemetry received twice");
                }
            }
            'q' => sender.received_at_most_once(name.number)?,
            _ => self.marks.mark("hub: will sent"),
        }
        Ok(name)
    }

    fn own_telemetry_received(&mut self, stored: &Stored, text: &str) -> Result<Name, Breach> {
        let own = self
            .logics
            .keys()
            .find(|device| self.options.client_id(self.things[**device].identity) == stored.client_id);
        match own {
            Some(device) => self.own_telemetry.push((*device, stored.payload.clone())),
            None => return breach(format!("nobody sent {text}")),
        }
        Ok(NO_NAME)
    }

    /// Carries what the hub has written to a link into its pipe, and the link's end.
    pub(super) fn send_to_device(&mut self, link: LinkId, accepted: &mut Vec<u64>) -> Result<(), Breach> {
        let Some(&number) = self.links.get(&link) else { return self.guest_hears(link) };
        let closed = self.hub.closed(link);
        let delay = self.draw(self.options.delay);
        let arrives = self.now.after(delay);
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        let room = if closed.is_some() { usize::MAX } else { connection.down.room() };
        self.is_within_caps(link)?;
        let mut bytes = self.hub.take_some(link, room);
        if bytes.len() == room {
            self.marks.mark("fault: short write");
        }
        self.trace.bytes(self.now, &bytes);
        let lost = self.swallowed(number, &bytes);
        self.hub_wrote(number, &bytes, accepted)?;
        if self.canary == Some(Canary::CrossTalk) && !bytes.is_empty() && self.cross_talk(number, &bytes) {
            return Ok(());
        }
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        if let Some(lost) = lost {
            connection.swallow = false;
            bytes.drain(lost);
            self.marks.mark("fault: PUBACK swallowed");
        }
        if !bytes.is_empty() {
            connection.down.write(&bytes, arrives);
        }
        if let Some(close) = closed {
            connection.down.close(arrives);
            connection.link = None;
            self.links.remove(&link);
            self.hub.forget(link);
            self.hub_closed(number, close)?;
        }
        let Some(connection) = self.connections.get(&number) else { return Ok(()) };
        let (up, down) = (connection.up.next_arrival(), connection.down.next_arrival());
        self.schedule(up, Wake::Up(number));
        self.schedule(down, Wake::Down(number));
        self.drop_if_over(number);
        Ok(())
    }

    /// Where in what the hub has written the PUBACK stands that is to be lost, if it is among it, whole.
    fn swallowed(&self, number: u64, bytes: &[u8]) -> Option<Range<usize>> {
        let connection = self.connections.get(&number)?;
        if !connection.swallow || connection.down_tap.is_inside_a_packet() {
            return None;
        }
        let mut rest = bytes;
        loop {
            let start = bytes.len() - rest.len();
            match decode(&mut rest, PACKET_MAX) {
                Ok(Decoded::Packet(Packet::PubAck(_))) => return Some(start..bytes.len() - rest.len()),
                Ok(Decoded::Packet(_)) => {}
                _ => return None,
            }
        }
    }

    /// What the hub holds for a link is bounded, however little the link takes.
    fn is_within_caps(&mut self, link: LinkId) -> Result<(), Breach> {
        let (_, waiting) = self.hub.buffered(link);
        if waiting >= self.options.high_water {
            self.marks.mark("hub: output full");
        }
        self.marks.mark("rule: caps hold");
        match waiting {
            waiting if waiting <= self.options.high_water + LARGEST => Ok(()),
            waiting => breach(format!("{waiting} bytes wait for {link:?}")),
        }
    }

    /// Reads what the hub wrote, beside the device.
    pub(super) fn hub_wrote(
        &mut self,
        number: u64,
        bytes: &[u8],
        accepted: &mut Vec<u64>,
    ) -> Result<(), Breach> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        let Connection { down_tap, wire, thing, .. } = connection;
        let identity = self.things[*thing].identity;
        let (model, marks, trace, now) =
            (&mut self.model.identities[identity], &mut self.marks, &mut self.trace, self.now);
        let most = self.options.deliveries();
        down_tap.read(bytes, |packet, _| {
            let name = self.options.client_id(identity);
            trace.line(
                now,
                format_args!(
                    "{name} ◀── {}",
                    explain(packet, Side::Hub, Identity::from_client_id(&name).ok())
                ),
            );
            match wire.hub_sent(packet)? {
                Some(Fact::Accepted { session_present }) => {
                    accepted.push(number);
                    marks.mark(match session_present {
                        true => "wire: CONNACK, session resumed",
                        false => "wire: CONNACK, new session",
                    });
                }
                Some(Fact::Cloud { dup }) => {
                    let Packet::Publish(publish) = packet else { return Ok(()) };
                    let (whose, message) = parse_cloud(&String::from_utf8_lossy(publish.payload))?;
                    if whose != identity {
                        return breach(format!("a message for dev{whose} is sent to {name}"));
                    }
                    marks.mark(match model.cloud_sent(message, dup, most)? {
                        true => "wire: cloud message sent again with DUP",
                        false => "rule: cloud messages in order",
                    });
                }
                _ => {}
            }
            Ok(())
        })
    }

    /// Hands bytes to a connection that they are not for; false where there is none.
    pub(super) fn cross_talk(&mut self, number: u64, bytes: &[u8]) -> bool {
        let other = self.connections.iter_mut().find(|(other, connection)| {
            **other != number && connection.device_is_there && connection.wire.accepted
        });
        let Some((&other, connection)) = other else { return false };
        connection.down.write(bytes, self.now);
        self.schedule(Some(self.now), Wake::Down(other));
        true
    }

    /// The hub has ended a connection: may it, for this reason?
    pub(super) fn hub_closed(&mut self, number: u64, close: Close) -> Result<(), Breach> {
        let Some(connection) = self.connections.get(&number) else { return Ok(()) };
        let name = self.options.client_id(self.things[connection.thing].identity);
        let arrived = connection.up.arrived();
        self.trace.line(self.now, format_args!("{name} ─╳─ hub: {:?}", close.reason()));
        let said_disconnect = connection.disconnect.is_some_and(|end| end <= arrived);
        let patience = u64::from(self.options.keep_alive) * 3 / 2;
        match close.reason() {
            CloseReason::Malformed(_) | CloseReason::Violation(_) => {
                return breach(format!("the hub says of {name}: {:?}", close.reason()));
            }
            CloseReason::Lost | CloseReason::TimedOut(_) if said_disconnect => {
                return breach(format!("{name} said DISCONNECT, and the hub says {:?}", close.reason()));
            }
            CloseReason::TimedOut(Rule::KeepAlive)
                if self.now.since(connection.heard_at).as_secs() < patience =>
            {
                return breach(format!("{name} was cut for silence and was not silent"));
            }
            CloseReason::TimedOut(Rule::KeepAlive) => self.marks.mark("close: hub, keep alive"),
            CloseReason::Ended(Rule::Takeover | Rule::TakeoverFight) => {
                self.marks.mark("close: hub, takeover")
            }
            CloseReason::Ended(Rule::DeviceDisabled) => self.marks.mark("close: hub, device disabled"),
            CloseReason::Ended(Rule::InjectedFault) => self.marks.mark("close: hub, fault asked for"),
            CloseReason::Ended(Rule::SasExpired) => self.marks.mark("close: hub, token expired"),
            CloseReason::Ended(Rule::StoreFailed) => self.marks.mark("close: hub, store failed"),
            CloseReason::Disconnected => self.marks.mark("close: hub, disconnected"),
            CloseReason::Lost => self.marks.mark("close: hub, lost"),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn drop_if_over(&mut self, number: u64) {
        let over = |connection: &Connection| !connection.device_is_there && connection.link.is_none();
        if self.connections.get(&number).is_some_and(over) {
            self.connections.remove(&number);
        }
    }

    // --- the disk ---

    pub(super) fn start_disk(&mut self) {
        if self.hub_back_at.is_some() || !self.disk.is_idle() || !self.disk.has_work() {
            return;
        }
        let done = self.now.after(self.draw(self.options.store));
        let (hub, keys) = (&self.hub.hub, &self.keys);
        self.disk
            .write(done, |identity| hub.record(keys[identity]).expect("the world removes no record").clone());
        self.schedule(Some(done), Wake::Disk);
    }

    /// What was being written is safe, if that is so by `now`.
    pub(super) fn disk_is_done(&mut self, now: Instant) -> Result<(), Breach> {
        let Some(batch) = self.disk.sync(now) else { return Ok(()) };
        self.hub.step_clock(self.now);
        for (receipt, name) in batch.telemetry {
            self.model.telemetry_safe(name);
            self.hub.hub.stored(receipt);
        }
        for (identity, record) in batch.records {
            self.model.identities[identity].safe(record.revision());
            self.hub.hub.committed(self.keys[identity], record.revision());
        }
        self.hub.settle();
        self.after_hub()
    }
}
