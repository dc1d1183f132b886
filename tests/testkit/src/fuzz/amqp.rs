//! A client of the AMQP side, with any bytes.

use std::collections::BTreeMap;

use devicebound::time::Instant;
use devicebound_amqp::frame::{AMQP_HEADER, decode};
use devicebound_amqp::message::{self, Message};
use devicebound_amqp::performative::{Outcome, Performative};
use devicebound_amqp::{Action, Condition, Config, Connection, Failure, Grant, Tag};
use serde_json::Value;

/// Frames that real clients sent.
const VECTORS: &str = include_str!("../../../../adapters/amqp/tests/vectors/amqp.json");
/// Bit of the second byte: the connection is open already, with a session on the channels 0 and 1.
const OPEN: u8 = 1;
/// A client whose frames have 512 bytes at most, with sessions whose windows have 4 transfers.
const OPENING: [&[u8]; 3] = [
    &[0, 0, 0, 25, 2, 0, 0, 0, 0, 0x53, 0x10, 0xc0, 12, 3, 0xa1, 1, b'c', 0xa1, 1, b'h', 0x70, 0, 0, 2, 0],
    &[0, 0, 0, 20, 2, 0, 0, 0, 0, 0x53, 0x11, 0xc0, 7, 4, 0x40, 0x43, 0x52, 4, 0x52, 9],
    &[0, 0, 0, 20, 2, 0, 0, 1, 0, 0x53, 0x11, 0xc0, 7, 4, 0x40, 0x43, 0x52, 4, 0x52, 9],
];

/// Input: how many bytes come at a time (0: all), flags, then what the client sends. In pieces of any size it comes to the
/// same, and what the hub says is whole frames within the client's bounds.
///
/// # Panics
/// When that does not hold.
pub fn amqp_connection(data: &[u8]) {
    let [step, flags, bytes @ ..] = data else { return };
    let opening = [&AMQP_HEADER[..], &OPENING.concat()].concat();
    let start = if flags & OPEN == 0 { &[][..] } else { &opening };
    let whole = run(start, bytes, bytes.len());
    let pieces = if *step == 0 { bytes.len() } else { usize::from(*step) };
    assert_eq!(run(start, bytes, pieces), whole);
    check_frames(&whole.1);
    let _ = Message::decode(bytes);
}

/// What is to be done, in words, and what the client is told.
fn run(start: &[u8], bytes: &[u8], step: usize) -> (Vec<String>, Vec<u8>) {
    let now = Instant::from_secs(1);
    let config = Config { container_id: "hub".into(), product: "fuzz".into() };
    let (mut connection, mut tx, mut done) = (Connection::new(now, config), Vec::new(), Vec::new());
    let mut rx = Vec::new();
    for piece in std::iter::once(start).chain(bytes.chunks(step.max(1))) {
        rx.extend_from_slice(piece);
        let mut rest = &rx[..];
        loop {
            let action = connection.receive(now, &mut rest, &mut tx);
            if action == Action::Wait {
                break;
            }
            done.push(format!("{action:?}"));
            act(&mut connection, &action, &mut tx);
        }
        let left = rest.len();
        rx.drain(..rx.len() - left);
    }
    (done, tx)
}

/// A caller that grants most links, sends what it may on them, settles every other message and detaches now and then.
fn act(connection: &mut Connection, action: &Action<'_>, tx: &mut Vec<u8>) {
    match action {
        Action::Authenticate(_) => connection.authenticate(true, tx),
        Action::Opened(_) => connection.authenticated(),
        Action::Attach(request) if request.name.len() % 5 == 4 => {
            connection.refuse(request.link, &Failure::new(Condition::NotFound, "nowhere"), tx);
        }
        Action::Attach(request) => {
            connection.accept(request.link, &Grant { address: None, max_message_size: 200 }, tx);
        }
        Action::Flow { link: Some(link), .. } => {
            for n in 0..4_u8 {
                let body = vec![n; usize::from(n) * 400];
                connection.send(*link, Tag::Tracked([n; 16]), tx, |tx| message::data(tx, &body));
            }
            connection.drained(*link, tx);
        }
        Action::Message(message) if message.delivery_id % 2 == 0 => {
            connection.settle(message.link, message.delivery_id, Ok(Outcome::Accepted), tx);
        }
        Action::Message(message) if message.payload.len() == 7 => {
            connection.detach(message.link, &Failure::new(Condition::DetachForced, "seven"), tx);
        }
        _ => {}
    }
}

/// Headers, and whole frames with performatives that can be read.
fn check_frames(mut told: &[u8]) {
    while !told.is_empty() {
        if told.starts_with(b"AMQP") {
            told = told.get(8..).expect("a whole header");
            continue;
        }
        let frame = decode(told).expect("a frame of the hub").expect("whole frames");
        if !frame.is_sasl && !frame.body.is_empty() {
            Performative::decode(frame.body).expect("a performative of the hub");
        }
        told = told.get(frame.size..).expect("decode has seen it");
    }
}

/// Each vector, on a connection that is open, but for those of opening itself.
pub(super) fn seeds() -> BTreeMap<String, Vec<u8>> {
    let vectors: Value = serde_json::from_str(VECTORS).expect("vectors are JSON");
    let cases = vectors["cases"].as_array().expect("cases are a list");
    let seed = |case: &Value| {
        let name = case["name"].as_str().unwrap_or_default().to_owned();
        let hex = case["hex"].as_str().unwrap_or_default().as_bytes();
        let digits = hex.as_chunks::<2>().0.iter().filter_map(|pair| std::str::from_utf8(pair).ok());
        let bytes: Vec<u8> = digits.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
        let start: Vec<u8> = match name.split('-').next() {
            Some("open") => [&[0, 0][..], &AMQP_HEADER].concat(),
            Some("sasl") => [&[0, 0][..], b"AMQP\x03\x01\x00\x00"].concat(),
            _ => vec![0, OPEN],
        };
        (name, [start, bytes].concat())
    };
    cases.iter().map(seed).collect()
}
