//! What a connection carries, as its first bytes tell: MQTT, MQTT in WebSocket, either of them in TLS, or something else.

mod tls;

use std::rc::Rc;

use devicebound::explain::Sender;
use devicebound::time::UnixTime;

use self::tls::Tls;
use super::conversation::{Conversation, Tell};
use super::key_log::KeyLog;
use super::websocket::WebSocket;
use super::words;

/// Bytes that are kept until it is known what they are.
const PENDING_MAX: usize = 4096;
/// The longest front of a CONNECT that tells: type, length of up to four bytes, length of the name, `MQIsdp`.
const CONNECT_FRONT: usize = 13;

/// Session keys of TLS, for all connections.
pub(super) type Secrets = Rc<KeyLog>;

/// What is in a stream of bytes.
#[derive(Debug)]
pub(super) struct Content {
    conversation: Conversation,
    layer: Layer,
    name: String,
    /// The port says that it is MQTT, where the bytes do not say otherwise.
    is_mqtt_port: bool,
    secrets: Secrets,
}

#[derive(Debug)]
enum Layer {
    Unknown(Vec<Pending>),
    Mqtt,
    Http(Box<WebSocket>),
    Tls(Box<Tls>),
    Other,
}

/// Bytes that nobody has looked at yet.
#[derive(Debug)]
struct Pending {
    time: Option<UnixTime>,
    sender: Sender,
    bytes: Vec<u8>,
}

/// What the front of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    /// More bytes are needed.
    Unknown,
    Connect,
    Http,
    Tls,
    /// Something that has a name.
    Named(&'static str),
    Other,
}

impl Content {
    /// `name` stands for the device until CONNECT names it.
    pub(super) fn new(name: &str, is_mqtt_port: bool, secrets: Secrets) -> Self {
        Self {
            conversation: Conversation::inside_a_packet(name),
            layer: Layer::Unknown(Vec::new()),
            name: name.to_owned(),
            is_mqtt_port,
            secrets,
        }
    }

    /// Whether it carries MQTT that could be seen.
    pub(super) fn is_mqtt(&self) -> bool {
        match &self.layer {
            Layer::Mqtt => true,
            Layer::Http(websocket) => websocket.is_upgraded(),
            Layer::Tls(tls) => tls.is_mqtt(),
            Layer::Unknown(_) | Layer::Other => false,
        }
    }

    /// One side sent bytes. `is_whole` says that nothing of it is missing before the first of them.
    pub(super) fn received(
        &mut self,
        time: Option<UnixTime>,
        sender: Sender,
        bytes: &[u8],
        is_whole: bool,
        tell: Tell<'_>,
    ) {
        if is_whole {
            self.conversation.starts_whole(sender);
        }
        let Layer::Unknown(pending) = &mut self.layer else {
            return self.pass_on(time, sender, bytes, tell);
        };
        pending.push(Pending { time, sender, bytes: bytes.to_vec() });
        let front = |sender| -> Vec<u8> {
            let of_sender = pending.iter().filter(|pending| pending.sender == sender);
            of_sender.flat_map(|pending| pending.bytes.iter().copied()).take(PENDING_MAX).collect()
        };
        let (device, hub) = (front(Sender::Device), front(Sender::Hub));
        let is_long = device.len() >= PENDING_MAX || hub.len() >= PENDING_MAX;
        let front = match of_device(&device) {
            // A hub speaks first where the capture began later.
            Front::Unknown if device.is_empty() => of_hub(&hub),
            front => front,
        };
        match front {
            Front::Unknown if !is_long => {}
            Front::Unknown | Front::Other => self.decide(Front::Other, tell),
            front => self.decide(front, tell),
        }
    }

    /// Some bytes of one side are not in the capture; how many is unknown where it may be a FIN.
    pub(super) fn gap(
        &mut self,
        time: Option<UnixTime>,
        sender: Sender,
        missing: Option<u64>,
        tell: Tell<'_>,
    ) {
        if let Layer::Unknown(_) = self.layer {
            self.decide(Front::Unknown, tell);
        }
        match &mut self.layer {
            Layer::Mqtt => self.conversation.gap(time, sender, missing, tell),
            Layer::Http(websocket) => {
                websocket.gap(sender);
                self.conversation.gap(time, sender, missing, tell);
            }
            Layer::Tls(tls) => tls.gap(&self.conversation, time, sender, missing, tell),
            Layer::Unknown(_) | Layer::Other => {}
        }
    }

    /// One side closed the transport, or reset it.
    pub(super) fn ended(&mut self, time: Option<UnixTime>, sender: Sender, reset: bool, tell: Tell<'_>) {
        if let Layer::Unknown(_) = self.layer {
            self.decide(Front::Unknown, tell);
        }
        match &mut self.layer {
            Layer::Mqtt => self.conversation.ended(time, sender, reset, tell),
            Layer::Http(websocket) if websocket.is_upgraded() => {
                self.conversation.ended(time, sender, reset, tell);
            }
            Layer::Tls(tls) => tls.ended(&self.conversation, time, sender, reset, tell),
            Layer::Http(_) | Layer::Unknown(_) | Layer::Other => {}
        }
    }

    /// What this side sends cannot be seen at all.
    pub(super) fn is_unseen(&mut self, sender: Sender) {
        self.conversation.is_unseen(sender);
    }

    /// The hub answers the first segment with a reset.
    pub(super) const fn refused(&mut self) {
        self.conversation.refused();
    }

    /// The capture is over.
    pub(super) fn end(&mut self, tell: Tell<'_>) {
        if matches!(&self.layer, Layer::Unknown(pending) if !pending.is_empty()) {
            self.decide(Front::Unknown, tell);
        }
        match &mut self.layer {
            Layer::Mqtt | Layer::Http(_) => self.conversation.end(tell),
            Layer::Tls(tls) => tls.end(&self.conversation, tell),
            Layer::Unknown(_) | Layer::Other => {}
        }
    }

    fn decide(&mut self, front: Front, tell: Tell<'_>) {
        let layer = match front {
            Front::Connect => Layer::Mqtt,
            Front::Http => Layer::Http(Box::default()),
            Front::Tls => {
                Layer::Tls(Box::new(Tls::new(&self.name, self.is_mqtt_port, Rc::clone(&self.secrets))))
            }
            Front::Unknown | Front::Other if self.is_mqtt_port => Layer::Mqtt,
            Front::Named(_) | Front::Unknown | Front::Other => Layer::Other,
        };
        if let Front::Named(name) = front
            && self.is_mqtt_port
        {
            self.conversation.remark(None, &format!("this is {name}, on a port of MQTT"), tell);
        }
        if let Layer::Unknown(pending) = std::mem::replace(&mut self.layer, layer) {
            for Pending { time, sender, bytes } in pending {
                self.pass_on(time, sender, &bytes, tell);
            }
        }
    }

    fn pass_on(&mut self, time: Option<UnixTime>, sender: Sender, bytes: &[u8], tell: Tell<'_>) {
        match &mut self.layer {
            Layer::Mqtt => self.conversation.received(time, sender, bytes, tell),
            Layer::Http(websocket) => {
                websocket.received(&mut self.conversation, time, sender, bytes, tell);
            }
            Layer::Tls(tls) => tls.received(&self.conversation, time, sender, bytes, tell),
            Layer::Unknown(_) | Layer::Other => {}
        }
    }
}

fn of_device(bytes: &[u8]) -> Front {
    if bytes.is_empty() {
        return Front::Unknown;
    }
    if let front @ (Front::Tls | Front::Named(_)) = of_either(bytes) {
        return front;
    }
    if words::is_front_of(bytes, b"GET ") {
        return if bytes.len() < 4 { Front::Unknown } else { Front::Http };
    }
    let methods: [&[u8]; 6] = [b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"HEAD ", b"OPTIONS "];
    if methods.iter().any(|method| bytes.starts_with(method)) {
        return Front::Named("HTTP");
    }
    match begins_with_connect(bytes) {
        Some(true) => Front::Connect,
        None => Front::Unknown,
        Some(false) if of_either(bytes) == Front::Unknown => Front::Unknown,
        Some(false) if methods.iter().any(|method| words::is_front_of(bytes, method)) => Front::Unknown,
        Some(false) => Front::Other,
    }
}

fn of_hub(bytes: &[u8]) -> Front {
    if bytes.is_empty() {
        return Front::Unknown;
    }
    if words::is_front_of(bytes, b"HTTP/1.") {
        return if bytes.len() < 7 { Front::Unknown } else { Front::Named("HTTP") };
    }
    of_either(bytes)
}

/// What begins in the same way on both sides.
fn of_either(bytes: &[u8]) -> Front {
    match bytes {
        // A record of TLS: its type, the version, and a length that is not 0.
        [20..=23, 3, 0..=4, high, low, ..]
            if (1..=18 * 1024).contains(&u16::from_be_bytes([*high, *low])) =>
        {
            Front::Tls
        }
        [b'A', b'M', b'Q', b'P', ..] => Front::Named("AMQP"),
        [b'P', b'R', b'O', b'X', b'Y', b' ', ..] | [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, ..] => {
            Front::Named("the PROXY protocol of a load balancer; capture behind it")
        }
        [b'S', b'S', b'H', b'-', ..] => Front::Named("SSH"),
        [20..=23] | [20..=23, 3] | [20..=23, 3, 0..=4] | [20..=23, 3, 0..=4, _] => Front::Unknown,
        [0x0d, ..] if bytes.len() < 8 => Front::Unknown,
        _ if [&b"AMQP"[..], b"SSH-", b"PROXY "].iter().any(|front| words::is_front_of(bytes, front)) => {
            Front::Unknown
        }
        _ => Front::Other,
    }
}

/// Whether bytes are the front of a CONNECT: its type, and the name of the protocol behind the length.
fn begins_with_connect(bytes: &[u8]) -> Option<bool> {
    let (first, rest) = bytes.split_first()?;
    if *first != 0x10 {
        return Some(false);
    }
    let length = rest.iter().take_while(|byte| **byte & 0x80 != 0).count();
    let name = rest.get(length + 1..).filter(|name| name.len() >= 4);
    match name {
        _ if length > 3 => Some(false),
        Some(name) => Some(matches!(name, [0, 4 | 6, b'M', b'Q', ..])),
        None if bytes.len() < CONNECT_FRONT => None,
        None => Some(false),
    }
}
