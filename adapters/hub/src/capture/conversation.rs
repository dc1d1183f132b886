//! One connection: both sides' bytes, packet by packet, each breach where it happens.

use devicebound::Rule;
use devicebound::explain::{Sender, explain};
use devicebound::hub::Warning;
use devicebound::iothub::Identity;
use devicebound::limits::REMAINING_LENGTH_MAX;
use devicebound::packet::{ConnAck, Decoded, Packet, PacketType, decode};
use devicebound::session::legality::{self, Phase, Role};
use devicebound::session::{Close, CloseReason};
use devicebound::time::UnixTime;

use super::framing::Framing;
use super::judge::{Judge, Verdict};
use super::words;
use crate::observe::printable::printable;
use crate::observe::wording;
use crate::observe::wording::End;

/// What is told of one connection.
#[derive(Debug)]
pub struct Conversation {
    /// The client id once it is known, before that the device's address.
    name: String,
    client_id: Option<String>,
    /// The client id was taken from a topic, and nobody knows whether the topic was the device's own.
    is_guessed: bool,
    device: Framing,
    hub: Framing,
    /// `None` before the first packet, behind the first breach, and behind a gap until it is known where the next packet begins.
    judge: Option<Judge>,
    began_before: bool,
    /// Some breach was told.
    is_blamed: bool,
    /// DISCONNECT was seen.
    has_parted: bool,
    is_accepted: bool,
    /// CONNECT asked for a clean session.
    is_clean: bool,
    /// The hub answered the first segment with a reset.
    is_refused: bool,
    /// Who sent the last PUBLISH, which the next acknowledgement is for.
    publisher: Sender,
}

pub(super) type Tell<'t> = &'t mut dyn FnMut(&str);

impl Conversation {
    /// A connection whose first byte is known to be the first one. `name` stands for the device until CONNECT names it.
    #[must_use]
    pub fn from_the_start(name: &str) -> Self {
        Self::new(name, false, true)
    }

    /// A connection that may have begun before: packets that come before a CONNECT break no rule by that.
    #[must_use]
    pub fn in_the_middle(name: &str) -> Self {
        Self::new(name, true, true)
    }

    /// A connection that may have begun before, and whose first byte may be inside a packet.
    #[must_use]
    pub fn inside_a_packet(name: &str) -> Self {
        Self::new(name, true, false)
    }

    fn new(name: &str, began_before: bool, is_certain: bool) -> Self {
        Self {
            name: name.to_owned(),
            client_id: None,
            is_guessed: false,
            device: Framing::new(is_certain),
            hub: Framing::new(is_certain),
            judge: None,
            began_before,
            is_blamed: false,
            has_parted: false,
            is_accepted: began_before,
            is_clean: false,
            is_refused: false,
            publisher: Sender::Hub,
        }
    }

    /// The next byte of this side is the first of the connection, if none came before.
    pub(super) const fn starts_whole(&mut self, sender: Sender) {
        if self.side(sender).starts_whole() && matches!(sender, Sender::Device) {
            self.began_before = false;
            self.is_accepted = false;
        }
    }

    /// What this side sends cannot be seen.
    pub(super) fn is_unseen(&mut self, sender: Sender) {
        self.forget(sender);
    }

    pub(super) const fn refused(&mut self) {
        self.is_refused = true;
    }

    /// Whether a byte of it was seen.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.device.has_begun() || self.hub.has_begun()
    }

    /// One side sent bytes, whole packets or not, at `time` if that is known.
    pub fn received(&mut self, time: Option<UnixTime>, sender: Sender, bytes: &[u8], tell: Tell<'_>) {
        self.tell_untold(time, sender, tell);
        let side = self.side(sender);
        side.extend(bytes, sender);
        if side.is_over() {
            return;
        }
        if let Some(passed_over) = side.passed_over() {
            let name = words::name(sender);
            let text =
                format!("{passed_over} bytes of the {name} belong to a packet whose beginning is not there");
            self.remark(time, &text, tell);
        }
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

    /// Some bytes of one side are not in the capture; `None` where it may be a FIN as well. The next packet is searched.
    pub fn gap(&mut self, time: Option<UnixTime>, sender: Sender, missing: Option<u64>, tell: Tell<'_>) {
        self.forget(sender);
        let name = words::name(sender);
        let Some(missing) = missing else {
            let text = format!("the end of the connection (FIN), or 1 byte of the {name}, is missing");
            return self.remark(time, &text, tell);
        };
        if let Some(missing) = self.side(sender).count_missing(missing) {
            self.remark(time, &format!("{missing} bytes of the {name} are missing"), tell);
        }
    }

    /// What this side sent is not known any more: nothing is judged by what the other side does about it.
    fn forget(&mut self, sender: Sender) {
        self.side(sender).gap();
        self.began_before = true;
        match sender {
            Sender::Device => self.judge = None,
            Sender::Hub => self.is_accepted = true,
        }
    }

    fn tell_untold(&mut self, time: Option<UnixTime>, sender: Sender, tell: Tell<'_>) {
        if let Some(missing) = self.side(sender).take_untold() {
            self.remark(
                time,
                &format!("{missing} more bytes of the {} are missing", words::name(sender)),
                tell,
            );
        }
    }

    /// One side closed the transport, or reset it.
    pub fn ended(&mut self, time: Option<UnixTime>, sender: Sender, reset: bool, tell: Tell<'_>) {
        self.tell_untold(time, sender, tell);
        if self.is_refused && !self.has_begun() {
            self.is_blamed = true;
            let text = "the connection is refused: nothing listens on that port, or a firewall is in between";
            return self.remark(time, text, tell);
        }
        let how = if reset { "resets" } else { "closes" };
        self.remark(time, &format!("the {} {how} the connection", words::name(sender)), tell);
        if !self.has_parted && !self.is_blamed {
            match sender {
                Sender::Device if self.device.is_good() => {
                    self.blame(time, &Close::new(CloseReason::Lost), &[], tell);
                }
                Sender::Device if !self.device.has_begun() => {}
                Sender::Device => {
                    self.remark(
                        time,
                        "whether it sent DISCONNECT cannot be told: bytes of it are missing",
                        tell,
                    );
                }
                Sender::Hub if self.device.is_certain() || self.device.is_good() => {
                    let text = "nothing that the device sent breaks a rule that can be judged from here: see keys, expiry, quotas, or whether another connection took over";
                    self.remark(time, text, tell);
                }
                Sender::Hub => {
                    self.remark(time, "why cannot be told: bytes of the device are missing", tell);
                }
            }
        }
        self.is_blamed = true;
    }

    /// The capture is over: says what is left.
    pub fn end(&mut self, tell: Tell<'_>) {
        for sender in [Sender::Device, Sender::Hub] {
            self.tell_untold(None, sender, tell);
            let left = self.side(sender).left();
            if left > 0 {
                let text = format!("{left} bytes of the {} are no whole packet", words::name(sender));
                self.remark(None, &text, tell);
            }
        }
    }

    /// Says something about the connection.
    pub fn remark(&self, time: Option<UnixTime>, text: &str, tell: Tell<'_>) {
        tell(&wording::remark(&words::time_of_day(time), &self.name, &printable(text)));
    }

    const fn side(&mut self, sender: Sender) -> &mut Framing {
        match sender {
            Sender::Device => &mut self.device,
            Sender::Hub => &mut self.hub,
        }
    }

    // --- what the device sent ---

    fn device_packets(&mut self, time: Option<UnixTime>, tell: Tell<'_>) {
        self.packets(Sender::Device, tell, |conversation, rest, tell| {
            conversation.recognize(time, rest, tell);
            if conversation.judge.is_some() {
                conversation.judged(time, rest, tell)
            } else {
                conversation.decoded(time, Sender::Device, rest, tell)
            }
        });
    }

    /// Takes packet by packet off what a side sent, as long as `take` finds a whole one, and keeps the rest.
    fn packets(
        &mut self,
        sender: Sender,
        tell: Tell<'_>,
        take: impl Fn(&mut Self, &mut &[u8], Tell<'_>) -> bool,
    ) {
        loop {
            let unread = self.side(sender).take();
            let mut rest = &unread[..];
            while !rest.is_empty() && !self.side(sender).is_over() {
                if self.is_off(sender, rest) {
                    self.side(sender).lose(rest, sender);
                    break;
                }
                if !take(self, &mut rest, tell) {
                    let left = rest.len();
                    return self.side(sender).keep(unread, left);
                }
            }
            if unread.is_empty() || self.side(sender).is_over() {
                return;
            }
        }
    }

    /// Whether a boundary that was found was none: what is there is no packet of this side.
    fn is_off(&mut self, sender: Sender, mut rest: &[u8]) -> bool {
        if self.side(sender).is_certain() {
            return false;
        }
        match decode(&mut rest, REMAINING_LENGTH_MAX) {
            Ok(Decoded::Packet(packet)) => !words::may_send(sender, packet.packet_type()),
            Ok(Decoded::Incomplete { .. }) => false,
            Err(_) => true,
        }
    }

    /// Finds out whose connection it is, and sets up the judge at the first packet.
    fn recognize(&mut self, time: Option<UnixTime>, front: &[u8], tell: Tell<'_>) {
        if self.is_blamed || self.has_parted || (self.judge.is_some() && self.client_id.is_some()) {
            return;
        }
        let mut front = front;
        let packet = match decode(&mut front, REMAINING_LENGTH_MAX) {
            Ok(Decoded::Packet(packet)) => Some(packet),
            Ok(Decoded::Incomplete { .. }) | Err(_) => None,
        };
        if let (Some(client_id), true) = (self.client_id.as_deref(), self.began_before) {
            self.judge = Judge::connected_as(time, client_id);
        } else if self.client_id.is_some() {
            // It is over in good order.
        } else if let Some(Packet::Connect(connect)) = packet {
            self.began_before = false;
            self.is_accepted = false;
            self.is_clean = connect.clean_session;
            self.judge = Some(Judge::before_connect(time));
            self.know(connect.client_id.as_str());
        } else if !self.began_before {
            self.judge.get_or_insert_with(|| Judge::before_connect(time));
        } else if let Some(client_id) = packet.as_ref().and_then(words::client_id) {
            self.judge = Judge::connected_as(time, &client_id);
            self.know(&client_id);
            self.is_guessed = true;
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
                let warnings = self.judge.as_mut().map(Judge::warnings).unwrap_or_default();
                self.tell_warnings(warnings, time, tell);
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
                    self.device.finish();
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
        self.packets(Sender::Hub, tell, |conversation, rest, tell| {
            let mut front = *rest;
            let packet_type = match decode(&mut front, REMAINING_LENGTH_MAX) {
                Ok(Decoded::Packet(packet)) => Some(packet.packet_type()),
                Ok(Decoded::Incomplete { .. }) | Err(_) => None,
            };
            let has_taken = conversation.decoded(time, Sender::Hub, rest, tell);
            if let (true, Some(packet_type)) = (has_taken, packet_type) {
                conversation.check_hub(time, packet_type, tell);
            }
            has_taken
        });
    }

    fn check_hub(&mut self, time: Option<UnixTime>, packet: PacketType, tell: Tell<'_>) {
        // A CONNACK opens: it was judged when it was told.
        let phase =
            if self.is_accepted && packet != PacketType::ConnAck { Phase::Open } else { Phase::Opening };
        if let (Err(rule), true) = (legality::check(Role::Device, phase, packet), self.hub.is_certain()) {
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
                self.side(sender).finish();
                false
            }
        }
    }

    // --- lines ---

    fn tell_packet(&mut self, time: Option<UnixTime>, sender: Sender, packet: &[u8], tell: Tell<'_>) {
        self.side(sender).found(packet);
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
        tell(&wording::packet(&words::time_of_day(time), &self.name, sender, &text));
        if let (Packet::ConnAck(ConnAck::Refused(code)), false) = (packet, self.is_blamed) {
            self.tell_close(time, &Close::new(CloseReason::Refused(code, Rule::ConnectRefused)), &[], tell);
            self.is_blamed = true;
        }
    }

    /// What a hub takes with a warning, where everything since CONNECT was seen.
    fn tell_warnings(&self, warnings: Vec<Warning>, time: Option<UnixTime>, tell: Tell<'_>) {
        if self.began_before || !self.device.is_certain() {
            return;
        }
        for warning in warnings {
            // A session that is resumed has subscriptions from before.
            if warning.rule != Rule::TwinUnheard || self.is_clean {
                tell(&wording::warned(&words::time_of_day(time), &self.name, &warning));
            }
        }
    }

    /// The device breaks a rule; what comes behind that is told and not judged. A guess is no ground for that.
    fn blame(&mut self, time: Option<UnixTime>, close: &Close, offending: &[u8], tell: Tell<'_>) {
        self.judge = None;
        let rule = close.rule();
        if self.is_guessed && rule == Rule::ForeignIdentity {
            let text = "this topic names another device than the one before; which of the two is connected cannot be told";
            return self.remark(time, text, tell);
        }
        if !self.device.is_good() {
            let text = format!(
                "if this is a packet, it breaks {rule} ({}); where packets begin is a guess here",
                rule.says()
            );
            return self.remark(time, &text, tell);
        }
        self.is_blamed = true;
        self.tell_close(time, close, offending, tell);
    }

    fn tell_close(&self, time: Option<UnixTime>, close: &Close, offending: &[u8], tell: Tell<'_>) {
        tell(&wording::closed(&words::time_of_day(time), &self.name, End { offending, ..End::of(close) }));
    }
}
