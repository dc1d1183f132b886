//! A client made of bytes: it writes frames by hand, and reads what the hub says.

use devicebound::time::Instant;
use devicebound_amqp::frame::{AMQP_HEADER, SASL_HEADER, decode};
use devicebound_amqp::performative::Performative;
use devicebound_amqp::types::Writer as _;
use devicebound_amqp::{Action, Config, Connection, Grant, LinkId};

pub(crate) const NOW: Instant = Instant::from_secs(1000);

pub(crate) fn config() -> Config {
    Config { container_id: "hub".into(), product: "test".into() }
}

/// One field of a performative.
#[derive(Clone, Copy, Debug)]
pub(crate) enum F<'a> {
    Null,
    Bool(bool),
    Uint(u32),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// A described list with one text in it: a source or a target.
    Node(u8, &'a str),
    /// A described empty list: an outcome.
    Outcome(u8),
}

pub(crate) fn body(code: u8, fields: &[F<'_>]) -> Vec<u8> {
    let mut tx = Vec::new();
    tx.descriptor(code);
    let list = tx.begin_list();
    for field in fields {
        match *field {
            F::Null => tx.null(),
            F::Bool(value) => tx.boolean(value),
            F::Uint(value) => tx.uint(value),
            F::Text(value) => tx.string(value),
            F::Bytes(value) => tx.binary(value),
            F::Node(code, address) => tx.extend(body(code, &[F::Text(address)])),
            F::Outcome(code) => tx.extend(body(code, &[])),
        }
    }
    tx.end(list, fields.len() as u32);
    tx
}

pub(crate) fn frame(kind: u8, channel: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32 + 8).to_be_bytes().to_vec();
    frame.extend([2, kind]);
    frame.extend(channel.to_be_bytes());
    frame.extend(body);
    frame
}

pub(crate) fn amqp(channel: u16, code: u8, fields: &[F<'_>]) -> Vec<u8> {
    frame(0, channel, &body(code, fields))
}

pub(crate) fn open() -> Vec<u8> {
    amqp(0, 0x10, &[F::Text("client"), F::Text("localhost")])
}

pub(crate) fn open_with(frame_max: u32, idle_ms: u32) -> Vec<u8> {
    let idle = if idle_ms == 0 { F::Null } else { F::Uint(idle_ms) };
    amqp(0, 0x10, &[F::Text("client"), F::Null, F::Uint(frame_max), F::Null, idle])
}

pub(crate) fn begin(channel: u16, incoming_window: u32) -> Vec<u8> {
    amqp(channel, 0x11, &[F::Null, F::Uint(0), F::Uint(incoming_window), F::Uint(u32::MAX)])
}

pub(crate) fn attach(channel: u16, handle: u32, is_receiver: bool, address: &str) -> Vec<u8> {
    let (source, target) = if is_receiver { (address, "me") } else { ("me", address) };
    let name = format!("link-{channel}-{handle}-{is_receiver}");
    let fields = [
        F::Text(&name),
        F::Uint(handle),
        F::Bool(is_receiver),
        F::Null,
        F::Null,
        F::Node(0x28, source),
        F::Node(0x29, target),
        F::Null,
        F::Null,
        F::Uint(0),
    ];
    amqp(channel, 0x12, &fields)
}

pub(crate) fn flow(
    channel: u16,
    handle: Option<u32>,
    window: u32,
    delivery_count: u32,
    credit: u32,
    drain: bool,
) -> Vec<u8> {
    let mut fields = vec![F::Uint(0), F::Uint(window), F::Uint(0), F::Uint(u32::MAX)];
    if let Some(handle) = handle {
        fields.extend([F::Uint(handle), F::Uint(delivery_count), F::Uint(credit), F::Null, F::Bool(drain)]);
    }
    amqp(channel, 0x13, &fields)
}

pub(crate) fn transfer(channel: u16, handle: u32, id: u32, more: bool, payload: &[u8]) -> Vec<u8> {
    let fields = [
        F::Uint(handle),
        F::Uint(id),
        F::Bytes(&id.to_be_bytes()),
        F::Uint(0),
        F::Bool(false),
        F::Bool(more),
    ];
    let mut body = body(0x14, &fields);
    body.extend(payload);
    frame(0, channel, &body)
}

pub(crate) fn disposition(channel: u16, first: u32, last: u32, settled: bool, outcome: u8) -> Vec<u8> {
    let fields = [F::Bool(true), F::Uint(first), F::Uint(last), F::Bool(settled), F::Outcome(outcome)];
    amqp(channel, 0x15, &fields)
}

pub(crate) fn detach(channel: u16, handle: u32) -> Vec<u8> {
    amqp(channel, 0x16, &[F::Uint(handle), F::Bool(true)])
}

pub(crate) fn end(channel: u16) -> Vec<u8> {
    amqp(channel, 0x17, &[])
}

pub(crate) fn close() -> Vec<u8> {
    amqp(0, 0x18, &[])
}

pub(crate) fn sasl_init(mechanism: &str, response: &[u8]) -> Vec<u8> {
    frame(1, 0, &body(0x41, &[F::Text(mechanism), F::Bytes(response)]))
}

/// A data section.
pub(crate) fn data(bytes: &[u8]) -> Vec<u8> {
    let mut tx = Vec::new();
    devicebound_amqp::message::data(&mut tx, bytes);
    tx
}

/// A hub's connection, and what it wrote.
pub(crate) struct Hub {
    pub(crate) connection: Connection,
    pub(crate) tx: Vec<u8>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { connection: Connection::new(NOW, config()), tx: Vec::new() }
    }

    /// One that is open, with a session on channel 0.
    pub(crate) fn open() -> Self {
        Self::opened(&open(), u32::MAX)
    }

    pub(crate) fn opened(open: &[u8], window: u32) -> Self {
        let mut hub = Self::new();
        hub.hear(&AMQP_HEADER);
        hub.hear(open);
        hub.hear(&begin(0, window));
        hub.connection.authenticated();
        hub.tx.clear();
        hub
    }

    /// Takes bytes, and gives what is to be done, in words.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Vec<String> {
        self.with(bytes, |_, action| format!("{action:?}"))
    }

    /// Takes bytes; `act` answers each action.
    pub(crate) fn with<R>(
        &mut self,
        bytes: &[u8],
        mut act: impl FnMut(&mut Connection, &Action<'_>) -> R,
    ) -> Vec<R> {
        let (mut rx, mut done) = (bytes, Vec::new());
        loop {
            let action = self.connection.receive(NOW, &mut rx, &mut self.tx);
            if action == Action::Wait {
                return done;
            }
            done.push(act(&mut self.connection, &action));
        }
    }

    /// Attaches a link and grants it.
    pub(crate) fn attach(&mut self, handle: u32, is_receiver: bool) -> LinkId {
        let links = self.with(&attach(0, handle, is_receiver, "node"), |_, action| match action {
            Action::Attach(request) => request.link,
            other => panic!("{other:?}"),
        });
        let grant = Grant { address: None, max_message_size: 1000 };
        self.connection.accept(links[0], &grant, &mut self.tx);
        links[0]
    }

    /// The frames that the hub has written, in words, without protocol headers; nothing of them is left.
    pub(crate) fn said(&mut self) -> Vec<String> {
        let bytes = std::mem::take(&mut self.tx);
        let (mut rest, mut said) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            if rest.starts_with(&AMQP_HEADER) || rest.starts_with(&SASL_HEADER) {
                rest = &rest[8..];
                continue;
            }
            let frame = decode(rest).unwrap().expect("whole frames");
            rest = &rest[frame.size..];
            said.push(match frame.body {
                [] => "heartbeat".to_owned(),
                body if frame.is_sasl => format!("sasl {:02x}", body[2]),
                body => format!("{:?}", Performative::decode(body).unwrap()),
            });
        }
        said
    }

    /// The error condition of the last frame that has one.
    pub(crate) fn condition(&mut self) -> Option<String> {
        let said = self.said().pop()?;
        let (_, rest) = said.split_once("condition: \"")?;
        Some(rest.split_once('"')?.0.to_owned())
    }
}
