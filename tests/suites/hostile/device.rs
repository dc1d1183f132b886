//! The hub against a device that says what no device may say: `tests/vectors/packets_invalid.json`.

use devicebound::Rule;
use devicebound::iothub::Subscription;
use devicebound::limits::{REQUEST_ID_MAX, TEXT_MAX};
use devicebound::session::CloseReason;
use devicebound_testkit::live::publish;
use devicebound_world::fixtures::{connected, hub};
use devicebound_world::vectors::{bytes, load, name, word};
use serde_json::Value;

fn invalid_from_a_device() -> Vec<Value> {
    let mut cases = load("packets_invalid");
    cases.retain(|case| word(&case["from"]) != "server" && case["expect"] != "incomplete");
    assert!(cases.len() > 50);
    cases
}

/// Why the hub closes the connection of a device that is online and sends `bytes`, `step` at a time. It answers nothing.
fn verdict(bytes: &[u8], step: usize) -> Option<CloseReason> {
    let (mut hub, station) = connected();
    let link = station.link.expect("it is connected");
    bytes.chunks(step).for_each(|chunk| hub.receive(link, chunk));
    assert!(hub.take_output(link).is_empty());
    hub.closed(link).map(|close| close.reason())
}

#[test]
fn every_invalid_packet_closes_the_connection_unanswered_however_it_is_cut() {
    for case in invalid_from_a_device() {
        let bytes = bytes(&case);
        let whole = verdict(&bytes, bytes.len());
        assert!(whole.is_some(), "{}", name(&case));
        assert_eq!(verdict(&bytes, 1), whole, "{} byte by byte", name(&case));
    }
}

#[test]
fn a_connect_that_breaks_a_rule_gets_no_connack_but_for_its_level_and_an_empty_client_id() {
    let mut answered = 0;
    for case in invalid_from_a_device() {
        let bytes = bytes(&case);
        let mut hub = hub(&["dev"]);
        let link = hub.open();
        hub.receive(link, &bytes);
        let rule = hub.closed(link).map(|close| close.rule());
        let connack: &[u8] = match rule {
            Some(Rule::ProtocolLevel) => &[0x20, 2, 0, 1],
            Some(Rule::EmptyClientId) => &[0x20, 2, 0, 2],
            _ => &[],
        };
        assert!(rule.is_some(), "{}", name(&case));
        assert_eq!(hub.take_output(link), connack, "{}", name(&case));
        answered += usize::from(!connack.is_empty());
    }
    assert!(answered > 0, "some ask for another level");
}

/// Asks for the twin with a `$rid` of this length; why the hub closes the connection, and how much it answers.
fn asked_with_a_request_id(length: usize) -> (Option<Rule>, usize) {
    let (mut hub, mut station) = connected();
    station.subscribe(&mut hub, Subscription::TwinResponses);
    let link = station.link.expect("it is connected");
    hub.receive(link, &publish(&format!("$iothub/twin/GET/?$rid={}", "a".repeat(length)), 1, b""));
    (hub.closed(link).map(|close| close.rule()), hub.take_output(link).len())
}

#[test]
fn a_request_id_that_no_answer_could_carry_ends_the_connection() {
    let (closed, answer) = asked_with_a_request_id(REQUEST_ID_MAX);
    assert!(closed.is_none() && answer > REQUEST_ID_MAX, "{closed:?}, {answer} bytes");
    for length in [REQUEST_ID_MAX + 1, TEXT_MAX - "$iothub/twin/GET/?$rid=".len()] {
        assert_eq!(asked_with_a_request_id(length), (Some(Rule::RequestId), 0), "{length} bytes");
    }
}
