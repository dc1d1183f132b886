//! One connection: both sides' bytes, packet by packet, each breach where it happens.

use devicebound::Rule;
use devicebound::explain::{Sender, explain};
use devicebound::iothub::Identity;
use devicebound::limits::REMAINING_LENGTH_MAX;
use devicebound::packet::{ConnAck, Decoded, Packet, PacketType, decode};
use devicebound::session::legality::{self, Phase, Role};
use devicebound::session::{Close, CloseReason};
use devicebound::time::UnixTime;

use super::judge::{Judge, Verdict};
use super::words;
use crate::lines;

/// What is told of one connection.
#[derive(Debug)]
pub struct Conversation {
    /// The client id once it is known, before that the device's address.
    name: String,
    client_id: Option<String>,
    device: Side,
    hub: Side,
    /// `None` once what it says would rest on a guess: behind the first breach, and behind a gap.
    judge: Option<Judge>,
    began_before: bool,
    has_begun: bool,
    /// Some breach was told.
    is_blamed: bool,
    /// DISCONNECT was seen.
    has_parted: bool,
    is_accepted: bool,
    /// Who sent the last PUBLISH, which the next acknowledgement is for.
    publisher: Sender,
}

/// The bytes of one side that are no whole packet yet.
#[derive(Debug, Default)]
struct Side {
    unread: Vec<u8>,
    /// What follows cannot be read any more.
    is_over: bool,
}

impl Side {
    /// Keeps the last so many of these bytes, without copying them all: a packet may come in many small pieces.
    fn keep(&mut self, mut unread: Vec<u8>, left: usize) {
        unread.drain(..unread.len().saturating_sub(left));
        self.unread = if self.is_over { Vec::new() } else { unread };
    }
}

type Tell<'t> = &'t mut dyn FnMut(&str);

impl Conversation {
    /// A connection whose first byte is known to be the first one. `name` stands for the device until CONNECT names it.
    #[must_use]
    pub fn from_the_start(name: &str) -> Self {
        Self::new(name, false)
    }

    /// A connection that may have begun before: packets that come before a CONNECT break no rule by that.
    #[must_use]
    pub fn in_the_middle(name: &str) -> Self {
        Self::new(name, true)
    }

    fn new(name: &str, began_before: bool) -> Self {
        Self {
            name: name.to_owned(),
            client_id: None,
            device: Side::default(),
            hub: Side::default(),
            judge: None,
            began_before,
            has_begun: false,
            is_blamed: false,
            has_parted: false,
            is_accepted: began_before,
            publisher: Sender::Hub,
        }
    }

    /// Whether a byte of it was seen.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// One side sent bytes, whole packets or not, at `time` if that is known.
    pub fn received(&mut self, time: Option<UnixTime>, sender: Sender, bytes: &[u8], tell: Tell<'_>) {
        self.has_begun |= !bytes.is_empty();
        let side = self.side(sender);
        if side.is_over {
            return;
        }
        side.unread.extend_from_slice(bytes);
        match sender {
            Sender::Device => self.device_packets(time, tell),
            Sender::Hub => self.hub_packets(time, tell),
        }
    }

    /// Bytes of both sides, packet by packet: each packet tells by itself who sends such.
    pub fn received_by_either(&mut self, bytes: &[u8], tell: Tell<'_>) {
        let mut rest = bytes;
        loop {
            let before = rest;
            let sender = match decode(&mut rest, REMAINING_LENGTH_MAX) {
                Ok(Decoded::Packet(packet)) => words::sender(&packet, self.publisher),
                // Whoever sent it; the hub is told by the same words what is wrong with it.
                Ok(Decoded::Incomplete { .. }) | Err(_) => Sender::Device,
            };
            let taken = before.len() - rest.len();
            if taken == 0 {
                return self.received(None, sender, before, tell);
            }
            self.received(None, sender, before.get(..taken).unwrap_or_default(), tell);
        }
    }

    /// So many bytes of one side are not in the capture. What comes next is taken for the start of a packet.
    pub fn gap(&mut self, time: Option<UnixTime>, sender: Sender, missing: u32, tell: Tell<'_>) {
        self.side(sender).unread.clear();
        if sender == Sender::Device {
            self.judge = None;
            self.is_blamed = true;
        }
        self.remark(time, &format!("{missing} bytes of the {} are missing", words::name(sender)), tell);
    }

    /// One side closed the transport, or reset it.
    pub fn ended(&mut self, time: Option<UnixTime>, sender: Sender, reset: bool, tell: Tell<'_>) {
        let how = if reset { "resets" } else { "closes" };
        self.remark(time, &format!("the {} {how} the connection", words::name(sender)), tell);
        match sender {
            Sender::Device if !self.has_parted && !self.is_blamed => {
                self.blame(time, &Close::new(CloseReason::Lost), &[], tell);
            }
            Sender::Hub if !self.has_parted && !self.is_blamed => {
                let text = "nothing that the device sent breaks a rule that can be judged from here: see keys, expiry, quotas, or whether another connection took over";
                self.remark(time, text, tell);
            }
            Sender::Device | Sender::Hub => {}
        }
        self.is_blamed = true;
    }

    /// The capture is over: says what is left.
    pub fn end(&mut self, tell: Tell<'_>) {
        for sender in [Sender::Device, Sender::Hub] {
            let side = self.side(sender);
            let left = side.unread.len();
            if left > 0 && !side.is_over {
                let text = format!("{left} bytes of the {} are no whole packet", words::name(sender));
                self.remark(None, &text, tell);
            }
        }
    }

    /// Says something about the connection.
    pub fn remark(&self, time: Option<UnixTime>, text: &str, tell: Tell<'_>) {
        tell(&lines::remark(&words::time_of_day(time), &self.name, text));
    }

    const fn side(&mut self, sender: Sender) -> &mut Side {
        match sender {
            Sender::Device => &mut self.device,
            Sender::Hub => &mut self.hub,
        }
    }

    // --- what the device sent ---

    fn device_packets(&mut self, time: Option<UnixTime>, tell: Tell<'_>) {
        let unread = std::mem::take(&mut self.device.unread);
        let mut rest = &unread[..];
        while !rest.is_empty() && !self.device.is_over {
            self.recognize(time, rest, tell);
            if self.judge.is_some() {
                if !self.judged(time, &mut rest, tell) {
                    break;
                }
            } else if !self.decoded(time, Sender::Device, &mut rest, tell) {
                break;
            }
        }
        let left = rest.len();
        self.device.keep(unread, left);
    }

    /// Finds out whose connection it is, and sets up the judge at the first packet.
    fn recognize(&mut self, time: Option<UnixTime>, front: &[u8], tell: Tell<'_>) {
        if self.client_id.is_some() || self.is_blamed {
            return;
        }
        let mut front = front;
        let packet = match decode(&mut front, REMAINING_LENGTH_MAX) {
            Ok(Decoded::Packet(packet)) => Some(packet),
            Ok(Decoded::Incomplete { .. }) | Err(_) => None,
        };
        if let Some(Packet::Connect(connect)) = packet {
            self.began_before = false;
            self.is_accepted = false;
            self.judge = Some(Judge::before_connect(time));
            self.know(connect.client_id.as_str());
        } else if !self.began_before {
            self.judge.get_or_insert_with(|| Judge::before_connect(time));
        } else if let Some(client_id) = packet.as_ref().and_then(words::client_id) {
            self.judge = Judge::connected_as(time, &client_id);
            self.know(&client_id);
            self.remark(time, "the connection began before; who it is was taken from the topic", tell);
        } else if self.judge.is_none() {
            self.judge = Judge::connected_as(time, words::SOMEBODY);
        }
    }

    fn know(&mut self, client_id: &str) {
        if !client_id.is_empty() {
            self.name = client_id.to_owned();
        }
        self.client_id = Some(client_id.to_owned());
    }

    /// Takes one packet with the judge looking on; false when there is no whole one.
    fn judged(&mut self, time: Option<UnixTime>, rest: &mut &[u8], tell: Tell<'_>) -> bool {
        let Some(judge) = &mut self.judge else { return false };
        if let Some(close) = judge.passes(time) {
            self.blame(time, &close, &[], tell);
            return true;
        }
        let front = *rest;
        match judge.hear(rest) {
            Verdict::Incomplete => false,
            Verdict::Good => {
                let taken = front.len() - rest.len();
                self.tell_packet(time, Sender::Device, front.get(..taken).unwrap_or_default(), tell);
                true
            }
            Verdict::Refused(close) => {
                let taken = front.len() - rest.len();
                self.tell_packet(time, Sender::Device, front.get(..taken).unwrap_or_default(), tell);
                self.tell_close(time, &close, &[], tell);
                self.is_blamed = true;
                true
            }
            Verdict::End(close) => {
                *rest = front;
                let offending = front.get(close.offending()).unwrap_or_default();
                if let Ok(Decoded::Packet(_)) = decode(rest, REMAINING_LENGTH_MAX) {
                    let taken = front.len() - rest.len();
                    self.tell_packet(time, Sender::Device, front.get(..taken).unwrap_or_default(), tell);
                } else {
                    // Where the next packet begins is not known.
                    self.device.is_over = true;
                }
                if close.reason() == CloseReason::Disconnected {
                    self.judge = None;
                    self.tell_close(time, &close, &[], tell);
                } else {
                    self.blame(time, &close, offending, tell);
                }
                true
            }
        }
    }

    // --- what the hub sent, and what nobody judges any more ---

    fn hub_packets(&mut self, time: Option<UnixTime>, tell: Tell<'_>) {
        let unread = std::mem::take(&mut self.hub.unread);
        let mut rest = &unread[..];
        while !rest.is_empty() && !self.hub.is_over {
            let mut front = rest;
            let packet_type = match decode(&mut front, REMAINING_LENGTH_MAX) {
                Ok(Decoded::Packet(packet)) => Some(packet.packet_type()),
                Ok(Decoded::Incomplete { .. }) | Err(_) => None,
            };
            if !self.decoded(time, Sender::Hub, &mut rest, tell) {
                break;
            }
            if let Some(packet_type) = packet_type {
                self.check_hub(time, packet_type, tell);
            }
        }
        let left = rest.len();
        self.hub.keep(unread, left);
    }

    fn check_hub(&mut self, time: Option<UnixTime>, packet: PacketType, tell: Tell<'_>) {
        // A CONNACK opens: it was judged when it was told.
        let phase =
            if self.is_accepted && packet != PacketType::ConnAck { Phase::Open } else { Phase::Opening };
        if let Err(rule) = legality::check(Role::Device, phase, packet) {
            self.tell_close(time, &Close::new(CloseReason::Violation(rule)), &[], tell);
        }
    }

    /// Takes one packet; false when there is no whole one.
    fn decoded(&mut self, time: Option<UnixTime>, sender: Sender, rest: &mut &[u8], tell: Tell<'_>) -> bool {
        let front = *rest;
        match decode(rest, REMAINING_LENGTH_MAX) {
            Ok(Decoded::Packet(_)) => {
                let taken = front.len() - rest.len();
                self.tell_packet(time, sender, front.get(..taken).unwrap_or_default(), tell);
                true
            }
            Ok(Decoded::Incomplete { .. }) => false,
            Err(error) => {
                let offending = front.get(error.at()).unwrap_or_default();
                self.tell_close(time, &Close::new(CloseReason::Malformed(error.rule())), offending, tell);
                self.side(sender).is_over = true;
                false
            }
        }
    }

    // --- lines ---

    fn tell_packet(&mut self, time: Option<UnixTime>, sender: Sender, packet: &[u8], tell: Tell<'_>) {
        let mut input = packet;
        let Ok(Decoded::Packet(packet)) = decode(&mut input, REMAINING_LENGTH_MAX) else { return };
        match packet {
            Packet::Publish(_) => self.publisher = sender,
            Packet::ConnAck(ConnAck::Accepted { .. }) => self.is_accepted = true,
            Packet::Disconnect => self.has_parted = true,
            _ => {}
        }
        let identity = self.client_id.as_deref().and_then(|id| Identity::from_client_id(id).ok());
        let text = explain(&packet, sender, identity).to_string();
        tell(&lines::packet(&words::time_of_day(time), &self.name, sender, &text));
        if let (Packet::ConnAck(ConnAck::Refused(code)), false) = (packet, self.is_blamed) {
            self.tell_close(time, &Close::new(CloseReason::Refused(code, Rule::ConnectRefused)), &[], tell);
            self.is_blamed = true;
        }
    }

    /// The device breaks a rule; what comes behind that is told and not judged.
    fn blame(&mut self, time: Option<UnixTime>, close: &Close, offending: &[u8], tell: Tell<'_>) {
        self.judge = None;
        self.is_blamed = true;
        self.tell_close(time, close, offending, tell);
    }

    fn tell_close(&self, time: Option<UnixTime>, close: &Close, offending: &[u8], tell: Tell<'_>) {
        tell(&lines::closed(&words::time_of_day(time), &self.name, close, offending));
    }
}
