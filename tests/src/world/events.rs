//! What happens by itself: bytes arrive, deadlines come, the disk is done.

use std::collections::VecDeque;
use std::time::Duration;

use devicebound::Rule;
use devicebound::device::{Event, RequestFailure};
use devicebound::explain::{Sender as Side, explain};
use devicebound::hub::{Change, LinkId, Revision};
use devicebound::iothub::Identity;
use devicebound::packet::Packet;
use devicebound::time::Instant;
use devicebound::{Close, CloseReason};
use serde_json::{Map, Value};

use super::disk::Name;
use super::thing::{Request, Thing, Todo, client_id};
use super::wire::Fact;
use super::{Arrival, Breach, Canary, Connection, Pipe, Tap, Wake, Wire, World, breach};
use crate::hub_host::{CallResult, Stored};
use crate::station::Heard;

/// Events of one instant, above which something turns in a circle.
const EVENTS_AT_ONCE: u32 = 1_000_000;

impl World<'_> {
    /// Lets everything happen that is due until `end`.
    pub(super) fn run_until(&mut self, end: Instant) -> Result<(), Breach> {
        let mut events = 0_u32;
        while let Some((at, wake)) = self.queue.first().copied().filter(|(at, _)| *at <= end) {
            self.queue.pop_first();
            events = if at > self.now { 0 } else { events + 1 };
            if events > EVENTS_AT_ONCE {
                return breach(format!("time stands still: {EVENTS_AT_ONCE} events, the last for {wake:?}"));
            }
            self.now = at;
            match wake {
                Wake::Up(connection) => self.hub_reads(connection)?,
                Wake::Down(connection) => self.device_reads(connection)?,
                Wake::Disk => self.disk_is_done(self.now)?,
                Wake::Thing(thing) => self.wake_thing(thing)?,
                Wake::Hub => self.wake_hub()?,
            }
        }
        self.now = end;
        Ok(())
    }

    // --- the hub's side ---

    fn hub_reads(&mut self, number: u64) -> Result<(), Breach> {
        if self.hub_paused_until > self.now {
            self.schedule(Some(self.hub_paused_until), Wake::Up(number));
            return Ok(());
        }
        let Some((link, arrival)) = self.take_arrival(number) else { return Ok(()) };
        self.hub.step_clock(self.now);
        match arrival {
            Arrival::Bytes(bytes) => self.hub.receive(link, &bytes),
            Arrival::End => self.hub.hang_up(link),
        }
        self.after_hub()
    }

    /// What the hub's socket has, if the hub reads it.
    fn take_arrival(&mut self, number: u64) -> Option<(LinkId, Arrival)> {
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

    fn draw_read(&mut self) -> usize {
        if !self.entropy.one_in(self.options.split) {
            return usize::MAX;
        }
        self.marks.mark("fault: read split");
        self.entropy.between(1, 40) as usize
    }

    /// The hub's deadlines. What has arrived meanwhile lies in the sockets' buffers.
    fn wake_hub(&mut self) -> Result<(), Breach> {
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
        let numbers: Vec<_> = if self.hub.hub.poll_timeout().is_some_and(|deadline| deadline.at <= self.now) {
            self.links.values().copied().collect()
        } else {
            Vec::new()
        };
        for number in numbers {
            self.read_into_buffer(number);
        }
        self.hub.wake(self.now);
        let deadline = self.hub.hub.poll_timeout();
        if let Some(deadline) = deadline.filter(|deadline| deadline.at <= self.now) {
            return breach(format!("the hub's deadline {deadline:?} is not in the future"));
        }
        self.after_hub()
    }

    fn read_into_buffer(&mut self, number: u64) {
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
            // What an ended link still has was written before what its successor has.
            let (ended, open): (Vec<_>, Vec<_>) =
                touched.into_iter().partition(|link| self.hub.closed(*link).is_some());
            for link in ended.into_iter().chain(open) {
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
        self.start_disk();
        let next = self.hub.hub.poll_timeout().map(|deadline| deadline.at);
        self.schedule(next, Wake::Hub);
        Ok(())
    }

    fn is_the_only_one(&mut self, number: u64) -> Result<(), Breach> {
        let Some(connection) = self.connections.get(&number) else { return Ok(()) };
        let identity = self.things[connection.thing].identity;
        let previous = self.live[identity].replace(number);
        let previous = previous.filter(|previous| *previous != number);
        let is_open = |number: &u64| self.connections.get(number).is_some_and(|other| other.link.is_some());
        if previous.as_ref().is_some_and(is_open) {
            return breach(format!("dev{identity} has two live connections"));
        }
        Ok(())
    }

    fn take_writes(&mut self) -> Result<(), Breach> {
        let writes = self.hub.take_writes();
        let mut receipts = writes.receipts.into_iter();
        for stored in writes.telemetry {
            if let Some(name) = self.telemetry_received(&stored)? {
                let Some(receipt) = receipts.next() else {
                    return breach("QoS 1 telemetry comes with a receipt");
                };
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
                }
                Change::Reported => {
                    let record = self.hub.hub.record(commit.device);
                    let reported = record.map(|record| record.twin().reported());
                    self.model.identities[identity].is_reported(reported.unwrap_or(&Map::new()))?;
                }
                Change::DeadLettered => {
                    let wall = self.hub.unix_time();
                    let Some(record) = self.hub.hub.record(commit.device) else { continue };
                    let count = self.model.identities[identity].expired(record, commit.revision, wall)?;
                    (0..count).for_each(|_| self.marks.mark("hub: cloud message expired"));
                }
                Change::Identity | Change::Session | Change::Enqueued(_) | Change::Desired => {}
            }
            if self.canary == Some(Canary::CommittedBeforeSynced) {
                self.hub.hub.committed(commit.device, commit.revision);
                self.hub.settle();
            }
        }
        Ok(())
    }

    /// Telemetry reached the hub. Gives its name, if it was sent at QoS 1.
    fn telemetry_received(&mut self, stored: &Stored) -> Result<Option<Name>, Breach> {
        let text = String::from_utf8_lossy(&stored.payload).into_owned();
        let Some((kind, name)) = parse_name(&text) else { return breach(format!("nobody sent {text}")) };
        let thing = self.things.get(name.thing);
        if thing.is_none_or(|thing| client_id(thing.identity) != stored.client_id) {
            return breach(format!("{text} comes from {}", stored.client_id));
        }
        let sender = &mut self.model.senders[name.thing];
        match kind {
            't' => {
                if sender.received(name.number)? {
                    self.marks.mark("wire: telemetry received twice");
                }
                Ok(Some(name))
            }
            'q' => sender.received_at_most_once(name.number).map(|()| None),
            _ => {
                self.marks.mark("hub: will sent");
                Ok(None)
            }
        }
    }

    /// Carries what the hub has written to a link into its pipe, and the link's end.
    fn send_to_device(&mut self, link: LinkId, accepted: &mut Vec<u64>) -> Result<(), Breach> {
        let Some(&number) = self.links.get(&link) else { return Ok(()) };
        let closed = self.hub.closed(link);
        let delay = self.draw(self.options.delay);
        let arrives = self.now.after(delay);
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        let room = if closed.is_some() { usize::MAX } else { connection.down.room() };
        let bytes = self.hub.take_some(link, room);
        if bytes.len() == room {
            self.marks.mark("fault: short write");
        }
        self.trace.bytes(self.now, &bytes);
        self.hub_wrote(number, &bytes, accepted)?;
        if self.canary == Some(Canary::CrossTalk) && !bytes.is_empty() && self.cross_talk(number, &bytes) {
            return Ok(());
        }
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
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

    /// Reads what the hub wrote, beside the device.
    fn hub_wrote(&mut self, number: u64, bytes: &[u8], accepted: &mut Vec<u64>) -> Result<(), Breach> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        let Connection { down_tap, wire, thing, .. } = connection;
        let identity = self.things[*thing].identity;
        let (model, marks, trace, now) =
            (&mut self.model.identities[identity], &mut self.marks, &mut self.trace, self.now);
        down_tap.read(bytes, |packet, _| {
            let name = client_id(identity);
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
                    if model.cloud_sent(message, dup)? {
                        marks.mark("wire: cloud message sent again with DUP");
                    }
                }
                _ => {}
            }
            Ok(())
        })
    }

    /// Hands bytes to a connection that they are not for; false where there is none.
    fn cross_talk(&mut self, number: u64, bytes: &[u8]) -> bool {
        let other = self.connections.iter_mut().find(|(other, connection)| {
            **other != number && connection.device_is_there && connection.wire.accepted
        });
        let Some((&other, connection)) = other else { return false };
        connection.down.write(bytes, self.now);
        self.schedule(Some(self.now), Wake::Down(other));
        true
    }

    /// The hub has ended a connection: may it, for this reason?
    fn hub_closed(&mut self, number: u64, close: Close) -> Result<(), Breach> {
        let Some(connection) = self.connections.get(&number) else { return Ok(()) };
        let name = client_id(self.things[connection.thing].identity);
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
            CloseReason::Ended(Rule::Takeover) => self.marks.mark("close: hub, takeover"),
            CloseReason::Ended(Rule::SasExpired) => self.marks.mark("close: hub, token expired"),
            CloseReason::Ended(Rule::StoreFailed) => self.marks.mark("close: hub, store failed"),
            CloseReason::Disconnected => self.marks.mark("close: hub, disconnected"),
            CloseReason::Lost => self.marks.mark("close: hub, lost"),
            _ => {}
        }
        Ok(())
    }

    fn drop_if_over(&mut self, number: u64) {
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

    // --- the device's side ---

    fn device_reads(&mut self, number: u64) -> Result<(), Breach> {
        let most = self.draw_read();
        let Some(connection) = self.connections.get_mut(&number).filter(|it| it.device_is_there) else {
            return Ok(());
        };
        let thing = connection.thing;
        let paused = self.things[thing].paused_until;
        if paused > self.now {
            self.schedule(Some(paused), Wake::Down(number));
            return Ok(());
        }
        let arrival = connection.down.read(self.now, most);
        let (next, link) = (connection.down.next_arrival(), connection.link);
        self.schedule(next, Wake::Down(number));
        match arrival {
            None => return Ok(()),
            Some(Arrival::Bytes(bytes)) => {
                self.things[thing].rx.extend(bytes);
                self.things[thing].pull(self.now);
            }
            Some(Arrival::End) => self.things[thing].event(self.now, Event::Closed),
        }
        self.after_thing(thing)?;
        // There is room for more.
        if let Some(link) = link.filter(|link| self.hub.buffered(*link).1 > 0) {
            self.send_to_device(link, &mut Vec::new())?;
            self.after_hub()?;
        }
        Ok(())
    }

    fn wake_thing(&mut self, number: usize) -> Result<(), Breach> {
        let canary = self.canary;
        let thing = &mut self.things[number];
        let Some(at) = thing.wake_at(canary) else { return Ok(()) };
        if at > self.now {
            self.schedule(Some(at), Wake::Thing(number));
            return Ok(());
        }
        if let Some(connection) = thing.connection {
            self.device_reads(connection)?;
        }
        let thing = &mut self.things[number];
        if canary != Some(Canary::DeviceTimersIgnored)
            && thing.device.poll_timeout().is_some_and(|deadline| deadline.at <= self.now)
        {
            thing.event(self.now, Event::TimedOut);
            let deadline = thing.device.poll_timeout();
            if let Some(deadline) = deadline.filter(|deadline| deadline.at <= self.now) {
                return breach(format!("the device's deadline {deadline:?} is not in the future"));
            }
        }
        self.work_off(number);
        self.after_thing(number)?;
        let thing = &self.things[number];
        if thing.connection.is_none() && thing.reconnect_at.is_some_and(|at| at <= self.now) {
            self.connect(number)?;
        }
        Ok(())
    }

    /// The application does what it had in mind.
    fn work_off(&mut self, number: usize) {
        let thing = &mut self.things[number];
        let all = std::mem::take(&mut thing.todo);
        let (due, later): (VecDeque<_>, _) = all.into_iter().partition(|(at, _)| *at <= self.now);
        thing.todo = later;
        for (_, todo) in due {
            match todo {
                Todo::Complete(delivery, message) => {
                    if thing.device.complete(delivery, &mut thing.tx).is_ok() {
                        self.model.identities[thing.identity].finished(message);
                        self.marks.mark("app: cloud message completed");
                    }
                }
                Todo::Respond(call, payload) => {
                    let status = serde_json::from_str::<Value>(&payload)
                        .ok()
                        .and_then(|payload| payload["call"].as_u64())
                        .map_or(0, status_of);
                    let status = i32::try_from(status).unwrap_or(0);
                    if thing.device.respond(call, status, payload.as_bytes(), &mut thing.tx).is_err() {
                        self.marks.mark("app: method answered too late");
                    }
                }
            }
        }
    }

    fn connect(&mut self, number: usize) -> Result<(), Breach> {
        let thing = &mut self.things[number];
        if self.hub_back_at.is_some() || thing.is_off {
            self.marks.mark("fault: connection refused");
            thing.event(self.now, Event::Closed);
            // A machine that was disconnected leaves it to its application to try again.
            thing.reconnect_at.get_or_insert(self.now.after(Duration::from_secs(1)));
            return self.after_thing(number);
        }
        self.hub.step_clock(self.now);
        let link = self.hub.open();
        let window = self.options.window;
        let connection = Connection {
            thing: number,
            link: Some(link),
            device_is_there: true,
            up: Pipe::new(window),
            down: Pipe::new(window),
            up_tap: Tap::default(),
            down_tap: Tap::default(),
            wire: Wire::default(),
            ends: VecDeque::new(),
            heard_at: self.now,
            disconnect: None,
        };
        let id = self.next_connection;
        self.next_connection += 1;
        self.links.insert(link, id);
        self.connections.insert(id, connection);
        let jitter = self.entropy.below(u32::MAX);
        let wall = self.hub.unix_time();
        thing_opens(&mut self.things[number], id, self.now, jitter, wall);
        self.after_thing(number)?;
        self.after_hub()
    }

    /// A device machine was called: what it wants done is done.
    pub(super) fn after_thing(&mut self, number: usize) -> Result<(), Breach> {
        for heard in std::mem::take(&mut self.things[number].heard) {
            self.hear(number, heard)?;
        }
        let thing = &self.things[number];
        if let Some(&close) = thing.closes.first() {
            self.device_closed(number, close)?;
        }
        self.send_to_hub(number, false)?;
        let status = self.things[number].device.status();
        let limits = devicebound::device::Limits::default();
        if status.queued > limits.outbox_messages || status.deliveries > limits.deliveries {
            return breach(format!("a device holds more than it may: {status:?}"));
        }
        let wake = self.things[number].wake_at(self.canary);
        self.schedule(wake, Wake::Thing(number));
        Ok(())
    }

    /// Writes what the device wants to send, as much as goes.
    fn send_to_hub(&mut self, number: usize, all: bool) -> Result<(), Breach> {
        let delay = self.draw(self.options.delay);
        let thing = &mut self.things[number];
        let Some(id) = thing.connection else { return Ok(()) };
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let room = if all { usize::MAX } else { connection.up.room() };
        let rest = thing.tx.split_off(room.min(thing.tx.len()));
        let bytes = std::mem::replace(&mut thing.tx, rest);
        if !thing.tx.is_empty() {
            self.marks.mark("fault: short write");
            if self.canary == Some(Canary::ShortWriteIgnored) {
                thing.tx.clear();
            }
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let start = connection.up.written();
        connection.up.write(&bytes, self.now.after(delay));
        let next = connection.up.next_arrival();
        self.trace.bytes(self.now, &bytes);
        let Connection { up_tap, wire, ends, disconnect, .. } = connection;
        let name = client_id(thing.identity);
        let (marks, trace, now) = (&mut self.marks, &mut self.trace, self.now);
        up_tap.read(&bytes, |packet, end| {
            trace.line(
                now,
                format_args!(
                    "{name} ──▶ {}",
                    explain(packet, Side::Device, Identity::from_client_id(&name).ok())
                ),
            );
            let end = start + end as u64;
            ends.push_back(end);
            match wire.device_sent(packet)? {
                Some(Fact::Repeated) => marks.mark("wire: telemetry sent again with DUP"),
                Some(Fact::WindowFull) => marks.mark("wire: 16 publishes in flight"),
                Some(Fact::Disconnect) => *disconnect = Some(end),
                _ => {}
            }
            Ok(())
        })?;
        self.schedule(next, Wake::Up(id));
        Ok(())
    }

    fn device_closed(&mut self, number: usize, close: Close) -> Result<(), Breach> {
        let name = client_id(self.things[number].identity);
        self.trace.line(self.now, format_args!("{name} ─╳─ device: {:?}", close.reason()));
        match close.reason() {
            CloseReason::Malformed(_) | CloseReason::Violation(_) => {
                return breach(format!("{name} says of the hub: {:?}", close.reason()));
            }
            CloseReason::TimedOut(Rule::ConnAckTime) => {
                self.marks.mark("close: device, CONNACK did not come")
            }
            CloseReason::TimedOut(Rule::PingTimeout) => {
                self.marks.mark("close: device, PINGRESP did not come")
            }
            CloseReason::Ended(Rule::TokenRenewal) => self.marks.mark("close: device, token renewed"),
            CloseReason::Disconnected => self.marks.mark("close: device, said DISCONNECT"),
            CloseReason::Lost => self.marks.mark("close: device, lost"),
            _ => {}
        }
        self.things[number].closes.clear();
        if self.canary == Some(Canary::LastWordsLost) {
            self.things[number].tx.clear();
        }
        self.send_to_hub(number, true)?;
        let connection = self.things[number].connection.and_then(|id| self.connections.get(&id));
        let left =
            matches!(close.reason(), CloseReason::Disconnected | CloseReason::Ended(Rule::TokenRenewal));
        if left && connection.is_some_and(|connection| connection.disconnect.is_none()) {
            return breach(format!("{name} leaves without DISCONNECT: {:?}", close.reason()));
        }
        self.close_transport(number, true);
        let thing = &mut self.things[number];
        thing.rx.clear();
        thing.tx.clear();
        thing.event(self.now, Event::Closed);
        thing.closes.clear();
        if self.canary == Some(Canary::OutboxForgotten) {
            let at = thing.reconnect_at;
            thing.restart();
            thing.reconnect_at = at;
        }
        for heard in std::mem::take(&mut self.things[number].heard) {
            self.hear(number, heard)?;
        }
        Ok(())
    }

    /// The device's side of the connection ends; the hub hears of it, or not.
    pub(super) fn close_transport(&mut self, number: usize, tell: bool) {
        let delay = self.draw(self.options.delay);
        let Some(id) = self.things[number].connection.take() else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.device_is_there = false;
        if tell {
            connection.up.close(self.now.after(delay));
        } else {
            connection.up.dead = true;
        }
        // Nobody reads any more, so the hub can write without end.
        connection.down.stalled = false;
        let next = connection.up.next_arrival();
        self.schedule(next, Wake::Up(id));
        self.drop_if_over(id);
    }

    // --- the application ---

    fn hear(&mut self, number: usize, heard: Heard) -> Result<(), Breach> {
        let delay = self.draw(self.options.application);
        let due = self.now.after(delay);
        let thing = &mut self.things[number];
        let identity = thing.identity;
        match heard {
            Heard::Acknowledged(ticket) => {
                self.model.telemetry_acknowledged(number, ticket)?;
                self.marks.mark("app: telemetry acknowledged");
            }
            Heard::Delivered { payload, delivery, dup, .. } => {
                let (whose, message) = parse_cloud(&String::from_utf8_lossy(&payload))?;
                if whose != identity {
                    return breach(format!("a message for dev{whose} reaches dev{identity}"));
                }
                if dup {
                    self.marks.mark("app: cloud message seen again by a restarted device");
                }
                if self.canary == Some(Canary::CompletedUnseen) {
                    let _ = thing.device.complete(delivery, &mut thing.tx);
                } else {
                    thing.todo.push_back((due, Todo::Complete(delivery, message)));
                }
            }
            Heard::Invoked { id, payload, .. } => {
                if !payload.contains(&format!("\"to\":{identity}}}")) {
                    return breach(format!("the call {payload} reaches dev{identity}"));
                }
                thing.todo.push_back((due, Todo::Respond(id, payload)));
            }
            Heard::Twin { version, document } => {
                let mut desired = section(&document, "desired")?;
                desired.remove("$version");
                self.model.identities[identity].device_has(version, &desired)?;
                thing.mirror = Some((version, desired));
                self.marks.mark("app: twin read");
            }
            Heard::Desired { version, patch } => {
                if self.canary == Some(Canary::NotificationLost) {
                    return Ok(());
                }
                let Some((known, desired)) = &mut thing.mirror else {
                    return breach("a change comes before the document");
                };
                if version != *known + 1 {
                    return breach(format!("desired version {version} comes after {known}"));
                }
                let mut patch = object(&patch)?;
                patch.remove("$version");
                desired.extend(patch);
                *known = version;
                self.model.identities[identity].device_has(version, desired)?;
                self.marks.mark("app: desired change");
            }
            Heard::Answered { request, status, version, body } => {
                let asked = if self.canary == Some(Canary::AnswersCrossed) && thing.requests.len() > 1 {
                    thing.requests.pop_last().map(|(_, asked)| asked)
                } else {
                    thing.requests.remove(&request)
                };
                let Some(asked) = asked else { return breach(format!("request {request} is not open")) };
                self.is_answer(identity, asked, status, version, &body)?;
                self.marks.mark("app: request answered");
            }
            Heard::Failed(request, failure) => {
                if thing.requests.remove(&request).is_none() {
                    return breach(format!("request {request} is not open and fails"));
                }
                if failure == RequestFailure::Refused {
                    return breach("the hub refuses a documented subscription");
                }
                self.marks.mark("app: request failed");
            }
            Heard::SubscriptionRefused(subscription) => {
                return breach(format!("the hub refuses {subscription:?}"));
            }
            Heard::Connected { .. } | Heard::Subscribed(_) | Heard::Unsubscribed(_) | Heard::Closed(_) => {}
        }
        Ok(())
    }

    fn is_answer(
        &mut self,
        identity: usize,
        asked: Request,
        status: u16,
        version: Option<u64>,
        body: &str,
    ) -> Result<(), Breach> {
        let model = &mut self.model.identities[identity];
        match (asked, status, version) {
            (Request::Patch { number }, 204, Some(version)) => model.patch_acknowledged(number, version),
            (Request::Get { version: known }, 200, None) => {
                let mut reported = section(body, "reported")?;
                let version = reported.remove("$version").and_then(|version| version.as_u64()).unwrap_or(0);
                if version < known {
                    return breach(format!(
                        "reported version {known} was acknowledged, a GET says {version}"
                    ));
                }
                model.is_reported(&reported)?;
                let mut desired = section(body, "desired")?;
                let version = desired.remove("$version").and_then(|version| version.as_u64()).unwrap_or(0);
                model.device_has(version, &desired)
            }
            _ => breach(format!("{asked:?} is answered with {status}, {version:?}, {body}")),
        }
    }

    /// What a quiet world has not come to rest with.
    pub(super) fn unrest(&self) -> Option<String> {
        for (number, thing) in self.things.iter().enumerate().filter(|(_, thing)| !thing.is_off) {
            let status = thing.device.status();
            let open = self.model.senders[number].open.len();
            let desired = self.disk.record(thing.identity).twin().desired_version();
            let mirror = thing.mirror.as_ref().map(|(version, _)| *version);
            let waits = status.connection != devicebound::device::ConnectionState::Online
                || status.queued + open + status.requests + status.calls + status.deliveries > 0
                || mirror != Some(desired);
            if waits {
                return Some(format!(
                    "dev{}: {status:?}, {open} tickets open, desired {mirror:?} of {desired}",
                    thing.identity
                ));
            }
        }
        if !self.model.calls.is_empty() {
            return Some(format!("calls are open: {:?}", self.model.calls));
        }
        self.model.identities.iter().find_map(super::model::Identity::unrest)
    }

    pub(super) fn revision(&self, identity: usize) -> Revision {
        self.hub.hub.record(self.keys[identity]).map_or_else(Revision::default, |record| record.revision())
    }
}

fn thing_opens(
    thing: &mut Thing,
    connection: u64,
    now: Instant,
    jitter: u32,
    wall: devicebound::time::UnixTime,
) {
    thing.connection = Some(connection);
    thing.opened(now, jitter, wall);
}

pub(super) fn call_payload(identity: usize, number: u64) -> String {
    format!("{{\"call\":{number},\"to\":{identity}}}")
}

fn status_of(number: u64) -> i64 {
    200 + i64::try_from(number % 100).unwrap_or(0)
}

/// `t3.17`: the telemetry number 17 of the device machine 3.
fn parse_name(text: &str) -> Option<(char, Name)> {
    let kind = text.chars().next()?;
    let (thing, number) = text.get(1..)?.split_once('.')?;
    Some((kind, Name { thing: thing.parse().ok()?, number: number.parse().ok()? }))
}

/// `c3.17`: the cloud message number 17 of the identity 3.
fn parse_cloud(text: &str) -> Result<(usize, u64), Breach> {
    match parse_name(text) {
        Some(('c', name)) => Ok((name.thing, name.number)),
        _ => breach(format!("the back end sent no {text}")),
    }
}

fn object(text: &str) -> Result<Map<String, Value>, Breach> {
    serde_json::from_str(text).map_err(|error| Breach(format!("{text} is no JSON object: {error}")))
}

fn section(document: &str, name: &str) -> Result<Map<String, Value>, Breach> {
    match object(document)?.remove(name) {
        Some(Value::Object(section)) => Ok(section),
        _ => breach(format!("{document} has no {name}")),
    }
}
