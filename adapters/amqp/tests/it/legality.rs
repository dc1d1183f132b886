//! Which frame is legal in which state, and what a breach costs: the table of `connection::states`.

use devicebound_amqp::frame::AMQP_HEADER;

use super::client::*;

/// The states of a session and a link.
const STATES: [&str; 6] = ["no session", "no link", "attaching", "attached", "detaching", "discarding"];

/// A hub in one of these, on channel 0 and handle 0; the link is one on which the client sends.
fn hub_in(state: &str) -> Hub {
    let mut hub = Hub::new();
    hub.hear(&[&AMQP_HEADER[..], &open()].concat());
    hub.connection.authenticated();
    if state != "no session" {
        hub.hear(&begin(0, 100));
    }
    match state {
        "attaching" => drop(hub.hear(&attach(0, 0, false, "node"))),
        "attached" => drop(hub.attach(0, false)),
        "detaching" => {
            let link = hub.attach(0, false);
            let why = devicebound_amqp::Failure::new(devicebound_amqp::Condition::Stolen, "");
            hub.connection.detach(link, &why, &mut hub.tx);
        }
        "discarding" => drop(hub.hear(&detach(0, 9))),
        _ => {}
    }
    hub.tx.clear();
    hub
}

/// What a frame comes to: the last word that the hub says.
fn verdict(hub: &mut Hub, frame: &[u8]) -> String {
    let actions = hub.hear(frame);
    if let Some(condition) = hub.condition() {
        let what = match actions.last().map(String::as_str) {
            Some(action) if action.starts_with("Closed") => "close",
            Some(action) if action.starts_with("Ended") => "end",
            Some(action) if action.starts_with("Detached") => "detach",
            _ => "other",
        };
        return format!("{what} {condition}");
    }
    actions
        .last()
        .map_or_else(|| "-".to_owned(), |action| action.split(['(', ' ']).next().unwrap().to_owned())
}

#[test]
fn each_frame_in_each_state_comes_to_what_the_table_says() {
    let none = "close amqp:not-allowed";
    let in_use = "end amqp:session:handle-in-use";
    let unattached = "end amqp:session:unattached-handle";
    let table: [(&str, Vec<u8>, [&str; 6]); 8] = [
        ("open", open(), ["close amqp:not-allowed"; 6]),
        ("begin", begin(0, 100), ["-", none, none, none, none, none]),
        ("attach", attach(0, 0, false, "node"), [none, "Attach", in_use, in_use, in_use, "-"]),
        ("flow", flow(0, Some(0), 9, 0, 9, false), [none, unattached, "Flow", "Flow", "Flow", "-"]),
        (
            "transfer",
            transfer(0, 0, 0, false, b""),
            [none, unattached, "detach amqp:link:transfer-limit-exceeded", "Message", "-", "-"],
        ),
        ("disposition", disposition(0, 0, 9, true, 0x24), [none, "-", "-", "-", "-", "-"]),
        ("detach", detach(0, 0), [none, unattached, "Detached", "Detached", "-", "-"]),
        ("end", end(0), [none, "Ended", "Ended", "Ended", "Ended", "-"]),
    ];
    for (name, frame, expected) in &table {
        for (state, expected) in STATES.iter().zip(expected) {
            let mut hub = hub_in(state);
            assert_eq!(verdict(&mut hub, frame), *expected, "{name} in state {state}");
        }
    }
}

#[test]
fn frames_behind_the_end_of_a_session_are_passed_over() {
    let mut hub = hub_in("attached");
    hub.hear(&end(0));
    hub.tx.clear();
    assert_eq!(
        hub.hear(&[detach(0, 0), flow(0, Some(0), 1, 0, 1, false), transfer(0, 0, 3, false, b"")].concat()),
        [""; 0]
    );
    assert_eq!(hub.tx, b"");
    assert_eq!(verdict(&mut hub, &begin(0, 10)), "-");
}

#[test]
fn only_open_comes_first() {
    for frame in [
        begin(0, 1),
        attach(0, 0, true, "x"),
        transfer(0, 0, 0, false, b""),
        end(0),
        close(),
        sasl_init("PLAIN", b""),
    ] {
        let mut hub = Hub::new();
        hub.hear(&AMQP_HEADER);
        let actions = hub.hear(&frame);
        assert!(actions[0].starts_with("Closed"), "{actions:?}");
        let said = hub.said();
        assert!(
            said[0].starts_with("Open") && said[1].starts_with("Close"),
            "close comes behind open: {said:?}"
        );
    }
}

#[test]
fn numbers_beyond_what_was_agreed_close_the_connection() {
    for frame in [begin(256, 1), attach(0, 256, true, "x")] {
        let mut hub = Hub::open();
        assert_eq!(verdict(&mut hub, &frame), "close amqp:connection:framing-error");
    }
}

#[test]
fn sessions_and_links_are_bounded() {
    let mut hub = Hub::open();
    for channel in 1..64 {
        assert_eq!(verdict(&mut hub, &begin(channel, 1)), "-");
    }
    assert_eq!(verdict(&mut hub, &begin(64, 1)), "close amqp:resource-limit-exceeded");

    let mut hub = Hub::open();
    for channel in 0..4 {
        if channel > 0 {
            hub.hear(&begin(channel, 1));
        }
        for handle in 0..256 {
            assert_eq!(verdict(&mut hub, &attach(channel, handle, true, "x")), "Attach");
        }
    }
    hub.hear(&begin(4, 1));
    assert_eq!(verdict(&mut hub, &attach(4, 0, true, "x")), "end amqp:resource-limit-exceeded");
}

#[test]
fn links_that_break_a_rule_are_refused_one_by_one() {
    let node = |code, dynamic: bool| {
        let mut tx = body(code, &[F::Text("a"), F::Null, F::Null, F::Null, F::Bool(dynamic)]);
        if code == 0x30 {
            tx = body(code, &[]);
        }
        tx
    };
    for (source, target) in [(node(0x28, true), node(0x29, false)), (node(0x28, false), node(0x30, false))] {
        let mut fields = body(0x12, &[F::Text("n"), F::Uint(0), F::Bool(false), F::Null, F::Null]);
        // Puts both termini behind the five fields, and counts them.
        fields.extend([&source[..], &target].concat());
        let size = (fields.len() - 3 - 1 - 4) as u32;
        fields[4..8].copy_from_slice(&size.to_be_bytes());
        fields[8..12].copy_from_slice(&7_u32.to_be_bytes());
        let mut hub = Hub::open();
        assert_eq!(hub.hear(&frame(0, 0, &fields)), [""; 0]);
        assert_eq!(hub.condition().as_deref(), Some("amqp:not-implemented"));
        assert_eq!(verdict(&mut hub, &attach(0, 1, true, "x")), "Attach", "the session goes on");
    }
    let mut hub = Hub::open();
    hub.attach(0, true);
    hub.tx.clear();
    let same_name = {
        let mut frame = attach(0, 0, true, "x");
        // The handle is a uint of no bytes, 0x43; as a small uint it would be longer.
        let at = frame.windows(8).position(|part| part == b"0-0-true").unwrap() + 8;
        frame.splice(at..=at, [0x52, 5]);
        let size = frame.len() as u32;
        frame[..4].copy_from_slice(&size.to_be_bytes());
        let list = size - 8 - 3 - 1 - 4;
        frame[12..16].copy_from_slice(&list.to_be_bytes());
        frame
    };
    assert_eq!(hub.hear(&same_name), [""; 0]);
    assert_eq!(hub.condition().as_deref(), Some("amqp:not-allowed"));
}
