//! What somebody does: applications, the back end, and whoever breaks things.

use std::sync::LazyLock;
use std::time::Duration;

use devicebound::device::{Credential, Message};
use devicebound::hub::{
    CloudMessage, DeviceIdentity, EnqueueError, Fault, FeedbackRequest, MethodRequest, TierError, TwinUpdate,
    TwinUpdateError,
};
use devicebound::iothub::sas::{self, SymmetricKey};
use devicebound::limits::CLOUD_MESSAGE_TTL;
use devicebound::time::{Instant, UnixTime};

use super::application::call_payload;
use super::thing::{Request, Todo};
use super::{Breach, Step, Wake, World, breach};
use crate::vectors;

/// Longest delay, and longest duration, of a fault that somebody asks for.
const FAULT: Duration = Duration::from_secs(10);
/// Longest time until the right credential comes, or an address answers again.
const LATE: Duration = Duration::from_secs(30);
/// Longest time that a hub is away.
const OUTAGE: Duration = Duration::from_secs(5);

impl World<'_> {
    /// Does something with or to a device; what cannot be done now is left.
    ///
    /// # Errors
    /// What cannot be, and was.
    ///
    /// # Panics
    /// Where the world has no such device.
    pub fn act(&mut self, step: Step, device: usize) -> Result<(), Breach> {
        self.trace.line(self.now, format_args!("dev{device} {step:?}"));
        self.hub.step_clock(self.now);
        match step {
            Step::Nothing => Ok(()),
            Step::Telemetry => self.telemetry(device),
            Step::TelemetryAtMostOnce => self.telemetry_at_most_once(device),
            Step::CloudMessage => self.cloud_message(device),
            Step::Report => self.report(device),
            Step::GetTwin => self.get_twin(device),
            Step::Desired => self.desired(device),
            Step::Call => self.call(device),
            Step::Disconnect => self.disconnect(device),
            Step::Cut => self.cut(device),
            Step::HalfOpen => self.half_open(device),
            Step::Stall => self.stall(device),
            Step::DeviceCrash => self.device_crash(device),
            Step::DevicePause => self.device_pause(device),
            Step::HubCrash => self.hub_crash(),
            Step::HubRestart => self.hub_restart(),
            Step::HubPause => self.hub_pause(),
            Step::RejectCommit => self.reject(device),
            Step::WallStep => self.wall_step(),
            Step::Rival => self.rival(device),
            Step::Purge => self.purge(device),
            Step::Disable => self.disable(device),
            Step::Inject => self.inject(device),
            Step::Guest => self.guest(),
            Step::WrongHub => self.wrong_hub(device),
            Step::SwallowPubAck => self.swallow_puback(device),
            Step::LateCredential => self.late_credential(device),
            Step::Unanswered => self.unanswered(device),
        }?;
        self.run_until(self.now)
    }

    /// A device's application sends telemetry at QoS 1, if its outbox has room.
    ///
    /// # Errors
    /// What cannot be, and was.
    ///
    /// # Panics
    /// Where the world has no such device.
    pub fn send_telemetry(&mut self, device: usize) -> Result<(), Breach> {
        self.submit(device)?;
        self.run_until(self.now)
    }

    fn telemetry(&mut self, number: usize) -> Result<(), Breach> {
        let burst = if self.entropy.one_in(16) { 40 } else { 1 };
        (0..burst).try_for_each(|_| self.submit(number))
    }

    /// The application gives its machine a message, hears what that has displaced, and writes the outbox down.
    fn submit(&mut self, number: usize) -> Result<(), Breach> {
        let telemetry = self.model.senders[number].next();
        let thing = &mut self.things[number];
        let payload = format!("t{number}.{telemetry}");
        let message = Message::new(payload.as_bytes());
        if let Ok(ticket) = thing.device.telemetry(self.now, message, &mut thing.tx) {
            thing.pull(self.now);
            self.model.senders[number].submitted(ticket, telemetry);
            self.after_thing(number)?;
            self.things[number].save();
            self.model.senders[number].saved();
        }
        Ok(())
    }

    fn telemetry_at_most_once(&mut self, number: usize) -> Result<(), Breach> {
        let next = self.model.senders[number].next_at_most_once();
        let thing = &mut self.things[number];
        let payload = format!("q{number}.{next}");
        // Offline it is refused, and that is that.
        let _ = thing.device.telemetry_at_most_once(Message::new(payload.as_bytes()), &mut thing.tx);
        self.after_thing(number)
    }

    fn cloud_message(&mut self, identity: usize) -> Result<(), Breach> {
        // Modules have none.
        if self.hub_back_at.is_some() || self.options.modules {
            return Ok(());
        }
        let burst = if self.entropy.one_in(16) { 60 } else { 1 };
        for _ in 0..burst {
            let model = &mut self.model.identities[identity];
            let name = format!("c{identity}.{}", model.next_cloud());
            let message = CloudMessage {
                payload: name.clone().into_bytes(),
                message_id: Some(name),
                ack: Some(FeedbackRequest::Full),
                ..CloudMessage::default()
            };
            match self.hub.hub.enqueue(self.now, self.keys[identity], message) {
                Ok((sequence, commit)) => {
                    let expires = self.hub.unix_time().after(CLOUD_MESSAGE_TTL);
                    model.enqueued(sequence, commit.revision, expires);
                    self.hub.commit(commit);
                }
                Err(EnqueueError::QueueFull) => self.marks.mark("hub: queue full"),
                Err(EnqueueError::Tier(TierError::Throttled)) => self.marks.mark("hub: back end throttled"),
                Err(error) => return breach(format!("a cloud message is refused: {error}")),
            }
        }
        self.after_hub()
    }

    fn report(&mut self, number: usize) -> Result<(), Breach> {
        let thing = &mut self.things[number];
        let (patch_number, patch) = self.model.identities[thing.identity].next_patch();
        let patch = serde_json::Value::Object(patch).to_string();
        if let Ok(request) = thing.device.report(self.now, patch.as_bytes(), None, &mut thing.tx) {
            thing.requests.insert(request, Request::Patch { number: patch_number });
        }
        self.after_thing(number)
    }

    fn get_twin(&mut self, number: usize) -> Result<(), Breach> {
        let thing = &mut self.things[number];
        let version = self.model.identities[thing.identity].acknowledged_version();
        if let Ok(request) = thing.device.get_twin(self.now, &mut thing.tx) {
            thing.requests.insert(request, Request::Get { version });
        }
        self.after_thing(number)
    }

    fn desired(&mut self, identity: usize) -> Result<(), Breach> {
        if self.hub_back_at.is_some() {
            return Ok(());
        }
        let change = self.model.identities[identity].next_desired();
        let update = TwinUpdate { desired: Some(change.clone()), ..TwinUpdate::default() };
        let key = self.keys[identity];
        let commit = match self.hub.hub.update_twin(self.now, key, update) {
            Ok(commit) => commit,
            Err(TwinUpdateError::Tier(TierError::Throttled)) => {
                self.marks.mark("hub: back end throttled");
                return Ok(());
            }
            Err(error) => return breach(format!("a change of desired properties is refused: {error}")),
        };
        let version = self.hub.record(&self.options.client_id(identity)).twin().desired_version();
        self.model.identities[identity].desired_changed(version, commit.revision, &change);
        self.hub.commit(commit);
        self.after_hub()
    }

    fn call(&mut self, identity: usize) -> Result<(), Breach> {
        if self.hub_back_at.is_some() {
            return Ok(());
        }
        let number = self.model.next_call;
        self.model.next_call += 1;
        let seconds = |number: u32| Duration::from_secs(number.into());
        let request = MethodRequest {
            name: "do".to_owned(),
            payload: Some(call_payload(identity, number)),
            response_timeout: seconds(self.entropy.between(5, 30)),
            connect_timeout: seconds(self.entropy.below(30)),
        };
        if let Ok(call) = self.hub.hub.invoke(self.now, self.keys[identity], request) {
            self.model.calls.insert(call, (identity, number));
        }
        self.hub.settle();
        self.after_hub()
    }

    fn disconnect(&mut self, number: usize) -> Result<(), Breach> {
        let again = self.draw(Duration::from_secs(30));
        let thing = &mut self.things[number];
        if thing.connection.is_none() {
            return Ok(());
        }
        thing.device.disconnect(self.now, &mut thing.tx);
        thing.pull(self.now);
        self.after_thing(number)?;
        let at = self.now.after(again);
        self.things[number].reconnect_at = Some(at);
        self.schedule(Some(at), Wake::Thing(number));
        Ok(())
    }

    /// The connection breaks at any byte, either way; both sides hear of it.
    fn cut(&mut self, number: usize) -> Result<(), Breach> {
        let Some(id) = self.things[number].connection else { return Ok(()) };
        self.marks.mark("fault: connection cut");
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let on_the_way = [connection.up.on_the_way(), connection.down.on_the_way()];
        let keep = on_the_way
            .map(|length| self.entropy.below(u32::try_from(length).unwrap_or(u32::MAX - 1) + 1) as usize);
        for (pipe, keep) in [&mut connection.up, &mut connection.down].into_iter().zip(keep) {
            pipe.cut(keep);
            pipe.close(self.now);
            pipe.stalled = false;
        }
        // What was cut off never arrives.
        let reach = connection.up.arrived() + connection.up.on_the_way() as u64;
        connection.disconnect = connection.disconnect.filter(|end| *end <= reach);
        let next = [connection.up.next_arrival(), connection.down.next_arrival()];
        self.schedule(next[0], Wake::Up(id));
        self.schedule(next[1], Wake::Down(id));
        Ok(())
    }

    /// Nothing arrives any more, either way, and nobody is told.
    fn half_open(&mut self, number: usize) -> Result<(), Breach> {
        let connection = self.things[number].connection.and_then(|id| self.connections.get_mut(&id));
        if let Some(connection) = connection {
            connection.up.dead = true;
            connection.down.dead = true;
            self.marks.mark("fault: connection half-open");
        }
        Ok(())
    }

    /// One side takes nothing any more, or takes what has come meanwhile.
    fn stall(&mut self, number: usize) -> Result<(), Breach> {
        let up = self.entropy.one_in(2);
        let Some(id) = self.things[number].connection else { return Ok(()) };
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let pipe = if up { &mut connection.up } else { &mut connection.down };
        pipe.stalled = !pipe.stalled;
        let next = pipe.next_arrival();
        self.schedule(next, if up { Wake::Up(id) } else { Wake::Down(id) });
        self.marks.mark("fault: pipe stalled");
        Ok(())
    }

    /// The device's process dies; its application has written down what was not acknowledged, or not.
    fn device_crash(&mut self, number: usize) -> Result<(), Breach> {
        let (kept, told) = (self.entropy.one_in(2), !self.entropy.one_in(4));
        self.close_transport(number, told);
        self.things[number].restart(kept);
        self.logics.entry(number).and_modify(|logic| logic.restarted());
        self.model.senders[number].crashed(kept);
        self.marks.mark(if kept {
            "fault: device crashed, state kept"
        } else {
            "fault: device crashed, state lost"
        });
        self.schedule(Some(self.now), Wake::Thing(number));
        Ok(())
    }

    fn device_pause(&mut self, number: usize) -> Result<(), Breach> {
        let pause = self.draw(Duration::from_secs(100));
        self.things[number].paused_until = self.now.after(pause);
        self.marks.mark("fault: device paused");
        Ok(())
    }

    fn hub_pause(&mut self) -> Result<(), Breach> {
        let pause = self.draw(Duration::from_secs(100));
        self.hub_paused_until = self.now.after(pause);
        self.marks.mark("fault: hub paused");
        Ok(())
    }

    /// The power of the hub is gone, and comes back.
    fn hub_crash(&mut self) -> Result<(), Breach> {
        self.marks.mark("fault: hub crashed");
        let before = self.disk.records().iter().map(|record| record.revision()).collect::<Vec<_>>();
        for name in self.disk.crash(&mut *self.entropy) {
            self.model.telemetry_safe(name);
            self.marks.mark("fault: unsynced telemetry survived a crash");
        }
        let survived =
            self.disk.records().iter().zip(before).filter(|(record, before)| record.revision() > *before);
        survived.for_each(|_| self.marks.mark("fault: unsynced record survived a crash"));
        let outage = self.draw(OUTAGE);
        self.start_hub_again(outage)
    }

    /// The hub stops in good order: everything is written first.
    fn hub_restart(&mut self) -> Result<(), Breach> {
        self.marks.mark("fault: hub restarted");
        for _ in 0..2 {
            self.disk_is_done(Instant::from_micros(u64::MAX))?;
            self.start_disk();
        }
        self.hub_crash_without_loss()
    }

    fn hub_crash_without_loss(&mut self) -> Result<(), Breach> {
        self.disk_is_done(Instant::from_micros(u64::MAX))?;
        let _ = self.disk.crash(&mut *self.entropy);
        let outage = self.draw(OUTAGE);
        self.start_hub_again(outage)
    }

    /// The hub is gone, and comes back after `outage` with what the disk holds.
    pub(super) fn start_hub_again(&mut self, outage: Duration) -> Result<(), Breach> {
        for (&link, &id) in &self.links {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.link = None;
            // The operating system closes what the process had open.
            connection.down.close(self.now);
            self.hub.forget(link);
            self.queue.insert((self.now, Wake::Down(id)));
        }
        self.links.clear();
        std::mem::take(&mut self.guests).keys().for_each(|guest| self.hub.forget(*guest));
        self.connections.retain(|_, connection| connection.device_is_there);
        self.live.fill(None);
        self.model.calls.clear();
        self.hub.start_again(self.disk.records());
        let wall = self.hub.unix_time();
        for (identity, model) in self.model.identities.iter_mut().enumerate() {
            model.recovered(self.disk.record(identity), wall)?;
        }
        self.keys = (0..=self.options.devices)
            .map(|identity| self.hub.device(&self.options.client_id(identity)))
            .collect();
        self.identities = self.keys.iter().enumerate().map(|(identity, key)| (*key, identity)).collect();
        self.hub_paused_until = self.now;
        let back = self.now.after(outage);
        self.hub_back_at = Some(back);
        self.schedule(Some(back), Wake::Hub);
        Ok(())
    }

    /// The store cannot write what of a device's record waits.
    fn reject(&mut self, identity: usize) -> Result<(), Breach> {
        let safe = self.disk.record(identity).revision();
        if self.hub_back_at.is_some() || self.revision(identity) == safe {
            return Ok(());
        }
        self.disk.reject(identity);
        self.hub.hub.rejected(self.keys[identity], self.disk.record(identity).clone());
        self.model.identities[identity].recovered(self.disk.record(identity), self.hub.unix_time())?;
        self.marks.mark("fault: commit rejected");
        self.hub.settle();
        self.after_hub()
    }

    fn wall_step(&mut self) -> Result<(), Breach> {
        let hour = 3_600_000;
        let millis = self.hub.unix_time().as_millis();
        let steps = [millis + hour, millis - hour, millis + 24 * hour, millis + 500];
        let step = self.entropy.below(4) as usize;
        self.marks.mark("fault: wall clock stepped");
        let wall = UnixTime::from_millis(steps[step]);
        self.trace.line(self.now, format_args!("it is {wall}"));
        self.hub.set_wall(wall);
        self.after_hub()
    }

    /// Whoever sits on the way puts in, between two packets of the hub's, a packet that no hub sends.
    fn wrong_hub(&mut self, number: usize) -> Result<(), Breach> {
        static WRONG: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
            let mut cases = vectors::load("packets_invalid");
            cases.retain(|case| case["from"] != "client" && case["expect"] != "incomplete");
            cases.iter().map(vectors::bytes).collect()
        });
        let wrong = &WRONG[self.entropy.below(u32::try_from(WRONG.len()).unwrap_or(1)) as usize];
        let delay = self.draw(self.options.delay);
        let Some(id) = self.things[number].connection else { return Ok(()) };
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        if connection.down_tap.is_inside_a_packet() || connection.down.room() < wrong.len() {
            return Ok(());
        }
        connection.down.write(wrong, self.now.after(delay));
        connection.spoilt = true;
        let next = connection.down.next_arrival();
        self.schedule(next, Wake::Down(id));
        self.marks.mark("fault: hub sends what no hub sends");
        Ok(())
    }

    fn swallow_puback(&mut self, number: usize) -> Result<(), Breach> {
        let Some(id) = self.things[number].connection else { return Ok(()) };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.swallow = true;
        }
        Ok(())
    }

    /// The token that the application has is one that the hub refuses; the right credential comes later.
    fn late_credential(&mut self, number: usize) -> Result<(), Breach> {
        let delay = self.draw(LATE);
        let at = self.now.after(delay);
        let thing = &mut self.things[number];
        let resource = thing.config.resource();
        let stale =
            sas::sign(&resource, &SymmetricKey::from_bytes(b"of yesterday"), UnixTime::from_secs(1), None);
        thing.device.replace_credential(self.now, Credential::Token(stale)).expect("it is a token");
        thing.pull(self.now);
        thing.todo.push_back((at, Todo::BringCredential));
        self.schedule(Some(at), Wake::Thing(number));
        self.after_thing(number)
    }

    fn unanswered(&mut self, number: usize) -> Result<(), Breach> {
        let time = self.draw(LATE);
        self.things[number].unanswered_until = self.now.after(time);
        Ok(())
    }

    fn purge(&mut self, identity: usize) -> Result<(), Breach> {
        if self.hub_back_at.is_some() {
            return Ok(());
        }
        let Some((count, commit)) = self.hub.hub.purge(self.now, self.keys[identity]) else {
            return breach(format!("dev{identity} has no queue"));
        };
        if count > 0 {
            self.marks.mark("fault: queue purged");
        }
        self.model.identities[identity].purged(commit.revision);
        self.hub.commit(commit);
        self.after_hub()
    }

    fn disable(&mut self, identity: usize) -> Result<(), Breach> {
        if self.hub_back_at.is_some() {
            return Ok(());
        }
        self.marks.mark("fault: device disabled");
        let toggle = |identity: &mut DeviceIdentity| identity.enabled = !identity.enabled;
        let commit = self.hub.hub.update_identity(self.now, self.keys[identity], toggle);
        commit.into_iter().for_each(|commit| self.hub.commit(commit));
        self.hub.settle();
        self.after_hub()
    }

    fn inject(&mut self, identity: usize) -> Result<(), Breach> {
        if self.hub_back_at.is_some() {
            return Ok(());
        }
        self.marks.mark("fault: asked for");
        let kinds = u32::try_from(Fault::ALL.len()).unwrap_or(1);
        let fault = Fault::ALL[self.entropy.below(kinds) as usize];
        let (delay, duration) = (self.draw(FAULT), self.draw(FAULT));
        self.hub.hub.inject(self.now, self.keys[identity], fault, delay, duration);
        self.after_hub()
    }

    /// Another machine with the same identity comes, or leaves.
    fn rival(&mut self, identity: usize) -> Result<(), Breach> {
        let rival = |thing: &super::Thing| thing.is_rival && !thing.is_off && thing.identity == identity;
        if let Some(number) = self.things.iter().position(rival) {
            return self.switch_off(number);
        }
        self.add_thing(identity, true);
        self.marks.mark("fault: rival connected");
        Ok(())
    }

    fn switch_off(&mut self, number: usize) -> Result<(), Breach> {
        self.close_transport(number, true);
        self.things[number].is_off = true;
        self.things[number].restart(false);
        Ok(())
    }

    /// No more faults. Connections that nobody knows to be dead stay as they are.
    pub(super) fn stop_faults(&mut self) -> Result<(), Breach> {
        self.options.faults.clear();
        self.options.window = 1 << 16;
        self.options.delay = self.options.delay.min(Duration::from_millis(200));
        self.options.store = self.options.store.min(Duration::from_millis(300));
        self.options.application = self.options.application.min(Duration::from_secs(1));
        self.hub_paused_until = self.now;
        let rivals: Vec<_> = (0..self.things.len())
            .filter(|number| self.things[*number].is_rival && !self.things[*number].is_off)
            .collect();
        for number in rivals {
            self.switch_off(number)?;
        }
        for identity in 0..self.options.devices {
            if let Some(commit) = self.hub.hub.update_identity(self.now, self.keys[identity], enable) {
                self.hub.commit(commit);
            }
        }
        self.after_hub()?;
        for number in 0..self.things.len() {
            self.things[number].paused_until = self.now;
            self.things[number].unanswered_until = self.now;
            self.schedule(Some(self.now), Wake::Thing(number));
        }
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            for pipe in [&mut connection.up, &mut connection.down] {
                pipe.stalled = false;
                pipe.widen(1 << 16);
            }
            let thing = connection.thing;
            self.schedule(Some(self.now), Wake::Up(id));
            self.schedule(Some(self.now), Wake::Down(id));
            self.after_thing(thing)?;
        }
        self.run_until(self.now)
    }
}

fn enable(identity: &mut DeviceIdentity) {
    identity.enabled = true;
}
