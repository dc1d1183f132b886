//! Messages both ways: credit, windows, settling, cutting.

use devicebound_amqp::limits::CREDIT;
use devicebound_amqp::performative::Outcome;
use devicebound_amqp::{Condition, Failure, Grant, Tag};

use super::client::*;

#[test]
fn a_sender_gets_credit_with_the_answer_to_its_attach() {
    let mut hub = Hub::open();
    hub.attach(3, false);
    let said = hub.said();
    assert!(
        said[0].contains("rcv_settle_mode: Some(0)") && said[0].contains("max_message_size: Some(1000)"),
        "{said:?}"
    );
    assert!(said[1].contains(&format!("link_credit: Some({CREDIT})")), "{said:?}");
}

#[test]
fn a_message_comes_once_it_is_whole_and_is_settled_by_its_id() {
    let mut hub = Hub::open();
    let link = hub.attach(0, false);
    hub.tx.clear();
    let parts =
        [transfer(0, 0, 0, true, b"ab"), transfer(0, 0, 0, true, b""), transfer(0, 0, 0, false, b"cd")];
    let got = hub.with(&parts.concat(), |_, action| match action {
        devicebound_amqp::Action::Message(message) => (message.delivery_id, message.payload.to_vec()),
        other => panic!("{other:?}"),
    });
    assert_eq!(got, [(0, b"abcd".to_vec())]);
    hub.connection.settle(link, 0, Ok(Outcome::Accepted), &mut hub.tx);
    hub.connection.settle(link, 0, Ok(Outcome::Accepted), &mut hub.tx);
    let said = hub.said();
    assert_eq!(said.len(), 1, "once: {said:?}");
    assert!(
        said[0].contains("role: Receiver")
            && said[0].contains("settled: true")
            && said[0].contains("Accepted"),
        "{said:?}"
    );
}

#[test]
fn credit_is_given_anew_as_messages_are_settled_and_never_for_more_than_may_be_open() {
    let mut hub = Hub::open();
    let link = hub.attach(0, false);
    hub.tx.clear();
    for id in 0..CREDIT {
        assert_eq!(hub.hear(&transfer(0, 0, id, false, &data(b"x"))).len(), 1);
    }
    assert!(hub.said().iter().all(|said| !said.contains("link_credit: Some")), "all are open");
    let actions = hub.hear(&transfer(0, 0, CREDIT, false, b""));
    assert!(actions[0].contains("rule: Some(Credit)"), "{actions:?}");
    assert_eq!(hub.condition().as_deref(), Some("amqp:link:transfer-limit-exceeded"));

    let mut hub = Hub::open();
    let again = hub.attach(0, false);
    assert_eq!(again, link, "a connection of its own");
    for id in 0..1000 {
        assert_eq!(hub.hear(&transfer(0, 0, id, false, &data(b"x"))).len(), 1, "{id}");
        hub.connection.settle(again, id, Ok(Outcome::Accepted), &mut hub.tx);
    }
}

#[test]
fn a_message_that_is_too_large_is_rejected_and_the_link_goes_on() {
    let mut hub = Hub::open();
    hub.attach(0, false);
    hub.tx.clear();
    let large = [transfer(0, 0, 0, true, &[0; 900]), transfer(0, 0, 0, false, &[0; 101])].concat();
    let actions = hub.hear(&large);
    assert!(actions[0].starts_with("Refused") && actions[0].contains("MessageSize"), "{actions:?}");
    assert!(hub.said()[0].contains("Rejected"));
    assert_eq!(hub.hear(&transfer(0, 0, 1, false, &[0; 1000])).len(), 1);
}

#[test]
fn an_aborted_message_never_was() {
    let mut hub = Hub::open();
    hub.attach(0, false);
    let aborted = [
        F::Uint(0),
        F::Null,
        F::Null,
        F::Null,
        F::Null,
        F::Bool(false),
        F::Null,
        F::Null,
        F::Null,
        F::Bool(true),
    ];
    let actions = hub.hear(&[transfer(0, 0, 0, true, b"ab"), amqp(0, 0x14, &aborted)].concat());
    assert_eq!(actions, [""; 0]);
    assert_eq!(hub.hear(&transfer(0, 0, 1, false, b"")).len(), 1);
}

#[test]
fn nothing_is_sent_without_credit_and_no_more_than_it() {
    let mut hub = Hub::open();
    let link = hub.attach(1, true);
    hub.tx.clear();
    let send = |hub: &mut Hub| {
        hub.connection.send(link, Tag::Untracked, &mut hub.tx, |tx| tx.extend(data(b"event")))
    };
    assert!(!send(&mut hub));
    // pyamqp: credit 0 first.
    hub.hear(&flow(0, Some(1), 100, 0, 0, false));
    assert!(!send(&mut hub));
    hub.hear(&flow(0, Some(1), 100, 0, 2, false));
    assert_eq!(hub.connection.credit(link), 2);
    assert!(send(&mut hub) && send(&mut hub) && !send(&mut hub));
    let said = hub.said();
    assert!(said[1].contains("delivery_id: Some(1)") && said[1].contains("more: false"), "{said:?}");
    // Given before the second was seen.
    hub.hear(&flow(0, Some(1), 100, 1, 2, false));
    assert_eq!(hub.connection.credit(link), 1);
    // Less than what was sent already.
    hub.hear(&flow(0, Some(1), 100, 0, 1, false));
    assert_eq!(hub.connection.credit(link), 0);
}

#[test]
fn credit_counts_as_serial_numbers_do() {
    let mut hub = Hub::open();
    let link = hub.attach(1, true);
    hub.hear(&flow(0, Some(1), u32::MAX, 0, u32::MAX, false));
    assert_eq!(hub.connection.credit(link), u32::MAX);
    assert!(hub.connection.send(link, Tag::Untracked, &mut hub.tx, |_| ()));
    hub.hear(&flow(0, Some(1), u32::MAX, 1, u32::MAX, false));
    assert_eq!(hub.connection.credit(link), u32::MAX);
}

#[test]
fn a_large_message_is_cut_to_frames_of_the_client_and_waits_for_its_window() {
    let mut hub = Hub::opened(&open_with(512, 0), 2);
    let link = hub.attach(0, true);
    hub.hear(&flow(0, Some(0), 2, 0, 5, false));
    hub.tx.clear();
    let body: Vec<u8> = (0..3000_u32).map(|n| n as u8).collect();
    assert!(hub.connection.send(link, Tag::Untracked, &mut hub.tx, |tx| tx.extend(data(&body))));
    assert_eq!(hub.connection.credit(link), 0, "the rest is first");
    let mut bytes = std::mem::take(&mut hub.tx);
    // As the client sees two more frames, it opens its window by two, and so on.
    for seen in [2, 4, 6, 8] {
        let fields = [F::Uint(seen), F::Uint(2), F::Uint(0), F::Uint(9)];
        hub.hear(&amqp(0, 0x13, &fields));
        bytes.append(&mut hub.tx);
    }
    let (mut rest, mut payload, mut frames) = (&bytes[..], Vec::<u8>::new(), 0);
    while let Some(frame) = devicebound_amqp::frame::decode(rest).unwrap() {
        assert!(frame.size <= 512);
        let decoded = devicebound_amqp::performative::Performative::decode(frame.body).unwrap();
        let devicebound_amqp::performative::Performative::Transfer(head, part) = decoded else {
            panic!("{decoded:?}")
        };
        payload.extend(part);
        frames += 1;
        rest = &rest[frame.size..];
        assert_eq!(head.more, !rest.is_empty());
    }
    assert_eq!(payload, data(&body));
    assert!(frames > 5);
    assert_eq!(hub.connection.credit(link), 4);
}

#[test]
fn every_transfer_has_eleven_fields() {
    let mut hub = Hub::opened(&open_with(512, 0), 100);
    let link = hub.attach(0, true);
    hub.hear(&flow(0, Some(0), 100, 0, 5, false));
    hub.tx.clear();
    assert!(hub.connection.send(link, Tag::Tracked([7; 16]), &mut hub.tx, |tx| tx.extend(data(&[0; 2000]))));
    let mut rest = &hub.tx[..];
    while let Some(frame) = devicebound_amqp::frame::decode(rest).unwrap() {
        let value = devicebound_amqp::types::Reader::new(frame.body).value().unwrap();
        let devicebound_amqp::types::Value::Described(described) = value else { panic!() };
        let devicebound_amqp::types::Value::List(list) = described.value() else { panic!() };
        assert_eq!(list.len(), 11);
        rest = &rest[frame.size..];
    }
}

#[test]
fn one_disposition_settles_a_range_over_several_links() {
    let mut hub = Hub::open();
    let (a, b) = (hub.attach(0, true), hub.attach(1, true));
    hub.hear(&[flow(0, Some(0), 100, 0, 9, false), flow(0, Some(1), 100, 0, 9, false)].concat());
    for (link, tag) in [(a, 1), (b, 2), (a, 3)] {
        assert!(hub.connection.send(link, Tag::Tracked([tag; 16]), &mut hub.tx, |_| ()));
    }
    hub.tx.clear();
    let outcomes = hub.with(&disposition(0, 1, 2, true, 0x26), |_, action| match action {
        devicebound_amqp::Action::Outcome { link, tag, outcome } => (*link, tag[0], *outcome),
        other => panic!("{other:?}"),
    });
    assert_eq!(outcomes, [(b, 2, Outcome::Released), (a, 3, Outcome::Released)]);
    assert_eq!(hub.tx, b"", "it was settled");
    // All there can be, and nothing but the one that is left; unsettled, so that the hub settles.
    assert_eq!(hub.hear(&disposition(0, 0, u32::MAX / 2, false, 0x24)).len(), 1);
    assert!(hub.said()[0].contains("settled: true"));
    assert_eq!(hub.hear(&disposition(0, 0, 9, true, 0x24)).len(), 0);
}

#[test]
fn a_client_that_drains_gets_its_credit_back() {
    let mut hub = Hub::open();
    let link = hub.attach(0, true);
    hub.hear(&flow(0, Some(0), 100, 0, 10, true));
    assert!(hub.connection.wants_drain(link));
    assert!(hub.connection.send(link, Tag::Untracked, &mut hub.tx, |_| ()));
    hub.tx.clear();
    hub.connection.drained(link, &mut hub.tx);
    hub.connection.drained(link, &mut hub.tx);
    let said = hub.said();
    assert_eq!(said.len(), 1);
    assert!(
        said[0].contains("delivery_count: Some(10)") && said[0].contains("link_credit: Some(0)"),
        "{said:?}"
    );
    assert_eq!(hub.connection.credit(link), 0);
}

#[test]
fn a_flow_that_asks_for_it_is_answered() {
    let mut hub = Hub::open();
    hub.attach(0, true);
    hub.tx.clear();
    let fields = [
        F::Uint(0),
        F::Uint(9),
        F::Uint(0),
        F::Uint(9),
        F::Uint(0),
        F::Uint(0),
        F::Uint(3),
        F::Null,
        F::Bool(false),
        F::Bool(true),
    ];
    hub.hear(&amqp(0, 0x13, &fields));
    assert!(hub.said()[0].contains("link_credit: Some(3)"));
}

#[test]
fn the_session_window_is_opened_anew_and_what_goes_beyond_it_ends_the_session() {
    let mut hub = Hub::open();
    hub.attach(0, false);
    hub.tx.clear();
    for _ in 0..10_000 {
        assert_eq!(hub.hear(&transfer(0, 0, 0, true, b"")).len(), 0);
    }
    assert!(hub.said().len() >= 9, "a flow for each half of the window");
}

#[test]
fn a_refusal_is_an_attach_with_both_termini_and_a_detach() {
    let mut hub = Hub::open();
    let links = hub.with(&attach(0, 0, true, "nowhere"), |_, action| match action {
        devicebound_amqp::Action::Attach(request) => request.link,
        other => panic!("{other:?}"),
    });
    let info = [
        ("port", devicebound_amqp::Info::Int(5671)),
        ("hostname", devicebound_amqp::Info::Text("localhost")),
    ];
    let failure = Failure { info: &info, ..Failure::new(Condition::Redirect, "there") };
    hub.connection.refuse(links[0], &failure, &mut hub.tx);
    hub.connection.accept(links[0], &Grant::default(), &mut hub.tx);
    let said = hub.said();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("address: Some(\"nowhere\")") && said[0].contains("target: Some"), "{said:?}");
    assert!(said[1].contains("amqp:link:redirect"), "{said:?}");
    // The client may go on with what it had sent before it heard of it.
    assert_eq!(hub.hear(&[flow(0, Some(0), 9, 0, 9, false), detach(0, 0)].concat()).len(), 1);
    assert_eq!(hub.said(), [""; 0]);
    hub.attach(0, true);
}

#[test]
fn commands_for_a_link_that_is_gone_do_nothing() {
    let mut hub = Hub::open();
    let old = hub.attach(0, false);
    hub.hear(&transfer(0, 0, 0, false, b""));
    hub.hear(&detach(0, 0));
    let new = hub.attach(0, false);
    hub.hear(&transfer(0, 0, 0, false, b""));
    hub.tx.clear();
    assert_ne!(old, new);
    hub.connection.settle(old, 0, Ok(Outcome::Accepted), &mut hub.tx);
    hub.connection.detach(old, &Failure::new(Condition::Stolen, ""), &mut hub.tx);
    assert!(!hub.connection.send(old, Tag::Untracked, &mut hub.tx, |_| ()));
    assert_eq!(hub.tx, b"");
}
