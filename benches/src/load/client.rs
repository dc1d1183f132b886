//! One connection of the load.

use std::io::{self, Read as _, Write as _};
use std::time::Instant;

use devicebound::packet::{ConnAck, Decoded, Packet, PacketId, Publish, PublishQoS, TopicName, decode};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ClientConnection;

use super::target::Way;

/// Packets on their way, and when each was sent.
#[derive(Debug)]
struct InFlight {
    /// By packet id, modulo the window.
    sent: Vec<Instant>,
    next: u16,
    count: usize,
}

/// A device that publishes.
#[derive(Debug)]
pub struct Client {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Not yet given to TLS or the socket.
    out: Vec<u8>,
    rest: Vec<u8>,
    /// A PUBLISH but for its packet id, and where that stands.
    publish: Vec<u8>,
    packet_id_at: usize,
    in_flight: InFlight,
    /// CONNACK has come.
    pub is_connected: bool,
}

impl Client {
    /// Begins to connect.
    ///
    /// # Errors
    /// When the system has no socket left.
    pub fn start(
        way: &Way,
        number: usize,
        payload: usize,
        window: usize,
        registry: &Registry,
        now: Instant,
    ) -> io::Result<Self> {
        let mut tcp = TcpStream::connect(way.address)?;
        tcp.set_nodelay(true)?;
        registry.register(&mut tcp, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        let topic = format!("devices/{}/messages/events/", way.client_id(number));
        let (publish, packet_id_at) = publish(&topic, payload)?;
        Ok(Self {
            tcp,
            tls: way.tls()?.map(Box::new),
            out: way.connect(number)?,
            rest: Vec::new(),
            publish,
            packet_id_at,
            in_flight: InFlight { sent: vec![now; window], next: 1, count: 0 },
            is_connected: false,
        })
    }

    /// How many further messages the window has room for.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.in_flight.sent.len() - self.in_flight.count
    }

    /// Puts so many messages behind what is to be written.
    pub fn publish(&mut self, count: usize, now: Instant) {
        for _ in 0..count {
            let id = self.in_flight.take(now);
            let start = self.out.len();
            self.out.extend_from_slice(&self.publish);
            let at = start + self.packet_id_at;
            if let Some(place) = self.out.get_mut(at..at + 2) {
                place.copy_from_slice(&id.to_be_bytes());
            }
        }
    }

    /// Writes what can be written.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn write(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => {
                if !self.out.is_empty() && !tls.is_handshaking() {
                    let count = tls.writer().write(&self.out)?;
                    self.out.drain(..count);
                }
                while tls.wants_write() {
                    if would_block(tls.write_tls(&mut self.tcp))?.is_none() {
                        break;
                    }
                }
            }
            None => {
                if !self.out.is_empty()
                    && let Some(count) = would_block(self.tcp.write(&self.out))?
                {
                    self.out.drain(..count);
                }
            }
        }
        Ok(())
    }

    /// Reads what has come, and counts what was acknowledged.
    ///
    /// # Errors
    /// When the connection is lost, or the server says what it should not.
    pub fn read(
        &mut self,
        scratch: &mut [u8],
        now: Instant,
        latencies: &mut Histogram<u64>,
    ) -> io::Result<usize> {
        let mut acknowledged = 0;
        loop {
            let count = match &mut self.tls {
                Some(tls) => {
                    let Some(count) = would_block(tls.read_tls(&mut self.tcp))? else {
                        return Ok(acknowledged);
                    };
                    tls.process_new_packets().map_err(io::Error::other)?;
                    while let Some(count) =
                        would_block(tls.reader().read(scratch))?.filter(|count| *count > 0)
                    {
                        let bytes = scratch.get(..count).unwrap_or_default();
                        self.rest.extend_from_slice(bytes);
                    }
                    count
                }
                None => {
                    let Some(count) = would_block(self.tcp.read(scratch))? else { return Ok(acknowledged) };
                    self.rest.extend_from_slice(scratch.get(..count).unwrap_or_default());
                    count
                }
            };
            acknowledged += self.decode(now, latencies)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.tls.is_none() && count < scratch.len() {
                return Ok(acknowledged);
            }
        }
    }

    fn decode(&mut self, now: Instant, latencies: &mut Histogram<u64>) -> io::Result<usize> {
        let mut input = self.rest.as_slice();
        let mut acknowledged = 0;
        while let Decoded::Packet(packet) = decode(&mut input, usize::MAX).map_err(io::Error::other)? {
            match packet {
                Packet::PubAck(id) => {
                    acknowledged += 1;
                    let sent = self.in_flight.done(id.get())?;
                    let waited = u64::try_from((now - sent).as_nanos()).unwrap_or(u64::MAX);
                    latencies.saturating_record(waited);
                }
                Packet::ConnAck(ConnAck::Accepted { .. }) => self.is_connected = true,
                other => return Err(io::Error::other(format!("the server answered {other:?}"))),
            }
        }
        let taken = self.rest.len() - input.len();
        self.rest.drain(..taken);
        Ok(acknowledged)
    }

    /// The socket is of no more use.
    pub fn forget(mut self, registry: &Registry) {
        // One that is closed already needs no taking out.
        let _ = registry.deregister(&mut self.tcp);
    }
}

impl InFlight {
    /// The next packet id: 1 to the largest multiple of the window, so that ids in flight differ modulo the window.
    fn take(&mut self, now: Instant) -> u16 {
        let id = self.next;
        let window = self.sent.len();
        if let Some(sent) = self.sent.get_mut(usize::from(id) % window) {
            *sent = now;
        }
        let last = usize::from(u16::MAX) / window * window;
        self.next = if usize::from(id) >= last { 1 } else { id + 1 };
        self.count += 1;
        id
    }

    fn done(&mut self, id: u16) -> io::Result<Instant> {
        self.count = self.count.checked_sub(1).ok_or_else(|| io::Error::other("a PUBACK too many"))?;
        self.sent
            .get(usize::from(id) % self.sent.len())
            .copied()
            .ok_or_else(|| io::Error::other("a window of 0"))
    }
}

fn publish(topic: &str, payload: usize) -> io::Result<(Vec<u8>, usize)> {
    let payload = vec![b'x'; payload];
    let qos =
        PublishQoS::AtLeastOnce { packet_id: PacketId::new(1).ok_or(io::ErrorKind::Other)?, dup: false };
    let topic = TopicName::new(topic).map_err(|_| io::Error::other("this is no topic name"))?;
    let mut bytes = Vec::new();
    Packet::Publish(Publish { qos, retain: false, topic, payload: &payload })
        .encode(&mut bytes)
        .map_err(io::Error::other)?;
    let packet_id_at = bytes.len() - payload.len() - 2;
    Ok((bytes, packet_id_at))
}

fn would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
