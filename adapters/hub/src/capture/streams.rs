//! TCP put together again: from segments to the bytes of each side, in order, and from those to conversations.

use std::collections::HashMap;
use std::net::SocketAddr;

use devicebound::explain::Sender;
use devicebound::time::UnixTime;

use super::Conversation;
use super::frames::Segment;

/// Segments of one direction that may wait for one that is missing; then that one counts as lost.
const WAITING_MAX: usize = 1000;
/// Connections that are looked at at a time, so that the capture of a port scan does not fill the memory.
const CONNECTIONS_MAX: usize = 10_000;
/// Ports of MQTT, without and with TLS.
const MQTT_PORTS: [u16; 2] = [1883, 8883];

/// All connections of a capture.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// By the two ends, the hub's second.
    connections: HashMap<(SocketAddr, SocketAddr), Connection>,
    /// Connections that carry something else than MQTT.
    others: usize,
}

#[derive(Debug)]
struct Connection {
    conversation: Conversation,
    device: Direction,
    hub: Direction,
    kind: Kind,
}

/// What a connection carries, as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unknown,
    Mqtt,
    Other,
}

/// One side's bytes.
#[derive(Debug, Default)]
struct Direction {
    /// The next sequence number; unknown before the first segment.
    next: Option<u32>,
    /// Segments that came before their turn.
    waiting: Vec<(u32, Vec<u8>)>,
    has_ended: bool,
}

/// What comes out of a direction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    /// So many bytes are not in the capture.
    Gap(u32),
}

impl Streams {
    /// Takes the next segment of the capture.
    pub(super) fn segment(&mut self, segment: &Segment<'_>, tell: &mut dyn FnMut(&str)) {
        let (key, sender) = self.key(segment);
        if segment.syn && !segment.ack && self.connections.get(&key).is_some_and(Connection::has_spoken) {
            // The ports are used again.
            self.finish(key, tell);
        }
        if self.connections.len() >= CONNECTIONS_MAX && !self.connections.contains_key(&key) {
            tell(&format!(
                "there are more than {CONNECTIONS_MAX} connections: what follows of those above is told as of others"
            ));
            self.finish_all(tell);
        }
        let connection = self.connections.entry(key).or_insert_with(|| Connection::new(key, segment.syn));
        connection.segment(sender, segment, tell);
    }

    /// The capture is over.
    pub(super) fn end(mut self, tell: &mut dyn FnMut(&str)) {
        self.finish_all(tell);
        if self.others > 0 {
            tell(&format!("{} TCP connections carry something else than MQTT", self.others));
        }
    }

    fn finish_all(&mut self, tell: &mut dyn FnMut(&str)) {
        let mut keys: Vec<_> = self.connections.keys().copied().collect();
        keys.sort_unstable();
        for key in keys {
            self.finish(key, tell);
        }
    }

    fn finish(&mut self, key: (SocketAddr, SocketAddr), tell: &mut dyn FnMut(&str)) {
        if let Some(mut connection) = self.connections.remove(&key) {
            connection.end(tell);
            if connection.kind != Kind::Mqtt {
                self.others = self.others.saturating_add(1);
            }
        }
    }

    /// Which connection a segment belongs to, and who sent it: the device opens the connection.
    fn key(&self, segment: &Segment<'_>) -> ((SocketAddr, SocketAddr), Sender) {
        let (from_device, from_hub) = ((segment.from, segment.to), (segment.to, segment.from));
        let is_from_device = if segment.syn {
            !segment.ack
        } else if self.connections.contains_key(&from_device) {
            true
        } else if self.connections.contains_key(&from_hub) {
            false
        } else if MQTT_PORTS.contains(&segment.to.port()) {
            true
        } else if MQTT_PORTS.contains(&segment.from.port()) {
            false
        } else {
            // Who answers listens on a port below those that are handed out.
            segment.from.port() > segment.to.port()
        };
        if is_from_device { (from_device, Sender::Device) } else { (from_hub, Sender::Hub) }
    }
}

impl Connection {
    fn new(key: (SocketAddr, SocketAddr), from_the_start: bool) -> Self {
        let name = key.0.to_string();
        Self {
            conversation: if from_the_start {
                Conversation::from_the_start(&name)
            } else {
                Conversation::in_the_middle(&name)
            },
            device: Direction::default(),
            hub: Direction::default(),
            kind: if MQTT_PORTS.contains(&key.1.port()) { Kind::Mqtt } else { Kind::Unknown },
        }
    }

    fn segment(&mut self, sender: Sender, segment: &Segment<'_>, tell: &mut dyn FnMut(&str)) {
        let time = Some(UnixTime::from_millis(segment.time));
        let direction = self.direction(sender);
        let mut pieces = direction.take(segment);
        let ends = (segment.fin || segment.rst) && !direction.has_ended;
        if ends {
            direction.has_ended = true;
            pieces.extend(direction.rest());
        }
        self.tell(time, sender, pieces, tell);
        if ends && self.kind == Kind::Mqtt {
            self.conversation.ended(time, sender, segment.rst, tell);
        }
    }

    fn end(&mut self, tell: &mut dyn FnMut(&str)) {
        for sender in [Sender::Device, Sender::Hub] {
            let rest = self.direction(sender).rest();
            self.tell(None, sender, rest, tell);
        }
        if self.kind == Kind::Mqtt {
            self.conversation.end(tell);
        }
    }

    fn tell(
        &mut self,
        time: Option<UnixTime>,
        sender: Sender,
        pieces: Vec<Piece>,
        tell: &mut dyn FnMut(&str),
    ) {
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => {
                    self.look_at(time, sender, &bytes, tell);
                    if self.kind == Kind::Mqtt {
                        self.conversation.received(time, sender, &bytes, tell);
                    }
                }
                Piece::Gap(missing) if self.kind == Kind::Mqtt => {
                    self.conversation.gap(time, sender, missing, tell);
                }
                Piece::Gap(_) => {}
            }
        }
    }

    /// Judges by the first bytes of a connection what it carries.
    fn look_at(&mut self, time: Option<UnixTime>, sender: Sender, bytes: &[u8], tell: &mut dyn FnMut(&str)) {
        if self.conversation.has_begun() || self.kind == Kind::Other {
            return;
        }
        if bytes.starts_with(&[0x16, 3]) {
            if self.kind == Kind::Mqtt {
                let text = "TLS, which hides what is inside; see the hub's own live view, or capture where TLS has ended";
                self.conversation.remark(time, text, tell);
            }
            self.kind = Kind::Other;
        } else if bytes.starts_with(b"GET /$iothub/websocket") {
            self.conversation.remark(time, "MQTT over WebSocket, whose frames are not looked into", tell);
            self.kind = Kind::Other;
        } else if self.kind == Kind::Unknown {
            let is_connect = sender == Sender::Device && begins_with_connect(bytes);
            self.kind = if is_connect { Kind::Mqtt } else { Kind::Other };
        }
    }

    const fn direction(&mut self, sender: Sender) -> &mut Direction {
        match sender {
            Sender::Device => &mut self.device,
            Sender::Hub => &mut self.hub,
        }
    }

    fn has_spoken(&self) -> bool {
        self.conversation.has_begun() || self.device.has_ended || self.hub.has_ended
    }
}

/// Whether bytes are the front of a CONNECT: its type, and the name of the protocol behind the length.
fn begins_with_connect(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x10) && bytes.get(..12).unwrap_or(bytes).windows(2).any(|pair| pair == b"MQ")
}

impl Direction {
    /// Takes a segment, and gives what is in order now. What was there before is not given again.
    fn take(&mut self, segment: &Segment<'_>) -> Vec<Piece> {
        if segment.syn {
            self.next = Some(segment.sequence.wrapping_add(1));
        }
        if !segment.payload.is_empty() {
            self.next.get_or_insert(segment.sequence);
            self.waiting.push((segment.sequence, segment.payload.to_vec()));
        }
        let mut pieces = self.in_order();
        if self.waiting.len() > WAITING_MAX {
            pieces.extend(self.skip());
            pieces.extend(self.in_order());
        }
        pieces
    }

    /// Everything that waits, with the gaps in it.
    fn rest(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while let Some(gap) = self.skip() {
            pieces.push(gap);
            pieces.extend(self.in_order());
        }
        pieces
    }

    /// The segments whose turn it is.
    fn in_order(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let Some(mut next) = self.next else { return pieces };
        while let Some(index) = self.waiting.iter().position(|(sequence, _)| behind(next, *sequence) >= 0) {
            let (sequence, bytes) = self.waiting.swap_remove(index);
            // What overlaps was given before.
            let overlap = usize::try_from(behind(next, sequence)).unwrap_or_default();
            if let Some(new) = bytes.get(overlap..).filter(|new| !new.is_empty()) {
                next = next.wrapping_add(u32::try_from(new.len()).unwrap_or(u32::MAX));
                pieces.push(Piece::Bytes(new.to_vec()));
            }
        }
        self.next = Some(next);
        pieces
    }

    /// Goes on with the nearest segment that waits, and says how much is missing before it.
    fn skip(&mut self) -> Option<Piece> {
        let next = self.next?;
        let missing = self.waiting.iter().map(|(sequence, _)| sequence.wrapping_sub(next)).min()?;
        self.next = Some(next.wrapping_add(missing));
        Some(Piece::Gap(missing))
    }
}

/// How far `sequence` lies behind `next`; negative when it is still to come. Sequence numbers wrap (RFC 9293 §3.4).
fn behind(next: u32, sequence: u32) -> i32 {
    next.wrapping_sub(sequence).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u32, payload: &[u8]) -> Segment<'_> {
        let end = ([127, 0, 0, 1], 1).into();
        Segment {
            time: 0,
            from: end,
            to: end,
            sequence,
            syn: false,
            ack: true,
            fin: false,
            rst: false,
            payload,
        }
    }

    fn bytes(pieces: Vec<Piece>) -> Vec<u8> {
        let bytes = pieces.into_iter().map(|piece| match piece {
            Piece::Bytes(bytes) => bytes,
            Piece::Gap(_) => Vec::new(),
        });
        bytes.collect::<Vec<_>>().concat()
    }

    #[test]
    fn segments_are_put_in_order_and_what_came_twice_counts_once() {
        let mut direction = Direction { next: Some(u32::MAX - 1), ..Direction::default() };
        assert_eq!(bytes(direction.take(&segment(1, b"de"))), b"");
        assert_eq!(bytes(direction.take(&segment(u32::MAX - 1, b"abc"))), b"abcde", "numbers wrap");
        assert_eq!(bytes(direction.take(&segment(1, b"de"))), b"");
        assert_eq!(bytes(direction.take(&segment(2, b"ef"))), b"f", "the rest of an overlap");
    }

    #[test]
    fn what_is_missing_is_counted_and_what_comes_behind_it_is_not_lost() {
        let mut direction = Direction { next: Some(10), ..Direction::default() };
        assert_eq!(direction.take(&segment(15, b"x")), []);
        assert_eq!(direction.rest(), [Piece::Gap(5), Piece::Bytes(b"x".to_vec())]);
    }

    #[test]
    fn a_port_scan_is_not_kept_in_memory() {
        let mut streams = Streams::default();
        let mut lines = Vec::new();
        for number in 0..3 * CONNECTIONS_MAX {
            let address = u32::try_from(number).unwrap().to_be_bytes();
            let from = (std::net::Ipv4Addr::from(address), 40_000).into();
            let syn = Segment { syn: true, ack: false, from, ..segment(1, b"") };
            streams.segment(&syn, &mut |line| lines.push(line.to_owned()));
            assert!(streams.connections.len() <= CONNECTIONS_MAX);
        }
        streams.end(&mut |line| lines.push(line.to_owned()));
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[2].starts_with("30000 TCP connections"), "{lines:?}");
    }

    #[test]
    fn a_direction_does_not_wait_for_ever() {
        let mut direction = Direction { next: Some(0), ..Direction::default() };
        let mut given = 0;
        for number in 0..5000 {
            given += direction.take(&segment(100 + number * 2, b"x")).len();
        }
        assert!(direction.waiting.len() <= WAITING_MAX);
        assert!(given > 0);
    }
}
