//! Headers, SASL, open, idle time-outs and the bounds for strangers.

use core::time::Duration;

use devicebound::time::Instant;
use devicebound_amqp::limits::{AUTHENTICATION_TIME, BEFORE_AUTHENTICATION_MAX, SILENCE_MAX};
use devicebound_amqp::{Action, Rule};

use super::client::*;

const SASL: &[u8] = b"AMQP\x03\x01\x00\x00";
const AMQP: &[u8] = b"AMQP\x00\x01\x00\x00";

#[test]
fn a_client_with_anonymous_sasl_gets_through_to_open() {
    let mut hub = Hub::new();
    let actions =
        hub.hear(&[SASL, &sasl_init("ANONYMOUS", b"\0name"), AMQP, &open(), &begin(1, 10)].concat());
    assert_eq!(actions.len(), 1, "{actions:?}");
    let said = hub.said();
    assert!(said[0] == "sasl 40" && said[1] == "sasl 44", "{said:?}");
    assert!(
        said[2].contains("max_frame_size: Some(65536)") && said[2].contains("idle_time_out: Some(240000)"),
        "{said:?}"
    );
    assert!(said[3].contains("remote_channel: Some(1)"), "{said:?}");
}

#[test]
fn a_client_without_sasl_opens_at_once() {
    let mut hub = Hub::new();
    assert_eq!(hub.hear(&[AMQP, &open()].concat()).len(), 1);
    assert!(hub.tx.starts_with(AMQP));
}

#[test]
fn while_the_caller_decides_on_credentials_nothing_is_read() {
    let mut hub = Hub::new();
    let bytes = [SASL, &sasl_init("PLAIN", b"\0user\0token"), AMQP, &open()].concat();
    let mut rx = &bytes[..];
    assert!(matches!(hub.connection.receive(NOW, &mut rx, &mut hub.tx), Action::Authenticate(_)));
    let left = rx.len();
    assert_eq!(hub.connection.receive(NOW, &mut rx, &mut hub.tx), Action::Wait);
    assert_eq!(rx.len(), left);
    hub.connection.authenticate(true, &mut hub.tx);
    assert!(matches!(hub.connection.receive(NOW, &mut rx, &mut hub.tx), Action::Opened(_)));
}

#[test]
fn wrong_credentials_end_with_the_outcome_auth() {
    let mut hub = Hub::new();
    hub.hear(&[SASL, &sasl_init("EXTERNAL", b"")].concat());
    hub.tx.clear();
    hub.connection.authenticate(false, &mut hub.tx);
    assert!(hub.connection.is_closed());
    assert!(hub.tx.windows(2).any(|pair| pair == [0x50, 1]), "{:02x?}", hub.tx);
}

#[test]
fn another_protocol_is_answered_with_the_header_that_would_be_right() {
    for first in [&b"AMQP\x01\x01\x00\x0a"[..], b"GET / HT", b"\x10\x16\x00\x04MQTT", b"AMQP\x02\x01\x00\x00"]
    {
        let mut hub = Hub::new();
        let actions = hub.hear(first);
        assert!(actions[0].contains("ProtocolHeader"), "{actions:?}");
        assert_eq!(hub.tx, SASL);
    }
}

#[test]
fn a_stranger_is_heard_for_as_long_and_as_far_as_the_bounds_say() {
    let mut hub = Hub::new();
    hub.hear(&[AMQP, &open(), &begin(0, 10)].concat());
    let late = NOW.after(AUTHENTICATION_TIME);
    assert_eq!(hub.connection.poll_timeout(), Some(late));
    let action = hub.connection.expire(late, &mut hub.tx);
    assert!(matches!(action, Action::Closed { rule: Rule::AuthenticationTime, .. }), "{action:?}");
    assert_eq!(hub.condition().as_deref(), Some("amqp:unauthorized-access"));

    let mut hub = Hub::new();
    hub.hear(&[AMQP, &open(), &begin(0, 10)].concat());
    // The size alone tells: the bytes are not waited for.
    let actions = hub.hear(&(BEFORE_AUTHENTICATION_MAX as u32).to_be_bytes());
    assert!(actions[0].contains("AuthenticationBytes"), "{actions:?}");
    let mut hub = Hub::open();
    assert_eq!(hub.hear(&60_000_u32.to_be_bytes()), [""; 0], "it is known who it is");
}

#[test]
fn a_quiet_client_hears_from_the_hub_before_half_of_its_idle_time() {
    let mut hub = Hub::opened(&open_with(512, 3000), 10);
    let next = hub.connection.poll_timeout().unwrap();
    assert!(next.since(NOW) < Duration::from_millis(1500), "{next:?}");
    assert_eq!(hub.connection.expire(next, &mut hub.tx), Action::Wait);
    assert_eq!(hub.said(), ["heartbeat"]);
    assert!(hub.connection.poll_timeout().unwrap() > next);
}

#[test]
fn a_client_that_is_silent_for_twice_the_announced_time_is_cut_and_not_before() {
    let mut hub = Hub::open();
    let end = NOW.after(SILENCE_MAX);
    assert_eq!(hub.connection.expire(Instant::from_micros(end.as_micros() - 1), &mut hub.tx), Action::Wait);
    assert!(matches!(hub.connection.expire(end, &mut hub.tx), Action::Closed { rule: Rule::Silence, .. }));
    assert_eq!(hub.condition().as_deref(), Some("amqp:resource-limit-exceeded"));
    assert_eq!(hub.connection.poll_timeout(), None);
}

#[test]
fn an_idle_time_that_the_hub_cannot_serve_is_refused() {
    let mut hub = Hub::new();
    hub.hear(&[AMQP, &open_with(65536, 5)].concat());
    assert_eq!(hub.condition().as_deref(), Some("amqp:not-allowed"));
}

#[test]
fn close_is_answered_and_ends_it() {
    let mut hub = Hub::open();
    let actions = hub.hear(&[close(), open()].concat());
    assert_eq!(actions, ["Closed { rule: Closed, error: None }"]);
    assert_eq!(hub.said().len(), 1);
}
