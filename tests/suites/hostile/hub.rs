//! The device against a hub that says what no hub may say: `tests/vectors/packets_invalid.json`.

use devicebound::Device;
use devicebound::device::{Action, ConnectionState, DeviceConfig, Event, Wait};
use devicebound::packet::ConnAck;
use devicebound::session::CloseReason;
use devicebound::time::{Instant, UnixTime};
use devicebound_world::vectors::{bytes, load, name, text};

const NOW: Instant = Instant::from_secs(1000);

/// A device whose CONNECT was accepted, or is being waited for.
fn device(online: bool) -> Device {
    let config = DeviceConfig::from_connection_string(
        "HostName=hub.example.test;DeviceId=dev1;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==",
    );
    let mut device = Device::new(config.expect("a connection string")).expect("a config");
    let mut tx = Vec::new();
    let opened = Event::Opened { jitter: 1, unix_time: UnixTime::from_secs(1_700_000_000) };
    device.handle(NOW, opened, &mut tx).expect("nothing to close yet");
    if online {
        let mut connack = Vec::new();
        ConnAck::Accepted { session_present: false }.encode(&mut connack);
        let action = device.handle(NOW, Event::Received(&mut &connack[..]), &mut tx);
        assert_eq!(action, Ok(Action::Connected { session_present: false }));
    }
    device
}

/// What the device makes of `bytes` that come `step` at a time: the reason for which it closes, if it does.
fn verdict(online: bool, bytes: &[u8], step: usize) -> Option<CloseReason> {
    let (mut device, mut tx) = (device(online), Vec::new());
    let mut taken = 0;
    for end in (step..bytes.len()).step_by(step).chain([bytes.len()]) {
        loop {
            let mut rx = &bytes[taken..end];
            match device.handle(NOW, Event::Received(&mut rx), &mut tx) {
                Ok(Action::Wait(Wait::Read { .. })) => break,
                Ok(action) => assert_eq!(action, Action::Handled),
                Err(close) => {
                    assert_eq!(device.status().connection, ConnectionState::Ended);
                    assert!(close.offending().end <= bytes.len(), "{close}");
                    return Some(close.reason());
                }
            }
            taken = end - rx.len();
        }
    }
    None
}

#[test]
fn every_invalid_packet_closes_the_connection_however_it_is_cut_and_an_unfinished_one_is_waited_for() {
    let cases = load("packets_invalid");
    let from_server: Vec<_> = cases.iter().filter(|case| text(&case["from"]) != "client").collect();
    assert_eq!(from_server.len(), 20);
    for case in from_server {
        let bytes = bytes(case);
        for online in [false, true] {
            let whole = verdict(online, &bytes, bytes.len());
            assert_eq!(whole.is_none(), text(&case["expect"]) == "incomplete", "{}: {whole:?}", name(case));
            assert_eq!(verdict(online, &bytes, 1), whole, "{} byte by byte", name(case));
        }
    }
}

#[test]
fn what_only_a_client_may_send_closes_the_connection_too() {
    for case in load("packets_invalid").iter().chain(&load("packets_valid")) {
        let bytes = bytes(case);
        // CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ and DISCONNECT.
        let client_only = bytes.first().is_some_and(|first| [1, 8, 10, 12, 14].contains(&(first >> 4)));
        let whole = case["decoded_stream"].is_null() && case["expect"] != "incomplete";
        if client_only && whole {
            assert!(verdict(true, &bytes, bytes.len()).is_some(), "{}", name(case));
        }
    }
}
