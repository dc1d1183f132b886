//! The hub against a device that says what no device may say: `tests/vectors/packets_invalid.json`.

use devicebound::Rule;
use devicebound::session::CloseReason;
use devicebound_tests::fixtures::{connected, hub};
use devicebound_tests::vectors::{bytes, load, name, word};
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
