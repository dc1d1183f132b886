//! Splits and garbage: any split gives the same actions, any bytes give an action or an error, within bounds.

use devicebound_amqp::frame::{AMQP_HEADER, SASL_HEADER};
use devicebound_amqp::message::Message;
use devicebound_amqp::types::Reader;
use devicebound_amqp::{Action, Connection, Grant, Tag};
use proptest::prelude::*;

use super::client::*;

/// A stream that a client could send, more or less.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let small = || 0..3_u32;
    let piece = prop_oneof![
        4 => (small(), any::<bool>()).prop_map(|(handle, receives)| attach(0, handle, receives, "node")),
        4 => (small(), 0..20_u32, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(handle, id, more, payload)| transfer(0, handle, id, more, &payload)),
        4 => (prop::option::of(small()), 0..5_u32, 0..9_u32, any::<bool>())
            .prop_map(|(handle, window, credit, drain)| flow(0, handle, window, 0, credit, drain)),
        2 => (any::<u32>(), any::<u32>(), any::<bool>(), 0x23..0x28_u8)
            .prop_map(|(first, last, settled, outcome)| disposition(0, first, last, settled, outcome)),
        2 => small().prop_map(|handle| detach(0, handle)),
        1 => Just(end(0)),
        1 => Just(begin(0, 7)),
        1 => Just(close()),
        1 => Just(frame(0, 0, b"")),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(|body| frame(0, 0, &body)),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    let head = prop_oneof![
        3 => Just([&AMQP_HEADER[..], &open_with(512, 0), &begin(0, 3)].concat()),
        1 => Just([&SASL_HEADER[..], &sasl_init("ANONYMOUS", b""), &AMQP_HEADER, &open(), &begin(0, 900)].concat()),
        1 => Just(Vec::new()),
    ];
    (head, prop::collection::vec(piece, 0..30)).prop_map(|(head, pieces)| [head, pieces.concat()].concat())
}

/// What a caller would do: grants every link, sends on it what may be sent, settles every other message.
fn act(connection: &mut Connection, action: &Action<'_>, tx: &mut Vec<u8>) {
    match action {
        Action::Attach(request) => {
            connection.accept(request.link, &Grant { address: None, max_message_size: 50 }, tx);
        }
        Action::Flow { link: Some(link), .. } => {
            for n in 0..5 {
                connection.send(*link, Tag::Tracked([n; 16]), tx, |tx| tx.extend(data(&[n; 700])));
            }
            connection.drained(*link, tx);
        }
        Action::Message(message) if message.delivery_id % 2 == 0 => {
            let outcome = devicebound_amqp::performative::Outcome::Accepted;
            connection.settle(message.link, message.delivery_id, Ok(outcome), tx);
        }
        Action::Authenticate(_) => connection.authenticate(true, tx),
        _ => {}
    }
}

/// Feeds a stream in pieces that end at `cuts`; gives the actions and the answer.
fn run(bytes: &[u8], cuts: &[usize]) -> (Vec<String>, Vec<u8>) {
    let (mut connection, mut tx, mut actions) = (Connection::new(NOW, config()), Vec::new(), Vec::new());
    let mut taken = 0;
    for end in cuts.iter().copied().filter(|cut| *cut <= bytes.len()).chain([bytes.len()]) {
        if end < taken {
            continue;
        }
        let mut rx = &bytes[taken..end];
        loop {
            let action = connection.receive(NOW, &mut rx, &mut tx);
            if action == Action::Wait {
                break;
            }
            act(&mut connection, &action, &mut tx);
            actions.push(format!("{action:?}"));
        }
        taken = end - rx.len();
    }
    (actions, tx)
}

proptest! {
    #[test]
    fn any_split_gives_the_same_actions(bytes in stream(), mut cuts in prop::collection::vec(0..4000_usize, 0..12)) {
        cuts.sort_unstable();
        let whole = run(&bytes, &[]);
        prop_assert_eq!(&run(&bytes, &cuts), &whole);
        let each: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&run(&bytes, &each), &whole);
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Reader::new(&bytes).value();
        let _ = Message::decode(&bytes);
    }

    #[test]
    fn what_is_said_is_made_of_whole_frames_that_can_be_read(bytes in stream()) {
        let (_, tx) = run(&bytes, &[]);
        let mut hub = Hub::new();
        hub.tx = tx;
        hub.said();
    }
}

#[test]
fn nothing_that_lies_about_its_size_is_believed() {
    for bytes in [
        &[0xb0, 0xff, 0xff, 0xff, 0xff][..],
        &[0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff],
        &[0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40],
        &[0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x45],
        &[0xc1, 2, 1, 0x40],
        &[0xc0, 0],
        &[0xe0, 0],
        &[0xd1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2],
        &[0xc0, 2, 0, 0x40],
        &[0x56, 2],
        &[0xa3, 1, 0x80],
        &[0xa1, 1, 0xff],
        &[0x73, 0, 0, 0xd8, 0],
        &[0x3f],
    ] {
        assert!(Reader::new(bytes).value().is_err(), "{bytes:02x?}");
    }
}

#[test]
fn deep_nesting_is_refused_without_much_ado() {
    for (open, depth) in [(&[0xc0_u8, 0xff, 1][..], 100), (&[0x00][..], 60_000)] {
        let bytes = open.repeat(depth);
        assert!(Reader::new(&bytes).value().is_err());
    }
    let mut nested = vec![0x45];
    for level in 0..40 {
        let size = nested.len() as u32 + 4;
        let mut outer = vec![0xd0];
        outer.extend(size.to_be_bytes());
        outer.extend(1_u32.to_be_bytes());
        outer.extend(nested);
        nested = outer;
        // The innermost one nests nothing.
        assert_eq!(Reader::new(&nested).value().is_ok(), level < 32, "{level}");
    }
}
