//! The devices' sockets and their deadlines.

use std::collections::VecDeque;
use std::time::Duration;

use devicebound::device::{ConnectionState, Event};
use devicebound::explain::{Sender as Side, explain};
use devicebound::hub::LinkId;
use devicebound::iothub::Identity;
use devicebound::time::Instant;
use devicebound::{Close, CloseReason, Rule};
use serde_json::Value;

use super::application::status_of;
use super::thing::{Thing, Todo};
use super::wire::Fact;
use super::{Arrival, Breach, Canary, Connection, KnockKind, Pipe, Tap, Wake, Wire, World, breach};

/// How long a device tries to connect to an address that does not answer.
const CONNECT_TIME: Duration = Duration::from_secs(10);

impl World<'_> {
    /// A credential came to a device that the hub had refused: it uses it at once.
    pub(super) fn uses_credential(&self, number: usize) -> Result<(), Breach> {
        let thing = &self.things[number];
        let status = thing.device.status();
        let refused =
            status.last_close.is_some_and(|close| matches!(close.reason(), CloseReason::Refused(..)));
        let waits = status.connection == ConnectionState::Offline
            && thing.reconnect_at.is_some_and(|at| at > self.now);
        if refused && waits {
            return breach(format!("a credential came at {:?}, and the device waits: {status:?}", self.now));
        }
        Ok(())
    }

    pub(super) fn device_reads(&mut self, number: u64) -> Result<(), Breach> {
        let most = self.draw_read();
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        if !connection.device_is_there {
            return connection.link.map_or(Ok(()), |link| self.hub_can_write(link));
        }
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
        link.map_or(Ok(()), |link| self.hub_can_write(link))
    }

    /// There is room for more of what the hub has written.
    fn hub_can_write(&mut self, link: LinkId) -> Result<(), Breach> {
        if self.hub.buffered(link).1 == 0 {
            return Ok(());
        }
        let mut accepted = Vec::new();
        self.send_to_device(link, &mut accepted)?;
        accepted.into_iter().try_for_each(|number| self.is_the_only_one(number))?;
        self.after_hub()
    }

    pub(super) fn wake_thing(&mut self, number: usize) -> Result<(), Breach> {
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
            self.marks.mark("rule: deadlines lie ahead");
            let deadline = thing.device.poll_timeout();
            if let Some(deadline) = deadline.filter(|deadline| deadline.at <= self.now) {
                return breach(format!("the device's deadline {deadline:?} is not in the future"));
            }
        }
        if thing.gives_up_at.is_some_and(|at| at <= self.now) {
            thing.gives_up_at = None;
            thing.event(self.now, Event::Closed);
            // A machine that was disconnected leaves it to its application to try again.
            thing.reconnect_at.get_or_insert(self.now.after(Duration::from_secs(1)));
        }
        self.work_off(number)?;
        self.after_thing(number)?;
        let thing = &self.things[number];
        if thing.connection.is_none() && thing.reconnect_at.is_some_and(|at| at <= self.now) {
            self.connect(number)?;
        }
        Ok(())
    }

    /// The application does what it had in mind.
    pub(super) fn work_off(&mut self, number: usize) -> Result<(), Breach> {
        let thing = &mut self.things[number];
        let all = std::mem::take(&mut thing.todo);
        let (due, later): (VecDeque<_>, _) = all.into_iter().partition(|(at, _)| *at <= self.now);
        thing.todo = later;
        for (_, todo) in due {
            let thing = &mut self.things[number];
            match todo {
                Todo::Complete(delivery, message) => {
                    if thing.device.complete(delivery, &mut thing.tx).is_ok() {
                        self.model.identities[thing.identity].finished(message);
                        self.marks.mark("app: cloud message completed");
                    }
                }
                Todo::BringCredential => {
                    let key = thing.config.credential().clone();
                    thing.device.replace_credential(self.now, key).expect("it was good before");
                    thing.pull(self.now);
                    self.marks.mark("fault: credential came late");
                    self.uses_credential(number)?;
                }
                Todo::Respond(call, payload) => {
                    let status = serde_json::from_str::<Value>(&payload)
                        .ok()
                        .and_then(|payload| payload["call"].as_u64())
                        .map_or(0, status_of);
                    let status = i32::try_from(status).unwrap_or(0);
                    if thing
                        .device
                        .respond(self.now, call, status, payload.as_bytes(), &mut thing.tx)
                        .is_err()
                    {
                        self.marks.mark("app: method answered too late");
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn connect(&mut self, number: usize) -> Result<(), Breach> {
        let thing = &mut self.things[number];
        if thing.unanswered_until > self.now {
            self.marks.mark("fault: address does not answer");
            thing.reconnect_at = None;
            thing.gives_up_at = Some(self.now.after(CONNECT_TIME));
            return self.after_thing(number);
        }
        if self.hub_back_at.is_some() || thing.is_off {
            self.marks.mark("fault: connection refused");
            thing.reconnect_at = None;
            thing.event(self.now, Event::Closed);
            // A machine that was disconnected leaves it to its application to try again.
            thing.reconnect_at.get_or_insert(self.now.after(Duration::from_secs(1)));
            self.note(number, KnockKind::Refused);
            return self.after_thing(number);
        }
        self.note(number, KnockKind::Opened);
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
            spoilt: false,
            swallow: false,
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
        self.is_in_step(number)?;
        self.send_to_hub(number, false)?;
        let status = self.things[number].device.status();
        let limits = devicebound::device::Limits::default();
        let is_bounded = status.queued <= self.options.outbox
            && status.deliveries <= limits.deliveries
            && status.requests <= 2 * limits.requests
            && status.calls <= limits.calls
            && status.in_flight <= limits.window
            && self.things[number].tx.len() < limits.tx_max;
        if !is_bounded {
            return breach(format!("a device holds more than it may: {status:?}"));
        }
        let wake = self.things[number].wake_at(self.canary);
        self.schedule(wake, Wake::Thing(number));
        Ok(())
    }

    /// Writes what the device wants to send, as much as goes.
    pub(super) fn send_to_hub(&mut self, number: usize, all: bool) -> Result<(), Breach> {
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
        let name = self.options.client_id(thing.identity);
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

    pub(super) fn device_closed(&mut self, number: usize, close: Close) -> Result<(), Breach> {
        let name = self.options.client_id(self.things[number].identity);
        self.trace.line(self.now, format_args!("{name} ─╳─ device: {:?}", close.reason()));
        match close.reason() {
            CloseReason::Malformed(_) | CloseReason::Violation(_) if self.is_spoilt(number) => {
                self.marks.mark("close: device, hub broke a rule");
            }
            CloseReason::Malformed(_) | CloseReason::Violation(_) => {
                return breach(format!("{name} says of the hub: {:?}", close.reason()));
            }
            CloseReason::TimedOut(Rule::ConnAckTime) => {
                self.marks.mark("close: device, CONNACK did not come")
            }
            CloseReason::TimedOut(Rule::PingTimeout) => {
                self.marks.mark("close: device, PINGRESP did not come")
            }
            CloseReason::TimedOut(Rule::PubAckTime) => self.marks.mark("close: device, PUBACK did not come"),
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
            thing.restart(false);
            thing.reconnect_at = at;
        }
        for heard in std::mem::take(&mut self.things[number].heard) {
            self.hear(number, heard)?;
        }
        Ok(())
    }

    fn is_spoilt(&self, number: usize) -> bool {
        let connection = self.things[number].connection.and_then(|id| self.connections.get(&id));
        connection.is_some_and(|connection| connection.spoilt)
    }

    /// The device's side of the connection ends; the hub hears of it, or not.
    pub(super) fn close_transport(&mut self, number: usize, tell: bool) {
        let delay = self.draw(self.options.delay);
        let Some(id) = self.things[number].connection.take() else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.device_is_there = false;
        if tell {
            connection.up.close(self.now.after(delay));
            connection.down.abandon();
        } else {
            connection.up.dead = true;
            connection.down.dead = true;
        }
        let next = connection.up.next_arrival();
        self.schedule(next, Wake::Up(id));
        self.schedule(Some(self.now), Wake::Down(id));
        self.drop_if_over(id);
    }
}

pub(super) fn thing_opens(
    thing: &mut Thing,
    connection: u64,
    now: Instant,
    jitter: u32,
    wall: devicebound::time::UnixTime,
) {
    thing.connection = Some(connection);
    thing.opened(now, jitter, wall);
}
