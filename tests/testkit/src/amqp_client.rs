//! An AMQP 1.0 client made of bytes, over any blocking stream: it reads events as fast as they come. It speaks to a hub and to
//! RabbitMQ alike, and knows no more of AMQP than that needs.

use std::io::{self, Read, Write};
use std::ops::Range;

use devicebound_amqp::frame::{AMQP_HEADER, SASL_HEADER, decode};
use devicebound_amqp::message::{Body, Message, data};
use devicebound_amqp::performative::Performative;
use devicebound_amqp::types::Writer as _;

/// Bytes that are read at a time.
const READ: usize = 256 * 1024;
/// Transfers that a peer may send before the next flow.
const WINDOW: u32 = 1 << 30;
/// Messages that a link asks for at a time; half of them later it asks again.
const CREDIT: u32 = 20_000;
/// The largest frame that is taken.
const FRAME_MAX: u32 = 65_536;

/// An event, as a reader of a partition sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number in the partition.
    pub sequence: i64,
    /// Its number in the hub.
    pub cursor: u64,
    /// Who sent it.
    pub device_id: String,
    /// What it says.
    pub body: Vec<u8>,
}

/// A client with one session.
#[derive(Debug)]
pub struct AmqpClient<S> {
    stream: S,
    rx: Vec<u8>,
    /// What of it was not looked at yet.
    unread: Range<usize>,
    tx: Vec<u8>,
    links: u32,
}

/// One frame's body, in the receive buffer.
type Frame = Range<usize>;

impl<S: Read + Write> AmqpClient<S> {
    /// Connects with SASL PLAIN and begins a session.
    ///
    /// # Errors
    /// When the server refuses, or is gone.
    pub fn open(stream: S, host: &str, user: &str, password: &str) -> io::Result<Self> {
        let mut client = Self { stream, rx: vec![0; 2 * READ], unread: 0..0, tx: Vec::new(), links: 0 };
        client.tx.extend(SASL_HEADER);
        client.header(&SASL_HEADER)?;
        client.frame()?;
        sasl_init(&mut client.tx, user, password);
        let outcome = client.frame()?;
        // A list that begins with a ubyte, which is 0 where all is well (§5.3.3.6).
        if !client.rx[outcome].windows(2).any(|code| code == [0x50, 0]) {
            return Err(io::Error::other("the server refuses user or password"));
        }
        client.tx.extend(AMQP_HEADER);
        client.header(&AMQP_HEADER)?;
        begin(&mut client.tx, host);
        client.expect("begin", |performative| matches!(performative, Performative::Begin(_)))?;
        Ok(client)
    }

    /// Attaches a receiver, which gets messages settled; gives its handle.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn receiver(&mut self, address: &str) -> io::Result<u32> {
        self.attach(true, address, None)
    }

    /// Attaches a sender; gives its handle.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn sender(&mut self, address: &str) -> io::Result<u32> {
        let handle = self.attach(false, address, None)?;
        self.expect("credit", |performative| matches!(performative, Performative::Flow(_)))?;
        Ok(handle)
    }

    fn attach(&mut self, is_receiver: bool, address: &str, filter: Option<&str>) -> io::Result<u32> {
        let handle = self.links;
        self.links += 1;
        attach(&mut self.tx, handle, is_receiver, address, filter);
        self.expect("attach", |performative| matches!(performative, Performative::Attach(_)))?;
        Ok(handle)
    }

    /// Counts messages of these receivers as they come, so many together.
    ///
    /// # Errors
    /// When the server ends anything, or is gone.
    pub fn count(&mut self, receivers: &[u32], messages: u64) -> io::Result<()> {
        // Of each link, by its handle: messages that came, and those that were asked for.
        let mut links = vec![(0_u64, 0_u64); self.links as usize];
        for receiver in receivers {
            self.flow(*receiver, 0, CREDIT, false);
            links[*receiver as usize].1 = CREDIT.into();
        }
        let mut seen = 0;
        while seen < messages {
            let frame = self.frame()?;
            let handle = match self.performative(frame)? {
                Performative::Transfer(transfer, _) if !transfer.more => transfer.handle,
                Performative::Detach(_) | Performative::End(_) | Performative::Close(_) => {
                    return Err(io::Error::other("the server has ended what was read"));
                }
                _ => continue,
            };
            seen += 1;
            let link = links.get_mut(handle as usize).ok_or_else(|| io::Error::other("another handle"))?;
            link.0 += 1;
            if link.0 + u64::from(CREDIT / 2) >= link.1 {
                link.1 = link.0 + u64::from(CREDIT);
                let came = link.0;
                self.flow(handle, came, CREDIT, false);
            }
        }
        Ok(())
    }

    /// All events that a partition has now, from this sequence number on.
    ///
    /// # Errors
    /// When the server ends anything, is gone, or sends what is no event.
    pub fn drain(&mut self, address: &str, from: i64) -> io::Result<Vec<Event>> {
        let filter = format!("amqp.annotation.x-opt-sequence-number >= '{from}'");
        let handle = self.attach(true, address, Some(&filter))?;
        let (mut events, mut payload) = (Vec::new(), Vec::new());
        loop {
            self.flow(handle, events.len() as u64, CREDIT, true);
            let before = events.len();
            loop {
                let frame = self.frame()?;
                match self.performative(frame)? {
                    Performative::Transfer(transfer, part) => {
                        payload.extend_from_slice(part);
                        if !transfer.more {
                            events.push(Event::read(&payload)?);
                            payload.clear();
                        }
                    }
                    // Nothing is left, or no credit (§2.6.7).
                    Performative::Flow(flow) if flow.handle == Some(handle) => break,
                    _ => {}
                }
            }
            if events.len() - before < CREDIT as usize {
                self.write(0, 0x16, |tx| {
                    tx.uint(handle);
                    tx.boolean(true);
                    2
                });
                self.expect("detach", |performative| matches!(performative, Performative::Detach(_)))?;
                return Ok(events);
            }
        }
    }

    /// Sends so many messages with this body, and waits until the server has the last.
    ///
    /// # Errors
    /// When the server ends anything, or is gone.
    pub fn send(&mut self, handle: u32, body: &[u8], messages: u64) -> io::Result<()> {
        let mut payload = Vec::new();
        data(&mut payload, body);
        for number in 0..messages {
            let id = number as u32;
            self.write_with(0, 0x14, &payload, |tx| {
                tx.uint(handle);
                tx.uint(id);
                tx.binary(&id.to_be_bytes());
                tx.uint(0);
                tx.boolean(number + 1 < messages);
                5
            });
            if self.tx.len() >= READ {
                self.flush()?;
            }
        }
        self.expect("outcome", |performative| matches!(performative, Performative::Disposition(_)))
    }

    /// Closes the connection and waits until the server has.
    ///
    /// # Errors
    /// When the server is gone before it has said so.
    pub fn close(mut self) -> io::Result<()> {
        self.write(0, 0x18, |_| 0);
        self.expect("close", |performative| matches!(performative, Performative::Close(_)))
    }

    /// The stream, for what is beside the protocol.
    #[must_use]
    pub const fn stream(&self) -> &S {
        &self.stream
    }

    /// Grants credit for messages behind the first `received`; with `drains`, the server says when there is nothing more.
    pub fn flow(&mut self, handle: u32, received: u64, credit: u32, drains: bool) {
        flow(&mut self.tx, handle, received as u32, credit, drains);
    }

    fn write(&mut self, kind: u8, code: u8, fields: impl FnOnce(&mut Vec<u8>) -> u32) {
        self.write_with(kind, code, &[], fields);
    }

    fn write_with(&mut self, kind: u8, code: u8, payload: &[u8], fields: impl FnOnce(&mut Vec<u8>) -> u32) {
        frame(&mut self.tx, kind, code, payload, fields);
    }

    /// Writes what there is to write.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.tx)?;
        self.tx.clear();
        self.stream.flush()
    }

    fn header(&mut self, wanted: &[u8; 8]) -> io::Result<()> {
        while self.unread.len() < wanted.len() {
            self.read()?;
        }
        let header = self.unread.start..self.unread.start + wanted.len();
        self.unread.start = header.end;
        if self.rx[header] == *wanted { Ok(()) } else { Err(io::Error::other("another protocol header")) }
    }

    /// Reads on until a performative comes that is wanted.
    fn expect(&mut self, what: &str, wanted: impl Fn(&Performative<'_>) -> bool) -> io::Result<()> {
        loop {
            let frame = self.frame()?;
            let performative = self.performative(frame)?;
            if wanted(&performative) {
                return Ok(());
            }
            if let Performative::Detach(_) | Performative::Close(_) | Performative::End(_) = performative {
                return Err(io::Error::other(format!("instead of {what}: {performative:?}")));
            }
        }
    }

    /// The next frame that is not empty; what is to be written is written before the client waits.
    fn frame(&mut self) -> io::Result<Frame> {
        loop {
            let unread = &self.rx[self.unread.clone()];
            match decode(unread).map_err(|rule| io::Error::other(rule.id()))? {
                Some(frame) => {
                    let end = self.unread.start + frame.size;
                    let body = end - frame.body.len()..end;
                    self.unread.start = end;
                    if !body.is_empty() {
                        return Ok(body);
                    }
                }
                None => self.read()?,
            }
        }
    }

    fn performative(&self, frame: Frame) -> io::Result<Performative<'_>> {
        Performative::decode(&self.rx[frame]).map_err(|rule| io::Error::other(rule.id()))
    }

    fn read(&mut self) -> io::Result<()> {
        if !self.tx.is_empty() {
            self.flush()?;
        }
        if self.unread.end + READ > self.rx.len() {
            self.rx.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        let count = self.stream.read(&mut self.rx[self.unread.end..])?;
        self.unread.end += count;
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// All that a client says until it has a session, written at once: SASL PLAIN, open and begin.
#[must_use]
pub fn session(host: &str, user: &str, password: &str) -> Vec<u8> {
    let mut tx = SASL_HEADER.to_vec();
    sasl_init(&mut tx, user, password);
    tx.extend(AMQP_HEADER);
    begin(&mut tx, host);
    tx
}

fn frame(tx: &mut Vec<u8>, kind: u8, code: u8, payload: &[u8], fields: impl FnOnce(&mut Vec<u8>) -> u32) {
    let at = tx.len();
    tx.extend([0, 0, 0, 0, 2, kind, 0, 0]);
    tx.descriptor(code);
    let list = tx.begin_list();
    let count = fields(tx);
    tx.end(list, count);
    tx.extend_from_slice(payload);
    let size = (tx.len() - at) as u32;
    tx[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

fn sasl_init(tx: &mut Vec<u8>, user: &str, password: &str) {
    let response = format!("\0{user}\0{password}");
    frame(tx, 1, 0x41, &[], |tx| {
        tx.symbol("PLAIN");
        tx.binary(response.as_bytes());
        2
    });
}

fn begin(tx: &mut Vec<u8>, host: &str) {
    frame(tx, 0, 0x10, &[], |tx| {
        tx.string("testkit");
        tx.string(host);
        tx.uint(FRAME_MAX);
        3
    });
    frame(tx, 0, 0x11, &[], |tx| {
        tx.null();
        tx.uint(0);
        tx.uint(WINDOW);
        tx.uint(WINDOW);
        4
    });
}

fn attach(tx: &mut Vec<u8>, handle: u32, is_receiver: bool, address: &str, filter: Option<&str>) {
    frame(tx, 0, 0x12, &[], |tx| {
        tx.string(&format!("link-{handle}"));
        tx.uint(handle);
        tx.boolean(is_receiver);
        // A receiver gets messages settled; a sender has the last of many settled by the server.
        tx.ubyte(if is_receiver { 1 } else { 2 });
        tx.ubyte(0);
        let (source, target) = if is_receiver { (address, "me") } else { ("me", address) };
        for (code, address) in [(0x28, source), (0x29, target)] {
            tx.descriptor(code);
            let list = tx.begin_list();
            tx.string(address);
            let Some(filter) = filter.filter(|_| code == 0x28) else {
                tx.end(list, 1);
                continue;
            };
            (0..6).for_each(|_| tx.null());
            let map = tx.begin_map();
            tx.symbol("apache.org:selector-filter:string");
            tx.string(filter);
            tx.end(map, 2);
            tx.end(list, 8);
        }
        tx.null();
        tx.null();
        tx.uint(0);
        10
    });
}

fn flow(tx: &mut Vec<u8>, handle: u32, received: u32, credit: u32, drains: bool) {
    frame(tx, 0, 0x13, &[], |tx| {
        tx.null();
        tx.uint(WINDOW);
        tx.uint(0);
        tx.uint(WINDOW);
        tx.uint(handle);
        tx.uint(received);
        tx.uint(credit);
        tx.null();
        tx.boolean(drains);
        9
    });
}

impl Event {
    fn read(payload: &[u8]) -> io::Result<Self> {
        let message = Message::decode(payload).map_err(|rule| io::Error::other(rule.id()))?;
        let annotation = |name| message.annotations.and_then(|annotations| annotations.get(name));
        let text = |name| annotation(name).and_then(|value| value.text()).unwrap_or_default().to_owned();
        let Body::Data(body) = &message.body else { return Err(io::Error::other("an event has data")) };
        Ok(Self {
            sequence: annotation("x-opt-sequence-number").and_then(|value| value.integer()).unwrap_or(-1),
            cursor: text("x-opt-offset").parse().map_err(io::Error::other)?,
            device_id: text("iothub-connection-device-id"),
            body: body.to_vec(),
        })
    }
}
