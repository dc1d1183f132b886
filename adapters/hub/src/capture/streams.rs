//! TCP put together again: from segments to the bytes of each side, in order, and from those to conversations.

use std::collections::HashMap;
use std::net::SocketAddr;

use devicebound::explain::Sender;
use devicebound::time::UnixTime;

use super::content::{Content, Secrets};
use super::direction::{Direction, Piece, Position};
use super::link::Segment;

/// Connections that are looked at at a time, so that the capture of a port scan does not fill the memory.
const CONNECTIONS_MAX: usize = 10_000;
/// Ports of MQTT, without and with TLS.
const MQTT_PORTS: [u16; 2] = [1883, 8883];
/// Ports of hubs, in the order in which they tell which side listens.
const HUB_PORTS: [u16; 5] = [1883, 8883, 443, 5671, 80];

/// All connections of a capture.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// By the two ends, the hub's second.
    connections: HashMap<(SocketAddr, SocketAddr), Connection>,
    /// Connections that carry something else than MQTT.
    others: usize,
    /// Session keys of TLS.
    secrets: Secrets,
}

#[derive(Debug)]
struct Connection {
    content: Content,
    device: Direction,
    hub: Direction,
    position: Position,
}

impl Streams {
    pub(super) fn new(secrets: Secrets) -> Self {
        Self { secrets, ..Self::default() }
    }

    /// Takes the next segment of the capture.
    pub(super) fn segment(&mut self, segment: &Segment<'_>, tell: &mut dyn FnMut(&str)) {
        let (key, sender) = self.key(segment);
        if self.connections.get(&key).is_some_and(|connection| connection.is_another(sender, segment)) {
            // The ports are used again.
            self.finish(key, tell);
        }
        if self.connections.len() >= CONNECTIONS_MAX && !self.connections.contains_key(&key) {
            tell(&format!(
                "there are more than {CONNECTIONS_MAX} connections: what follows of those above is told as of others"
            ));
            self.finish_all(tell);
        }
        let secrets = &self.secrets;
        let connection = self.connections.entry(key).or_insert_with(|| Connection::new(key, secrets.clone()));
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
            if !connection.content.is_mqtt() {
                self.others = self.others.saturating_add(1);
            }
        }
    }

    /// Which connection a segment belongs to, and who sent it: the device opens the connection.
    fn key(&self, segment: &Segment<'_>) -> ((SocketAddr, SocketAddr), Sender) {
        let (from_device, from_hub) = ((segment.from, segment.to), (segment.to, segment.from));
        let port = |port: u16| HUB_PORTS.iter().position(|known| *known == port).unwrap_or(HUB_PORTS.len());
        let (from, to) = (segment.from.port(), segment.to.port());
        let is_from_device = if segment.syn {
            !segment.ack
        } else if self.connections.contains_key(&from_device) {
            true
        } else if self.connections.contains_key(&from_hub) {
            false
        } else if port(to) != port(from) {
            port(to) < port(from)
        } else {
            // Who answers listens on a port below those that are handed out.
            from > to
        };
        if is_from_device { (from_device, Sender::Device) } else { (from_hub, Sender::Hub) }
    }
}

impl Connection {
    fn new(key: (SocketAddr, SocketAddr), secrets: Secrets) -> Self {
        let content = Content::new(&key.0.to_string(), MQTT_PORTS.contains(&key.1.port()), secrets);
        let (device, hub) = Default::default();
        Self { content, device, hub, position: Position::default() }
    }

    fn is_another(&self, sender: Sender, segment: &Segment<'_>) -> bool {
        match sender {
            Sender::Device => self.device.is_of_another(segment),
            Sender::Hub => self.hub.is_of_another(segment),
        }
    }

    fn segment(&mut self, sender: Sender, segment: &Segment<'_>, tell: &mut dyn FnMut(&str)) {
        self.position.segments = self.position.segments.saturating_add(1);
        self.position.time = segment.time;
        let position = self.position;
        let (own, other) = match sender {
            Sender::Device => (&mut self.device, &mut self.hub),
            Sender::Hub => (&mut self.hub, &mut self.device),
        };
        if segment.rst && sender == Sender::Hub && !own.has_begun() && other.is_from_the_start() {
            self.content.refused();
        }
        if let Some(number) = segment.acknowledges {
            other.acknowledge(number, position);
        }
        let after = other.acknowledgement(segment.acknowledges);
        own.take(segment, position, after);
        self.pump(tell);
    }

    /// Gives everything whose turn it is, and what is lost by now.
    fn pump(&mut self, tell: &mut dyn FnMut(&str)) {
        let now = self.position;
        loop {
            let piece = self.ready(None).or_else(|| self.settle(now)).or_else(|| self.ready(Some(now)));
            let Some((sender, time, piece)) = piece else { return };
            self.give(sender, time, piece, tell);
        }
    }

    fn ready(&mut self, now: Option<Position>) -> Option<SentPiece> {
        let of_device = self.device.ready(&self.hub, now).map(|piece| of(Sender::Device, piece));
        of_device.or_else(|| self.hub.ready(&self.device, now).map(|piece| of(Sender::Hub, piece)))
    }

    fn settle(&mut self, now: Position) -> Option<SentPiece> {
        let of_device = self.device.settle(now).map(|piece| of(Sender::Device, piece));
        of_device.or_else(|| self.hub.settle(now).map(|piece| of(Sender::Hub, piece)))
    }

    fn give_up(&mut self) -> Option<SentPiece> {
        let of_device = self.device.give_up().map(|piece| of(Sender::Device, piece));
        of_device.or_else(|| self.hub.give_up().map(|piece| of(Sender::Hub, piece)))
    }

    fn end(&mut self, tell: &mut dyn FnMut(&str)) {
        // Nothing more comes: what was waited for is lost.
        self.position = Position { segments: u64::MAX, time: self.position.time };
        self.pump(tell);
        while let Some((sender, time, piece)) = self.give_up() {
            self.give(sender, time, piece, tell);
            self.pump(tell);
        }
        self.content.end(tell);
    }

    fn give(&mut self, sender: Sender, time: Option<u64>, piece: Piece, tell: &mut dyn FnMut(&str)) {
        let time = time.map(UnixTime::from_millis);
        let direction = match sender {
            Sender::Device => &self.device,
            Sender::Hub => &self.hub,
        };
        match piece {
            Piece::Bytes(bytes) => {
                let is_start = direction.is_from_the_start();
                self.content.received(time, sender, &bytes, is_start, tell);
            }
            Piece::Gap(missing) => self.content.gap(time, sender, Some(missing), tell),
            Piece::GapOrFin => self.content.gap(time, sender, None, tell),
            Piece::End { reset } => self.content.ended(time, sender, reset, tell),
        }
    }
}

/// A piece with its sender and its time.
type SentPiece = (Sender, Option<u64>, Piece);

fn of(sender: Sender, (time, piece): (Option<u64>, Piece)) -> SentPiece {
    (sender, time, piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_scan_is_not_kept_in_memory() {
        let mut streams = Streams::default();
        let mut lines = Vec::new();
        for number in 0..3 * CONNECTIONS_MAX {
            let address = u32::try_from(number).unwrap().to_be_bytes();
            let syn = Segment {
                time: Some(0),
                from: (std::net::Ipv4Addr::from(address), 40_000).into(),
                to: ([127, 0, 0, 1], 1).into(),
                sequence: 1,
                acknowledges: None,
                ack: false,
                syn: true,
                fin: false,
                rst: false,
                payload: b"",
                cut: 0,
            };
            streams.segment(&syn, &mut |line| lines.push(line.to_owned()));
            assert!(streams.connections.len() <= CONNECTIONS_MAX);
        }
        streams.end(&mut |line| lines.push(line.to_owned()));
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[2].starts_with("30000 TCP connections"), "{lines:?}");
    }
}
