//! Guests: peers that are no devices, and dribble, lie and flood beside devices that must notice nothing of it.
//!
//! All of them log in, if they do, as one identity that no device machine has.

use std::collections::VecDeque;
use std::time::Duration;

use devicebound::hub::LinkId;
use devicebound::iothub::Identity;
use devicebound::iothub::topic::FromHub;
use devicebound::packet::Packet;
use devicebound::time::Instant;
use devicebound::{Close, CloseReason, Rule};

use super::visit::{End, Visit};
use super::wire::Tap;
use super::{Breach, Cable, Wake, World, breach};

/// A dribbling guest sends a byte so often.
const DRIBBLE: Duration = Duration::from_secs(5);
/// When the hub closes on a guest that has not finished its CONNECT, give or take [`SLACK`] (A1).
const CONNECT_TIME: Duration = Duration::from_secs(30);
const SLACK: Duration = Duration::from_secs(1);
/// Time within which a guest that logs in is served or sent away, however slow the store is. Others are sent away
/// within [`SLACK`] (A3, A6).
const PATIENCE: Duration = Duration::from_secs(60);

/// A peer that is no device.
#[derive(Debug)]
pub(super) struct Guest {
    cable: Cable,
    opened: Instant,
    visit: Visit,
    /// What a dribbling guest has still to say.
    unsent: VecDeque<u8>,
    /// Bytes that a short read of the hub's takes at most; fewer of what is short.
    most: u32,
    /// When it gives up.
    until: Instant,
    /// Reads what the guest says as the hub should.
    said: Tap,
    heard: Tap,
    /// Packet ids that are owed an acknowledgement, in order.
    owed: VecDeque<u16>,
    /// Twin requests that are owed an answer.
    asked: u32,
    pinged: u32,
}

impl World<'_> {
    /// The identity of the guests.
    pub(super) const fn guests_identity(&self) -> usize {
        self.options.devices
    }

    /// Somebody comes who is no device.
    pub(super) fn guest(&mut self) -> Result<(), Breach> {
        let client_id = self.options.client_id(self.guests_identity());
        let mut visit = Visit::draw(&mut *self.entropy, &client_id, self.hub.unix_time());
        let is_taken = visit.logs_in && self.guests.values().any(|guest| guest.visit.logs_in);
        if is_taken || self.hub_back_at.is_some() || self.hub_paused_until > self.now {
            return Ok(());
        }
        self.marks.mark(visit.mark);
        self.trace.line(self.now, format_args!("{}", visit.mark));
        let bytes = std::mem::take(&mut visit.bytes);
        let cable = Cable::new(&mut self.hub);
        let link = cable.link();
        let patience = match visit {
            Visit { dribbles: true, .. } => CONNECT_TIME + SLACK,
            Visit { logs_in: true, .. } => PATIENCE,
            _ => SLACK,
        };
        let mut guest = Guest {
            cable,
            opened: self.now,
            unsent: VecDeque::new(),
            most: 1,
            until: self.now.after(patience),
            said: Tap::default(),
            heard: Tap::default(),
            owed: VecDeque::new(),
            asked: 0,
            pinged: 0,
            visit,
        };
        if guest.visit.dribbles {
            guest.unsent.extend(bytes);
        } else {
            guest.listen(&bytes);
            guest.most = u32::try_from(bytes.len() / 50).unwrap_or(0).max(40);
            let (entropy, split, most) = (&mut self.entropy, self.options.split, guest.most);
            guest.cable.send(&mut self.hub, &bytes, || read_size(&mut **entropy, split, most));
        }
        self.guests.insert(link, guest);
        self.schedule(Some(self.now), Wake::Guest(link));
        self.after_hub()
    }

    pub(super) fn wake_guest(&mut self, link: LinkId) -> Result<(), Breach> {
        if self.hub_paused_until > self.now {
            let until = self.hub_paused_until.after(DRIBBLE);
            if let Some(guest) = self.guests.get_mut(&link) {
                guest.until = guest.until.max(until);
            }
            self.schedule(Some(until), Wake::Guest(link));
            return Ok(());
        }
        let Some(guest) = self.guests.get_mut(&link) else { return Ok(()) };
        if guest.until <= self.now {
            return self.guest_goes(link);
        }
        let next = if let Some(byte) = guest.unsent.pop_front() {
            self.hub.step_clock(self.now);
            guest.cable.send(&mut self.hub, &[byte], || 1);
            self.now.after(DRIBBLE).min(guest.until)
        } else {
            guest.until
        };
        self.schedule(Some(next), Wake::Guest(link));
        self.after_hub()
    }

    /// The hub has written to a guest, can read on, or has closed.
    pub(super) fn guest_hears(&mut self, link: LinkId) -> Result<(), Breach> {
        let identity = self.options.client_id(self.guests_identity());
        let Some(guest) = self.guests.get_mut(&link) else { return Ok(()) };
        let (entropy, split) = (&mut self.entropy, self.options.split);
        guest.cable.deliver(&mut self.hub, || read_size(&mut **entropy, split, guest.most));
        let bytes = guest.cable.receive(&mut self.hub, || usize::MAX);
        self.trace.bytes(self.now, &bytes);
        let Guest { heard, visit, owed, asked, pinged, .. } = guest;
        heard.read(&bytes, |packet, _| hear(packet, visit, &identity, owed, asked, pinged))?;
        match self.hub.closed(link) {
            Some(close) => {
                let guest = self.guests.remove(&link);
                self.hub.forget(link);
                self.trace.line(self.now, format_args!("guest ─╳─ hub: {:?}", close.reason()));
                guest.map_or(Ok(()), |guest| guest.is_sent_away(self.now, close))
            }
            None => Ok(()),
        }
    }

    /// It was there long enough.
    fn guest_goes(&mut self, link: LinkId) -> Result<(), Breach> {
        let Some(guest) = self.guests.get_mut(&link) else { return Ok(()) };
        let Guest { visit, owed, asked, pinged, .. } = &*guest;
        let is_served = owed.is_empty() && *asked + *pinged == 0;
        if visit.end == End::Closes || (visit.end == End::Serves && !is_served) {
            return breach(format!(
                "{}: not closed; {owed:?} owed, {asked} + {pinged} not answered",
                visit.mark
            ));
        }
        guest.visit.end = End::Either; // it goes by itself
        self.hub.step_clock(self.now);
        guest.cable.close(&mut self.hub);
        self.after_hub()
    }
}

fn read_size(entropy: &mut dyn super::Entropy, split: u32, most: u32) -> usize {
    if entropy.one_in(split) { entropy.between(1, most) as usize } else { usize::MAX }
}

fn hear(
    packet: &Packet<'_>,
    visit: &Visit,
    client_id: &str,
    owed: &mut VecDeque<u16>,
    asked: &mut u32,
    pinged: &mut u32,
) -> Result<(), Breach> {
    let id = match packet {
        Packet::ConnAck(_) if visit.logs_in => return Ok(()),
        Packet::PubAck(id) | Packet::UnsubAck(id) => id.get(),
        Packet::SubAck(suback) => suback.packet_id().get(),
        Packet::PingResp if *pinged > 0 => {
            *pinged -= 1;
            return Ok(());
        }
        Packet::Publish(publish) => {
            let identity = Identity::from_client_id(client_id).ok();
            let response = identity.and_then(|identity| FromHub::parse(publish.topic, identity).ok());
            return match response {
                Some(FromHub::TwinResponse { status, .. }) if *asked > 0 => {
                    *asked -= 1;
                    match status {
                        400 | 413 => Ok(()),
                        _ if !visit.is_refused => Ok(()),
                        _ => breach(format!("{}: answered with {status}", visit.mark)),
                    }
                }
                _ => breach(format!("{}: the hub sends {packet:?}", visit.mark)),
            };
        }
        _ => return breach(format!("{}: the hub sends {packet:?}", visit.mark)),
    };
    match owed.pop_front() {
        Some(first) if first == id => Ok(()),
        first => breach(format!("{}: the hub acknowledges {id}, {first:?} is owed", visit.mark)),
    }
}

impl Guest {
    /// Notes what the hub owes for `bytes`, as far as they are packets.
    fn listen(&mut self, bytes: &[u8]) {
        let Self { said, owed, asked, pinged, .. } = self;
        // What is not MQTT is for the hub to refuse.
        let _ = said.read(bytes, |packet, _| {
            match packet {
                Packet::Publish(publish) => {
                    owed.extend(publish.qos.packet_id().map(|id| id.get()));
                    *asked += u32::from(publish.topic.as_bytes().starts_with(b"$iothub/twin/"));
                }
                Packet::Subscribe(subscribe) => owed.push_back(subscribe.packet_id().get()),
                Packet::Unsubscribe(unsubscribe) => owed.push_back(unsubscribe.packet_id().get()),
                Packet::PingReq => *pinged += 1,
                _ => {}
            }
            Ok(())
        });
    }

    fn is_sent_away(&self, now: Instant, close: Close) -> Result<(), Breach> {
        let Visit { mark, dribbles, end, .. } = self.visit;
        let time = now.since(self.opened);
        if dribbles
            && (close.reason() != CloseReason::TimedOut(Rule::ConnectTime) || time < CONNECT_TIME - SLACK)
        {
            return breach(format!("{mark}: closed after {time:?}, {close}"));
        }
        match close.reason() {
            CloseReason::Violation(_) | CloseReason::Malformed(_) if end == End::Serves => {
                breach(format!("{mark}: {close}"))
            }
            _ => Ok(()),
        }
    }
}
